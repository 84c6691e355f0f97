r"""Negative preference optimisation (NPO).

.. math::

    \mathcal L_{\mathrm{NPO}} = -\frac{2}{\beta}\; \mathbb E_{(x, y) \sim D_f}
        \log \sigma\!\Big(-\beta \log \frac{p_\theta(y \mid x)}{p_{\theta_0}(y \mid x)}\Big)

``log p(y|x)`` is the *sum* over answer tokens. At the start (theta = theta_0) the loss is 2 ln 2 / beta and
its gradient is that of gradient ascent on the sequence; as the answer becomes unlikely the gradient fades,
which is what keeps NPO from diverging. As beta -> 0 it becomes gradient ascent.

Source: Zhang et al. 2024 (arXiv 2404.05868), eq. 3. Peers differ: MUSE's code subtracts raw logits, SOUL's and
ZJUKLAB's use the batch-mean NLL; both are other losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.errors import SpecError


def npo(logp: torch.Tensor, logp_reference: torch.Tensor, beta: float) -> torch.Tensor:
    """NPO per row, in nats: [B] x [B] -> [B]; lower means more forgotten.

    Inputs are sequence log-probabilities: sums over the answer's tokens.
    """
    return -(2 / beta) * F.logsigmoid(-beta * (logp - logp_reference))


@dataclass(frozen=True, slots=True)
class NPO:
    """Forget term. ``beta``: inverse temperature; larger fades earlier (papers use 0.05 to 0.5)."""

    beta: float = 0.1
    unit: ClassVar[str] = "row"
    needs: ClassVar[str | None] = "sequence"

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise SpecError(f"NPO: beta must be > 0, got {self.beta}; the papers use 0.05 to 0.5, and 0.1 mostly.")

    def __call__(self, scored, reference):
        return npo(scored.sequence_logp, reference.sequence_logp(scored.index), self.beta)
