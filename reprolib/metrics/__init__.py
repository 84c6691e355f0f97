"""Metrics: pure functions of numbers and texts. ``CARDS`` says of each what a reader must know."""

from __future__ import annotations

from reprolib.metrics import (
    fluency,
    lume,
    memorisation,
    meta,
    mmlu,
    muse,
    privacy,
    robustness,
    statistics,
    tofu,
    utility,
)
from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError

# Every metric of the package by name. Importing this needs numpy only.
MODULES = (lume, memorisation, privacy, utility, tofu, muse, fluency, robustness, mmlu, statistics, meta)
CARDS: dict[str, Card] = {name: card for module in MODULES for name, card in module.CARDS.items()}
__all__ = ["CARDS", "MODULES", "Card", "MetricError"]
