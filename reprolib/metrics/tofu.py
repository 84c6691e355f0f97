"""TOFU's metrics: probability, truth ratio, forget quality, model utility.

The unit is :math:`\bar\ell(a) = -\frac{1}{|a|}\log p(a \mid q)`, the mean loss of an answer in nats per
token, EOS included. Everything is computed from differences of losses, so that no probability underflows.
"""

from __future__ import annotations

import math
import statistics as _stdlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from reprolib.errors import unknown
from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector

Variant = Literal["geometric", "arithmetic", "inverse", "new"]
VARIANTS: tuple[Variant, ...] = ("geometric", "arithmetic", "inverse", "new")

NINE = tuple(
    f"{g}/{m}"
    for g in ("retain", "real_authors", "world_facts")
    for m in ("probability", "rouge", "truth_ratio")
)

_LARGEST = 700.0  # of a log ratio, in nats: beyond it exp overflows
_TOFU = "TOFU (Maini et al. 2024)"

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="probability",
            label="Probability",
            unit="probability/token",
            low=0.0,
            high=1.0,
            better="twin",
            source=f"{_TOFU}, section 2.2.1",
            trap=(
                "A geometric mean per token, not the probability of the answer: short answers hang on"
                " their EOS."
            ),
        ),
        Card(
            name="option_probability",
            label="Probability among options",
            unit="probability",
            low=0.0,
            high=1.0,
            better="higher",
            source=f"{_TOFU}, section 2.2.1 (Real Authors, World Facts)",
            trap=(
                "Chance is 1/options; a destroyed model gets chance, not 0 (open-unlearning's epsilon"
                " makes it 0)."
            ),
        ),
        Card(
            name="truth_ratio",
            label="Truth ratio",
            unit="ratio",
            low=0.0,
            high=None,
            better="twin",
            source=f"{_TOFU}, equation 1; open-unlearning (Dorna et al. 2025)",
            trap=(
                "Four definitions go by this name (VARIANTS), the new one turned round and in [0, 1]. It"
                " measures form, too: false answers must be worded like the true."
            ),
        ),
        Card(
            name="truth_score",
            label="Truth ratio (utility)",
            unit="score",
            low=0.0,
            high=1.0,
            better="higher",
            source=f"{_TOFU}, section 2.2.1: max(0, 1 - R)",
            trap=(
                "A twin scores well above 0 on what it never saw: likely answers are likelier, known or not."
            ),
        ),
        Card(
            name="parity_score",
            label="Truth ratio (forget)",
            unit="score",
            low=0.0,
            high=1.0,
            better="twin",
            source="TOFU's aggregation script: min(R, 1/R)",
            trap=(
                "1 says that true and false answers are equally likely, which noise achieves as well as"
                " forgetting does."
            ),
        ),
        Card(
            name="forget_quality",
            label="Forget quality (p-value)",
            unit="p-value",
            low=0.0,
            high=1.0,
            better="higher",
            source=f"{_TOFU}, section 2.2.2: two-sample Kolmogorov-Smirnov test",
            trap=(
                "No effect size: it shrinks with more rows, rows of one document are not independent, and"
                " a high value from few rows shows nothing. Read the KS statistic and both sample sizes."
            ),
        ),
        Card(
            name="log10_p",
            label="Forget quality (log10 p)",
            unit="log10 p",
            low=None,
            high=0.0,
            better="higher",
            source=f"{_TOFU}, figures",
            trap=(
                "As the p-value. Differences far below -3 say how many rows there are rather than how much"
                " was forgotten."
            ),
        ),
        Card(
            name="ks_distance",
            label="KS distance to the twin",
            unit="share",
            low=0.0,
            high=1.0,
            better="lower",
            source="Kolmogorov-Smirnov statistic of TOFU's forget quality",
            trap=(
                "Never 0 by chance: two samples of n rows of one distribution differ by about 1.2/sqrt(n)"
                " on average."
            ),
        ),
        Card(
            name="model_utility",
            label="Model utility",
            unit="score",
            low=0.0,
            high=1.0,
            better="higher",
            source=f"{_TOFU}, section 2.2.1: harmonic mean of nine",
            trap="One zero makes it 0 and hides the other eight: read the parts.",
        ),
        Card(
            name="partial_utility",
            label="Model utility (partial)",
            unit="score",
            low=0.0,
            high=1.0,
            better="higher",
            source="this study: TOFU's harmonic mean over the groups that a corpus has",
            trap="Not TOFU's number: fewer parts, other groups. Compare within one corpus only.",
        ),
    )
}


def probability(nll: Any) -> np.ndarray:
    r"""Probability per token of answers, :math:`e^{-\bar\ell} = p(a \mid q)^{1/|a|}`.

    ``nll`` [n]: mean losses in nats per token, 0 or more (+inf is allowed). Returns [n] in [0, 1].
    Source: TOFU, section 2.2.1. Raises MetricError for an empty list, NaN or a negative loss.
    """
    return np.exp(-_losses("nll", nll))


def option_probability(nll_options: Any, correct: int = 0) -> np.ndarray:
    r"""Share of the right option in the per-token probabilities of all options, :math:`p_c / \sum_o p_o`.

    ``nll_options`` [n, options]: mean losses in nats per token; ``correct``: the right option's column.
    Returns [n] in [0, 1], higher is better; options that are all alike give 1/options. Computed in
    logarithms, without an epsilon.

    Source: TOFU, section 2.2.1 (Real Authors and World Facts). Raises MetricError for fewer than two options,
    a loss that is negative or not finite, and a column that is not there.
    """
    nll = vector("nll_options", nll_options, ndim=2)
    if nll.shape[1] < 2:
        raise MetricError(
            f"nll_options has {nll.shape[1]} option; allowed: 2 or more. Add the false answers of each"
            " question."
        )
    if nll.min() < 0:
        raise MetricError(
            f"nll_options hold {nll.min():.6g}; allowed: 0 or more. Pass losses, not log-probabilities."
        )
    if (
        isinstance(correct, bool)
        or not isinstance(correct, (int, np.integer))
        or not 0 <= correct < nll.shape[1]
    ):
        raise MetricError(
            f"correct is {correct!r}; allowed: a column from 0 to {nll.shape[1] - 1}. Count columns from 0."
        )
    p = np.exp(nll.min(axis=1, keepdims=True) - nll)
    return p[:, correct] / p.sum(axis=1)


def truth_ratio(nll_true: Any, nll_false: Any, variant: Variant = "geometric") -> float:
    r"""How likely false answers to one question are beside the true one.

    ``nll_true``: mean loss of the paraphrased true answer, or [p] losses of several; ``nll_false`` [k]: those
    of false answers of the same form; nats per token. With :math:`\bar\ell_c, \bar\ell_w` the means of the
    two sets of losses:

    - ``geometric``: :math:`R = e^{\bar\ell_c - \bar\ell_w}`, 0 or more, low = knows the truth
      (open-unlearning; TOFU's KS test)
    - ``arithmetic``: :math:`\mathrm{mean}\,e^{-\ell_w} / \mathrm{mean}\,e^{-\ell_c}`, as above (the paper's
      equation 1)
    - ``inverse``: :math:`1/R = e^{\bar\ell_w - \bar\ell_c}`, 0 or more, high = knows
      (TOFU's offline aggregation)
    - ``new``: :math:`p_c/(p_c+p_w) = 1/(1+R)`, 0 to 1, high = knows (open-unlearning's second form)

    Without the 1e-10 that open-unlearning adds to denominators (it bends R where the true answer's loss is
    above 20 nats a token); ratios stop at :math:`e^{\pm 700}`, so the result is finite. Raises MetricError
    for an unknown variant, no answer on a side, and a loss that is negative or not finite.
    """
    if variant not in VARIANTS:
        raise MetricError(unknown("variant of the truth ratio", variant, VARIANTS))
    true, false = (
        _losses(n, np.atleast_1d(v), finite=True)
        for n, v in (("nll_true", nll_true), ("nll_false", nll_false))
    )
    if variant == "arithmetic":
        log_ratio = _log_mean_exp(-false) - _log_mean_exp(-true)
    else:
        log_ratio = true.mean() - false.mean()
    log_ratio = float(np.clip(log_ratio, -_LARGEST, _LARGEST))
    if variant == "new":
        return 1.0 / (1.0 + math.exp(log_ratio))
    return math.exp(-log_ratio if variant == "inverse" else log_ratio)


def truth_score(ratio: Any) -> np.ndarray:
    """What a truth ratio R (false over true: "geometric", "arithmetic") adds to utility: max(0, 1 - R).

    ``ratio`` [n], 0 or more (+inf is allowed). Returns [n] in [0, 1], higher is better. Source: TOFU, section
    2.2.1. Raises MetricError for an empty list, NaN or a negative ratio.
    """
    return np.maximum(0.0, 1.0 - _ratios(ratio))


def parity_score(ratio: Any) -> np.ndarray:
    """How near a truth ratio is to 1, where true and false are equally likely: min(R, 1/R).

    ``ratio`` [n], 0 or more (+inf is allowed; 0 and +inf give 0), of any variant but "new". Returns [n] in
    [0, 1]; forget rows of a retrained model are high. Source: TOFU's aggregation script. Raises MetricError
    as `truth_score` does.
    """
    r = _ratios(ratio)
    with np.errstate(divide="ignore"):
        return np.minimum(r, 1.0 / r)


class ForgetQuality(NamedTuple):
    """Two-sample Kolmogorov-Smirnov test of truth ratios; ``ks`` is the effect size, ``p_value`` also hangs
    on the sizes.
    """

    p_value: float
    log10_p: float
    ks: float
    n_model: int
    n_twin: int


def forget_quality(model: Any, twin: Any) -> ForgetQuality:
    r"""Whether the truth ratios of forget rows could be those of a model that never saw them.

    ``model`` [n], ``twin`` [m]: truth ratios of the unlearned and of the retrained model. A monotone
    transform of both (the logarithm, the inverse) changes nothing. ``ks`` is the largest distance of the two
    distribution functions, in [0, 1]; ``p_value`` in [0, 1] is two-sided (``scipy.stats.ks_2samp``, method
    "auto": exact up to 10,000 rows a side, then asymptotic; ties make it conservative). Higher is better and
    1 is the most; too much forgetting lowers it as too little does. ``log10_p`` is finite also where p
    underflows (`log10_p`).

    The test takes rows as independent, which rows of one document are not, and both samples stem from the
    same questions. One row a side always gives p = 1. Source: TOFU, section 2.2.2. Raises MetricError for an
    empty side or NaN.
    """
    from scipy.stats import ks_2samp

    a, b = vector("model", model, finite=False), vector("twin", twin, finite=False)
    p, ks = float(ks_2samp(a, b, method="auto").pvalue), ks_distance(a, b)
    return ForgetQuality(p, log10_p(p, ks, len(a), len(b)), ks, len(a), len(b))


def log10_p(p_value: float, ks: float, n: int, m: int) -> float:
    r"""log10 of the p-value of a two-sample Kolmogorov-Smirnov test, finite also where the p-value has
    underflowed to 0.

    ``ks``: D of samples of ``n`` and ``m`` values. There it is the first term of Kolmogorov's series,
    :math:`2 e^{-2 D^2 nm/(n+m)}`. 0 or less, higher is better. Raises MetricError for a p-value or D outside
    [0, 1].
    """
    p, d = share("p_value", p_value), share("ks", ks)
    return math.log10(p) if p > 0 else (math.log(2) - 2 * d**2 * n * m / (n + m)) / math.log(10)


def ks_distance(model: Any, twin: Any) -> float:
    r"""Kolmogorov-Smirnov statistic, :math:`D = \sup_x |F_n(x) - G_m(x)|` of two samples: the effect size of
    `forget_quality`.

    ``model`` [n], ``twin`` [m], infinities allowed. In [0, 1], lower is better: 0 for equal distributions, 1
    where all of one lies above all of the other. Source: Kolmogorov 1933; Smirnov 1939. Raises MetricError
    for an empty side or NaN.
    """
    a, b = (np.sort(vector(n, v, finite=False)) for n, v in (("model", model), ("twin", twin)))
    at = np.concatenate([a, b])
    return float(
        np.abs(
            np.searchsorted(a, at, side="right") / len(a) - np.searchsorted(b, at, side="right") / len(b)
        ).max()
    )


def model_utility(parts: Mapping[str, float]) -> float:
    """TOFU's model utility: harmonic mean of the nine numbers named in ``NINE``, 0 if any is 0.

    ``parts``: probability, ROUGE-L recall and truth ratio score (`truth_score`) of the retain set, the Real
    Authors and the World Facts, by name ("retain/probability", ...), all in [0, 1]. In [0, 1], higher is
    better. Source: TOFU, section 2.2.1. Raises MetricError for other names than these nine, and for a number
    outside [0, 1].
    """
    if set(parts) != set(NINE):
        odd = sorted(set(parts) ^ set(NINE))
        raise MetricError(
            f"parts lack or add {', '.join(odd)}; allowed: exactly {', '.join(NINE)}. "
            "For a corpus that has other groups take partial_utility, which is another number."
        )
    return partial_utility(parts)


def partial_utility(parts: Mapping[str, float]) -> float:
    """Harmonic mean of those parts of the model utility that a corpus has; not comparable with TOFU's
    `model_utility`.

    ``parts``: at least one number in [0, 1]. In [0, 1], higher is better; 0 if any part is 0.
    Raises MetricError for no part, and for a number outside [0, 1].
    """
    if not parts:
        raise MetricError(
            "there are no parts; allowed: one or more numbers from 0 to 1. Score at least one group."
        )
    return float(_stdlib.harmonic_mean([share(name, value) for name, value in parts.items()]))


def _losses(name: str, values: Any, finite: bool = False) -> np.ndarray:
    array = vector(name, values, finite=finite)
    if array.min() < 0:
        raise MetricError(
            f"{name} holds {array.min():.6g}; allowed: 0 or more. Pass mean losses, not log-probabilities."
        )
    return array


def _ratios(values: Any) -> np.ndarray:
    array = vector("ratio", values, finite=False)
    if array.min() < 0:
        raise MetricError(
            f"ratio holds {array.min():.6g}; allowed: 0 or more. Pass ratios of probabilities, not their"
            " logarithms."
        )
    return array


def _log_mean_exp(x: np.ndarray) -> float:
    return float(x.max() + math.log(np.exp(x - x.max()).mean()))
