"""Variants as a figure."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt

from reprolib.metrics.resample import seeds_interval
from study.readings.twin import LEVEL, within
from study.report import style
from study.report.arms.variants import DISTANCE, KEPT, Arm, Arms, mean_of
from study.report.tables import number

HEADS = {KEPT: f"kept at {LEVEL:.0%} of the forget questions", DISTANCE: "distance to the twin at the end"}


def figure(arms: Arms) -> tuple[Any, str]:
    """A row an arm, a panel a reading: dots are seeds of the best setting (fresh ones if there are), bars
    their intervals, rings the means of other settings, and of the best on the seeds that chose it if the dots
    are fresh."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 1.5 + 0.42 * len(arms)), sharey=True)
    words = []
    for axis, reading in zip(axes, (KEPT, DISTANCE), strict=True):
        said = ", ".join(_row(axis, y, arm, reading) for y, arm in enumerate(arms.values()))
        axis.set(
            title=HEADS[reading].replace(" at ", "\nat "),
            xlabel="share of questions" if reading == KEPT else "distance (0: the twin)",
        )
        axis.grid(axis="y", visible=False)
        words.append(f"{HEADS[reading]}: {said}")
    axes[0].set_xlim(-0.04, 1.04)
    axes[1].set_xlim(0, 1.04 * axes[1].get_xlim()[1])
    axes[0].set_yticks(range(len(arms)), list(arms))
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    ink = {"color": style.INK, "linestyle": ""}
    marks = [
        plt.Line2D([], [], marker="o", **ink),
        plt.Line2D([], [], marker="o", markersize=9, markerfacecolor="none", **ink),
    ]
    new = any(arm.fresh for arm in arms.values())
    words_of = (
        ["fresh seeds, best setting", "mean of each rate tried, on the seeds that choose"]
        if new
        else ["seeds, best setting", "mean of another setting"]
    )
    fig.legend(marks, words_of, loc="outside lower center", ncols=2)
    return fig, "Dot plots with a row an arm. " + "; ".join(words) + "."


def _row(axis: Any, y: int, arm: Arm, reading: str) -> str:
    """Draws one arm by one reading, and says what it drew."""
    shade, best = style.colour(arm.method), arm.shown(reading)
    for s in arm.settings:
        m = mean_of(s.values(reading))
        if s is not best and math.isfinite(m):
            ring = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": shade, "alpha": 0.7}
            axis.plot(m, y, marker="o", linestyle="", **ring)
    values = [v for v in best.values(reading) if math.isfinite(v)]
    if len(values) > 1:
        i = within(seeds_interval(values), 1.0)
        axis.plot([i.low, i.high], [y, y], color=shade, linewidth=3, alpha=0.45, solid_capstyle="round")
    axis.plot(values, [y] * len(values), marker=style.marker(arm.method), color=shade, linestyle="")
    if values:
        return f"{arm.label} {number(mean_of(values))}"
    return f"{arm.label} {'never gets there' if reading == KEPT else 'lost it'}"


def show(arms: Arms) -> Any:
    """The figure with its caption."""
    new = any(arm.fresh for arm in arms.values())
    dots = (
        "Dots: fresh seeds of the arm's best setting, with a 95 % interval; rings: means of each rate that"
        " was tried, on the seeds that choose. A shape a method."
        if new
        else (
            "Dots: seeds of the arm's best setting, with a 95 % interval; rings: means of its other settings."
        )
    )
    fig, alt = figure(arms)
    return style.show(
        fig,
        alt,
        "Left: what is kept (mean of retain and world questions) when forget questions first come down to"
        f" a tenth; more is better. Right: distance to the twin at the run's end; less is better. {dots}",
    )
