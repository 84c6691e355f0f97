"""One request to forget after another: figures, table and sentence of that ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import muse
from reprolib.record import Record
from study.readings.twin import between
from study.report import style
from study.report.tables import Table, number
from study.report.words import say

Study = Mapping[str, Mapping[int, Sequence[Record]]]  # method -> requests -> records

CURVES = {  # what is followed from request to request
    "forget/questions": ("all forget questions", "#D55E00", "o"),
    "retain/questions": ("retain questions", "#009E73", "s"),
    "world/accuracy": ("world questions", "#0072B2", "^"),
    "attack/auc": ("attack AUC", "#7B5EA7", "D"),
}


def after_each(record: Record, name: str) -> list[float]:
    """A measure before the first request, and at the end of each."""
    ends: dict[int, float] = {}
    for p in record.trajectory:
        ends[p.get("request", 0)] = float(p[name])
    return [float(record.trajectory[0][name]), *(ends[k] for k in sorted(ends))]


def of_request(record: Record, which: int) -> float:
    """Share of the questions of one request that are still answered at the end (-1: the last request)."""
    numbers = record.rows["request"]
    which = max(n for n in numbers if n is not None) if which < 0 else which
    hits = [
        s
        for n, k, s in zip(numbers, record.rows["kind"], record.rows["score"], strict=True)
        if n == which and k == "qa"
    ]
    return sum(hits) / len(hits)


def _ranged(own: Sequence[float]) -> str:
    text, low, high = number(sum(own) / len(own)), number(min(own)), number(max(own))
    return text if low == high else f'{text} <span class="interval">({low}–{high})</span>'


def distances(records: Sequence[Record], twins: Sequence[Record]) -> list[float]:
    """Distance to the twin of the same seed, by seed."""
    by_seed = {t.spec.seed: t for t in twins}
    return [between(r, by_seed[r.spec.seed]) for r in records]


def answer(study: Study, twins: Sequence[Record]) -> Any:
    """Does the distance to the twin grow with the number of requests?"""
    lines = []
    for method, by_number in study.items():
        numbers = sorted(by_number)
        ends = {n: distances(by_number[n], twins) for n in numbers}
        drops = [
            muse.sustainability(
                after_each(r, "retain/questions")[1:], after_each(r, "retain/questions")[0]
            ).worst_drop
            for r in by_number[numbers[-1]]
        ]
        growth = [b - a for a, b in zip(ends[numbers[0]], ends[numbers[-1]], strict=True)]
        verdict, than = (
            ("farther from the twin on every seed", "than")
            if min(growth) > 0.01
            else (
                ("nearer to the twin on every seed", "than")
                if max(growth) < -0.01
                else ("about as far from the twin", "as")
            )
        )
        lines.append(
            f"**{style.label(method)}** ends {verdict} when the same documents come in {numbers[-1]}"
            f" requests (distance {np.mean(ends[numbers[-1]]):.2f}) {than} when they come at once"
            f" ({np.mean(ends[numbers[0]]):.2f}); at its lowest after a request it answers"
            f" {100 * np.mean(drops):.0f} points fewer of the retain questions than before the first."
        )
    n = len(twins)
    return say(
        "```{admonition} The answer\n:class: tip\n"
        + " ".join(lines)
        + f"\n\nMeans over {n} seed{'s' if n > 1 else ''}.\n```"
    )


def figure(study: Study, twins: Sequence[Record]) -> tuple[Any, str]:
    """A panel a method: what is known after each of the most requests."""
    columns = 2
    lines = -(-len(study) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(8.6, 2.7 * lines + 0.6), sharey=True, squeeze=False)
    words = []
    for axis, (method, by_number) in zip(axes.flat, study.items(), strict=False):
        most = max(by_number)
        x = range(most + 1)
        for name, (title, shade, mark) in CURVES.items():
            runs = np.array([after_each(r, name) for r in by_number[most]])
            axis.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=shade, alpha=0.18, linewidth=0)
            axis.plot(x, runs.mean(axis=0), color=shade, marker=mark, label=title)
            words.append(
                f"{style.label(method)}, {title}: {runs[:, 0].mean():.2f} to {runs[:, -1].mean():.2f}"
            )
        axis.axhline(
            np.mean([t.metrics["attack/auc"] for t in twins]),
            color=style.INK,
            linestyle="--",
            linewidth=1.2,
            label="attack AUC of the twin",
        )
        axis.set(title=style.label(method), ylim=(-0.04, 1.06), xticks=list(x), xlabel="requests carried out")
    for axis in list(axes.flat)[len(study) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("share, AUC")
    handles, names = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=3)
    return fig, "Line plots over requests. " + "; ".join(words) + "."


def table(study: Study, twins: Sequence[Record]) -> Table:
    """Every number of requests: the end state, and whether early requests stayed forgotten."""
    rows = []
    for method, by_number in study.items():
        for n, records in sorted(by_number.items()):
            worst = (
                [
                    muse.sustainability(c[1:], c[0]).worst_drop
                    for c in (after_each(r, "retain/questions") for r in records)
                ]
                if n > 1
                else []
            )
            rows.append(
                {
                    "method": style.label(method),
                    "requests": n,
                    "distance to twin": _ranged(distances(records, twins)),
                    "forget q.": _ranged([r.metrics["forget/questions"] for r in records]),
                    "first request's": _ranged([of_request(r, 0) for r in records]) if n > 1 else "–",
                    "last request's": _ranged([of_request(r, -1) for r in records]) if n > 1 else "–",
                    "AUC": _ranged([r.metrics["attack/auc"] for r in records]),
                    "retain q.": _ranged([r.metrics["retain/questions"] for r in records]),
                    "worst drop of retain q.": _ranged(worst) if worst else "–",
                    "world q.": _ranged([r.metrics["world/accuracy"] for r in records]),
                    "steps": f"{np.mean([r.cost['steps'] for r in records]):.0f}",
                }
            )
    return Table.of(
        rows,
        caption=(
            "At the end of all requests: means over seeds, and the range over seeds. Worst drop: over the"
            " requests, against the target."
        ),
    )
