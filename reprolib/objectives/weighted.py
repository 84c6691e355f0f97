"""Gradient ascent with a weight on every answer token: WGA and SatImp.

.. math::

    \mathcal L_{\mathrm{WGA}} = -\mathbb E_t\big[\bar p_t^{\,\beta}\, \ell_t\big],
    \qquad
    \mathcal L_{\mathrm{SatImp}} = -\mathbb E_t\big[\bar p_t^{\,\beta_1}\,(1 - \bar p_t)^{\beta_2}\,
    \ell_t\big]

Symbols: :math:`\ell_t = -\log p_t` in nats, :math:`p_t` the probability of answer token t; the bar is a
stop-gradient: weights are numbers, no gradient goes through them. The sign is ascent's: a step raises
:math:`\ell_t`, by a gradient that is the weight itself and fades as p does. The *value* does not say how much
is forgotten: it is 0 both at p = 1 and at p = 0. SatImp also spares what is certain (weight 0 at p = 1).
Means are over all answer tokens; they are not divided by the sum of the weights. With exponents of 0 both are
gradient ascent.

Sources: WGA, Wang et al. 2025 (arXiv 2502.19301); SatImp, Yang et al. 2025 (arXiv 2505.11953), with beta1 = 5
and beta2 = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from reprolib.errors import SpecError
from reprolib.objectives.base import Term


def wga(token_logp: torch.Tensor, beta: float) -> torch.Tensor:
    """WGA per answer token, in nats: [N] log-probabilities -> [N], each <= 0."""
    return (beta * token_logp.detach()).exp() * token_logp


def satimp(token_logp: torch.Tensor, beta1: float, beta2: float) -> torch.Tensor:
    """SatImp per answer token, in nats: [N] log-probabilities -> [N], each <= 0."""
    logp = token_logp.detach()
    return (beta1 * logp).exp() * (-torch.expm1(logp)) ** beta2 * token_logp


def _check(name: str, **exponents: float) -> None:
    for key, value in exponents.items():
        if not 0 <= value < math.inf:
            raise SpecError(
                f"{name}: {key} is an exponent and must be finite and >= 0, got {value}; 0 switches its"
                " weight off."
            )


@dataclass(frozen=True, slots=True)
class WGA(Term):
    """Forget term. ``beta``: exponent of the token's probability; 0 is gradient ascent."""

    beta: float = 1.0
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        _check("WGA", beta=self.beta)

    def __call__(self, scored, reference):
        return wga(scored.token_logp, self.beta)


@dataclass(frozen=True, slots=True)
class SatImp(Term):
    """Forget term. ``beta1``: exponent of p (saturation); ``beta2``: exponent of 1 - p (importance)."""

    beta1: float = 5.0
    beta2: float = 1.0
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        _check("SatImp", beta1=self.beta1, beta2=self.beta2)

    def __call__(self, scored, reference):
        return satimp(scored.token_logp, self.beta1, self.beta2)
