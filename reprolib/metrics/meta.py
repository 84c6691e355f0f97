"""Metrics of metrics: does a measure of what is remembered tell models that know from models that do not, and
does it last?

After the meta-evaluation of open-unlearning (Dorna et al. 2025). A metric here is *larger where more is
remembered*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from reprolib.metrics import privacy
from reprolib.metrics.card import Card
from reprolib.metrics.checks import share, vector
from reprolib.metrics.resample import Interval, bootstrap
from reprolib.metrics.robustness import quantisation_robustness, relearning_robustness, robustness

_SOURCE = "open-unlearning (Dorna et al. 2025), meta-evaluation"

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="faithfulness",
            label="Faithfulness",
            unit="AUC",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap=(
                "Hangs on the pool: target and twin are told apart by almost any metric. Let models differ"
                " in other ways too."
            ),
        ),
        Card(
            name="stability",
            label="Stability of a metric",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap=(
                "It is of the metric and of the models it was read on: a metric that is 0 on all of them"
                " scores 1."
            ),
        ),
        Card(
            name="overall",
            label="Meta-evaluation",
            unit="share",
            low=0.0,
            high=1.0,
            better="higher",
            source=_SOURCE,
            trap="Faithfulness at chance (0.5) still gives up to 0.67: see the parts.",
        ),
    )
}


class Stability(NamedTuple):
    """Means over models, each in [0, 1]: R (relearning), Q (quantisation), and the harmonic mean of the
    two.
    """

    relearning: float
    quantisation: float
    robustness: float


def faithfulness(
    knows: Any,
    does_not: Any,
    *,
    direction_free: bool = False,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """AUC of one metric between models that have the knowledge and models that do not, with its interval over
    models.

    ``knows`` [n], ``does_not`` [m]: the metric of each model, larger where more is remembered; ties count
    half. In [0, 1]: 1 is a metric that always tells them apart, 0.5 one that says nothing, 0 one that is the
    wrong way round. ``direction_free=True`` takes max(AUC, 1 - AUC), in [0.5, 1], of a metric whose direction
    nobody fixed: its interval is then above 0.5 by construction and shows nothing. Percentile interval from
    resampling the models of each side; NaN where both sides have one model; ``n_documents`` is the number of
    models. Models of one family are dependent and make it too narrow.

    Source: Dorna et al. 2025, section on faithfulness. Raises MetricError for an empty side or NaN.
    """
    sides = vector("knows", knows, finite=False), vector("does_not", does_not, finite=False)
    side = np.repeat([True, False], [len(s) for s in sides])

    def statistic(columns: dict[str, np.ndarray]) -> float:
        value = privacy.auc(columns["value"][columns["knows"]], columns["value"][~columns["knows"]])
        return max(value, 1.0 - value) if direction_free else value

    columns = {"value": np.concatenate(sides), "knows": side}
    return bootstrap(columns, np.arange(len(side)), statistic, strata=side, n=n, seed=seed, level=level)


def stability(
    before: Any, quantised: Any, relearnt: Any, reference_before: Any, reference_relearnt: Any
) -> Stability:
    """R and Q of one metric over unlearned models, and their harmonic mean: does what it says of a model
    last?

    All arrays [models], or scalars: the metric of each unlearned model as it is, quantised, and trained again
    on forget rows; ``reference_*``: of the model that never saw these rows, before and after the same
    training. Ratios and edge cases as in `robustness.quantisation_robustness` and
    `robustness.relearning_robustness`, averaged over models. In [0, 1], higher is better. Leave out models
    that never forgot: they say nothing (1) on either.

    Source: Dorna et al. 2025. Raises MetricError for negative or non-finite values, or unequal numbers of
    models.
    """
    q = float(np.mean(quantisation_robustness(before, quantised)))
    r = float(np.mean(relearning_robustness(before, relearnt, reference_before, reference_relearnt)))
    return Stability(r, q, robustness(r, q))


def overall(faithfulness: float, robustness: float) -> float:
    """Harmonic mean of faithfulness and robustness; 0 where either is 0. All in [0, 1], higher is better.

    Source: Dorna et al. 2025. Raises MetricError for a value outside [0, 1] or NaN.
    """
    f, r = share("faithfulness", faithfulness), share("robustness", robustness)
    return 2 * f * r / (f + r) if f + r else 0.0
