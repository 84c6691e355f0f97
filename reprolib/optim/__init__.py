"""How weights move. Each optimizer is a frozen description that builds a torch optimizer.

A second-order description also says in ``estimate(moment)`` what it wants to know of the loss's curvature
before a step, which the loop hands to the built optimizer's ``curve`` (see base.py for the contract).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from reprolib.optim.base import Moment, Optimizer, check_settings
from reprolib.optim.influence import Influence
from reprolib.optim.sophia import Sophia


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019); torch's implementation."""

    lr: float = 5e-4  # per step
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_settings("AdamW", lr=self.lr, weight_decay=self.weight_decay)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(Optimizer):
    """Plain stochastic gradient descent; the yardstick for preconditioned steps."""

    lr: float = 1e-2
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_settings("SGD", lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


__all__ = ["SGD", "AdamW", "Influence", "Moment", "Optimizer", "Sophia"]
