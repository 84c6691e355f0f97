"""Terms that pull the model to a target distribution over the next token: UNDIAL, CE-U, WHP, and SOUL's
retain "KL".

All but the last are cross-entropies :math:`-\sum_v q(v) \log p_\theta(v)` to a fixed target q (no gradient
goes through it):

.. math::

    \text{UNDIAL:}\quad q &= \operatorname{softmax}(z_0 - \beta\, e_y) \\
    \text{CE-U:}\quad q &= \operatorname{softmax}(\operatorname{sg}(z_\theta) - \infty\, e_y) \\
    \text{WHP:}\quad q &= \operatorname{softmax}\big(z_0 - \alpha \max(0, z_r - z_0)\big) \\
    \text{SOUL's "KL":}\quad & -\sum_v p_\theta(v) \log p_{\theta_0}(v)

Symbols: z logits at an answer position, :math:`z_0` of the model before unlearning, :math:`z_r` of a
"reinforced" helper (the same model trained further on the forget set), :math:`e_y` one at the true token, sg
the stop-gradient. In nats, means over answer tokens (the code of UNDIAL in open-unlearning also averages over
prompt and padding). Lower means nearer to the target; the least value is the target's entropy, not 0.

* CE-U's target moves with the model: its value is the target's entropy minus :math:`\log(1 - p_y)`, and its
  gradient that of the second part alone ("unlikelihood"): :math:`p_y` in the true logit, :math:`-p_v\, p_y /
  (1 - p_y)` in another one. It neither vanishes where the model is sure nor explodes where it is not.
* WHP subtracts raw logits, as published. A softmax does not feel a constant added to all logits, but the ReLU
  does: a helper whose logits have drifted by a constant is another helper. (The publication then trains on
  the target's most likely token; here the whole target is used.)
* SOUL's term is cross-entropy with the roles of KL exchanged: :math:`\mathrm{KL}(p_\theta \,\|\,
  p_{\theta_0})` plus the entropy of :math:`p_\theta`. It is least where all mass lies on the start's most
  likely token, not where the model is the start, so that it sharpens the model even on data that it has not
  changed on. Its code adds 1e-12 to
  :math:`p_{\theta_0}` before the logarithm; here the logarithm is exact.

Sources: UNDIAL, Dong et al. 2024 (arXiv 2402.10052); CE-U, Yang 2025 (arXiv 2503.01224); WHP, Eldan &
Russinovich 2023 (arXiv 2310.02238); SOUL, Jia et al. 2024 (arXiv 2404.18239), ``src/unlearn/KL.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.errors import SpecError
from reprolib.objectives.base import Term


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to target probabilities per position, in nats: [N, V] x [N, V] -> [N]."""
    return -(target * F.log_softmax(logits.float(), dim=-1)).sum(-1)


def undial(
    logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor, beta: float
) -> torch.Tensor:
    """UNDIAL per position, in nats: [N, V], [N], [N, V] -> [N]; lower is nearer to the start without the true
    token.
    """
    start, true = reference_logits.detach().float(), labels[:, None]
    target = start.scatter(-1, true, start.gather(-1, true) - beta).softmax(-1)
    return soft_cross_entropy(logits, target)


def cross_entropy_unlearning(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CE-U per position, in nats: [N, V], [N] -> [N]; its gradient takes mass from the true token, shared out
    as it lies.
    """
    target = logits.detach().float().scatter(-1, labels[:, None], -math.inf).softmax(-1)
    return soft_cross_entropy(logits, target)


def generic_logits(
    reference_logits: torch.Tensor, reinforced_logits: torch.Tensor, alpha: float
) -> torch.Tensor:
    """WHP's generic prediction: the start's logits, lowered where the reinforced model's are higher: [N, V] x
    [N, V] -> [N, V].
    """
    base = reference_logits.float()
    return base - alpha * (reinforced_logits.float() - base).relu()


def whp(
    logits: torch.Tensor, reference_logits: torch.Tensor, reinforced_logits: torch.Tensor, alpha: float
) -> torch.Tensor:
    """WHP per position, in nats: three times [N, V] -> [N]; lower is nearer to the generic prediction."""
    target = generic_logits(reference_logits.detach(), reinforced_logits.detach(), alpha).softmax(-1)
    return soft_cross_entropy(logits, target)


def cross_entropy_to_reference(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """SOUL's "KL" per position, in nats: [N, V] x [N, V] -> [N]. The gradient goes through the
    probabilities.
    """
    return soft_cross_entropy(reference_logits, logits.float().softmax(-1))


def without_first(values: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Values per token with the first of every row set to 0 and the row's others scaled up by T / (T - 1):
    [N], [N] -> [N].

    The loop divides by the number of *all* tokens of a step. With this factor a row has the weight of its T
    tokens in that mean, and within it every counted token the same: the result is the mean over counted
    tokens, exactly so if the rows of a step are equally long. Otherwise a token of a short answer weighs a
    little more than one of a long answer (1.5 times at T = 3, 1.05 times at T = 20) where a plain mean over
    counted tokens has the same for all. The factor depends on the row alone, so that micro-batches do not
    change the gradient. A row of one token has nothing left: it adds 0.
    """
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    size = torch.bincount(row)[row].to(values.dtype)
    return torch.where(first, torch.zeros_like(values), values * size / (size - 1).clamp(min=1))


@dataclass(frozen=True, slots=True)
class UNDIAL(Term):
    """Forget term. ``beta``: how far the true token's logit is lowered (paper: 3 to 30)."""

    beta: float = 10.0
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "logits"

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise SpecError(
                f"UNDIAL: beta must be a finite number > 0, got {self.beta}; the paper uses 3 to 30,"
                " mostly 10."
            )

    def __call__(self, scored, reference):
        return undial(scored.logits, scored.labels, reference.token_logits(scored.index), self.beta)


@dataclass(frozen=True, slots=True)
class CEU(Term):
    """Forget term. ``ignore_first``: the first labelled token of each row does not count (see
    :func:`without_first`).
    """

    ignore_first: bool = True
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not isinstance(self.ignore_first, bool):
            raise SpecError(f"CEU: ignore_first must be true or false, got {self.ignore_first!r}.")

    def __call__(self, scored, reference):
        values = cross_entropy_unlearning(scored.logits, scored.labels)
        return without_first(values, scored.row) if self.ignore_first else values


@dataclass(frozen=True, slots=True)
class WHP(Term):
    """Forget term. ``alpha``: how far logits are lowered per unit that the reinforced model raises them
    (paper: 5).
    """

    alpha: float = 5.0
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "logits"
    helper: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise SpecError(f"WHP: alpha must be a finite number > 0, got {self.alpha}; the paper uses 5.")

    def values(self, policy, rows, sources):
        if sources.helper is None:
            raise SpecError(
                "WHP reads the logits of a reinforced model, but no earlier stage has kept any"
                " (keep='helper')."
            )
        base = sources.own.on(policy, rows).token_logits(rows.index)
        reinforced = sources.helper.on(policy, rows).token_logits(rows.index)
        return whp(policy(rows).logits, base, reinforced, self.alpha)


@dataclass(frozen=True, slots=True)
class SoulKL(Term):
    """Retain term "KL" of SOUL's code, which is no KL divergence; for comparison with
    :class:`~reprolib.objectives.KL`.
    """

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "logits"

    def __call__(self, scored, reference):
        return cross_entropy_to_reference(scored.logits, reference.token_logits(scored.index))
