"""Ablations by arms: what differs is one thing, arms have as many learning rates each (or their page says otherwise), and they are
compared where all have forgotten equally much.

Two readings decide. *Kept*: the mean of retain and world questions when the forget questions first come down to a tenth, read off the
trajectory, so that an arm that is merely gentler has no advantage. *Distance*: to the twin of the same seed, at the run's end, where
settings come first that leave a tenth or less, so that what merely changed little has none either. Each arm shows its best setting by
each of them: on fresh seeds that chose nothing, where a page has such runs, else on those that it was chosen on, for all arms alike, so
that arms may be compared with each other, but each looks a little better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib.pyplot as plt

from reprolib.errors import SpecError, unknown
from reprolib.experiment import run
from reprolib.metrics.statistics import SeedsInterval, holm, seeds_interval
from reprolib.record import Record
from reprolib.report import style
from reprolib.report.page import between, listed, say, seeds, within
from reprolib.report.summary import at_level, way
from reprolib.report.tables import Table, cell, number
from reprolib.search import LEVEL

KEYS = ("method", "options", "rate", "rates", "precision", "forget_documents", "forget_rows")
KEPT, DISTANCE = "kept", "distance"
HEADS = {KEPT: f"kept at {LEVEL:.0%} of the forget questions", DISTANCE: "distance to the twin at the end"}


GUESS = "≈ "
STEEP = 0.5  # more than this share of the forget questions, and in the next line of the log the level is behind


def steep(record: Record) -> bool:
    """Whether the level was passed in one great leap of the log, so that what is kept there is a straight line's guess."""
    points = way(record)
    first = next((i for i, p in enumerate(points) if p["forget/questions"] <= LEVEL), 0)
    return first > 0 and not points[first]["jump"] and points[first - 1]["forget/questions"] > STEEP


@dataclass(frozen=True, slots=True)
class Setting:
    """One learning rate of an arm."""

    rate: float | None
    records: tuple[Record, ...]  # by seed
    kept: tuple[float, ...]  # NaN for a seed that never gets there
    distance: tuple[float, ...]

    @property
    def forgot(self) -> int:
        """Seeds that end at the level or below, with a distance at all."""
        ends = (r.metrics["forget/questions"] for r in self.records)
        return sum(math.isfinite(d) and end is not None and end <= LEVEL for d, end in zip(self.distance, ends, strict=True))

    @property
    def guessed(self) -> bool:
        """Whether what is kept at the level is a straight line's guess in most of the seeds that get there."""
        return 2 * sum(map(steep, self.records)) > sum(map(math.isfinite, self.kept))

    def place(self, reading: str) -> tuple[float, ...]:
        """What orders settings, the largest first: seeds that forgot and that have the reading at all, then the reading."""
        values = getattr(self, reading)
        there = sum(map(math.isfinite, values))
        return (there, _mean(values)) if reading == KEPT else (self.forgot, there, -_mean(values))


@dataclass(frozen=True, slots=True)
class Arm:
    label: str
    method: str
    settings: tuple[Setting, ...]
    fresh: Mapping[str, Setting] = field(default_factory=dict)  # by reading: the best setting on seeds that chose nothing

    def best(self, reading: str) -> Setting:
        """The setting with the most kept, or the smallest distance, of those with most seeds that have the reading, or that forgot."""
        return max(self.settings, key=lambda s: s.place(reading))

    def shown(self, reading: str) -> Setting:
        """The best setting, on fresh seeds if the arm has any."""
        return self.fresh.get(reading) or self.best(reading)

    def at_edge(self, setting: Setting) -> bool:
        """Whether no smaller, or no larger, rate was tried."""
        rates = [s.rate for s in self.settings if s.rate is not None]
        return setting.rate is not None and setting.rate in (min(rates), max(rates))

    def values(self, reading: str) -> tuple[float, ...]:
        return getattr(self.shown(reading), reading)


Arms = Mapping[str, Arm]


def _mean(values: Sequence[float]) -> float:
    """Over what is a finite number; NaN where nothing is."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def fields(label: str, arm: Mapping[str, Any]) -> list[tuple[float | None, dict[str, Any]]]:
    """(learning rate, fields of a run) for each setting of an arm as a page's parameters give it."""
    for key in arm:
        if key not in KEYS:
            raise SpecError(f"arm {label!r}: " + unknown("key", key, KEYS))
    if "method" not in arm:
        raise SpecError(f"arm {label!r}: method is missing; allowed keys: {', '.join(KEYS)}.")
    common = {k: v for k, v in arm.items() if k not in ("options", "rate", "rates")}
    options, rates = dict(arm.get("options", {})), arm.get("rates")
    if rates is not None and not isinstance(rates, list | tuple):
        raise SpecError(f"arm {label!r}: rates must be a list of learning rates, got {rates!r}; e.g. rates: [{rates!r}].")
    if not rates:
        return [(None, common | ({"options": options} if options else {}))]
    return [(rate, common | {"options": {**options, arm.get("rate", "lr"): rate}}) for rate in rates]


def precisions(methods: Sequence[str], bases: Sequence[str], options: Mapping[str, Any], rates: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Arms that differ in the precision of the base: one for each method and base, named e.g. "NPO, nf4"."""
    return {f"{style.label(m)}, {p}": {"method": m, "options": options, "rates": rates, "precision": p} for m in methods for p in bases}


def gather(arms: Mapping[str, Mapping[str, Any]], testbed: str, seed: int | None = None, fresh: Sequence[int] = ()) -> dict[str, Arm]:
    """Records of every arm, read where they exist and computed where not.

    ``fresh``: seeds on which each arm's best settings run once more, none of which is among those that choose. With one ``seed`` there is
    no choice to confirm, and they are left aside.
    """
    chosen = seeds(seed)
    fresh = () if seed is not None else _fresh(fresh, chosen)
    twins = {s: run(testbed=testbed, method="twin", seed=s) for s in (*chosen, *fresh)}

    def setting(rate: float | None, own: Mapping[str, Any], over: Sequence[int]) -> Setting:
        records = tuple(run(testbed=testbed, seed=s, **own) for s in over)
        away = tuple(between(r, twins[s]) for r, s in zip(records, over, strict=True))
        return Setting(rate, records, tuple(kept(r) for r in records), away)

    out = {}
    for label, arm in arms.items():
        own = fields(label, arm)
        tried = Arm(label, arm["method"], tuple(setting(rate, f, chosen) for rate, f in own))
        again = {reading: tried.settings.index(tried.best(reading)) for reading in (KEPT, DISTANCE)} if fresh else {}
        anew = {i: setting(*own[i], fresh) for i in set(again.values())}
        out[label] = replace(tried, fresh={reading: anew[i] for reading, i in again.items()})
    return out


def _fresh(given: Any, chosen: Sequence[int]) -> tuple[int, ...]:
    from reprolib.grid import Search

    search = Search.load()
    used = [*chosen, *([search.seed] if search else [])]
    if not isinstance(given, list | tuple) or not all(isinstance(s, int) and not isinstance(s, bool) for s in given):
        raise SpecError(f"fresh must be a list of seeds, whole numbers, got {given!r}; e.g. fresh: [3, 4, 5], or [] for none.")
    wrong = sorted({s for s in given if s in used or given.count(s) > 1})
    if wrong:
        raise SpecError(f"fresh seeds must be other ones than those that choose settings or options, {used}, and each once; got {list(given)}: look at {wrong}.")
    return tuple(given)


def kept(record: Record) -> float:
    """Mean of retain and world questions when the level is first reached; NaN if it never is."""
    found = at_level(record, LEVEL)
    return math.nan if found is None else (found["retain/questions"] + found["world/accuracy"]) / 2


def difference(arms: Arms, a: str, b: str, reading: str = KEPT) -> SeedsInterval | None:
    """a - b, seed by seed, each at its best setting, with a t interval over seeds; None if fewer than two seeds have both."""
    both = _differences(arms, a, b, reading)
    return seeds_interval(both) if len(both) > 1 else None


def _differences(arms: Arms, a: str, b: str, reading: str) -> list[float]:
    own, others = ({r.spec.seed: v for r, v in zip(s.records, getattr(s, reading), strict=True)} for s in (arms[k].shown(reading) for k in (a, b)))
    return [v - others[seed] for seed, v in own.items() if seed in others and math.isfinite(v - others[seed])]


def apart(arms: Arms, pairs: Sequence[tuple[str, str]], level: float = 0.05) -> list[tuple[str, str, str]]:
    """(better arm, worse arm, reading) of the pairs that are told apart, Holm-corrected over all pairs and both readings.

    The p-value is that of the paired t test that :func:`better` makes one by one; a pair counts once, whichever way it is asked. With
    fewer than three seeds nothing is told apart.
    """
    from scipy.stats import ttest_1samp

    found = []
    for a, b in {frozenset(p): p for p in pairs}.values():
        for reading, gain in ((KEPT, 1), (DISTANCE, -1)):
            both = _differences(arms, a, b, reading)
            if len(both) > 2:
                same = max(both) == min(both)  # no spread: no test, but a difference all the same
                p = float(both[0] == 0) if same else float(ttest_1samp(both, 0).pvalue)
                found.append((p, (a, b, reading) if gain * sum(both) > 0 else (b, a, reading)))
    corrected = holm([p for p, _ in found]) if found else []
    return [names for (_, names), p in zip(found, corrected, strict=True) if p < level]


def ahead(arms: Arms, pairs: Sequence[tuple[str, str]], level: float = 0.05) -> list[tuple[str, str, str]]:
    """Of the pairs, those whose first arm does better than its second: :func:`apart`, one way."""
    return [found for found in apart(arms, pairs, level) if found[:2] in {tuple(p) for p in pairs}]


WIDE = 0.25  # of a reading from 0 to 1: seeds that lie further apart are shown by their range


def _shown(values: Sequence[float], reading: str) -> str:
    m = _mean(values)
    return "–" if math.isnan(m) else f"{100 * m:.0f}\u202f%" if reading == KEPT else f"{m:.2f}"


def _told(arm: Arm, reading: str) -> str:
    """An arm's mean, the range of its seeds where they lie far apart, and the learning rate at which it stands."""
    setting = arm.shown(reading)
    finite = [v for v in getattr(setting, reading) if math.isfinite(v)]
    apart = f" ({_shown([min(finite)], reading)} to {_shown([max(finite)], reading)})" if finite and max(finite) - min(finite) > WIDE else ""
    at = f" at {setting.rate:g}" if setting.rate is not None and finite else ""
    return (GUESS if reading == KEPT and setting.guessed else "") + _shown(finite, reading) + apart + at


def figure(arms: Arms) -> tuple[Any, str]:
    """A row an arm, a panel a reading: dots are seeds of the best setting (fresh ones if there are), bars their intervals, rings the means
    of other settings, and of the best on the seeds that chose it if the dots are fresh."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 1.5 + 0.42 * len(arms)), sharey=True)
    words = []
    for axis, reading in zip(axes, (KEPT, DISTANCE), strict=True):
        said = []
        for y, arm in enumerate(arms.values()):
            shade, best = style.colour(arm.method), arm.shown(reading)
            for s in arm.settings:
                m = _mean(getattr(s, reading))
                if s is not best and math.isfinite(m):
                    axis.plot(m, y, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=shade, alpha=0.7, linestyle="")
            values = [v for v in getattr(best, reading) if math.isfinite(v)]
            if len(values) > 1:
                i = within(seeds_interval(values), 1.0)
                axis.plot([i.low, i.high], [y, y], color=shade, linewidth=3, alpha=0.45, solid_capstyle="round")
            axis.plot(values, [y] * len(values), marker=style.marker(arm.method), color=shade, linestyle="")
            said.append(f"{arm.label} {number(_mean(values)) if values else 'never gets there' if reading == KEPT else 'lost it'}")
        axis.set(title=HEADS[reading].replace(" at ", "\nat "), xlabel="share of questions" if reading == KEPT else "distance (0: the twin)")
        axis.grid(axis="y", visible=False)
        words.append(f"{HEADS[reading]}: {', '.join(said)}")
    axes[0].set_xlim(-0.04, 1.04)
    axes[1].set_xlim(0, 1.04 * axes[1].get_xlim()[1])
    axes[0].set_yticks(range(len(arms)), list(arms))
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    ink = {"color": style.INK, "linestyle": ""}
    marks = [plt.Line2D([], [], marker="o", **ink), plt.Line2D([], [], marker="o", markersize=9, markerfacecolor="none", **ink)]
    new = any(arm.fresh for arm in arms.values())
    words_of = ["fresh seeds, best setting", "mean of each rate tried, on the seeds that choose"] if new else ["seeds, best setting", "mean of another setting"]
    fig.legend(marks, words_of, loc="outside lower center", ncols=2)
    return fig, "Dot plots with a row an arm. " + "; ".join(words) + "."


def show(arms: Arms) -> Any:
    """The figure with its caption."""
    new = any(arm.fresh for arm in arms.values())
    dots = "Dots: fresh seeds of the arm's best setting, with a 95 % interval; rings: means of each rate that was tried, on the seeds that choose. A shape a method." if new else "Dots: seeds of the arm's best setting, with a 95 % interval; rings: means of its other settings."
    fig, alt = figure(arms)
    return style.show(fig, alt, f"Left: what is kept (mean of retain and world questions) when forget questions first come down to a tenth; more is better. Right: distance to the twin at the run's end; less is better. {dots}")


CAPTION = (
    "Every setting. At the level: where the run first answers no more than a tenth of the forget questions, by interpolation along the trajectory, "
    "over the seeds that get there (≈: most of them fell there from more than half of the questions between two lines of the log, and the number is a straight line's guess); the other columns are the run's end. Questions count here if the greedy answer equals the true one letter for letter. Means, 95 % t intervals over seeds. KEPT and NEAREST mark the best setting of an arm, the nearest of those that leave a tenth or less in as many seeds as any of its settings does; (edge): it is the smallest or largest of the rates that were tried, and a further one might do better."
)


def table(arms: Arms) -> Table:
    """Every setting of every arm."""
    rows, data = [], []
    for arm in arms.values():
        for s in arm.settings:
            marks = [m for m, reading in (("KEPT", KEPT), ("NEAREST", DISTANCE)) if len(arm.settings) > 1 and s is arm.best(reading)]
            marks = [f"{m} (edge)" if arm.at_edge(s) else m for m in marks]
            there, away = ([v for v in values if math.isfinite(v)] for values in (s.kept, s.distance))
            end = {k: [r.metrics[k] for r in s.records] for k in ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")}
            rows.append({
                "arm": arm.label, "rate": "–" if s.rate is None else f"{s.rate:g}", "best by": ", ".join(marks) or "–",
                "at the level": f"{len(there)} of {len(s.records)}", "kept there": (GUESS if s.guessed else "") + cell(within(seeds_interval(there), 1.0)) if there else "–",
                "distance": cell(within(seeds_interval(away), None)) if away else "–", "forget q.": number(_mean(end["forget/questions"])),
                "AUC": number(_mean(end["attack/auc"])), "retain q.": number(_mean(end["retain/questions"])),
                "world q.": number(_mean(end["world/accuracy"])),
            })  # fmt: skip
            data.append({
                "arm": arm.label, "method": arm.method, "rate": s.rate, "seeds": len(s.records), "seeds_at_level": len(there),
                "kept": round(_mean(there), 4) if there else "", "distance": round(_mean(s.distance), 4),
                **{k: round(_mean(v), 4) for k, v in end.items()},
            })  # fmt: skip
    header = tuple(rows[0])
    return Table(header, tuple(tuple(str(r[k]) for k in header) for r in rows), CAPTION, data=tuple(data))


def confirmed(arms: Arms) -> Table:
    """Each arm's best setting by each reading: on the seeds that chose it, and on fresh ones."""
    rows, data = [], []
    for arm in arms.values():
        for reading, s in arm.fresh.items():
            before = arm.best(reading)
            old, new = ([v for v in getattr(x, reading) if math.isfinite(v)] for x in (before, s))
            end = {k: _mean([r.metrics[k] for r in s.records]) for k in ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")}
            rows.append({
                "arm": arm.label, "best by": "what is kept" if reading == KEPT else "distance", "rate": "–" if s.rate is None else f"{s.rate:g}",
                "where chosen": number(_mean(old)) if old else "–",
                "fresh seeds": (GUESS if reading == KEPT and s.guessed else "")
                + cell(within(seeds_interval(new), 1.0 if reading == KEPT else None)) if new else "–",
                "lowest to highest": f"{number(min(new))} to {number(max(new))}" if new else "–",
                "ended at the level": f"{s.forgot} of {len(s.records)}",
                "forget q.": number(end["forget/questions"]), "AUC": number(end["attack/auc"]),
                "retain q.": number(end["retain/questions"]), "world q.": number(end["world/accuracy"]),
            })  # fmt: skip
            data.append({
                "arm": arm.label, "method": arm.method, "reading": reading, "rate": s.rate, "chosen_on": round(_mean(old), 4) if old else "",
                "seeds": " ".join(str(r.spec.seed) for r in s.records), "mean": round(_mean(new), 4) if new else "",
                "by_seed": " ".join("" if math.isnan(v) else f"{v:.4f}" for v in getattr(s, reading)),
                **{k: round(v, 4) for k, v in end.items()},
            })  # fmt: skip
    caption = "The best settings once more. Where chosen: the mean that chose it, on the study's seeds. Fresh seeds: mean and 95 % t interval over the seeds that chose nothing and that have the reading. A seed that never comes down to a tenth has nothing kept there, and is left out. ≈: in most of them a straight line's guess, since the log leaps over the level. Ended at the level: seeds whose last model answers a tenth of the forget questions or less. The other columns are the end of these runs."
    if not rows:
        return Table.of([{"arm": "no arm has fresh seeds"}])
    return replace(Table.of(rows, caption), data=tuple(data))


def records(arms: Arms) -> list[Record]:
    # one fresh setting may be the best by both readings
    settings = (s for arm in arms.values() for s in (*arm.settings, *{id(s): s for s in arm.fresh.values()}.values()))
    return [r for s in settings for r in s.records]


def answer(arms: Arms, questions: Sequence[Sequence[str]], more: Sequence[str] = (), lead: str = "", first: Sequence[str] = ()) -> Any:
    """The answer's box: (question, a, b), each asking whether arm a does better than arm b, by what is kept and by the distance.

    ``first`` and ``more``: lines before and after; ``lead``: a first sentence in the place of the count of what is told apart.
    """
    if not questions:
        raise SpecError("questions must hold at least one (question, arm, other arm), got none.")
    pairs = [(a, b) for _, a, b in questions]
    sure, lines, verdicts = apart(arms, pairs), [], []
    for question, a, b in questions:
        own = {reading: better(arms, a, b, reading) for reading in (KEPT, DISTANCE)}
        words = {r: _verdict(v, (a, b, r) in sure or (b, a, r) in sure) for r, v in own.items()}
        said = {w: " and ".join(SHORT[r] for r in words if words[r] == w) for w in dict.fromkeys(words.values())}
        word = words[KEPT] if len(said) == 1 else "; ".join(f"{w} by {how}" for w, how in said.items())
        verdicts.append(set(own.values()))
        numbers = "; ".join(compared(arms, a, b, r) for r in own)
        lines.append(f"{question} **{word[0].upper()}{word[1:]}.** {numbers[0].upper()}{numbers[1:]}.")
    made = [v for v in verdicts if v != {"none"}]
    neither = sum(not {"yes", "no"} & v for v in made)
    counted = f"{neither} of {len(made)} comparisons {'is' if neither == 1 else 'are'} told apart by neither reading"
    counted = "Nothing can be compared" if not made else counted if neither else "Every comparison is told apart by at least one reading"
    def short(x: str, y: str, reading: str) -> str:
        guessed = reading == KEPT and any(arms[k].shown(KEPT).guessed for k in (x, y))
        return SHORT[reading] + (f" ({GUESS.strip()})" if guessed else "")

    left = {(x, y): " and ".join(short(*names, r) for *names, r in sure if names == [x, y]) for x, y, _ in sure}
    remain = listed([f"*{x}* is better than *{y}* by {how}" for (x, y), how in left.items()]) or "none is told apart"
    nearest = max(arms.values(), key=lambda arm: arm.shown(DISTANCE).place(DISTANCE))
    opening = lead or (
        f"**{counted}{f'; corrected for their number (Holm), {remain}' if made else ''}.** Nearest to the twin, of the arms that forget in as many seeds "
        f"as any, is **{nearest.label}** ({_shown(nearest.values(DISTANCE), DISTANCE)})."
    )
    n, tests = max(len(arm.shown(KEPT).records) for arm in arms.values()), sum(len(_differences(arms, a, b, r)) > 1 for a, b in pairs for r in SHORT)
    chose = max(len(s.records) for arm in arms.values() for s in arm.settings) if any(arm.fresh for arm in arms.values()) else 0
    note = (
        "Kept: retain and world questions where a tenth of the forget questions is left (≈: in most seeds a straight line's guess, over a leap in the log); "
        "distance: to the twin, at the end. The first number is the first arm's of the question, in parentheses the range of its seeds where they lie more "
        f"than {100 * WIDE:.0f} points apart; each reading has its own best rate, and a difference is taken over the seeds that have the reading in both "
        "arms. Told apart: the 95 % t interval of the difference, seed by seed, leaves out 0; not told apart does not mean equal, the interval says what "
        f"cannot be excluded. Of these {tests} intervals one in twenty would leave out 0 if there were no difference anywhere"
        + (f": corrected for that (Holm), {remain}" if lead else "") + f". {n} {'fresh ' if chose else ''}seed{'s' if n > 1 else ''}"
        + (", too few to tell anything apart" if n < 3 else "") + (f"; settings were chosen on {chose} others" if chose else "") + "."
    )  # fmt: skip
    bullets = "\n".join(f"- {x}" for x in (*first, *lines, *more) if x)
    return say("```{admonition} The answer\n:class: tip\n" + opening + f"\n\n{bullets}\n\n{note}\n```")


def _verdict(found: str, sure: bool) -> str:
    return VERDICTS[found] + ("" if sure or found not in ("yes", "no") else " (not once corrected)")


SHORT = {KEPT: "what is kept", DISTANCE: "the distance to the twin"}
VERDICTS = {"yes": "yes", "no": "no, the reverse", "open": "not told apart", "none": "not to be compared"}


def better(arms: Arms, a: str, b: str, reading: str) -> str:
    """Whether a does better than b: "yes", "no", "open" where seeds do not tell them apart, "none" where nothing can be compared."""
    found = difference(arms, a, b, reading)
    if found is None:
        return "none"
    gain = 1 if reading == KEPT else -1
    return "open" if found.low <= 0 <= found.high else "yes" if gain * found.estimate > 0 else "no"


def compared(arms: Arms, a: str, b: str, reading: str) -> str:
    """Both arms' means by a reading, and their difference with its interval."""
    x, y = (_told(arms[k], reading) for k in (a, b))
    found, scale = difference(arms, a, b, reading), 100 if reading == KEPT else 1

    def shown(v: float) -> str:
        digits = 0 if reading == KEPT else 2
        # an end that rounds to 0 would not say on which side of it the interval ends
        digits = next((d for d in (digits, digits + 1, digits + 2) if round(scale * v, d)), digits)
        text = f"{scale * v:+.{digits}f}"
        return text.lstrip("+-") if not float(text) else text.replace("-", "\u2212")

    n, most = found.n_seeds if found else 0, max(len(arms[k].values(reading)) for k in (a, b))
    few = f" over {n} of {most} seeds" if n < most else ""
    gap = f" ({shown(found.estimate)}{' points' if reading == KEPT else ''} [{shown(found.low)}, {shown(found.high)}]{few})" if found else ""
    return f"{'kept' if reading == KEPT else 'distance'} {x} against {y}{gap}"


def spread(arms: Arms, names: Mapping[str, str], caption: str = "") -> Table:
    """What the optimizers of every setting said of themselves, mean over seeds and logged steps: ``names`` maps a logged name to a title."""
    rows = []
    for arm in arms.values():
        for s in arm.settings:
            row = {"arm": arm.label, "rate": "–" if s.rate is None else f"{s.rate:g}"}
            for name, title in names.items():
                own = _logged(s, name)
                row[title] = f"{sum(own) / len(own):.3g}" if own else "–"
            if any(row[t] != "–" for t in names.values()):
                rows.append(row)
    return Table.of(rows or [{"arm": "no optimizer logged any of it"}], caption=caption)


def spreads(arm: Arm, whole: bool = True) -> list[float]:
    """How far the weights of an arm's preconditioners spread, at every line of the log at which a run answers more than half of the
    retain questions (``whole``), or no longer does."""
    logged = ((p.get("optimizer/weight_spread"), p.get("retain/questions")) for r in records({"": arm}) for p in r.trajectory)
    return [v for v, q in logged if v is not None and q is not None and (q > 0.5) == whole]


def acts(arms: Arms, published: str, ours: str) -> str:
    """Whether a preconditioner decides anything: how far its weights spread under two dampings, by what all runs logged; "" if none did.

    The Fisher is of the retain rows: once a model has lost these, it grows, and says nothing more of what is worth keeping.
    """

    def span(values: Sequence[float]) -> str:
        ends = list(dict.fromkeys(f"{v:.3g}" if v < 10 else f"{v:.0f}" for v in (min(values), max(values))))
        return " to ".join(ends)

    gone = spreads(arms[published], whole=False)
    if not (spreads(arms[published]) and spreads(arms[ours])):
        return ""
    return (
        f"Does the Fisher act at all? In all runs, fresh seeds too: with the published damping its weights spread by a factor of **{span(spreads(arms[published]))}** (95th over 5th percentile; "
        f"1 is plain ascent) as long as a run answers half of the retain questions"
        + (f", and by up to {span(gone).rpartition(' ')[2]} once a model has lost these" if gone else "")
        + f"; with a damping relative to the Fisher's own size by **{span(spreads(arms[ours]))}**."
    )


def _logged(setting: Setting, name: str) -> list[float]:
    """What the optimizers of a setting's runs logged under a name, over seeds and steps."""
    return [p[name] for r in setting.records for p in r.trajectory if p.get(name) is not None]


def first_stage(arms: Arms) -> Table:
    """Where runs of several stages stood when first measured after the first stage: whether that moved anything."""
    rows = []
    for arm in arms.values():
        ends = []
        for r in records({"": arm}):
            stages = [p["stage"] for p in r.trajectory if p.get("stage")]
            ends += [p for p in r.trajectory if p.get("stage") and p["stage"] != stages[0]][:1] if stages else []
        if ends:
            names = {"forget q.": "forget/questions", "AUC": "attack/auc", "retain q.": "retain/questions", "world q.": "world/accuracy"}
            spans = {k: [p[v] for p in ends] for k, v in names.items()}
            rows.append({"arm": arm.label, "runs": f"{len(ends)}", **{k: f"{_mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for k, v in spans.items()}})
    caption = "Means over settings and seeds, with their range, at the first line of the log after the first stage, some steps into the second; fresh seeds too. A model that still answers everything was hardly moved."
    return Table.of(rows or [{"arm": "no run has several stages"}], caption=caption)


def cost(arms: Arms) -> Table:
    """What an arm moved, and what its runs took: medians over settings and seeds, seconds rough (other runs shared the machine)."""
    rows = []
    for arm in arms.values():
        costs = [r.cost for s in arm.settings for r in s.records]

        def middle(key: str, costs: Sequence[Mapping[str, Any]] = costs) -> float:
            own = sorted(c[key] for c in costs if c.get(key) is not None)
            return own[len(own) // 2] if own else math.nan

        row = {
            "arm": arm.label, "weights that move": f"{middle('trained_parameters'):,.0f}", "steps": f"{middle('steps'):.0f}",
            "training, s": f"{middle('train_s'):.0f}", "peak, MiB": f"{middle('peak_bytes') / 2**20:.0f}",
        }  # fmt: skip
        if math.isfinite(middle("importance_s")):
            row |= {"weights measured": f"{middle('importance_parameters'):,.0f}", "importance, s": f"{middle('importance_s'):.1f}"}
        rows.append(row)
    header = list(dict.fromkeys(k for r in rows for k in r))
    caption = "Medians over settings and seeds. Seconds were taken on a machine that ran other things besides, and are rough."
    return Table.of([{k: r.get(k, "–") for k in header} for r in rows], caption=caption)
