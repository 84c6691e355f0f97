"""A pretrained model that was taught real rows: the study's readings, and the organisers' score with MMLU as
its utility.

Questions of MMLU are the same for all models, so that two models are compared question by question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from reprolib.metrics.resample import Interval, paired_difference
from reprolib.record import Record
from reprolib.testbeds.beds import testbed
from reprolib.testbeds.presets import EVERY
from study.readings import gate
from study.readings.gate import seeds
from study.readings.quantities import LADDER
from study.readings.twin import LEVEL, Study, distance, mean, ranking, reached
from study.report import style
from study.report.arms.variants import DISTANCE, Arm, Arms, Setting
from study.report.arms.variants import records as records_of
from study.report.tables import Table, cell, number
from study.report.words import listed, names, percent, say

PARTS = {
    "official/task_aggregate": "task aggregate ↑",
    "official/mia_auc": "attack AUC (lists)",
    "official/mia": "MIA score ↑",
    "official/mmlu": "MMLU ↑",
    "official/final": "final ↑",
}


def nearest(arms: Arms) -> dict[str, tuple[Arm, Setting, int]]:
    """Method -> the arm and the setting that end nearest to the twin on these very seeds, of how many
    settings of the method.
    """
    found: dict[str, list[tuple[Arm, Setting]]] = {}
    for arm in arms.values():
        found.setdefault(arm.method, []).extend((arm, s) for s in arm.settings)
    best = {m: Arm("", m, tuple(s for _, s in own)).best(DISTANCE) for m, own in found.items()}
    return {m: (next(arm for arm, s in own if s is best[m]), best[m], len(own)) for m, own in found.items()}


def ended(arms: Arms, twin: Record) -> list[tuple[float, Record]]:
    """Of all runs, those that end at a tenth of the forget questions or less: retain questions as a share of
    the twin's, ascending.
    """
    there = (
        r
        for r in records_of(arms)
        if (left := r.metrics["forget/questions"]) is not None and left <= LEVEL + 1e-9
    )
    return sorted(
        ((r.metrics["retain/questions"] / twin.metrics["retain/questions"], r) for r in there),
        key=lambda x: x[0],
    )


def gather(
    arms: Arms, ladder: Sequence[str], testbed: str, seed: int | None = None
) -> dict[str, list[Record]]:
    """Records by method: the ladder, then each method at the setting that ends :func:`nearest` to the
    twin.
    """
    study = {m: [gate.record(testbed=testbed, method=m, seed=s) for s in seeds(seed)] for m in ladder}
    return study | {m: list(setting.records) for m, (_, setting, _) in nearest(arms).items()}


def hits(record: Record) -> np.ndarray:
    """1 for each MMLU question that the model answers right, 0 for the others."""
    return np.array([int(h) for h in record.provenance["mmlu"]["hits"]], float)


def world(record: Record, before: Record) -> Interval:
    """Share of world questions answered by one model minus that of another, with an interval from resampling
    questions.
    """
    a, b = (
        np.array([s for s, g in zip(r.rows["score"], r.rows["group"], strict=True) if g == "world"], float)
        for r in (record, before)
    )
    return paired_difference({"hit": a}, {"hit": b}, np.arange(len(a)), lambda c: c["hit"].mean())


def change(record: Record, before: Record) -> Interval:
    """MMLU of one model minus that of another, with an interval from resampling questions, within their
    subjects unless all were asked.
    """
    a, b = hits(record), hits(before)
    number = np.arange(len(a))
    each = testbed(record.spec.testbed).preset.mmlu
    # as many questions of each, one subject after another
    subject = None if each == EVERY else number // each
    return paired_difference({"hit": a}, {"hit": b}, number, lambda c: c["hit"].mean(), strata=subject)


def official(study: Study) -> Table:
    """The leaderboard's numbers of each model, MMLU with its interval over questions, and what has changed
    since the target.
    """
    rows, data = [], []
    for method, records in study.items():
        values = {k: mean(records, k) for k in PARTS}
        r = records[0]
        asked = Interval(
            values["official/mmlu"],
            *(mean(records, f"mmlu/accuracy_questions_{end}") for end in ("low", "high")),
            0,
        )
        own = change(r, study["target"][0]) if method != "target" and len(records) == 1 else None
        swatch = f'<span class="swatch" style="background:{style.colour(method)}"></span>'
        shown = {
            head: cell(asked) if k == "official/mmlu" else number(values[k]) for k, head in PARTS.items()
        }
        rows.append((swatch + style.label(method), *shown.values(), cell(own) if own else "–"))
        data.append(
            {"method": method}
            | {k.partition("/")[2]: round(v, 4) for k, v in values.items()}
            | {
                "mmlu_low": round(asked.low, 4),
                "mmlu_high": round(asked.high, 4),
                "mmlu_change": round(own.estimate, 4) if own else "",
                "mmlu_change_low": round(own.low, 4) if own else "",
                "mmlu_change_high": round(own.high, 4) if own else "",
            }
        )
    first = study["target"][0]
    note = first.provenance["mmlu"]["questions"]
    tips = {
        "task aggregate ↑": "Harmonic mean of 12 scores; 0 as soon as one of them is.",
        "attack AUC (lists)": (
            "The loss attack on the organisers' own lists of members and non-members; 0.5 is best."
        ),
        "MIA score ↑": "1 - 2 |AUC - 0.5|.",
        "final ↑": "Mean of task aggregate, MIA score and MMLU.",
        "MMLU since the target": "Question by question, with a 95 % interval.",
    }
    which = "all questions" if note == "all" else note
    caption = (
        f"The organisers' score. MMLU: {which}, {int(first.metrics['mmlu/scored'])} in all, 5 worked"
        " examples; chance is 0.25. Brackets: 95 % over questions"
    )
    return Table(
        ("model", *PARTS.values(), "MMLU since the target"),
        tuple(rows),
        caption,
        tips,
        sum(m in LADDER for m in study),
        tuple(data),
    )


def _where(tried: tuple[Arm, Setting, int]) -> str:
    """Which setting is shown: its learning rate, and its arm where that says more than the method."""
    arm, setting, _ = tried
    own = arm.label.partition(", ")[2]
    return (f" at {setting.rate:g}" if setting.rate is not None else "") + (f", {own}" if own else "")


def _points(i: Interval) -> str:
    # whole numbers: no minus before a zero
    estimate, low, high = (f"{round(100 * v) + 0:+d}" for v in i[:3])
    return f"{estimate} points [{low}, {high}]".replace("-", "\u2212")


def answer(study: Study, beside: Study, arms: Arms) -> Any:
    """Which model ends closest to its twin, whether the small models come in the same order, and what the
    score and MMLU say.
    """
    methods = [m for m in study if m not in LADDER]
    order = ranking(study, methods)
    lines = [
        *_distances(study, order, nearest(arms)),
        *_several(arms),
        _small(order, beside, ranking(beside, methods)),
        *_score(study, methods),
        _lost(study, order),
    ]
    n = len(study["target"])
    rows = study["target"][0].rows
    documents = len({d for d, g in zip(rows["document"], rows["group"], strict=True) if g == "forget"})
    lines.append(
        f"{'One seed' if n == 1 else f'{n} seeds'}, {documents} forget documents: differences between"
        " methods that end close to each other say nothing."
    )
    return say(
        f"```{{admonition}} The answer\n:class: tip\n**{_headline(study, arms)}.**\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n```"
    )


def _headline(study: Study, arms: Arms) -> str:
    """How many runs forget, and what these keep."""
    there = [kept for kept, _ in ended(arms, study["twin"][0])]
    if not there:
        return "No run ends at a tenth of the forget questions or less"
    return (
        f"{len(there)} of {len(records_of(arms))} runs end at a tenth of the forget questions or less"
        f", and with {100 * there[0]:.0f} to {100 * there[-1]:.0f}\u202f% of the retain questions that the"
        " twin answers"
    )


def _distances(
    study: Study, order: Sequence[str], tried: Mapping[str, tuple[Arm, Setting, int]]
) -> list[str]:
    """How far from the twin the methods end that forget, the others, and the target."""
    deep = [m for m in order if reached(study, m) == len(study[m])]
    left = [m for m in order if m not in deep]

    def at(methods: Sequence[str]) -> str:
        return listed([f"{style.label(m)} ({distance(study, m):.2f}{_where(tried[m])})" for m in methods])

    lines = []
    if deep:
        lines.append(f"Nearest to the twin, of the methods whose run shown is one of these: {at(deep)}.")
    if left:
        lines.append(f"{'The other methods' if deep else 'All methods'} left more; they stand at {at(left)}.")
    lines.append(f"The untouched target is at {distance(study, 'target'):.2f}.")
    return lines


def _several(arms: Arms) -> list[str]:
    """Which methods had several settings, and how far apart these end."""
    tried = nearest(arms)
    several = {
        m: [sum(s.distance) / len(s.distance) for a in arms.values() if a.method == m for s in a.settings]
        for m, (_, _, n) in tried.items()
        if n > 1
    }
    if not several:
        return []
    shown = [f"{len(d)} of {style.label(m)} (from {min(d):.2f} to {max(d):.2f})" for m, d in several.items()]
    return [
        "Of several settings the nearest is shown, of those that left a tenth or less if there are"
        f" any, chosen on these very numbers: {listed(shown)}."
        + (" Other methods had one setting each." if len(several) < len(tried) else "")
    ]


def _small(order: Sequence[str], beside: Study, small: Sequence[str]) -> str:
    """Whether the small models put the methods in the same order, pair by pair."""
    pairs = list(combinations(order, 2))
    same = sum(small.index(a) < small.index(b) for a, b in pairs)
    where = (
        "in the order that the leaderboard's rule gives them on"
        f" {next(iter(beside.values()))[0].spec.testbed} ({names(small)})"
    )
    if len(pairs) == 1:
        return f"The one pair of methods {'comes' if same else 'does not come'} {where}."
    return f"Of {len(pairs)} pairs of methods, {same} come {where}."


def _score(study: Study, methods: Sequence[str]) -> list[str]:
    """To which model the organisers' score gives most, and which methods a silent model beats by it."""
    finals = {m: mean(r, "official/final") for m, r in study.items()}
    best = max(finals, key=lambda m: (math.isfinite(finals[m]), finals[m]))
    others = (
        f"the untouched target {finals['target']:.2f}"
        if best == "twin"
        else f"the twin {finals['twin']:.2f} and the untouched target {finals['target']:.2f}"
    )
    lines = [f"The organisers' score gives {style.label(best)} most, {finals[best]:.2f}; {others}."]
    beaten = [m for m in methods if finals[m] < finals.get("always_eos", -math.inf)]
    if beaten:
        which = "every method" if len(beaten) == len(methods) else names(beaten)
        lines.append(
            f"A model that answers nothing but end-of-text scores {finals['always_eos']:.2f}, more than"
            f" {which} here."
        )
    return lines


def _lost(study: Study, order: Sequence[str]) -> str:
    """Which methods answer less of MMLU and of the world questions than the target does."""
    target = study["target"][0]
    moved = {m: change(r[0], target) for m, r in study.items() if m in order}
    lost = [f"{style.label(m)} ({100 * i.estimate:+.0f} points)" for m, i in moved.items() if i.high < 0]
    others = {m: world(study[m][0], target) for m in order}
    worse = [f"{style.label(m)} ({_points(i)})" for m, i in others.items() if i.high < 0]
    lost_world = (
        f"fewer than the target ({percent(mean(study['target'], 'world/accuracy'))}) are answered by"
        f" {listed(worse)}"
        if worse
        else "no method is told apart from the target"
    )
    blind = target.metrics["mmlu/accuracy_questions_low"] <= target.metrics["mmlu/chance"]
    return (
        f"On MMLU the target answers {percent(mean(study['target'], 'official/mmlu'))}"
        + (", which guessing does too, so that it cannot show what a method destroys; " if blind else "; ")
        + (f"worse than it are {listed(lost)}." if lost else "no method is told apart from it.")
        + (f" The world questions can: {lost_world}." if blind else "")
    )
