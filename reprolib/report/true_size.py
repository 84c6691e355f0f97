"""What runs at true size on a GPU left under ``results/gpu``, as one table a kind.

``records`` are runs as everywhere else, ``models`` how targets and twins were trained and what they know, ``cost`` time and memory of
training steps. A table without files is empty and has its columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib.errors import RecordError
from reprolib.record import Record, read, results_dir
from reprolib.report import style
from reprolib.report.page import between, say
from reprolib.report.tables import Table, number

if TYPE_CHECKING:
    import pandas

GIB = 1 << 30
MADE = ("gpu", "processes", "commit", "time")
COLUMNS = {
    "records": ("testbed", "method", "seed", "precision", "options", "status", "fingerprint", "wall_s", "peak_gib", *MADE),
    "models": ("testbed", "which", "seed", "parameters", "epochs", "nll", "seconds", "peak_gib", "fit", *MADE),
    "cost": ("case", "model", "method", "precision", "stage", "step_s", "tokens_per_s", "mfu", "peak_gib", "predicted_gib", *MADE),
}


def folder() -> Path:
    return results_dir() / "gpu"


def tables(base: Path | None = None) -> dict[str, pandas.DataFrame]:
    """Kind -> table, a row a file (in ``cost`` a row a stage); metrics in columns after the named ones."""
    import pandas

    out = {}
    for kind, rows_of in ROWS.items():
        rows = [row for path in sorted(((base or folder()) / kind).rglob("*.json")) for row in rows_of(path)]
        frame = pandas.DataFrame(rows)
        more = [c for c in frame.columns if c not in COLUMNS[kind]]
        out[kind] = frame.reindex(columns=[*COLUMNS[kind], *more])
    return out


def told(base: Path | None = None) -> str:
    """In a sentence, what there is."""
    found = tables(base)
    if all(t.empty for t in found.values()):
        return "No results at true size are part of this study yet: results/gpu holds none."
    gpus = sorted({g for t in found.values() for g in t["gpu"].dropna()})
    words = ("runs", "models", "rows of cost")
    counts = ", ".join(f"{len(t)} {word}" for t, word in zip(found.values(), words, strict=True))
    return f"At true size there are: {counts}; made on {' and '.join(gpus) or 'no GPU'}."


def _record(path: Path) -> list[dict[str, Any]]:
    r = read(path)
    s = r.spec
    own = {"testbed": s.testbed, "method": s.method, "seed": s.seed, "precision": s.precision, "options": dict(s.options)}
    cost = {"wall_s": r.cost.get("wall_s"), "peak_gib": _gib(r.cost.get("peak_bytes"))}
    return [own | {"status": r.status, "fingerprint": r.fingerprint} | cost | _made(r.provenance) | r.metrics]


def _model(path: Path) -> list[dict[str, Any]]:
    raw = _raw(path, "testbed", "which", "seed", "parameters", "training", "unfit", "metrics")
    own = {k: raw.get(k) for k in ("testbed", "which", "seed", "parameters", "seconds")}
    log = raw["training"]
    own |= {"epochs": len(log), "nll": log[-1]["nll"], "peak_gib": _gib(raw.get("peak_bytes")), "fit": not raw["unfit"]}
    return [own | _made(raw["provenance"]) | raw["metrics"]]


def _cost(path: Path) -> list[dict[str, Any]]:
    """A row a stage of training; one row for the GPU's own ceilings and for each comparison, whose numbers the file holds."""
    raw = _raw(path, "name", "case")
    own = {"case": raw["name"], **{k: raw["case"][k] for k in ("model", "method", "precision")}}
    if "stages" not in raw:
        own |= {k: raw[k] for k in ("bf16_tflops", "copy_gb_s", "ratio", "seconds", "peak_bytes") if k in raw}
        return [own | _made(raw["provenance"])]
    own |= {"peak_gib": _gib(raw["peak_bytes"]), "predicted_gib": _gib(raw["predicted_peak_bytes"])}
    return [own | {k: s[k] for k in ("stage", "step_s", "tokens_per_s", "mfu")} | _made(raw["provenance"]) for s in raw["stages"]]


ROWS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    "records": _record, "models": _model, "cost": _cost,
}  # fmt: skip


def _raw(path: Path, *needed: str) -> dict[str, Any]:
    remedy = "Restore it (git checkout), or remove it and run its step again."
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. {remedy}") from error
    missing = [k for k in (*needed, "provenance") if not isinstance(raw, dict) or k not in raw]
    if missing:
        raise RecordError(f"{path} lacks {missing}. {remedy}")
    return raw


def _made(provenance: Mapping[str, Any]) -> dict[str, Any]:
    machine = provenance["machine"]
    return {"gpu": machine.get("gpu"), "processes": machine.get("processes", 1)} | {k: provenance[k] for k in ("commit", "time")}


def _gib(size: float | None) -> float | None:
    return None if size is None else round(size / GIB, 2)


# --- the page -------------------------------------------------------------------------------------------------

STEPS = {"olmo-1b": "olmo-1b-scratch", "olmo-7b": "olmo-7b-scratch", "smollm2": "smollm2"}  # of the playbook, and what each unlearns


def runs(base: Path | None = None) -> list[Record]:
    return [read(path) for path in sorted(((base or folder()) / "records").rglob("*.json"))]


def answer(base: Path | None = None) -> Any:
    """What there is; of what is missing, which commands make it."""
    found = runs(base)
    there = {r.spec.testbed.partition("/")[0] for r in found}
    missing = [step for step, model in STEPS.items() if model not in there]
    lines = [told(base)]
    if missing:
        lines.append(
            f"Missing: {', '.join(f'`{m}`' for m in missing)}. On a machine with one GPU of 141 GB (80 GB for all but `olmo-7b`), from the root of the "
            f"repository, `python -m gpu run {' '.join(missing)}` makes them; `gpu/README.md` says what it needs and how long it takes. "
            "Until then nothing on this page was measured: its numbers are predictions, and say so."
        )
    return say("```{admonition} The answer\n:class: " + ("warning" if missing else "tip") + "\n" + "\n\n".join(lines) + "\n```")


def results(base: Path | None = None) -> Any:
    """Every run beside its twin, the closest first within a testbed; a sentence where there is none."""
    found = runs(base)
    twins = {(r.spec.testbed, r.spec.seed): r for r in found if r.spec.method == "twin"}
    rows = []
    for r in found:
        s, m = r.spec, r.metrics
        twin = twins.get((s.testbed, s.seed))
        rows.append({
            "model": s.testbed, "method": style.label(s.method), "seed": s.seed, "precision": s.precision,
            "options": ", ".join(f"{k} {v}" for k, v in sorted(s.options.items())) or "–",
            "distance": number(between(r, twin)) if twin else "–", "forget q.": number(m["forget/questions"]),
            "AUC": number(m["attack/auc"]), "retain q.": number(m["retain/questions"]), "world q.": number(m["world/accuracy"]),
            "status": r.status,
        })  # fmt: skip
    if not rows:
        return say("No runs yet.")
    rows.sort(key=lambda row: (row["model"], row["distance"] == "–", row["distance"]))
    return Table.of(rows, caption="All runs at true size, the closest to the twin of the same model first. One seed each unless more are listed: no intervals.")


def costs(base: Path | None = None) -> Any:
    """Measured seconds, throughput and memory beside the planner's prediction; a sentence where nothing was measured."""
    frame = tables(base)["cost"]
    frame = frame[frame["step_s"].notna()] if len(frame) else frame
    if not len(frame):
        return say("Nothing was measured yet.")
    rows = [
        {"model": r.model, "method": style.label(r.method), "precision": r.precision, "stage": r.stage, "step, s": f"{r.step_s:.3f}",
         "tokens a second": f"{r.tokens_per_s:,.0f}", "share of bf16 peak": f"{100 * r.mfu:.0f} %", "peak, GiB": number(r.peak_gib),
         "predicted, GiB": number(r.predicted_gib), "GPU": r.gpu}
        for r in frame.itertuples()
    ]  # fmt: skip
    return Table.of(rows, caption="Time and memory of a training step, as shipped. Predicted: reprolib.plan, before the run.")


def predictions(models: Sequence[str], cases: Mapping[str, Mapping[str, Any]], memory: Sequence[int] = (24, 80, 141)) -> Table:
    """Peak memory as the planner sees it, and on which GPUs (by memory in GB) it fits. ``cases``: title -> fields of :func:`reprolib.plan.plan`."""
    from reprolib.plan import fits, plan

    rows = []
    for model in models:
        for title, case in cases.items():
            found = plan(model, **case, target_beside=False)
            enough = [m for m in memory if fits(found.peak_bytes, replace(found.setting, gpu_memory_gib=m * 1e9 / GIB))]
            rows.append({
                "model": model, "run": title, "weights that move": f"{found.trained_parameters / 1e6:,.0f} M", "peak, GiB": f"{found.peak_bytes / GIB:.0f}",
                "most of it": max(found.parts, key=lambda p: p.bytes if largest(found) in p.phases else 0).name,
                "fits on": f"{enough[0]} GB" if enough else "none of them",
                "steps": f"{found.steps:,}", "on an H200": minutes(found.seconds("H200")),
            })  # fmt: skip
    shown = ", ".join(str(m) for m in memory)
    return Table.of(rows, caption=f"Predicted, not measured: peak memory in training or evaluation, without the target beside, the smallest GPU of {shown} GB that it fits on, and training "
                    "time at an assumed 30 % of the peak.")  # fmt: skip


def largest(found: Any) -> str:
    return max(found.phases, key=found.phases.get)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
