"""Intervals and comparisons: cluster bootstrap over documents, seeds, tests, ranks, share of the way, matched levels.

Rows of one document are dependent, so every bootstrap here resamples *documents* (clusters), never
rows. A statistic is any pure function ``statistic(columns) -> float`` of a dict of equally long
arrays; it sees resampled columns of the same names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reprolib.errors import ReprolibError
from reprolib.metrics.card import Card

Columns = Mapping[str, Any]  # name -> array of shape [rows, ...]
Statistic = Callable[[dict[str, np.ndarray]], float]
Weighted = Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]  # columns, weights [n, rows] -> [n]
Run = tuple[Columns, Any, Any]  # columns, cluster, strata (or None)


class MetricError(ReprolibError):
    """A metric was given values that it is not defined for."""


class Interval(NamedTuple):
    """A point estimate with its bootstrap interval. ``low`` and ``high`` are NaN if they cannot be had."""

    estimate: float
    low: float
    high: float
    n_documents: int


class SeedsInterval(NamedTuple):
    """A mean over seeds with its Student-t interval."""

    estimate: float
    low: float
    high: float
    n_seeds: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of M methods, and how far it can be relied on. All arrays in the order of ``methods``.

    ``score`` [M]; ``rank`` [M], 1 the best, tied methods share the mean of their places; ``low`` and ``high`` [M], interval of
    the rank; ``beats`` [M, M], share of replicates in which the row's method is better than the column's (a tie counts half);
    ``tau``: mean Kendall tau-b between replicates, 1 where they all agree, 0 where the order is chance.
    """

    methods: tuple[str, ...]
    score: np.ndarray
    rank: np.ndarray
    low: np.ndarray
    high: np.ndarray
    beats: np.ndarray
    tau: float
    n_documents: int
    n_seeds: int


class Matched(NamedTuple):
    """Value of ``y`` where ``x`` first crosses a level; ``position`` is a fractional index (2.5: between 2 and 3)."""

    value: float
    position: float
    reached: bool


CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="gap_closed",
            label="Share of the way",
            unit="share",
            low=None,
            high=None,
            better="twin",
            source="this study: (m - target) / (twin - target)",
            trap="1 is the retrained twin, above 1 is beyond it and not better; NaN where target and twin agree.",
        ),
        Card(
            name="standardised_difference",
            label="Standardised difference",
            unit="standard deviations",
            low=None,
            high=None,
            better="neither",
            source="Cohen 1988; d_z of Lakens 2013",
            trap="In units of the spread of *differences*: two methods that err alike get a large one from a tiny difference.",
        ),
        Card(
            name="superiority",
            label="Probability of superiority",
            unit="share",
            low=0.0,
            high=1.0,
            better="neither",
            source="McGraw and Wong 1992 (common language effect size); the AUC",
            trap="0.5 is no effect. It says how often, not by how much.",
        ),
        Card(
            name="cliffs_delta",
            label="Cliff's delta",
            unit="score",
            low=-1.0,
            high=1.0,
            better="neither",
            source="Cliff 1993",
            trap="±1 needs no large difference, only no overlap: with three seeds a side it is common.",
        ),
        Card(
            name="rank_stability",
            label="Rank stability (tau)",
            unit="Kendall tau",
            low=-1.0,
            high=1.0,
            better="higher",
            source="this study; Kendall 1945 (tau-b), bootstrap of ranks after Hall and Miller 2009",
            trap="A stable order can be an order of differences too small to matter, and a wrong metric ranks stably too.",
        ),
    )
}


# --- checks shared by the modules of this package ------------------------------------------------


def vector(name: str, values: Any, *, ndim: int = 1, finite: bool = True) -> np.ndarray:
    """``values`` as a float64 array of ``ndim`` axes, not empty, without NaN (and infinities if ``finite``)."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise MetricError(
            f"{name} must be numbers; got {type(values).__name__}; allowed: a {ndim}-axis array of floats. "
            "Convert it to a numeric array first."
        ) from None
    if array.ndim != ndim or array.size == 0:
        raise MetricError(
            f"{name} has shape {array.shape}; allowed: {ndim} axis/axes with at least one value. "
            "Check that the rows were selected and reshaped as meant."
        )
    bad = ~np.isfinite(array) if finite else np.isnan(array)
    if bad.any():
        raise MetricError(
            f"{name} has {int(bad.sum())} value(s) that are {'not finite' if finite else 'NaN'}, the first at index "
            f"{tuple(int(i) for i in np.argwhere(bad)[0])}; allowed: {'finite numbers' if finite else 'no NaN'}. "
            "Look for a diverged model or an empty answer in that row."
        )
    return array


def share(name: str, value: float) -> float:
    """``value`` as a float in [0, 1]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise MetricError(
            f"{name} must be a number; got {value!r}; allowed: 0 to 1. Pass one finished score."
        ) from None
    if not 0.0 <= number <= 1.0:  # also catches NaN
        raise MetricError(
            f"{name} is {number}; allowed: 0 to 1. Divide percentages by 100, and look for an empty group if it is NaN."
        )
    return number


def _level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise MetricError(f"level is {level!r}; allowed: strictly between 0 and 1. Use 0.95 for a 95 % interval.")
    return float(level)


def _count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise MetricError(f"n is {n!r}; allowed: a whole number of resamples, 1 or more. 2000 is the default.")
    return int(n)


# --- resampling ----------------------------------------------------------------------------------


def _columns(columns: Columns, rows: int) -> dict[str, np.ndarray]:
    if not isinstance(columns, Mapping) or not columns:
        raise MetricError(
            f"columns must be a non-empty dict of arrays; got {type(columns).__name__}; "
            "allowed: {'score': array, ...}. Name every array that the statistic reads."
        )
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise MetricError(
                f"column {name!r} has shape {array.shape}; allowed: {rows} rows, as many as `cluster` has. "
                "Build all columns from the same rows."
            )
    return arrays


class _Plan:
    """Rows sorted by cluster, and the clusters of each stratum: what resampling documents needs."""

    def __init__(self, cluster: Any, strata: Any = None) -> None:
        labels = np.asarray(cluster)
        if labels.ndim != 1 or labels.size == 0:
            raise MetricError(
                f"cluster has shape {labels.shape}; allowed: one document key per row, at least one row. "
                "Pass the `document` field of each row."
            )
        self.rows = len(labels)
        self.labels, codes = np.unique(labels, return_inverse=True)
        codes = codes.reshape(-1)
        self.order = np.argsort(codes, kind="stable")
        self.sizes = np.bincount(codes)
        self.starts = np.cumsum(self.sizes) - self.sizes
        if strata is None:
            stratum_of_row = np.zeros(self.rows, dtype=np.intp)
            self.stratum_labels = np.zeros(1, dtype=np.intp)
        else:
            stratum_labels = np.asarray(strata)
            if stratum_labels.shape != labels.shape:
                raise MetricError(
                    f"strata has shape {stratum_labels.shape}; allowed: {labels.shape}, one key per row. "
                    "Build it from the same rows, e.g. group + '/' + task."
                )
            self.stratum_labels, stratum_of_row = np.unique(stratum_labels, return_inverse=True)
            stratum_of_row = stratum_of_row.reshape(-1)
        self.stratum = stratum_of_row[self.order[self.starts]]  # of each cluster
        split = np.flatnonzero(stratum_of_row != self.stratum[codes])
        if split.size:
            raise MetricError(
                f"document {self.labels[codes[split[0]]]!r} has rows in two strata; allowed: one stratum per document. "
                "Use strata that hold whole documents (group x task), or document keys that are unique across groups."
            )
        self.members = [np.flatnonzero(self.stratum == s) for s in range(len(self.stratum_labels))]
        many = np.array([len(m) for m in self.members])
        self.pool = np.concatenate(self.members)  # a pick is one of ``choices`` places behind ``base`` in it
        self.choices, self.base = np.repeat(many, many), np.repeat(np.cumsum(many) - many, many)

    @property
    def n(self) -> int:
        return len(self.labels)

    def counts(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """How often each cluster is drawn, in n draws as of :meth:`draw`: [n, clusters]."""
        out = np.zeros((n, self.n))
        for m in self.members:
            out[:, m] = rng.multinomial(len(m), np.full(len(m), 1 / len(m)), size=n)
        return out

    @property
    def degenerate(self) -> bool:
        """True if resampling can change nothing: every stratum has a single document."""
        return all(len(m) < 2 for m in self.members)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Clusters drawn with replacement, as many per stratum as it has."""
        return self.pool[self.base + rng.integers(0, self.choices)]

    def draws(self, rng: np.random.Generator, n: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        """``n`` times :meth:`draw` and then ``seeds`` of ``seeds`` with replacement, in one call: [n, clusters], [n, seeds]."""
        picks = rng.integers(0, np.tile(np.append(self.choices, np.full(seeds, seeds)), n)).reshape(n, -1)
        return self.pool[self.base + picks[:, : self.n]], picks[:, self.n :]

    def index(self, picks: np.ndarray) -> np.ndarray:
        """Row numbers of the drawn clusters, each cluster whole."""
        sizes = self.sizes[picks]
        ends = np.cumsum(sizes)
        offset = np.repeat(self.starts[picks] - (ends - sizes), sizes)
        return self.order[offset + np.arange(ends[-1])]


def _take(columns: Mapping[str, np.ndarray], index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[index] for name, array in columns.items()}


def _percentiles(replicates: np.ndarray, level: float) -> tuple[float, float]:
    if np.isnan(replicates).any():
        return math.nan, math.nan
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    columns: Columns,
    cluster: Any,
    statistic: Statistic,
    *,
    strata: Any = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of ``statistic`` from resampling whole documents.

    Each of the ``n`` replicates draws, within every stratum, as many documents as it has, with
    replacement, and takes all rows of a drawn document together. The interval is the
    ``(1 ± level) / 2`` quantiles of the replicates; the estimate is the statistic of the data itself.

    ``columns``: dict of arrays [rows, ...]; ``cluster``: document key [rows]; ``strata``: key [rows],
    constant within a document (group x task keeps every cell filled). Unit and range are the
    statistic's. The result does not depend on the order of the rows, up to rounding, if the
    statistic does not. ``low`` and ``high`` are NaN if every stratum has one document only (no
    spread can be seen) or if the statistic is NaN in any replicate. A stratum with one document
    adds no spread: the interval is then too narrow.

    Source: Efron and Tibshirani 1993, ch. 8 and 13; Davison and Hinkley 1997, section 3.8.
    Raises MetricError for columns, clusters or strata of unequal length, and a document in two strata.
    """
    level, n = _level(level), _count(n)
    plan = _Plan(cluster, strata)
    data = _columns(columns, plan.rows)
    estimate = float(statistic(dict(data)))
    if plan.degenerate:
        return Interval(estimate, math.nan, math.nan, plan.n)
    rng = np.random.default_rng(seed)
    replicates = np.array([float(statistic(_take(data, plan.index(plan.draw(rng))))) for _ in range(n)])
    return Interval(estimate, *_percentiles(replicates, level), plan.n)


def paired_difference(
    columns_a: Columns,
    columns_b: Columns,
    cluster: Any,
    statistic: Statistic,
    *,
    strata: Any = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of ``statistic(a) - statistic(b)`` for two methods scored on the same rows.

    Both sides get the same drawn documents in each replicate, so what is common to a document
    cancels. Row ``i`` of ``columns_a`` and of ``columns_b`` must be the same row of the corpus, with
    document ``cluster[i]``. Otherwise as `bootstrap`; positive where ``a`` is larger.

    Raises MetricError as `bootstrap` does, also if the two sides differ in the number of rows.
    """
    level = _level(level)
    estimate, replicates, documents = _paired(columns_a, columns_b, cluster, statistic, strata, n, seed)
    return Interval(estimate, *_percentiles(replicates, level), documents)


def _paired(columns_a: Columns, columns_b: Columns, cluster: Any, statistic: Statistic, strata: Any, n: int, seed: int):
    """(difference, its ``n`` replicates, number of documents); the replicates are NaN if resampling can change nothing."""
    n, plan = _count(n), _Plan(cluster, strata)
    a, b = _columns(columns_a, plan.rows), _columns(columns_b, plan.rows)
    estimate = float(statistic(dict(a))) - float(statistic(dict(b)))
    replicates = np.full(n, math.nan)
    rng = np.random.default_rng(seed)
    for i in range(0 if plan.degenerate else n):
        index = plan.index(plan.draw(rng))
        replicates[i] = float(statistic(_take(a, index))) - float(statistic(_take(b, index)))
    return estimate, replicates, plan.n


def paired_p_value(
    columns_a: Columns,
    columns_b: Columns,
    cluster: Any,
    statistic: Statistic,
    *,
    strata: Any = None,
    n: int = 2000,
    seed: int = 0,
) -> float:
    """Two-sided bootstrap p-value of ``statistic(a) = statistic(b)`` for two methods scored on the same rows.

    With d the difference and d* that of a replicate of `paired_difference` (the same draws for the same ``seed``), the spread of
    d* around d stands for that of d around 0: ``p = (1 + #{|d* - d| >= |d|}) / (1 + n)``. In [1 / (1 + n), 1]; 1 where both sides
    are equal; NaN if every stratum has one document only, or if the statistic is NaN. It tells nothing about other seeds.

    Source: Efron and Tibshirani 1993, section 16.4 (bootstrap test by shifting); Davison and Hinkley 1997, section 4.2.
    Raises MetricError as `paired_difference` does.
    """
    d, replicates, _ = _paired(columns_a, columns_b, cluster, statistic, strata, n, seed)
    if math.isnan(d) or np.isnan(replicates).any():
        return math.nan
    beyond = np.abs(replicates - d) >= abs(d) - 1e-12  # sums of the same numbers differ by rounding
    return (1 + int(beyond.sum())) / (1 + n)


# --- many comparisons, and how large a difference is ---------------------------------------------


def _p_values(p: Any) -> np.ndarray:
    values = vector("p", p)
    if values.min() < 0 or values.max() > 1:
        raise MetricError(f"p ranges from {values.min():g} to {values.max():g}; allowed: 0 to 1. Pass p-values, not statistics.")
    return values


def holm(p: Any) -> np.ndarray:
    """p-values of a family of m comparisons, adjusted so that the chance of *any* false one stays below the level: [m].

    Step-down: the i-th smallest becomes max_{j <= i} min(1, (m - j + 1) p_(j)). In [0, 1], in the order given; compare with the
    level as usual. Holds for dependent comparisons. Source: Holm 1979. Raises MetricError for values outside [0, 1] or NaN.
    """
    values = _p_values(p)
    order, m = np.argsort(values, kind="stable"), len(values)
    out = np.empty(m)
    out[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * values[order]))
    return out


def benjamini_hochberg(p: Any) -> np.ndarray:
    """p-values of m comparisons, adjusted so that the expected *share* of false ones among those found stays below the level: [m].

    Step-up: the i-th smallest becomes min_{j >= i} min(1, m p_(j) / j). In [0, 1], in the order given; weaker than `holm`, and
    proven for independent or positively dependent comparisons. Source: Benjamini and Hochberg 1995. Errors as `holm`.
    """
    values = _p_values(p)
    order, m = np.argsort(values, kind="stable"), len(values)
    out = np.empty(m)
    scaled = m * values[order] / (1 + np.arange(m))
    out[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return out


def standardised_difference(a: Any, b: Any, cluster: Any = None) -> float:
    """Mean of the paired differences over their standard deviation, by document: d_z = mean(D) / s(D).

    ``a``, ``b``: scores of the same rows [rows]; ``cluster``: document key [rows] (None: each row is one), D being the mean
    difference in each document, s with D - 1. In standard deviations, positive where ``a`` is larger; 0 where all are equal,
    ±inf where all documents differ by the same amount, NaN with one document (no spread can be seen).

    Source: Cohen 1988; Lakens 2013 (d_z). Raises MetricError for unequal lengths or values that are not finite.
    """
    x, y = vector("a", a), vector("b", b)
    if len(x) != len(y):
        raise MetricError(f"a has {len(x)} rows and b has {len(y)}; allowed: as many. Score both on the same rows.")
    plan = _Plan(np.arange(len(x)) if cluster is None else cluster)
    if plan.rows != len(x):
        raise MetricError(f"cluster has {plan.rows} rows, a and b have {len(x)}; allowed: as many. Take all from the same rows.")
    d = np.add.reduceat((x - y)[plan.order], plan.starts) / plan.sizes
    if plan.n < 2:
        return math.nan
    mean, spread = float(d.mean()), float(d.std(ddof=1))
    if spread <= 1e-12 * max(1.0, float(np.abs(d).max())):  # equal but for rounding
        return 0.0 if abs(mean) <= 1e-12 else math.copysign(math.inf, mean)
    return mean / spread


def superiority(a: Any, b: Any) -> float:
    """P(A > B) + P(A = B) / 2 for a value of ``a`` [n] and one of ``b`` [m] drawn at random, e.g. scores of two methods' seeds.

    In [0, 1]: 0.5 is no effect, 1 where every value of ``a`` is above every one of ``b``. Unpaired.
    Source: McGraw and Wong 1992; Vargha and Delaney 2000. Raises MetricError for an empty side or NaN.
    """
    from reprolib.metrics.privacy import auc  # the same statistic; that module builds on this one

    return auc(a, b)


def cliffs_delta(a: Any, b: Any) -> float:
    """P(A > B) - P(A < B) = 2 `superiority` - 1: in [-1, 1], 0 is no effect. Source: Cliff 1993. Errors as `superiority`."""
    return 2.0 * superiority(a, b) - 1.0


# --- how stable an order of methods is -----------------------------------------------------------


def weighted_mean(columns: Mapping[str, np.ndarray], weights: np.ndarray, column: str = "score") -> np.ndarray:
    """Mean of a column for each row of the weights [n, rows]: what `rank_stability` does with the name of a column. [n]."""
    return weights @ np.asarray(columns[column], dtype=np.float64) / weights.sum(axis=1)


def rank_stability(
    boards: Mapping[str, Sequence[Run]],
    score: str | Weighted,
    *,
    better: str = "higher",
    paired_seeds: bool = True,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Ranking:
    """Would other documents and other seeds put the methods in the same order? Bootstrap of a leaderboard.

    ``boards``: for each method its runs, one ``(columns, cluster, strata)`` a seed as for `combined_interval`, all on the same
    documents. ``score``: the name of a column, which stands for its mean over rows, or a function (columns, weights [n, rows]) ->
    [n] that reads all replicates at once: a replicate gives a row the number of times that its document was drawn. The score of
    a method is the mean over its seeds. ``better``: "higher" or "lower".

    Each replicate draws the documents once for all methods, so that what is common to a document cancels, and the seeds too
    where ``paired_seeds`` (seed i of every method began from the same model; all methods then need as many). Intervals of ranks
    are percentiles, rounded outwards; tau-b is the mean over pairs of replicates 1 and 2, 3 and 4, ... With S seeds the
    spread between seeds is understated by about sqrt((S-1)/S). Where nothing can be resampled (every stratum has one
    document, and there is one seed), intervals, ``beats`` and ``tau`` are NaN.

    Raises MetricError for fewer than two methods, unequal documents, unequal numbers of seeds, or a score that is not finite.
    """
    level, n = _level(level), _count(n)
    if better not in ("higher", "lower"):
        raise MetricError(f"better is {better!r}; allowed: 'higher' or 'lower'. Say which end of the score is rank 1.")
    if not isinstance(boards, Mapping) or len(boards) < 2 or not all(boards.values()):
        raise MetricError("boards must name two methods or more, each with at least one run; got fewer. Rank what can be compared.")
    methods, n_seeds = tuple(boards), [len(runs) for runs in boards.values()]
    if paired_seeds and len(set(n_seeds)) > 1:
        raise MetricError(
            f"methods have {dict(zip(methods, n_seeds, strict=True))} seeds; allowed with paired_seeds=True: as many each, in the "
            "same order. Leave out the seeds that not all have, or use paired_seeds=False."
        )
    read: Weighted = score if callable(score) else (lambda columns, weights: weighted_mean(columns, weights, score))
    first, data = _same_documents(boards, None if callable(score) else score)
    sign = 1.0 if better == "higher" else -1.0

    def scores(documents: np.ndarray, seeds: Sequence[np.ndarray]) -> np.ndarray:
        """[n, M] for counts of documents [n, D] and, for each method, shares of seeds [n, S]."""
        out = np.zeros((len(documents), len(methods)))
        for m, runs in enumerate(data):
            for s, (columns, where) in enumerate(runs):
                out[:, m] += seeds[m][:, s] * np.asarray(read(columns, documents[:, where]), dtype=np.float64)
        if not np.isfinite(out).all():
            raise MetricError(
                f"the score of {methods[int(np.argwhere(~np.isfinite(out))[0][1])]!r} is not finite in some replicate; allowed: "
                "finite numbers. Give strata that keep every cell filled, or leave the method out."
            )
        return out

    estimate = scores(np.ones((1, first.n)), [np.full((1, s), 1 / s) for s in n_seeds])[0]
    rank = _ranks(sign * estimate[None])[0]
    size = len(methods)
    if first.degenerate and max(n_seeds) == 1:
        nan = np.full(size, math.nan)
        return Ranking(methods, estimate, rank, nan, nan.copy(), np.full((size, size), math.nan), math.nan, first.n, 1)
    rng = np.random.default_rng(seed)
    documents = first.counts(rng, n)
    if paired_seeds:
        seeds = [rng.multinomial(n_seeds[0], np.full(n_seeds[0], 1 / n_seeds[0]), size=n) / n_seeds[0]] * size
    else:
        seeds = [rng.multinomial(s, np.full(s, 1 / s), size=n) / s for s in n_seeds]
    step = max(1, 4_000_000 // first.rows)  # replicates at once: weights of some 32 MB
    parts = [slice(i, i + step) for i in range(0, n, step)]
    replicates = sign * np.concatenate([scores(documents[p], [s[p] for s in seeds]) for p in parts])
    ranks = _ranks(replicates)
    low = np.quantile(ranks, (1 - level) / 2, axis=0, method="lower")
    high = np.quantile(ranks, (1 + level) / 2, axis=0, method="higher")
    columns = [replicates[:, [m]] for m in range(size)]
    beats = np.array([(c > replicates).mean(0) + (c == replicates).mean(0) / 2 for c in columns])
    return Ranking(methods, estimate, rank, low, high, beats, _kendall(replicates), first.n, max(n_seeds))


def _same_documents(boards: Mapping[str, Sequence[Run]], column: str | None):
    """The plan that all runs share, and for each method and seed its columns and each row's place among the documents."""
    first: _Plan | None = None
    data = []
    for method, runs in boards.items():
        data.append([])
        for i, run in enumerate(runs):
            if not isinstance(run, (tuple, list)) or len(run) != 3:
                raise MetricError(
                    f"boards[{method!r}][{i}] is {type(run).__name__} and no triple; allowed: (columns, cluster, strata). "
                    "Put None in third place if there are no strata."
                )
            plan = _Plan(run[1], run[2])
            first = first or plan
            same = np.array_equal(plan.labels, first.labels) and np.array_equal(
                plan.stratum_labels[plan.stratum], first.stratum_labels[first.stratum]
            )
            if not same:
                raise MetricError(
                    f"boards[{method!r}][{i}] has other documents or strata than the first run; allowed: the same in all. "
                    "Score all methods on the same documents."
                )
            columns = _columns(run[0], plan.rows)
            if column is not None and column not in columns:
                raise MetricError(f"boards[{method!r}][{i}] has no column {column!r}; allowed: {', '.join(columns)}. Name one.")
            data[-1].append((columns, np.searchsorted(plan.labels, np.asarray(run[1]))))
    assert first is not None
    return first, data


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 the highest; ties share the mean of their places. [n, M]."""
    above = np.stack([(scores > scores[:, [m]]).sum(1) for m in range(scores.shape[1])], axis=1)
    equal = np.stack([(scores == scores[:, [m]]).sum(1) for m in range(scores.shape[1])], axis=1)  # itself among them
    return 1.0 + above + (equal - 1) / 2


def _kendall(scores: np.ndarray) -> float:
    """Mean tau-b between rows 1 and 2, 3 and 4, ... of [n, M]; NaN for a single row.

    Two orders that are both tied throughout agree (1); with one such order nothing is said on agreement (0).
    """
    pairs = len(scores) // 2
    if not pairs:
        return math.nan
    first, second = np.triu_indices(scores.shape[1], 1)
    signs = np.sign(scores[:, first] - scores[:, second])
    a, b = signs[0 : 2 * pairs : 2], signs[1 : 2 * pairs : 2]
    together, each = (a * b).sum(1), np.sqrt((a * a).sum(1) * (b * b).sum(1))
    same = ((a == 0).all(1) & (b == 0).all(1)).astype(float)
    return float(np.where(each > 0, together / np.where(each > 0, each, 1.0), same).mean())


def seeds_interval(values: Any, level: float = 0.95) -> SeedsInterval:
    """Mean over seeds with a Student-t interval: mean ± t((1+level)/2; S-1) · s / sqrt(S).

    ``values``: one finished score per seed, shape [S]; s is the standard deviation with S - 1. With
    one seed ``low`` and ``high`` are NaN: one seed says nothing on the spread. Unit is that of the
    values; the interval may leave the metric's range, since it assumes normal scores.

    Raises MetricError for an empty list or a score that is not finite.
    """
    level = _level(level)
    scores = vector("values (one score per seed)", values)
    mean, seeds = float(scores.mean()), len(scores)
    if seeds < 2:
        return SeedsInterval(mean, math.nan, math.nan, seeds)
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

    half = float(stdtrit(seeds - 1, (1 + level) / 2)) * float(scores.std(ddof=1)) / math.sqrt(seeds)
    return SeedsInterval(mean, mean - half, mean + half, seeds)


def combined_interval(
    runs: Sequence[Run],
    statistic: Statistic,
    *,
    shared: bool = False,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of ``statistic`` over seeds, with an interval for seeds and documents together.

    ``runs`` holds per seed ``(columns, cluster, strata)``; strata may be None. Each replicate draws S
    seeds with replacement, then documents within each drawn seed (as `bootstrap`), and averages the
    S statistics. The estimate is the mean of the S statistics of the data itself.

    ``shared=False`` draws documents anew for each drawn seed: right if every seed has its own
    documents. If all seeds were scored on the *same* documents, their sampling error is common and
    does not average out: use ``shared=True``, which draws the documents once per replicate (the
    interval is wider). With few seeds S the resampling understates the spread between seeds by
    about the factor sqrt((S-1)/S); read it beside `seeds_interval`. With one seed it is the document
    interval alone. ``n_documents`` counts distinct documents over all seeds; NaN as in `bootstrap`.

    Source: Davison and Hinkley 1997, section 3.8 (hierarchical data).
    Raises MetricError for no runs, a run that is no triple, or ``shared=True`` with unequal documents.
    """
    level, n = _level(level), _count(n)
    if not isinstance(runs, Sequence) or not runs:
        raise MetricError(
            f"runs is {'empty' if isinstance(runs, Sequence) else type(runs).__name__}; allowed: a list with one "
            "(columns, cluster, strata) per seed. Pass at least one seed."
        )
    plans: list[_Plan] = []
    data: list[dict[str, np.ndarray]] = []
    for i, run in enumerate(runs):
        if not isinstance(run, (tuple, list)) or len(run) != 3:
            raise MetricError(
                f"runs[{i}] is {type(run).__name__} and no triple; allowed: (columns, cluster, strata). "
                "Put None in third place if there are no strata."
            )
        plans.append(_Plan(run[1], run[2]))
        data.append(_columns(run[0], plans[-1].rows))
    first = plans[0]
    if shared:
        for i, plan in enumerate(plans):
            same = np.array_equal(plan.labels, first.labels) and np.array_equal(
                plan.stratum_labels[plan.stratum], first.stratum_labels[first.stratum]
            )
            if not same:
                raise MetricError(
                    f"runs[{i}] has other documents or strata than runs[0]; allowed with shared=True: the same in all "
                    "seeds. Score all seeds on the same documents, or use shared=False."
                )
    estimate = float(np.mean([float(statistic(dict(d))) for d in data]))
    n_documents = len(set().union(*(p.labels.tolist() for p in plans)))
    if len(runs) == 1 and first.degenerate:
        return Interval(estimate, math.nan, math.nan, n_documents)
    rng = np.random.default_rng(seed)
    replicates = np.empty(n)
    for i in range(n):
        common = first.draw(rng) if shared else None
        values = []
        for s in rng.integers(0, len(runs), len(runs)):
            picks = plans[s].draw(rng) if common is None else common
            values.append(float(statistic(_take(data[s], plans[s].index(picks)))))
        replicates[i] = np.mean(values)
    return Interval(estimate, *_percentiles(replicates, level), n_documents)


# --- comparisons with the target and the twin ----------------------------------------------------


def gap_reason(target: float, twin: float, tolerance: float = 1e-9) -> str | None:
    """Why `gap_closed` is NaN for this target and twin, as a sentence for a table's footnote; None if it is not."""
    if math.isnan(target) or math.isnan(twin):
        return f"no value for the {'target' if math.isnan(target) else 'twin'}, so there is no gap to close"
    if not abs(twin - target) >= tolerance:
        return f"target ({target:.6g}) and twin ({twin:.6g}) differ by less than {tolerance:g}: no gap to close"
    return None


def gap_closed(value: float, target: float, twin: float, tolerance: float = 1e-9) -> float:
    """Share of the way from target to twin: (m - target) / (twin - target).

    0 at the target (nothing forgotten), 1 at the retrained twin, above 1 beyond it, negative in the
    wrong direction. No unit, unbounded. NaN where ``abs(twin - target)`` < ``tolerance`` (there is no gap
    to close, a ratio would be noise) or an input is NaN; `gap_reason` gives the reason in words.
    Choose a tolerance above the noise of the metric: a tiny gap makes wild shares.

    Raises MetricError if a value is infinite or the tolerance is not above 0.
    """
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise MetricError(f"tolerance is {tolerance!r}; allowed: a number above 0. The default is 1e-9.")
    for name, number in (("value", value), ("target", target), ("twin", twin)):
        if math.isinf(number):
            raise MetricError(f"{name} is {number}; allowed: finite (or NaN). Use a bounded form of this metric.")
    if math.isnan(value) or gap_reason(target, twin, tolerance) is not None:
        return math.nan
    return (float(value) - float(target)) / (float(twin) - float(target))


def at_matched(x: Any, y: Any, level: float) -> Matched:
    """Value of ``y`` where ``x`` first reaches or crosses ``level`` along a trajectory, by linear interpolation.

    ``x``, ``y``: shape [steps], in the order of training; ``x`` need not be monotone and may cross in
    either direction; the first crossing counts. With x_i and x_{i+1} on two sides of the level,
    f = (level - x_i) / (x_{i+1} - x_i) and value = y_i + f (y_{i+1} - y_i), position = i + f. An exact
    hit at i gives y_i and position i. Never crossed: NaN, NaN and ``reached=False``. Unit is that of y.

    Raises MetricError for unequal lengths, an empty trajectory, or values that are not finite.
    """
    xs, ys = vector("x", x), vector("y", y)
    if len(xs) != len(ys):
        raise MetricError(
            f"x has {len(xs)} points and y has {len(ys)}; allowed: equal lengths. Take both from the same trajectory."
        )
    if not math.isfinite(level):
        raise MetricError(f"level is {level!r}; allowed: a finite number. Pass the value of x to match at.")
    side = np.sign(xs - level)
    hits = np.flatnonzero(side == 0)
    crossings = np.flatnonzero(side[:-1] * side[1:] < 0)
    hit = int(hits[0]) if hits.size else len(xs)
    crossing = int(crossings[0]) if crossings.size else len(xs)
    if hit == crossing == len(xs):
        return Matched(math.nan, math.nan, False)
    if hit <= crossing:
        return Matched(float(ys[hit]), float(hit), True)
    i = crossing
    f = (level - xs[i]) / (xs[i + 1] - xs[i])
    return Matched(float(ys[i] + f * (ys[i + 1] - ys[i])), float(i + f), True)
