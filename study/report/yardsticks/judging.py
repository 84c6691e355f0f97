"""Which metric tells a target from its twin, judged by whole models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from reprolib.metrics import meta
from reprolib.metrics.effects import standardised_difference
from reprolib.metrics.resample import Interval
from reprolib.record import Record
from study.readings import gate
from study.readings.gate import gather
from study.report.yardsticks.definitions import ATTACKS, Columns, rows_of, value

# --- which metric tells models that know from models that do not? -------------------------------------------

MEASURE, CONTROL, BUILT, OPEN = "measure", "control", "built", "open"

ROLES = {
    MEASURE: "Measures of the forget rows",
    CONTROL: "Controls: they read no forget row",
    BUILT: "Built on the target or the twin: separated by construction",
    OPEN: "No direction was fixed: the larger of AUC and 1 - AUC, above 0.5 by construction",
}

# What a metric of a record is here, and whether more of it (+1) or less (-1) means that more is remembered;
# the first pattern that fits.
DIRECTIONS: tuple[tuple[str, str, int], ...] = (
    ("*/retain/kl", BUILT, -1),
    ("retain/kl", BUILT, -1),
    ("tofu/forget_quality", BUILT, -1),
    ("tofu/log10_p", BUILT, -1),
    ("tofu/ks_distance", BUILT, 1),
    ("muse/privleak*", BUILT, -1),
    ("attacks/reference/*", BUILT, 1),
    ("fluency/*/perplexity", BUILT, -1),
    ("lume/forget/*", MEASURE, -1),
    ("quantization/*/lume/*", MEASURE, -1),
    ("lume/retain/*", CONTROL, 1),
    ("lume/*", MEASURE, -1),
    ("quantization/*/forget/nll", MEASURE, -1),
    ("quantization/*/forget/*", MEASURE, 1),
    ("quantization/*/attack/auc", MEASURE, 1),
    ("quantization/*/nll", CONTROL, -1),
    ("quantization/*", CONTROL, 1),
    ("relearning/*/retain_questions", CONTROL, 1),
    ("relearning/*", MEASURE, 1),
    ("prompts/forget/*", MEASURE, 1),
    ("prompts/*", CONTROL, 1),
    ("tofu/forget/parity_score*", MEASURE, -1),
    ("tofu/forget/*", MEASURE, 1),
    ("tofu/*", CONTROL, 1),
    ("muse/verbmem", MEASURE, 1),
    ("muse/knowmem_forget", MEASURE, 1),
    ("muse/knowmem_retain", CONTROL, 1),
    ("muse/auc", MEASURE, 1),
    ("attacks/*", MEASURE, 1),
    ("attack/auc", MEASURE, 1),
    ("forget/nll", MEASURE, -1),
    ("forget/*", MEASURE, 1),
    ("retain/nll", CONTROL, -1),
    ("holdout/nll", CONTROL, -1),
    ("retain/*", CONTROL, 1),
    ("holdout/*", CONTROL, 1),
    ("world/*", CONTROL, 1),
    ("fluency/forget/*", OPEN, 0),
    ("fluency/*", CONTROL, 0),
)

# Numbers of the data, of the twin, or of a probe, that no model changes.
COUNTS = (
    "attacks/length_auc",
    "attacks/matched_pairs",
    "tofu/utility_parts",
    "tofu/forget_rows*",
    "muse/auc_twin",
    "fluency/*/scored",
    "routing/*",
)

# Metric -> suite, column and kind of the rows that it is the mean of (or the attack on), and the sign of
# "remembered": for one document alone.
SINGLE: dict[str, tuple[str, str, str | None, int]] = {
    "forget/nll": ("core", "nll", None, -1),
    "forget/em": ("core", "em", None, 1),
    "forget/es": ("core", "es", None, 1),
    "forget/sc/em": ("core", "em", "sc", 1),
    "forget/qa/em": ("core", "em", "qa", 1),
    "forget/questions": ("core", "score", "qa", 1),
    "attack/auc": ("core", "text_nll", "sc", -1),
    "retain/nll": ("core", "nll", None, -1),
    "retain/em": ("core", "em", None, 1),
    "retain/es": ("core", "es", None, 1),
    "retain/questions": ("core", "score", "qa", 1),
    "holdout/nll": ("core", "nll", None, -1),
    "holdout/em": ("core", "em", None, 1),
    "holdout/es": ("core", "es", None, 1),
    "world/accuracy": ("core", "score", None, 1),
    **{f"attacks/{k}/auc": ("wide", f"attack_{k}", "sc", 1) for k in ATTACKS},
    "tofu/forget/probability": ("wide", "tofu_probability", None, 1),
    "tofu/forget/rouge_l_recall": ("wide", "tofu_rouge", None, 1),
    "tofu/forget/truth_ratio_new": ("wide", "truth_ratio", None, -1),
    "muse/verbmem": ("wide", "muse_verbmem", None, 1),
    "tofu/retain/probability": ("wide", "tofu_probability", None, 1),
    "tofu/retain/rouge_l_recall": ("wide", "tofu_rouge", None, 1),
    "tofu/retain/truth_ratio_new": ("wide", "truth_ratio", None, -1),
    "tofu/world/option_probability": ("wide", "tofu_probability", None, 1),
    "muse/knowmem_forget": ("wide", "muse_knowmem", None, 1),
    "muse/knowmem_retain": ("wide", "muse_knowmem", None, 1),
    "muse/auc": ("wide", "muse_min_k", "sc", -1),
}

SUITES = ("core", "wide", "stress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Targets and twins: by seed the records of each suite."""

    target: Mapping[int, Mapping[str, Record]]
    twin: Mapping[int, Mapping[str, Record]]

    @property
    def records(self) -> list[Record]:
        return [r for side in (self.target, self.twin) for suites in side.values() for r in suites.values()]

    def pairs(self, metric: str) -> list[tuple[int, float, float]]:
        """(seed, value of the target, value of the twin), of the seeds that have both."""
        out = []
        for s in sorted(set(self.target) & set(self.twin)):
            found = [
                next((value(r, metric) for r in side[s].values() if metric in r.metrics), math.nan)
                for side in (self.target, self.twin)
            ]
            if all(math.isfinite(v) for v in found):
                out.append((s, *found))
        return out


def pool(
    testbed: str, seed: int | None = None, more: Sequence[int] = (), suites: Sequence[str] = SUITES
) -> Pool:
    """Targets and twins of the study's seeds and of ``more``; of one seed alone if ``seed`` is given."""
    seeds = (*gate.seeds(seed), *(more if seed is None else ()))
    found: dict[str, dict[int, dict[str, Record]]] = {"target": {}, "twin": {}}
    for which, side in found.items():
        for s in dict.fromkeys(seeds):
            side[s] = {
                x: gather([which], testbed, s, ladder=False, **({} if x == "core" else {"suite": x}))[which][
                    0
                ]
                for x in suites
            }
    return Pool(**found)


def direction(metric: str) -> tuple[str, int] | None:
    """(role, sign of "more is remembered") of a metric; None for numbers that no model changes."""
    if any(fnmatchcase(metric, p) for p in COUNTS):
        return None
    return next(
        ((role, sign) for pattern, role, sign in DIRECTIONS if fnmatchcase(metric, pattern)), (OPEN, 0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one metric says of targets and twins."""

    metric: str
    suite: str
    role: str
    models: int  # a side
    knows: float  # mean over targets
    does_not: float  # mean over twins
    faithfulness: Interval
    effect: Interval  # standardised difference by seed, positive where more is remembered
    # AUC of one document of a target against one of a twin; NaN where the records have no rows
    single: Interval

    @property
    def apart(self) -> bool:
        """Whether it tells every model that knows from every model that does not; a control may do so either
        way round.
        """
        return self.faithfulness.estimate == 1.0 or (
            self.role == CONTROL and self.faithfulness.estimate == 0.0
        )

    @property
    def place(self) -> tuple[float, float, str]:
        """Sorts the most faithful first; among equals, the one with the largest effect."""
        f, e = self.faithfulness.estimate, self.effect.estimate
        if self.role == CONTROL:
            f, e = max(f, 1 - f), abs(e)
        return -f, -e if not math.isnan(e) else 0.0, self.metric


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def verdicts(models: Pool, suites: Sequence[str] = SUITES, n: int = 500) -> list[Verdict]:
    """Every scalar metric, the most faithful first; among equals, the one with the largest effect."""
    out = []
    for x in suites:
        first = next((side[x] for side in models.target.values() if x in side), None)
        for metric in first.metrics if first else ():
            facts, pairs = direction(metric), models.pairs(metric)
            if facts is None or not pairs:
                continue
            role, sign = facts
            knows, does_not = np.array([p[1] for p in pairs]), np.array([p[2] for p in pairs])
            turned = (sign or 1) * knows, (sign or 1) * does_not
            found = meta.faithfulness(*turned, direction_free=not sign, n=n)
            out.append(
                Verdict(
                    metric=metric,
                    suite=x,
                    role=role,
                    models=len(pairs),
                    knows=float(knows.mean()),
                    does_not=float(does_not.mean()),
                    faithfulness=found,
                    effect=effect(*turned, n=n, free=not sign),
                    single=single(models, metric, n=n),
                )
            )
    return sorted(out, key=lambda v: v.place)


def effect(knows: np.ndarray, does_not: np.ndarray, n: int = 500, free: bool = False) -> Interval:
    """Standardised difference between target and twin of the same seed, with its interval from resampling
    seeds; NaN with one seed.

    Infinite where all seeds differ by the same amount. ``free``: without its sign.
    """

    def statistic(c: Columns) -> float:
        d = standardised_difference(c["a"], c["b"])
        return abs(d) if free else d

    if len(knows) < 2:
        return NOTHING
    rng, size = np.random.default_rng(0), len(knows)
    estimate = statistic({"a": knows, "b": does_not})
    draws = [statistic({"a": knows[i], "b": does_not[i]}) for i in rng.integers(0, size, (n, size))]
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")  # infinities are not to be interpolated
    return Interval(estimate, float(low), float(high), size)


def single(models: Pool, metric: str, n: int = 500) -> Interval:
    """AUC of the metric on one document: a target's value of it against a twin's, documents of both sides
    drawn at random.

    One threshold for all documents and models; the interval resamples documents. NaN where no column holds
    the metric row by row.
    """
    if metric not in SINGLE:
        return NOTHING
    suite, column, kind, sign = SINGLE[metric]
    group = next(
        (g for g in ("retain", "holdout", "world") if g in metric.split("/") or metric.endswith(f"_{g}")),
        "forget",
    )
    sides = []
    for side in (models.target, models.twin):
        found = [_by_document(s[suite], column, group, kind) for s in side.values() if suite in s]
        common = set.intersection(*(set(f) for f in found)) if found else set()
        sides.append((found, common))
    documents = sorted(sides[0][1] & sides[1][1])
    if len(documents) < 2:
        return NOTHING
    a, b = (np.array([[sign * f[d] for d in documents] for f in found]) for found, _ in sides)
    wins = np.zeros((len(documents), len(documents)))
    for x in a:
        for y in b:
            wins += (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    wins /= len(a) * len(b)
    size = len(documents)
    weights = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), size=n) / size
    low, high = np.quantile(((weights @ wins) * weights).sum(axis=1), [0.025, 0.975])
    return Interval(float(wins.mean()), float(low), float(high), size)


def _by_document(record: Record, column: str, group: str, kind: str | None) -> dict[int, float]:
    c = rows_of(record)
    if column not in c:
        return {}
    own = (c["group"] == group) & np.isfinite(c[column])
    if kind and (own & (c["kind"] == kind)).any():
        own &= c["kind"] == kind
    documents = c["document"][own].astype(int)
    return {int(d): float(c[column][own][documents == d].mean()) for d in np.unique(documents)}


def left_open(n: int, level: float = 0.95) -> float:
    """Where n of n pairs come out in the right order: the largest chance of a wrong one that is still
    compatible with it.

    >>> round(left_open(10), 2)
    0.26
    """
    return 1 - (1 - level) ** (1 / n)
