"""Simple negative preference optimisation (SimNPO): NPO without a reference model, normalised by length.

.. math::

    \mathcal L_{\mathrm{SimNPO}} = -\frac{2}{\beta}\; \mathbb E_{(x, y) \sim D_f}
        \log \sigma\big(\beta\,(\bar\ell(y \mid x) - \delta)\big),
    \qquad \bar\ell(y \mid x) = \frac{1}{|y|} \sum_t \ell_t

Symbols: :math:`\ell_t` the negative log-likelihood of answer token t in nats, :math:`\beta` an inverse
temperature,
:math:`\delta` the mean NLL (in nats) above which an answer counts as forgotten. Lower means more forgotten;
the loss falls to 0 and its gradient fades. Values are per row, means over rows: short answers weigh as much
as long ones.

Source: Fan et al. 2024 (arXiv 2410.07163). Their margin gamma stands outside of beta, :math:`\gamma =
\beta\delta`; delta as here is that of the code in open-unlearning. At the default of 0 both agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.errors import SpecError
from reprolib.objectives.base import Term
from reprolib.objectives.npo import row_lengths


def simnpo(mean_nll: torch.Tensor, beta: float, delta: float = 0.0) -> torch.Tensor:
    """SimNPO per row, in nats: [B] mean negative log-likelihoods -> [B]; lower means more forgotten."""
    return -(2 / beta) * F.logsigmoid(beta * (mean_nll - delta))


@dataclass(frozen=True, slots=True)
class SimNPO(Term):
    """Forget term. ``beta``: inverse temperature; ``delta``: margin in nats per token (papers: 4.5 and 0)."""

    beta: float = 4.5
    delta: float = 0.0
    unit: ClassVar[str] = "row"
    needs: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise SpecError(
                f"SimNPO: beta must be a finite number > 0, got {self.beta}; on TOFU 4.5 is used."
            )
        if not 0 <= self.delta < math.inf:
            raise SpecError(
                f"SimNPO: delta, in nats per token, must be finite and >= 0, got {self.delta}; usually 0."
            )

    def __call__(self, scored, reference):
        return simnpo(-scored.sequence_logp / row_lengths(scored), self.beta, self.delta)
