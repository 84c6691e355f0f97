"""Membership inference: attack scores per text, AUC and TPR of an attack, privacy leakage.

Mind the sign. `auc` and `tpr_at_fpr` want scores that are *higher for likely members*, e.g. minus
the mean loss. The attack scores `min_k`, `min_k_plus_plus` and `zlib_score` keep the sign of their
sources, *higher = less likely a member*: negate them, ``auc(-members, -nonmembers)``.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Literal

import numpy as np

from reprolib.errors import unknown
from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector

MIN_SIGMA = 1e-3  # open-unlearning clamps the variance at 1e-6
_FORMS = ("complement", "direct")

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="auc",
            label="Attack AUC",
            unit="AUC",
            low=0.0,
            high=1.0,
            better="twin",
            source="Mann-Whitney statistic; loss attack of SemEval-2025 Task 4",
            trap=(
                "0.5 is good only if the twin has 0.5; well below it means over-forgetting, which an"
                " attacker sees."
            ),
        ),
        Card(
            name="tpr_at_fpr",
            label="TPR at 1 % FPR",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source="Carlini et al. 2022 (Membership inference attacks from first principles)",
            trap=(
                "With n non-members the threshold hangs on the top 1 % of them: one or two texts when n is"
                " 150."
            ),
        ),
        Card(
            name="min_k",
            label="Min-K%",
            unit="nats/token",
            low=0.0,
            high=None,
            better="twin",
            source="Shi et al. 2024; open-unlearning",
            trap="Higher means less likely a member: negate before the AUC.",
        ),
        Card(
            name="min_k_plus_plus",
            label="Min-K%++",
            unit="score",
            low=None,
            high=None,
            better="twin",
            source="Zhang et al. 2025; open-unlearning",
            trap="Higher means less likely a member: negate before the AUC.",
        ),
        Card(
            name="zlib_score",
            label="ZLib",
            unit="nats/token per byte",
            low=0.0,
            high=None,
            better="twin",
            source="Carlini et al. 2021; open-unlearning",
            trap=(
                "Higher means less likely a member; short texts divide by few bytes, so compare equal"
                " lengths."
            ),
        ),
        Card(
            name="gradient_norm",
            label="Gradient norm",
            unit="nats/token per weight",
            low=0.0,
            high=None,
            better="twin",
            source="Wang et al. 2024; open-unlearning (GradNorm, p = 2)",
            trap=(
                "Higher means less likely a member. A batch's gradient is not a text's: one text at a time."
            ),
        ),
        Card(
            name="reference_attack",
            label="Reference attack",
            unit="nats/token",
            low=None,
            high=None,
            better="twin",
            source="Carlini et al. 2021; open-unlearning (reference = retrained model)",
            trap=(
                "With the twin as reference it asks what no outsider can: the twin itself scores exactly 0.5."
            ),
        ),
        Card(
            name="privleak",
            label="PrivLeak",
            unit="percent",
            low=None,
            high=None,
            better="twin",
            source="MUSE (Shi et al. 2025); open-unlearning",
            trap="0 is good, not low or high; the two forms in use differ in sign and size.",
        ),
    )
}


def auc(members: Any, nonmembers: Any) -> float:
    """Area under the ROC curve: P(member > nonmember) + P(equal) / 2 over all pairs.

    ``members`` [n], ``nonmembers`` [m]: scores, *higher = more likely a member* (for the loss attack minus
    the mean token loss). Exact, by ranks; infinities are allowed. In [0, 1]: 0.5 is chance, near 1
    under-unlearned, near 0 over-unlearned. Only the order of the scores matters.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982. Raises MetricError for an empty side or NaN.
    """
    m = vector("members", members, finite=False)
    r = np.sort(vector("nonmembers", nonmembers, finite=False))
    below = np.searchsorted(r, m, side="left")
    not_above = np.searchsorted(r, m, side="right")
    return int((below + not_above).sum(dtype=np.int64)) / (2 * len(m) * len(r))


def tpr_at_fpr(members: Any, nonmembers: Any, fpr: float = 0.01) -> float:
    """Largest share of members flagged while at most ``fpr`` of the nonmembers are.

    Scores as in `auc` (higher = more likely a member). A text is flagged if its score is above a
    threshold; with m nonmembers at most floor(fpr · m) may be flagged, without interpolation, and
    ties are flagged together. ``fpr`` and result in [0, 1].

    Source: Carlini et al. 2022. Raises MetricError for an empty side, NaN, or fpr outside [0, 1].
    """
    fpr = share("fpr", fpr)
    m = vector("members", members, finite=False)
    r = np.sort(vector("nonmembers", nonmembers, finite=False))[::-1]
    allowed = math.floor(fpr * len(r) + 1e-9)
    if allowed >= len(r):
        return 1.0
    return float((m > r[allowed]).mean())


def _lowest(values: np.ndarray, k: float) -> float:
    if not 0.0 < k <= 1.0:
        raise MetricError(
            f"k is {k!r}; allowed: above 0, up to 1 (a share of the tokens). Use 0.4 for Min-40%."
        )
    count = max(1, math.floor(k * len(values) + 1e-9))
    return -float(np.sort(values)[:count].mean())


def _logprobs(logprobs: Any) -> np.ndarray:
    lp = vector("logprobs", logprobs)
    if lp.max() > 1e-4:  # room for the rounding of half precision
        raise MetricError(
            f"logprobs hold {lp.max():.6g}; allowed: 0 or less, natural logarithms of probabilities. "
            "Pass log-softmax values of the true tokens, not losses or logits."
        )
    return lp


def min_k(logprobs: Any, k: float = 0.4) -> float:
    """Minus the mean of the lowest share ``k`` of the token log-probabilities of one text.

    ``logprobs`` [T] in nats; max(1, floor(k T)) tokens are used. Nats per token, 0 or more; *higher = less
    likely a member*. Source: Shi et al. 2024 (sign and rounding of open-unlearning).
    Raises MetricError for an empty text, positive or non-finite log-probabilities, or k outside (0, 1].
    """
    return _lowest(_logprobs(logprobs), k)


def min_k_plus_plus(logprobs: Any, mu: Any, sigma: Any, k: float = 0.4) -> float:
    """Min-K% over standardised log-probabilities z_t = (log p_t - mu_t) / sigma_t.

    ``logprobs`` [T]; ``mu`` [T] is sum_v p_v log p_v and ``sigma`` [T] the *standard deviation*
    sqrt(sum_v p_v log² p_v - mu²), both over the vocabulary at each position; sigma is clamped at
    ``MIN_SIGMA`` = 1e-3 (variance 1e-6, as open-unlearning). Minus the mean of the lowest max(1, floor(k T))
    values; no unit, unbounded; *higher = less likely a member*. Source: Zhang et al. 2025.
    Raises MetricError for unequal lengths, a negative sigma, and as `min_k`.
    """
    lp, m, s = _logprobs(logprobs), vector("mu", mu), vector("sigma", sigma)
    if not len(lp) == len(m) == len(s):
        raise MetricError(
            f"logprobs, mu and sigma have {len(lp)}, {len(m)} and {len(s)} values; allowed: one per token"
            " in each. Take all three from the same positions."
        )
    if s.min() < 0:
        raise MetricError(
            f"sigma holds {s.min():.6g}; allowed: 0 or more. Pass the root of the clamped variance."
        )
    return _lowest((lp - m) / np.maximum(s, MIN_SIGMA), k)


def zlib_score(nll: float, text: str) -> float:
    """Mean token loss over the compressed size of the text: nll / len(zlib.compress(text as UTF-8)).

    ``nll`` in nats per token, 0 or more. Nats per token and byte, 0 or more; *higher = less likely a
    member*. Source: Carlini et al. 2021; open-unlearning (mean loss).
    Raises MetricError for a negative or non-finite loss, and an empty text.
    """
    if not (isinstance(nll, (int, float, np.number)) and math.isfinite(nll) and nll >= 0):
        raise MetricError(
            f"nll is {nll!r}; allowed: a finite number of 0 or more. Pass the mean token loss in nats."
        )
    if not isinstance(text, str) or not text:
        raise MetricError(
            f"text is {text!r}; allowed: a non-empty str. Pass the text that the loss was taken on."
        )
    return float(nll) / len(zlib.compress(text.encode("utf-8")))


def gradient_norm(gradients: Any) -> float:
    """Mean over weight tensors of the 2-norm of the gradient of one text's mean token loss.

    ``gradients``: one array (or tensor) per weight tensor, of one text. 0 or more; *higher = less likely a
    member*. Source: open-unlearning (GradNorm, p = 2). Raises MetricError if there is none.
    """
    norms = [float(np.linalg.norm(np.asarray(g))) for g in gradients]
    if not norms:
        raise MetricError(
            "gradients are empty; allowed: one array per weight tensor. Look for weights that require"
            " gradients."
        )
    return sum(norms) / len(norms)


def reference_attack(nll: float, nll_reference: float) -> float:
    """Mean token loss of a text minus that of a reference model that did not see it; *higher = less likely a
    member*.

    Both in nats per token, 0 or more; infinities are allowed on the first (a destroyed model knows no text).
    Source: Carlini et al. 2021; open-unlearning. Raises MetricError for NaN, a negative loss or an infinite
    reference.
    """
    for name, value, top in (("nll", nll, math.inf), ("nll_reference", nll_reference, 1e300)):
        if not 0 <= value <= top:  # NaN fails too
            raise MetricError(f"{name} is {value!r}; allowed: 0 or more. Pass the mean token loss in nats.")
    return float(nll) - float(nll_reference)


def privleak(
    auc: float, reference: float = 0.5, *, form: Literal["complement", "direct"] = "complement"
) -> float:
    """How far the attack's AUC is from that of the retrained model, in percent; 0 is good.

    With A = AUC of `auc` (1 when members are recognised) and R = ``reference``, that of the retrained
    model (0.5 if there is none):
    ``form="complement"`` (open-unlearning): 100 ((1-A) - (1-R)) / (1-R); with R = 0.5 from -100 (forget
    texts fully recognisable, under-unlearned) to +100 (over-unlearned).
    ``form="direct"`` (the formula as printed in MUSE): 100 (A - R) / R. Applied to the AUC of `auc` its
    sign is the other way round: positive is under-unlearned. MUSE itself puts in an AUC that is 1 when
    members are *not* recognised; for its sign and size use "complement".

    Raises MetricError for an AUC outside [0, 1], an unknown form, or a reference that makes it divide by 0.
    """
    if form not in _FORMS:
        raise MetricError(unknown("form of privleak", form, _FORMS))
    a, r = share("auc", auc), share("reference", reference)
    if form == "complement":
        a, r = 1.0 - a, 1.0 - r
    if r == 0.0:
        raise MetricError(
            f"reference is {reference}, which makes form {form!r} divide by 0; allowed:"
            f" {'below 1' if form == 'complement' else 'above 0'}. Check the retrained model, or use the"
            " other form."
        )
    return 100.0 * (a - r) / r


def match_lengths(members: Any, nonmembers: Any, tolerance: float = 0.1) -> list[tuple[int, int]]:
    """Pairs (member, non-member) of about the same length, each text used at most once.

    ``members`` [n], ``nonmembers`` [m]: lengths, in tokens or words, above 0. Two may be paired if they
    differ by at most ``tolerance`` of the longer one. Both are sorted and each member takes the first
    non-member that is close enough, which pairs as many as can be. An attack on the pairs cannot live on
    length. Empty if nothing matches.

    Raises MetricError for an empty side, a length of 0 or less, or a tolerance outside [0, 1].
    """
    tolerance = share("tolerance", tolerance)
    m, r = vector("members", members), vector("nonmembers", nonmembers)
    for name, lengths in (("members", m), ("nonmembers", r)):
        if lengths.min() <= 0:
            raise MetricError(
                f"{name} hold a length of {lengths.min():g}; allowed: above 0. Leave empty texts out."
            )
    order_m, order_r = np.argsort(m, kind="stable"), np.argsort(r, kind="stable")
    pairs, at = [], 0
    for i in order_m:
        while at < len(order_r) and r[order_r[at]] < m[i] * (1 - tolerance):
            at += 1  # shorter than any later member allows
        if at == len(order_r):
            break
        j = order_r[at]
        if m[i] >= r[j] * (1 - tolerance):
            pairs.append((int(i), int(j)))
            at += 1
    return pairs
