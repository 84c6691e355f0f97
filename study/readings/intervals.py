"""Readings with their uncertainty: documents and seeds are resampled, rows never."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from reprolib.metrics.resample import Interval, Plan, combined_interval, percentiles, seeds_interval
from reprolib.record import Record
from study.readings.quantities import READINGS, columns, statistic, value


def interval(records: Sequence[Record], name: str, n: int = 300) -> Interval:
    """Mean over seeds with a 95 % interval from resampling seeds, and documents within groups and tasks.

    All seeds are scored on the same documents, so that a draw of documents is shared by them. With one
    seed the interval is over documents only.
    """
    return _interval(tuple(r.fingerprint for r in records), name, n, _Held(tuple(records)))


class _Held:
    """Records beside their fingerprints in a cached call: compared as equal, since the fingerprints
    decide.
    """

    def __init__(self, records: tuple[Record, ...]):
        self.records = records

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=4096)
def _interval(fingerprints: tuple[str, ...], name: str, n: int, held: _Held) -> Interval:
    records = held.records
    if READINGS[name].metric:
        scores = [value(r, name) for r in records]
        if not np.isfinite(scores).all():
            return Interval(math.nan, math.nan, math.nan, 0)
        s = seeds_interval(scores)
        return Interval(s.estimate, max(0.0, s.low), s.high, 0)
    runs = []
    for r in records:
        c = columns(r)
        strata = np.array([f"{g}/{t}" for g, t in zip(c["group"], c["task"], strict=True)])
        runs.append((c, c["document"].astype(int), strata))
    if name == "attack_auc" or name in ("mia_score", "final_score"):
        for c, _, _ in runs:
            finite = np.isfinite(c["text_nll"])
            if not all((finite & (c["group"] == g)).any() for g in ("forget", "holdout")):
                return Interval(math.nan, math.nan, math.nan, 0)  # nothing to attack
    seed = zlib.crc32(name.encode())
    plans = [Plan(document, strata) for _, document, strata in runs]
    first = plans[0]
    alike = all(
        np.array_equal(p.labels, first.labels)
        and np.array_equal(p.stratum_labels[p.stratum], first.stratum_labels[first.stratum])
        for p in plans
    )
    if not alike or first.degenerate:
        return combined_interval(runs, statistic(name), shared=alike, n=n, seed=seed)
    documents, seeds = _draws(first, len(runs), n, seed)
    total = np.zeros(n)
    for s, (c, document, _) in enumerate(runs):
        weights = documents[:, np.searchsorted(first.labels, document)]
        total += seeds[:, s] * vectorised(name, c, weights)
    estimate = float(np.mean([statistic(name)(c) for c, _, _ in runs]))
    return Interval(estimate, *percentiles(total / len(runs), 0.95), first.n)


def _draws(plan, seeds, n, seed):
    """Document counts [n, documents] and seed counts [n, seeds], as `combined_interval` with shared=True
    draws them.
    """
    documents, picks = plan.draws(np.random.default_rng(seed), n, seeds)
    return _counts(documents, plan.n), _counts(picks, seeds)


def _counts(picks, kinds):
    """How often each of ``kinds`` stands in each row of ``picks``: [rows, kinds]."""
    rows = np.arange(len(picks))[:, None] * kinds
    return (
        np.bincount((picks + rows).ravel(), minlength=len(picks) * kinds)
        .reshape(len(picks), kinds)
        .astype(float)
    )


def _mean(columns, w, hit, column="score"):
    v = columns[column][hit]
    return w[:, hit] @ v / w[:, hit].sum(axis=1)


def _auc(columns, w):
    nll = columns["text_nll"]
    finite = np.isfinite(nll)
    m, h = (finite & (columns["group"] == g) for g in ("forget", "holdout"))
    a, b = -nll[m][:, None], -nll[h][None, :]
    wins = (a > b) + 0.5 * (a == b)
    return ((w[:, m] @ wins) * w[:, h]).sum(axis=1) / (w[:, m].sum(axis=1) * w[:, h].sum(axis=1))


def _aggregate(columns, w):
    parts = []
    for group in ("forget", "retain"):
        own = columns["group"] == group
        for task in sorted(set(columns["task"][own])):
            for kind in ("sc", "qa"):
                mean = _mean(columns, w, own & (columns["task"] == task) & (columns["kind"] == kind))
                parts.append(np.clip(1 - mean if group == "forget" else mean, 0, 1))
    parts = np.array(parts)
    with np.errstate(divide="ignore"):
        return np.where((parts == 0).any(axis=0), 0.0, len(parts) / (1 / parts).sum(axis=0))


def vectorised(name, columns, w):
    """The reading `name` for each row of the weights [n, rows]."""
    reading = READINGS[name]
    if reading.rows is not None:
        return _mean(columns, w, reading.rows(columns), reading.column)
    if name == "attack_auc":
        return _auc(columns, w)
    if name == "mia_score":
        return 1 - 2 * np.abs(_auc(columns, w) - 0.5)
    if name == "task_aggregate":
        return _aggregate(columns, w)
    if name == "final_score":
        world = vectorised("world_questions", columns, w)
        return (_aggregate(columns, w) + 1 - 2 * np.abs(_auc(columns, w) - 0.5) + world) / 3
    raise KeyError(name)
