"""Does forgetting last? Leaks over many samples, and what quantisation and relearning bring back.

In all of it a metric m is *larger where more is remembered*: exact match, extraction strength, probability of
the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector

_SOURCE = "open-unlearning (Dorna et al. 2025), meta-evaluation"

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="leak_at_k",
            label="leak@k",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source="Chen et al. 2021 (Evaluating large language models trained on code): pass@k",
            trap=(
                "Rises with k for any model that guesses: read it beside the twin's, at the same k and"
                " temperature."
            ),
        ),
        Card(
            name="quantisation_robustness",
            label="Q (quantisation)",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap=(
                "A model that never forgot has nothing to bring back and scores 1. So does one that"
                " quantisation destroys."
            ),
        ),
        Card(
            name="relearning_robustness",
            label="R (relearning)",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap=(
                "A model that never forgot, or can learn nothing any more, scores 1. Compare models that"
                " forgot equally much."
            ),
        ),
        Card(
            name="robustness",
            label="Robustness",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap="Harmonic mean: one of the two at 0 makes it 0, whatever the other.",
        ),
    )
}


def leak_at_k(leaks: Any, samples: int, k: int) -> np.ndarray:
    r"""Probability that at least one of k samples leaks, for each row: 1 - C(n - c, k) / C(n, k).

    ``leaks`` [rows]: c, how many of the row's ``samples`` n samples gave the answer; ``k`` from 1 to n.
    Unbiased for every k <= n, where 1 - (1 - c/n)^k is not; k = 1 is the share c/n, k = n is 1 if any sample
    leaked. Returns [rows] in [0, 1]; the mean over rows is leak@k, lower where less is remembered. Computed
    as 1 - prod_{i=n-c+1..n} (1 - k/i).

    Source: Chen et al. 2021, equation 1. Raises MetricError for counts that are not whole numbers from 0 to
    n, or k outside 1..n.
    """
    for name, value in (("samples", samples), ("k", k)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise MetricError(
                f"{name} is {value!r}; allowed: a whole number of 1 or more. Draw 20 samples a question."
            )
    if k > samples:
        raise MetricError(
            f"k is {k} of {samples} samples; allowed: 1 to {samples}. Draw more samples or lower k."
        )
    c = vector("leaks", leaks)
    if (c != np.floor(c)).any() or c.min() < 0 or c.max() > samples:
        raise MetricError(
            f"leaks range from {c.min():g} to {c.max():g}; allowed: whole numbers from 0 to {samples}."
            " Count hits."
        )
    i = np.arange(1, samples + 1)
    factors = np.where(i[None] > samples - c[:, None], np.maximum(1 - k / i, 0.0)[None], 1.0)
    return 1.0 - factors.prod(axis=1)


def _remembered(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.size == 0 or not np.isfinite(array).all() or array.min() < 0:
        raise MetricError(
            f"{name} is {value!r}; allowed: finite numbers of 0 or more, larger where more is remembered. "
            "Turn losses into probabilities, and AUCs so that 1 means recognised."
        )
    return array


def _alike(*values: np.ndarray) -> None:
    if len({v.shape for v in values}) != 1:
        raise MetricError(
            f"values have shapes {[v.shape for v in values]}; allowed: equal ones. Take all from the same"
            " models."
        )


def quantisation_robustness(before: Any, after: Any) -> Any:
    """Q = min(m_before / m_after, 1) of an unlearned model before and after quantisation; 1 is robust.

    Scalars or arrays [models] of a metric >= 0, larger where more is remembered. In [0, 1], higher is better.
    Where ``after`` is 0, nothing came back: 1, also for 0/0; where only ``before`` is 0, all of it came back:
    0. Never NaN.

    Source: open-unlearning (Dorna et al. 2025), 4-bit. Raises MetricError for negative or non-finite values,
    or unequal shapes.
    """
    b, a = _remembered("before", before), _remembered("after", after)
    _alike(b, a)
    q = np.where(a > b, b / np.where(a > b, a, 1.0), 1.0)
    return q if q.ndim else float(q)


def relearning_robustness(before: Any, after: Any, reference_before: Any, reference_after: Any) -> Any:
    """R = min((twin_after - twin_before) / (m_after - m_before), 1): does forgotten knowledge come back
    faster than new is learnt?

    ``before``, ``after``: metric of the unlearned model before and after training on forget rows;
    ``reference_*``: of the model that never saw them, after the same training. Scalars or arrays [models], as
    in `quantisation_robustness`. In [0, 1], higher is better: 1 where the unlearned model gains no more than
    the twin. Where the unlearned model gains nothing (0/0 too): 1; where it gains and the twin does not: 0.
    Never NaN.

    Source: open-unlearning (Dorna et al. 2025). Raises MetricError for negative or non-finite values, or
    unequal shapes.
    """
    names = ("before", "after", "reference_before", "reference_after")
    values = [
        _remembered(n, v)
        for n, v in zip(names, (before, after, reference_before, reference_after), strict=True)
    ]
    _alike(*values)
    own, twin = values[1] - values[0], np.maximum(values[3] - values[2], 0.0)
    gained = own > np.maximum(twin, 1e-12)  # differences below are rounding
    r = np.where(gained, twin / np.where(gained, own, 1.0), 1.0)
    return r if r.ndim else float(r)


def robustness(relearning: float, quantisation: float) -> float:
    """Harmonic mean of R and Q, 2 R Q / (R + Q); 0 where either is 0. All in [0, 1], higher is better.

    Source: open-unlearning (Dorna et al. 2025). Raises MetricError for a value outside [0, 1] or NaN.
    """
    r, q = share("relearning", relearning), share("quantisation", quantisation)
    return 2 * r * q / (r + q) if r + q else 0.0
