"""What a run's logged states say: the way to its model, and the moment when forgetting reaches a level."""

from __future__ import annotations

import math

import numpy as np

from reprolib.metrics.effects import at_matched
from reprolib.record import Record


def way(record: Record) -> list[dict[str, float]]:
    """The logged states on the way to the record's model, numbers only; cut where a number is not finite.

    Left out are states whose weights were thrown away: those of stages before the last one that starts again
    from the weights before unlearning, or before the last change of the weights that is not training (a merge
    of adapters, a task vector). "jump" marks a state that no path of small steps leads to: nothing may be
    interpolated up to it. The run's end closes the list, and is all there is where nothing was logged (the
    sanity ladder).
    """
    stages = record.stages
    afresh = [
        i for i, s in enumerate(stages) if s.get("restart") or s.get("is", "Stage") not in ("Stage", "Noise")
    ]
    kept = {s.get("name", "") for s in stages[afresh[-1] :]} if afresh else None
    names = ("forget/questions", "attack/auc", "retain/questions", "world/accuracy", "retain/kl")
    out: list[dict[str, float]] = []
    for p in record.trajectory:
        if kept is not None and p.get("stage") and p["stage"] not in kept:
            continue
        point = {k: _number(p.get(k)) for k in names}
        if not all(math.isfinite(v) for k, v in point.items() if k != "retain/kl"):
            break
        point["jump"] = float(bool(out) and "stage" in p and "loss" not in p)
        out.append(point)
    end = {k: _number(record.metrics.get(k)) for k in names}
    if all(math.isfinite(v) for k, v in end.items() if k != "retain/kl"):
        same = out and all(
            abs(end[k] - out[-1][k]) < 1e-3 for k in names if math.isfinite(end[k] - out[-1][k])
        )
        if not same:  # the model is not the last logged state, or nothing was logged
            out.append(end | {"jump": 1.0})
    return out


def at_level(record: Record, level: float) -> dict[str, float] | None:
    """Readings at the moment when forget questions first come down to ``level``; None if they never do.

    Between two logged states of one training, by linear interpolation; a jump is read where it lands.
    """
    points = way(record)
    for i, point in enumerate(points):
        if point["forget/questions"] > level:
            continue
        if i == 0 or point["jump"]:
            return {k: v for k, v in point.items() if k != "jump"}
        x = [p["forget/questions"] for p in points[i - 1 : i + 1]]
        pair = {k: [p[k] for p in points[i - 1 : i + 1]] for k in point if k != "jump"}
        return {
            k: at_matched(x, y, level).value if np.isfinite(y).all() else math.nan for k, y in pair.items()
        }
    return None


def _number(x: float | None) -> float:
    """A null of a record is a number that was not finite."""
    return math.nan if x is None else float(x)
