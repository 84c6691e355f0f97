"""Terms that put other answers in the place of the true ones: DPO (IdkDPO, AltPO) and plain refusal training
(IdkNLL, PO).

.. math::

    \mathcal L_{\mathrm{DPO}} &= -\frac{2}{\beta}\; \mathbb E_{(x, y, y_w)} \log \sigma\Big(\beta\Big[
        \log \frac{p_\theta(y_w \mid x)}{p_{\theta_0}(y_w \mid x)} - \log \frac{p_\theta(y \mid
        x)}{p_{\theta_0}(y \mid x)}
        \Big]\Big) \\
    \mathcal L_{\mathrm{PO}} &= \mathbb E_{(x, y_w)} \big[-\log p_\theta(y_{w,t} \mid x, y_{w,<t})\big]

Symbols: y the true answer of a forget question (the loser), :math:`y_w` another answer to the same question
(the winner): a refusal (IdkDPO, IdkNLL/PO), an alternative (AltPO), random tokens (random labels). ``log
p(y|x)`` is the *sum* over answer tokens, in nats. At the start the DPO term is 2 ln 2 / beta; lower means
that the other answer is preferred more. DPO is a mean over rows, PO a mean over the tokens of the other
answers.

DPO has the factor 2/beta here, as the unlearning codes have it: where the winner stays as likely as it was,
the term is NPO, and weights mean the same in both. Rafailov et al. write it without.

Sources: DPO, Rafailov et al. 2023 (arXiv 2305.18290), eq. 7; refusals as winners, Maini et al. 2024 (TOFU,
arXiv 2401.06121) and Zhang et al. 2024 (NPO, arXiv 2404.05868); alternatives, Mekala et al. 2024 (AltPO,
arXiv 2409.13474).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.corpus.batching import Batch
from reprolib.errors import SpecError, unknown
from reprolib.objectives.base import Term
from reprolib.objectives.likelihood import nll

KINDS = ("idk", "sampled", "perturbed", "shuffled", "random")


def dpo(
    winner: torch.Tensor,
    winner_reference: torch.Tensor,
    loser: torch.Tensor,
    loser_reference: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """DPO per row, in nats, from sequence log-probabilities: four times [B] -> [B]; lower means the winner is
    preferred more.
    """
    return -(2 / beta) * F.logsigmoid(beta * ((winner - winner_reference) - (loser - loser_reference)))


def _others(rows: Batch, term: str) -> Batch:
    if rows.other is None:
        raise SpecError(
            f"{term} reads other answers to the same questions, but the batch has none (it is a forget term)."
        )
    return rows.other


@dataclass(frozen=True, slots=True)
class DPO(Term):
    """Forget term. ``beta``: inverse temperature (0.05 to 0.5); ``other``: the winners, a name of
    ``KINDS``.
    """

    beta: float = 0.1
    other: str = "idk"
    unit: ClassVar[str] = "row"
    needs: ClassVar[str | None] = "sequence"
    passes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise SpecError(
                f"DPO: beta must be a finite number > 0, got {self.beta}; the papers use 0.05 to 0.5, and"
                " 0.1 mostly."
            )
        if self.other not in KINDS:
            raise SpecError("DPO: " + unknown("kind of other answers", self.other, KINDS))

    def values(self, policy, rows, sources):
        winners = _others(rows, "DPO")
        winner, loser = policy(winners).sequence_logp, policy(rows).sequence_logp
        winner_start = sources.other.on(policy, winners).sequence_logp(winners.index)
        loser_start = sources.own.on(policy, rows).sequence_logp(rows.index)
        return dpo(winner, winner_start, loser, loser_start, self.beta)


@dataclass(frozen=True, slots=True)
class Other(Term):
    """Forget term that teaches the other answers and never looks at the true ones (IdkNLL/PO; "random":
    random labels).
    """

    other: str = "idk"
    unit: ClassVar[str] = "other"
    needs: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.other not in KINDS:
            raise SpecError("Other: " + unknown("kind of other answers", self.other, KINDS))

    def values(self, policy, rows, sources):
        return nll(policy(_others(rows, "Other")).token_logp)
