"""Gone, or only hidden? Figures, tables and sentences about the suite ``stress``: relearning, rounding, other
prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from reprolib.metrics.resample import seeds_interval
from reprolib.probes.relearning import LR, STEPS
from reprolib.record import Record
from study.readings.quantities import LADDER
from study.readings.twin import enough
from study.report import style
from study.report.tables import Table, number
from study.report.words import listed, say

Study = Mapping[str, Sequence[Record]]
POINTS = (0, *STEPS)

# steps after which relearning is judged: the retain questions are then still there, so that the model is not
# just broken
EARLY = 10
CURVES = {"auc": ("recognised (AUC)", "-", "o"), "questions_em": ("answers' tokens known", "--", "s")}


def values(records: Sequence[Record], name: str) -> list[float]:
    """A metric by seed; NaN where a record does not have it, or has a null."""
    found = (r.metrics.get(name) for r in records)
    return [math.nan if v is None else float(v) for v in found]


def mean(records: Sequence[Record], name: str) -> float:
    own = values(records, name)
    return sum(own) / len(own)


def ranged(records: Sequence[Record], name: str) -> str:
    """Mean and the range over seeds, e.g. ``0.98 (0.96–0.99)``."""
    own = values(records, name)
    if any(math.isnan(v) for v in own):
        return "–"
    text = number(sum(own) / len(own))
    low, high = number(min(own)), number(max(own))
    return text if low == high else f'{text} <span class="interval">({low}–{high})</span>'


def methods_of(study: Study) -> list[str]:
    return [m for m in study if m not in LADDER]


def comes_back(study: Study, method: str, step: int = EARLY) -> list[float]:
    """By seed: how much further the attack's AUC on untaught documents rises in ``step`` steps than it does
    on the twin.
    """

    def rise(m: str) -> list[float]:
        ends = (values(study[m], f"relearning/part/{s}/auc") for s in (0, step))
        return [after - before for before, after in zip(*ends, strict=True)]

    return [a - b for a, b in zip(rise(method), rise("twin"), strict=True)]


def forgot(study: Study, core: Study, method: str) -> bool:
    """Whether the method brought the forget questions down to a tenth on every seed, which is when hiding is
    worth asking about.
    """
    return all(enough(v) for v in values(core[method], "forget/questions"))


STILL = 0.8  # AUC above which forget documents were recognised before any relearning


def answer(study: Study, core: Study) -> Any:
    """The page's answer: relearning, then rounding, then prompts, over the methods that had forgotten
    something.
    """
    asked = [m for m in methods_of(study) if forgot(study, core, m)]
    still = [m for m in asked if mean(study[m], "relearning/part/0/auc") > STILL]
    back = [m for m in asked if m not in still and min(comes_back(study, m)) > 0.1]
    clear = [m for m in asked if m not in (*still, *back)]
    words = {m: mean(study[m], f"relearning/part/{EARLY}/questions") for m in asked}
    order = sorted(asked, key=lambda m: -words[m])
    rounding = {
        m: max(mean(study[m], f"quantization/{p}/forget/questions") for p in ("int8", "nf4")) for m in asked
    }
    worst = max(rounding, key=rounding.get)
    leaks = {m: mean(study[m], "prompts/forget/any") for m in asked}
    most = sorted(asked, key=lambda m: -leaks[m])[:2]
    twin = {p: mean(study["twin"], f"relearning/part/{p}/auc") for p in (0, EARLY)}
    text = (
        f"Of {len(asked)} methods that brought the forget questions down to a tenth, **{len(back)} left"
        f" documents that become recognisable again**: after {EARLY} steps on a tenth of them, the loss"
        f" attack knows the other nine tenths, which it does not on the twin (AUC {twin[0]:.2f}, then"
        f" {twin[EARLY]:.2f}). These are {named(back)}."
        + (f" {named(still)} had never made them unrecognisable." if still else "")
        + (f" It does not on {named(clear)}." if clear else "")
        + " Being recognised is not being known: of the questions about documents that were not taught"
        " again, so many are then answered to the letter: "
        + ", ".join(f"{style.label(m)} {100 * words[m]:.0f} %" for m in order)
        + f" (twin {100 * mean(study['twin'], f'relearning/part/{EARLY}/questions'):.0f} %). Rounding to 8"
        f" or 4 bits brings nothing of note back: at most {100 * rounding[worst]:.0f} % of the forget"
        f" questions are answered ({style.label(worst)},"
        f" {100 * mean(core[worst], 'forget/questions'):.0f} % before). Asked in other ways, with"
        " samples and with the beginnings of answers, most leak from "
        + ", then ".join(f"{style.label(m)} ({100 * leaks[m]:.0f} % of the questions)" for m in most)
        + f"; from the twin {100 * mean(study['twin'], 'prompts/forget/any'):.0f} %."
    )
    n = len(study["twin"])
    return say(
        f"```{{admonition}} The answer\n:class: tip\n{text}\n\nMeans over {n} seed{'s' if n > 1 else ''}."
        f" Recognisable again: the AUC was at most {STILL:g} and rises by more than 0.1 further than the"
        " twin's, on every seed.\n```"
    )


def named(methods: Sequence[str]) -> str:
    return listed([style.label(m) for m in methods], most=20) if methods else "none"


def curves(study: Study) -> tuple[Any, str]:
    """A small panel a method: attack AUC and answer tokens known, on documents that were not taught, against
    steps of relearning.
    """
    methods = [m for m in study if m not in ("random", "always_eos", "twin")]
    columns = 3
    lines = -(-len(methods) // columns)
    fig, axes = plt.subplots(
        lines, columns, figsize=(8.8, 2.0 * lines + 0.6), sharex=True, sharey=True, squeeze=False
    )
    x = range(len(POINTS))
    words = []
    for axis, method in zip(axes.flat, methods, strict=False):
        said = []
        for key, (_, line, marker) in CURVES.items():
            for which, colour in (("twin", style.COLOURS["twin"]), (method, style.colour(method))):
                series = [values(study[which], f"relearning/part/{s}/{key}") for s in POINTS]
                middle = [sum(v) / len(v) for v in series]
                axis.fill_between(
                    x,
                    [min(v) for v in series],
                    [max(v) for v in series],
                    color=colour,
                    alpha=0.2,
                    linewidth=0,
                )
                axis.plot(x, middle, line, color=colour, marker=marker, markersize=4, linewidth=1.6)
                if which == method:
                    said.append(
                        f"{key.replace('_', ' ')} {middle[0]:.2f} to {middle[POINTS.index(EARLY)]:.2f}"
                    )
        axis.set_title(style.label(method), fontsize=10)
        axis.set(ylim=(-0.04, 1.04), yticks=[0, 0.5, 1], xticks=list(x))
        axis.set_xticklabels([str(s) for s in POINTS])
        words.append(f"{style.label(method)}: {', '.join(said)}")
    for axis in list(axes.flat)[len(methods) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("steps of training")
    for number_, axis in enumerate(axes.flat):  # the lowest visible panel of each column carries the steps
        if number_ + columns >= len(methods) > number_:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("steps of training")
    handles = [
        plt.Line2D([], [], color=style.INK, linestyle=line, marker=marker)
        for _, line, marker in CURVES.values()
    ]
    handles.append(plt.Line2D([], [], color=style.COLOURS["twin"], linewidth=4))
    fig.legend(
        handles,
        [*(t for t, _, _ in CURVES.values()), "the retrained twin"],
        loc="outside lower center",
        ncols=3,
    )
    return (
        fig,
        f"Line plots, one panel a method, from 0 to {EARLY} steps of relearning. " + "; ".join(words) + ".",
    )


def relearning(study: Study) -> Table:
    """Both curves at the start, after a few steps and at the end."""
    rows, data = [], []
    for m in ladder_first(study):
        cells = {"model": swatch(m)}
        for curve, key, title in (
            ("part", "auc", "AUC"),
            ("part", "questions_em", "answer tokens"),
            ("part", "questions", "questions"),
            ("benign", "questions_em", "answer tokens, other text"),
            ("part", "retain_questions", "retain q."),
        ):
            for step in (0, EARLY, STEPS[-1]):
                if key == "questions" and step == 0:
                    continue
                cells[f"{title}, {step}"] = ranged(study[m], f"relearning/{curve}/{step}/{key}")
        rows.append(cells)
        data.append(
            {"method": m}
            | {
                k.removeprefix("relearning/"): round(mean(study[m], k), 4)
                for k in sorted(study[m][0].metrics)
                if k.startswith("relearning/") and math.isfinite(mean(study[m], k))
            }
        )
    caption = (
        f"After 0, {EARLY} and {STEPS[-1]} steps (AdamW, learning rate {LR:g}) on a tenth of the forget"
        ' documents ("other text": on documents that no model has seen); what is asked are forget'
        " documents that were not taught. Means over seeds, and the range over seeds."
    )
    return filled(rows, data, caption, study)


def rounding(study: Study, core: Study) -> Table:
    """Readings in full precision, in 8 and in 4 bits."""
    rows, data = [], []
    for m in ladder_first(study):
        cells, plain = {"model": swatch(m)}, {"method": m}
        for name, title in (
            ("forget/questions", "forget q."),
            ("forget/em", "forget tokens"),
            ("attack/auc", "AUC"),
            ("retain/questions", "retain q."),
            ("world/accuracy", "world q."),
        ):
            for precision in ("fp32", "int8", "nf4"):
                source, key = (
                    (core[m], name) if precision == "fp32" else (study[m], f"quantization/{precision}/{name}")
                )
                cells[f"{title}, {precision}"] = ranged(source, key)
                plain[f"{name} {precision}"] = round(mean(source, key), 4)
        rows.append(cells)
        data.append(plain)
    caption = (
        "The core evaluation with weights in fp32, in 8 bits (LLM.int8) and in 4 (NF4). Means over seeds,"
        " and the range over seeds."
    )
    return filled(rows, data, caption, study)


ASKED = {
    "plain": "as trained",
    "few_shot": "after 3 examples",
    "prefix_25": "a quarter given",
    "prefix_50": "half given",
    "passage_50": "passage, half given",
    "leak@20": "1 of 20 samples",
    "any": "any of them",
}


def prompts(study: Study) -> Table:
    """Share of forget questions that come out, by how they are asked, beside the same for retain
    questions.
    """
    rows, data = [], []
    for m in ladder_first(study):
        cells, plain = {"model": swatch(m)}, {"method": m}
        for kind, title in ASKED.items():
            cells[title] = ranged(study[m], f"prompts/forget/{kind}")
            retain = mean(study[m], f"prompts/retain/{kind}")
            if math.isfinite(retain):
                cells[title] += f'<span class="interval">retain {number(retain)}</span>'
        for name in sorted(study[m][0].metrics):
            if name.startswith("prompts/"):
                plain[name.removeprefix("prompts/")] = round(mean(study[m], name), 4)
        rows.append(cells)
        data.append(plain)
    caption = (
        "Share of forget questions answered to the letter, by how they are asked; below it the same for"
        " retain questions, without which a 0 says nothing. Means over seeds, and the range over seeds."
    )
    return filled(rows, data, caption, study)


def ladder_first(study: Study) -> list[str]:
    return [m for m in LADDER if m in study] + methods_of(study)


def swatch(method: str) -> str:
    return f'<span class="swatch" style="background:{style.colour(method)}"></span>{style.label(method)}'


def filled(
    rows: Sequence[Mapping[str, str]], data: Sequence[Mapping[str, Any]], caption: str, study: Study
) -> Table:
    header = tuple(dict.fromkeys(k for r in rows for k in r))
    keys = tuple(dict.fromkeys(k for d in data for k in d))
    cells = tuple(tuple(r.get(h, "–") for h in header) for r in rows)
    table = Table(header, cells, caption, rule_after=sum(m in LADDER for m in study))
    return Table(
        table.header,
        table.rows,
        caption,
        None,
        table.rule_after,
        tuple({k: d.get(k, "") for k in keys} for d in data),
    )


def rise(study: Study) -> Table:
    """How much further the AUC rises in ten steps than the twin's: the finding in one column, with Student's
    t over seeds.
    """
    rows, data = [], []
    for m in sorted(methods_of(study), key=lambda m: -sum(comes_back(study, m))):
        i = seeds_interval(comes_back(study, m))
        rows.append(
            {
                "method": swatch(m),
                "AUC before": ranged(study[m], "relearning/part/0/auc"),
                f"AUC after {EARLY} steps": ranged(study[m], f"relearning/part/{EARLY}/auc"),
                "rise beyond the twin's": (
                    f'{i.estimate:+.2f} <span class="interval">[{i.low:+.2f}, {i.high:+.2f}]</span>'
                ),
            }
        )
        data.append(
            {"method": m, "rise": round(i.estimate, 4), "low": round(i.low, 4), "high": round(i.high, 4)}
        )
    caption = (
        f"Attack AUC on forget documents that were not taught, before and after {EARLY} steps on a tenth"
        " of the others; the rise minus the twin's, with a 95 % interval over seeds."
    )
    table = filled(rows, data, caption, {})
    return table
