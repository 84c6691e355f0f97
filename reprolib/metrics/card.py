"""A metric's card: what a table header, a tooltip and the metrics page need to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Facts about one metric. Tables print ``label`` with an arrow taken from ``better``."""

    name: str
    label: str
    unit: str  # "share", "nats/token", "AUC", "score"
    low: float | None  # smallest possible value, None if unbounded
    high: float | None  # largest possible value, None if unbounded
    better: Literal[
        "higher", "lower", "twin", "neither"
    ]  # "twin": good is what the retrained model has; "neither": an effect size
    source: str  # paper or official script
    trap: str  # what misleads a reader most easily

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓", "twin": "→ twin", "neither": "±"}[self.better]
