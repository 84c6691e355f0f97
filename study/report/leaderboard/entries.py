"""The rows of the leaderboard, in its order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprolib.metrics.resample import SeedsInterval, seeds_interval
from reprolib.recipes import recipe
from reprolib.recipes.base import Stage
from reprolib.record import Record
from study.readings import twin
from study.readings.quantities import LADDER
from study.readings.twin import LEVEL, bound, by_seed, closed, extent, family, mean, ranking
from study.report import style

Study = Mapping[str, Sequence[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the leaderboard. Readings are means over seeds; the interval is Student's t over seeds, cut at
    1.
    """

    method: str
    seeds: int
    diverged: int
    reached: int  # seeds that end at the level or below
    group: str  # whether all seeds do, some or none
    distances: tuple[float, ...]  # by seed
    gaps: tuple[float, ...]  # gap closed, by seed
    gap: SeedsInterval | None  # None where a seed has no finite one
    readings: Mapping[str, float]  # the five of the distance
    retains: str  # where the recipe uses retain rows (:func:`retains`); "" for the ladder
    cost: str  # of a step
    steps: float
    final: float  # official

    @property
    def label(self) -> str:
        return style.label(self.method)

    @property
    def family(self) -> str:
        if self.method in LADDER:
            return "ladder"
        return "bound" if bound(self.method) else family(self.method) or "other"

    @property
    def counts(self) -> bool:
        """Whether it is a method: neither the ladder nor a bound."""
        return self.family not in ("ladder", "bound")

    @property
    def distance(self) -> float:
        return sum(self.distances) / len(self.distances)

    @property
    def extent(self) -> tuple[float, float]:
        return extent(self.distances)


def board(study: Study, level: float = LEVEL) -> tuple[Entry, ...]:
    """The models of the study in the leaderboard's order (:func:`study.readings.twin.ranking`)."""
    return tuple(_entry(study, m, level) for m in ranking(study, study, level))


def _entry(study: Study, method: str, level: float) -> Entry:
    records = study[method]
    gaps = tuple(closed(study, method).values())
    five = [twin.readings(r) for r in records]
    steps = [r.cost.get("steps", math.nan) for r in records]
    return Entry(
        method=method,
        seeds=len(records),
        diverged=sum(r.status == "diverged" for r in records),
        reached=twin.reached(study, method, level),
        group=twin.group(study, method, level),
        distances=tuple(by_seed(study, method).values()),
        gaps=gaps,
        gap=_cut(gaps) if all(math.isfinite(g) for g in gaps) else None,
        readings={k: sum(r[k] for r in five) / len(five) for k in five[0]},
        retains="" if method in LADDER else retains(method, records[0].spec.options),
        cost="" if method in LADDER else recipe(method).cost_class,
        steps=sum(steps) / len(steps),
        final=mean(records, "lume/final"),
    )


def retains(method: str, options: Mapping[str, Any] | None = None) -> str:
    """Where a recipe uses retain rows: "in the loss" of a stage, elsewhere as its optimizer or edit says, or
    "no".
    """
    stages = recipe(method).build(options or {})
    if any(isinstance(s, Stage) and s.objective.retain is not None for s in stages):
        return "in the loss"
    said = [s.optimizer.reads_retain if isinstance(s, Stage) else s.reads_retain for s in stages]
    return next((x for x in said if x), "no")


def _cut(values: Sequence[float]) -> SeedsInterval:
    i = seeds_interval(values)
    return i._replace(high=min(1.0, i.high)) if math.isfinite(i.high) else i


def titles(level: float) -> dict[str, str]:
    """Group -> what its models have in common, as a heading."""
    most = f"at most {100 * level:.0f}\u202f% of the forget questions answered"
    return {
        "all": f"all seeds end with {most}",
        "some": f"only some seeds end with {most}",
        "none": f"no seed ends with {most}",
    }


def tint(e: Entry) -> str:
    """One colour a family here, so that a legend of families holds for all rows."""
    return (
        style.colour(e.method)
        if e.family in ("ladder", "other")
        else style.FAMILIES["baseline" if e.family == "bound" else e.family]
    )
