"""Inverted hinge loss (IHL).

.. math::

    \ell_t = 1 + p_\theta(y_t \mid x, y_{<t}) - \max_{v \neq y_t} p_\theta(v \mid x, y_{<t})

Symbols: p are probabilities (a softmax over the whole vocabulary), :math:`y_t` the true answer token.
Dimensionless, in [0, 2]: 2 where the true token is certain, 1 where all tokens are equally likely, 0 where
another one is certain. (The published clamp at 0 is never active.) Lower means more forgotten; a mean over
answer tokens. With
:math:`p_* = \max_{v \neq y} p(v)`, the gradients in the logits are :math:`p_y (1 - p_y + p_*)` for the true
token,
:math:`-p_* (1 - p_* + p_y)` for the runner-up and :math:`-p_v (p_y - p_*)` for the others: a step moves mass
from the true token, most of it to the runner-up, and it stops where the true token is gone, unlike gradient
ascent.

Source: Cha et al. 2024 (LoKU, arXiv 2408.06621). Its code hands *logits* to torchmetrics' hinge loss, which
leaves out the softmax where all values of a batch happen to lie in [0, 1]; here the softmax is always taken,
in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from reprolib.objectives.base import Term


def inverted_hinge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """IHL per position: [N, V] logits, [N] true tokens -> [N], each in [0, 2]; lower means more forgotten."""
    p = logits.float().softmax(-1)
    true = labels[:, None]
    runner_up = p.scatter(-1, true, -1.0).max(-1).values
    return 1 + p.gather(-1, true).squeeze(-1) - runner_up


@dataclass(frozen=True, slots=True)
class IHL(Term):
    """Forget term without hyper-parameters."""

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __call__(self, scored, reference):
        return inverted_hinge(scored.logits, scored.labels)
