"""Negative preference optimisation (NPO).

.. math::

    \mathcal L_{\mathrm{NPO}} = -\frac{2}{\beta}\; \mathbb E_{(x, y) \sim D_f}
        \log \sigma\!\Big(-\beta \log \frac{p_\theta(y \mid x)}{p_{\theta_0}(y \mid x)}\Big)

``log p(y|x)`` is the *sum* over answer tokens. At the start (theta = theta_0) the loss is 2 ln 2 / beta and
its gradient is that of gradient ascent on the sequence; as the answer becomes unlikely the gradient fades,
which is what keeps NPO from diverging. As beta -> 0 it becomes gradient ascent.

Source: Zhang et al. 2024 (arXiv 2404.05868), eq. 3. Peers differ: MUSE's code subtracts raw logits, SOUL's
and ZJUKLAB's put the batch-mean NLL in the place of the sequence's; both are other losses. ``ratio="mean"``
is the latter for batches of one row, as SOUL has them: ``log p(y|x)`` is divided by the number of answer
tokens (of larger batches the peers take one mean over all tokens before the sigmoid; here it stays a loss per
row). The same beta then fades much later: at 0.1 the gradient halves once an answer has lost 11 nats in all
with "sequence", but 11 nats *per token* with "mean".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.errors import SpecError, unknown
from reprolib.models.policy import Scored
from reprolib.objectives.base import Term


def npo(logp: torch.Tensor, logp_reference: torch.Tensor, beta: float) -> torch.Tensor:
    """NPO per row, in nats: [B] x [B] -> [B]; lower means more forgotten.

    Inputs are sequence log-probabilities: sums over the answer's tokens.
    """
    return -(2 / beta) * F.logsigmoid(-beta * (logp - logp_reference))


def row_lengths(scored: Scored) -> torch.Tensor:
    """Labelled tokens of each row: [B], floating point."""
    ones = torch.ones_like(scored.token_logp)
    return ones.new_zeros(len(scored.index)).index_add(0, scored.row, ones)


@dataclass(frozen=True, slots=True)
class NPO(Term):
    """Forget term. ``beta``: inverse temperature; larger fades earlier (papers use 0.05 to 0.5).

    ``ratio``: of "sequence" log-probabilities (published), or of their "mean" over the answer's tokens (SOUL,
    ZJUKLAB).
    """

    beta: float = 0.1
    ratio: str = field(default="sequence", metadata={"later": True})
    unit: ClassVar[str] = "row"
    needs: ClassVar[str | None] = "sequence"

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise SpecError(
                f"NPO: beta must be > 0, got {self.beta}; the papers use 0.05 to 0.5, and 0.1 mostly."
            )
        if self.ratio not in ("sequence", "mean"):
            raise SpecError("NPO: " + unknown("ratio", self.ratio, ("sequence", "mean")))

    def __call__(self, scored, reference):
        logp, start = scored.sequence_logp, reference.sequence_logp(scored.index)
        if self.ratio == "mean":
            lengths = row_lengths(scored)
            logp, start = logp / lengths, start / lengths
        return npo(logp, start, self.beta)
