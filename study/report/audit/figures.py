"""Figures of the audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import lume
from study.readings import quantities
from study.readings.quantities import LADDER
from study.readings.twin import extent
from study.report import style
from study.report.audit.reward import finals, gaps, mean_of, methods_of, placed
from study.report.audit.rows import DESTROYED, Published, Row, Study, break_even, destroyed, forgotten
from study.report.audit.wording import bullets, count_word, range_of
from study.report.words import percent, say


def scatter(study: Study) -> tuple[Any, str]:
    """Official mean against gap closed, one point a model; the line is what destroyed models score."""
    fig, axis = plt.subplots(figsize=(8.2, 5.4))
    rungs = [v for m in DESTROYED for v in finals(study, m)]
    axis.axhspan(min(rungs), max(rungs), color=style.INK, alpha=0.25, linewidth=0, zorder=0)
    low = placed(study, finals)
    named = [*LADDER, *methods_of([*low["below"], *low["level"]])]
    words = []
    finite = {m: gaps(study, m) for m in study if all(math.isfinite(v) for v in gaps(study, m))}
    for m, x in finite.items():
        y = finals(study, m)
        axis.plot(extent(x), [mean_of(y)] * 2, color=style.colour(m), linewidth=1.4, alpha=0.5, zorder=2)
        axis.plot([mean_of(x)] * 2, extent(y), color=style.colour(m), linewidth=1.4, alpha=0.5, zorder=2)
        look = {
            "color": style.colour(m),
            "marker": style.marker(m),
            "markersize": 15 if m == "twin" else 8,
        }
        axis.plot([mean_of(x)], [mean_of(y)], linestyle="", zorder=3, **look)
        words.append(f"{style.label(m)} {mean_of(x):.2f} and {mean_of(y):.2f}")
    left = min([0.0, *(v for g in finite.values() for v in g)])
    right = 0.06 + max([0.3, *(extent(finite[m])[1] for m in named if m in finite and m != "twin")])
    last = {"left": math.inf, "right": math.inf}
    for y, x, m in sorted(
        ((mean_of(finals(study, m)), mean_of(finite[m]), m) for m in named if m in finite), reverse=True
    ):
        text = {"fontsize": 9.5, "annotation_clip": False, "style": "italic" if m in LADDER else "normal"}
        if m == "twin":
            axis.annotate(
                style.label(m),
                (x, y),
                xytext=(0, 10),
                textcoords="offset points",
                va="bottom",
                ha="right",
                **text,
            )
            continue
        to = "left" if x < 0.06 else "right"  # names in two columns, none closer than a line to the one above
        last[to] = min(y, last[to] - 0.038, min(rungs) - 0.03 if to == "right" else math.inf)
        line = {"arrowstyle": "-", "color": style.colour(m), "linewidth": 0.8, "alpha": 0.7, "shrinkB": 5}
        spot = (left - 0.1 if to == "left" else right, last[to])
        axis.annotate(
            style.label(m),
            (x, y),
            xytext=spot,
            va="center",
            ha="right" if to == "left" else "left",
            arrowprops=line,
            **text,
        )
    axis.text(
        1.04, max(rungs) + 0.008, "destroyed models", ha="right", va="bottom", fontsize=9.5, style="italic"
    )
    axis.set(
        xlim=(left - 0.5, 1.05),
        ylim=(min(0.15, *(v - 0.05 for v in last.values())), 1.02),
        ylabel="official final score",
        xlabel="gap closed: 1 is the retrained twin, 0 as far from it as the untouched target",
    )
    axis.set_xticks([v for v in np.arange(-1, 1.01, 0.25) if v >= left - 0.01])
    alt = (
        f"Scatter plot on {study['target'][0].spec.testbed}: gap closed and official final score of each"
        f" model. Destroyed models score {min(rungs):.2f} to {max(rungs):.2f}. "
    )
    return fig, alt + "; ".join(words) + "."


def algebra(data: Published, studies: Sequence[Study]) -> Any:
    """What follows from the formula: the price of destruction, the break-even, and what a twin would get."""
    m = data.untouched["mmlu"]
    a = break_even(m)
    large, small = data.of("7B"), data.of("1B")
    eligible = [r for r in data.of("7B", "eligible") if r.below]
    blind = [r for r in large if r.mia == 0]
    idle = lume.final_score(0.0, 0.0, m)
    lines = [
        (
            f"With a task aggregate of 0 and a MIA score of 1 the mean is $(1 + m)/3$: {destroyed():.3f}"
            f" at chance, {destroyed(m):.3f} if the untouched 7B model's MMLU of {m} were kept. A"
            " submission beats it at its own MMLU only if aggregate and MIA score sum to more than 1."
            f" {_below(large)} of the {len(large)} 7B submissions do not, among them {len(eligible)} of the"
            f" {len(data.of('7B', 'eligible'))} eligible ones; of the {len(small)} rows of the 1B board"
            f" that we have, {_below(small)} do not."
        ),
        (
            f"{len([r for r in large if r.recomputed < destroyed()])} of {len(large)} at 7B and"
            f" {len([r for r in small if r.recomputed < destroyed()])} of {len(small)} at 1B score less"
            f" than a destroyed model at chance, {destroyed():.3f}."
        ),
        (
            f"A submission that keeps MMLU at {m} but that the attack still recognises (MIA score 0, as"
            f" {len(blind)} of {len(large)}) needs an aggregate of {a:.3f} to draw level. If it keeps all"
            " retain rows, six of the twelve scores are 1; it then has to forget"
            f" {percent(forgotten(a))} of the forget rows to be worth as much as a model that knows"
            " nothing."
        ),
    ]
    worth = {}
    for study in studies:
        task, mia = (
            mean_of(quantities.value(r, k) for r in study["twin"]) for k in ("task_aggregate", "mia_score")
        )
        worth[f"`{study['target'][0].spec.testbed}` ({task:.2f} and {mia:.2f})"] = lume.final_score(
            task, mia, m
        )
    over = sum(r.recomputed > min(worth.values()) for r in large)
    ways = [(destroyed() - idle) / (w - idle) for w in worth.values()]
    lines.append(
        "No twin of the 7B model was published. With the aggregate and the MIA score of the twin on"
        f" {' or '.join(worth)} and an untouched MMLU it would get"
        f" {' or '.join(f'{w:.2f}' for w in worth.values())};"
        f" {count_word(over, 'submission') if over else 'no submission'} at 7B scored more. From the"
        f" untouched model's {idle:.3f} to there, a destroyed model at chance has come {range_of(ways)} of"
        " the way. A what-if, not a measurement."
    )
    return say(bullets(lines))


def _below(rows: Sequence[Row]) -> str:
    return f"{sum(r.below for r in rows)}"
