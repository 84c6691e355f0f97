"""Figures of the book: each function returns (figure, text for those who cannot see it)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.record import Record
from study.readings.intervals import interval
from study.readings.quantities import ASPECTS, LADDER, READINGS, value
from study.report import style
from study.report.forget_set import answered

Study = Mapping[str, Sequence[Record]]


def headline(study: Study) -> tuple[Any, str]:
    """One panel per aspect, one row per method: dots are seeds, bars intervals; lines mark target and
    twin.
    """
    methods = [m for m in study if m not in LADDER]
    fig, axes = plt.subplots(1, len(ASPECTS), figsize=(8.8, 1.7 + 0.42 * len(methods)), sharey=True)
    words = []
    for axis, name in zip(axes, ASPECTS, strict=True):
        twin, target = (interval(study[m], name).estimate for m in ("twin", "target"))
        axis.axvline(twin, color=style.COLOURS["twin"], linestyle="--", linewidth=1.6, zorder=1)
        axis.axvline(target, color=style.INK, linestyle=":", linewidth=1.6, zorder=1)
        said = []
        for y, method in enumerate(methods):
            i = interval(study[method], name)
            seeds = [value(r, name) for r in study[method]]
            low, high = (v if math.isfinite(v) else i.estimate for v in (i.low, i.high))
            axis.plot(
                [low, high],
                [y, y],
                color=style.colour(method),
                linewidth=3,
                alpha=0.55,
                solid_capstyle="round",
                zorder=2,
            )
            axis.plot(
                seeds,
                [y] * len(seeds),
                marker=style.marker(method),
                color=style.colour(method),
                linestyle="",
                zorder=3,
            )
            said.append(f"{style.label(method)} {i.estimate:.2f}")
        axis.set(xlim=(-0.06, 1.06), xticks=[0, 0.5, 1], title=READINGS[name].label.replace(" ", "\n"))
        axis.set_xlabel("AUC" if name == "attack_auc" else "share")
        axis.set_xticklabels(["0", ".5", "1"])
        axis.grid(axis="y", visible=False)
        words.append(f"{READINGS[name].label}: twin {twin:.2f}, target {target:.2f}, {', '.join(said)}")
    axes[0].set_yticks(range(len(methods)), [style.label(m) for m in methods])
    axes[0].set_ylim(len(methods) - 0.5, -0.5)
    lines = [
        plt.Line2D([], [], color=style.COLOURS["twin"], linestyle="--"),
        plt.Line2D([], [], color=style.INK, linestyle=":"),
    ]
    fig.legend(lines, ["retrained twin (the goal)", "untouched target"], loc="outside lower center", ncols=2)
    return fig, "Dot plots with one panel per reading. " + "; ".join(words) + "."


def tradeoff(study: Study, testbed: str) -> tuple[Any, str]:
    """Forget questions still answered against retain questions still answered."""
    fig, axis = plt.subplots(figsize=(6.2, 4.4))
    words = []
    for method, records in study.items():
        x, y = ([value(r, n) for r in records] for n in ("forget_questions", "retain_questions"))
        kind = {
            "marker": style.marker(method),
            "color": style.colour(method),
            "linestyle": "",
            "clip_on": False,
            "zorder": 3,
        }
        axis.plot(x, y, alpha=0.55, markersize=6, **kind)
        axis.plot(
            [np.mean(x)],
            [np.mean(y)],
            label=style.label(method),
            markersize=20 if method == "twin" else 10,
            **kind | {"zorder": 2.5 if method == "twin" else 3},
        )
        if method not in LADDER:
            across, up = (interval(records, n) for n in ("forget_questions", "retain_questions"))
            axis.plot(
                [across.low, across.high],
                [np.mean(y)] * 2,
                color=style.colour(method),
                linewidth=2,
                alpha=0.6,
            )
            axis.plot([np.mean(x)] * 2, [up.low, up.high], color=style.colour(method), linewidth=2, alpha=0.6)
        words.append(f"{style.label(method)} {np.mean(x):.2f} and {np.mean(y):.2f}")
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xlabel="forget questions still answered (share)",
             ylabel="retain questions still answered (share)")  # fmt: skip
    axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    text = (
        f"Scatter plot on {testbed}: forget against retain questions still answered, best at the upper left. "
    )
    return fig, text + "; ".join(words) + "."


def trajectories(study: Study) -> tuple[Any, str]:
    """Cheap measures along the run: one panel each, thin lines seeds, thick line their mean."""
    panels = {
        "forget/questions": "Forget questions",
        "retain/questions": "Retain questions",
        "attack/auc": "Attack AUC",
        "world/accuracy": "World questions",
    }
    methods = [m for m in study if m not in LADDER]
    fig, axes = plt.subplots(2, 2, figsize=(8.4, 5.4), sharex=True)
    words = []
    for axis, (name, title) in zip(axes.flat, panels.items(), strict=True):
        twin = float(np.mean([r.metrics[name] for r in study["twin"]]))
        axis.axhline(twin, color=style.COLOURS["twin"], linestyle="--", linewidth=1.6, label="retrained twin")
        for method in methods:
            runs = [
                ([float(p["step"]) for p in r.trajectory], [_finite(p.get(name)) for p in r.trajectory])
                for r in study[method]
            ]
            for x, y in runs:
                axis.plot(x, y, color=style.colour(method), linewidth=0.9, alpha=0.6)
            # a run that diverged is shorter: the mean goes as far as every seed does
            common = [s for s in runs[0][0] if all(s in x for x, _ in runs)]
            if common:
                middle = np.mean([[y[x.index(s)] for s in common] for x, y in runs], axis=0)
                look = {"color": style.colour(method), "marker": style.marker(method), "linewidth": 2.4}
                axis.plot(common, middle, label=style.label(method), **look)
                words.append(
                    f"{style.label(method)}, {title}: from {middle[0]:.2f} to {middle[-1]:.2f}, twin"
                    f" {twin:.2f}"
                )
        axis.set(ylim=(-0.04, 1.06), title=title, ylabel="AUC" if "auc" in name else "share")
    for axis in axes[-1]:
        axis.set_xlabel("optimizer steps")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return fig, "Line plots along the unlearning run. " + "; ".join(words) + "."


def _finite(x: float | None) -> float:
    """A null of a record is a number that was not finite."""
    return math.nan if x is None else float(x)


def official(study: Study) -> tuple[Any, str]:
    """The three parts of the official score and their mean, for the ladder and every method."""
    parts = {"task_aggregate": "task aggregate", "mia_score": "MIA score", "world_questions": "utility"}
    shades = ("#0072B2", "#56B4E9", "#E69F00")
    order = list(study)
    fig, axis = plt.subplots(figsize=(8.4, 0.9 + 0.42 * len(order)))
    left = np.zeros(len(order))
    for (name, text), shade in zip(parts.items(), shades, strict=True):
        width = np.array([interval(study[m], name).estimate for m in order]) / 3
        axis.barh(range(len(order)), width, left=left, color=shade, label=f"{text} / 3", height=0.62)
        left += width
    words = []
    for y, method in enumerate(order):
        i = interval(study[method], "final_score")
        if math.isfinite(i.low):
            axis.plot([i.low, i.high], [y, y], color=style.INK, linewidth=2)
        axis.text(
            max(left[y], i.high if math.isfinite(i.high) else 0) + 0.015,
            y,
            f"{i.estimate:.2f}",
            va="center",
        )
        words.append(f"{style.label(method)} {i.estimate:.2f}")
    axis.set(xlim=(0, 1.1), ylim=(len(order) - 0.5, -0.5), xlabel="official final score and its parts")
    axis.set_yticks(range(len(order)), [style.label(m) for m in order])
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=3)
    return fig, "Stacked bars of the official final score: " + ", ".join(words) + "."


def sizes(
    settings: Mapping[str, Mapping[float, Sequence[Record]]], x_label: str, ladder: Study
) -> tuple[Any, str]:
    """Forget-set size: questions still answered, by what the method was given; one panel a method."""
    curves = (  # label, rows given (2), same document (1), nothing of the document (0), colour, marker
        ("rows given", 2, "#0072B2", "o"),
        ("other rows of these documents", 1, "#E69F00", "D"),
        ("documents not given", 0, "#D55E00", "^"),
    )
    fig, axes = plt.subplots(1, len(settings), figsize=(4.4 * len(settings), 3.9), sharey=True, squeeze=False)
    words = []
    twin = float(np.mean([answered(r, None) for r in ladder["twin"]]))
    for axis, (method, shares) in zip(axes[0], settings.items(), strict=True):
        points = sorted(shares)
        x = [100 * s for s in points]
        for text, level, shade, mark in curves:
            runs = np.array([[answered(r, level) for r in shares[s]] for s in points])
            if not np.isfinite(runs).any():
                continue
            ends = runs.mean(axis=1)  # NaN where a share leaves no such rows
            axis.plot(x, ends, color=shade, marker=mark, label=text)
            for seed in runs.T:
                axis.plot(x, seed, color=shade, marker=mark, linestyle="", alpha=0.4, markersize=4)
            seen = np.isfinite(ends)
            words.append(f"{style.label(method)}, {text}: {ends[seen][0]:.2f} at {np.array(x)[seen][0]:g} %, "
                         f"{ends[seen][-1]:.2f} at {np.array(x)[seen][-1]:g} %")  # fmt: skip
        kept = np.array([[r.metrics["retain/questions"] for r in shares[s]] for s in points])
        axis.plot(
            x,
            kept.mean(axis=1),
            color=style.COLOURS["twin"],
            marker="s",
            linestyle="-.",
            label="retain questions",
        )
        axis.axhline(twin, color=style.INK, linestyle="--", linewidth=1.4, label="forget questions, twin")
        words.append(
            f"{style.label(method)}, retain questions: {kept.mean(axis=1)[0]:.2f} to"
            f" {kept.mean(axis=1)[-1]:.2f}"
        )
        axis.set(xscale="log", ylim=(-0.04, 1.06), xlabel=x_label, title=style.label(method))
        axis.set_xticks(x, [f"{v:g}" for v in x])
        axis.minorticks_off()
    axes[0][0].set_ylabel("questions still answered (share)")
    handles: dict[str, Any] = {}
    for axis in axes[0]:
        handles |= {name: h for h, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return fig, "Line plots of questions still answered. " + "; ".join(words) + "."
