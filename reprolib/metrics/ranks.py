"""How stable an order of methods is when documents and seeds are drawn anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reprolib.metrics.checks import MetricError, check_count, check_level
from reprolib.metrics.resample import Plan, Run, Weighted, check_columns, weighted_mean


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of M methods, and how far it can be relied on. All arrays in the order of ``methods``.

    ``score`` [M]; ``rank`` [M], 1 the best, tied methods share the mean of their places; ``low`` and ``high``
    [M], interval of the rank; ``beats`` [M, M], share of replicates in which the row's method is better than
    the column's (a tie counts half); ``tau``: mean Kendall tau-b between replicates, 1 where they all agree,
    0 where the order is chance.
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

    ``boards``: for each method its runs, one ``(columns, cluster, strata)`` a seed as for
    `combined_interval`, all on the same documents. ``score``: the name of a column, which stands for its mean
    over rows, or a function (columns, weights [n, rows]) -> [n] that reads all replicates at once: a
    replicate gives a row the number of times that its document was drawn. The score of a method is the mean
    over its seeds. ``better``: "higher" or "lower".

    Each replicate draws the documents once for all methods, so that what is common to a document cancels, and
    the seeds too where ``paired_seeds`` (seed i of every method began from the same model; all methods then
    need as many). Intervals of ranks are percentiles, rounded outwards; tau-b is the mean over pairs of
    replicates 1 and 2, 3 and 4, ... With S seeds the spread between seeds is understated by about
    sqrt((S-1)/S). Where nothing can be resampled (every stratum has one document, and there is one seed),
    intervals, ``beats`` and ``tau`` are NaN.

    Raises MetricError for fewer than two methods, unequal documents, unequal numbers of seeds, or a score
    that is not finite.
    """
    level, n = check_level(level), check_count(n)
    n_seeds = _seeds(boards, better, paired_seeds)
    first, data = _same_documents(boards, None if callable(score) else score)
    read = score if callable(score) else _mean_of(score)
    sign, methods, size = 1.0 if better == "higher" else -1.0, tuple(boards), len(boards)

    def scores(documents: np.ndarray, seeds: Sequence[np.ndarray]) -> np.ndarray:
        return _scores(methods, data, read, documents, seeds)

    estimate = scores(np.ones((1, first.n)), [np.full((1, s), 1 / s) for s in n_seeds])[0]
    rank = _ranks(sign * estimate[None])[0]
    if first.degenerate and max(n_seeds) == 1:
        nan, pairs = np.full(size, math.nan), np.full((size, size), math.nan)
        return Ranking(methods, estimate, rank, nan, nan.copy(), pairs, math.nan, first.n, 1)
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


def _seeds(boards: Mapping[str, Sequence[Run]], better: str, paired: bool) -> list[int]:
    """How many seeds each method has; an error where methods cannot be ranked so."""
    if better not in ("higher", "lower"):
        raise MetricError(
            f"better is {better!r}; allowed: 'higher' or 'lower'. Say which end of the score is rank 1."
        )
    if not isinstance(boards, Mapping) or len(boards) < 2 or not all(boards.values()):
        raise MetricError(
            "boards must name two methods or more, each with at least one run; got fewer. Rank what can be"
            " compared."
        )
    n_seeds = [len(runs) for runs in boards.values()]
    if paired and len(set(n_seeds)) > 1:
        raise MetricError(
            f"methods have {dict(zip(boards, n_seeds, strict=True))} seeds; allowed with"
            " paired_seeds=True: as many each, in the same order. Leave out the seeds that not all have,"
            " or use paired_seeds=False."
        )
    return n_seeds


def _mean_of(column: str) -> Weighted:
    return lambda columns, weights: weighted_mean(columns, weights, column)


def _scores(
    methods: Sequence[str],
    data: list,
    read: Weighted,
    documents: np.ndarray,
    seeds: Sequence[np.ndarray],
) -> np.ndarray:
    """[n, M] for counts of documents [n, D] and, for each method, shares of seeds [n, S]."""
    out = np.zeros((len(documents), len(methods)))
    for m, runs in enumerate(data):
        for s, (columns, where) in enumerate(runs):
            out[:, m] += seeds[m][:, s] * np.asarray(read(columns, documents[:, where]), dtype=np.float64)
    if not np.isfinite(out).all():
        raise MetricError(
            f"the score of {methods[int(np.argwhere(~np.isfinite(out))[0][1])]!r} is not finite in"
            " some replicate; allowed: finite numbers. Give strata that keep every cell filled, or"
            " leave the method out."
        )
    return out


def _same_documents(boards: Mapping[str, Sequence[Run]], column: str | None):
    """The plan that all runs share, and for each method and seed its columns and each row's place among the
    documents.
    """
    first: Plan | None = None
    data: list[list[tuple[dict[str, np.ndarray], np.ndarray]]] = []
    for method, runs in boards.items():
        data.append([])
        for i, run in enumerate(runs):
            if not isinstance(run, (tuple, list)) or len(run) != 3:
                raise MetricError(
                    f"boards[{method!r}][{i}] is {type(run).__name__} and no triple; allowed: (columns,"
                    " cluster, strata). Put None in third place if there are no strata."
                )
            plan = Plan(run[1], run[2])
            first = first or plan
            same = np.array_equal(plan.labels, first.labels) and np.array_equal(
                plan.stratum_labels[plan.stratum], first.stratum_labels[first.stratum]
            )
            if not same:
                raise MetricError(
                    f"boards[{method!r}][{i}] has other documents or strata than the first run; allowed:"
                    " the same in all. Score all methods on the same documents."
                )
            columns = check_columns(run[0], plan.rows)
            if column is not None and column not in columns:
                raise MetricError(
                    f"boards[{method!r}][{i}] has no column {column!r}; allowed: {', '.join(columns)}."
                    " Name one."
                )
            data[-1].append((columns, np.searchsorted(plan.labels, np.asarray(run[1]))))
    assert first is not None
    return first, data


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 the highest; ties share the mean of their places. [n, M]."""
    above = np.stack([(scores > scores[:, [m]]).sum(1) for m in range(scores.shape[1])], axis=1)
    equal = np.stack(
        [(scores == scores[:, [m]]).sum(1) for m in range(scores.shape[1])], axis=1
    )  # itself among them
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
