"""The leaderboard: all methods that end with few forget questions answered in one order, by the gap to the twin that they close."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt

from reprolib.metrics.statistics import SeedsInterval, seeds_interval
from reprolib.record import Record
from reprolib.report import page, style
from reprolib.report.summary import LADDER
from reprolib.report.tables import Table, cell, number
from reprolib.search import LEVEL

SHOWN = 8  # up to so many methods the first page shows all of them
Study = Mapping[str, Sequence[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the leaderboard. Readings are means over seeds; the interval is Student's t over seeds, cut at 1."""

    method: str
    seeds: int
    diverged: int
    reached: int  # seeds that end at the level or below
    group: str  # whether all seeds do, some or none
    distances: tuple[float, ...]  # by seed
    gaps: tuple[float, ...]  # gap closed, by seed
    gap: SeedsInterval | None  # None where a seed has no finite one
    readings: Mapping[str, float]  # the five of the distance
    retains: str  # where the recipe uses retain rows (:func:`retains`); "" for the ladder
    cost: str  # of a step
    steps: float
    final: float  # official

    @property
    def label(self) -> str:
        return style.label(self.method)

    @property
    def family(self) -> str:
        if self.method in LADDER:
            return "ladder"
        return "bound" if page.bound(self.method) else style.family(self.method) or "other"

    @property
    def counts(self) -> bool:
        """Whether it is a method: neither the ladder nor a bound."""
        return self.family not in ("ladder", "bound")

    @property
    def distance(self) -> float:
        return sum(self.distances) / len(self.distances)

    @property
    def extent(self) -> tuple[float, float]:
        return page.extent(self.distances)


def board(study: Study, level: float = LEVEL) -> tuple[Entry, ...]:
    """The models of the study in the leaderboard's order (:func:`reprolib.report.page.ranking`)."""
    return tuple(_entry(study, m, level) for m in page.ranking(study, study, level))


def _entry(study: Study, method: str, level: float) -> Entry:
    records = study[method]
    gaps = tuple(page.closed(study, method).values())
    five = [page.readings(r) for r in records]
    steps = [r.cost.get("steps", math.nan) for r in records]
    return Entry(
        method=method, seeds=len(records), diverged=sum(r.status == "diverged" for r in records),
        reached=page.reached(study, method, level), group=page.group(study, method, level),
        distances=tuple(page.by_seed(study, method).values()), gaps=gaps,
        gap=_cut(gaps) if all(math.isfinite(g) for g in gaps) else None,
        readings={k: sum(r[k] for r in five) / len(five) for k in five[0]},
        retains="" if method in LADDER else retains(method, records[0].spec.options),
        cost="" if method in LADDER else _recipe(method).cost_class, steps=sum(steps) / len(steps), final=page.mean(records, "lume/final"),
    )  # fmt: skip


def retains(method: str, options: Mapping[str, Any] | None = None) -> str:
    """Where a recipe uses retain rows: "in the loss" of a stage, elsewhere as its optimizer or edit says, or "no"."""
    stages = _recipe(method).build(options or {})
    if any(getattr(getattr(s, "objective", None), "retain", None) is not None for s in stages):
        return "in the loss"
    said = [getattr(x, "reads_retain", "") for s in stages for x in (s, getattr(s, "optimizer", None))]
    return next((x for x in said if x), "no")


def _recipe(method: str) -> Any:
    from reprolib.recipes import recipe

    return recipe(method)


def _cut(values: Sequence[float]) -> SeedsInterval:
    i = seeds_interval(values)
    return i._replace(high=min(1.0, i.high)) if math.isfinite(i.high) else i


def _places(entries: Sequence[Entry]) -> dict[str, int]:
    """Places are counted over methods of which all seeds end at the level; the ladder and bounds stand between them without one."""
    return {e.method: n for n, e in enumerate((e for e in entries if e.counts and e.group == "all" and e.gap), 1)}


def _titles(level: float) -> dict[str, str]:
    most = f"at most {100 * level:.0f}\u202f% of the forget questions answered"
    return {"all": f"all seeds end with {most}", "some": f"only some seeds end with {most}", "none": f"no seed ends with {most}"}


def table(entries: Sequence[Entry], level: float = LEVEL) -> Table:
    """The leaderboard as a table, and its plain values for the CSV."""
    header = (
        "place", "model", "family", "seeds at the level", "gap closed ↑", "distance ↓", "forget q. → twin", "forget passages → twin",
        "attack AUC → twin", "retain q. ↑", "world q. ↑", "retain rows", "cost of a step", "steps", "official final ↑",
    )  # fmt: skip
    names = ("forget_questions", "forget_passages", "attack_auc", "retain_questions", "world_questions")
    places, rows, data, groups = _places(entries), [], [], {}
    for n, e in enumerate(entries):
        if n == 0 or e.group != entries[n - 1].group:
            groups[n] = _titles(level)[e.group]
        place = places.get(e.method, "")
        swatch = f'<span class="swatch" style="background:{tint(e)}"></span>'
        note = f' <span class="diverged">({e.diverged} of {e.seeds} diverged)</span>' if e.diverged else ""
        low, high = e.extent
        own = f' <span class="interval">({number(low)} to {number(high)})</span>' if e.seeds > 1 else ""
        rows.append((
            f"{place or '–'}", swatch + html.escape(e.label) + note, e.family, f"{e.reached} of {e.seeds}", cell(e.gap) if e.gap else "–",
            number(e.distance) + own, *(number(e.readings[k]) for k in names), e.retains or "–", e.cost or "–",
            f"{e.steps:.0f}" if math.isfinite(e.steps) else "–", number(e.final),
        ))  # fmt: skip
        data.append({
            "place": place, "method": e.method, "family": e.family, "seeds": e.seeds, "diverged": e.diverged, "seeds_at_level": e.reached,
            "group": e.group, "gap_closed": _plain(e.gap and e.gap.estimate), "gap_closed_low": _plain(e.gap and e.gap.low),
            "gap_closed_high": _plain(e.gap and e.gap.high), "distance": _plain(e.distance), "distance_low": _plain(low),
            "distance_high": _plain(high), **{k: _plain(e.readings[k]) for k in names}, "retain_rows": e.retains,
            "cost_of_a_step": e.cost, "steps": _plain(e.steps), "official_final": _plain(e.final),
        })  # fmt: skip
    caption = (
        "Within the first group, ordered by the gap closed; within the others, by the distance. Brackets: 95 % t intervals over seeds; "
        "parentheses: range over seeds; readings are means over seeds. Places are counted over methods."
    )
    help_ = {
        "gap closed ↑": "1 - distance / the target's distance, of the same seed. 1: the twin; 0: as far as the untouched target; below 0: farther.",
        "distance ↓": "Mean absolute difference to the twin of the same seed over the five readings to the right.",
        "retain rows": "Where the method uses retain rows. In the loss: the retain questions are among the rows that it trains on.",
        "cost of a step": "Forward and backward passes, and what comes on top.",
        "official final ↑": "Mean of task aggregate, MIA score and utility; a destroyed model gets about 0.4.",
    }
    return Table(header, tuple(rows), caption, help_, data=tuple(data), groups=groups, named=1)


def _plain(x: float | None) -> float | str:
    return "" if x is None or not math.isfinite(x) else round(x, 4)


def tint(e: Entry) -> str:
    """One colour a family here, so that a legend of families holds for all rows."""
    return style.colour(e.method) if e.family in ("ladder", "other") else style.FAMILIES["baseline" if e.family == "bound" else e.family]


def chart(entries: Sequence[Entry], level: float = LEVEL) -> tuple[Any, str]:
    """One row a model in the leaderboard's order: its mean gap closed, the interval over seeds, and single seeds as ticks."""
    here = [g for g in page.GROUPS if any(e.group == g for e in entries)]
    places = [y + 1.15 * here.index(e.group) for y, e in enumerate(entries)]  # a free row above every group but the first
    fig, axis = plt.subplots(figsize=(8.6, 1.9 + 0.25 * (places[-1] + 1)))
    middles = [v for e in entries for v in e.gaps if math.isfinite(v)]
    floor = max(min([-0.1, *middles]) - 0.06, -3.0)
    for y, e in zip(places, entries, strict=True):
        if not e.gap:
            continue
        look = {"color": tint(e), "linestyle": "", "marker": style.marker(e.method)}
        if math.isfinite(e.gap.low):
            bar = {"color": tint(e), "alpha": 0.45, "solid_capstyle": "butt", "zorder": 2}
            axis.plot([max(e.gap.low, floor), max(e.gap.high, floor)], [y, y], linewidth=3, **bar)
            if e.gap.low < floor:  # goes on beyond the axis
                axis.plot([floor], [y], markersize=5, clip_on=False, zorder=3, **look | {"marker": "<"})
        axis.plot([max(v, floor) for v in e.gaps], [y] * len(e.gaps), markersize=8, zorder=3, **look | {"marker": "|"})
        axis.plot([max(e.gap.estimate, floor)], [y], markersize=11 if e.method == "twin" else 7, zorder=4, **look)
    axis.axvline(1, color=style.COLOURS["twin"], linestyle="--", linewidth=1.4, zorder=1)
    axis.axvline(0, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    for group in here:
        first = next(y for y, e in zip(places, entries, strict=True) if e.group == group)
        if group != here[0]:
            axis.axhline(first - 1.6, color=style.INK, linewidth=0.8, zorder=1)
        if group != "all":
            axis.text(0, first - 1.0, f"  {_titles(level)[group]}", va="center", fontsize=9, style="italic")
    top = 0.7 if here[0] == "all" else 1.7
    axis.set(xlim=(floor, 1.05), ylim=(places[-1] + 0.7, -top), xlabel="gap closed: 1 - distance / the target's distance to the twin")
    axis.set_yticks(places, [e.label for e in entries], fontsize=9.5)
    for text, e in zip(axis.get_yticklabels(), entries, strict=True):
        text.set_style("italic" if e.method in LADDER else "normal")
    axis.grid(axis="y", alpha=0.2)
    handles, names, columns = _legend(entries)
    fig.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)
    said = [f"{_titles(level)[g]}: " + "; ".join(_said(e) for e in entries if e.group == g) for g in here]
    alt = "Dot chart of the gap to the twin that each model closes, 1 the twin and 0 the untouched target. "
    return fig, alt + ". ".join(s[0].upper() + s[1:] for s in said) + "."


def _said(e: Entry) -> str:
    if not e.gap:
        return f"{e.label} not finite"
    return f"{e.label} {e.gap.estimate:.2f}" + (f" ({e.gap.low:.2f} to {e.gap.high:.2f})" if math.isfinite(e.gap.low) else "")


def _legend(entries: Sequence[Entry]) -> tuple[list[Any], list[str], int]:
    """A handle a family, then, in columns of their own, what the shapes mean."""
    colours = {e.family: tint(e) for e in entries if e.counts}
    order = [f for f in style.FAMILIES if f in colours] + [f for f in colours if f not in style.FAMILIES]
    ink = style.INK
    families = [(plt.Line2D([], [], marker="o", color=colours[f], linestyle="", markersize=7), f) for f in order]
    if any(e.family == "bound" for e in entries):
        families.append((plt.Line2D([], [], marker="o", color=style.FAMILIES["baseline"], linestyle="", markersize=7), "bounds"))
    shapes = [
        (plt.Line2D([], [], marker="o", color=ink, linestyle="", markersize=7), "mean over seeds"),
        (plt.Line2D([], [], color=ink, linewidth=3, alpha=0.45), "95 % interval over seeds"),
        (plt.Line2D([], [], marker="|", color=ink, linestyle="", markersize=8), "single seeds"),
        (plt.Line2D([], [], color=style.COLOURS["twin"], linestyle="--", linewidth=1.4), "retrained twin"),
        (plt.Line2D([], [], color=ink, linestyle=":", linewidth=1.4), "untouched target"),
    ]
    rows = max(3, math.ceil(len(families) / 3))
    gap = (plt.Line2D([], [], linestyle=""), "")
    filled = [part + [gap] * (-len(part) % rows) for part in (families, shapes)]  # whole columns
    both = [*filled[0], *filled[1]]
    return [h for h, _ in both], [t for _, t in both], len(both) // rows


def answer(entries: Sequence[Entry], study: Study, level: float = LEVEL) -> Any:
    """The leaderboard in sentences: who leads and from whom it is not told apart, what chance alone does, and who falls behind."""
    methods = [e for e in entries if e.counts]
    bounds = [e for e in entries if e.family == "bound"]
    by = {e.method: e for e in entries}
    there = {g: [e for e in methods if e.group == g] for g in page.GROUPS}
    percent = f"{100 * level:.0f}\u202f%"
    seeds = min((e.seeds for e in methods), default=0)
    floor = page.noise(study)
    ranked = [e for e in there["all"] if e.gap]
    lines = []
    if ranked:
        best = ranked[0]
        lines.append(
            f"Of {page.counted(e.method for e in entries)}, {len(there['all'])} method{'s' if len(there['all']) != 1 else ''} "
            f"end{'' if len(there['all']) != 1 else 's'} with at most {percent} of the forget questions answered in every seed. Among them, "
            f"**{best.label}** leads: it closes {best.gap.estimate:.2f} of the gap, at a distance of {best.distance:.2f}{_over(best)}. "
            f"{_plainly(best, by['twin'])}"
        )
        alike = [e.method for e in ranked[1:] if page.overlap(e.extent, best.extent)]
        if seeds > 1:
            lines.append(
                f"Not told apart from it, because the ranges of the distance over seeds overlap: {page.names(alike, 12)}."
                if alike
                else "The range of its distance over seeds overlaps with that of no other method."
            )
    else:
        lines.append(
            f"Of {page.counted(e.method for e in entries)}, no method ends with at most {percent} of the forget questions answered in every "
            "seed and with finite readings."
        )
    if math.isfinite(floor):
        below = [e.method for e in methods if e.distance < floor]
        lines.append(
            f"Noise floor: twins of different seeds lie up to {floor:.2f} from each other. Distances below that mean nothing, and neither do "
            f"differences in distance that are small beside it. {page.names(below) if below else 'No method'} {'lie' if len(below) > 1 else 'lies'} below it."
        )
    for g, text in (("some", "Only some seeds end at that level"), ("none", "No seed ends at that level")):
        part = [f"{e.label} ({e.reached} of {e.seeds})" if g == "some" else e.label for e in there[g]]
        if part:
            lines.append(f"{text}: {page.listed(part, 12)}.")
    worse = [e.method for e in methods if e.gap and e.gap.estimate < 0]
    if worse:
        lines.append(f"Farther from the twin than the untouched target: {page.names(worse, 12)}.")
    for name in ("random", "always_eos"):
        rung = by.get(name)
        if rung and rung.gap:
            lower = [e.method for e in methods if e.gap and e.gap.estimate < rung.gap.estimate]
            if lower:
                lines.append(f"Below {rung.label.lower()}, which closes {rung.gap.estimate:.2f}: {page.names(lower, 12)}.")
    if any(e.gap for e in bounds):
        part = [f"{e.label} {e.gap.estimate:.2f}" for e in bounds if e.gap]
        lines.append(f"The bounds, which no one would use as a method, close: {page.listed(part)}.")
    lost = [e.method for e in methods if not e.gap]
    if lost:
        lines.append(f"Gap closed not finite: {page.names(lost, 12)}.")
    gone = [e.method for e in methods if e.diverged]
    if gone:
        lines.append(f"Diverged in some seed: {page.names(gone)}.")
    bullets = "\n".join(f"- {x}" for x in lines)
    end = f"{seeds} seeds a method, one setting each." if seeds > 1 else "One seed says nothing about spread, so no method is told apart from another."
    return page.say(f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\n{end}\n```")


def _plainly(e: Entry, twin: Entry) -> str:
    """The five readings of a model, the twin's in parentheses."""
    a, b = e.readings, twin.readings

    def share(k: str) -> str:
        return f"{_share(a[k])} ({_share(b[k])})"

    return (
        f"It answers {share('forget_questions')} of the forget, {share('retain_questions')} of the retain and {share('world_questions')} of the "
        f"world questions, continues forget passages with ROUGE-L {a['forget_passages']:.2f} ({b['forget_passages']:.2f}) and leaves the attack "
        f"an AUC of {a['attack_auc']:.2f} ({b['attack_auc']:.2f}); in parentheses, the twin."
    )


def _share(x: float) -> str:
    return f"{100 * x:.0f}\u202f%"


def _over(e: Entry) -> str:
    low, high = e.extent
    return f" ({low:.2f} to {high:.2f} over seeds)" if e.seeds > 1 else ""


def selection(study: Study, most: int = SHOWN) -> dict[str, Sequence[Record]]:
    """What the first page shows: the ladder, and all methods if they are few, else the first of each family on the leaderboard (bounds left out)."""
    methods = [m for m in study if m not in LADDER]
    if len(methods) > most:
        best: dict[str, str] = {}
        for m in page.ranking(study, [m for m in methods if not page.bound(m)]):
            best.setdefault(style.family(m) or m, m)  # a method without a family stands for itself
        methods = [m for m in methods if m in best.values()]
    return {m: records for m, records in study.items() if m in LADDER or m in methods}


def selected(study: Study, chosen: Study) -> Any:
    """What of the study a page shows, and where the rest is."""
    every, shown = ([m for m in s if m not in LADDER] for s in (study, chosen))
    link = "{doc}`/results/notebooks/synthesis/leaderboard`"
    if len(every) == len(shown):
        return page.say(f"All {page.counted(every)} are shown below; in one order, with what the order means: {link}.")
    of = sum(not page.bound(m) for m in every)
    return page.say(
        f"Shown below: of each family of methods the one that stands first on the leaderboard, {len(shown)} of {of}. Being "
        f"chosen for its result flatters it a little. All {page.counted(every)} are on the leaderboard: {link}."
    )
