"""Words around numbers: lists, percentages, sentences about a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from IPython.display import Markdown

from reprolib.recipes import recipe
from study.readings.quantities import LADDER
from study.readings.twin import Study, bound, mean, mean_rouge


def ratio(r: Mapping[str, float]) -> str:
    """A ratio with its interval.

    >>> ratio({"median": 12.34, "low": 11.9, "high": 12.8})
    '12.3 [11.9, 12.8]'
    >>> ratio({"median": 0.512, "low": 0.5, "high": 0.53})
    '0.51 [0.50, 0.53]'
    """
    return "{} [{}, {}]".format(
        *(f"{r[k]:.1f}" if r["median"] >= 10 else f"{r[k]:.2f}" for k in ("median", "low", "high"))
    )


class Said(Markdown):
    """Words in the place of a table: shown as Markdown, and without numbers for a CSV."""

    def csv(self, name: str) -> Said:
        """As :meth:`study.report.tables.Table.csv`, but there is nothing to write: an older file stays as it
        is.
        """
        return self


def say(text: str) -> Said:
    """A sentence with computed numbers, as Markdown."""
    return Said(text)


def label_of(method: str) -> str:
    return recipe(method).card.label


def percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.0f}\u202f%"  # a space that does not break


def names(methods: Iterable[str], most: int = 6) -> str:
    """Labels as a list in a sentence; beyond ``most`` of them, the number of the others."""
    return listed([label_of(m) for m in methods], most)


def listed(parts: list[str], most: int = 6) -> str:
    """Parts as a list in a sentence, with semicolons where a part has a comma of its own."""
    if len(parts) > most + 1:
        parts = [*parts[:most], f"{len(parts) - most} more"]
    if len(parts) < 2:
        return "".join(parts)
    comma = any("," in p for p in parts)
    return ("; " if comma else ", ").join(parts[:-1]) + ("; and " if comma else " and ") + parts[-1]


def model_line(study: Study, method: str) -> str:
    """What a model does, with the twin's value in parentheses."""
    r, t = study[method], study["twin"]

    def pair(metric: str) -> str:
        return f"{percent(mean(r, metric))} ({percent(mean(t, metric))})"

    return (
        f"answers {pair('forget/questions')} of the forget, {pair('retain/questions')} of the retain and"
        f" {pair('world/accuracy')} of the world questions, continues forget passages with ROUGE-L"
        f" {mean_rouge(r):.2f} ({mean_rouge(t):.2f}), and leaves the loss attack an AUC of"
        f" {mean(r, 'attack/auc'):.2f} ({mean(t, 'attack/auc'):.2f})"
    )


def counted(methods: Iterable[str]) -> str:
    """How many methods there are, with bounds counted apart, e.g. "39 methods and 2 bounds"."""
    methods = [m for m in methods if m not in LADDER]
    bounds = sum(bound(m) for m in methods)
    n = len(methods) - bounds
    return f"{n} method{'' if n == 1 else 's'}" + (
        f" and {bounds} bound{'' if bounds == 1 else 's'}" if bounds else ""
    )


def caveat(study: Study, methods: Iterable[str]) -> str:
    methods = list(methods)
    n = min(len(study[m]) for m in methods)
    lost = {m: sum(r.status == "diverged" for r in study[m]) for m in methods}
    gone = [f"{label_of(m)} ({k} of {len(study[m])} seeds)" for m, k in lost.items() if k]
    text = f" Means over {n} seed{'s' if n > 1 else ''}." + (
        " One seed says nothing about spread." if n == 1 else ""
    )
    if len(gone) > 6:
        return text + f" Diverged in some seed: {len(gone)} of {len(methods)} methods."
    return text + (f" Diverged: {listed(gone)}." if gone else "")
