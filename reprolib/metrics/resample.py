"""Intervals and p values by resampling: documents within strata, and seeds; rows never."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reprolib.metrics.checks import MetricError, check_count, check_level, vector

Columns = Mapping[str, Any]  # name -> array of shape [rows, ...]
Statistic = Callable[[dict[str, np.ndarray]], float]
Weighted = Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]  # columns, weights [n, rows] -> [n]
Run = tuple[Columns, Any, Any]  # columns, cluster, strata (or None)


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


# --- resampling ----------------------------------------------------------------------------------


def check_columns(columns: Columns, rows: int) -> dict[str, np.ndarray]:
    if not isinstance(columns, Mapping) or not columns:
        raise MetricError(
            f"columns must be a non-empty dict of arrays; got {type(columns).__name__}; "
            "allowed: {'score': array, ...}. Name every array that the statistic reads."
        )
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise MetricError(
                f"column {name!r} has shape {array.shape}; allowed: {rows} rows, as many as `cluster` has."
                " Build all columns from the same rows."
            )
    return arrays


class Plan:
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
                f"document {self.labels[codes[split[0]]]!r} has rows in two strata; allowed: one stratum"
                " per document. Use strata that hold whole documents (group x task), or document keys"
                " that are unique across groups."
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
        """``n`` times :meth:`draw` and then ``seeds`` of ``seeds`` with replacement, in one call: [n,
        clusters], [n, seeds].
        """
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


def percentiles(replicates: np.ndarray, level: float) -> tuple[float, float]:
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
    level, n = check_level(level), check_count(n)
    plan = Plan(cluster, strata)
    data = check_columns(columns, plan.rows)
    estimate = float(statistic(dict(data)))
    if plan.degenerate:
        return Interval(estimate, math.nan, math.nan, plan.n)
    rng = np.random.default_rng(seed)
    replicates = np.array([float(statistic(_take(data, plan.index(plan.draw(rng))))) for _ in range(n)])
    return Interval(estimate, *percentiles(replicates, level), plan.n)


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
    level = check_level(level)
    estimate, replicates, documents = _paired(columns_a, columns_b, cluster, statistic, strata, n, seed)
    return Interval(estimate, *percentiles(replicates, level), documents)


def _paired(
    columns_a: Columns,
    columns_b: Columns,
    cluster: Any,
    statistic: Statistic,
    strata: Any,
    n: int,
    seed: int,
):
    """(difference, its ``n`` replicates, number of documents); the replicates are NaN if resampling can
    change nothing.
    """
    n, plan = check_count(n), Plan(cluster, strata)
    a, b = check_columns(columns_a, plan.rows), check_columns(columns_b, plan.rows)
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

    With d the difference and d* that of a replicate of `paired_difference` (the same draws for the same
    ``seed``), the spread of d* around d stands for that of d around 0: ``p = (1 + #{|d* - d| >= |d|}) / (1 +
    n)``. In [1 / (1 + n), 1]; 1 where both sides are equal; NaN if every stratum has one document only, or if
    the statistic is NaN. It tells nothing about other seeds.

    Source: Efron and Tibshirani 1993, section 16.4 (bootstrap test by shifting); Davison and Hinkley 1997,
    section 4.2. Raises MetricError as `paired_difference` does.
    """
    d, replicates, _ = _paired(columns_a, columns_b, cluster, statistic, strata, n, seed)
    if math.isnan(d) or np.isnan(replicates).any():
        return math.nan
    beyond = np.abs(replicates - d) >= abs(d) - 1e-12  # sums of the same numbers differ by rounding
    return (1 + int(beyond.sum())) / (1 + n)


# --- many comparisons, and how large a difference is ---------------------------------------------


def check_p_values(p: Any) -> np.ndarray:
    values = vector("p", p)
    if values.min() < 0 or values.max() > 1:
        raise MetricError(
            f"p ranges from {values.min():g} to {values.max():g}; allowed: 0 to 1. Pass p-values, not"
            " statistics."
        )
    return values


# --- how stable an order of methods is -----------------------------------------------------------


def weighted_mean(
    columns: Mapping[str, np.ndarray], weights: np.ndarray, column: str = "score"
) -> np.ndarray:
    """Mean of a column for each row of the weights [n, rows]: what `rank_stability` does with the name of a
    column. [n].
    """
    return weights @ np.asarray(columns[column], dtype=np.float64) / weights.sum(axis=1)


def seeds_interval(values: Any, level: float = 0.95) -> SeedsInterval:
    """Mean over seeds with a Student-t interval: mean ± t((1+level)/2; S-1) · s / sqrt(S).

    ``values``: one finished score per seed, shape [S]; s is the standard deviation with S - 1. With
    one seed ``low`` and ``high`` are NaN: one seed says nothing on the spread. Unit is that of the
    values; the interval may leave the metric's range, since it assumes normal scores.

    Raises MetricError for an empty list or a score that is not finite.
    """
    level = check_level(level)
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
    level, n = check_level(level), check_count(n)
    if not isinstance(runs, Sequence) or not runs:
        raise MetricError(
            f"runs is {'empty' if isinstance(runs, Sequence) else type(runs).__name__}; allowed: a list"
            " with one (columns, cluster, strata) per seed. Pass at least one seed."
        )
    plans: list[Plan] = []
    data: list[dict[str, np.ndarray]] = []
    for i, run in enumerate(runs):
        if not isinstance(run, (tuple, list)) or len(run) != 3:
            raise MetricError(
                f"runs[{i}] is {type(run).__name__} and no triple; allowed: (columns, cluster, strata). "
                "Put None in third place if there are no strata."
            )
        plans.append(Plan(run[1], run[2]))
        data.append(check_columns(run[0], plans[-1].rows))
    first = plans[0]
    if shared:
        for i, plan in enumerate(plans):
            same = np.array_equal(plan.labels, first.labels) and np.array_equal(
                plan.stratum_labels[plan.stratum], first.stratum_labels[first.stratum]
            )
            if not same:
                raise MetricError(
                    f"runs[{i}] has other documents or strata than runs[0]; allowed with shared=True: the"
                    " same in all seeds. Score all seeds on the same documents, or use shared=False."
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
    return Interval(estimate, *percentiles(replicates, level), n_documents)
