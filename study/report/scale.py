"""Model sizes: the same methods and the same arms on testbeds that differ in size only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from reprolib.record import Record
from study.readings import gate
from study.readings.gate import seeds
from study.readings.twin import by_seed, distance, extent, mean, ordered, overlap
from study.report import arms as _arms
from study.report import style
from study.report.arms.variants import Arm, Arms
from study.report.tables import Table, number

MARKS = ("o", "D", "s", "^")


@dataclass(frozen=True, slots=True)
class Size:
    """A testbed of the ladder: the arms there, and methods with the target and the twin."""

    testbed: str
    arms: Arms
    study: Mapping[str, list[Record]]

    @property
    def parameters(self) -> int:
        return int(self.study["target"][0].cost["parameters"])

    @property
    def label(self) -> str:
        return f"{self.parameters / 1e6:.1f}\u202fM"


def gather(
    testbeds: Sequence[str],
    arms: Mapping[str, Mapping[str, Any]],
    methods: Iterable[str],
    seed: int | None = None,
) -> list[Size]:
    """Records of every testbed, the smallest model first: read where they exist and computed where not."""
    every = ("target", "twin", *methods)
    sizes = [
        Size(
            bed,
            _arms.gather(arms, bed, seed),
            {m: [gate.record(testbed=bed, method=m, seed=s) for s in seeds(seed)] for m in every},
        )
        for bed in testbeds
    ]
    return sorted(sizes, key=lambda s: s.parameters)


def joined(sizes: Sequence[Size], more: Arms | None = None) -> dict[str, Arm]:
    """All arms of all sizes under names like "all weights, 1.3 M", and ``more`` under their own."""
    named = {f"{label}, {s.label}": arm for s in sizes for label, arm in s.arms.items()} | dict(more or {})
    return {name: replace(arm, label=name) for name, arm in named.items()}


def left(arm: Arm, rate: float) -> tuple[float, ...]:
    """Forget questions still answered at the end of the runs of one learning rate, by seed."""
    return tuple(
        r.metrics["forget/questions"] for r in next(s for s in arm.settings if s.rate == rate).records
    )


def told(values: Sequence[float]) -> str:
    """Mean and range over seeds, in percent."""
    low, middle, high = (f"{100 * v:.0f}" for v in (min(values), fmean(values), max(values)))
    return f"{middle}\u202f%" + (f" ({low} to {high})" if low != high else "")


def rates(sizes: Sequence[Size]) -> tuple[Any, str]:
    """A panel a size: what is left and what is kept at the end, against the learning rate, a colour an
    arm.
    """
    shades = (style.FAMILIES["weighting"], style.FAMILIES["competition"], style.FAMILIES["second order"])
    fig, axes = plt.subplots(1, len(sizes), figsize=(2.9 * len(sizes) + 0.6, 3.6), sharey=True, squeeze=False)
    words = []
    for axis, size in zip(axes[0], sizes, strict=True):
        for (label, arm), shade, mark in zip(size.arms.items(), shades, MARKS, strict=False):
            x = [s.rate for s in arm.settings]
            for metrics, text, line in (
                (("forget/questions",), "forget questions", "-"),
                (("retain/questions", "world/accuracy"), "retain and world", ":"),
            ):
                runs = [
                    [sum(r.metrics[m] for m in metrics) / len(metrics) for r in s.records]
                    for s in arm.settings
                ]
                middle = [sum(v) / len(v) for v in runs]
                axis.fill_between(
                    x, [min(v) for v in runs], [max(v) for v in runs], color=shade, alpha=0.15, linewidth=0
                )
                axis.plot(x, middle, line, color=shade, marker=mark, label=f"{label}: {text}")
                words.append(f"{size.label}, {label}, {text}: {', '.join(number(v) for v in middle)}")
        axis.set(xscale="log", title=f"{size.label} weights", xlabel="learning rate", ylim=(-0.04, 1.06))
        axis.set_xticks(x, [f"{v:g}" for v in x])
        axis.minorticks_off()
    axes[0][0].set_ylabel("still answered (share)")
    handles, names = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=2)
    points = ", ".join(f"{s.rate:g}" for s in next(iter(sizes[0].arms.values())).settings)
    return (
        fig,
        f"Line plots with a panel a model size, over the learning rates {points}. " + "; ".join(words) + ".",
    )


def order(sizes: Sequence[Size]) -> Table:
    """Distances of the methods to the twin of their own size, with the range over seeds and the place by
    it.
    """
    rows, data = [], []
    for method in [m for m in sizes[0].study if m not in ("target", "twin")]:
        row, plain = {"method": style.label(method)}, {"method": method}
        for s in sizes:
            low, high = extent(by_seed(s.study, method).values())
            place = ordered(s.study, [m for m in s.study if m not in ("target", "twin")]).index(method) + 1
            row[f"{s.label} weights"] = (
                f'{place}. <span class="interval">{number(distance(s.study, method))} ({number(low)} to'
                f" {number(high)})</span>"
            )
            row[f"AUC, {s.label}"] = number(mean(s.study[method], "attack/auc"))
            plain |= {
                f"distance_{s.parameters}": round(distance(s.study, method), 4),
                f"auc_{s.parameters}": round(mean(s.study[method], "attack/auc"), 4),
            }
        rows.append(row)
        data.append(plain)
    header = tuple(rows[0])
    caption = (
        "Place by the distance to the twin of the same size; distances are means over seeds with their"
        " range. Every method at the options that were chosen for 1.3 M weights."
    )
    return Table(header, tuple(tuple(r[k] for k in header) for r in rows), caption, data=tuple(data))


def lines(sizes: Sequence[Size], rate: float, more: Arms, at_size: str) -> list[str]:
    """What the answer adds to the comparisons of arms: one rate for all (``more`` arms at the size named),
    and the order of the methods.
    """
    from scipy.stats import kendalltau

    def at(label: str) -> str:
        return ", ".join(told(left(s.arms[label], rate)) for s in sizes)

    here = ", ".join(s.label for s in sizes)
    said = "; ".join(f"{label}: {at(label)}" for label in sizes[0].arms)
    other = "; ".join(f"{label}: {told(left(arm, rate))}" for label, arm in more.items())
    methods = [m for m in sizes[0].study if m not in ("target", "twin")]
    taus = [
        kendalltau(*([distance(s.study, m) for m in methods] for s in (a, b))).statistic
        for a, b in pairwise(sizes)
    ]
    first = [style.label(ordered(s.study, methods)[0]) for s in sizes]
    changed = [
        style.label(m)
        for m in methods
        if any(
            not overlap(extent(by_seed(a.study, m).values()), extent(by_seed(b.study, m).values()))
            for a, b in pairwise(sizes)
        )
    ]
    return [
        f"**At one rate for all, {rate:g}**, this share of the forget questions is left with {here}"
        f" weights, in parentheses the range over seeds. {said[0].upper()}{said[1:]}."
        + (f" With {at_size} weights also: {other}." if more else ""),
        (
            f"**The order of {len(methods)} methods at fixed options**: Kendall's tau from one size to the"
            f" next is {', '.join(number(t) for t in taus)}; closest to the twin is {', '.join(first)}."
            " Distances whose ranges over seeds part between neighbouring sizes:"
            f" {', '.join(changed) or 'none'}."
        ),
    ]
