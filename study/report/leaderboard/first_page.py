"""What the first page shows of all methods, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reprolib.record import Record
from study.readings.quantities import LADDER
from study.readings.twin import bound, family, ranking
from study.report.leaderboard.entries import Study
from study.report.words import counted, say

SHOWN = 8  # up to so many methods the first page shows all of them


def selection(study: Study, most: int = SHOWN) -> dict[str, Sequence[Record]]:
    """What the first page shows: the ladder, and all methods if they are few, else the first of each family
    on the leaderboard (bounds left out).
    """
    methods = [m for m in study if m not in LADDER]
    if len(methods) > most:
        best: dict[str, str] = {}
        for m in ranking(study, [m for m in methods if not bound(m)]):
            best.setdefault(family(m) or m, m)  # a method without a family stands for itself
        methods = [m for m in methods if m in best.values()]
    return {m: records for m, records in study.items() if m in LADDER or m in methods}


def selected(study: Study, chosen: Study) -> Any:
    """What of the study a page shows, and where the rest is."""
    every, shown = ([m for m in s if m not in LADDER] for s in (study, chosen))
    link = "{doc}`/results/notebooks/synthesis/leaderboard`"
    if len(every) == len(shown):
        return say(f"All {counted(every)} are shown below; in one order, with what the order means: {link}.")
    of = sum(not bound(m) for m in every)
    return say(
        "Shown below: of each family of methods the one that stands first on the leaderboard,"
        f" {len(shown)} of {of}. Being chosen for its result flatters it a little. All {counted(every)}"
        f" are on the leaderboard: {link}."
    )
