"""The audit of the official score: published rows recomputed, what the mean rewards, what papers say, how sure an attack score is.

Published numbers come from ``book/published_scores.yml``, everything else from records.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml

from reprolib.metrics import lume
from reprolib.metrics.statistics import seeds_interval
from reprolib.record import Record, project_root
from reprolib.report import page, style, summary
from reprolib.report.summary import LADDER
from reprolib.report.tables import Table, cell, number

Study = Mapping[str, Sequence[Record]]
DESTROYED = ("random", "always_eos")  # the rungs of the ladder that know nothing
CHANCE = 0.25  # of a question with four options
PARTS = {"task": ("task aggregate", "#0072B2"), "mia": ("MIA score", "#56B4E9"), "mmlu": ("MMLU", "#E69F00")}
Z = 1.959964  # two-sided 95 %
HALF = 0.0005  # a number printed with three decimals is known to half a unit of the third


# ---------------------------------------------------------------------- published scores


@dataclass(frozen=True, slots=True)
class Row:
    """A published row: the printed final score and its three parts."""

    track: str
    board: str
    rank: int | None
    team: str
    final: float
    task: float
    mia: float
    mmlu: float

    @property
    def label(self) -> str:
        return f"{self.team} ({self.track})"

    @property
    def recomputed(self) -> float:
        return lume.final_score(self.task, self.mia, self.mmlu)

    @property
    def difference(self) -> float:
        return self.recomputed - self.final

    @property
    def allowed(self) -> float:
        """The difference that rounding explains: half a unit in the parts' mean, and half a unit in the final."""
        decimals = max(3, len(f"{self.final!r}".partition(".")[2]))
        return HALF + 0.5 * 10.0**-decimals

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.allowed + 1e-9

    @property
    def eligible(self) -> bool:
        return self.mmlu >= lume.ELIGIBLE_MMLU

    @property
    def destroyed(self) -> float:
        """The final score of a destroyed model with this row's MMLU."""
        return destroyed(self.mmlu)

    @property
    def below(self) -> bool:
        """Whether the row scores no more than that: task aggregate + MIA score <= 1."""
        return self.recomputed <= self.destroyed + 1e-9

    @property
    def blank(self) -> bool:
        """The look of a destroyed model: an aggregate of 0, and an attack that finds little."""
        return self.task == 0 and self.mia > 0.5


@dataclass(frozen=True)
class Published:
    """What ``book/published_scores.yml`` holds."""

    rows: tuple[Row, ...]
    boards: tuple[Mapping[str, Any], ...]
    papers: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, Mapping[str, str]]
    untouched: Mapping[str, Any]
    answers: Mapping[str, int]  # letter -> number of MMLU's test questions that it answers
    attack_sets: tuple[Mapping[str, Any], ...]

    def of(self, track: str, *boards: str) -> tuple[Row, ...]:
        """Rows of a track that teams submitted, or those of the boards named."""
        return tuple(r for r in self.rows if r.track == track and (r.board in boards if boards else r.board != "baseline"))

    def row(self, track: str, team: str) -> Row:
        return next(r for r in self.rows if (r.track, r.team) == (track, team))

    def board_size(self, row: Row) -> int:
        return next(b["of"] for b in self.boards if (b["track"], b["board"]) == (row.track, row.board))

    def letter(self, mmlu: float) -> str:
        """The letter that a model scores ``mmlu`` with if it answers nothing else, to the three printed decimals; "" if none."""
        total = sum(self.answers.values())
        return next((k for k, n in self.answers.items() if abs(n / total - mmlu) <= HALF), "")


def published(path: Path | None = None) -> Published:
    raw = yaml.safe_load((path or project_root() / "book" / "published_scores.yml").read_text(encoding="utf-8"))
    answers = {k: v for k, v in raw["mmlu_answers"].items() if k != "source"}
    return Published(
        rows=tuple(Row(*r) for r in raw["rows"]), boards=tuple(raw["boards"]), papers=raw["papers"], sources=raw["sources"],
        untouched=raw["untouched"], answers=answers, attack_sets=tuple(raw["attack_sets"]),
    )  # fmt: skip


def destroyed(mmlu: float = CHANCE) -> float:
    """The final score of a model that has lost everything: aggregate 0 (no retain answer), MIA score 1 (all texts alike)."""
    return lume.final_score(0.0, 1.0, mmlu)


def break_even(mmlu: float, mia: float = 0.0, chance: float = CHANCE) -> float:
    """The task aggregate that gives a model of this MMLU and MIA score what a destroyed one gets: 1 + chance - MIA - MMLU."""
    return 1.0 + chance - mia - mmlu


def forgotten(aggregate: float) -> float:
    """The share q of forget rows forgotten that gives this aggregate to a model that keeps all else.

    Six of the twelve scores are then q and six are 1, so that their harmonic mean is a = 2 q / (1 + q), and q = a / (2 - a).
    """
    return aggregate / (2.0 - aggregate)


def implied_task(final: float, mia: float, mmlu: float) -> tuple[float, float]:
    """The task aggregates that fit a final score and two of its parts, all printed with three decimals, cut at 0 and 1."""
    middle = 3 * final - mia - mmlu
    return max(0.0, middle - 5 * HALF), min(1.0, middle + 5 * HALF)


def _groups(data: Published) -> dict[int, str]:
    """Number of the row that a board begins with -> the board's title."""
    groups: dict[int, str] = {}
    seen = set()
    for n, r in enumerate(data.rows):
        board = next(b for b in data.boards if (b["track"], b["board"]) == (r.track, r.board))
        own = sum((x.track, x.board) == (r.track, r.board) for x in data.rows)
        if board["title"] not in seen:
            groups[n] = f"{board['title']} ({own} of {board['of']} rows)"
        seen.add(board["title"])
    return groups


def table(data: Published) -> Table:
    """Every published row, its final score recomputed from its parts, and what a destroyed model with the same MMLU gets."""
    rows, plain = [], []
    for r in data.rows:
        check = "✓" if r.agrees else '<span class="diverged">differs</span>'
        place = f"{r.rank}. " if r.rank else ""
        rows.append((
            html.escape(place + r.team), f"{r.task:.3f}", f"{r.mia:.3f}", f"{r.mmlu:.3f}", f"{r.final:.3f}", f"{r.recomputed:.4f}",
            f"{_signed(r.difference, 4)} {check}", _signed(r.recomputed - r.destroyed, 3),
        ))  # fmt: skip
        plain.append({
            "track": r.track, "board": r.board, "rank": r.rank or "", "team": r.team, "task": r.task, "mia": r.mia, "mmlu": r.mmlu,
            "final": r.final, "recomputed": round(r.recomputed, 5), "difference": round(r.difference, 5), "agrees": r.agrees,
            "eligible": r.eligible, "destroyed_same_mmlu": round(r.destroyed, 5), "no_more_than_destroyed": r.below, "letter": data.letter(r.mmlu),
        })  # fmt: skip
    header = ("team", "task", "MIA", "MMLU", "final", "mean", "difference", "margin")
    help_ = {
        "task": "Task aggregate: harmonic mean of twelve scores.", "MIA": "MIA score: 1 - 2 |AUC - 0.5|.", "final": "As printed.",
        "mean": "(task + MIA + MMLU) / 3, from the printed parts.",
        "difference": "The mean minus the printed final score; ✓ if rounding explains it.",
        "margin": "The mean minus (0 + 1 + MMLU) / 3, what a destroyed model with the same MMLU gets: (task + MIA "
        "- 1) / 3.",
    }  # fmt: skip
    caption = (
        "Published rows as printed on the task page; the mean of their parts, and how much it differs from the printed final score "
        "(✓: no more "
        "than rounding explains); the margin over a destroyed model with the same MMLU. Threshold "
        "for awards in the 7B track: MMLU "
        f"{lume.ELIGIBLE_MMLU}; "
        "the 1B track has none. Of the 1B board, only these rows were to be had."
    )
    return Table(header, tuple(rows), caption, help_, data=tuple(plain), groups=_groups(data))


def bars(data: Published) -> tuple[Any, str]:
    """The three parts of every published row, and a tick where a destroyed model with the same MMLU would be."""
    groups = _groups(data)
    places, y = [], 0.0
    for n in range(len(data.rows)):
        y += 1.0 + (1.3 if n in groups else 0.0)
        places.append(y)
    fig, axis = plt.subplots(figsize=(8.4, 1.3 + 0.235 * (places[-1] + 1)))
    left = np.zeros(len(data.rows))
    for name, (text, shade) in PARTS.items():
        width = np.array([getattr(r, name) for r in data.rows]) / 3
        axis.barh(places, width, left=left, color=shade, label=f"{text} / 3", height=0.66)
        left += width
    for y, r in zip(places, data.rows, strict=True):
        name = "destroyed model, same MMLU" if r is data.rows[0] else None
        axis.plot([r.destroyed] * 2, [y - 0.46, y + 0.46], color=style.INK, linewidth=2.2, label=name)
        slant = "italic" if r.below else "normal"
        axis.text(max(r.recomputed, r.destroyed) + 0.012, y, f"{r.final:.3f}", va="center", fontsize=9, style=slant)
    for n, title in groups.items():
        axis.text(0.0, places[n] - 1.05, title, va="center", fontsize=9.5, fontweight="bold")
    axis.set(xlim=(0, 0.82), ylim=(places[-1] + 0.8, places[0] - 1.8), xlabel="final score and its parts")
    axis.set_yticks(places, [r.team for r in data.rows], fontsize=9.5)
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=2)
    words = [f"{r.label} {r.final:.3f} against {r.destroyed:.3f}" for r in data.rows]
    alt = "Stacked bars of the published final scores; a tick marks what a destroyed model with the same MMLU gets. "
    return fig, alt + "; ".join(words) + "."


def arithmetic(data: Published) -> Any:
    """Whether the printed finals follow from their parts, and what the threshold does."""
    wrong = [r for r in data.rows if not r.agrees]
    worst = max(data.rows, key=lambda r: abs(r.difference))
    n = len(data.rows)
    said = f"{n - len(wrong)} of {n} printed final scores" if wrong else f"All {n} printed final scores"
    odd = f" Not explained by rounding: {page.listed([r.label for r in wrong])}." if wrong else ""
    lines = [
        f"{said} are the mean of their parts to rounding; the largest difference is {worst.difference:+.4f} ({worst.label}), "
        f"where rounding allows {worst.allowed:.3f}.{odd}",
        f"The threshold of {lume.ELIGIBLE_MMLU} is {_percent(lume.ELIGIBLE_MMLU / data.untouched['mmlu'])} of the untouched 7B "
        "model's "
        f"{data.untouched['mmlu']}. It leaves out {len([r for r in data.of('7B') if not r.eligible])} of {len(data.of('7B'))} "
        "submissions"
        + _highest(data)
        + " " + _caught(data),
    ]  # fmt: skip
    return page.say(_bullets(lines))


def _highest(data: Published) -> str:
    top = max(data.of("7B"), key=lambda r: r.final)
    if top.eligible:
        return "."
    return f", among them the highest final score of all ({top.team}, {top.final:.3f}, with MMLU {top.mmlu})."


def _caught(data: Published) -> str:
    """Where rows that look destroyed stand: behind the threshold at 7B, in the ranking at 1B."""
    large, small = ([r for r in data.of(t) if r.blank] for t in ("7B", "1B"))
    out = sum(not r.eligible for r in large)
    whom = "the threshold, and not the score, leaves out all of them" if out == len(large) else f"the threshold leaves out {out} of them"
    text = (
        f"At 7B there are {_count(len(large), 'submission')} with a task aggregate of 0 and a MIA score above one half: {whom}."
    )
    ranks = [f"{r.rank}" for r in small if r.rank]
    if ranks:
        text += (
            f" At 1B, where the untouched model's MMLU is near chance and there is no threshold, {len(small)} of the "
            f"{len(data.of('1B'))} rows "
            f"that we have look the same, and hold places {page.listed(ranks)} of {data.board_size(small[0])}."
        )
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _signed(x: float, digits: int) -> str:
    """With a sign of the width of a plus."""
    text = f"{x:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\u2212")


def _percent(x: float) -> str:
    return "–" if x != x else f"{100 * x:.0f}\u202f%"


def letters(data: Published) -> Any:
    """Rows whose MMLU is what answering always the same letter gives."""
    total = sum(data.answers.values())
    shares = ", ".join(f"{k} {n / total:.4f}" for k, n in data.answers.items())
    low = [r for r in data.rows if r.mmlu < 0.3]
    zero, others = [r for r in low if r.blank], [r for r in low if r.task > 0]
    hits = [r for r in zero if data.letter(r.mmlu)]
    missed = [r for r in others if data.letter(r.mmlu)]
    each: dict[str, list[str]] = {}
    for r in hits:
        each.setdefault(data.letter(r.mmlu), []).append(r.label)
    said = "; ".join(f"{k}: {', '.join(v)}" for k, v in sorted(each.items()))
    return page.say(
        f"A sign that such models give every question the same answer: the shares of MMLU's {total:,} test questions that each "
        "letter answers are "
        f"{shares}, so that is what a model scores which always says this letter. Of the {len(zero)} rows with a task aggregate of "
        "0 and a MIA score above "
        f"one half, {len(hits)} have exactly one of these numbers to the three printed decimals ({said}); of the {len(others)} "
        "rows with MMLU below 0.3 and "
        f"an aggregate above 0, {len(missed) or 'none'}. It is no proof, since the predictions were not published."
    )


# ---------------------------------------------------------------------- what the score rewards


def final(record: Record) -> float:
    """The official mean of a record; a run that lost it has 0, as on the leaderboard of the task a run without a score."""
    value = record.metrics.get("lume/final")
    return 0.0 if value is None else float(value)


def finals(study: Study, method: str) -> tuple[float, ...]:
    return tuple(final(r) for r in study[method])


def gaps(study: Study, method: str) -> tuple[float, ...]:
    return tuple(page.closed(study, method).values())


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


Measure = Callable[[Study, str], tuple[float, ...]]


def placed(study: Study, measure: Measure) -> dict[str, list[str]]:
    """Where a measure puts the target and each method beside the destroyed models: "below", "above", or "level".

    Level are those whose range over seeds overlaps with that of the destroyed models.
    """
    rungs = [v for m in DESTROYED if m in study for v in measure(study, m)]
    low, high = min(rungs), max(rungs)
    out: dict[str, list[str]] = {"below": [], "level": [], "above": []}
    for m in study:
        if m in (*DESTROYED, "twin"):
            continue
        own = page.extent(measure(study, m))
        out["below" if own[1] < low else "above" if own[0] > high else "level"].append(m)
    return out


def _methods(found: Iterable[str]) -> list[str]:
    return [m for m in found if m not in LADDER]


def beyond_twin(study: Study) -> list[str]:
    """Methods with a task aggregate above that of the twin of the same seed, in every seed."""
    goal = {r.spec.seed: summary.value(r, "task_aggregate") for r in study["twin"]}

    def more(r: Record) -> bool:
        return summary.value(r, "task_aggregate") > goal[r.spec.seed] + 1e-9

    return [m for m in _free(study) if all(more(r) for r in study[m])]


def covered(study: Study, method: str) -> float:
    """How far the official mean puts a model on the way from the target to the twin, mean over seeds."""
    start, goal = ({r.spec.seed: final(r) for r in study[m]} for m in ("target", "twin"))
    return _mean((final(r) - start[r.spec.seed]) / (goal[r.spec.seed] - start[r.spec.seed]) for r in study[method])


def agreement(study: Study) -> float:
    """Kendall's tau between the official mean and the gap closed, over methods; NaN with fewer than three."""
    from scipy.stats import kendalltau

    methods = [m for m in _free(study) if all(math.isfinite(v) for v in gaps(study, m))]
    if len(methods) < 3:
        return math.nan
    return float(kendalltau([_mean(finals(study, m)) for m in methods], [_mean(gaps(study, m)) for m in methods]).statistic)


def rewarded(study: Study) -> bool:
    """Whether every destroyed model scores more than the untouched target, in every seed."""
    target = {r.spec.seed: final(r) for r in study["target"]}
    return all(final(r) > target[r.spec.seed] for m in DESTROYED for r in study[m])


def _scores(study: Study) -> str:
    parts = []
    for m in DESTROYED:
        values = finals(study, m)
        low, high = min(values), max(values)
        own = f" ({low:.2f} to {high:.2f} over seeds)" if high - low >= 0.005 else ""
        parts.append(f"{style.label(m).lower().replace('eos', 'EOS')} {_mean(values):.2f}{own}")
    return " and ".join(parts)


def answer(data: Published, studies: Sequence[Study]) -> Any:
    """The answer on top of the page."""
    first = studies[0]
    bed = first["target"][0].spec.testbed
    yes = all(rewarded(s) for s in studies)
    by_score, by_gap = placed(first, finals), placed(first, gaps)
    under, beside = (_free(by_score[k]) for k in ("below", "level"))
    large = data.of("7B")
    fewer = [r for r in large if r.recomputed < destroyed()]
    kept, way = ([f(m) for m in DESTROYED] for f in (lambda m: _mean(gaps(first, m)), lambda m: covered(first, m)))
    main = (
        f"**{'Yes' if yes else 'Not on every testbed'}: a destroyed model gets about {destroyed():.1f} of the official mean for nothing, "
        "more than "
        + (f"an untouched one on {_both(studies)} and more than " if yes else "")
        + f"{len(fewer)} of the {len(large)} published 7B submissions, while on `{bed}` it closes {_range(kept)} of the gap to a "
        "model "
        "retrained without "
        "the forget set.**"
    )
    libu = data.row("7B", "Lacuna Inc.")
    lines = [
        f"**The score's order.** On `{bed}`, the official mean gives {_scores(first)}, against "
        f"{_mean(finals(first, 'target')):.2f} for the "
        f"untouched target and {_mean(finals(first, 'twin')):.2f} for the retrained twin: {_range(way)} of the way from the one to "
        "the other. "
        f"It puts {_names(under)} below the destroyed models in every seed"
        + (f", and does not tell {_names(beside)} from them." if beside else ".")
        + f" The distance to the twin puts {_names(_free(by_gap['below']))} below them in every seed, and {_where(first)}.",
        f"**Arithmetic and threshold.** {_sums(data)} {_caught(data)}",
        f"**Papers.** The headline scores of Cyber for AI ({_finals(data, 'Cyber for AI')}) have the parts of a destroyed model: "
        "task aggregates "
        f"{_aggregates(data, 'Cyber for AI')}. What notes on LIBU call a regurgitation rate, {libu.task}, is its task aggregate; "
        "its MIA score is "
        f"{libu.mia:g}.",
        f"**The attack.** {_attack_line(data)}",
    ]
    return page.say("```{admonition} The answer\n:class: tip\n" + main + "\n\n" + "\n".join(f"- {x}" for x in lines) + "\n```")


def _range(values: Sequence[float]) -> str:
    low, high = (f"{100 * v:.0f}" for v in (min(values), max(values)))
    return f"{low} to {high}\u202f%" if low != high else f"{low}\u202f%"


def _both(studies: Sequence[Study]) -> str:
    return " and ".join(f"`{s['target'][0].spec.testbed}`" for s in studies)


def _names(methods: Sequence[str]) -> str:
    return page.names(methods) if methods else "no method"


def _free(methods: Iterable[str]) -> list[str]:
    return [m for m in _methods(methods) if not page.bound(m)]


def _where(study: Study) -> str:
    """What the distance says of untouched and destroyed models."""
    where = next(k for k, v in placed(study, gaps).items() if "target" in v)
    return {
        "level": "does not tell the untouched target from them: both are equally far from it, on opposite sides",
        "above": "the untouched target above them", "below": "the untouched target below them",
    }[where]  # fmt: skip


def _sums(data: Published) -> str:
    wrong = sum(not r.agrees for r in data.rows)
    n = len(data.rows)
    return f"{wrong} of {n} published means do not add up." if wrong else f"All {n} published means add up."


def _finals(data: Published, team: str) -> str:
    return ", ".join(f"{r.final:.3f} at {r.track}" for r in data.rows if r.team == team)


def _aggregates(data: Published, team: str) -> str:
    return " and ".join(f"{r.task:g}" for r in data.rows if r.team == team)


def rewards(study: Study) -> Any:
    """What the official mean and the distance put where, beside the destroyed models."""
    bed = study["target"][0].spec.testbed
    by_score, by_gap = placed(study, finals), placed(study, gaps)
    twin = page.extent(finals(study, "twin"))
    methods = _free(study)
    equal = [m for m in methods if page.overlap(page.extent(finals(study, m)), twin)]
    higher = [m for m in methods if page.extent(finals(study, m))[0] > twin[1]]
    more = beyond_twin(study)
    tau = agreement(study)
    lines = [
        f"On `{bed}`, with {page.counted(study)}, the official mean puts {_listing(by_score['below'])} below "
        "both destroyed "
        f"models in every seed; {_listing(by_score['level'])} within their range over seeds; and "
        f"{len(_methods(by_score['above']))} above.",
        f"The distance to the twin puts {_listing(by_gap['below'])} farther than both in every seed, and "
        f"{_listing(by_gap['level'])} within "
        "their range.",
        f"The twin has {_mean(finals(study, 'twin')):.2f}, by its parts {_parts(study, 'twin')}. Methods that score "
        f"more in every seed: {_listing(higher)}; that are not told apart from it: {_listing(equal)}.",
    ]
    if more:
        rouge = _mean(summary.value(r, "forget_passages") for r in study["twin"])
        lines.append(
            f"The task aggregate of {len(more)} of {len(methods)} methods is above that of the twin in every seed. The twin never "
            "read the forget "
            f"passages and still continues them with ROUGE-L {rouge:.2f}, since it knows how such passages go on; the aggregate "
            "counts that "
            "against it, and pays for tearing it down."
        )
    if tau == tau:
        lines.append(
            f"Over {len(methods)} methods, the order by the official mean and the order by the gap closed agree with Kendall's tau "
            f"{tau:.2f} "
            "(1: the same order; 0: chance)."
        )
    return page.say(_bullets(lines))


def _listing(models: Sequence[str]) -> str:
    return page.names(models, 12) if models else "none"


def _parts(study: Study, method: str) -> str:
    names = {"task_aggregate": "task aggregate", "mia_score": "MIA score", "world_questions": "world questions"}
    return ", ".join(f"{text} {_mean(summary.value(r, k) for r in study[method]):.2f}" for k, text in names.items())


def shown(study: Study) -> list[str]:
    """Rows of the ladder table: the ladder, the leaderboard's first, and methods that score no more than a destroyed model."""
    found = placed(study, finals)
    low = _methods([*found["level"], *found["below"]])
    first = [m for m in page.ranking(study, _free(study)) if m not in low][:1]
    order = {m: _mean(finals(study, m)) for m in (*LADDER, *first, *low) if m in study}
    return sorted(order, key=lambda m: (m not in LADDER, -order[m]))


def ladder(studies: Sequence[Study]) -> Table:
    """The official score, its parts, and the distance to the twin: the ladder and methods near its lower rungs, by testbed."""
    names = ("task_aggregate", "mia_score", "world_questions", "final_score")
    rows, plain, groups = [], [], {}
    for study in studies:
        bed = study["target"][0].spec.testbed
        groups[len(rows)] = bed
        for m in shown(study):
            i = {n: summary.interval(study[m], n) for n in names}
            own, far = gaps(study, m), page.spread(study, m)
            gap = seeds_interval(own) if all(math.isfinite(v) for v in own) else None
            swatch = f'<span class="swatch" style="background:{style.colour(m)}"></span>'
            distance = f'{number(page.distance(study, m))} <span class="interval">({number(far[0])} to {number(far[1])})</span>'
            closed = cell(_cut(gap)) if gap else "–"
            rows.append((swatch + html.escape(style.label(m)), *(cell(i[n]) for n in names), distance, closed))
            plain.append(
                {"testbed": bed, "model": m, "seeds": len(study[m])}
                | {f"{n}{end}": _plain(getattr(i[n], end[1:] or "estimate")) for n in names for end in ("", "_low", "_high")}
                | {"distance": _plain(page.distance(study, m)), "gap_closed": _plain(gap.estimate if gap else math.nan)}
            )
    heads = ("task aggregate ↑", "MIA score ↑", "world questions ↑", "official final ↑", "distance ↓", "gap closed ↑")
    caption = (
        "The sanity ladder, the methods that the official mean puts at or below the destroyed models, and the first of the "
        "leaderboard. "
        "World questions stand for MMLU. Brackets: 95 % intervals from resampling seeds and documents, for the gap closed "
        "Student's t over seeds; "
        "parentheses: range over seeds."
    )
    help_ = {
        "distance ↓": "Mean absolute difference to the twin of the same seed over five readings.",
        "gap closed ↑": "1 - distance / the target's distance: 1 is the twin, 0 as far as the untouched target.",
    }
    return Table(("model", *heads), tuple(rows), caption, help_, data=tuple(plain), groups=groups)


def _cut(i: Any) -> Any:
    """A t interval of a gap closed, cut at the twin."""
    return i._replace(high=min(1.0, i.high)) if math.isfinite(i.high) else i


def _plain(x: float) -> float | str:
    return "" if not math.isfinite(x) else round(x, 4)


def scatter(study: Study) -> tuple[Any, str]:
    """Official mean against gap closed, one point a model; the line is what destroyed models score."""
    fig, axis = plt.subplots(figsize=(8.2, 5.4))
    rungs = [v for m in DESTROYED for v in finals(study, m)]
    axis.axhspan(min(rungs), max(rungs), color=style.INK, alpha=0.25, linewidth=0, zorder=0)
    low = placed(study, finals)
    named = [*LADDER, *_methods([*low["below"], *low["level"]])]
    words = []
    finite = {m: gaps(study, m) for m in study if all(math.isfinite(v) for v in gaps(study, m))}
    for m, x in finite.items():
        y = finals(study, m)
        axis.plot(page.extent(x), [_mean(y)] * 2, color=style.colour(m), linewidth=1.4, alpha=0.5, zorder=2)
        axis.plot([_mean(x)] * 2, page.extent(y), color=style.colour(m), linewidth=1.4, alpha=0.5, zorder=2)
        look = {"color": style.colour(m), "marker": style.marker(m), "markersize": 15 if m == "twin" else 8}
        axis.plot([_mean(x)], [_mean(y)], linestyle="", zorder=3, **look)
        words.append(f"{style.label(m)} {_mean(x):.2f} and {_mean(y):.2f}")
    left = min([0.0, *(v for g in finite.values() for v in g)])
    right = 0.06 + max([0.3, *(page.extent(finite[m])[1] for m in named if m in finite and m != "twin")])
    last = {"left": math.inf, "right": math.inf}
    for y, x, m in sorted(((_mean(finals(study, m)), _mean(finite[m]), m) for m in named if m in finite), reverse=True):
        text = {"fontsize": 9.5, "annotation_clip": False, "style": "italic" if m in LADDER else "normal"}
        if m == "twin":
            axis.annotate(style.label(m), (x, y), xytext=(0, 10), textcoords="offset points", va="bottom", ha="right", **text)
            continue
        to = "left" if x < 0.06 else "right"  # names in two columns, none closer than a line to the one above
        last[to] = min(y, last[to] - 0.038, min(rungs) - 0.03 if to == "right" else math.inf)
        line = {"arrowstyle": "-", "color": style.colour(m), "linewidth": 0.8, "alpha": 0.7, "shrinkB": 5}
        spot = (left - 0.1 if to == "left" else right, last[to])
        axis.annotate(style.label(m), (x, y), xytext=spot, va="center", ha="right" if to == "left" else "left", arrowprops=line, **text)
    axis.text(1.04, max(rungs) + 0.008, "destroyed models", ha="right", va="bottom", fontsize=9.5, style="italic")
    axis.set(xlim=(left - 0.5, 1.05), ylim=(min(0.15, *(v - 0.05 for v in last.values())), 1.02), ylabel="official final score",
             xlabel="gap closed: 1 is the retrained twin, 0 as far from it as the untouched target")  # fmt: skip
    axis.set_xticks([v for v in np.arange(-1, 1.01, 0.25) if v >= left - 0.01])
    alt = (
        f"Scatter plot on {study['target'][0].spec.testbed}: gap closed and official final score of each model. Destroyed models "
        "score "
        f"{min(rungs):.2f} to {max(rungs):.2f}. "
    )
    return fig, alt + "; ".join(words) + "."


def algebra(data: Published, studies: Sequence[Study]) -> Any:
    """What follows from the formula: the price of destruction, the break-even, and what a twin would get."""
    m = data.untouched["mmlu"]
    a = break_even(m)
    large, small = data.of("7B"), data.of("1B")
    eligible = [r for r in data.of("7B", "eligible") if r.below]
    blind = [r for r in large if r.mia == 0]
    idle = lume.final_score(0.0, 0.0, m)
    lines = [
        f"With a task aggregate of 0 and a MIA score of 1 the mean is $(1 + m)/3$: {destroyed():.3f} at chance, {destroyed(m):.3f} "
        "if the untouched 7B "
        f"model's MMLU of {m} were kept. A submission beats it at its own MMLU only if aggregate and MIA score sum to more than 1. "
        f"{_some(large)} of the {len(large)} 7B submissions do not, among them {len(eligible)} of the "
        f"{len(data.of('7B', 'eligible'))} eligible ones; of the "
        f"{len(small)} rows of the 1B board that we have, {_some(small)} do not.",
        f"{len([r for r in large if r.recomputed < destroyed()])} of {len(large)} at 7B and "
        f"{len([r for r in small if r.recomputed < destroyed()])} of {len(small)} at 1B score less than a destroyed model at "
        f"chance, {destroyed():.3f}.",
        f"A submission that keeps MMLU at {m} but that the attack still recognises (MIA score 0, as {len(blind)} of {len(large)}) "
        "needs an aggregate of "
        f"{a:.3f} to draw level. If it keeps all retain rows, six of the twelve scores are 1; it then has to forget "
        f"{_percent(forgotten(a))} of the forget rows "
        "to be worth as much as a model that knows nothing.",
    ]
    worth = {}
    for study in studies:
        task, mia = (_mean(summary.value(r, k) for r in study["twin"]) for k in ("task_aggregate", "mia_score"))
        worth[f"`{study['target'][0].spec.testbed}` ({task:.2f} and {mia:.2f})"] = lume.final_score(task, mia, m)
    over = sum(r.recomputed > min(worth.values()) for r in large)
    ways = [(destroyed() - idle) / (w - idle) for w in worth.values()]
    lines.append(
        f"No twin of the 7B model was published. With the aggregate and the MIA score of the twin on {' or '.join(worth)} and an "
        "untouched MMLU "
        f"it would get {' or '.join(f'{w:.2f}' for w in worth.values())}; "
        f"{_count(over, 'submission') if over else 'no submission'} at 7B scored "
        f"more. From the untouched model's {idle:.3f} to there, a destroyed model at chance has come {_range(ways)} of the way. A "
        "what-if, "
        "not a measurement."
    )
    return page.say(_bullets(lines))


def _some(rows: Sequence[Row]) -> str:
    return f"{sum(r.below for r in rows)}"


# ---------------------------------------------------------------------- what papers say


def claims(data: Published, study: Study) -> Any:
    """Headline numbers of two papers beside the official rows, in sentences."""
    p = data.papers
    libu7, libu1 = (data.row(t, "Lacuna Inc.") for t in ("7B", "1B"))
    cyber7, cyber1 = (data.row(t, "Cyber for AI") for t in ("7B", "1B"))
    own, val = p["libu-setup-3"], p["cyber-descent-1b"]
    low, high = implied_task(val["final"], val["mia"], val["mmlu"])
    before7, before1 = p["cyber-original-7b"], p["cyber-original-1b"]
    loss = before1["mmlu"] - val["mmlu"]
    parts = [
        "**LIBU** (Lacuna Inc.) {cite}`libu2025`",
        _bullets([
            f"*Said* ({_source(data, 'libu-notes')}): a \"regurgitation rate\" of {libu7.task} that exceeds the threshold, with "
            f"MMLU {libu7.mmlu}, at 7B. "
            f"*Official*: {libu7.task} is the task aggregate, the harmonic mean of all twelve scores, of which half are about "
            "retain rows. The only threshold "
            f"is on MMLU ({lume.ELIGIBLE_MMLU}), and {libu7.mmlu} passes it. The MIA score, which is left out, is {libu7.mia:g}; "
            "the final score is "
            f"{libu7.final:.3f}, place {libu7.rank} of {data.board_size(libu7)}.",
            f"Two evaluations are in circulation: {own['final']:.3f} ({own['task']:.3f}, {own['mia']:g}, {own['mmlu']:.3f}) in the "
            "paper's table by these notes, "
            f"{libu7.final:.3f} ({libu7.task}, {libu7.mia:g}, {libu7.mmlu}) on the board. They must be quoted apart. At 1B the "
            "system is on the board as well, "
            f"with {libu1.final:.3f}, place {libu1.rank} of {data.board_size(libu1)}.",
            f"*Fair to say*: nothing here is destroyed. MMLU stays at {_percent(libu7.mmlu / data.untouched['mmlu'])} of the "
            "untouched model's, and the row is eligible. "
            "A MIA score of 0 means an AUC of 0 or of 1; beside an aggregate this low, 1 is likelier: forgetting that stopped "
            "early, not destruction.",
        ]),
        "**Cyber for AI** {cite}`cyberforai2025`",
        _bullets([
            f"*Said* ({_source(data, 'cyber-abstract')}): aggregate scores of {cyber7.final:.3f} at 7B and {cyber1.final:.3f} at "
            "1B on the test set, called "
            f"promising. *Official*: these are the final scores; their task aggregates are {cyber7.task:g} and {cyber1.task:g}, "
            f"their MMLU {cyber7.mmlu} and "
            f"{cyber1.mmlu}. A destroyed model of the same MMLU gets {cyber7.destroyed:.3f} and {cyber1.destroyed:.3f}. The 7B row "
            "is below the threshold and not "
            f"ranked; the 1B row is at place {cyber1.rank} of {data.board_size(cyber1)}.",
            f"*Said* ({_source(data, 'cyber-notes')}): descent on the retain rows at 1B is near-perfect unlearning with minimal "
            f"loss, by a MIA score of {val['mia']} "
            f"and an aggregate of {val['final']:.3f} on validation. *Arithmetic*: with MMLU {val['mmlu']} that leaves a task "
            f"aggregate of {low:.3f} to {high:.3f}. "
            f"MMLU falls by no more than {loss:.3f}, but from {before1['mmlu']}, near chance: there was little to lose.",
            f"*Said* ({_source(data, 'cyber-notes')}): a MIA score of 0.5 is best, 0 is under- and 1 over-unlearning. Two scales "
            "are mixed: that holds, turned around, of the raw "
            f"AUC (near 1: recognised; near 0: shunned). Of the published score, 1 is best, and {val['mia']} is near it.",
            f"The paper's MMLU of the 7B model before unlearning is {before7['mmlu']}, the organisers' {data.untouched['mmlu']}: "
            "compare within one harness only.",
            f"*Fair to say*: the scores are what the task's formula gives, and the fall of MMLU under ascent ({before7['mmlu']} to "
            f"{p['cyber-ascent-7b']['mmlu']}, and "
            f"{p['cyber-restored-7b']['mmlu']} after one epoch of descent) is reported as a loss of utility. The methods need not "
            f"destroy: {_ours(study)}.",
        ]),
        f"The parts of {_count(sum(r.blank for r in data.rows if r.team != 'Cyber for AI'), 'other row')} look the same, the "
        "organisers' own ascent and KL runs among them. "
        "The trap is in the formula, and whoever is ranked by it can walk into it.",
    ]  # fmt: skip
    return page.say("\n\n".join(parts))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {x}" for x in lines)


def _source(data: Published, key: str) -> str:
    s = data.sources[key]
    return f"[{s['title']}]({s['url']})"


def _ours(study: Study) -> str:
    """What methods of that paper do here, at settings that were searched for."""
    found = [m for m in ("gradient_descent", "chain_difference_ga") if m in study]
    bed = study["target"][0].spec.testbed
    own = {m: _mean(summary.value(r, "task_aggregate") for r in study[m]) for m in found}
    said = [f"{style.label(m)} {v:.2f}" for m, v in own.items()]
    if not said:
        return f"on `{bed}` they were not run"
    return f"at the settings of this study, on `{bed}`, their task aggregates are: {'; '.join(said)}"


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
    """The AUC of one half or more that a MIA score stands for; its mirror image below has the same score and the same error."""
    return 0.5 + (1 - mia) / 2


def mia_interval(mia: float, members: int, nonmembers: int) -> tuple[float, float]:
    """95 % interval of a MIA score from the AUC's error; an AUC that may be one half may have the score 1. NaN at a score of 0."""
    if mia <= 0:
        return math.nan, math.nan
    a = side(mia)
    half = Z * auc_error(a, members, nonmembers)
    return max(0.0, 1 - 2 * (a + half - 0.5)), min(1.0, 1 - 2 * max(0.0, a - half - 0.5))


def told_apart(a: float, b: float, members: int, nonmembers: int) -> bool:
    """Whether two MIA scores, with AUCs on one side of one half, differ by more than 1.96 errors of independent AUCs."""
    errors = [auc_error(side(x), members, nonmembers) for x in (a, b)]
    return abs(a - b) > Z * 2 * math.hypot(*errors)


def unseen(members: int, nonmembers: int) -> tuple[float, float]:
    """MIA score of a model to which members and non-members are alike: its mean, 1 - 2 sigma sqrt(2/pi), and what 95 % exceed."""
    s = auc_error(0.5, members, nonmembers)
    return 1 - 2 * s * math.sqrt(2 / math.pi), 1 - 2 * Z * s


def together(data: Published, n: int) -> tuple[Row, ...]:
    """The largest group of published rows, from the highest MIA score down, of which no two are told apart with n texts a side."""
    found: list[Row] = []
    for r in sorted(data.rows, key=lambda r: -r.mia):
        if any(told_apart(r.mia, x.mia, n, n) for x in found):
            break
        found.append(r)
    return tuple(found)


def bootstrapped(record: Record, n: int = 2000) -> tuple[float, float, float] | None:
    """A record's attack: AUC, the formula's error, and that of a bootstrap over its texts; None where it has no losses."""
    c = summary.columns(record)
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
    c = summary.columns(record)
    members, others = (int((np.isfinite(c["text_nll"]) & (c["group"] == g)).sum()) for g in ("forget", "holdout"))
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
        "Standard error of an AUC by Hanley and McNeil's formula, for the choice of texts alone, and the MIA score that a model "
        "gets which the "
        "attack cannot tell anything about."
    )
    return Table.of(rows, caption=caption)


def _attack_line(data: Published) -> str:
    sets = data.attack_sets
    most = max(sets, key=lambda s: s["members"])
    n = most["members"]
    group = together(data, n)
    mean, _ = unseen(n, most["nonmembers"])
    return (
        f"With {n} texts a side, the larger of the public sets, the {len(group)} highest published MIA scores ({group[-1].mia:g} "
        f"to {group[0].mia:g}) are not told "
        f"apart, and a model that the attack cannot tell anything about scores {mean:.2f} on average."
    )


def attack(data: Published, studies: Sequence[Study]) -> Any:
    """What the error of the AUC means for published MIA scores, and whether the formula agrees with a bootstrap on records."""
    lines = []
    for s in data.attack_sets:
        n = s["members"]
        group = together(data, n)
        pairs = [(a, b) for a, b in combinations([r for r in data.rows if r.mia > 0], 2)]
        level = sum(not told_apart(a.mia, b.mia, n, n) for a, b in pairs)
        half = Z * 2 * math.hypot(*[auc_error(0.5, n, n)] * 2)
        lines.append(
            f"{n} texts a side: near an AUC of 0.5, two MIA scores must differ by {half:.2f} to be told apart at 95 %. Of the "
            f"{len(pairs)} pairs of published rows with "
            f"scores above 0, {level} are not; the {len(group)} highest, from {group[0].label} {group[0].mia:g} to "
            f"{group[-1].label} {group[-1].mia:g}, are one group. "
            f"In the final score the error weighs {2 * auc_error(0.5, n, n) / 3:.3f} (one standard error)."
        )
    lines.append(_transfer(data))
    found = [b for s in studies for m in s for b in (bootstrapped(r) for r in s[m]) if b and 0.05 < b[0] < 0.95 and b[2] > 1e-6]
    ratio = sorted(b[2] / b[1] for b in found)
    if ratio:
        middle = ratio[len(ratio) // 2]
        verdict = "the formula is good enough for this" if 0.8 < middle < 1.25 else "read the formula with care"
        lines.append(
            f"On records, a bootstrap over texts gives {middle:.2f} times the formula's error in the median of {len(ratio)} "
            "records with an AUC "
            f"between 0.05 and 0.95 ({ratio[0]:.2f} to {ratio[-1]:.2f}): {verdict}."
        )
    return page.say(_bullets(lines))


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
        f"Chance does not explain everything: ZJUKLAB {{cite}}`zjuklab2025` had an AUC of {local['auc']} in its own evaluation, a "
        f"MIA score of {lume.mia_score(local['auc']):.3f}, and {online.mia} "
        f"in the organisers', {' or '.join(said)} standard errors away. A setting that balances the attack on one set of texts "
        "need not balance it on another; that paper "
        "itself says that the MIA score is not enough."
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
            axis.plot([low, high], [y, y], color=shade, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=2,
                      label=f"95 % interval, {s['members']} texts a side" if y == 0 else None)  # fmt: skip
            said.append(f"{low:.2f} to {high:.2f} with {s['members']}")
        mark = {"marker": "|", "markersize": 12, "markeredgewidth": 2, "color": style.INK, "linestyle": ""}
        axis.plot([r.mia], [y], zorder=3, label="published" if y == 0 else None, **mark)
        words.append(f"{r.label} {r.mia:g} ({', '.join(said)})")
    axis.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="MIA score: 1 - 2 |AUC - 0.5|")
    axis.set_yticks(range(len(rows)), [r.label for r in rows], fontsize=9.5)
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=3)
    return fig, "Published MIA scores with 95 % intervals. " + "; ".join(words) + "."
