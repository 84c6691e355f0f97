"""Two arms of an ablation beside each other, as claims compare them: what they keep, and the distance."""

from __future__ import annotations

from study.report import arms


def beside(found: arms.Arms, a: str, b: str) -> str:
    """What two arms keep and how far they end from the twin, with the intervals of the differences."""
    return f"{a} against {b}: " + "; ".join(arms.compared(found, a, b, r) for r in (arms.KEPT, arms.DISTANCE))


def verdicts(found: arms.Arms, a: str, b: str) -> set[str]:
    """Whether the first arm does better than the second, by either reading."""
    return {arms.better(found, a, b, r) for r in (arms.KEPT, arms.DISTANCE)}
