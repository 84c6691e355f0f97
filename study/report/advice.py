"""What to use when: the front of forgetting against keeping, and which method leads under which constraint.

Both axes of the front are parts of the distance to the twin (:func:`study.readings.twin.between`): the three
readings of what should be forgotten, and the two of what should be kept. d = 3/5 forgetting + 2/5 keeping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from reprolib.adapters.base import LoRA
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.recipes import recipe
from reprolib.recipes.base import Stage
from reprolib.record import Record
from study.readings.quantities import LADDER
from study.readings.twin import LEVEL, bound, family, readings
from study.report import leaderboard, stress, style, words
from study.report.leaderboard import Entry
from study.report.tables import Table, number
from study.report.words import listed, say

FORGET = ("forget_questions", "forget_passages", "attack_auc")
KEEP = ("retain_questions", "world_questions")

NAMED = (  # in the chart, though not on the front
    "gradient_ascent",
    "gradient_descent",
    "gradient_difference",
    "npo",
    "libu",
    "vila_difference",
    "chain_difference_ga",
)

Study = Mapping[str, Sequence[Record]]
Points = Mapping[str, tuple[float, float]]  # by model: what is left to forget, what was lost


def off(study: Study, method: str, names: Sequence[str]) -> tuple[float, ...]:
    """By seed: the mean absolute difference to the twin over the readings named."""
    twins = {r.spec.seed: readings(r) for r in study["twin"]}
    own = [(readings(r), twins[r.spec.seed]) for r in study[method]]
    return tuple(sum(abs(a[n] - t[n]) for n in names) / len(names) for a, t in own)


def points(study: Study) -> dict[str, tuple[float, float]]:
    """Every model's mean over seeds of (what is left to forget, what was lost); 0, 0 is the twin."""
    found = {m: (fmean(off(study, m, FORGET)), fmean(off(study, m, KEEP))) for m in study}
    return {m: p for m, p in found.items() if all(map(math.isfinite, p))}


def front(points: Points) -> list[str]:
    """The methods that no other method beats in both, by the first.

    >>> front({"a": (0.1, 0.5), "b": (0.2, 0.1), "c": (0.3, 0.3)})
    ['a', 'b']
    """

    def beaten(m: str) -> bool:
        x, y = points[m]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((m for m in points if not beaten(m)), key=points.__getitem__)


def on_every_front(study: Study, methods: Sequence[str]) -> list[str]:
    """Those on the front of every seed's own models."""
    seeds = [r.spec.seed for r in study["twin"]]
    fronts = []
    for s in seeds:
        one = {m: [r for r in study[m] if r.spec.seed == s] for m in (*methods, "twin")}
        fronts.append(set(front({m: p for m, p in points(one).items() if m != "twin"})))
    return [m for m in methods if all(m in f for f in fronts)]


def methods_of(study: Study) -> list[str]:
    return [m for m in study if m not in LADDER and not bound(m)]


def chart(study: Study) -> tuple[Any, str]:
    """Every method by what is left to forget and by what was lost, with the front."""
    every = points(study)
    own = {m: every[m] for m in methods_of(study) if m in every}
    best = front(own)
    fig, axis = plt.subplots(figsize=(8.2, 5.4))
    _marks(axis, study, own, best)
    _ladder(axis, every)
    path = [every[m] for m in best]
    line = {"color": style.INK, "linewidth": 1.2, "linestyle": "--", "zorder": 1}
    axis.step([p[0] for p in path], [p[1] for p in path], where="post", **line)
    _names(axis, own, best)
    axis.set(
        ylim=(-0.07, 1.0),
        xlabel="left to forget: mean difference to the twin, 3 readings",
        ylabel="lost: mean difference to the twin, 2 readings",
    )
    shades: dict[str, str] = {}
    for m in own:  # methods with a colour of their own are named beside their marks
        shades.setdefault(family(m) or "other", style.FAMILIES.get(family(m), style.colour(m)))
    axis.legend(
        [plt.Line2D([], [], marker="o", linestyle="", color=c) for c in shades.values()],
        list(shades),
        loc="upper right",
        fontsize=9,
        ncols=2,
        title="family",
    )
    said = [
        f"{style.label(m)} {x:.2f} and {y:.2f}" for m, (x, y) in sorted(own.items(), key=lambda kv: kv[1])
    ]
    return fig, (
        "Scatter plot of what is left to forget against what was lost, best at the lower left, where the"
        " twin is. On the front: "
        + ", ".join(style.label(m) for m in best)
        + ". All methods: "
        + "; ".join(said)
        + "."
    )


def _marks(axis: Any, study: Study, own: Points, best: Sequence[str]) -> None:
    """A mark a method; thin lines lead to single seeds of those on the front."""
    for m, (x, y) in own.items():
        sure = m in best
        look = {
            "color": style.colour(m),
            "marker": style.marker(m),
            "linestyle": "",
            "zorder": 3 if sure else 2,
            "alpha": 1 if sure else 0.6,
        }
        axis.plot(x, y, markersize=9 if sure else 6, **look)
        for a, b in zip(off(study, m, FORGET), off(study, m, KEEP), strict=True):
            if sure:
                axis.plot([x, a], [y, b], color=style.colour(m), linewidth=0.8, alpha=0.6, zorder=2)


def _ladder(axis: Any, every: Points) -> None:
    """Target, twin and destroyed models with their names."""
    for m in ("target", "twin", "random", "always_eos"):
        if m in every:
            look = {"color": style.colour(m), "marker": style.marker(m), "linestyle": ""}
            axis.plot(*every[m], markersize=14 if m == "twin" else 8, clip_on=False, zorder=4, **look)
            beside = {"target": (0, 12), "twin": (8, -11), "random": (10, -5), "always_eos": (10, 5)}[m]
            axis.annotate(
                style.label(m),
                every[m],
                xytext=beside,
                textcoords="offset points",
                fontsize=9,
                style="italic",
                ha="center" if m == "target" else "left",
                va="center",
            )


def _names(axis: Any, own: Points, best: Sequence[str]) -> None:
    """The names of the methods on the front, and of some beside it."""
    # in the corner that no method reaches, so that neighbours do not cover each other
    for n, m in enumerate(reversed(best)):
        axis.annotate(
            style.label(m),
            own[m],
            xytext=(0.012, 0.13 + 0.06 * n),
            textcoords="axes fraction",
            fontsize=9.5,
            color=style.colour(m),
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": style.colour(m), "linewidth": 0.7, "alpha": 0.7},
        )
    for m in NAMED:
        if m in own and m not in best:
            axis.annotate(
                style.label(m),
                own[m],
                xytext=(7, -8 if m == "vila_difference" else 0),
                textcoords="offset points",
                fontsize=9,
                va="center",
                color=style.colour(m),
            )


@dataclass(frozen=True, slots=True)
class Case:
    """A situation, the methods allowed in it in the leaderboard's order, and what to beware of."""

    situation: str
    methods: tuple[Entry, ...]
    beware: str


def _adapters(method: str) -> bool:
    trained = [s.trainable for s in recipe(method).build({}) if isinstance(s, Stage)]
    return bool(trained) and all(isinstance(t, LoRA | FisherLoRA) for t in trained)


def cases(study: Study, hidden: Study, level: float = LEVEL) -> list[Case]:
    """Situations of a practitioner, each with a rule over the records. ``hidden``: the same methods under
    stress, where they were measured.
    """
    board = [e for e in leaderboard.board(study, level) if e.counts and e.gap]
    there = [e for e in board if e.group == "all"]
    seen = [e for e in there if e.method in hidden]
    steady = [
        e
        for e in seen
        if max(stress.comes_back(hidden, e.method)) <= 0.1
        and stress.mean(hidden[e.method], "relearning/part/0/auc") <= stress.STILL
    ]
    useful = [e for e in there if min(e.readings["retain_questions"], e.readings["world_questions"]) >= 0.9]
    quiet = sorted(useful, key=lambda e: fmean(off(study, e.method, ("attack_auc",))))
    keeps = [
        e for e in there if e.readings["retain_questions"] >= 0.95 and e.readings["world_questions"] >= 0.95
    ]
    one = [e for e in there if e.cost.startswith("1 pass")]
    return [
        Case(
            "Forget and retain rows are at hand, and every weight may move",
            tuple(there),
            "Compute is not matched; the leaderboard has the costs.",
        ),
        Case(
            "Only an adapter may be trained",
            tuple(e for e in there if _adapters(e.method)),
            "Other methods take an adapter too (the option trainable), but were not searched with one."
            " LoKU's start shows no advantage over a blank adapter: see FILA against VILA.",
        ),
        Case(
            "There are no retain rows",
            tuple(e for e in board if e.retains == "no"),
            "None of them is good: without retain rows, what is kept is kept by luck.",
        ),
        Case("A step may cost one forward and backward pass", tuple(one), "Numbers of steps differ."),
        Case(
            "Nothing else may be lost (retain and world questions at 95 % or more)",
            tuple(keeps),
            "Retain questions are among the rows that these methods train on.",
        ),
        Case(
            "It must not show which passages were forgotten (attack AUC nearest to the twin's, retain and"
            " world questions at 90 % or more)",
            tuple(quiet),
            "One attack, which looks at the loss alone; others see more.",
        ),
        Case(
            "It must last: nothing returns when a few forget documents are taught again",
            tuple(steady),
            f"Of {len(seen)} methods that were put under stress." if seen else "Not measured here.",
        ),
    ]


def table(found: Sequence[Case], most: int = 3) -> Table:
    """A row a situation: the first methods allowed in it, and what to beware of."""
    rows, data = [], []
    for c in found:
        first = [f"{e.label} ({number(e.gap.estimate)})" for e in c.methods[:most]]
        rows.append(
            {
                "situation": c.situation,
                "first": ", ".join(first) or "none of those measured",
                "of": f"{len(c.methods)}",
                "beware": c.beware,
            }
        )
        data.append(
            {
                "situation": c.situation,
                "first": " ".join(e.method for e in c.methods[:most]),
                "of": len(c.methods),
            }
        )
    header = tuple(rows[0])
    caption = (
        "In parentheses the share of the gap to the twin that is closed: 1 is the twin, 0 the untouched"
        " target. Every row keeps the leaderboard's order, but for the attack's, which goes by the AUC."
        " Methods that stand together are often not told apart; the leaderboard says which."
    )
    return Table(header, tuple(tuple(r[k] for k in header) for r in rows), caption, data=tuple(data))


def answer(study: Study, found: Sequence[Case]) -> Any:
    """The first of each situation in a sentence, and the front."""
    own = {m: p for m, p in points(study).items() if m in methods_of(study)}
    best = front(own)
    sure = on_every_front(study, list(own))
    lines = [
        f"- *{c.situation}*: "
        + (
            f"**{c.methods[0].label}**"
            + (f", then {listed([e.label for e in c.methods[1:3]])}" if len(c.methods) > 1 else "")
            if c.methods
            else "**none of those measured**"
        )
        + "."
        for c in found
    ]
    leaders = list(dict.fromkeys(c.methods[0].label for c in found if c.methods))
    if len(leaders) > 1:
        leader = "No method leads everywhere"
    else:
        leader = f"{leaders[0]} leads wherever one does" if leaders else "No method leads anywhere"
    text = (
        f"{leader}. {len(best)} of {len(own)} are on the front, where nothing else both forgets and keeps"
        f" more: {words.names(best, 12)}"
        + (
            f". In every seed, {words.names(sure, 12)} {'are' if len(sure) > 1 else 'is'}. "
            if sure
            else ". None is in every seed. "
        )
    )
    n = len(study["twin"])
    return say(
        f"```{{admonition}} The answer\n:class: tip\n{text}\n\n"
        + "\n".join(lines)
        + f"\n\nMeans over {n} seed{'s' if n > 1 else ''}, at this scale and with these options: begin"
        " with it, and measure on your own rows.\n```"
    )
