"""The page of metrics judged by whole models."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import CARDS
from reprolib.metrics.resample import Interval
from study.report import style
from study.report.tables import Table, number
from study.report.words import listed, say
from study.report.yardsticks.judging import BUILT, CONTROL, MEASURE, ROLES, Verdict, left_open
from study.report.yardsticks.relearnt import Lasting
from study.report.yardsticks.tables import cell_of, plain_text

# --- the second page ----------------------------------------------------------------------------------------


def _effect(x: float) -> str:
    if not math.isfinite(x):
        return "–" if math.isnan(x) else "∞" if x > 0 else "-∞"
    return f"{x:.1f}" if abs(x) < 99.95 else f"{x:,.0f}"


def _effect_cell(i: Interval) -> str:
    if math.isnan(i.estimate) or math.isinf(i.estimate):
        return _effect(i.estimate)
    return f'{_effect(i.estimate)} <span class="interval">[{_effect(i.low)}, {_effect(i.high)}]</span>'


def metric_table(found: Sequence[Verdict], suites: Sequence[str] = ("core", "wide")) -> Table:
    """All metrics of some suites by what they are, the most faithful first; the CSV has every suite."""
    rows, groups = [], {}
    for role, title in ROLES.items():
        own = [v for v in found if v.role == role and v.suite in suites]
        if own:
            groups[len(rows)] = title
        for v in own:
            rows.append(
                (
                    f"<code>{html.escape(v.metric)}</code>",
                    v.suite,
                    number(v.knows),
                    number(v.does_not),
                    cell_of(v.faithfulness),
                    _effect_cell(v.effect),
                    cell_of(v.single),
                )
            )
    data = tuple(
        {
            "metric": v.metric,
            "suite": v.suite,
            "role": v.role,
            "models_a_side": v.models,
            "target": plain_text(v.knows),
            "twin": plain_text(v.does_not),
            "faithfulness": plain_text(v.faithfulness.estimate),
            "faithfulness_low": plain_text(v.faithfulness.low),
            "faithfulness_high": plain_text(v.faithfulness.high),
            "effect": (v.effect.estimate if math.isinf(v.effect.estimate) else plain_text(v.effect.estimate)),
            "effect_low": plain_text(v.effect.low),
            "effect_high": plain_text(v.effect.high),
            "one_document": plain_text(v.single.estimate),
            "one_document_low": plain_text(v.single.low),
            "one_document_high": plain_text(v.single.high),
        }
        for v in found
    )
    sizes = sorted({v.models for v in found})
    many = f"{sizes[-1]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    caption = (
        f"{many} target{'s' if sizes[-1] > 1 else ''} and as many twins. Faithfulness: share of pairs of a"
        " target and a twin in which the target's value says that more is remembered. Effect: mean"
        " difference between target and twin of one seed over the standard deviation of these"
        " differences; ∞ where they do not differ from seed to seed. One document: the same share, for"
        " the value of one document instead of all. Brackets: 95 % intervals from resampling models,"
        " seeds, and documents."
    )
    help_ = {
        "faithfulness ↑": CARDS["faithfulness"].trap,
        "effect ↑": CARDS["standardised_difference"].trap,
    }
    header = ("metric", "suite", "targets", "twins", "faithfulness ↑", "effect ↑", "one document ↑")
    return Table(header, tuple(rows), caption, help_, data=data, groups=groups)


HUES = {MEASURE: ("#0072B2", "o"), CONTROL: ("#E69F00", "D"), BUILT: (style.INK, "s")}

_MINOR = (
    "*_text",
    "*_arithmetic",
    "*auc_matched",
    "*distinct_1",
    "*distinct_3",
    "lume/forget/*",
    "lume/retain/*",
    "*_floored",
    "*/tpr",
    "*/sc/em",
    "*/qa/em",
)


def shown(found: Sequence[Verdict]) -> list[Verdict]:
    """What the figure shows: core and wide metrics with a direction, without variants and single cells of
    others.
    """
    return [
        v
        for v in found
        if v.suite != "stress" and v.role in HUES and not any(fnmatchcase(v.metric, p) for p in _MINOR)
    ]


def chart(found: Sequence[Verdict]) -> tuple[Any, str]:
    """Faithfulness on the left, effect size on the right (logarithmic), one row a metric."""
    own = shown(found)
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(8.8, 1.8 + 0.245 * len(own)), sharey=True, width_ratios=(1, 1.25)
    )
    finite = [abs(v.effect.estimate) for v in own if math.isfinite(v.effect.estimate)]
    top = 4 * max([10.0, *finite])
    words = []
    for y, v in enumerate(own):
        colour, mark = HUES[v.role]
        look = {"color": colour, "marker": mark, "linestyle": "", "markersize": 6, "zorder": 3}
        f, e = v.faithfulness, v.effect
        if math.isfinite(f.low):
            left.plot([f.low, f.high], [y, y], color=colour, linewidth=2.4, alpha=0.5, solid_capstyle="butt")
        left.plot([f.estimate], [y], clip_on=False, **look)
        if math.isinf(e.estimate) and e.estimate > 0:
            right.plot([top], [y], clip_on=False, **look | {"marker": ">"})
        elif math.isfinite(e.estimate):
            if not math.isnan(e.low):
                right.plot(
                    [_clip(e.low, top), _clip(e.high, top)],
                    [y, y],
                    color=colour,
                    linewidth=2.4,
                    alpha=0.5,
                    solid_capstyle="butt",
                )
            right.plot([e.estimate], [y], **look)
        words.append(f"{v.metric} {number(f.estimate)}, effect {_effect(e.estimate)}")
    left.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    left.set(
        xlim=(-0.03, 1.03),
        xticks=[0, 0.5, 1],
        xlabel="faithfulness (AUC over models)",
        ylim=(len(own) - 0.5, -0.5),
    )
    left.set_yticks(range(len(own)), [v.metric for v in own], fontsize=8.5)
    right.axvline(0, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    right.set_xscale("symlog", linthresh=1.0)
    ticks = [t for t in (-100, -10, -1, 0, 1, 10, 100, 1000) if t <= top]
    low = min([-1.0, *(v.effect.estimate for v in own if math.isfinite(v.effect.estimate))])
    right.set_xticks(
        [t for t in ticks if t >= 1.3 * low], [str(t).replace("-", "−") for t in ticks if t >= 1.3 * low]
    )
    right.minorticks_off()
    right.set(xlim=(1.3 * low, 1.15 * top), xlabel="effect (standard deviations)")
    for axis in (left, right):
        axis.grid(axis="y", alpha=0.25)
    handles = [plt.Line2D([], [], color=c, marker=m, linestyle="") for c, m in HUES.values()]
    names = ["reads forget rows", "control: reads none", "built on target or twin"]
    if any(math.isinf(v.effect.estimate) for v in own):
        handles.append(plt.Line2D([], [], color=style.INK, marker=">", linestyle=""))
        names.append("no spread (∞)")
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)
    return (
        fig,
        "Dot chart of faithfulness and effect size of metrics, the most faithful first. "
        + "; ".join(words)
        + ".",
    )


def _clip(x: float, top: float) -> float:
    return min(max(x, -top), top)


def metric_answer(found: Sequence[Verdict], kept: Sequence[Lasting]) -> Any:
    """The second page in sentences."""
    some = [v for v in found if v.suite in ("core", "wide")]
    measures, controls = ([v for v in some if v.role == role] for role in (MEASURE, CONTROL))
    n = max((v.models for v in some), default=0)
    lines = []
    if n < 2:
        lines.append(
            "With one target and one twin, a metric can only be right or wrong: nothing is said about how"
            " well it tells them apart."
        )
    apart, also = [v for v in measures if v.apart], [v for v in controls if v.apart]
    share = (
        "All"
        if len(apart) == len(measures)
        else "Nearly all"
        if len(apart) > 0.8 * len(measures)
        else f"{len(apart)} of {len(measures)}"
    )
    lines.append(
        f"**{share}{', and that says little' if also else ''}.** {len(apart)} of {len(measures)} metrics"
        f" of the forget rows order every one of {n} targets above every twin; {_worst(measures)}. But"
        f" {len(also)} of {len(controls)} controls, which read no forget row, separate them as"
        f" well{_examples(also)}: a twin has been trained on less text, and that shows elsewhere too."
        " Models that know everything by heart against models that know nothing are too easy a test: it"
        " shows that two models differ, not that a metric sees what was forgotten."
    )
    if n >= 2:
        lines.append(_effect_line(measures, also, n))
    lines.append(_single_line(measures, controls))
    if any(math.isfinite(x.overall) for x in kept):
        lines.append(_lasting_line(kept))
    bullets = "\n".join(f"- {x}" for x in lines if x)
    end = (
        f"An AUC of 1 over {n} pairs of models leaves room: up to {100 * left_open(n):.0f}\u202f% of"
        " further pairs could come out the wrong way round (one-sided, 95 %)."
        if n
        else ""
    )
    return say(f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\n{end}\n```")


def _worst(measures: Sequence[Verdict]) -> str:
    rest = sorted((v for v in measures if not v.apart), key=lambda v: v.faithfulness.estimate)
    if not rest:
        return "none fails"
    return "the others are " + listed([f"`{v.metric}` ({v.faithfulness.estimate:.2f})" for v in rest], 6)


def _examples(of: Sequence[Verdict]) -> str:
    plain = [v for v in of if not any(fnmatchcase(v.metric, p) for p in _MINOR)]
    return f", {listed([f'`{v.metric}`' for v in plain[:4]])} among them" if plain else ""


def _effect_line(measures: Sequence[Verdict], also: Sequence[Verdict], n: int) -> str:
    apart = [v for v in measures if v.apart]
    sizes = [v for v in apart if math.isfinite(v.effect.estimate)]
    if not sizes:
        return ""
    big, small = (f(sizes, key=lambda v: v.effect.estimate) for f in (max, min))
    middle = _middle(apart)
    text = (
        f"The size of the effect goes on where the AUC stops. Among those {len(apart)} it runs from"
        f" {small.effect.estimate:.1f} (`{small.metric}`) to {_effect(big.effect.estimate)} standard"
        f" deviations (`{big.metric}`), with a median of {_effect(middle)}"
    )
    flat = sum(math.isinf(v.effect.estimate) for v in apart)
    if flat:
        text += f"; {flat} ha{'s' if flat == 1 else 've'} no spread at all, so that it is infinite"
    text += (
        f". Of the controls that separate as well, the median is {_effect(_middle(also))}." if also else "."
    )
    return (
        text + " A large effect can come from saturation, though: where every target is at the end of the"
        " scale, hardly any spread is left to divide by."
    )


def _middle(of: Sequence[Verdict]) -> float:
    """Median size of the effects."""
    sizes = [abs(v.effect.estimate) for v in of if not math.isnan(v.effect.estimate)]
    return float(np.median(sizes)) if sizes else math.nan


def _single_line(measures: Sequence[Verdict], controls: Sequence[Verdict]) -> str:
    one = [v for v in measures if math.isfinite(v.single.estimate)]
    if not one:
        return ""
    best = [v for v in one if v.single.estimate >= 0.995]
    rest = sorted((v for v in one if v.single.estimate < 0.995), key=lambda v: v.single.estimate)
    text = (
        f"On one document instead of all, {len(best)} of {len(one)} still tell a target from a twin almost"
        " always (AUC of 0.995 or more)"
    )
    text += (
        f"; the weakest are {listed([f'`{v.metric}` ({v.single.estimate:.2f})' for v in rest[:4]])}."
        if rest
        else "."
    )
    other = [v for v in controls if math.isfinite(v.single.estimate)]
    high = max(other, key=lambda v: v.single.estimate, default=None)
    return text + (
        f" Of the controls, the strongest reaches {high.single.estimate:.2f} (`{high.metric}`)."
        if high
        else ""
    )


def _lasting_line(kept: Sequence[Lasting]) -> str:
    rated = [x for x in kept if math.isfinite(x.overall)]
    parts = [f"{x.name} {x.overall:.2f} (Q {x.q.estimate:.2f}, R {x.r.estimate:.2f})" for x in rated]
    return f"What lasts under rounding and relearning, with faithfulness as one score: {listed(parts)}."
