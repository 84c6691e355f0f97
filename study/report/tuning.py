"""The search for options, as its page and the method pages show it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from study.grid import Search
from study.readings.twin import HEADS, LEVEL, READINGS
from study.report.tables import Table, number
from study.report.words import counted, label_of, listed, names, percent, say
from study.search import check, gather


def search(testbed: str, seed: int, methods: Iterable[str] | None = None) -> Any:
    """The recorded search for each method's options (None: of every method that has trials): the rule's
    choice by method.
    """
    import dataclasses

    found = Search.load()
    check(found, next(iter(found.trials)) if found else "")
    found = dataclasses.replace(found, testbed=testbed, seed=seed)
    return {m: gather(found, m) for m in (found.trials if methods is None else methods)}


def search_answer(choices: Mapping[str, Any]) -> Any:
    """For how many methods the recipe's defaults are what the rule picks, what the search cost, and how
    uneven its budget is.
    """
    picked = {m: c for m, c in choices.items() if c.pick is not None}
    differ = [m for m, c in picked.items() if not c.pick.default]
    short = [m for m, c in picked.items() if not c.enough]
    nothing = [m for m in choices if m not in picked]
    gone, failed = (
        {m: sum(t.status == s for t in c.trials) for m, c in choices.items()} for s in ("diverged", "failed")
    )
    counts = {m: len(c.trials) for m, c in choices.items()}
    few, many = min(counts.values()), max(counts.values())
    budget = f"{few}" if few == many else f"{few} to {many}"
    seconds = {m: sum(t.seconds for t in c.trials if math.isfinite(t.seconds)) for m, c in choices.items()}
    spent = sorted(v for v in seconds.values() if v > 0)
    lines = [
        f"{sum(counts.values())} trials of {counted(choices)}, {budget} a method."
        + (
            f" Unlearning them took {spent[0]:.0f} to {spent[-1]:.0f} s a method: neither the number of"
            " trials nor their cost is matched."
            if spent
            else ""
        )
    ]
    weak = sorted(picked, key=lambda m: picked[m].pick.readings["distance"])
    if few < many and len(weak) > 1:
        half = {"nearer": weak[: len(weak) // 2], "farther": weak[len(weak) // 2 :]}
        average = {k: sum(counts[m] for m in part) / len(part) for k, part in half.items()}
        lines.append(
            f"Extra trials went to weak methods: {average['farther']:.1f} a method on average in the half"
            f" whose picks lie farther from the twin, {average['nearer']:.1f} in the half nearer to it."
            if average["farther"] > average["nearer"]
            else (
                "The half of the methods whose picks lie farther from the twin had"
                f" {average['farther']:.1f} trials on average, the other {average['nearer']:.1f}."
            )
        )
    if not differ and not nothing:
        lines.append("The recipe's default is the rule's choice for every method.")
    else:
        lines.append(
            f"The recipe's default is the rule's choice for {len(choices) - len(differ) - len(nothing)} of"
            f" {len(choices)}."
        )
    if differ:
        lines.append(f"It is not for {names(differ, 12)}.")
    if short:
        lines.append(
            f"No trial of {names(short, 12)} ends with at most {percent(LEVEL)} of the forget questions"
            " answered: there the rule takes the one that answers fewest."
        )
    if nothing:
        lines.append(f"No trial of {names(nothing, 12)} gave finite readings.")
    if any(gone.values()):
        lines.append(f"Diverged trials: {listed([f'{label_of(m)} {n}' for m, n in gone.items() if n], 12)}.")
    if any(failed.values()):
        lines.append(f"Failed trials: {listed([f'{label_of(m)} {n}' for m, n in failed.items() if n], 12)}.")
    bullets = "\n".join(f"- {x}" for x in lines)
    return say(
        f"```{{admonition}} In short\n:class: tip\n{bullets}\n\nOne seed: small differences mean"
        " nothing.\n```"
    )


def search_summary(choices: Mapping[str, Any]) -> Any:
    """One row a method: its budget, what the rule picks and why, and the recipe's default."""
    rows = []
    for m, c in choices.items():
        seconds = [t.seconds for t in c.trials if t.seconds == t.seconds]
        default = c.default.label if c.default else "not tried"
        rows.append(
            {
                "method": label_of(m),
                "trials": f"{len(c.trials)}",
                "unlearning, s": f"{sum(seconds):.0f}",
                "the rule picks": c.pick.label if c.pick else "–",
                "forgets enough": "yes" if c.enough else "no",
                "because": c.reason,
                "recipe's default": default,
                "the same": "–" if c.pick is None else "yes" if c.pick.default else "no",
            }
        )
    return Table.of(
        rows,
        caption=(
            "The search, method by method: number of trials and seconds spent on them, the rule's choice,"
            " and what the recipe has."
        ),
    )


def search_trials(choices: Mapping[str, Any]) -> Any:
    """Every trial, one table a method; the rule's pick and the recipe's default are marked."""
    from IPython.display import HTML

    tables = []
    for m, c in choices.items():
        rows = []
        for t in c.trials:
            marks = [word for word, here in (("picked", t is c.pick), ("default", t.default)) if here]
            state = [t.status] if t.status != "done" else []
            values = [t.readings.get(k, math.nan) for k in READINGS]
            rows.append(
                {
                    "trial": t.label,
                    "mark": ", ".join(marks + state),
                    "forgets enough": "–" if not t.eligible else "yes" if t.enough else "no",
                    **dict(
                        zip(
                            HEADS,
                            (
                                *(number(v) for v in values[:-1]),
                                f"{values[-1]:.3f}" if math.isfinite(values[-1]) else "–",
                            ),
                            strict=True,
                        )
                    ),
                }
            )
        twin = next((t.twin for t in c.trials if t.twin), {})
        if twin:
            rows.append(
                {
                    "trial": "the twin of this seed",
                    "mark": "",
                    "forgets enough": "",
                    **dict(zip(HEADS, (number(twin[k]) for k in READINGS), strict=True)),
                }
            )
        reasons = "".join(f" {t.label}: {t.reason}." for t in c.trials if t.reason)
        tables.append(Table.of(rows, caption=f"{label_of(m)}.{reasons}")._repr_html_())
    return HTML("\n".join(tables))


def trials(method: str, testbed: str) -> Any:
    """The recorded trials of one method's options, or a sentence where there are none."""
    found = Search.load()
    if found is None or method not in found.trials or testbed != found.testbed:
        where = f" on `{testbed}`" if found and method in found.trials else ""
        return say(f"No search was made{where}: the options are the recipe's defaults.")
    return search_trials({method: gather(found, method, compute=False)})
