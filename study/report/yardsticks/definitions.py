"""Yardsticks of the field, each with its target-to-twin interval."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reprolib.metrics import CARDS, muse, privacy, tofu
from reprolib.metrics.card import Card
from reprolib.metrics.resample import Interval, combined_interval, seeds_interval
from reprolib.record import Record
from study.readings import quantities, twin
from study.readings.quantities import LADDER

Study = Mapping[str, Sequence[Record]]
Columns = dict[str, np.ndarray]
ALPHA = 0.05
DRAWS = 2000  # of documents and seeds, for the stability of the order
NEAR = 0.1  # AUCs that differ by no more than this, in every seed, count as alike
BENCHES = {"tofu": "TOFU", "muse": "MUSE", "attacks": "Membership attacks", "fluency": "Fluency"}

ATTACKS = {
    "loss": "loss",
    "zlib": "zlib",
    "min_k": "Min-K%",
    "min_k_plus_plus": "Min-K%++",
    "gradient_norm": "gradient norm",
    "reference": "reference",
}

SHAPES = dict(zip(ATTACKS, ("o", "s", "^", "v", "D", "X"), strict=True))


# --- yardsticks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """A reading of the suite wide. ``draw``: the columns of one record (and of the twin's) that it reads, for
    resampling documents; without it, the interval is Student's t over seeds (``log``: of the logarithm)."""

    name: str  # in the record
    label: str
    card: str
    # columns, and which rows they are of
    draw: Callable[[Record, Record | None], tuple[Columns, np.ndarray] | None] | None = None
    statistic: Callable[[Columns], float] | None = None
    log: bool = False
    # part of the comparison of orders; of readings that are functions of each other, one is
    ranks: bool = True

    @property
    def facts(self) -> Card:
        return CARDS[self.card]

    @property
    def bench(self) -> str:
        return self.name.partition("/")[0]

    @property
    def head(self) -> str:
        return f"{self.label} {self.facts.arrow}" + ("" if self.draw else " (t)")

    @property
    def help(self) -> str:
        return f"{self.facts.trap} Source: {self.facts.source}."


def rows_of(record: Record) -> Columns:
    return quantities.columns(record)


def _column(
    column: str, group: str, rated: bool = False, change: Callable[[np.ndarray], np.ndarray] | None = None
):
    """The numbers of one column in one group (``rated``: of the questions that have a truth ratio, where
    there are any).
    """

    def draw(record: Record, twin: Record | None):
        c = rows_of(record)
        own = (c["group"] == group) & np.isfinite(c[column])
        if rated and (own & np.isfinite(c["truth_ratio"])).any():
            own &= np.isfinite(c["truth_ratio"])
        return {"value": change(c[column][own]) if change else c[column][own]}, own

    return {"draw": draw, "statistic": lambda c: float(c["value"].mean())}


def _attacked(c: Columns) -> np.ndarray:
    """Rows that a membership attack reads: of completions if both sides have some, else of answers."""
    for kind in ("sc", "qa"):
        sides = [(c["group"] == g) & (c["kind"] == kind) for g in ("forget", "holdout")]
        if all(s.any() for s in sides):
            return sides[0] | sides[1]
    return np.zeros(len(c["group"]), dtype=bool)


def _attack(
    column: str, sign: float, measure: Callable[[np.ndarray, np.ndarray], float], beside: bool = False
):
    """Members against non-members by one column; ``beside``: with the twin's scores of the same texts."""

    def scores(record: Record, rows: np.ndarray) -> np.ndarray:
        # a destroyed model knows no text
        return np.nan_to_num(sign * rows_of(record)[column][rows], nan=-np.inf)

    def draw(record: Record, twin: Record | None):
        c = rows_of(record)
        own = _attacked(c)
        columns = {"member": c["group"][own] == "forget", "value": scores(record, own)}
        if beside:
            if twin is None:
                return None
            columns["twin"] = scores(twin, own)
        return columns, own

    def statistic(c: Columns) -> float:
        m = c["member"]
        if not beside:
            return measure(c["value"][m], c["value"][~m])
        return measure(privacy.auc(c["value"][m], c["value"][~m]), privacy.auc(c["twin"][m], c["twin"][~m]))

    return {"draw": draw, "statistic": statistic}


def _utility():
    """TOFU's harmonic mean over the groups that the corpus has, from the columns."""

    def draw(record: Record, twin: Record | None):
        c = rows_of(record)
        own = np.isin(c["group"].astype(str), ("retain", "world")) & np.isfinite(c["tofu_probability"])
        return {
            "group": c["group"][own],
            **{k: c[k][own] for k in ("tofu_probability", "tofu_rouge", "truth_ratio")},
        }, own

    def statistic(c: Columns) -> float:
        parts = {}
        for g in ("retain", "world"):
            own = c["group"] == g
            rated = own & np.isfinite(c["truth_ratio"])
            use = rated if rated.any() else own
            if not use.any():
                continue
            parts |= {
                f"{g}/p": float(c["tofu_probability"][use].mean()),
                f"{g}/r": float(c["tofu_rouge"][use].mean()),
            }
            if rated.any():
                parts[f"{g}/t"] = float(tofu.truth_score(c["truth_ratio"][rated]).mean())
        return tofu.partial_utility({k: min(max(v, 0.0), 1.0) for k, v in parts.items()})

    return {"draw": draw, "statistic": statistic}


def _privleak(a: float, r: float) -> float:
    return math.nan if r == 1.0 else privacy.privleak(a, r)


def _new(ratio: np.ndarray) -> np.ndarray:
    return 1 / (1 + ratio)


YARDSTICKS: dict[str, Yardstick] = {
    y.name: y
    for y in (
        Yardstick(name="tofu/ks_distance", label="KS distance", card="ks_distance"),
        Yardstick(name="tofu/log10_p", label="log10 p", card="log10_p", ranks=False),
        Yardstick(
            name="tofu/forget/probability",
            label="Forget: probability",
            card="probability",
            **_column("tofu_probability", "forget", True),
        ),
        Yardstick(
            name="tofu/forget/rouge_l_recall",
            label="Forget: ROUGE-L",
            card="rouge_l_recall",
            **_column("tofu_rouge", "forget", True),
        ),
        Yardstick(
            name="tofu/forget/parity_score",
            label="Forget: truth ratio",
            card="parity_score",
            **_column("truth_ratio", "forget", change=tofu.parity_score),
        ),
        Yardstick(
            name="tofu/forget/truth_ratio_new",
            label="Forget: truth ratio, new form",
            card="truth_ratio",
            ranks=False,
            **_column("truth_ratio", "forget", change=_new),
        ),
        Yardstick(
            name="tofu/retain/probability",
            label="Retain: probability",
            card="probability",
            ranks=False,
            **_column("tofu_probability", "retain", True),
        ),
        Yardstick(
            name="tofu/retain/truth_score",
            label="Retain: truth ratio",
            card="truth_score",
            ranks=False,
            **_column("truth_ratio", "retain", change=tofu.truth_score),
        ),
        Yardstick(
            name="tofu/world/option_probability",
            label="World: probability",
            card="option_probability",
            ranks=False,
            **_column("tofu_probability", "world", True),
        ),
        Yardstick(
            name="tofu/partial_utility", label="Utility (partial)", card="partial_utility", **_utility()
        ),
        Yardstick(name="muse/verbmem", label="VerbMem", card="verbmem", **_column("muse_verbmem", "forget")),
        Yardstick(
            name="muse/knowmem_forget",
            label="KnowMem, forget",
            card="knowmem",
            **_column("muse_knowmem", "forget"),
        ),
        Yardstick(
            name="muse/knowmem_retain",
            label="KnowMem, retain",
            card="knowmem",
            **_column("muse_knowmem", "retain"),
        ),
        Yardstick(
            name="muse/auc",
            label="Min-40% AUC",
            card="auc",
            ranks=False,
            **_attack("muse_min_k", -1, privacy.auc),
        ),
        Yardstick(
            name="muse/privleak",
            label="PrivLeak, %",
            card="privleak",
            **_attack("muse_min_k", -1, _privleak, beside=True),
        ),
        Yardstick(
            name="muse/privleak_difference",
            label="PrivLeak, bounded",
            card="privleak_difference",
            ranks=False,
            **_attack("muse_min_k", -1, muse.privleak_difference, beside=True),
        ),
        *(
            Yardstick(
                name=f"attacks/{k}/auc",
                label=f"AUC, {v}",
                card="auc",
                **_attack(f"attack_{k}", 1, privacy.auc),
            )
            for k, v in ATTACKS.items()
        ),
        *(
            Yardstick(
                name=f"attacks/{k}/tpr",
                label=f"TPR, {v}",
                card="tpr_at_fpr",
                ranks=False,
                **_attack(f"attack_{k}", 1, privacy.tpr_at_fpr),
            )
            for k, v in ATTACKS.items()
        ),
        *(
            Yardstick(
                name=f"fluency/{g}/distinct_2",
                label=f"Distinct-2, {g}",
                card="distinct_n",
                ranks=g == "retain",
            )
            for g in ("retain", "forget")
        ),
        *(
            Yardstick(
                name=f"fluency/{g}/repetition",
                label=f"Repetition, {g}",
                card="repetition",
                ranks=g == "retain",
                **_column("repetition", g),
            )
            for g in ("retain", "forget")
        ),
        *(
            Yardstick(
                name=f"fluency/{g}/perplexity",
                label=f"Perplexity, {g}",
                card="perplexity",
                log=True,
                ranks=g == "retain",
            )
            for g in ("retain", "forget")
        ),
        Yardstick(name="fluency/forget/empty", label="Empty, forget", card="empty_share", ranks=False),
    )
}


def value(record: Record, name: str) -> float:
    """A metric of a record; NaN where it is not there or not finite."""
    found = record.metrics.get(name)
    return math.nan if found is None else float(found)


def twins_of(study: Study) -> dict[int, Record]:
    return {r.spec.seed: r for r in study["twin"]}


_KEPT: dict[tuple, Interval] = {}


def interval(study: Study, method: str, name: str, n: int = 300) -> Interval:
    """Mean over seeds with its 95 % interval: seeds and documents resampled where the record has the rows,
    else Student's t over seeds.

    Intervals of t are cut to the metric's range. KS distances are not resampled: a resample lies farther from
    its twin than the data does.
    """
    y, records, twins = YARDSTICKS[name], study[method], twins_of(study)
    key = (name, n, *(r.fingerprint for r in records), *(t.fingerprint for t in twins.values()))
    if key not in _KEPT:
        _KEPT[key] = (
            _resampled(y, records, twins, n) if y.draw else _over_seeds(y, [value(r, name) for r in records])
        )
    return _KEPT[key]


def _over_seeds(y: Yardstick, values: Sequence[float]) -> Interval:
    if not values or not np.isfinite(values).all():
        return Interval(math.nan, math.nan, math.nan, 0)
    if y.log:
        return Interval(*(math.exp(min(v, 700.0)) for v in seeds_interval(np.log(values))[:3]), 0)
    i, (bottom, top) = seeds_interval(values), (y.facts.low, y.facts.high)
    low, high = (-math.inf if bottom is None else bottom), (math.inf if top is None else top)
    return Interval(i.estimate, *(v if math.isnan(v) else min(max(v, low), high) for v in (i.low, i.high)), 0)


def _resampled(y: Yardstick, records: Sequence[Record], twins: Mapping[int, Record], n: int) -> Interval:
    runs = []
    for r in records:
        drawn = y.draw(r, twins.get(r.spec.seed))
        if drawn is None or not drawn[1].any():
            return Interval(math.nan, math.nan, math.nan, 0)
        columns, own = drawn
        c = rows_of(r)
        strata = np.array([f"{g}/{t}" for g, t in zip(c["group"][own], c["task"][own], strict=True)])
        runs.append((columns, c["document"][own].astype(int), strata))
    if len(runs) > 1:
        alike = all(np.array_equal(d, runs[0][1]) and np.array_equal(s, runs[0][2]) for _, d, s in runs)
    else:
        alike = True
    return combined_interval(runs, y.statistic, shared=alike, n=n, seed=zlib.crc32(y.name.encode()))


def collapsed(study: Study, method: str) -> int:
    """How many seeds' models write no text any more for most retain prompts."""
    return sum(value(r, "fluency/collapsed") == 1 for r in study[method])


def ordered(core: Study, wide: Study) -> list[str]:
    """Models of the tables: the ladder on top, then the methods in the leaderboard's order."""
    methods = [m for m in wide if m not in LADDER]
    return [m for m in LADDER if m in wide] + twin.ranking(core, methods)
