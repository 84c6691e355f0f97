"""MMLU as the SemEval-2025 Task 4 organisers score it (Open-Instruct): the letter with the highest next-token
probability.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector
from reprolib.metrics.lume import ELIGIBLE_MMLU
from reprolib.metrics.resample import Interval, bootstrap

_SOURCE = "Hendrycks et al. 2021; Open-Instruct's MMLU script, which the SemEval-2025 Task 4 organisers ran"


def _card(name: str, label: str, trap: str, **changes: Any) -> Card:
    usual = Card(
        name=name, label=label, trap=trap, unit="share", low=0.0, high=1.0, better="higher", source=_SOURCE
    )
    return replace(usual, **changes)


CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        _card(
            "mmlu/accuracy_questions",
            "MMLU, mean over questions",
            "The official number. Chance is 0.25, but a model that always says one letter scores between"
            " 0.23 and 0.27.",
        ),
        _card(
            "mmlu/accuracy_subjects",
            "MMLU, mean over subjects",
            "Not official: small subjects count as much as large ones, so it differs from the mean over"
            " questions.",
            source="Hendrycks et al. 2021",
        ),
        _card(
            "mmlu/subject",
            "MMLU, one subject",
            "100 to 1,534 questions a subject, fewer in a subset: with 100 the interval is about 0.1 wide"
            " on either side.",
        ),
        _card(
            "mmlu/eligible",
            "Eligible for the 7B track",
            "Yes (1) or no (0) at 0.371, 75 % of the untouched 7B model's 0.495; the 1B track has no"
            " threshold.",
            unit="0 or 1",
            source="SemEval-2025 Task 4 (organisers)",
        ),
        _card(
            "mmlu/answer_mass",
            "Probability of the four letters",
            "Low means the model would not answer with a letter at all; the accuracy does not see that.",
            better="twin",
            source="this study",
        ),
        _card(
            "mmlu/chance",
            "Accuracy of guessing",
            "The same for every model: below it a model is biased, not ignorant.",
            better="twin",
        ),
        _card(
            "mmlu/scored",
            "Questions scored",
            "Less than 14,042 is a subset: compare models on the same one only.",
            unit="questions",
            high=None,
            better="twin",
        ),
        _card(
            "mmlu/shortened",
            "Prompts with fewer examples",
            "Prompts beyond the context lose worked examples; a model with a longer context is asked other"
            " prompts.",
            better="twin",
            source="this study",
        ),
        _card(
            "mmlu/shots_dropped",
            "Worked examples dropped",
            "A count over all prompts, so it grows with the number of questions.",
            unit="examples",
            high=None,
            better="twin",
            source="this study",
        ),
        _card(
            "mmlu/cut",
            "Questions cut",
            "These lost their beginning even without examples: their answers are guesses.",
            unit="questions",
            high=None,
            better="twin",
            source="this study",
        ),
    )
}


def hits(probabilities: Any, answers: Any) -> np.ndarray:
    """1 where the right letter is the likeliest, else 0: [n]. Ties go to the earlier letter, as argmax does.

    ``probabilities`` [n, 4]: of the letters A to D as next token (or their logits: only the order matters);
    NaN counts as the lowest value, so that a model whose numbers are lost says A. ``answers`` [n]: 0 to 3.

    Source: Open-Instruct. Raises MetricError for another shape, no question, or an answer out of range.
    """
    p = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    if p.ndim != 2 or p.shape[1] != 4 or not len(p):
        raise MetricError(
            f"probabilities have shape {p.shape}; allowed: (questions, 4). Pass one row a question."
        )
    right = np.asarray(answers)
    if (
        right.shape != (len(p),)
        or not np.issubdtype(right.dtype, np.integer)
        or right.min() < 0
        or right.max() > 3
    ):
        raise MetricError(
            f"answers have shape {right.shape} and dtype {right.dtype}; allowed: {len(p)} integers from 0"
            " to 3."
        )
    return (p.argmax(1) == right).astype(float)


def by_subject(hits: Any, subjects: Any) -> dict[str, float]:
    """Accuracy of each subject, in alphabetical order. ``hits`` [n] in [0, 1]; ``subjects`` [n].

    Raises MetricError for unequal lengths, no question, or a hit outside [0, 1].
    """
    h, names = _columns(hits, subjects)
    labels, codes = np.unique(names, return_inverse=True)
    means = np.bincount(codes, weights=h) / np.bincount(codes)
    return {str(s): float(m) for s, m in zip(labels, means, strict=True)}


def accuracy_questions(hits: Any) -> float:
    r"""Mean over questions, :math:`\frac1n\sum_i h_i`: the official number, Open-Instruct's ``average_acc``.
    In [0, 1], higher is better, chance 1/4. Raises MetricError for no question or a hit outside [0, 1].
    """
    return float(_columns(hits, None)[0].mean())


def accuracy_subjects(hits: Any, subjects: Any) -> float:
    r"""Mean over subjects of their accuracies, :math:`\frac1S\sum_s \frac1{n_s}\sum_{i\in s} h_i`. In [0, 1],
    chance 1/4.

    Raises MetricError as `by_subject` does.
    """
    return float(np.mean(list(by_subject(hits, subjects).values())))


def eligible(accuracy: float) -> bool:
    """Whether an accuracy (mean over questions, in [0, 1]) reaches ``ELIGIBLE_MMLU`` = 0.371, as the 7B track
    asks.

    Raises MetricError for an accuracy outside [0, 1].
    """
    return share("accuracy", accuracy) >= ELIGIBLE_MMLU


def intervals(
    hits: Any, subjects: Any, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Interval, Interval]:
    """Percentile intervals of `accuracy_questions` and of `accuracy_subjects`: questions are drawn anew
    within each subject.

    They hold for other questions of the same subjects, not for other subjects. ``n_documents`` counts
    questions. Raises MetricError as `by_subject` and `bootstrap` do.
    """
    h, names = _columns(hits, subjects)
    codes = np.unique(names, return_inverse=True)[1]
    columns, questions = {"hit": h, "subject": codes}, np.arange(len(h))

    def over_subjects(c: dict[str, np.ndarray]) -> float:
        return float((np.bincount(c["subject"], weights=c["hit"]) / np.bincount(c["subject"])).mean())

    statistics = (lambda c: float(c["hit"].mean()), over_subjects)
    first, second = (
        bootstrap(columns, questions, s, strata=codes, n=n, seed=seed, level=level) for s in statistics
    )
    return first, second


def _columns(hits: Any, subjects: Any) -> tuple[np.ndarray, np.ndarray]:
    h = vector("hits", hits)
    if h.min() < 0 or h.max() > 1:
        raise MetricError(
            f"hits run from {h.min():.6g} to {h.max():.6g}; allowed: 0 to 1. Pass what `hits` returns."
        )
    names = np.asarray(subjects if subjects is not None else [""] * len(h))
    if names.shape != h.shape:
        raise MetricError(
            f"subjects have shape {names.shape} and hits {h.shape}; allowed: one subject a question."
        )
    return h, names
