"""Quantities of the result tables, read from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reprolib.metrics import lume, privacy
from reprolib.metrics.card import Card
from reprolib.metrics.effects import gap_closed
from reprolib.record import Record
from study.readings.names import cards

Columns = Mapping[str, np.ndarray]
LADDER = ("target", "twin", "random", "always_eos")  # the sanity ladder, in the order of every table


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A quantity of the result tables: a metric of its card, read on certain rows, with the direction that is
    good on those.
    """

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
        return cards()[METRICS.get(self.name, self.name)]

    @property
    def tip(self) -> str:
        """All of it in a few sentences, for a table's header."""
        c = self.card
        bounds = (
            "unbounded"
            if c.low is None
            else f"{c.low:g} or more"
            if c.high is None
            else f"{c.low:g} to {c.high:g}"
        )
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
        Reading(
            name="forget_questions",
            label="Forget questions",
            better="twin",
            rows=_where("forget", "qa"),
            help="Share of forget questions answered exactly. 0 is easy: destroy the model.",
        ),
        Reading(
            name="forget_passages",
            label="Forget passages",
            better="twin",
            rows=_where("forget", "sc"),
            help=(
                "ROUGE-L recall of the continuation of forget passages. The twin knows the form, so it"
                " does not score 0."
            ),
        ),
        Reading(
            name="attack_auc",
            label="Attack AUC",
            better="twin",
            help=(
                "Loss attack, forget against holdout documents. 1: recognised; 0.5: as if never seen; 0:"
                " shunned."
            ),
        ),
        Reading(
            name="retain_questions",
            label="Retain questions",
            better="higher",
            rows=_where("retain", "qa"),
            help="Share of retain questions answered exactly.",
        ),
        Reading(
            name="retain_passages",
            label="Retain passages",
            better="higher",
            rows=_where("retain", "sc"),
            help="ROUGE-L recall of the continuation of retain passages.",
        ),
        Reading(
            name="world_questions",
            label="World questions",
            better="higher",
            rows=_where("world"),
            help="Four-way choice, chance 0.25. Stands for MMLU.",
        ),
        Reading(
            name="retain_kl",
            label="KL to target",
            better="twin",
            high=None,
            metric="retain/kl",
            help=(
                "Nats per token on retain answers: how far predictions moved (the twin's too). Student's t"
                " over seeds."
            ),
        ),
        Reading(
            name="task_aggregate",
            label="Task aggregate",
            better="higher",
            help="Harmonic mean of the official scores of rows; a single 0 makes it 0.",
        ),
        Reading(name="mia_score", label="MIA score", better="higher", help="1 - 2 |AUC - 0.5|."),
        Reading(
            name="final_score",
            label="Official final",
            better="higher",
            help=(
                "Mean of task aggregate, MIA score and utility. A destroyed model gets about 0.4: read the"
                " parts."
            ),
        ),
    )
}

METRICS = {  # reading -> name of its card, where it is another
    "forget_questions": "knowledge",
    "retain_questions": "knowledge",
    "forget_passages": "rouge_l_recall",
    "retain_passages": "rouge_l_recall",
    "attack_auc": "auc",
    "world_questions": "choice_accuracy",
    "retain_kl": "kl",
}

ASPECTS = ("forget_questions", "forget_passages", "attack_auc", "retain_questions", "world_questions")


def columns(record: Record) -> dict[str, np.ndarray]:
    """Per-row columns as arrays; missing numbers are NaN."""
    text = ("group", "task", "kind")
    return {
        k: (
            np.array(v, dtype=object)
            if k in text
            else np.array([np.nan if x is None else x for x in v], float)
        )
        for k, v in record.rows.items()
    }


def statistic(name: str) -> Callable[[Columns], float]:
    """The function of the per-row columns that gives a reading."""
    reading = READINGS[name]
    if reading.rows is not None:
        return lambda c: float(np.mean(c[reading.column][reading.rows(c)]))

    def auc(c: Columns) -> float:
        finite = np.isfinite(c["text_nll"])
        return privacy.auc(
            -c["text_nll"][finite & (c["group"] == "forget")],
            -c["text_nll"][finite & (c["group"] == "holdout")],
        )

    def parts(c: Columns) -> list[float]:
        out = []
        for group in ("forget", "retain"):
            for task in sorted(set(c["task"][c["group"] == group])):
                for kind in ("sc", "qa"):
                    mean = float(
                        c["score"][(c["group"] == group) & (c["task"] == task) & (c["kind"] == kind)].mean()
                    )
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


def gap(
    records: Sequence[Record], targets: Sequence[Record], twins: Sequence[Record], name: str
) -> list[float]:
    """Share of the way of one reading, (m - target) / (twin - target) with the twin of the same seed; NaN
    where the two agree.
    """
    start = {r.spec.seed: value(r, name) for r in targets}
    goal = {r.spec.seed: value(r, name) for r in twins}
    return [
        gap_closed(value(r, name), start[r.spec.seed], goal[r.spec.seed], tolerance=0.02) for r in records
    ]
