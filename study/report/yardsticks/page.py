"""The answer of the page of yardsticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from reprolib.metrics.ranks import Ranking
from study.readings import twin
from study.readings.twin import distance
from study.report import style, words
from study.report.words import listed, say
from study.report.yardsticks.definitions import (
    ALPHA,
    ATTACKS,
    BENCHES,
    NEAR,
    YARDSTICKS,
    Study,
    collapsed,
    value,
)
from study.report.yardsticks.ranking import WHOLES, Agreement, agreements, hidden_from_loss, least, tau
from study.report.yardsticks.redrawn import behind_first, lags
from study.report.yardsticks.tables import methods_of, whole

# --- the answer of the page ---------------------------------------------------------------------------------


def answer(core: Study, wide: Study, ranking: Ranking | None) -> Any:
    """The page in sentences: who agrees with the distance, what the attacks see, who collapsed, and how
    stable the order is.
    """
    found = [a for a in agreements(core, wide) if math.isfinite(a.tau)]
    methods = methods_of(wide)
    lines, detail = [], []  # what the box says, and what stands below it
    leads = sorted({m for a in found for m in a.first if len(a.first) == 1})
    own = min(methods, key=lambda m: distance(core, m)) if methods else ""
    same = [a.label for a in found if own in a.first]
    lines.append(
        f"The method that is closest by the distance, {style.label(own)}, is first by {len(same)} of the"
        f" {len(found)} as well; between them, the yardsticks put {len(leads)} different methods first on"
        " their own."
    )
    detail += [_halves_line(found, wide), _attack_line(wide)]
    gone = {m: collapsed(wide, m) for m in methods}
    seeds = min(len(wide[m]) for m in methods)
    named = [f"{style.label(m)} ({k} of {len(wide[m])} seeds)" for m, k in gone.items() if k]
    detail.append(
        "Collapsed (most of what they write for retain prompts is empty, a loop or gibberish):"
        f" {listed(named, 20)}."
        if named
        else "No method's model collapsed: most of what each writes for retain prompts is text."
    )
    stutter = [m for m in methods if _stutters(wide, m)]
    if stutter:
        twin = np.mean([value(r, "fluency/forget/repetition") for r in wide["twin"]])
        detail[-1] += (
            f" For forget prompts it is another matter: {len(stutter)} of {len(methods)} repeat themselves"
            f" in more than {100 * NEAR:.0f} % of what they write there, in every seed (the twin in"
            f" {100 * twin:.0f} %): {words.names(stutter, 12)}."
        )
    if ranking is not None:
        lines.append(_rank_line(ranking, core))
    bullets = "\n".join(f"- {x}" for x in lines)
    end = f"{len(methods)} methods, {seeds} seed{'s' if seeds > 1 else ''} each. " + (
        "With one seed nothing is said about spread."
        if seeds == 1
        else (
            f"Beyond chance: Holm-corrected over the {len(found)} yardsticks, at"
            f" {ALPHA:.2f}{_needed(len(methods), len(found))}."
        )
    )
    more = "\n".join(f"- {x}" for x in detail)
    return say(
        "```{admonition} The answer\n:class:"
        f" tip\n{_headline(found, core, wide)}\n\n{bullets}\n\n{end}\n```\n\nIn detail:\n\n{more}"
    )


def _needed(methods: int, yardsticks: int) -> str:
    t = least(methods, ALPHA / max(1, yardsticks))
    return f"; of so few methods, the first tau must reach {t:.2f} for it" if t <= 1 else ""


def between_seeds(core: Study, wide: Study) -> float:
    """How well the distance agrees with itself: mean Kendall's tau between its orders of the same methods, by
    two seeds each; NaN with one.
    """
    methods, seeds = methods_of(wide), sorted({r.spec.seed for r in wide["twin"]})
    far = {m: twin.by_seed(core, m) for m in methods}
    found = [
        tau({m: far[m][a] for m in methods}, {m: far[m][b] for m in methods}, methods)[0]
        for a, b in combinations(seeds, 2)
    ]
    return sum(found) / len(found) if found else math.nan


def _degree(t: float) -> str:
    return "closely" if t >= 0.8 else "roughly" if t >= 0.5 else "loosely" if t >= 0.25 else "hardly"


def _headline(found: Sequence[Agreement], core: Study, wide: Study) -> str:
    """How far benchmarks as wholes, then single yardsticks, see the order of the distance; the words follow
    from tau alone.
    """
    if not found:
        return "No two of the orders can be compared: there are too few methods."
    wholes, single, sure = (
        [a for a in found if a.name in WHOLES],
        [a for a in found if a.name in YARDSTICKS],
        [a for a in found if a.holm < ALPHA and a.tau > 0],
    )
    own, lines = between_seeds(core, wide), []
    named = f": {listed([a.label for a in sure], 6)}" if sure else ""
    n = (
        f"{len(sure)} of {len(found)} yardsticks agree{'s' if len(sure) == 1 else ''}"
        if sure
        else f"None of {len(found)} yardsticks agrees"
    )
    lines.append(
        f"**{n} beyond chance with the order of {len(methods_of(wide))} methods by the book's"
        f" distance**{named}."
    )
    if wholes:
        said = listed(
            [
                f"{BENCHES[a.name]} ({_made_of(a.name)}) {_degree(a.tau)}, {a.tau:.2f}{_over(a.seeds)}"
                for a in wholes
            ]
        )
        itself = (
            f" The distance's own orders by two seeds agree with {own:.2f}." if math.isfinite(own) else ""
        )
        lines.append(f"Benchmarks read as a whole agree by Kendall's tau: {said}.{itself}")
    if single:
        middle = float(np.median([a.tau for a in single]))
        lines.append(
            f"One number alone {_degree(middle)} agrees: tau of {len(single)} yardsticks has a median of"
            f" {middle:.2f}, and runs from {single[-1].tau:.2f} ({single[-1].label}) to"
            f" {single[0].tau:.2f} ({single[0].label})."
        )
    return " ".join(lines)


def _over(taus: Sequence[float]) -> str:
    """The range over single seeds, if there are several."""
    finite = [t for t in taus if math.isfinite(t)]
    return f" (single seeds: {min(finite):.2f} to {max(finite):.2f})" if len(finite) > 1 else ""


def _made_of(bench: str) -> str:
    parts = [YARDSTICKS[p].label for p in WHOLES[bench][1]]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) < 3 else f"{len(parts)} parts"


def _halves_line(found: Sequence[Agreement], wide: Study) -> str:
    """Which yardsticks see one half of the task only, judged by the ladder: what has forgotten nothing, what
    has forgotten everything.
    """
    kept = [a for a in found if a.places.get("target", 0) > 0.5]
    gone = [a for a in found if max(a.places.get(m, 0) for m in ("random", "always_eos")) > 0.5]
    neither = [a.label for a in found if a not in kept and a not in gone]
    return (
        f"{_count(kept, found)} put{'s' if len(kept) == 1 else ''} the untouched target ahead of more than"
        f" half of the methods{_those(kept)}; {_count(gone, found)} put{'s' if len(gone) == 1 else ''}"
        f" random weights or a model that is silent there{_those(gone)}. Those that do neither:"
        f" {listed(neither, 20) if neither else 'none'}."
    )


def _count(some: Sequence[Any], every: Sequence[Any]) -> str:
    return f"{len(some) or 'None'} of {len(every)}"


def _those(some: Sequence[Agreement]) -> str:
    return f" ({listed([a.label for a in some], 4)})" if some else ""


def _stutters(wide: Study, method: str) -> bool:
    """Whether more than ``NEAR`` of what a method writes for forget prompts repeats itself, in every seed."""
    return all(value(r, "fluency/forget/repetition") > NEAR for r in wide[method])


def _attack_line(wide: Study) -> str:
    like = hidden_from_loss(wide)
    seen = {m: ks for m, ks in like.items() if ks}
    text = (
        f"To the loss attack, {words.names(like, 20) if like else 'no method'}"
        f" look{'s' if len(like) < 2 else ''} like the twin (AUC within {NEAR:.1f} in every seed)."
    )
    if seen:
        parts = [f"{style.label(m)} by {listed([ATTACKS[k] for k in ks])}" for m, ks in seen.items()]
        text += (
            f" Other attacks tell {'it' if len(like) == 1 else 'some of these'} from the twin in every"
            f" seed: {listed(parts, 20)}."
        )
    elif like:
        text += " No other attack tells any of these from the twin in every seed."
    return text


def _rank_line(ranking: Ranking, core: Study) -> str:
    best = int(np.argmax(ranking.score))
    adjusted = behind_first(ranking)
    alike = [
        m
        for m in sorted(adjusted, key=lambda m: -ranking.score[ranking.methods.index(m)])
        if not adjusted[m] < ALPHA
    ]
    if not math.isfinite(ranking.tau):
        return "One seed and one document a stratum: the order cannot be resampled."
    text = (
        "The leaderboard's own order: two draws of documents and seeds agree with a tau of"
        f" {ranking.tau:.2f}. {style.label(ranking.methods[best])} stands between places"
        f" {whole(ranking.low[best])} and {whole(ranking.high[best])} in 95 % of them, and "
    )
    n, sure = len(adjusted), sum(i.low > 0 for m, i in lags(ranking, core).items() if m in adjusted)
    text += f"is ahead of {n - len(alike)} of {n} others beyond chance, corrected for their number" + (
        f"; not of {words.names(alike, 12)}." if alike else "."
    )
    text += f" By the three seeds alone, as Student's t has them, it is told apart from {sure}.".replace(
        "three", _word(ranking.n_seeds)
    )
    return (
        text + " The first page and the leaderboard draw nothing anew: they name the methods whose range of"
        " distances over seeds overlaps with the first's."
    )


def _word(n: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}.get(n, str(n))
