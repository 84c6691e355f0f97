"""Methods against yardsticks."""

from __future__ import annotations

import html
import math
from fnmatch import fnmatchcase
from typing import Any

from reprolib.metrics import CARDS
from reprolib.metrics.resample import Interval
from study.readings.quantities import LADDER
from study.report import style
from study.report.tables import Table
from study.report.yardsticks.definitions import (
    BENCHES,
    YARDSTICKS,
    Study,
    collapsed,
    interval,
    ordered,
    twins_of,
    value,
)


def _named(study: Study, method: str) -> str:
    """The method's name in a row, marked where its models collapsed or diverged."""
    n, notes = len(study[method]), []
    for k, word in (
        (collapsed(study, method), "collapsed"),
        (sum(r.status == "diverged" for r in study[method]), "diverged"),
    ):
        if k:
            notes.append(word if k == n else f"{word} in {k} of {n} seeds")
    swatch = f'<span class="swatch" style="background:{style.colour(method)}"></span>'
    return (
        swatch
        + html.escape(style.label(method))
        + (f' <span class="diverged">({"; ".join(notes)})</span>' if notes else "")
    )


def cell_of(i: Interval, digits: int = 2) -> str:
    def show(x: float) -> str:
        return (
            "–"
            if not math.isfinite(x)
            else f"{round(x, digits) + 0.0:.{digits}f}"
            if abs(x) < 1e4
            else f"{x:.1e}"
        )

    if not math.isfinite(i.estimate):
        return "–"
    if not (math.isfinite(i.low) and math.isfinite(i.high)):
        return show(i.estimate)
    return f'{show(i.estimate)} <span class="interval">[{show(i.low)}, {show(i.high)}]</span>'


def table(core: Study, wide: Study, bench: str, only: str = "*") -> Table:
    """Models against the readings of one benchmark (or those whose name fits ``only``), each a mean over
    seeds with its 95 % interval; the sanity ladder on top."""
    chosen = [
        y
        for y in YARDSTICKS.values()
        if y.bench == bench and fnmatchcase(y.name, only) and any(y.name in r.metrics for r in wide["twin"])
    ]
    order, rows, data = ordered(core, wide), [], []
    for m in order:
        found = {y.name: interval(wide, m, y.name) for y in chosen}
        cells = [
            cell_of(found[y.name], 0 if y.name == "muse/privleak" else 1 if y.name == "tofu/log10_p" else 2)
            for y in chosen
        ]
        n, gone = len(wide[m]), collapsed(wide, m)
        plain: dict[str, Any] = {"method": m, "seeds": n, "collapsed": gone}
        for name, i in found.items():
            plain |= {
                name + end: round(v, 4) if math.isfinite(v) else ""
                for end, v in (("", i.estimate), ("_low", i.low), ("_high", i.high))
            }
        rows.append((_named(wide, m), *cells, *([f"{gone} of {n}"] if bench == "fluency" else [])))
        data.append(plain)
    heads = [y.head for y in chosen] + (["Collapsed ↓"] if bench == "fluency" else [])
    help_ = {y.head: y.help for y in chosen} | {"Collapsed ↓": CARDS["collapsed"].trap}
    return Table(
        ("model", *heads),
        tuple(rows),
        _caption(wide, bench),
        help_,
        sum(m in LADDER for m in order),
        tuple(data),
    )


def _caption(wide: Study, bench: str) -> str:
    seeds = sorted({len(r) for r in wide.values()})
    many = (
        f"Means over {seeds[0]} seeds"
        if seeds[0] == seeds[-1] > 1
        else "One seed"
        if seeds[-1] == 1
        else f"Means over {seeds[0]} to {seeds[-1]} seeds"
    )
    drawn = "documents" if seeds[-1] == 1 else "seeds and documents"
    text = (
        f"{BENCHES[bench]}. {many}; brackets: 95 % intervals from resampling {drawn}, in columns marked"
        " (t) Student's t over seeds."
    )
    first = wide["twin"][0].metrics
    if bench == "tofu" and "tofu/forget_rows" in first:
        text += (
            f" The Kolmogorov-Smirnov test compares {first['tofu/forget_rows']:.0f} truth ratios of forget"
            f" questions with {first['tofu/forget_rows_twin']:.0f} of the twin; log10 p hangs on that"
            " number."
        )
    if bench == "tofu" and "tofu/utility_parts" in first:
        text += (
            f" The utility is partial: the harmonic mean of {first['tofu/utility_parts']:.0f} numbers"
            " instead of TOFU's 9, of retain and world questions."
        )
    if bench == "attacks" and "attacks/length_auc" in first:
        text += (
            " TPR: share of the forget passages found where at most 1 % of the others are flagged. The"
            f" length of a passage alone, in tokens, has an AUC of {first['attacks/length_auc']:.2f}."
        )
    if bench == "fluency":
        text += (
            " Perplexity is that of the text under the target: geometric means over seeds, t of the"
            " logarithm; none where nothing is written."
        )
    return text


# --- do the yardsticks see the same order? ------------------------------------------------------------------


def off(study: Study, method: str, name: str) -> float:
    """How bad a method is by a yardstick, mean over seeds: |method - twin of the same seed| where the twin is
    best (of logarithms, for perplexities), else the value itself, turned so that less is better. Infinite
    where a seed has no value.
    """
    y, twins = YARDSTICKS[name], twins_of(study)
    out = []
    for r in study[method]:
        own, goal = value(r, name), value(twins[r.spec.seed], name)
        if y.log:
            own, goal = (math.log(v) if v > 0 else math.nan for v in (own, goal))
        out.append({"twin": abs(own - goal), "lower": own, "higher": -own}[y.facts.better])
    mean = sum(out) / len(out)
    return mean if math.isfinite(mean) else math.inf


def methods_of(wide: Study) -> list[str]:
    return [m for m in wide if m not in LADDER]


def p_text(p: float) -> str:
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def plain_text(x: float) -> float | str:
    return round(x, 4) if math.isfinite(x) else ""


def whole(x: float) -> str:
    return "–" if not math.isfinite(x) else f"{x:.0f}" if x == int(x) else f"{x:.1f}"
