"""What runs at true size left under ``results/gpu``, read as one table a kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib.errors import RecordError
from reprolib.places import results_dir
from reprolib.record import Record, read

if TYPE_CHECKING:
    import pandas

GIB = 1 << 30
REMEDY = "Restore it (git checkout), or remove it and run its step again."
MADE = ("gpu", "processes", "commit", "time")

COLUMNS = {
    "records": (
        "testbed",
        "method",
        "seed",
        "precision",
        "options",
        "status",
        "fingerprint",
        "wall_s",
        "peak_gib",
        *MADE,
    ),
    "models": (
        "testbed",
        "which",
        "seed",
        "parameters",
        "epochs",
        "nll",
        "seconds",
        "peak_gib",
        "fit",
        *MADE,
    ),
    "cost": (
        "case",
        "model",
        "method",
        "precision",
        "stage",
        "step_s",
        "tokens_per_s",
        "mfu",
        "peak_gib",
        "predicted_gib",
        *MADE,
    ),
}


def folder(base: Path | str | None = None) -> Path:
    """Where results at true size lie, unless told otherwise. The usual folder need not be there yet."""
    if base and not Path(base).is_dir():
        raise RecordError(
            f"{base} is {'a file' if Path(base).exists() else 'not there'}; allowed: a folder with"
            " records/, models/ or cost/. Give one, or nothing for results/gpu."
        )
    return Path(base) if base else results_dir() / "gpu"


def tables(base: Path | str | None = None) -> dict[str, pandas.DataFrame]:
    """Kind -> table, a row a file (in ``cost`` a row a stage); metrics in columns after the named ones."""
    import pandas  # takes a while, and only pages of true size need it

    out = {}
    for kind, rows_of in ROWS.items():
        rows = [row for path in sorted((folder(base) / kind).rglob("*.json")) for row in rows_of(path)]
        frame = pandas.DataFrame(rows)
        more = [c for c in frame.columns if c not in COLUMNS[kind]]
        out[kind] = frame.reindex(columns=[*COLUMNS[kind], *more])
    return out


def told(base: Path | str | None = None) -> str:
    """In a sentence, what there is."""
    found = tables(base)
    if all(t.empty for t in found.values()):
        return f"No results at true size are part of this study yet: {base or 'results/gpu'} holds none."
    gpus = sorted({g for t in found.values() for g in t["gpu"].dropna()})
    words = ("runs", "models", "rows of cost")
    counts = ", ".join(f"{len(t)} {word}" for t, word in zip(found.values(), words, strict=True))
    return f"At true size there are: {counts}; made on {' and '.join(gpus) or 'no GPU'}."


def runs(base: Path | str | None = None) -> list[Record]:
    return [read(path) for path in sorted((folder(base) / "records").rglob("*.json"))]


def _record(path: Path) -> list[dict[str, Any]]:
    r = read(path)
    s = r.spec
    own = {
        "testbed": s.testbed,
        "method": s.method,
        "seed": s.seed,
        "precision": s.precision,
        "options": dict(s.options),
    }
    cost = {"wall_s": r.cost.get("wall_s"), "peak_gib": _gib(r.cost.get("peak_bytes"))}
    return [own | {"status": r.status, "fingerprint": r.fingerprint} | cost | _made(r.provenance) | r.metrics]


def _model(path: Path) -> list[dict[str, Any]]:
    raw = read_json(path, "testbed", "which", "seed", "parameters", "training", "unfit", "metrics")
    own = {k: raw.get(k) for k in ("testbed", "which", "seed", "parameters", "seconds")}
    log = raw["training"]
    own |= {
        "epochs": len(log),
        "nll": log[-1]["nll"] if log else None,
        "peak_gib": _gib(raw.get("peak_bytes")),
        "fit": not raw["unfit"],
    }
    return [own | _made(raw["provenance"]) | raw["metrics"]]


def _cost(path: Path) -> list[dict[str, Any]]:
    """A row a stage of training; one row for the GPU's own ceilings and for each comparison, whose numbers
    the file holds.
    """
    raw = read_json(path, "name", "case.model", "case.method", "case.precision")
    own = {"case": raw["name"], **{k: raw["case"][k] for k in ("model", "method", "precision")}}
    if "stages" not in raw:
        own |= {k: raw[k] for k in ("bf16_tflops", "copy_gb_s", "ratio", "seconds", "peak_bytes") if k in raw}
        return [own | _made(raw["provenance"])]
    require(path, raw, "peak_bytes", "predicted_peak_bytes")
    own |= {"peak_gib": _gib(raw["peak_bytes"]), "predicted_gib": _gib(raw["predicted_peak_bytes"])}
    return [
        own | {k: s[k] for k in ("stage", "step_s", "tokens_per_s", "mfu")} | _made(raw["provenance"])
        for s in raw["stages"]
    ]


ROWS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    "records": _record, "models": _model, "cost": _cost,
}  # fmt: skip


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """A file's content, with its provenance and the ``needed`` keys in it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. {REMEDY}") from error
    require(path, raw, *needed, "provenance.machine", "provenance.commit", "provenance.time")
    return raw


def require(path: Path, raw: Any, *needed: str) -> None:
    """Refuse what a file holds if one of these keys is not in it (``case.method``: a key within a key)."""

    def has(name: str) -> bool:
        inner = raw
        for key in name.split("."):
            if not isinstance(inner, dict) or key not in inner:
                return False
            inner = inner[key]
        return True

    if missing := [k for k in needed if not has(k)]:
        raise RecordError(f"{path} lacks {', '.join(missing)}. {REMEDY}")


def _made(provenance: Mapping[str, Any]) -> dict[str, Any]:
    machine = provenance["machine"]
    return {"gpu": machine.get("gpu"), "processes": machine.get("processes", 1)} | {
        k: provenance[k] for k in ("commit", "time")
    }


def _gib(size: float | None) -> float | None:
    return None if size is None else round(size / GIB, 2)
