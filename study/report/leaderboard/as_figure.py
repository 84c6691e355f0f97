"""The leaderboard as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt

from study.readings.quantities import LADDER
from study.readings.twin import GROUPS, LEVEL
from study.report import style
from study.report.leaderboard.entries import Entry, tint, titles


def chart(entries: Sequence[Entry], level: float = LEVEL) -> tuple[Any, str]:
    """One row a model in the leaderboard's order: its mean gap closed, the interval over seeds, and single
    seeds as ticks.
    """
    here = [g for g in GROUPS if any(e.group == g for e in entries)]
    # a free row above every group but the first
    places = [y + 1.15 * here.index(e.group) for y, e in enumerate(entries)]
    fig, axis = plt.subplots(figsize=(8.6, 1.9 + 0.25 * (places[-1] + 1)))
    middles = [v for e in entries for v in e.gaps if math.isfinite(v)]
    floor = max(min([-0.1, *middles]) - 0.06, -3.0)
    for y, e in zip(places, entries, strict=True):
        if not e.gap:
            continue
        look = {"color": tint(e), "linestyle": "", "marker": style.marker(e.method)}
        if math.isfinite(e.gap.low):
            bar = {"color": tint(e), "alpha": 0.45, "solid_capstyle": "butt", "zorder": 2}
            axis.plot([max(e.gap.low, floor), max(e.gap.high, floor)], [y, y], linewidth=3, **bar)
            if e.gap.low < floor:  # goes on beyond the axis
                axis.plot([floor], [y], markersize=5, clip_on=False, zorder=3, **look | {"marker": "<"})
        axis.plot(
            [max(v, floor) for v in e.gaps],
            [y] * len(e.gaps),
            markersize=8,
            zorder=3,
            **look | {"marker": "|"},
        )
        axis.plot(
            [max(e.gap.estimate, floor)], [y], markersize=11 if e.method == "twin" else 7, zorder=4, **look
        )
    axis.axvline(1, color=style.COLOURS["twin"], linestyle="--", linewidth=1.4, zorder=1)
    axis.axvline(0, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    for group in here:
        first = next(y for y, e in zip(places, entries, strict=True) if e.group == group)
        if group != here[0]:
            axis.axhline(first - 1.6, color=style.INK, linewidth=0.8, zorder=1)
        if group != "all":
            axis.text(0, first - 1.0, f"  {titles(level)[group]}", va="center", fontsize=9, style="italic")
    top = 0.7 if here[0] == "all" else 1.7
    axis.set(
        xlim=(floor, 1.05),
        ylim=(places[-1] + 0.7, -top),
        xlabel="gap closed: 1 - distance / the target's distance to the twin",
    )
    axis.set_yticks(places, [e.label for e in entries], fontsize=9.5)
    for text, e in zip(axis.get_yticklabels(), entries, strict=True):
        text.set_style("italic" if e.method in LADDER else "normal")
    axis.grid(axis="y", alpha=0.2)
    handles, names, columns = _legend(entries)
    fig.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)
    said = [f"{titles(level)[g]}: " + "; ".join(_said(e) for e in entries if e.group == g) for g in here]
    alt = "Dot chart of the gap to the twin that each model closes, 1 the twin and 0 the untouched target. "
    return fig, alt + ". ".join(s[0].upper() + s[1:] for s in said) + "."


def _said(e: Entry) -> str:
    if not e.gap:
        return f"{e.label} not finite"
    return f"{e.label} {e.gap.estimate:.2f}" + (
        f" ({e.gap.low:.2f} to {e.gap.high:.2f})" if math.isfinite(e.gap.low) else ""
    )


def _legend(entries: Sequence[Entry]) -> tuple[list[Any], list[str], int]:
    """A handle a family, then, in columns of their own, what the shapes mean."""
    colours = {e.family: tint(e) for e in entries if e.counts}
    order = [f for f in style.FAMILIES if f in colours] + [f for f in colours if f not in style.FAMILIES]
    ink = style.INK
    families = [
        (plt.Line2D([], [], marker="o", color=colours[f], linestyle="", markersize=7), f) for f in order
    ]
    if any(e.family == "bound" for e in entries):
        families.append(
            (
                plt.Line2D([], [], marker="o", color=style.FAMILIES["baseline"], linestyle="", markersize=7),
                "bounds",
            )
        )
    shapes = [
        (plt.Line2D([], [], marker="o", color=ink, linestyle="", markersize=7), "mean over seeds"),
        (plt.Line2D([], [], color=ink, linewidth=3, alpha=0.45), "95 % interval over seeds"),
        (plt.Line2D([], [], marker="|", color=ink, linestyle="", markersize=8), "single seeds"),
        (plt.Line2D([], [], color=style.COLOURS["twin"], linestyle="--", linewidth=1.4), "retrained twin"),
        (plt.Line2D([], [], color=ink, linestyle=":", linewidth=1.4), "untouched target"),
    ]
    rows = max(3, math.ceil(len(families) / 3))
    gap = (plt.Line2D([], [], linestyle=""), "")
    filled = [part + [gap] * (-len(part) % rows) for part in (families, shapes)]  # whole columns
    both = [*filled[0], *filled[1]]
    return [h for h, _ in both], [t for _, t in both], len(both) // rows
