"""Figures, tables and sentences of the book. They only ever read records."""

from study.readings.gate import gather, settings
from study.report import (
    advice,
    arms,
    cost,
    figures,
    leaderboard,
    pretrained,
    requests,
    scale,
    status,
    stress,
    style,
    tables,
    true_size,
    yardsticks,
)
from study.report.forget_set import actual_rows, size_answer, size_table
from study.report.front import answer, compare, distances, gaps, matched
from study.report.method import card, diagnostics, importance_cost, methods, routing, source, verdict
from study.report.tuning import search, search_answer, search_summary, search_trials, trials
from study.report.words import say

__all__ = [
    "actual_rows",
    "advice",
    "answer",
    "arms",
    "card",
    "compare",
    "cost",
    "diagnostics",
    "distances",
    "figures",
    "gaps",
    "gather",
    "importance_cost",
    "leaderboard",
    "matched",
    "methods",
    "pretrained",
    "requests",
    "routing",
    "say",
    "scale",
    "search",
    "search_answer",
    "search_summary",
    "search_trials",
    "settings",
    "size_answer",
    "size_table",
    "source",
    "status",
    "stress",
    "style",
    "tables",
    "trials",
    "true_size",
    "verdict",
    "yardsticks",
]
