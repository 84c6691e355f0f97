"""Metrics: pure functions of numbers and texts. ``CARDS`` says of each what a reader must know."""

from __future__ import annotations

from reprolib.metrics import lume, memorisation, privacy, statistics, utility
from reprolib.metrics.card import Card
from reprolib.metrics.statistics import MetricError

# Every metric of the package by name. Importing this needs numpy only.
CARDS: dict[str, Card] = lume.CARDS | memorisation.CARDS | privacy.CARDS | utility.CARDS | statistics.CARDS

__all__ = ["CARDS", "Card", "MetricError"]
