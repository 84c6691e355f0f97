"""What the official score rewards."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scipy.stats import kendalltau

from reprolib.metrics.resample import seeds_interval
from reprolib.record import Record
from study.readings import quantities, twin
from study.readings.intervals import interval
from study.readings.quantities import LADDER
from study.readings.twin import bound, extent, overlap, ranking, spread
from study.report import style, words
from study.report.audit.membership import together, unseen
from study.report.audit.rows import DESTROYED, Published, Study, destroyed
from study.report.audit.scores import caught
from study.report.audit.wording import bullets, range_of
from study.report.tables import Table, cell, number
from study.report.words import counted, say


def final(record: Record) -> float:
    """The official mean of a record; a run that lost it has 0, as on the leaderboard of the task a run
    without a score.
    """
    value = record.metrics.get("lume/final")
    return 0.0 if value is None else float(value)


def finals(study: Study, method: str) -> tuple[float, ...]:
    return tuple(final(r) for r in study[method])


def gaps(study: Study, method: str) -> tuple[float, ...]:
    return tuple(twin.closed(study, method).values())


def mean_of(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


Measure = Callable[[Study, str], tuple[float, ...]]


def placed(study: Study, measure: Measure) -> dict[str, list[str]]:
    """Where a measure puts the target and each method beside the destroyed models: "below", "above", or
    "level".

    Level are those whose range over seeds overlaps with that of the destroyed models.
    """
    rungs = [v for m in DESTROYED if m in study for v in measure(study, m)]
    low, high = min(rungs), max(rungs)
    out: dict[str, list[str]] = {"below": [], "level": [], "above": []}
    for m in study:
        if m in (*DESTROYED, "twin"):
            continue
        own = extent(measure(study, m))
        out["below" if own[1] < low else "above" if own[0] > high else "level"].append(m)
    return out


def methods_of(found: Iterable[str]) -> list[str]:
    return [m for m in found if m not in LADDER]


def beyond_twin(study: Study) -> list[str]:
    """Methods with a task aggregate above that of the twin of the same seed, in every seed."""
    goal = {r.spec.seed: quantities.value(r, "task_aggregate") for r in study["twin"]}

    def more(r: Record) -> bool:
        return quantities.value(r, "task_aggregate") > goal[r.spec.seed] + 1e-9

    return [m for m in _free(study) if all(more(r) for r in study[m])]


def covered(study: Study, method: str) -> float:
    """How far the official mean puts a model on the way from the target to the twin, mean over seeds."""
    start, goal = ({r.spec.seed: final(r) for r in study[m]} for m in ("target", "twin"))
    return mean_of(
        (final(r) - start[r.spec.seed]) / (goal[r.spec.seed] - start[r.spec.seed]) for r in study[method]
    )


def agreement(study: Study) -> float:
    """Kendall's tau between the official mean and the gap closed, over methods; NaN with fewer than three."""
    methods = [m for m in _free(study) if all(math.isfinite(v) for v in gaps(study, m))]
    if len(methods) < 3:
        return math.nan
    return float(
        kendalltau(
            [mean_of(finals(study, m)) for m in methods], [mean_of(gaps(study, m)) for m in methods]
        ).statistic
    )


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
        parts.append(f"{style.label(m).lower().replace('eos', 'EOS')} {mean_of(values):.2f}{own}")
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
    kept, way = (
        [f(m) for m in DESTROYED] for f in (lambda m: mean_of(gaps(first, m)), lambda m: covered(first, m))
    )
    main = (
        f"**{'Yes' if yes else 'Not on every testbed'}: a destroyed model gets about {destroyed():.1f} of"
        " the official mean for nothing, more than "
        + (f"an untouched one on {_both(studies)} and more than " if yes else "")
        + f"{len(fewer)} of the {len(large)} published 7B submissions, while on `{bed}` it closes"
        f" {range_of(kept)} of the gap to a model retrained without the forget set.**"
    )
    libu = data.row("7B", "Lacuna Inc.")
    lines = [
        f"**The score's order.** On `{bed}`, the official mean gives {_scores(first)}, against"
        f" {mean_of(finals(first, 'target')):.2f} for the untouched target and"
        f" {mean_of(finals(first, 'twin')):.2f} for the retrained twin: {range_of(way)} of the way from"
        f" the one to the other. It puts {_names(under)} below the destroyed models in every seed"
        + (f", and does not tell {_names(beside)} from them." if beside else ".")
        + f" The distance to the twin puts {_names(_free(by_gap['below']))} below them in every seed,"
        f" and {_where(first)}.",
        f"**Arithmetic and threshold.** {_sums(data)} {caught(data)}",
        (
            f"**Papers.** The headline scores of Cyber for AI ({_finals(data, 'Cyber for AI')}) have the"
            f" parts of a destroyed model: task aggregates {_aggregates(data, 'Cyber for AI')}. What notes"
            f" on LIBU call a regurgitation rate, {libu.task}, is its task aggregate; its MIA score is"
            f" {libu.mia:g}."
        ),
        f"**The attack.** {_attack_line(data)}",
    ]
    return say(
        "```{admonition} The answer\n:class: tip\n"
        + main
        + "\n\n"
        + "\n".join(f"- {x}" for x in lines)
        + "\n```"
    )


def _both(studies: Sequence[Study]) -> str:
    return " and ".join(f"`{s['target'][0].spec.testbed}`" for s in studies)


def _names(methods: Sequence[str]) -> str:
    return words.names(methods) if methods else "no method"


def _free(methods: Iterable[str]) -> list[str]:
    return [m for m in methods_of(methods) if not bound(m)]


def _where(study: Study) -> str:
    """What the distance says of untouched and destroyed models."""
    where = next(k for k, v in placed(study, gaps).items() if "target" in v)
    return {
        "level": (
            "does not tell the untouched target from them: both are equally far from it, on opposite sides"
        ),
        "above": "the untouched target above them",
        "below": "the untouched target below them",
    }[where]


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
    twin = extent(finals(study, "twin"))
    methods = _free(study)
    equal = [m for m in methods if overlap(extent(finals(study, m)), twin)]
    higher = [m for m in methods if extent(finals(study, m))[0] > twin[1]]
    more = beyond_twin(study)
    tau = agreement(study)
    lines = [
        (
            f"On `{bed}`, with {counted(study)}, the official mean puts {_listing(by_score['below'])}"
            f" below both destroyed models in every seed; {_listing(by_score['level'])} within their range"
            f" over seeds; and {len(methods_of(by_score['above']))} above."
        ),
        (
            f"The distance to the twin puts {_listing(by_gap['below'])} farther than both in every seed,"
            f" and {_listing(by_gap['level'])} within their range."
        ),
        (
            f"The twin has {mean_of(finals(study, 'twin')):.2f}, by its parts {_parts(study, 'twin')}."
            f" Methods that score more in every seed: {_listing(higher)}; that are not told apart from it:"
            f" {_listing(equal)}."
        ),
    ]
    if more:
        rouge = mean_of(quantities.value(r, "forget_passages") for r in study["twin"])
        lines.append(
            f"The task aggregate of {len(more)} of {len(methods)} methods is above that of the twin in"
            " every seed. The twin never read the forget passages and still continues them with ROUGE-L"
            f" {rouge:.2f}, since it knows how such passages go on; the aggregate counts that against it,"
            " and pays for tearing it down."
        )
    if tau == tau:
        lines.append(
            f"Over {len(methods)} methods, the order by the official mean and the order by the gap closed"
            f" agree with Kendall's tau {tau:.2f} (1: the same order; 0: chance)."
        )
    return say(bullets(lines))


def _listing(models: Sequence[str]) -> str:
    return words.names(models, 12) if models else "none"


def _parts(study: Study, method: str) -> str:
    names = {
        "task_aggregate": "task aggregate",
        "mia_score": "MIA score",
        "world_questions": "world questions",
    }
    return ", ".join(
        f"{text} {mean_of(quantities.value(r, k) for r in study[method]):.2f}" for k, text in names.items()
    )


def shown(study: Study) -> list[str]:
    """Rows of the ladder table: the ladder, the leaderboard's first, and methods that score no more than a
    destroyed model.
    """
    found = placed(study, finals)
    low = methods_of([*found["level"], *found["below"]])
    first = [m for m in ranking(study, _free(study)) if m not in low][:1]
    order = {m: mean_of(finals(study, m)) for m in (*LADDER, *first, *low) if m in study}
    return sorted(order, key=lambda m: (m not in LADDER, -order[m]))


def ladder(studies: Sequence[Study]) -> Table:
    """The official score, its parts, and the distance to the twin: the ladder and methods near its lower
    rungs, by testbed.
    """
    names = ("task_aggregate", "mia_score", "world_questions", "final_score")
    rows, plain, groups = [], [], {}
    for study in studies:
        bed = study["target"][0].spec.testbed
        groups[len(rows)] = bed
        for m in shown(study):
            i = {n: interval(study[m], n) for n in names}
            own, far = gaps(study, m), spread(study, m)
            gap = seeds_interval(own) if all(math.isfinite(v) for v in own) else None
            swatch = f'<span class="swatch" style="background:{style.colour(m)}"></span>'
            distance = (
                f'{number(twin.distance(study, m))} <span class="interval">({number(far[0])} to'
                f" {number(far[1])})</span>"
            )
            closed = cell(_cut(gap)) if gap else "–"
            rows.append(
                (swatch + html.escape(style.label(m)), *(cell(i[n]) for n in names), distance, closed)
            )
            plain.append(
                {"testbed": bed, "model": m, "seeds": len(study[m])}
                | {
                    f"{n}{end}": _plain(v)
                    for n in names
                    for end, v in (("", i[n].estimate), ("_low", i[n].low), ("_high", i[n].high))
                }
                | {
                    "distance": _plain(twin.distance(study, m)),
                    "gap_closed": _plain(gap.estimate if gap else math.nan),
                }
            )
    heads = (
        "task aggregate ↑",
        "MIA score ↑",
        "world questions ↑",
        "official final ↑",
        "distance ↓",
        "gap closed ↑",
    )
    caption = (
        "The sanity ladder, the methods that the official mean puts at or below the destroyed models, and"
        " the first of the leaderboard. World questions stand for MMLU. Brackets: 95 % intervals from"
        " resampling seeds and documents, for the gap closed Student's t over seeds; parentheses: range"
        " over seeds."
    )
    help_ = {
        "distance ↓": "Mean absolute difference to the twin of the same seed over five readings.",
        "gap closed ↑": (
            "1 - distance / the target's distance: 1 is the twin, 0 as far as the untouched target."
        ),
    }
    return Table(("model", *heads), tuple(rows), caption, help_, data=tuple(plain), groups=groups)


def _cut(i: Any) -> Any:
    """A t interval of a gap closed, cut at the twin."""
    return i._replace(high=min(1.0, i.high)) if math.isfinite(i.high) else i


def _plain(x: float) -> float | str:
    return "" if not math.isfinite(x) else round(x, 4)


def _attack_line(data: Published) -> str:
    sets = data.attack_sets
    most = max(sets, key=lambda s: s["members"])
    n = most["members"]
    group = together(data, n)
    mean, _ = unseen(n, most["nonmembers"])
    return (
        f"With {n} texts a side, the larger of the public sets, the {len(group)} highest published MIA"
        f" scores ({group[-1].mia:g} to {group[0].mia:g}) are not told apart, and a model that the attack"
        f" cannot tell anything about scores {mean:.2f} on average."
    )
