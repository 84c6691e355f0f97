"""Primal-dual unlearning (PDU): flatten the logits on the forget set while the retain loss stays below a
bound.

.. math::

    \min_\theta\; \mathbb E_t\Big[\big(\max_v z_v - \tfrac1V \textstyle\sum_v z_v\big)^2\Big]
    \quad\text{s.t.}\quad \mathcal L_r \le \epsilon,
    \qquad \lambda \leftarrow \max\big(0,\; \lambda + \eta\,(\mathcal L_r - \epsilon)\big)

Symbols: z the logits at an answer position of the forget set, :math:`\mathcal L_r` the retain term (NLL in
nats),
:math:`\lambda` the multiplier, which is the retain weight, :math:`\eta` its step size. The forget term is in
squared logits, 0 exactly where all tokens are equally likely, a mean over answer tokens; lower means more
forgotten. It needs no softmax.

Source: Entesari et al. 2025 (arXiv 2506.05314) and its code in open-unlearning. That code averages the forget
term over prompt and padding too; here over answer tokens. With ``every="epoch"`` it makes an extra pass over
the retain set; here the mean of the epoch's step losses is used, which costs nothing and lags behind by half
an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from reprolib.errors import SpecError, unknown
from reprolib.objectives.base import Term


def flatness(logits: torch.Tensor) -> torch.Tensor:
    """Squared distance of the largest logit from their mean, per position: [N, V] -> [N]; 0 is the uniform
    distribution.
    """
    z = logits.float()
    return (z.max(-1).values - z.mean(-1)).square()


@dataclass(frozen=True, slots=True)
class PDU(Term):
    """Forget term without hyper-parameters; meant to be used with :class:`DualAscent`."""

    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = None

    def __call__(self, scored, reference):
        return flatness(scored.logits)


@dataclass(frozen=True, slots=True, kw_only=True)
class DualAscent:
    """Control of the retain weight: lambda rises while the retain loss is above ``epsilon`` and falls below
    it.

    ``epsilon``: the bound on the retain loss, a little above what the model starts with. ``initial``: lambda
    at first (paper: 50 to 100). ``rate``: its step size. ``warmup_epochs``: epochs during which lambda stays.
    ``every``: "step", or "epoch": at the end of every epoch from the last one of the warm-up on, with the
    mean of that epoch's retain losses.
    """

    epsilon: float
    initial: float = 50.0
    rate: float = 1.0
    warmup_epochs: float = 5
    every: str = "step"

    def __post_init__(self) -> None:
        for name in ("epsilon", "initial", "warmup_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"DualAscent: {name} must be finite and >= 0, got {getattr(self, name)}.")
        if not 0 < self.rate < math.inf:
            raise SpecError(
                f"DualAscent: rate, the step size of lambda, must be finite and > 0, got {self.rate}."
            )
        if self.every not in ("step", "epoch"):
            raise SpecError("DualAscent: " + unknown("every", self.every, ("step", "epoch")))

    def start(self) -> dict[str, float]:
        return {"lambda": float(self.initial), "sum": 0.0, "steps": 0.0}

    def weight(self, state: dict[str, float]) -> float:
        return state["lambda"]

    def update(
        self, state: dict[str, float], forget: float, retain: float, step: int, per_epoch: int
    ) -> dict[str, float]:
        done = step + 1
        if self.every == "step":
            free = done > self.warmup_epochs * per_epoch
            return {**state, "lambda": self.ascend(state["lambda"], retain)} if free else state
        total, steps = state["sum"] + retain, state["steps"] + 1
        if done % per_epoch:
            return {**state, "sum": total, "steps": steps}
        free = done >= self.warmup_epochs * per_epoch
        return {
            "lambda": self.ascend(state["lambda"], total / steps) if free else state["lambda"],
            "sum": 0.0,
            "steps": 0.0,
        }

    def ascend(self, multiplier: float, retain: float) -> float:
        """One step of dual ascent, kept from becoming negative."""
        return max(0.0, multiplier + self.rate * (retain - self.epsilon))
