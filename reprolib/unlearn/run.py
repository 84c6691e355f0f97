"""What a run of the loop carries from stage to stage and from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import Tokens
from reprolib.edits.base import Edit, Past
from reprolib.models import device
from reprolib.models.policy import Policy
from reprolib.objectives import References
from reprolib.recipes.base import Stage
from reprolib.unlearn.checkpoint import Checkpoint


@dataclass
class Outcome:
    """What the loop leaves besides the model's new weights."""

    status: str = "done"  # or "diverged"
    reason: str = ""
    trajectory: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    trained_parameters: int = 0
    unchanged_after_first_step: float | None = (
        None  # share of trainable weights that the first step did not move
    )
    control: dict[str, float] = field(
        default_factory=dict
    )  # state of the present stage's rule for the retain weight
    notes: dict[str, float] = field(
        default_factory=dict
    )  # costs that a trainable reports (e.g. of an importance pass)

    def diverge(self, reason: str) -> bool:
        """Note that the run cannot go on; False, for whoever returns whether it can."""
        self.status, self.reason = "diverged", reason
        return False


@dataclass(slots=True, kw_only=True)
class Run:
    """What all stages of a run share, and how it is logged and saved."""

    stages: Sequence[Stage | Edit]
    forget: Tokens
    retain: Tokens
    others: Mapping[str, Tokens]
    seed: int
    references: References  # of the weights before unlearning
    past: Past
    lengths: Sequence[int]  # steps of each stage
    measure: Callable[[nn.Module], dict[str, float]] | None
    marks: set[int]  # numbers of steps after which the model is measured and the run saved
    checkpoint: Checkpoint | None
    accelerator: Any
    outcome: Outcome = field(default_factory=Outcome)
    bar: tqdm | None = None

    def log(self, point: dict[str, Any], lm: nn.Module) -> None:
        if self.measure:
            self.outcome.trajectory.append(point | self.measure(lm))

    def advance(self, steps: int) -> None:
        self.outcome.steps = steps
        if self.bar is not None:
            self.bar.update()

    def save_stage(self, number: int, lm: nn.Module) -> None:
        """What stage ``number`` starts with, if there is one."""
        if self.checkpoint and number < len(self.stages) and device.first():
            self.checkpoint.save_stage(number, self.outcome, lm, self.past.kept)


@dataclass(slots=True, kw_only=True)
class Training:
    """A stage while it is trained."""

    stage: Stage
    number: int
    policy: Policy
    prepared: nn.Module  # the policy as accelerate hands it out
    movable: dict[str, nn.Parameter]
    built: torch.optim.Optimizer
    optimizer: Any  # the same as accelerate hands it out
    scheduler: torch.optim.lr_scheduler.LRScheduler
    references: References
    other: Tokens | None  # other answers that the forget term reads
    most: int  # padded tokens of a forward pass
    per_epoch: int
    estimates: list[torch.Tensor] | None = (
        None  # the last ones of the curvature: kept until there are new ones
    )
