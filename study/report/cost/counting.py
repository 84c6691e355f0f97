"""Peaks of memory at true size, counted tensor by tensor without a GPU."""

from __future__ import annotations

from typing import Any

from reprolib.places import results_dir
from study.report import style, true_size
from study.report.cost.benchmarks import OBJECTIVES, benchmark
from study.report.tables import Table
from study.report.true_size import GIB
from study.report.words import listed, say


def counted() -> Any:
    """Peaks at true size as ``study/benchmarks/memory.py`` counted them without a GPU, beside the planner's;
    a sentence where it has not run.
    """
    made = benchmark("memory")
    own, versions, rows = made.get("settings", {}), made.get("versions", {}), []
    for case in counted_cases("predicted_peak_bytes"):
        options = {k: v for k, v in case["options"].items() if not k.endswith("epochs")}
        moves = options.get("trainable") or (
            f"LoRA {options['rank']}/{options['alpha']}" if "rank" in options else "as its recipe"
        )
        more = [f"{case['micro_tokens'] // own['tokens']} rows at a time"] if case["micro_tokens"] else []
        more += ["blocks computed again"] if case["checkpointing"] else []
        rows.append(
            {
                "model": case["model"].removesuffix("-scratch"),
                "method": style.label(case["method"]),
                "what moves": ", ".join([moves, *more]),
                "base": case["precision"],
                "counted, GiB": f"{case['peak_bytes'] / GIB:.1f}",
                "predicted, GiB": f"{case['predicted_peak_bytes'] / GIB:.1f}",
                "predicted / counted": f"{case['predicted_of_counted']:.3f}",
            }
        )
    if not rows:
        return say("Not counted here; `make bench` does it.")
    return Table.of(
        rows,
        caption=(
            f"Peak memory of a training step, counted on tensors without numbers: rows of {own['tokens']}"
            f" tokens, {own['labels']} of them predicted, 16 a side; torch {versions['torch']},"
            f" transformers {versions['transformers']}. No GPU was there: workspaces of its kernels, the"
            " allocator's loss and the context are not in it."
        ),
    )


def agreement() -> Any:
    """How far the planner is from what was counted, and what the shipped step holds of the plain ones'
    memory.
    """
    ratios = [case["predicted_of_counted"] for case in counted_cases("predicted_peak_bytes")]
    if not ratios:
        return None
    lines = [
        f"In all {len(ratios)} cases the planner's peak is {100 * min(ratios):.0f} to"
        f" {100 * max(ratios):.0f} % of the one counted."
    ]
    for case in counted_cases("shipped_of_it"):
        shares = [
            f"{style.label(OBJECTIVES[o])} {100 * own['plain']:.0f} %"
            for o, own in case["shipped_of_it"].items()
        ]
        model = case["model"].removesuffix("-scratch")
        lines.append(
            f"{model}, all weights in fp32, 16 rows a side of LUME's lengths: of what the plain step"
            f" holds, the shipped one holds for {listed(shares)}."
        )
    return say("\n".join(f"- {line}" for line in lines))


def counted_cases(key: str) -> list[dict[str, Any]]:
    """Cases of ``study/benchmarks/memory.py`` that have ``key``: peaks of methods, or of organisations."""
    cases = [case for case in benchmark("memory").get("cases", {}).values() if key in case]
    needed = {
        "predicted_peak_bytes": (
            "model",
            "method",
            "options",
            "precision",
            "micro_tokens",
            "checkpointing",
            "peak_bytes",
            "predicted_of_counted",
        )
    }
    for case in cases:
        true_size.require(results_dir() / "benchmarks" / "memory.json", case, *needed.get(key, ("model",)))
    return cases
