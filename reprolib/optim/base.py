"""What optimizers that look further than the gradient share: what they may see of a step, checks, and their
state.

The loop's side of the contract, in this order::

    estimates = description.estimate(moment)   # after p.grad holds the step's clipped gradient; None: none is
    due optimizer.curve(estimates)                 # only if they are not None
    optimizer.step()
    optimizer.diagnostics()                    # numbers for the trajectory, of the step just made
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError
from reprolib.objectives import Objective, References, StepBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What an optimizer may look at before a step. It must leave ``p.grad`` and the weights as they are."""

    policy: nn.Module  # called as policy(batch) -> Scored; may be wrapped by accelerate
    objective: Objective
    references: References
    batches: list[StepBatch]  # the micro-batches of this step, on the device
    forget: Tokens  # the whole set
    retain: Tokens  # the whole set
    parameters: list[nn.Parameter]  # trainable; p.grad holds the clipped gradient of the step
    step: int  # from 0 in this stage
    per_epoch: int  # steps in an epoch
    seed: int  # of the stage; everything drawn derives from it and from ``step``
    retain_weight: float | None = None  # what the objective is called with


class Optimizer:
    """Base of all descriptions: a frozen dataclass that says how weights move, and builds the torch optimizer
    that does it.
    """

    __slots__ = ()
    second_order: ClassVar[bool] = False  # whether `estimate` is asked before every step

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer; of a second-order description a :class:`Curved` one."""
        raise NotImplementedError

    def estimate(self, moment: Moment) -> list[torch.Tensor] | None:
        """What the optimizer wants to know of the curvature, one tensor a parameter; None where none is
        due.
        """
        return None

    @property
    def reads_retain(self) -> str:
        """Where retain rows come in although no loss has them, in words; "" if they do not."""
        return ""


class Curved(torch.optim.Optimizer):
    """Base of the optimizers here. State is kept in at least fp32, also for bf16 weights, and is loaded back
    bit by bit (torch's own loading rounds it to the precision of the weights).
    """

    @property
    def parameters(self) -> list[nn.Parameter]:
        """In the order in which estimates are given."""
        return [p for group in self.param_groups for p in group["params"]]

    def zeros(self, p: nn.Parameter) -> torch.Tensor:
        return torch.zeros_like(p, dtype=precise(p))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        for number, p in zip(numbers, self.parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[p][name] = value.detach().clone().to(p.device)

    def curve(self, estimates: Sequence[torch.Tensor]) -> None:
        """Take in what the description's ``estimate`` returned."""
        raise NotImplementedError

    def diagnostics(self) -> dict[str, float]:
        """Numbers for the trajectory, of the step just made."""
        return {}

    def given(self, estimates: Sequence[torch.Tensor]) -> Iterable[tuple[nn.Parameter, torch.Tensor]]:
        """Parameters with their estimates, whose shapes must agree."""
        parameters = self.parameters
        if [e.shape for e in estimates] != [p.shape for p in parameters]:
            raise ValueError(
                f"{type(self).__name__}.curve: {len(estimates)} estimates for {len(parameters)}"
                " parameters, or of other shapes; give one tensor a parameter, in the order that the"
                " optimizer was built with."
            )
        return zip(parameters, estimates, strict=True)


def precise(p: torch.Tensor) -> torch.dtype:
    """The type that state about ``p`` is kept in: fp32, or fp64 for fp64 weights. An average that takes in 1
    % of a new value would stand still in bf16, whose steps are 0.4 to 0.8 %.
    """
    return torch.promote_types(p.dtype, torch.float32)


def quantiles(
    tensors: Iterable[torch.Tensor], count: int, shares: Sequence[float], most: int = 1 << 20
) -> list[float]:
    """Quantiles over the ``count`` coordinates of all tensors together; of more than ``most``, over every
    k-th (k odd).

    ``tensors`` may be made one after another: none is kept whole.
    """
    stride = max(1, math.ceil(count / most)) | 1
    picked, skip = [], 0
    for t in tensors:
        picked.append(t.detach().flatten()[skip::stride].clone())
        skip = (skip - t.numel()) % stride
    every = torch.cat(picked)
    return torch.quantile(every, torch.tensor(shares, dtype=every.dtype, device=every.device)).tolist()


def check_settings(name: str, **values: float) -> None:
    for key, value in values.items():
        if not value >= 0:
            raise SpecError(f"{name}: {key} must be >= 0, got {value}.")


def check_positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not value > 0:
            raise SpecError(f"{name}: {key} must be > 0, got {value}.")


def check_decay(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            raise SpecError(
                f"{name}: {key} must lie in [0, 1), got {value}; it is the share of a running mean that is"
                " kept."
            )


def check_count(name: str, **values: int) -> None:
    for key, value in values.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (value >= 1 and value % 1 == 0)
        ):
            raise SpecError(f"{name}: {key} must be a whole number >= 1, got {value!r}.")
