"""Variants in sentences: whether one does better than another, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reprolib.errors import SpecError
from study.report.arms.variants import (
    DISTANCE,
    GUESS,
    KEPT,
    Arm,
    Arms,
    apart,
    better,
    difference,
    differences,
    mean_of,
)
from study.report.words import listed, say

WIDE = 0.25  # of a reading from 0 to 1: seeds that lie further apart are shown by their range
SHORT = {KEPT: "what is kept", DISTANCE: "the distance to the twin"}
VERDICTS = {"yes": "yes", "no": "no, the reverse", "open": "not told apart", "none": "not to be compared"}


def _shown(values: Sequence[float], reading: str) -> str:
    m = mean_of(values)
    return "–" if math.isnan(m) else f"{100 * m:.0f}\u202f%" if reading == KEPT else f"{m:.2f}"


def _told(arm: Arm, reading: str) -> str:
    """An arm's mean, the range of its seeds where they lie far apart, and the learning rate at which it
    stands.
    """
    setting = arm.shown(reading)
    finite = [v for v in setting.values(reading) if math.isfinite(v)]
    apart = (
        f" ({_shown([min(finite)], reading)} to {_shown([max(finite)], reading)})"
        if finite and max(finite) - min(finite) > WIDE
        else ""
    )
    at = f" at {setting.rate:g}" if setting.rate is not None and finite else ""
    return (GUESS if reading == KEPT and setting.guessed else "") + _shown(finite, reading) + apart + at


def answer(
    arms: Arms,
    questions: Sequence[Sequence[str]],
    more: Sequence[str] = (),
    lead: str = "",
    first: Sequence[str] = (),
) -> Any:
    """The answer's box: (question, a, b), each asking whether arm a does better than arm b, by what is kept
    and by the distance.

    ``first`` and ``more``: lines before and after; ``lead``: a first sentence in the place of the count of
    what is told apart.
    """
    if not questions:
        raise SpecError("questions must hold at least one (question, arm, other arm), got none.")
    pairs = [(a, b) for _, a, b in questions]
    sure = apart(arms, pairs)
    lines = [_asked(arms, question, a, b, sure) for question, a, b in questions]
    remain = _remain(arms, sure)
    opening = lead or _opening(arms, pairs, remain)
    note = _note(arms, pairs, remain if lead else "")
    bullets = "\n".join(f"- {x}" for x in (*first, *lines, *more) if x)
    return say("```{admonition} The answer\n:class: tip\n" + opening + f"\n\n{bullets}\n\n{note}\n```")


def _asked(arms: Arms, question: str, a: str, b: str, sure: Sequence[tuple[str, str, str]]) -> str:
    """A question with its answer by both readings, in one word where they agree, and the numbers behind
    it.
    """
    own = {reading: better(arms, a, b, reading) for reading in (KEPT, DISTANCE)}
    words = {r: _verdict(v, (a, b, r) in sure or (b, a, r) in sure) for r, v in own.items()}
    said = {w: " and ".join(SHORT[r] for r in words if words[r] == w) for w in dict.fromkeys(words.values())}
    word = words[KEPT] if len(said) == 1 else "; ".join(f"{w} by {how}" for w, how in said.items())
    numbers = "; ".join(compared(arms, a, b, r) for r in own)
    return f"{question} **{word[0].upper()}{word[1:]}.** {numbers[0].upper()}{numbers[1:]}."


def _remain(arms: Arms, sure: Sequence[tuple[str, str, str]]) -> str:
    """Which arms are better than which once the number of comparisons is corrected for."""

    def short(x: str, y: str, reading: str) -> str:
        guessed = reading == KEPT and any(arms[k].shown(KEPT).guessed for k in (x, y))
        return SHORT[reading] + (f" ({GUESS.strip()})" if guessed else "")

    left = {
        (x, y): " and ".join(short(*names, r) for *names, r in sure if names == [x, y]) for x, y, _ in sure
    }
    return (
        listed([f"*{x}* is better than *{y}* by {how}" for (x, y), how in left.items()])
        or "none is told apart"
    )


def _opening(arms: Arms, pairs: Sequence[tuple[str, str]], remain: str) -> str:
    """How many comparisons are told apart, and which arm ends nearest to the twin."""
    verdicts = [{better(arms, a, b, reading) for reading in (KEPT, DISTANCE)} for a, b in pairs]
    made = [v for v in verdicts if v != {"none"}]
    neither = sum(not {"yes", "no"} & v for v in made)
    if not made:
        counted = "Nothing can be compared"
    elif neither:
        counted = (
            f"{neither} of {len(made)} comparisons {'is' if neither == 1 else 'are'} told apart by neither"
            " reading"
        )
    else:
        counted = "Every comparison is told apart by at least one reading"
    nearest = max(arms.values(), key=lambda arm: arm.shown(DISTANCE).place(DISTANCE))
    return (
        f"**{counted}{f'; corrected for their number (Holm), {remain}' if made else ''}.** Nearest to the"
        f" twin, of the arms that forget in as many seeds as any, is **{nearest.label}**"
        f" ({_shown(nearest.values(DISTANCE), DISTANCE)})."
    )


def _note(arms: Arms, pairs: Sequence[tuple[str, str]], remain: str) -> str:
    """How the numbers are to be read; ``remain``: what is left once corrected, where it was not said yet."""
    n = max(len(arm.shown(KEPT).records) for arm in arms.values())
    tests = sum(len(differences(arms, a, b, r)) > 1 for a, b in pairs for r in SHORT)
    chose = (
        max(len(s.records) for arm in arms.values() for s in arm.settings)
        if any(arm.fresh for arm in arms.values())
        else 0
    )
    return (
        "Kept: retain and world questions where a tenth of the forget questions is left (≈: in most seeds"
        " a straight line's guess, over a leap in the log); distance: to the twin, at the end. The first"
        " number is the first arm's of the question, in parentheses the range of its seeds where they lie"
        f" more than {100 * WIDE:.0f} points apart; each reading has its own best rate, and a difference"
        " is taken over the seeds that have the reading in both arms. Told apart: the 95 % t interval of"
        " the difference, seed by seed, leaves out 0; not told apart does not mean equal, the interval"
        f" says what cannot be excluded. Of these {tests} intervals one in twenty would leave out 0 if"
        " there were no difference anywhere"
        + (f": corrected for that (Holm), {remain}" if remain else "")
        + f". {n} {'fresh ' if chose else ''}seed{'s' if n > 1 else ''}"
        + (", too few to tell anything apart" if n < 3 else "")
        + (f"; settings were chosen on {chose} others" if chose else "")
        + "."
    )


def _verdict(found: str, sure: bool) -> str:
    return VERDICTS[found] + ("" if sure or found not in ("yes", "no") else " (not once corrected)")


def compared(arms: Arms, a: str, b: str, reading: str) -> str:
    """Both arms' means by a reading, and their difference with its interval."""
    x, y = (_told(arms[k], reading) for k in (a, b))
    found, scale = difference(arms, a, b, reading), 100 if reading == KEPT else 1

    def shown(v: float) -> str:
        digits = 0 if reading == KEPT else 2
        # an end that rounds to 0 would not say on which side of it the interval ends
        digits = next((d for d in (digits, digits + 1, digits + 2) if round(scale * v, d)), digits)
        text = f"{scale * v:+.{digits}f}"
        return text.lstrip("+-") if not float(text) else text.replace("-", "\u2212")

    n, most = found.n_seeds if found else 0, max(len(arms[k].values(reading)) for k in (a, b))
    few = f" over {n} of {most} seeds" if n < most else ""
    gap = (
        f" ({shown(found.estimate)}{' points' if reading == KEPT else ''} [{shown(found.low)},"
        f" {shown(found.high)}]{few})"
        if found
        else ""
    )
    return f"{'kept' if reading == KEPT else 'distance'} {x} against {y}{gap}"
