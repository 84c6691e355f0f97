"""Variants of a method beside each other: each at several rates, compared at its best."""

from study.report.arms.as_figure import figure, show
from study.report.arms.as_tables import confirmed, cost, table
from study.report.arms.as_text import VERDICTS, answer, compared
from study.report.arms.optimizers import acts, first_stage, spread, spreads
from study.report.arms.variants import (
    DISTANCE,
    KEPT,
    Arm,
    Arms,
    Setting,
    ahead,
    apart,
    better,
    difference,
    fields,
    gather,
    kept,
    precisions,
    records,
    steep,
)

__all__ = [
    "DISTANCE",
    "KEPT",
    "VERDICTS",
    "Arm",
    "Arms",
    "Setting",
    "acts",
    "ahead",
    "answer",
    "apart",
    "better",
    "compared",
    "confirmed",
    "cost",
    "difference",
    "fields",
    "figure",
    "first_stage",
    "gather",
    "kept",
    "precisions",
    "records",
    "show",
    "spread",
    "spreads",
    "steep",
    "table",
]
