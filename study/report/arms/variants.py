"""Variants of a method at several rates, each at its best: what is compared, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.stats import ttest_1samp

from reprolib.errors import SpecError, unknown
from reprolib.metrics.effects import holm
from reprolib.metrics.resample import SeedsInterval, seeds_interval
from reprolib.record import Record
from study.grid import Search
from study.readings import gate
from study.readings.gate import seeds
from study.readings.trajectory import at_level, way
from study.readings.twin import LEVEL, between
from study.report import style

KEYS = ("method", "options", "rate", "rates", "precision", "forget_documents", "forget_rows")
KEPT, DISTANCE = "kept", "distance"
GUESS = "≈ "  # before what is kept at a level that most seeds leapt over

# more than this share of the forget questions, and in the next line of the log the level is behind
STEEP = 0.5


def steep(record: Record) -> bool:
    """Whether the level was passed in one great leap of the log, so that what is kept there is a straight
    line's guess.
    """
    points = way(record)
    first = next((i for i, p in enumerate(points) if p["forget/questions"] <= LEVEL), 0)
    return first > 0 and not points[first]["jump"] and points[first - 1]["forget/questions"] > STEEP


@dataclass(frozen=True, slots=True)
class Setting:
    """One learning rate of an arm."""

    rate: float | None
    records: tuple[Record, ...]  # by seed
    kept: tuple[float, ...]  # NaN for a seed that never gets there
    distance: tuple[float, ...]

    def values(self, reading: str) -> tuple[float, ...]:
        """By seed, one of the two readings."""
        return {KEPT: self.kept, DISTANCE: self.distance}[reading]

    @property
    def forgot(self) -> int:
        """Seeds that end at the level or below, with a distance at all."""
        ends = (r.metrics["forget/questions"] for r in self.records)
        return sum(
            math.isfinite(d) and end is not None and end <= LEVEL
            for d, end in zip(self.distance, ends, strict=True)
        )

    @property
    def guessed(self) -> bool:
        """Whether what is kept at the level is a straight line's guess in most of the seeds that get
        there.
        """
        return 2 * sum(map(steep, self.records)) > sum(map(math.isfinite, self.kept))

    def place(self, reading: str) -> tuple[float, ...]:
        """What orders settings, the largest first: seeds that forgot and that have the reading at all, then
        the reading.
        """
        values = self.values(reading)
        there = sum(map(math.isfinite, values))
        return (there, mean_of(values)) if reading == KEPT else (self.forgot, there, -mean_of(values))


@dataclass(frozen=True, slots=True)
class Arm:
    label: str
    method: str
    settings: tuple[Setting, ...]
    # by reading: the best setting on seeds that chose nothing
    fresh: Mapping[str, Setting] = field(default_factory=dict)

    def best(self, reading: str) -> Setting:
        """The setting with the most kept, or the smallest distance, of those with most seeds that have the
        reading, or that forgot.
        """
        return max(self.settings, key=lambda s: s.place(reading))

    def shown(self, reading: str) -> Setting:
        """The best setting, on fresh seeds if the arm has any."""
        return self.fresh.get(reading) or self.best(reading)

    def at_edge(self, setting: Setting) -> bool:
        """Whether no smaller, or no larger, rate was tried."""
        rates = [s.rate for s in self.settings if s.rate is not None]
        return setting.rate is not None and setting.rate in (min(rates), max(rates))

    def values(self, reading: str) -> tuple[float, ...]:
        return self.shown(reading).values(reading)


Arms = Mapping[str, Arm]


def mean_of(values: Sequence[float]) -> float:
    """Over what is a finite number; NaN where nothing is."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def fields(label: str, arm: Mapping[str, Any]) -> list[tuple[float | None, dict[str, Any]]]:
    """(learning rate, fields of a run) for each setting of an arm as a page's parameters give it."""
    for key in arm:
        if key not in KEYS:
            raise SpecError(f"arm {label!r}: " + unknown("key", key, KEYS))
    if "method" not in arm:
        raise SpecError(f"arm {label!r}: method is missing; allowed keys: {', '.join(KEYS)}.")
    common = {k: v for k, v in arm.items() if k not in ("options", "rate", "rates")}
    options, rates = dict(arm.get("options", {})), arm.get("rates")
    if rates is not None and not isinstance(rates, list | tuple):
        raise SpecError(
            f"arm {label!r}: rates must be a list of learning rates, got {rates!r}; e.g. rates: [{rates!r}]."
        )
    if not rates:
        return [(None, common | ({"options": options} if options else {}))]
    return [(rate, common | {"options": {**options, arm.get("rate", "lr"): rate}}) for rate in rates]


def precisions(
    methods: Sequence[str], bases: Sequence[str], options: Mapping[str, Any], rates: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Arms that differ in the precision of the base: one for each method and base, named e.g. "NPO, nf4"."""
    return {
        f"{style.label(m)}, {p}": {"method": m, "options": options, "rates": rates, "precision": p}
        for m in methods
        for p in bases
    }


def gather(
    arms: Mapping[str, Mapping[str, Any]], testbed: str, seed: int | None = None, fresh: Sequence[int] = ()
) -> dict[str, Arm]:
    """Records of every arm, read where they exist and computed where not.

    ``fresh``: seeds on which each arm's best settings run once more, none of which is among those that
    choose. With one ``seed`` there is no choice to confirm, and they are left aside.
    """
    chosen = seeds(seed)
    fresh = () if seed is not None else _fresh(fresh, chosen)
    twins = {s: gate.record(testbed=testbed, method="twin", seed=s) for s in (*chosen, *fresh)}

    def setting(rate: float | None, own: Mapping[str, Any], over: Sequence[int]) -> Setting:
        records = tuple(gate.record(testbed=testbed, seed=s, **own) for s in over)
        away = tuple(between(r, twins[s]) for r, s in zip(records, over, strict=True))
        return Setting(rate, records, tuple(kept(r) for r in records), away)

    out = {}
    for label, arm in arms.items():
        own = fields(label, arm)
        tried = Arm(label, arm["method"], tuple(setting(rate, f, chosen) for rate, f in own))
        again = (
            {reading: tried.settings.index(tried.best(reading)) for reading in (KEPT, DISTANCE)}
            if fresh
            else {}
        )
        anew = {i: setting(*own[i], fresh) for i in set(again.values())}
        out[label] = replace(tried, fresh={reading: anew[i] for reading, i in again.items()})
    return out


def _fresh(given: Any, chosen: Sequence[int]) -> tuple[int, ...]:
    search = Search.load()
    used = [*chosen, *([search.seed] if search else [])]
    if not isinstance(given, list | tuple) or not all(
        isinstance(s, int) and not isinstance(s, bool) for s in given
    ):
        raise SpecError(
            f"fresh must be a list of seeds, whole numbers, got {given!r}; e.g. fresh: [3, 4, 5], or []"
            " for none."
        )
    wrong = sorted({s for s in given if s in used or given.count(s) > 1})
    if wrong:
        raise SpecError(
            f"fresh seeds must be other ones than those that choose settings or options, {used}, and each"
            f" once; got {list(given)}: look at {wrong}."
        )
    return tuple(given)


def kept(record: Record) -> float:
    """Mean of retain and world questions when the level is first reached; NaN if it never is."""
    found = at_level(record, LEVEL)
    return math.nan if found is None else (found["retain/questions"] + found["world/accuracy"]) / 2


def difference(arms: Arms, a: str, b: str, reading: str = KEPT) -> SeedsInterval | None:
    """a - b, seed by seed, each at its best setting, with a t interval over seeds; None if fewer than two
    seeds have both.
    """
    both = differences(arms, a, b, reading)
    return seeds_interval(both) if len(both) > 1 else None


def differences(arms: Arms, a: str, b: str, reading: str) -> list[float]:
    own, others = (
        {r.spec.seed: v for r, v in zip(s.records, s.values(reading), strict=True)}
        for s in (arms[k].shown(reading) for k in (a, b))
    )
    return [v - others[seed] for seed, v in own.items() if seed in others and math.isfinite(v - others[seed])]


def apart(arms: Arms, pairs: Sequence[tuple[str, str]], level: float = 0.05) -> list[tuple[str, str, str]]:
    """(better arm, worse arm, reading) of the pairs that are told apart, Holm-corrected over all pairs and
    both readings.

    The p-value is that of the paired t test that :func:`better` makes one by one; a pair counts once,
    whichever way it is asked. With fewer than three seeds nothing is told apart.
    """
    found = []
    for a, b in {frozenset(p): p for p in pairs}.values():
        for reading, gain in ((KEPT, 1), (DISTANCE, -1)):
            both = differences(arms, a, b, reading)
            if len(both) > 2:
                same = max(both) == min(both)  # no spread: no test, but a difference all the same
                p = float(both[0] == 0) if same else float(ttest_1samp(both, 0).pvalue)
                found.append((p, (a, b, reading) if gain * sum(both) > 0 else (b, a, reading)))
    corrected = holm([p for p, _ in found]) if found else []
    return [names for (_, names), p in zip(found, corrected, strict=True) if p < level]


def ahead(arms: Arms, pairs: Sequence[tuple[str, str]], level: float = 0.05) -> list[tuple[str, str, str]]:
    """Of the pairs, those whose first arm does better than its second: :func:`apart`, one way."""
    return [found for found in apart(arms, pairs, level) if found[:2] in {tuple(p) for p in pairs}]


def records(arms: Arms) -> list[Record]:
    # one fresh setting may be the best by both readings
    settings = (
        s for arm in arms.values() for s in (*arm.settings, *{id(s): s for s in arm.fresh.values()}.values())
    )
    return [r for s in settings for r in s.records]


def better(arms: Arms, a: str, b: str, reading: str) -> str:
    """Whether a does better than b: "yes", "no", "open" where seeds do not tell them apart, "none" where
    nothing can be compared.
    """
    found = difference(arms, a, b, reading)
    if found is None:
        return "none"
    gain = 1 if reading == KEPT else -1
    return "open" if found.low <= 0 <= found.high else "yes" if gain * found.estimate > 0 else "no"
