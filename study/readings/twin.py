"""The distance to the retrained twin, the gap closed, and the order that follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from reprolib.recipes import BASELINES, METHODS
from reprolib.record import Record
from study.readings.quantities import LADDER, value

LEVEL = 0.1  # share of the forget questions that a model which forgets enough may still answer
EQUAL = 0.01  # difference in the distance, or in forget questions, that counts as none

COLUMNS = {  # what is shown of a trial; all but the retain passages make up the distance
    "forget_questions": "forget q.",
    "forget_passages": "passages",
    "attack_auc": "AUC",
    "retain_questions": "retain q.",
    "retain_passages": "retain passages",
    "world_questions": "world q.",
    "distance": "distance",
}

READINGS, HEADS = tuple(COLUMNS), tuple(COLUMNS.values())


def enough(forget_questions: float) -> bool:
    """Whether a model that answers so many of the forget questions forgets enough; never if the number is not
    finite.
    """
    return forget_questions <= LEVEL + 1e-9


def family(method: str) -> str:
    """The family on the method's card; "" for one from outside the tree, or if the card names none."""
    known = METHODS.get(method)
    return "baseline" if method in BASELINES else getattr(known.card, "family", "") if known else ""


Study = Mapping[str, list[Record]]


def mean(records: Iterable[Record], metric: str) -> float:
    """Mean of a metric over the seeds; NaN if a run lost it (a null in its record)."""
    values = [r.metrics[metric] for r in records]
    return float("nan") if None in values else sum(values) / len(values)


def ordered(study: Study, methods: Iterable[str]) -> list[str]:
    """Methods by their distance to the twin, the closest first; those whose distance is not finite last."""
    far = {m: distance(study, m) for m in methods}
    return sorted(far, key=lambda m: (far[m] != far[m], far[m]))


def mean_rouge(records: Iterable[Record]) -> float:
    """Mean ROUGE-L recall of the forget passages, over rows and seeds."""
    values = [value(r, "forget_passages") for r in records]
    return sum(values) / len(values)


FOUR = {
    "forget_questions": "forget/questions",
    "attack_auc": "attack/auc",
    "retain_questions": "retain/questions",
    "world_questions": "world/accuracy",
}


def readings(record: Record) -> dict[str, float]:
    """The five readings that the distance is made of, each a share or an AUC; NaN where a run lost one."""
    four = {k: mean([record], metric) for k, metric in FOUR.items()}
    return four | {"forget_passages": mean_rouge([record])}


def between(record: Record, twin: Record) -> float:
    """Distance between two models: mean absolute difference over five readings, each a share or an AUC.

    Forget questions, forget passages (ROUGE-L), attack AUC, retain questions and world questions count alike.
    """
    own, goal = readings(record), readings(twin)
    return sum(abs(own[k] - goal[k]) for k in own) / len(own)


def by_seed(study: Study, method: str) -> dict[int, float]:
    """Distance of each seed's model to the twin of the same seed."""
    twins = {r.spec.seed: r for r in study["twin"]}
    return {r.spec.seed: between(r, twins[r.spec.seed]) for r in study[method]}


def distance(study: Study, method: str) -> float:
    """Distance to the twin of the same seed, mean over the seeds; 0 is the twin itself, NaN if a seed lost a
    reading.
    """
    values = by_seed(study, method).values()
    return sum(values) / len(values)


def spread(study: Study, method: str) -> tuple[float, float]:
    """Smallest and largest distance to the twin among the seeds."""
    return extent(by_seed(study, method).values())


def extent(values: Iterable[float]) -> tuple[float, float]:
    """Smallest and largest of the finite values; NaN if there are none."""
    finite = [v for v in values if math.isfinite(v)] or [math.nan]
    return min(finite), max(finite)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two ranges over seeds overlap: methods of which they do are not told apart, everywhere in the
    book.
    """
    return a[0] <= b[1] and b[0] <= a[1]


def closed(study: Study, method: str) -> dict[int, float]:
    """Gap closed by seed: 1 - distance / the target's distance, both to the twin of that seed. 1 is the twin,
    0 the untouched target.

    NaN where the target hardly differs from the twin, so that there is nothing to close.
    """
    start = by_seed(study, "target")
    return {s: 1 - d / start[s] if start[s] > 0.02 else math.nan for s, d in by_seed(study, method).items()}


def noise(study: Study) -> float:
    """Noise floor: the largest distance between twins of different seeds, which differ by chance alone; NaN
    with one seed.
    """
    return max((between(a, b) for a, b in combinations(study["twin"], 2)), default=math.nan)


GROUPS = ("all", "some", "none")  # of a model's seeds end at the level or below


def reached(study: Study, method: str, level: float = LEVEL) -> int:
    """How many seeds end with at most ``level`` of the forget questions answered."""
    return sum(readings(r)["forget_questions"] <= level + 1e-9 for r in study[method])


def group(study: Study, method: str, level: float = LEVEL) -> str:
    n = reached(study, method, level)
    return "none" if not n else "all" if n == len(study[method]) else "some"


def ranking(study: Study, methods: Iterable[str], level: float = LEVEL) -> list[str]:
    """The order of the leaderboard, which the first page follows too.

    First those of which all seeds end with at most ``level`` of the forget questions answered, by the mean
    gap closed, the largest first; then those of which only some seeds do, then those of which none does, both
    by the distance to the twin. Within a group, what is not finite comes last.
    """

    def place(method: str) -> tuple[float, ...]:
        own, far = group(study, method, level), distance(study, method)
        gaps = list(closed(study, method).values())
        gap, far = sum(gaps) / len(gaps), far if math.isfinite(far) else math.inf
        return GROUPS.index(own), -gap if own == "all" and math.isfinite(gap) else math.inf, far

    return sorted(methods, key=place)


def bound(method: str) -> bool:
    """Whether a method is none that anyone would use but a bound: damage without a method (noise), and labels
    without sense.
    """
    return method not in LADDER and family(method) == "baseline"


def within(interval: Any, high: float | None) -> Any:
    """A t interval cut to the metric's range, [0, high]."""
    top = interval.high if high is None else min(high, interval.high)
    return interval._replace(
        low=max(0.0, interval.low) if interval.low == interval.low else interval.low, high=top
    )
