"""The answer on the first page, and the tables and comparisons that pages share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from reprolib.metrics.resample import seeds_interval
from study.readings import quantities
from study.readings.quantities import LADDER, READINGS
from study.readings.trajectory import at_level
from study.readings.twin import (
    LEVEL,
    Study,
    bound,
    closed,
    distance,
    group,
    mean,
    ordered,
    overlap,
    ranking,
    spread,
    within,
)
from study.report.tables import Table, cell
from study.report.words import caveat, counted, label_of, model_line, names, percent, say


def answer(study: Study) -> Any:
    """The answer on the landing page: the first of the leaderboard, the method farthest from the twin, and a
    warning.
    """
    every = [m for m in study if m not in LADDER]
    methods = [m for m in every if not bound(m)]
    order = [m for m in ordered(study, methods) if math.isfinite(distance(study, m))]
    there = [m for m in ranking(study, order) if group(study, m) == "all"]
    best, worst = (there or order)[0], order[-1]
    own = spread(study, best)
    alike = [m for m in there or order if m != best and overlap(spread(study, m), own)]
    gate = f"end with at most {percent(LEVEL)} of the forget questions answered in every seed"
    among = f"{len(there)} {gate}. Among them, " if there else f"none {gate}. Still, "
    apart = (
        f" Its distance ({own[0]:.2f} to {own[1]:.2f} over seeds) overlaps with that of {names(alike)};"
        " what drawing documents anew adds is on the {doc}`yardsticks' page"
        " </results/notebooks/synthesis/yardsticks>`."
        if alike and own[0] < own[1]
        else ""
    )
    lines = [
        (
            f"Of {counted(every)} on `{study['twin'][0].spec.testbed}`, {among}**{label_of(best)}** comes"
            " closest to a model retrained without the forget set (the *twin*, in parentheses): it"
            f" {model_line(study, best)}.{apart}"
        ),
        *(
            [
                f"Farthest from the twin is {label_of(worst)}, at"
                f" {' to '.join(f'{v:.2f}' for v in spread(study, worst))}."
            ]
            if worst != best
            else []
        ),
        _official(study, methods),
    ]
    lost = [m for m in methods if m not in order]
    if lost:
        lines.append(f"Readings of {names(lost)} are not finite.")
    bullets = "\n".join(f"- {x}" for x in lines)
    end = f"{caveat(study, methods).strip()}\n\n{_instrument(study)}"
    return say("```{admonition} The answer\n:class: tip\n" + bullets + "\n\n" + end + "\n```")


def _official(study: Study, methods: Iterable[str]) -> str:
    """What the official score gives to random weights, beside what it gives to methods."""
    methods = list(methods)
    scores = {m: [r.metrics["lume/final"] or 0.0 for r in study[m]] for m in (*methods, "random")}
    beaten = [m for m in methods if max(scores[m]) < min(scores["random"])]
    level = [m for m in methods if m not in beaten and min(scores[m]) <= max(scores["random"])]
    said = f"On the official score, random weights already score {mean(study['random'], 'lume/final'):.2f}"
    parts = [f"more than {names(beaten)} in every seed"] if beaten else []
    parts += [f"about as much as {names(level)}"] if level else []
    return (
        said
        + ("".join(f", {p}" for p in parts) if parts else "; every method here scores more")
        + ": its parts must be read one by one."
    )


def _instrument(study: Study) -> str:
    """What the numbers were measured with, and what they are therefore about."""
    first = study["target"][0]
    size, corpus = first.cost.get("parameters"), first.spec.testbed.partition("/")[2]
    model = f"a {size / 1e6:.1f}-million-parameter model" if size else "a small model"
    rows = "synthetic people" if corpus == "synthetic" else f"rows of the corpus {corpus}"
    n = len(study["target"])
    return (
        f"The instrument: {model} trained from scratch, {rows}, {n} seed{'s' if n > 1 else ''}, one"
        " setting a method. The order is about mechanisms at this scale, not about 7B models."
    )


def distances(study: Study) -> Any:
    """Every model's distance to the twin, and the gap closed."""
    rows = ""
    for m in ordered(study, study):
        low, high = spread(study, m)
        gap = list(closed(study, m).values())
        rows += (
            f"| {label_of(m)} | {distance(study, m):.2f} | {low:.2f} to {high:.2f} |"
            f" {percent(sum(gap) / len(gap))} |\n"
        )
    return say(
        "| model | distance to the twin | single seeds | gap closed |\n| --- | ---: | ---: | ---: |\n"
        + rows
        + "\nDistance: mean absolute difference to the twin of the same seed over forget questions, forget"
        " passages, attack AUC, retain questions and world questions, each from 0 to 1. Gap closed: 1 -"
        " distance / the target's distance. It weighs the five alike, which is a choice; the figure"
        " shows them apart. Untouched and destroyed models lie far from the twin on opposite sides, and"
        " this distance does not tell them apart."
    )


def gaps(study: Study) -> Any:
    """Share of the way from the target to the twin, (m - target) / (twin - target), reading by reading: for
    what should be forgotten; mean over seeds with a t interval."""
    readings = ("forget_questions", "forget_passages", "attack_auc")
    rows = []
    for m in study:
        if m in ("target", "twin"):
            continue
        values = {
            n: [v for v in quantities.gap(study[m], study["target"], study["twin"], n) if v == v]
            for n in readings
        }
        rows.append(
            {"model": label_of(m)}
            | {READINGS[n].label: cell(seeds_interval(v)) if v else "–" for n, v in values.items()}
        )
    return Table.of(
        rows,
        caption=(
            "Share of the way, reading by reading: 0 is the untouched target, 1 the twin of the same seed,"
            " more is beyond the twin. 95 % t intervals over seeds."
        ),
    )


def matched(study: Study, level: float = LEVEL) -> Any:
    """What is kept at the moment when forget questions have come down to ``level``, read off the trajectory
    by interpolation.
    """
    kept = {
        "retain/questions": "Retain questions ↑",
        "world/accuracy": "World questions ↑",
        "retain/kl": "KL to target ↓",
        "attack/auc": "Attack AUC → twin",
    }
    rows = []
    for m in study:
        if m in LADDER:
            continue
        found = [x for x in (at_level(r, level) for r in study[m]) if x is not None]
        row = {"method": label_of(m), "seeds that get there": f"{len(found)} of {len(study[m])}"}
        for k, name in kept.items():
            values = [x[k] for x in found if math.isfinite(x[k])]
            high = None if k == "retain/kl" else 1.0
            row[name] = cell(within(seeds_interval(values), high)) if values else "–"
        row["Retain questions at the end ↑"] = cell(
            within(seeds_interval([r.metrics["retain/questions"] for r in study[m]]), 1.0)
        )
        rows.append(row)
    return Table.of(
        rows,
        caption=(
            f"When {percent(level)} is first reached: where the run first answers no more than that of the"
            " forget questions. Linear interpolation between about ten logged points: where nearly all is"
            " lost between two of them, the value is the line's and was not observed. Means over the"
            " seeds that get there, 95 % t intervals. The last column is the run's end: a method may tear"
            " down first and repair later."
        ),
    )


def compare(real: Study, synthetic: Study) -> Any:
    """Whether the methods come out in the same order on two testbeds."""
    methods = [m for m in real if m not in LADDER]
    lines = []
    for study in (real, synthetic):
        order = sorted(methods, key=lambda m: distance(study, m))
        ranges = {m: spread(study, m) for m in order}
        shown = ", ".join(
            f"{label_of(m)} {distance(study, m):.2f} ({ranges[m][0]:.2f} to {ranges[m][1]:.2f})"
            for m in order
        )
        alike = [label_of(m) for m in order[1:] if overlap(ranges[m], ranges[order[0]])]
        first = f"{label_of(order[0])} is closest" + (
            f", not told apart from {' and '.join(alike)}" if alike else " in every seed"
        )
        lines.append(f"`{study['target'][0].spec.testbed}`: {first}. Distances: {shown}.")
    attack = ", ".join(
        f"{label_of(m)} {mean(real[m], 'attack/auc'):.2f} ({mean(synthetic[m], 'attack/auc'):.2f})"
        for m in methods
    )
    lines.append(
        f"Attack AUC on the first, and in parentheses on the second: {attack}; the twin's is"
        f" {mean(real['twin'], 'attack/auc'):.2f} ({mean(synthetic['twin'], 'attack/auc'):.2f})."
    )
    bullets = "\n".join(f"- {x}" for x in lines)
    return say(
        f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\nDistance to the twin, and the range over"
        f" seeds; methods whose ranges overlap are not told apart.{caveat(real, methods)}\n```"
    )


def ranged(values: list[float]) -> str:
    if any(v != v for v in values):
        return ""
    text = f"{sum(values) / len(values):.2f}"
    return text + (f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else "")
