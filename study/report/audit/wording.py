"""Words that several parts of the audit use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def count_word(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def range_of(values: Sequence[float]) -> str:
    low, high = (f"{100 * v:.0f}" for v in (min(values), max(values)))
    return f"{low} to {high}\u202f%" if low != high else f"{low}\u202f%"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {x}" for x in lines)
