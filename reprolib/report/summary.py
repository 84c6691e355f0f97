"""Readings of records with their uncertainty: documents and seeds are resampled, rows never."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from reprolib.metrics import lume, privacy
from reprolib.metrics.card import Card
from reprolib.metrics.statistics import Interval, _percentiles, _Plan, at_matched, combined_interval, gap_closed, seeds_interval
from reprolib.record import Record

Columns = Mapping[str, np.ndarray]
LADDER = ("target", "twin", "random", "always_eos")  # the sanity ladder, in the order of every table


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A quantity of the result tables: a metric of its card, read on certain rows, with the direction that is good on those."""

    name: str
    label: str
    better: str  # "higher", "lower" or "twin"
    help: str
    low: float = 0.0
    high: float | None = 1.0
    rows: Callable[[Columns], np.ndarray] | None = None  # which rows it reads (for the mean of a column)
    column: str = "score"
    metric: str = ""  # or a metric of the record, with an interval over seeds only

    @property
    def card(self) -> Card:
        """What is known of the metric: range, unit, source, trap."""
        from reprolib.report.cards import cards

        return cards()[METRICS.get(self.name, self.name)]

    @property
    def tip(self) -> str:
        """All of it in a few sentences, for a table's header."""
        c = self.card
        bounds = "unbounded" if c.low is None else f"{c.low:g} or more" if c.high is None else f"{c.low:g} to {c.high:g}"
        return f"{self.help} Unit: {c.unit}, {bounds}. Trap: {c.trap} Source: {c.source}"

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓", "twin": "→ twin"}[self.better]


def _where(group: str, kind: str | None = None):
    def select(c: Columns) -> np.ndarray:
        hit = c["group"] == group
        return hit if kind is None else hit & (c["kind"] == kind)

    return select


READINGS: dict[str, Reading] = {
    r.name: r
    for r in (
        Reading(name="forget_questions", label="Forget questions", better="twin", rows=_where("forget", "qa"),
                help="Share of forget questions answered exactly. 0 is easy: destroy the model."),
        Reading(name="forget_passages", label="Forget passages", better="twin", rows=_where("forget", "sc"),
                help="ROUGE-L recall of the continuation of forget passages. The twin knows the form, so it does not score 0."),
        Reading(name="attack_auc", label="Attack AUC", better="twin",
                help="Loss attack, forget against holdout documents. 1: recognised; 0.5: as if never seen; 0: shunned."),
        Reading(name="retain_questions", label="Retain questions", better="higher", rows=_where("retain", "qa"),
                help="Share of retain questions answered exactly."),
        Reading(name="retain_passages", label="Retain passages", better="higher", rows=_where("retain", "sc"),
                help="ROUGE-L recall of the continuation of retain passages."),
        Reading(name="world_questions", label="World questions", better="higher", rows=_where("world"),
                help="Four-way choice, chance 0.25. Stands for MMLU."),
        Reading(name="retain_kl", label="KL to target", better="twin", high=None, metric="retain/kl",
                help="Nats per token on retain answers: how far predictions moved (the twin's too). Student's t over seeds."),
        Reading(name="task_aggregate", label="Task aggregate", better="higher",
                help="Harmonic mean of the official scores of rows; a single 0 makes it 0."),
        Reading(name="mia_score", label="MIA score", better="higher", help="1 - 2 |AUC - 0.5|."),
        Reading(name="final_score", label="Official final", better="higher",
                help="Mean of task aggregate, MIA score and utility. A destroyed model gets about 0.4: read the parts."),
    )
}  # fmt: skip
METRICS = {  # reading -> name of its card, where it is another
    "forget_questions": "knowledge", "retain_questions": "knowledge", "forget_passages": "rouge_l_recall",
    "retain_passages": "rouge_l_recall", "attack_auc": "auc", "world_questions": "choice_accuracy", "retain_kl": "kl",
}  # fmt: skip
ASPECTS = ("forget_questions", "forget_passages", "attack_auc", "retain_questions", "world_questions")


def columns(record: Record) -> dict[str, np.ndarray]:
    """Per-row columns as arrays; missing numbers are NaN."""
    text = ("group", "task", "kind")
    return {
        k: np.array(v, dtype=object) if k in text else np.array([np.nan if x is None else x for x in v], float)
        for k, v in record.rows.items()
    }


def statistic(name: str) -> Callable[[Columns], float]:
    """The function of the per-row columns that gives a reading."""
    reading = READINGS[name]
    if reading.rows is not None:
        return lambda c: float(np.mean(c[reading.column][reading.rows(c)]))

    def auc(c: Columns) -> float:
        finite = np.isfinite(c["text_nll"])
        return privacy.auc(-c["text_nll"][finite & (c["group"] == "forget")], -c["text_nll"][finite & (c["group"] == "holdout")])

    def parts(c: Columns) -> list[float]:
        out = []
        for group in ("forget", "retain"):
            for task in sorted(set(c["task"][c["group"] == group])):
                for kind in ("sc", "qa"):
                    mean = float(c["score"][(c["group"] == group) & (c["task"] == task) & (c["kind"] == kind)].mean())
                    out.append(1 - mean if group == "forget" else mean)
        return out

    if name == "attack_auc":
        return auc
    if name == "mia_score":
        return lambda c: lume.mia_score(auc(c))
    aggregate = lambda c: lume.task_aggregate(np.clip(parts(c), 0, 1))  # noqa: E731
    if name == "task_aggregate":
        return aggregate
    if name == "final_score":
        world = statistic("world_questions")
        return lambda c: lume.final_score(aggregate(c), lume.mia_score(auc(c)), world(c))
    raise KeyError(name)


def value(record: Record, name: str) -> float:
    """A reading of one record."""
    reading = READINGS[name]
    if reading.metric:
        number = record.metrics.get(reading.metric)
        return math.nan if number is None else float(number)  # null in a record: not finite
    return statistic(name)(columns(record))


def interval(records: Sequence[Record], name: str, n: int = 300) -> Interval:
    """Mean over seeds with a 95 % interval from resampling seeds, and documents within groups and tasks.

    All seeds are scored on the same documents, so that a draw of documents is shared by them. With one
    seed the interval is over documents only.
    """
    return _interval(tuple(r.fingerprint for r in records), name, n, _Held(tuple(records)))


class _Held:
    """Records beside their fingerprints in a cached call: compared as equal, since the fingerprints decide."""

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
    plans = [_Plan(document, strata) for _, document, strata in runs]
    first = plans[0]
    alike = all(
        np.array_equal(p.labels, first.labels) and np.array_equal(p.stratum_labels[p.stratum], first.stratum_labels[first.stratum])
        for p in plans
    )
    if not alike or first.degenerate:
        return combined_interval(runs, statistic(name), shared=alike, n=n, seed=seed)
    documents, seeds = _draws(first, len(runs), n, seed)
    total = np.zeros(n)
    for s, (c, document, _) in enumerate(runs):
        weights = documents[:, np.searchsorted(first.labels, document)]
        total += seeds[:, s] * _vectorised(name, c, weights)
    estimate = float(np.mean([statistic(name)(c) for c, _, _ in runs]))
    return Interval(estimate, *_percentiles(total / len(runs), 0.95), first.n)


def _draws(plan, seeds, n, seed):
    """Document counts [n, documents] and seed counts [n, seeds], as `combined_interval` with shared=True draws them."""
    documents, picks = plan.draws(np.random.default_rng(seed), n, seeds)
    return _counts(documents, plan.n), _counts(picks, seeds)


def _counts(picks, kinds):
    """How often each of ``kinds`` stands in each row of ``picks``: [rows, kinds]."""
    rows = np.arange(len(picks))[:, None] * kinds
    return np.bincount((picks + rows).ravel(), minlength=len(picks) * kinds).reshape(len(picks), kinds).astype(float)


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


def _vectorised(name, columns, w):
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
        world = _vectorised("world_questions", columns, w)
        return (_aggregate(columns, w) + 1 - 2 * np.abs(_auc(columns, w) - 0.5) + world) / 3
    raise KeyError(name)


def gap(records: Sequence[Record], targets: Sequence[Record], twins: Sequence[Record], name: str) -> list[float]:
    """Share of the way of one reading, (m - target) / (twin - target) with the twin of the same seed; NaN where the two agree."""
    start = {r.spec.seed: value(r, name) for r in targets}
    goal = {r.spec.seed: value(r, name) for r in twins}
    return [gap_closed(value(r, name), start[r.spec.seed], goal[r.spec.seed], tolerance=0.02) for r in records]


def way(record: Record) -> list[dict[str, float]]:
    """The logged states on the way to the record's model, numbers only; cut where a number is not finite.

    Left out are states whose weights were thrown away: those of stages before the last one that starts again from the
    weights before unlearning, or before the last change of the weights that is not training (a merge of adapters, a task
    vector). "jump" marks a state that no path of small steps leads to: nothing may be interpolated up to it.
    The run's end closes the list, and is all there is where nothing was logged (the sanity ladder).
    """
    stages = record.stages
    afresh = [i for i, s in enumerate(stages) if s.get("restart") or s.get("is", "Stage") not in ("Stage", "Noise")]
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
        same = out and all(abs(end[k] - out[-1][k]) < 1e-3 for k in names if math.isfinite(end[k] - out[-1][k]))
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
        return {k: at_matched(x, y, level).value if np.isfinite(y).all() else math.nan for k, y in pair.items()}
    return None


def _number(x: float | None) -> float:
    """A null of a record is a number that was not finite."""
    return math.nan if x is None else float(x)
