"""What was measured at true size on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.report import style, true_size
from study.report.cost.benchmarks import OBJECTIVES
from study.report.tables import Table, number
from study.report.words import listed, ratio, say

COMMAND = "`python -m study.gpu run olmo-1b-cost olmo-7b-cost`"


def measured(base: Path | str | None = None) -> Any:
    """Measured seconds, throughput and memory beside the planner's prediction; a sentence where nothing was
    measured.
    """
    frame = true_size.tables(base)["cost"]
    frame = frame[frame["step_s"].notna()] if len(frame) else frame
    if not len(frame):
        return say(f"Nothing was measured at true size yet: {COMMAND} does it, see `study/gpu/README.md`.")
    rows = [
        {
            "model": r.model,
            "method": style.label(r.method),
            "precision": r.precision,
            "stage": r.stage,
            "step, s": f"{r.step_s:.3f}",
            "tokens a second": f"{r.tokens_per_s:,.0f}",
            "share of bf16 peak": "–" if r.mfu is None or r.mfu != r.mfu else f"{100 * r.mfu:.0f} %",
            "peak, GiB": number(r.peak_gib),
            "predicted, GiB": number(r.predicted_gib),
            "GPU": r.gpu or "none (CPU)",
        }
        for r in frame.itertuples()
    ]
    return Table.of(
        rows,
        caption=("Time and memory of a training step, as shipped. Predicted: reprolib.plan, before the run."),
    )


def ceilings(base: Path | str | None = None) -> Any:
    """What the GPU itself reaches, the shipped step against plain ones and FILA against VILA, each as
    measured there; nothing without files.
    """
    lines = []
    needed = {
        "ceilings": ("bf16_tflops", "copy_gb_s"),
        "importance": ("ratio",),
        "organisations": ("ratio",),
    }
    for path in sorted((true_size.folder(base) / "cost").glob("*.json")):
        found = true_size.read_json(path, "case.model", "case.method")
        own = found["case"]
        true_size.require(path, found, *needed.get(own["method"], ()))
        if own["method"] == "ceilings":
            lines.append(
                f"The GPU itself reaches {found['bf16_tflops']} TFLOP/s in a bf16 product and copies"
                f" {found['copy_gb_s']} GB/s."
            )
        elif own["method"] == "importance":
            said = listed([f"{r:.2f} times as long as {name}" for name, r in found["ratio"].items()])
            lines.append(f"{own['model']}: FILA's importance pass takes {said}, on the same rows.")
        elif own["method"] == "organisations":
            for objective, ratios in found["ratio"].items():
                said = listed([f"{name} takes {ratio(r)} times as long" for name, r in ratios.items()])
                lines.append(
                    f"{own['model']}, {style.label(OBJECTIVES[objective])}: {said} as the shipped step."
                )
    return say("\n".join(f"- {line}" for line in lines)) if lines else None
