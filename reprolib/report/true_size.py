"""What runs at true size on a GPU left under ``results/gpu``, as one table a kind.

``records`` are runs as everywhere else; ``official`` holds what a pretrained model was asked besides, ``models`` how targets and twins
were trained and what they know, ``cost`` time and memory of training steps. A table without files is empty and has its columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib.errors import RecordError
from reprolib.record import read, results_dir

if TYPE_CHECKING:
    import pandas

GIB = 1 << 30
MADE = ("gpu", "processes", "commit", "time")
COLUMNS = {
    "records": ("testbed", "method", "seed", "precision", "options", "status", "fingerprint", "wall_s", "peak_gib", *MADE),
    "official": ("testbed", "method", "fingerprint", "questions", *MADE),
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
    words = ("runs", "official scores", "models", "rows of cost")
    counts = ", ".join(f"{len(t)} {word}" for t, word in zip(found.values(), words, strict=True))
    return f"At true size there are: {counts}; made on {' and '.join(gpus) or 'no GPU'}."


def _record(path: Path) -> list[dict[str, Any]]:
    r = read(path)
    s = r.spec
    own = {"testbed": s.testbed, "method": s.method, "seed": s.seed, "precision": s.precision, "options": dict(s.options)}
    cost = {"wall_s": r.cost.get("wall_s"), "peak_gib": _gib(r.cost.get("peak_bytes"))}
    return [own | {"status": r.status, "fingerprint": r.fingerprint} | cost | _made(r.provenance) | r.metrics]


def _official(path: Path) -> list[dict[str, Any]]:
    raw = _raw(path, "fingerprint", "metrics", "mmlu_questions")
    bed, method = "/".join(path.parts[-4:-2]), path.parts[-2]
    own = {"testbed": bed, "method": method, "fingerprint": raw["fingerprint"], "questions": raw["mmlu_questions"]}
    return [own | _made(raw["provenance"]) | raw["metrics"]]


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
    "records": _record, "official": _official, "models": _model, "cost": _cost,
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
