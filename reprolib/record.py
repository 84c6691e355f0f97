"""Records: the append-only JSON result of one run, written whole or not at all."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprolib.errors import RecordError, SpecError
from reprolib.places import cache_dir, finite, results_dir, write_whole
from reprolib.recipes import recipe
from reprolib.spec import Spec
from reprolib.versions import SCHEMA

STATUSES = ("done", "diverged", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: what was asked, what came out, what it cost and where it was made."""

    spec: Spec
    fingerprint: str
    status: str
    metrics: dict[str, float]
    rows: dict[str, list]  # columns of per-row scores; documents are running numbers
    trajectory: list[dict[str, Any]]
    cost: dict[str, Any]  # wall_s, train_s, evaluate_s, peak_bytes, steps, trained_parameters, ...
    provenance: dict[str, Any]
    stages: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reason: str = ""  # why a run diverged or failed

    @property
    def label(self) -> str:
        return recipe(self.spec.method).card.label

    def series(self, name: str) -> list[float]:
        """A quantity along the trajectory."""
        return [float(p[name]) for p in self.trajectory]


def path_of(spec: Spec) -> Path:
    """The one file that may hold this spec's record. The fingerprint decides; the readable part may
    differ.
    """
    kind = "records" if spec.suite == "core" else spec.suite
    folder, fingerprint = results_dir() / kind / spec.testbed / spec.method, spec.fingerprint
    path = folder / f"{spec.slug}-{fingerprint}.json"
    return path if path.exists() else next(iter(sorted(folder.glob(f"*-{fingerprint}.json"))), path)


def find(spec: Spec) -> Record | None:
    """The record of a spec, or None. A file that cannot be read raises: results are never silently
    replaced.
    """
    path = path_of(spec)
    if not path.exists():
        return None
    record = read(path)
    if record.fingerprint != spec.fingerprint:
        raise RecordError(
            f"record {path} holds run {record.fingerprint}, not that of its name; rename or remove it."
        )
    return record


def read(path: Path | str) -> Record:
    path = Path(path)
    remedy = "Restore it (git checkout) or remove it; the run is then computed again."
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise RecordError(f"record {path} cannot be read: {e}. {remedy}") from e
    except json.JSONDecodeError as e:
        raise RecordError(f"record {path}, line {e.lineno}: not valid JSON ({e.msg}). {remedy}") from e
    fields = {f.name for f in dataclasses.fields(Record)}
    missing = sorted((fields | {"schema"}) - set(raw)) if isinstance(raw, dict) else sorted(fields)
    if missing:
        raise RecordError(f"record {path} lacks {missing}. {remedy}")
    if raw["schema"] != SCHEMA:
        raise RecordError(f"record {path} has schema {raw['schema']}, this version reads {SCHEMA}. {remedy}")
    if raw["status"] not in STATUSES:
        raise RecordError(f"record {path}: status {raw['status']!r} is none of {STATUSES}. {remedy}")
    kinds = {
        "spec": dict,
        "metrics": dict,
        "rows": dict,
        "cost": dict,
        "provenance": dict,
        "trajectory": list,
    }
    wrong = [k for k, kind in kinds.items() if not isinstance(raw[k], kind)]
    if wrong:
        raise RecordError(f"record {path}: {wrong} have the wrong type. {remedy}")
    try:
        spec = Spec.from_dict(raw["spec"])
    except SpecError as e:
        raise RecordError(f"record {path}: its spec is none of this version ({e}). {remedy}") from e
    unlike = [k for k, v in raw["rows"].items() if not isinstance(v, list | dict)]
    if unlike:
        raise RecordError(f"record {path}: its per-row columns {unlike} are no lists. {remedy}")
    rows = {k: _unpack(v) for k, v in raw["rows"].items()}
    if len({len(v) for v in rows.values()}) > 1:
        raise RecordError(f"record {path}: its per-row columns differ in length. {remedy}")
    return Record(**{**{k: raw[k] for k in fields}, "spec": spec, "rows": rows})


def write(record: Record, path: Path | None = None) -> Path:
    """Write atomically. If the results folder cannot take it, the record goes to the cache and the error says
    where.
    """
    path = path or path_of(record.spec)
    text = to_json(record)
    try:
        write_whole(path, text)
        return path
    except OSError as e:
        rescue = cache_dir() / "unsaved" / path.name
        try:
            write_whole(rescue, text)
        except OSError:
            raise RecordError(
                f"record {path} cannot be written ({e}), and neither can {rescue}; free space and run again."
            ) from e
        raise RecordError(
            f"record {path} cannot be written ({e}). Nothing is lost: it is kept as {rescue}; "
            f"free space or fix the permissions and move it to {path}."
        ) from e


def check_writable() -> None:
    """Find out before hours of computing, not after, that results cannot be written."""
    folder = results_dir() / "records"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise RecordError(
            f"the results folder {folder} cannot be written ({e}); fix its permissions or set"
            " REPROLIB_RESULTS to another folder."
        ) from e


def all_records(testbed: str | None = None, method: str | None = None) -> Iterator[Record]:
    """Every record of the core evaluation on disk, in the order of its path."""
    base = results_dir() / "records"
    for path in sorted((base / testbed if testbed else base).rglob("*.json")):
        record = read(path)
        if method is None or record.spec.method == method:
            yield record


def to_json(record: Record) -> str:
    """JSON that diffs well: a line a key, per-row columns one line each, equal neighbours run-length
    packed.
    """
    raw: dict[str, Any] = {"schema": SCHEMA}
    raw |= {f.name: getattr(record, f.name) for f in dataclasses.fields(Record)}
    raw["spec"] = record.spec.to_dict()
    rows = ",\n  ".join(
        f"{json.dumps(k)}: {json.dumps(_pack(v), separators=(',', ':'))}" for k, v in record.rows.items()
    )
    body = {k: v for k, v in raw.items() if k not in ("rows", "trajectory")}
    points = ",\n  ".join(json.dumps(finite(p)) for p in record.trajectory)
    lines = [f"{json.dumps(k)}: {json.dumps(finite(v))}" for k, v in body.items()]
    lines.append(f'"trajectory": [\n  {points}\n ]' if points else '"trajectory": []')
    lines.append(f'"rows": {{\n  {rows}\n }}' if rows else '"rows": {}')
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _pack(column: list) -> Any:
    """Run-length form of a column of strings, e.g. {"runs": [["forget", 120], ["retain", 120]]}."""
    if column and all(isinstance(v, str) for v in column):
        return {"runs": [[k, len(list(g))] for k, g in itertools.groupby(column)]}
    return [finite(v) for v in column]


def _unpack(column: Any) -> list:
    if isinstance(column, dict):
        return [v for v, n in column["runs"] for _ in range(n)]
    return list(column)


def state(spec: Spec) -> tuple[str, Record | None]:
    """A run's status and record; without a record "failed", if it was tried, or "missing"."""
    path = path_of(spec)
    if path.exists():
        record = read(path)
        return record.status, record
    return ("failed" if (results_dir() / "failed" / path.name).exists() else "missing"), None


def by_status(records: Iterable[Record]) -> dict[str, int]:
    counts = dict.fromkeys(STATUSES, 0)
    for r in records:
        counts[r.status] += 1
    return counts
