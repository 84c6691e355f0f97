"""The shape of every objective: ``objective(policy, references, batch) -> Loss(total, forget, retain)``.

A *term* is a small frozen dataclass around a pure function that stands beside its equation in the
term's own file. It returns one value per unit (answer token or row); :class:`Objective` divides by
the number of units in the *whole* optimiser step, so that gradient accumulation never changes the maths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import nn

from reprolib.corpus.batching import Batch
from reprolib.errors import SpecError
from reprolib.models.policy import Reference, Scored


class Loss(NamedTuple):
    """Scalars in the units of the terms (nats, mostly). ``forget`` and ``retain`` are unweighted and
    detached.
    """

    total: torch.Tensor
    forget: torch.Tensor
    retain: torch.Tensor


class Term:
    """Base of all forget and retain terms. Most only write ``__call__``; a term that needs more than the
    logits of its rows (other answers to the same questions, hidden states) overrides ``values``.
    """

    unit: ClassVar[str] = (
        "token"  # what the values are means of: "token", "row" or "other" (tokens of the other answers)
    )
    other: str | None = None  # the other answers that it reads: a name of preference.KINDS
    layer: int | None = None  # the layer whose outputs it reads, where needs is "hidden"
    passes: ClassVar[int] = (
        1  # forward + backward passes over the rows (2 if other answers are scored beside the true ones)
    )
    helper: ClassVar[bool] = (
        False  # whether it reads the logits that a stage with keep="helper" left on the forget rows
    )

    @property
    def needs(self) -> str | None:
        """Of the model before unlearning: None, "sequence", "logits" or "hidden". Most terms set it, once
        for the class.
        """
        return None

    def __call__(self, scored: Scored, reference: Any) -> torch.Tensor:
        """One value per unit, with gradient: [N] tokens or [B] rows."""
        raise NotImplementedError

    def values(self, policy: nn.Module, rows: Batch, sources: Sources) -> torch.Tensor:
        """The same from a batch: calls the policy, which accelerate may have wrapped, and binds the
        reference to it.
        """
        return self(policy(rows), sources.own.on(policy, rows) if self.needs and sources.own else None)


class Sources(NamedTuple):
    """References of one side: for the rows themselves, for their other answers, and a helper model's."""

    own: Reference | None = None
    other: Reference | None = None
    helper: Reference | None = None


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One micro-batch of a step, with the number of units in the whole step (for the mean)."""

    forget: Batch | None
    retain: Batch | None
    units: dict[str, int]  # "forget/token", "forget/row", "forget/other", "retain/token", "retain/row"


@dataclass(frozen=True, slots=True)
class References:
    """The model before unlearning, as the terms of the two sets see it (None where no term needs it)."""

    forget: Reference | None = None
    retain: Reference | None = None
    other: Reference | None = None  # on the other answers to the forget questions
    helper: Reference | None = None  # another model, on the forget rows

    def of(self, side: str) -> Sources:
        return Sources(self.forget, self.other, self.helper) if side == "forget" else Sources(self.retain)


class Control(Protocol):
    """A rule that moves the retain weight during a stage. ``state`` holds plain numbers only, so that it can
    be saved.
    """

    def start(self) -> dict[str, float]: ...

    def weight(self, state: dict[str, float]) -> float: ...

    def update(
        self, state: dict[str, float], forget: float, retain: float, step: int, per_epoch: int
    ) -> dict[str, float]:
        """After step number ``step`` (from 0) with these unweighted losses; ``per_epoch`` steps make an
        epoch.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    r"""Weighted sum of a forget and a retain term: :math:`\gamma\,\mathcal L_f + \alpha\,\mathcal L_r`.

    A term of weight 0 is dropped: it costs no forward pass. ``control`` replaces alpha by a rule.
    """

    forget: Term | None = None
    retain: Term | None = None
    forget_weight: float = 1.0  # gamma
    retain_weight: float = 1.0  # alpha
    control: Control | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        for side in ("forget", "retain"):
            weight = getattr(self, f"{side}_weight")
            if not 0 <= weight < math.inf:
                raise SpecError(
                    f"{side}_weight must be >= 0 and finite, got {weight}; the sign is the term's (ascent"
                    " negates)."
                )
            if weight == 0:
                object.__setattr__(self, side, None)
        if self.forget is None and self.retain is None:
            raise SpecError(
                "an objective needs a forget or a retain term of positive weight; both are absent."
            )

    @property
    def pairing(self) -> Literal["forget", "retain", "paired"]:
        """The schedule's pairing that sees the rows of its terms and no others: "paired", "forget" or
        "retain".
        """
        return "retain" if self.forget is None else "forget" if self.retain is None else "paired"

    def __call__(
        self, policy: nn.Module, references: References, batch: StepBatch, retain_weight: float | None = None
    ) -> Loss:
        weights = {
            "forget": self.forget_weight,
            "retain": self.retain_weight if retain_weight is None else retain_weight,
        }
        there = [rows.ids.device for rows in (batch.forget, batch.retain) if rows is not None]
        assert there, "a micro-batch without rows"
        parts, total = {}, None
        for side, weight in weights.items():
            term, rows = getattr(self, side), getattr(batch, side)
            parts[side] = torch.zeros((), device=there[0])
            if term is None or rows is None:
                continue
            part = term.values(policy, rows, references.of(side)).sum() / batch.units[f"{side}/{term.unit}"]
            parts[side] = part.detach()
            weighted = weight * part
            total = weighted if total is None else total + weighted
        assert total is not None, "terms of rows that the micro-batch does not have"
        return Loss(total, parts["forget"], parts["retain"])
