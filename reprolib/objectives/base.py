"""The shape of every objective: ``objective(policy, reference, batch) -> Loss(total, forget, retain)``.

A *term* is a small frozen dataclass around a pure function that stands beside its equation in the
term's own file. It returns one value per unit (answer token or row); :class:`Objective` divides by
the number of units in the *whole* optimiser step, so that gradient accumulation never changes the maths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch

from reprolib.corpus.batching import Batch
from reprolib.errors import SpecError
from reprolib.models.policy import Cached, Policy, Reference, Scored


class Loss(NamedTuple):
    """Scalars in the units of the terms (nats, mostly). ``forget`` and ``retain`` are unweighted and detached."""

    total: torch.Tensor
    forget: torch.Tensor
    retain: torch.Tensor


class Term(Protocol):
    """What a forget or retain term must offer."""

    unit: ClassVar[str]  # "token" or "row": what the values are means of
    needs: ClassVar[str | None]  # reference values: None, "sequence" or "logits"

    def __call__(self, scored: Scored, reference: Cached | None) -> torch.Tensor:
        """One value per unit, with gradient: [N] tokens or [B] rows."""
        ...


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One micro-batch of a step, with the number of units in the whole step (for the mean)."""

    forget: Batch | None
    retain: Batch | None
    units: dict[str, int]  # "forget/token", "forget/row", "retain/token", "retain/row"


@dataclass(frozen=True, slots=True)
class References:
    """The model before unlearning, as the terms of the two sets see it (None where no term needs it)."""

    forget: Reference | None = None
    retain: Reference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    r"""Weighted sum of a forget and a retain term: :math:`\gamma\,\mathcal L_f + \alpha\,\mathcal L_r`.

    A term of weight 0 is dropped: it costs no forward pass.
    """

    forget: Term | None = None
    retain: Term | None = None
    forget_weight: float = 1.0  # gamma
    retain_weight: float = 1.0  # alpha

    def __post_init__(self) -> None:
        for side in ("forget", "retain"):
            weight = getattr(self, f"{side}_weight")
            if weight < 0:
                raise SpecError(f"{side}_weight must be >= 0, got {weight}; the sign belongs to the term (ascent negates).")
            if weight == 0:
                object.__setattr__(self, side, None)
        if self.forget is None and self.retain is None:
            raise SpecError("an objective needs a forget or a retain term of positive weight; both are absent.")

    def __call__(self, policy: Policy, reference: References, batch: StepBatch) -> Loss:
        parts, total = {}, None
        for side in ("forget", "retain"):
            term, rows = getattr(self, side), getattr(batch, side)
            parts[side] = torch.zeros((), device=policy.device if rows is None else rows.ids.device)
            if term is None or rows is None:
                continue
            start = getattr(reference, side)
            values = term(policy(rows), start.on(policy, rows) if term.needs and start else None)
            part = values.sum() / batch.units[f"{side}/{term.unit}"]
            parts[side] = part.detach()
            weighted = getattr(self, f"{side}_weight") * part
            total = weighted if total is None else total + weighted
        assert total is not None, "a micro-batch without rows"
        return Loss(total, parts["forget"], parts["retain"])
