"""The leaderboard in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from study.readings.twin import LEVEL, noise, overlap
from study.report.leaderboard.entries import Entry, Study
from study.report.words import counted, listed, names, percent, say


def answer(entries: Sequence[Entry], study: Study, level: float = LEVEL) -> Any:
    """The leaderboard in sentences: who leads and from whom it is not told apart, what chance alone does, and
    who falls behind.
    """
    methods = [e for e in entries if e.counts]
    seeds = min((e.seeds for e in methods), default=0)
    lines = [
        *_leader(entries, seeds, percent(level)),
        *_chance(methods, noise(study)),
        *_behind(entries),
        *_lost(methods),
    ]
    bullets = "\n".join(f"- {x}" for x in lines)
    end = (
        f"{seeds} seeds a method, one setting each."
        if seeds > 1
        else "One seed says nothing about spread, so no method is told apart from another."
    )
    return say(f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\n{end}\n```")


def _leader(entries: Sequence[Entry], seeds: int, level: str) -> list[str]:
    """Who closes most of the gap, and who may do so as well."""
    there = [e for e in entries if e.counts and e.group == "all"]
    ranked = [e for e in there if e.gap]
    every = counted(e.method for e in entries)
    if not ranked:
        return [
            f"Of {every}, no method ends with at most {level} of the forget"
            " questions answered in every seed and with finite readings."
        ]
    best, twin = ranked[0], next(e for e in entries if e.method == "twin")
    lines = [
        f"Of {every}, {len(there)}"
        f" method{'s' if len(there) != 1 else ''} end{'' if len(there) != 1 else 's'}"
        f" with at most {level} of the forget questions answered in every seed. Among them,"
        f" **{best.label}** leads: it closes {best.gap.estimate:.2f} of the gap, at a distance of"
        f" {best.distance:.2f}{_over(best)}. {_plainly(best, twin)}"
    ]
    if seeds > 1:
        alike = [e.method for e in ranked[1:] if overlap(e.extent, best.extent)]
        lines.append(
            "Not told apart from it, because the ranges of the distance over seeds overlap:"
            f" {names(alike, 12)}."
            if alike
            else "The range of its distance over seeds overlaps with that of no other method."
        )
    return lines


def _chance(methods: Sequence[Entry], floor: float) -> list[str]:
    """How far twins of different seeds lie from each other, and who is nearer than that."""
    if not math.isfinite(floor):
        return []
    below = [e.method for e in methods if e.distance < floor]
    return [
        f"Noise floor: twins of different seeds lie up to {floor:.2f} from each other. Distances below"
        " that mean nothing, and neither do differences in distance that are small beside it."
        f" {names(below) if below else 'No method'} {'lie' if len(below) > 1 else 'lies'}"
        " below it."
    ]


def _behind(entries: Sequence[Entry]) -> list[str]:
    """Who does not forget in every seed, who is farther from the twin than models that need no method, and
    what the bounds close.
    """
    methods, lines = [e for e in entries if e.counts], []
    for g, text in (("some", "Only some seeds end at that level"), ("none", "No seed ends at that level")):
        own = [e for e in methods if e.group == g]
        part = [f"{e.label} ({e.reached} of {e.seeds})" if g == "some" else e.label for e in own]
        if part:
            lines.append(f"{text}: {listed(part, 12)}.")
    worse = [e.method for e in methods if e.gap and e.gap.estimate < 0]
    if worse:
        lines.append(f"Farther from the twin than the untouched target: {names(worse, 12)}.")
    by = {e.method: e for e in entries}
    for rung in (by.get(name) for name in ("random", "always_eos")):
        if not (rung and rung.gap):
            continue
        lower = [e.method for e in methods if e.gap and e.gap.estimate < rung.gap.estimate]
        if lower:
            lines.append(
                f"Below {rung.label.lower()}, which closes {rung.gap.estimate:.2f}: {names(lower, 12)}."
            )
    bounds = [f"{e.label} {e.gap.estimate:.2f}" for e in entries if e.family == "bound" and e.gap]
    if bounds:
        lines.append(f"The bounds, which no one would use as a method, close: {listed(bounds)}.")
    return lines


def _lost(methods: Sequence[Entry]) -> list[str]:
    """Whose runs were lost, in part or as a whole."""
    lines = []
    lost = [e.method for e in methods if not e.gap]
    if lost:
        lines.append(f"Gap closed not finite: {names(lost, 12)}.")
    gone = [e.method for e in methods if e.diverged]
    if gone:
        lines.append(f"Diverged in some seed: {names(gone)}.")
    return lines


def _plainly(e: Entry, twin: Entry) -> str:
    """The five readings of a model, the twin's in parentheses."""
    a, b = e.readings, twin.readings

    def share(k: str) -> str:
        return f"{percent(a[k])} ({percent(b[k])})"

    return (
        f"It answers {share('forget_questions')} of the forget, {share('retain_questions')} of the retain"
        f" and {share('world_questions')} of the world questions, continues forget passages with ROUGE-L"
        f" {a['forget_passages']:.2f} ({b['forget_passages']:.2f}) and leaves the attack an AUC of"
        f" {a['attack_auc']:.2f} ({b['attack_auc']:.2f}); in parentheses, the twin."
    )


def _over(e: Entry) -> str:
    low, high = e.extent
    return f" ({low:.2f} to {high:.2f} over seeds)" if e.seeds > 1 else ""
