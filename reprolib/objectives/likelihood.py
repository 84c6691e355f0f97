"""Likelihood terms: gradient ascent on the forget set, gradient descent on the retain set, KL to the start.

Symbols: :math:`\ell_t = -\log p_\theta(y_t \mid x, y_{<t})` in nats, over answer tokens only; means are over
all answer tokens of an optimiser step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from reprolib.objectives.base import Term


def nll(token_logp: torch.Tensor) -> torch.Tensor:
    r"""Negative log-likelihood per answer token, :math:`\ell_t`, in nats: [N] -> [N]. Lower: better known."""
    return -token_logp


def ascent(token_logp: torch.Tensor) -> torch.Tensor:
    r"""Gradient ascent ("inverted loss"): :math:`-\ell_t`, in nats: [N] -> [N].

    Unbounded below: nothing stops it once the forget set is gone.
    Source: Jang et al. 2023; Cyber for AI (arXiv 2503.04795), section 4.
    """
    return token_logp


def kl_divergence(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    r"""Forward KL per position, :math:`\mathrm{KL}(p_{\theta_0} \,\|\, p_\theta)`, in nats: [N, V] x [N, V]
    -> [N].

    Over answer positions only (released codes also average over prompt and padding).
    Source: TOFU (Maini et al. 2024), "KL minimisation".
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    log_q = F.log_softmax(reference_logits.float(), dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


@dataclass(frozen=True, slots=True)
class Ascent(Term):
    """Forget term of gradient ascent and of gradient difference."""

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __call__(self, scored, reference):
        return ascent(scored.token_logp)


@dataclass(frozen=True, slots=True)
class NLL(Term):
    """Descent: keeps (or relearns) what the rows say."""

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __call__(self, scored, reference):
        return nll(scored.token_logp)


@dataclass(frozen=True, slots=True)
class KL(Term):
    """Retain term that holds the whole predictive distribution where it was."""

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "logits"

    def __call__(self, scored, reference):
        return kl_divergence(scored.logits, reference.token_logits(scored.index))


@dataclass(frozen=True, slots=True, kw_only=True)
class KLAndNLL(Term):
    """Both retain terms at once, from one forward pass: ``kl`` and ``nll`` are their weights (ZJUKLAB)."""

    kl: float = 0.5
    nll: float = 0.5
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "logits"

    def __call__(self, scored, reference):
        divergence = kl_divergence(scored.logits, reference.token_logits(scored.index))
        return self.kl * divergence + self.nll * nll(scored.token_logp)
