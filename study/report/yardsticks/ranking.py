"""Whether yardsticks put methods into the same order."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

from reprolib.metrics.effects import holm
from study.readings.quantities import LADDER
from study.readings.twin import distance
from study.report import style, words
from study.report.tables import Table, number
from study.report.words import listed
from study.report.yardsticks.definitions import (
    ATTACKS,
    BENCHES,
    NEAR,
    SHAPES,
    YARDSTICKS,
    Study,
    collapsed,
    interval,
    ordered,
    twins_of,
    value,
)
from study.report.yardsticks.tables import methods_of, off, p_text, plain_text

DISTANCE = "distance"

# a benchmark's own axes, together: the mean of a model's places by each
WHOLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tofu": ("TOFU as a whole", ("tofu/ks_distance", "tofu/partial_utility")),
    "muse": (
        "MUSE as a whole",
        ("muse/verbmem", "muse/knowmem_forget", "muse/knowmem_retain", "muse/privleak"),
    ),
}

Orders = dict[str, dict[str, float]]


def orders(core: Study, wide: Study, seed: int | None = None) -> Orders:
    """By yardstick, how bad each model is; "distance" is the book's own. ``seed``: the models of one seed
    alone.
    """
    if seed is not None:
        core, wide = ({m: [r for r in s[m] if r.spec.seed == seed] for m in wide} for s in (core, wide))
    names = [n for n, y in YARDSTICKS.items() if y.ranks and any(n in r.metrics for r in wide["twin"])]
    far = {m: distance(core, m) for m in wide}
    single, methods = {n: {m: off(wide, m, n) for m in wide} for n in names}, methods_of(wide)
    wholes = {}
    for bench, (_, parts) in WHOLES.items():
        if all(p in single for p in parts):  # how many methods are ahead, on average over the parts
            wholes[bench] = {
                m: (
                    sum(1 - _behind([single[p][x] for x in methods if x != m], single[p][m]) for p in parts)
                    / len(parts)
                )
                for m in wide
            }
    out = {DISTANCE: {m: v if math.isfinite(v) else math.inf for m, v in far.items()}}
    for n, own in single.items():  # a whole stands before its parts
        bench = n.partition("/")[0]
        if bench in wholes and bench not in out:
            out[bench] = wholes[bench]
        out[n] = own
    return out


def _label(name: str) -> str:
    return (
        "Distance (this book)"
        if name == DISTANCE
        else WHOLES[name][0]
        if name in WHOLES
        else YARDSTICKS[name].label
    )


def tau(a: Mapping[str, float], b: Mapping[str, float], methods: Sequence[str]) -> tuple[float, float]:
    """Kendall's tau-b between two orders of the methods, and its p-value; NaN where one of them is tied
    throughout.
    """
    x, y = ([min(round(s[m], 6), 1e9) for m in methods] for s in (a, b))
    if len(methods) < 2 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan, math.nan
    found = kendalltau(x, y)
    return float(found.statistic), float(found.pvalue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one yardstick's order of the methods goes with that of the book's distance."""

    name: str
    tau: float
    seeds: tuple[float, ...]  # tau of each seed's models alone
    p: float  # of tau = 0
    holm: float  # the same, adjusted over all yardsticks
    first: tuple[str, ...]  # the methods that it puts first
    # share of the methods that lie behind a model of the ladder (ties count half)
    places: Mapping[str, float]

    @property
    def label(self) -> str:
        return _label(self.name)

    @property
    def bench(self) -> str:
        return BENCHES[self.name.partition("/")[0]]


def agreements(core: Study, wide: Study) -> list[Agreement]:
    """Every yardstick beside the distance, the most alike first."""
    methods, every = methods_of(wide), orders(core, wide)
    by_seed = [orders(core, wide, s) for s in sorted({r.spec.seed for r in wide["twin"]})]
    found = {n: tau(every[n], every[DISTANCE], methods) for n in every if n != DISTANCE}
    tested = [n for n, (_, p) in found.items() if math.isfinite(p)]
    adjusted = dict(zip(tested, holm([found[n][1] for n in tested]), strict=True)) if tested else {}
    out = []
    for n, (t, p) in found.items():
        own = every[n]
        best = min(own[m] for m in methods)
        places = {m: _behind([own[x] for x in methods], own[m]) for m in LADDER if m in own and m != "twin"}
        out.append(
            Agreement(
                name=n,
                tau=t,
                seeds=tuple(tau(o[n], o[DISTANCE], methods)[0] for o in by_seed),
                p=p,
                holm=float(adjusted.get(n, math.nan)),
                first=tuple(m for m in methods if own[m] <= best + 1e-6),
                places=places,
            )
        )
    return sorted(out, key=lambda a: (not math.isfinite(a.tau), -a.tau if math.isfinite(a.tau) else 0.0))


def least(n: int, alpha: float) -> float:
    """The smallest Kendall's tau between two orders of n methods whose two-sided p-value is at most
    ``alpha``; above 1 where none is.

    >>> round(least(10, 0.05), 2)
    0.51
    """
    ways = [1]  # orders of the first methods, by how many pairs stand the wrong way round
    for k in range(2, n + 1):
        ways = [sum(ways[max(0, i - k + 1) : i + 1]) for i in range(len(ways) + k - 1)]
    pairs, below = n * (n - 1) // 2, 0
    for wrong, count in enumerate(ways):
        below += count
        if 2 * below / math.factorial(n) > alpha:
            return 1 - 2 * (wrong - 1) / pairs if wrong else math.inf
    return math.inf


def _behind(others: Sequence[float], own: float) -> float:
    """Share of the others that are worse; ties count half."""
    return sum(
        1.0 if x > own + 1e-6 else 0.5 if abs(x - own) <= 1e-6 or x == own else 0.0 for x in others
    ) / max(1, len(others))


def agreement(core: Study, wide: Study) -> Table:
    """Each yardstick: how its order of the methods goes with the distance, whom it puts first, and what it
    thinks of models that know nothing.
    """
    rows, data = [], []
    for a in agreements(core, wide):
        own = [t for t in a.seeds if math.isfinite(t)]
        spread = f' <span class="interval">({min(own):.2f} to {max(own):.2f})</span>' if len(own) > 1 else ""
        rows.append(
            (
                f'{html.escape(a.label)} <span class="interval">{a.bench}</span>',
                number(a.tau) + spread,
                p_text(a.holm),
                html.escape(words.names(a.first, 3)),
                *(f"{100 * a.places[m]:.0f}\u202f%" for m in a.places),
            )
        )
        data.append(
            {
                "yardstick": a.name,
                "better": YARDSTICKS[a.name].facts.better if a.name in YARDSTICKS else "",
                "tau": plain_text(a.tau),
                "p": plain_text(a.p),
                "p_holm": plain_text(a.holm),
            }
            | {f"tau_seed_{i}": plain_text(t) for i, t in enumerate(a.seeds)}
            | {"first": " ".join(a.first)}
            | {f"ahead_{m}": plain_text(v) for m, v in a.places.items()}
        )
    n = len(methods_of(wide))
    ladder = [m for m in LADDER if m in wide and m != "twin"]
    short = {"target": "target", "random": "random", "always_eos": "silent"}
    heads = ("yardstick", "tau ↑", "p (Holm)", "first", *(f"ahead: {short[m]}" for m in ladder))
    caption = (
        f"Kendall's tau-b between the order of {n} methods by each yardstick and by the distance to the"
        " twin, of means over seeds; in parentheses the range over single seeds. Where the card says that"
        " the twin is best, a yardstick is |method - twin|. As a whole: the mean of a method's places by"
        f" {_parts()}. First: the method that would lead. Last columns: the share of the methods that the"
        " untouched target, random weights and a model that says nothing are ahead of, ties counted half."
    )
    return Table(
        heads,
        tuple(rows),
        caption,
        {"tau ↑": "1: the same order; 0: no relation; -1: the reverse."},
        data=tuple(data),
    )


def _parts() -> str:
    return ", and by ".join(
        f"{listed([YARDSTICKS[p].label for p in parts]).replace(';', ',')} ({BENCHES[bench]})"
        for bench, (_, parts) in WHOLES.items()
    )


def _shade(t: float) -> tuple[float, ...]:
    """From red (-1) over nearly white (0) to blue (1): opaque, so that it reads alike on light and on dark
    pages.
    """
    end, middle = (
        np.array((0.0, 0.447, 0.698) if t > 0 else (0.757, 0.267, 0.055)),
        np.array((0.945, 0.945, 0.945)),
    )
    return tuple(float(v) for v in middle + min(1.0, abs(t)) ** 1.3 * (end - middle))


def _short(t: float) -> str:
    """One decimal without a leading zero."""
    text = f"{abs(t):.1f}"
    return ("−" if t < 0 and text != "0.0" else "") + (text if text[0] == "1" else text[1:])


def taus(core: Study, wide: Study) -> tuple[list[str], np.ndarray]:
    """Yardsticks, the distance first, and Kendall's tau between the orders of the methods by every two of
    them; without those that order nothing.
    """
    every, methods = orders(core, wide), methods_of(wide)
    names = [n for n in every if len({round(every[n][m], 6) for m in methods}) > 1]
    return names, np.array([[tau(every[a], every[b], methods)[0] for b in names] for a in names])


def matrix(core: Study, wide: Study, csv: str = "") -> tuple[Any, str]:
    """Kendall's tau between the orders of the methods by every two yardsticks; ``csv``: the name of the table
    that it is also written to.
    """
    methods, (names, found) = methods_of(wide), taus(core, wide)
    labels = [_label(n) for n in names]
    if csv:
        data = tuple(
            {"yardstick": a} | {b: plain_text(t) for b, t in zip(names, row, strict=True)}
            for a, row in zip(names, found, strict=True)
        )
        Table(tuple(data[0]), (), data=data).csv(csv)
    size = len(names)
    fig, axis = plt.subplots(figsize=(8.8, 8.0))
    for i in range(size):
        for j in range(i + 1):
            t = found[i, j]
            if i == j:
                axis.text(j, i, "·", ha="center", va="center")
                continue
            strong = abs(t) > 0.62
            axis.add_patch(plt.Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=_shade(t), linewidth=0))
            axis.text(
                j,
                i,
                _short(t),
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if strong else "#333333",
            )
    axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=range(size), yticks=range(size))
    axis.set_yticklabels(labels, fontsize=9)
    axis.set_xticklabels(labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    axis.grid(False)
    axis.tick_params(length=0)
    for y in range(1, size):  # a rule where another benchmark begins
        if names[y].partition("/")[0] != names[y - 1].partition("/")[0]:
            axis.plot([-0.5, y - 0.5], [y - 0.5, y - 0.5], color=style.INK, linewidth=0.8)
            axis.plot([y - 0.5, y - 0.5], [y - 0.5, size - 0.5], color=style.INK, linewidth=0.8)
    for side in axis.spines.values():
        side.set_visible(False)
    words = "; ".join(f"{labels[i]} {found[i, 0]:.2f}" for i in range(1, size))
    return (
        fig,
        (
            f"Matrix of Kendall's tau between the orders of {len(methods)} methods by {size} yardsticks."
            f" With the book's distance: {words}."
        ),
    )


# --- the attacks --------------------------------------------------------------------------------------------


def attacks(core: Study, wide: Study) -> tuple[Any, str]:
    """One row a model, one marker an attack: AUCs with their intervals; lines at the twin's range."""
    order = [m for m in ordered(core, wide) if m not in ("random", "always_eos")]
    there = [k for k in ATTACKS if any(f"attacks/{k}/auc" in r.metrics for r in wide["twin"])]
    fig, axis = plt.subplots(figsize=(8.6, 1.5 + 0.5 * len(order)))
    axis.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    words = []
    for y, m in enumerate(order):
        said = []
        for n, k in enumerate(there):
            i = interval(wide, m, f"attacks/{k}/auc")
            at = y + (n - (len(there) - 1) / 2) * 0.125
            if math.isfinite(i.low):
                axis.plot(
                    [i.low, i.high],
                    [at, at],
                    color=style.colour(m),
                    linewidth=1.6,
                    alpha=0.5,
                    solid_capstyle="butt",
                    zorder=2,
                )
            axis.plot(
                [i.estimate],
                [at],
                marker=SHAPES[k],
                color=style.colour(m),
                linestyle="",
                markersize=5.5,
                zorder=3,
            )
            said.append(f"{ATTACKS[k]} {i.estimate:.2f}")
        if y:
            axis.axhline(y - 0.5, color=style.GRID, linewidth=0.8, zorder=0)
        words.append(f"{style.label(m)}: {', '.join(said)}")
    axis.set(
        xlim=(-0.02, 1.02),
        ylim=(len(order) - 0.5, -0.5),
        xlabel="AUC of the attack: 1 recognised, 0.5 chance, 0 shunned",
    )
    axis.set_yticks(
        range(len(order)), [style.label(m) + (" (collapsed)" if collapsed(wide, m) else "") for m in order]
    )
    for text, m in zip(axis.get_yticklabels(), order, strict=True):
        text.set_style("italic" if m in LADDER else "normal")
    axis.grid(axis="y", visible=False)
    handles = [plt.Line2D([], [], marker=SHAPES[k], color=style.INK, linestyle="") for k in there]
    fig.legend(handles, [ATTACKS[k] for k in there], loc="outside lower center", ncols=6)
    return fig, "Dot chart of the AUC of membership attacks, one row a model. " + "; ".join(words) + "."


def gives_away(wide: Study, method: str, attack: str) -> bool:
    """Whether an attack's AUC differs from the twin's of the same seed by more than ``NEAR`` in every
    seed.
    """
    twins, name = twins_of(wide), f"attacks/{attack}/auc"
    return all(abs(value(r, name) - value(twins[r.spec.seed], name)) > NEAR for r in wide[method])


def hidden_from_loss(wide: Study) -> dict[str, list[str]]:
    """Methods that the loss attack sees as the twin in every seed (within ``NEAR``), with the attacks that
    tell them from it in every seed.
    """
    twins, name, out = twins_of(wide), "attacks/loss/auc", {}
    for m in methods_of(wide):
        if all(abs(value(r, name) - value(twins[r.spec.seed], name)) <= NEAR for r in wide[m]):
            out[m] = [k for k in ATTACKS if k != "loss" and gives_away(wide, m, k)]
    return out
