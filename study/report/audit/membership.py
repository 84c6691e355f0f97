"""The official membership attack: how far its AUC can be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import lume
from reprolib.record import Record
from study.readings.quantities import columns
from study.report import style
from study.report.audit.rows import PARTS, Published, Row, Study
from study.report.audit.wording import bullets
from study.report.tables import Table
from study.report.words import say

Z = 1.959964  # two-sided 95 %


# ---------------------------------------------------------------------- how sure an attack score is


def auc_error(auc: float, members: int, nonmembers: int) -> float:
    r"""Standard error of an AUC (Hanley and McNeil 1982), A = AUC, n members and m non-members:

    $$ \sigma^2 = \frac{A(1-A) + (n-1)(Q_1 - A^2) + (m-1)(Q_2 - A^2)}{n m},
       \quad Q_1 = \frac{A}{2-A}, \quad Q_2 = \frac{2A^2}{1+A} $$

    Of the texts alone: another draw of them. 0 at AUC 0 and 1, where the formula has nothing to go by.
    """
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (members - 1) * (one - auc**2) + (nonmembers - 1) * (two - auc**2)
    return math.sqrt(max(variance, 0.0) / (members * nonmembers))


def side(mia: float) -> float:
    """The AUC of one half or more that a MIA score stands for; its mirror image below has the same score and
    the same error.
    """
    return 0.5 + (1 - mia) / 2


def mia_interval(mia: float, members: int, nonmembers: int) -> tuple[float, float]:
    """95 % interval of a MIA score from the AUC's error; an AUC that may be one half may have the score 1.
    NaN at a score of 0.
    """
    if mia <= 0:
        return math.nan, math.nan
    a = side(mia)
    half = Z * auc_error(a, members, nonmembers)
    return max(0.0, 1 - 2 * (a + half - 0.5)), min(1.0, 1 - 2 * max(0.0, a - half - 0.5))


def told_apart(a: float, b: float, members: int, nonmembers: int) -> bool:
    """Whether two MIA scores, with AUCs on one side of one half, differ by more than 1.96 errors of
    independent AUCs.
    """
    errors = [auc_error(side(x), members, nonmembers) for x in (a, b)]
    return abs(a - b) > Z * 2 * math.hypot(*errors)


def unseen(members: int, nonmembers: int) -> tuple[float, float]:
    """MIA score of a model to which members and non-members are alike: its mean, 1 - 2 sigma sqrt(2/pi), and
    what 95 % exceed.
    """
    s = auc_error(0.5, members, nonmembers)
    return 1 - 2 * s * math.sqrt(2 / math.pi), 1 - 2 * Z * s


def together(data: Published, n: int) -> tuple[Row, ...]:
    """The largest group of published rows, from the highest MIA score down, of which no two are told apart
    with n texts a side.
    """
    found: list[Row] = []
    for r in sorted(data.rows, key=lambda r: -r.mia):
        if any(told_apart(r.mia, x.mia, n, n) for x in found):
            break
        found.append(r)
    return tuple(found)


def bootstrapped(record: Record, n: int = 2000) -> tuple[float, float, float] | None:
    """A record's attack: AUC, the formula's error, and that of a bootstrap over its texts; None where it has
    no losses.
    """
    c = columns(record)
    finite = np.isfinite(c["text_nll"])
    m, h = (-c["text_nll"][finite & (c["group"] == g)] for g in ("forget", "holdout"))
    if not len(m) or not len(h):
        return None
    wins = (m[:, None] > h[None, :]) + 0.5 * (m[:, None] == h[None, :])
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=n) / len(x) for x in (m, h)]
    auc = float(wins.mean())
    return auc, auc_error(auc, len(m), len(h)), float(np.std(((drawn[0] @ wins) * drawn[1]).sum(axis=1)))


def sizes(record: Record) -> tuple[int, int]:
    """Members and non-members of a record's attack."""
    c = columns(record)
    members, others = (
        int((np.isfinite(c["text_nll"]) & (c["group"] == g)).sum()) for g in ("forget", "holdout")
    )
    return members, others


def errors(data: Published, studies: Sequence[Study]) -> Table:
    """What the sizes of the attack's sets allow."""
    sets = [(f"SemEval, {s['release']}", s["members"], s["nonmembers"]) for s in data.attack_sets]
    sets += [(s["target"][0].spec.testbed, *sizes(s["target"][0])) for s in studies]
    rows = []
    for name, n, m in sets:
        mean, low = unseen(n, m)
        rows.append({
            "set": name, "members": n, "non-members": m,
            **{f"error of AUC at {a:g}": f"{auc_error(a, n, m):.3f}" for a in (0.5, 0.75, 0.95)},
            "mean MIA score at AUC 0.5": f"{mean:.2f}", "19 in 20 exceed": f"{low:.2f}",
        })  # fmt: skip
    caption = (
        "Standard error of an AUC by Hanley and McNeil's formula, for the choice of texts alone, and the"
        " MIA score that a model gets which the attack cannot tell anything about."
    )
    return Table.of(rows, caption=caption)


def attack(data: Published, studies: Sequence[Study]) -> Any:
    """What the error of the AUC means for published MIA scores, and whether the formula agrees with a
    bootstrap on records.
    """
    lines = []
    for s in data.attack_sets:
        n = s["members"]
        group = together(data, n)
        pairs = [(a, b) for a, b in combinations([r for r in data.rows if r.mia > 0], 2)]
        level = sum(not told_apart(a.mia, b.mia, n, n) for a, b in pairs)
        half = Z * 2 * math.hypot(*[auc_error(0.5, n, n)] * 2)
        lines.append(
            f"{n} texts a side: near an AUC of 0.5, two MIA scores must differ by {half:.2f} to be told"
            f" apart at 95 %. Of the {len(pairs)} pairs of published rows with scores above 0, {level} are"
            f" not; the {len(group)} highest, from {group[0].label} {group[0].mia:g} to {group[-1].label}"
            f" {group[-1].mia:g}, are one group. In the final score the error weighs"
            f" {2 * auc_error(0.5, n, n) / 3:.3f} (one standard error)."
        )
    lines.append(_transfer(data))
    found = [
        b
        for s in studies
        for m in s
        for b in (bootstrapped(r) for r in s[m])
        if b and 0.05 < b[0] < 0.95 and b[2] > 1e-6
    ]
    ratio = sorted(b[2] / b[1] for b in found)
    if ratio:
        middle = ratio[len(ratio) // 2]
        verdict = (
            "the formula is good enough for this" if 0.8 < middle < 1.25 else "read the formula with care"
        )
        lines.append(
            f"On records, a bootstrap over texts gives {middle:.2f} times the formula's error in the"
            f" median of {len(ratio)} records with an AUC between 0.05 and 0.95 ({ratio[0]:.2f} to"
            f" {ratio[-1]:.2f}): {verdict}."
        )
    return say(bullets(lines))


def _transfer(data: Published) -> str:
    """A system whose attack was measured on two sets: how many standard errors lie between."""
    local, online = data.papers["zjuklab-local"], data.row("7B", "ZJUKLAB")
    said = []
    for s in data.attack_sets:
        n = s["members"]
        gap = abs(side(online.mia) - max(local["auc"], 1 - local["auc"]))
        error = math.hypot(auc_error(local["auc"], n, n), auc_error(side(online.mia), n, n))
        said.append(f"{gap / error:.0f} (with {n} texts a side)")
    return (
        f"Chance does not explain everything: ZJUKLAB {{cite}}`zjuklab2025` had an AUC of {local['auc']}"
        f" in its own evaluation, a MIA score of {lume.mia_score(local['auc']):.3f}, and {online.mia} in"
        f" the organisers', {' or '.join(said)} standard errors away. A setting that balances the attack"
        " on one set of texts need not balance it on another; that paper itself says that the MIA score"
        " is not enough."
    )


def intervals(data: Published) -> tuple[Any, str]:
    """Published MIA scores above 0 with 95 % intervals for the two sizes of the public sets."""
    rows = sorted((r for r in data.rows if r.mia > 0), key=lambda r: -r.mia)
    widths = {34: (2.0, 0.55), 150: (6.0, 0.55)}
    shade = PARTS["mia"][1]
    fig, axis = plt.subplots(figsize=(8.2, 1.5 + 0.24 * len(rows)))
    words = []
    for y, r in enumerate(rows):
        said = []
        for s in sorted(data.attack_sets, key=lambda s: s["members"]):
            low, high = mia_interval(r.mia, s["members"], s["nonmembers"])
            width, alpha = widths.get(s["members"], (4.0, 0.4))
            axis.plot(
                [low, high],
                [y, y],
                color=shade,
                linewidth=width,
                alpha=alpha,
                solid_capstyle="butt",
                zorder=2,
                label=f"95 % interval, {s['members']} texts a side" if y == 0 else None,
            )
            said.append(f"{low:.2f} to {high:.2f} with {s['members']}")
        mark = {"marker": "|", "markersize": 12, "markeredgewidth": 2, "color": style.INK, "linestyle": ""}
        axis.plot([r.mia], [y], zorder=3, label="published" if y == 0 else None, **mark)
        words.append(f"{r.label} {r.mia:g} ({', '.join(said)})")
    axis.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="MIA score: 1 - 2 |AUC - 0.5|")
    axis.set_yticks(range(len(rows)), [r.label for r in rows], fontsize=9.5)
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=3)
    return fig, "Published MIA scores with 95 % intervals. " + "; ".join(words) + "."
