"""The leaderboard: all methods that end with few forget questions answered in one order, by the gap to the
twin that they close.
"""

from study.report.leaderboard.as_figure import chart
from study.report.leaderboard.as_table import table
from study.report.leaderboard.as_text import answer
from study.report.leaderboard.entries import Entry, board, retains, tint
from study.report.leaderboard.first_page import SHOWN, selected, selection

__all__ = ["SHOWN", "Entry", "answer", "board", "chart", "retains", "selected", "selection", "table", "tint"]
