"""Utility on multiple-choice questions: the option with the lowest loss is the model's choice."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, vector

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="choice_accuracy",
            label="Choice accuracy",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source="MMLU-style scoring (Hendrycks et al. 2021), option with the lowest loss",
            trap="Chance is 1/options, not 0; summed and per-token losses choose differently.",
        ),
    )
}


def choice_accuracy(nll_options: Any, correct: Any = 0) -> np.ndarray:
    """Hit of each question: 1 if the correct option has the lowest loss, 1/(number tied) if tied lowest, else
    0.

    ``nll_options`` [n, options]: loss of each option (nats, summed or per token, the same for all);
    ``correct``: column of the right answer, one for all or [n]. Returns [n] in [0, 1]; its mean is the
    accuracy, and a model that scores all options alike gets chance. +inf is allowed (an impossible option).

    Source: MMLU-style scoring. Raises MetricError for fewer than two options, NaN, a row of only +inf, or
    ``correct`` out of range.
    """
    nll = vector("nll_options", nll_options, ndim=2, finite=False)
    n, options = nll.shape
    if options < 2:
        raise MetricError(
            f"nll_options has {options} option; allowed: 2 or more. Put the right and the wrong options"
            " side by side."
        )
    right = np.asarray(correct)
    if right.size == 0 or not np.issubdtype(right.dtype, np.integer) or right.shape not in ((), (n,)):
        raise MetricError(
            f"correct has dtype {right.dtype} and shape {right.shape}; allowed: an integer or {n}"
            " integers. Pass the column of the right answer."
        )
    if right.min() < 0 or right.max() >= options:
        raise MetricError(
            f"correct runs from {int(right.min())} to {int(right.max())}; allowed: 0 to {options - 1}. "
            "Count columns from 0."
        )
    lowest = nll.min(axis=1)
    if not np.isfinite(lowest).all():
        i = int(np.flatnonzero(~np.isfinite(lowest))[0])
        raise MetricError(
            f"the lowest loss of question {i} is {lowest[i]}; allowed: at least one finite loss per"
            " question, none -inf. Look for a diverged model."
        )
    best = nll == lowest[:, None]
    hit = best[np.arange(n), np.broadcast_to(right, (n,))]
    return hit / best.sum(axis=1)


def chance(n_options: Any) -> float:
    """Accuracy of blind guessing: mean of 1 / options.

    ``n_options``: an integer of 1 or more, or one per question [n]. Share in (0, 1].
    Raises MetricError for anything else.
    """
    counts = np.asarray(n_options)
    if counts.ndim > 1 or counts.size == 0 or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 1:
        raise MetricError(
            f"n_options is {n_options!r}; allowed: an integer of 1 or more, or one per question. "
            "Count the options, the right one included."
        )
    return float((1.0 / counts).mean())
