"""What an evaluation of a checkpoint gives, by model and part."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from reprolib.metrics.effects import gap_closed
from reprolib.places import finite

SCHEMA = 1  # of the files in the output folder
SUITES = ("core", "wide", "stress", "data")
ROLES = ("model", "target", "twin")  # in the order in which they are scored
LABELS = ("group", "task", "kind", "subject")  # columns that may hold names; all others hold numbers
NOISE = 0.01  # of a bounded metric's range: where target and twin differ by less, there is no gap to close


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one part says of one model."""

    name: str
    title: str
    suite: str
    metrics: dict[str, float]
    rows: dict[str, list]  # columns of per-row scores; no text
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """All that was measured. ``results``: role ("model", and "target", "twin" if given) -> part -> its
    result.
    """

    models: dict[str, dict[str, Any]]  # role -> name, fingerprint, architecture, parameters, adapter
    data: dict[str, Any]
    settings: dict[str, Any]
    results: dict[str, dict[str, Result]]
    skipped: dict[str, str] = field(default_factory=dict)  # part -> why it gave nothing
    failed: tuple[str, ...] = ()  # those of them that broke
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def metrics(self, role: str = "model") -> dict[str, float]:
        return {k: v for r in self.results.get(role, {}).values() for k, v in r.metrics.items()}

    def gap(self, name: str, noise: float = 1e-9) -> float:
        """Share of the way from target to twin that the model has gone (0: as the target, 1: as the twin).

        NaN without a target and a twin, where a value is missing or not finite, or where they differ by less
        than ``noise``.
        """
        values = [self.metrics(role).get(name, math.nan) for role in ("model", "target", "twin")]
        own, target, twin = values
        return gap_closed(own, target, twin, noise) if all(map(math.isfinite, values)) else math.nan


def to_json(a: Assessment) -> str:
    """Everything, as JSON that diffs well: one line a part, a metric block and a column. No text of the
    data.
    """
    body = {
        "schema": SCHEMA,
        "models": a.models,
        "data": a.data,
        "settings": a.settings,
        "notes": list(a.notes),
        "skipped": a.skipped,
        "gap_closed": {k: g for k in a.metrics() if math.isfinite(g := a.gap(k))},
        "provenance": a.provenance,
    }
    lines = [f"{json.dumps(k)}: {json.dumps(finite(v))}" for k, v in body.items()]
    roles = []
    for role, parts in a.results.items():
        own = [f"{json.dumps(n)}: {json.dumps(finite(dataclasses.asdict(r)))}" for n, r in parts.items()]
        roles.append(f"{json.dumps(role)}: {{\n   " + ",\n   ".join(own) + "\n  }")
    lines.append('"results": {\n  ' + ",\n  ".join(roles) + "\n }")
    return "{\n " + ",\n ".join(lines) + "\n}\n"
