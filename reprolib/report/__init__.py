"""Figures, tables and sentences of the book. They only ever read records."""

from reprolib.report import (
    advice,
    arms,
    claims,
    figures,
    leaderboard,
    requests,
    scale,
    status,
    stress,
    style,
    summary,
    tables,
    true_size,
    yardsticks,
)
from reprolib.report.page import (
    actual_rows,
    answer,
    card,
    compare,
    diagnostics,
    distances,
    gaps,
    gather,
    importance_cost,
    matched,
    methods,
    routing,
    say,
    search,
    search_answer,
    search_summary,
    search_trials,
    settings,
    size_answer,
    size_table,
    source,
    trials,
    verdict,
)

__all__ = [
    "actual_rows", "advice", "answer", "arms", "card", "claims", "compare", "diagnostics", "distances", "figures", "gaps", "gather", "importance_cost",
    "leaderboard", "matched", "methods", "requests", "routing", "say", "scale", "search", "search_answer", "search_summary", "search_trials",
    "settings", "size_answer", "size_table", "source", "status", "stress", "style", "summary", "tables", "trials", "true_size", "verdict", "yardsticks",
]  # fmt: skip
