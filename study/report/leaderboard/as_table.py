"""The leaderboard as a table."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from study.readings.twin import LEVEL
from study.report.leaderboard.entries import Entry, tint, titles
from study.report.tables import Table, cell, number


def _places(entries: Sequence[Entry]) -> dict[str, int]:
    """Places are counted over methods of which all seeds end at the level; the ladder and bounds stand
    between them without one.
    """
    return {
        e.method: n for n, e in enumerate((e for e in entries if e.counts and e.group == "all" and e.gap), 1)
    }


READINGS = ("forget_questions", "forget_passages", "attack_auc", "retain_questions", "world_questions")

HEADER = (
    "place",
    "model",
    "family",
    "seeds at the level",
    "gap closed ↑",
    "distance ↓",
    "forget q. → twin",
    "forget passages → twin",
    "attack AUC → twin",
    "retain q. ↑",
    "world q. ↑",
    "retain rows",
    "cost of a step",
    "steps",
    "official final ↑",
)

CAPTION = (
    "Within the first group, ordered by the gap closed; within the others, by the distance. Brackets:"
    " 95 % t intervals over seeds; parentheses: range over seeds; readings are means over seeds."
    " Places are counted over methods."
)

HELP = {
    "gap closed ↑": (
        "1 - distance / the target's distance, of the same seed. 1: the twin; 0: as far as the"
        " untouched target; below 0: farther."
    ),
    "distance ↓": (
        "Mean absolute difference to the twin of the same seed over the five readings to the right."
    ),
    "retain rows": (
        "Where the method uses retain rows. In the loss: the retain questions are among the rows that"
        " it trains on."
    ),
    "cost of a step": "Forward and backward passes, and what comes on top.",
    "official final ↑": ("Mean of task aggregate, MIA score and utility; a destroyed model gets about 0.4."),
}


def table(entries: Sequence[Entry], level: float = LEVEL) -> Table:
    """The leaderboard as a table, and its plain values for the CSV."""
    places, groups = _places(entries), {}
    for n, e in enumerate(entries):
        if n == 0 or e.group != entries[n - 1].group:
            groups[n] = titles(level)[e.group]
    rows = tuple(_row(e, places.get(e.method, "–")) for e in entries)
    data = tuple(_values(e, places.get(e.method, "")) for e in entries)
    return Table(HEADER, rows, CAPTION, HELP, data=data, groups=groups, named=1)


def _row(e: Entry, place: int | str) -> tuple[str, ...]:
    """The cells of a model, as the page shows them."""
    swatch = f'<span class="swatch" style="background:{tint(e)}"></span>'
    note = f' <span class="diverged">({e.diverged} of {e.seeds} diverged)</span>' if e.diverged else ""
    low, high = e.extent
    own = f' <span class="interval">({number(low)} to {number(high)})</span>' if e.seeds > 1 else ""
    return (
        f"{place}",
        swatch + html.escape(e.label) + note,
        e.family,
        f"{e.reached} of {e.seeds}",
        cell(e.gap) if e.gap else "–",
        number(e.distance) + own,
        *(number(e.readings[k]) for k in READINGS),
        e.retains or "–",
        e.cost or "–",
        f"{e.steps:.0f}" if math.isfinite(e.steps) else "–",
        number(e.final),
    )


def _values(e: Entry, place: int | str) -> dict[str, Any]:
    """The plain values of a model, for the CSV."""
    return {
        "place": place,
        "method": e.method,
        "family": e.family,
        "seeds": e.seeds,
        "diverged": e.diverged,
        "seeds_at_level": e.reached,
        "group": e.group,
        "gap_closed": _plain(e.gap and e.gap.estimate),
        "gap_closed_low": _plain(e.gap and e.gap.low),
        "gap_closed_high": _plain(e.gap and e.gap.high),
        "distance": _plain(e.distance),
        "distance_low": _plain(e.extent[0]),
        "distance_high": _plain(e.extent[1]),
        **{k: _plain(e.readings[k]) for k in READINGS},
        "retain_rows": e.retains,
        "cost_of_a_step": e.cost,
        "steps": _plain(e.steps),
        "official_final": _plain(e.final),
    }


def _plain(x: float | None) -> float | str:
    return "" if x is None or not math.isfinite(x) else round(x, 4)
