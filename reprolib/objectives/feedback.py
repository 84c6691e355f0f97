"""Rules for the retain weight from the losses of the run: SHA256's feedback and SOUL's ramp.

**Feedback.** The retain weight m is 1.2 during the first epoch. Afterwards, where the retain loss of a step
is above the mean over the first epoch by :math:`\Delta > 0`,

.. math::

    m = \operatorname{clip}\big(\operatorname{round}_{0.1}(0.3 \cdot 6^{\Delta} + 0.8),\; 1.2,\; 2.3\big),

else 1.2. Symbols: :math:`\Delta` in nats; m without dimension. Two differences to the released code. It
weights the very batch whose loss it has read; a control here is told the loss after the step, so that m acts
on the *next* one. And its "average" divides the sum of the batch losses by the number of *rows*, not of
batches: with r retain rows a batch (about 6 of its mixed 12) the threshold is r times too low, and m rises
although the retain loss has not. ``divisor`` = r does the same; 1 is the average that the paper describes.

Source: Agrawal & Huang 2025 (SHA256, arXiv 2504.12996) and its ``unlearn.py``. (A summary of the paper gives
the upper end as 2.8; 2.3 is what the code runs.)

**Ramp.** :math:`\gamma\, e / E` in epoch e (from 0) of E: no retain term at all during the first epoch, and
never all of gamma.

Source: Jia et al. 2024 (SOUL, arXiv 2404.18239), class ``GA_FT_epoch`` of its code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reprolib.errors import SpecError


def multiplier(
    delta: float,
    low: float = 1.2,
    high: float = 2.3,
    scale: float = 0.3,
    growth: float = 6.0,
    offset: float = 0.8,
) -> float:
    """SHA256's retain weight for a retain loss that is ``delta`` nats above that of the first epoch; ``low``
    if it is not.

    >>> [multiplier(d) for d in (-1, 0, 0.5, 0.8, 1)]
    [1.2, 1.2, 1.5, 2.1, 2.3]
    """
    if not delta > 0:
        return low
    try:
        wanted = scale * float(growth) ** delta + offset
    except OverflowError:
        return high
    return min(max(round(wanted, 1), low), high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """Control of the retain weight: between ``low`` and ``high``, the more the retain loss has risen since
    the first epoch.

    ``divisor``: the mean over the first epoch is divided by this; 1, or the retain rows a batch to do as the
    released code does.
    """

    low: float = 1.2
    high: float = 2.3
    scale: float = 0.3
    growth: float = 6.0
    offset: float = 0.8
    divisor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < math.inf:
            raise SpecError(
                f"Feedback: low and high must be finite with 0 <= low <= high, got {self.low} and"
                f" {self.high}."
            )
        for name, above in (("scale", 0), ("growth", 1), ("divisor", 0)):
            if not above < getattr(self, name) < math.inf:
                raise SpecError(f"Feedback: {name} must be finite and > {above}, got {getattr(self, name)}.")
        if not math.isfinite(self.offset):
            raise SpecError(f"Feedback: offset must be finite, got {self.offset}.")

    def start(self) -> dict[str, float]:
        return {"weight": float(self.low), "sum": 0.0, "steps": 0.0}

    def weight(self, state: dict[str, float]) -> float:
        return state["weight"]

    def update(
        self, state: dict[str, float], forget: float, retain: float, step: int, per_epoch: int
    ) -> dict[str, float]:
        if step < per_epoch:
            return {**state, "sum": state["sum"] + retain, "steps": state["steps"] + 1}
        delta = retain - state["sum"] / state["steps"] / self.divisor
        return {
            **state,
            "weight": multiplier(delta, self.low, self.high, self.scale, self.growth, self.offset),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Control of the retain weight: ``full`` times epoch / ``epochs``, the epoch counted from 0."""

    full: float
    epochs: float

    def __post_init__(self) -> None:
        if not 0 < self.full < math.inf:
            raise SpecError(
                f"Ramp: full, the weight that it leads to, must be finite and > 0, got {self.full}."
            )
        if not 0 < self.epochs < math.inf:
            raise SpecError(
                f"Ramp: epochs must be finite and > 0, got {self.epochs}; give the epochs of the stage's"
                " schedule."
            )

    def start(self) -> dict[str, float]:
        return {"epoch": 0.0}

    def weight(self, state: dict[str, float]) -> float:
        return self.full * min(1.0, state["epoch"] / self.epochs)

    def update(
        self, state: dict[str, float], forget: float, retain: float, step: int, per_epoch: int
    ) -> dict[str, float]:
        return {"epoch": float((step + 1) // per_epoch)}
