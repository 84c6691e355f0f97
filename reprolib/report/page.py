"""What notebooks call: gather records, show source code and computed sentences. Pages hold no numbers of their own."""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from IPython.display import Markdown

from reprolib.experiment import run
from reprolib.record import Record
from reprolib.report.summary import LADDER
from reprolib.search import HEADS, LEVEL, READINGS


def seeds(seed: int | None) -> tuple[int, ...]:
    """The seed of a page's parameter, or all seeds of the study."""
    from reprolib.grid import study_seeds

    return study_seeds() if seed is None else (seed,)


def gather(
    methods: Iterable[str], testbed: str, seed: int | None = None, *, ladder: bool = True, **fields: Any
) -> dict[str, list[Record]]:
    """Records by method: read where ``results/`` holds them, computed where not. The sanity ladder comes first."""
    out = {}
    for name in (*LADDER, *methods) if ladder else tuple(methods):
        own = fields if name not in LADDER else {k: v for k, v in fields.items() if k == "suite"}
        out[name] = [run(testbed=testbed, method=name, seed=s, **own) for s in seeds(seed)]
    return out


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spec fields of a method page's ``options`` parameter."""
    return {"options": dict(options)} if options else {}


def source(*functions: Any) -> Any:
    """The code of functions or classes as it runs, with its docstring: the other half of the equation above it."""
    return Markdown("\n".join(f"```python\n{inspect.getsource(f)}```" for f in functions))


class Said(Markdown):
    """Words in the place of a table: shown as Markdown, and without numbers for a CSV."""

    def csv(self, name: str) -> Said:
        """As :meth:`reprolib.report.tables.Table.csv`, but there is nothing to write: an older file stays as it is."""
        return self


def say(text: str) -> Said:
    """A sentence with computed numbers, as Markdown."""
    return Said(text)


def card(method: str) -> Any:
    """The facts of a method: paper, published settings, cost, trap."""
    from reprolib.recipes import recipe

    c = recipe(method).card
    lines = [("Idea", c.idea), ("Source", c.paper), ("Published", c.published), ("Cost of a step", c.cost), ("Trap", c.trap)]
    return say("\n".join(f"- **{k}.** {v}" for k, v in lines if v))


Study = Mapping[str, list[Record]]


def mean(records: Iterable[Record], metric: str) -> float:
    """Mean of a metric over the seeds; NaN if a run lost it (a null in its record)."""
    values = [r.metrics[metric] for r in records]
    return float("nan") if None in values else sum(values) / len(values)


def _label(method: str) -> str:
    from reprolib.recipes import recipe

    return recipe(method).card.label


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.0f}\u202f%"  # a space that does not break


def names(methods: Iterable[str], most: int = 6) -> str:
    """Labels as a list in a sentence; beyond ``most`` of them, the number of the others."""
    return listed([_label(m) for m in methods], most)


def listed(parts: list[str], most: int = 6) -> str:
    """Parts as a list in a sentence, with semicolons where a part has a comma of its own."""
    if len(parts) > most + 1:
        parts = [*parts[:most], f"{len(parts) - most} more"]
    if len(parts) < 2:
        return "".join(parts)
    comma = any("," in p for p in parts)
    return ("; " if comma else ", ").join(parts[:-1]) + ("; and " if comma else " and ") + parts[-1]


def ordered(study: Study, methods: Iterable[str]) -> list[str]:
    """Methods by their distance to the twin, the closest first; those whose distance is not finite last."""
    far = {m: distance(study, m) for m in methods}
    return sorted(far, key=lambda m: (far[m] != far[m], far[m]))


def _line(study: Study, method: str) -> str:
    """What a model does, with the twin's value in parentheses."""
    r, t = study[method], study["twin"]

    def pair(metric: str) -> str:
        return f"{_percent(mean(r, metric))} ({_percent(mean(t, metric))})"

    return (
        f"answers {pair('forget/questions')} of the forget, {pair('retain/questions')} of the retain and "
        f"{pair('world/accuracy')} of the world questions, continues forget passages with ROUGE-L {_rouge(r):.2f} ({_rouge(t):.2f}), "
        f"and leaves the loss attack an AUC of {mean(r, 'attack/auc'):.2f} ({mean(t, 'attack/auc'):.2f})"
    )


def _rouge(records: Iterable[Record]) -> float:
    """Mean ROUGE-L recall of the forget passages, over rows and seeds."""
    from reprolib.report.summary import value

    values = [value(r, "forget_passages") for r in records]
    return sum(values) / len(values)


FOUR = {
    "forget_questions": "forget/questions", "attack_auc": "attack/auc", "retain_questions": "retain/questions", "world_questions": "world/accuracy",
}  # fmt: skip


def readings(record: Record) -> dict[str, float]:
    """The five readings that the distance is made of, each a share or an AUC; NaN where a run lost one."""
    four = {k: mean([record], metric) for k, metric in FOUR.items()}
    return four | {"forget_passages": _rouge([record])}


def between(record: Record, twin: Record) -> float:
    """Distance between two models: mean absolute difference over five readings, each a share or an AUC.

    Forget questions, forget passages (ROUGE-L), attack AUC, retain questions and world questions count alike.
    """
    own, goal = readings(record), readings(twin)
    return sum(abs(own[k] - goal[k]) for k in own) / len(own)


def by_seed(study: Study, method: str) -> dict[int, float]:
    """Distance of each seed's model to the twin of the same seed."""
    twins = {r.spec.seed: r for r in study["twin"]}
    return {r.spec.seed: between(r, twins[r.spec.seed]) for r in study[method]}


def distance(study: Study, method: str) -> float:
    """Distance to the twin of the same seed, mean over the seeds; 0 is the twin itself, NaN if a seed lost a reading."""
    values = by_seed(study, method).values()
    return sum(values) / len(values)


def spread(study: Study, method: str) -> tuple[float, float]:
    """Smallest and largest distance to the twin among the seeds."""
    return extent(by_seed(study, method).values())


def extent(values: Iterable[float]) -> tuple[float, float]:
    """Smallest and largest of the finite values; NaN if there are none."""
    finite = [v for v in values if math.isfinite(v)] or [math.nan]
    return min(finite), max(finite)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two ranges over seeds overlap: methods of which they do are not told apart, everywhere in the book."""
    return a[0] <= b[1] and b[0] <= a[1]


def closed(study: Study, method: str) -> dict[int, float]:
    """Gap closed by seed: 1 - distance / the target's distance, both to the twin of that seed. 1 is the twin, 0 the untouched target.

    NaN where the target hardly differs from the twin, so that there is nothing to close.
    """
    start = by_seed(study, "target")
    return {s: 1 - d / start[s] if start[s] > 0.02 else math.nan for s, d in by_seed(study, method).items()}


def noise(study: Study) -> float:
    """Noise floor: the largest distance between twins of different seeds, which differ by chance alone; NaN with one seed."""
    return max((between(a, b) for a, b in combinations(study["twin"], 2)), default=math.nan)


GROUPS = ("all", "some", "none")  # of a model's seeds end at the level or below


def reached(study: Study, method: str, level: float = LEVEL) -> int:
    """How many seeds end with at most ``level`` of the forget questions answered."""
    return sum(readings(r)["forget_questions"] <= level + 1e-9 for r in study[method])


def group(study: Study, method: str, level: float = LEVEL) -> str:
    n = reached(study, method, level)
    return "none" if not n else "all" if n == len(study[method]) else "some"


def ranking(study: Study, methods: Iterable[str], level: float = LEVEL) -> list[str]:
    """The order of the leaderboard, which the first page follows too.

    First those of which all seeds end with at most ``level`` of the forget questions answered, by the mean gap closed, the largest
    first; then those of which only some seeds do, then those of which none does, both by the distance to the twin. Within a group,
    what is not finite comes last.
    """

    def place(method: str) -> tuple[float, ...]:
        own, far = group(study, method, level), distance(study, method)
        gaps = list(closed(study, method).values())
        gap, far = sum(gaps) / len(gaps), far if math.isfinite(far) else math.inf
        return GROUPS.index(own), -gap if own == "all" and math.isfinite(gap) else math.inf, far

    return sorted(methods, key=place)


def bound(method: str) -> bool:
    """Whether a method is none that anyone would use but a bound: damage without a method (noise), and labels without sense."""
    from reprolib.report import style

    return method not in LADDER and style.family(method) == "baseline"


def counted(methods: Iterable[str]) -> str:
    """How many methods there are, with bounds counted apart, e.g. "39 methods and 2 bounds"."""
    methods = [m for m in methods if m not in LADDER]
    bounds = sum(bound(m) for m in methods)
    n = len(methods) - bounds
    return f"{n} method{'' if n == 1 else 's'}" + (f" and {bounds} bound{'' if bounds == 1 else 's'}" if bounds else "")


def _caveat(study: Study, methods: Iterable[str]) -> str:
    methods = list(methods)
    n = min(len(study[m]) for m in methods)
    lost = {m: sum(r.status == "diverged" for r in study[m]) for m in methods}
    gone = [f"{_label(m)} ({k} of {len(study[m])} seeds)" for m, k in lost.items() if k]
    text = f" Means over {n} seed{'s' if n > 1 else ''}." + (" One seed says nothing about spread." if n == 1 else "")
    if len(gone) > 6:
        return text + f" Diverged in some seed: {len(gone)} of {len(methods)} methods."
    return text + (f" Diverged: {listed(gone)}." if gone else "")


def _lowest(records: Iterable[Record]) -> str:
    """The low point of the retain questions along the run: what was torn down, even if it was learnt again later."""
    from reprolib.report.summary import way

    low = [min(p["retain/questions"] for p in way(r)) for r in records if r.cost.get("trained_parameters", 1) and r.trajectory and way(r)]
    return f"Along the way, the retain questions answered fell as low as {_percent(sum(low) / len(low))}." if low else ""


def verdict(study: Study, method: str) -> Any:
    """The one-sentence answer on top of a method page."""
    return say(
        f"```{{admonition}} In short\n:class: tip\n{_label(method)} {_line(study, method)}; in parentheses, the twin. "
        f"{_lowest(study[method])}{_caveat(study, [method])}\n```"
    )


def answer(study: Study) -> Any:
    """The answer on the landing page: the first of the leaderboard, the method farthest from the twin, and a warning."""
    every = [m for m in study if m not in LADDER]
    methods = [m for m in every if not bound(m)]
    order = [m for m in ordered(study, methods) if math.isfinite(distance(study, m))]
    there = [m for m in ranking(study, order) if group(study, m) == "all"]
    best, worst = (there or order)[0], order[-1]
    own = spread(study, best)
    alike = [m for m in there or order if m != best and overlap(spread(study, m), own)]
    gate = f"end with at most {_percent(LEVEL)} of the forget questions answered in every seed"
    among = f"{len(there)} {gate}. Among them, " if there else f"none {gate}. Still, "
    apart = (
        f" Its distance ({own[0]:.2f} to {own[1]:.2f} over seeds) overlaps with that of {names(alike)}; what drawing documents anew adds is on the "
        "{doc}`yardsticks' page </results/notebooks/synthesis/yardsticks>`." if alike and own[0] < own[1] else ""
    )
    lines = [
        f"Of {counted(every)} on `{study['twin'][0].spec.testbed}`, {among}**{_label(best)}** comes closest to a model retrained without "
        f"the forget set (the *twin*, in parentheses): it {_line(study, best)}.{apart}",
        *([f"Farthest from the twin is {_label(worst)}, at {' to '.join(f'{v:.2f}' for v in spread(study, worst))}."] if worst != best else []),
        _official(study, methods),
    ]
    lost = [m for m in methods if m not in order]
    if lost:
        lines.append(f"Readings of {names(lost)} are not finite.")
    bullets = "\n".join(f"- {x}" for x in lines)
    end = f"{_caveat(study, methods).strip()}\n\n{_instrument(study)}"
    return say("```{admonition} The answer\n:class: tip\n" + bullets + "\n\n" + end + "\n```")


def _official(study: Study, methods: Iterable[str]) -> str:
    """What the official score gives to random weights, beside what it gives to methods."""
    methods = list(methods)
    scores = {m: [r.metrics["lume/final"] or 0.0 for r in study[m]] for m in (*methods, "random")}
    beaten = [m for m in methods if max(scores[m]) < min(scores["random"])]
    level = [m for m in methods if m not in beaten and min(scores[m]) <= max(scores["random"])]
    said = f"On the official score, random weights already score {mean(study['random'], 'lume/final'):.2f}"
    parts = [f"more than {names(beaten)} in every seed"] if beaten else []
    parts += [f"about as much as {names(level)}"] if level else []
    return said + ("".join(f", {p}" for p in parts) if parts else "; every method here scores more") + ": its parts must be read one by one."


def _instrument(study: Study) -> str:
    """What the numbers were measured with, and what they are therefore about."""
    first = study["target"][0]
    size, corpus = first.cost.get("parameters"), first.spec.testbed.partition("/")[2]
    model = f"a {size / 1e6:.1f}-million-parameter model" if size else "a small model"
    rows = "synthetic people" if corpus == "synthetic" else f"rows of the corpus {corpus}"
    n = len(study["target"])
    return (
        f"The instrument: {model} trained from scratch, {rows}, {n} seed{'s' if n > 1 else ''}, one setting a method. "
        "The order is about mechanisms at this scale, not about 7B models."
    )


def distances(study: Study) -> Any:
    """Every model's distance to the twin, and the gap closed."""
    rows = ""
    for m in ordered(study, study):
        low, high = spread(study, m)
        gap = list(closed(study, m).values())
        rows += f"| {_label(m)} | {distance(study, m):.2f} | {low:.2f} to {high:.2f} | {_percent(sum(gap) / len(gap))} |\n"
    return say(
        "| model | distance to the twin | single seeds | gap closed |\n| --- | ---: | ---: | ---: |\n" + rows + "\n"
        "Distance: mean absolute difference to the twin of the same seed over forget questions, forget passages, attack AUC, retain questions "
        "and world questions, each from 0 to 1. Gap closed: 1 - distance / the target's distance. It weighs the five alike, which is a choice; "
        "the figure shows them apart. Untouched and destroyed models lie far from the twin on opposite sides, and this distance does not tell them apart."
    )


def within(interval: Any, high: float | None) -> Any:
    """A t interval cut to the metric's range, [0, high]."""
    top = interval.high if high is None else min(high, interval.high)
    return interval._replace(low=max(0.0, interval.low) if interval.low == interval.low else interval.low, high=top)


def gaps(study: Study) -> Any:
    """Share of the way from the target to the twin, (m - target) / (twin - target), reading by reading: for what should be forgotten;
    mean over seeds with a t interval."""
    from reprolib.metrics.statistics import seeds_interval
    from reprolib.report import summary
    from reprolib.report.tables import Table, cell

    readings = ("forget_questions", "forget_passages", "attack_auc")
    rows = []
    for m in study:
        if m in ("target", "twin"):
            continue
        values = {n: [v for v in summary.gap(study[m], study["target"], study["twin"], n) if v == v] for n in readings}
        rows.append({"model": _label(m)} | {summary.READINGS[n].label: cell(seeds_interval(v)) if v else "–" for n, v in values.items()})
    return Table.of(rows, caption="Share of the way, reading by reading: 0 is the untouched target, 1 the twin of the same seed, more is beyond the twin. "
                    "95 % t intervals over seeds.")  # fmt: skip


def matched(study: Study, level: float = LEVEL) -> Any:
    """What is kept at the moment when forget questions have come down to ``level``, read off the trajectory by interpolation."""
    from reprolib.metrics.statistics import seeds_interval
    from reprolib.report.summary import at_level
    from reprolib.report.tables import Table, cell

    kept = {"retain/questions": "Retain questions ↑", "world/accuracy": "World questions ↑", "retain/kl": "KL to target ↓",
            "attack/auc": "Attack AUC → twin"}  # fmt: skip
    rows = []
    for m in study:
        if m in LADDER:
            continue
        found = [x for x in (at_level(r, level) for r in study[m]) if x is not None]
        row = {"method": _label(m), "seeds that get there": f"{len(found)} of {len(study[m])}"}
        for k, name in kept.items():
            values = [x[k] for x in found if math.isfinite(x[k])]
            high = None if k == "retain/kl" else 1.0
            row[name] = cell(within(seeds_interval(values), high)) if values else "–"
        row["Retain questions at the end ↑"] = cell(within(seeds_interval([r.metrics["retain/questions"] for r in study[m]]), 1.0))
        rows.append(row)
    return Table.of(rows, caption=f"When {_percent(level)} is first reached: where the run first answers no more than that of the forget questions. "
                    "Linear interpolation between about ten logged points: where nearly all is lost between two of them, the value is the line's and "
                    "was not observed. Means over the seeds that get there, 95 % t intervals. The last column is the run's end: a method may tear down "
                    "first and repair later.")  # fmt: skip


def compare(real: Study, synthetic: Study) -> Any:
    """Whether the methods come out in the same order on two testbeds."""
    methods = [m for m in real if m not in LADDER]
    lines = []
    for study in (real, synthetic):
        order = sorted(methods, key=lambda m: distance(study, m))
        ranges = {m: spread(study, m) for m in order}
        shown = ", ".join(f"{_label(m)} {distance(study, m):.2f} ({ranges[m][0]:.2f} to {ranges[m][1]:.2f})" for m in order)
        alike = [_label(m) for m in order[1:] if overlap(ranges[m], ranges[order[0]])]
        first = f"{_label(order[0])} is closest" + (f", not told apart from {' and '.join(alike)}" if alike else " in every seed")
        lines.append(f"`{study['target'][0].spec.testbed}`: {first}. Distances: {shown}.")
    attack = ", ".join(f"{_label(m)} {mean(real[m], 'attack/auc'):.2f} ({mean(synthetic[m], 'attack/auc'):.2f})" for m in methods)
    lines.append(f"Attack AUC on the first, and in parentheses on the second: {attack}; the twin's is {mean(real['twin'], 'attack/auc'):.2f} "
                 f"({mean(synthetic['twin'], 'attack/auc'):.2f}).")  # fmt: skip
    bullets = "\n".join(f"- {x}" for x in lines)
    return say(
        f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\nDistance to the twin, and the range over seeds; methods whose "
        f"ranges overlap are not told apart.{_caveat(real, methods)}\n```"
    )


def search(testbed: str, seed: int, methods: Iterable[str] | None = None) -> Any:
    """The recorded search for each method's options (None: of every method that has trials): the rule's choice by method."""
    import dataclasses

    from reprolib import search as rule
    from reprolib.grid import Search

    found = Search.load()
    rule.check(found, next(iter(found.trials)) if found else "")
    found = dataclasses.replace(found, testbed=testbed, seed=seed)
    return {m: rule.gather(found, m) for m in (found.trials if methods is None else methods)}


def search_answer(choices: Mapping[str, Any]) -> Any:
    """For how many methods the recipe's defaults are what the rule picks, what the search cost, and how uneven its budget is."""
    picked = {m: c for m, c in choices.items() if c.pick is not None}
    differ = [m for m, c in picked.items() if not c.pick.default]
    short = [m for m, c in picked.items() if not c.enough]
    nothing = [m for m in choices if m not in picked]
    gone, failed = ({m: sum(t.status == s for t in c.trials) for m, c in choices.items()} for s in ("diverged", "failed"))
    counts = {m: len(c.trials) for m, c in choices.items()}
    few, many = min(counts.values()), max(counts.values())
    budget = f"{few}" if few == many else f"{few} to {many}"
    seconds = {m: sum(t.seconds for t in c.trials if math.isfinite(t.seconds)) for m, c in choices.items()}
    spent = sorted(v for v in seconds.values() if v > 0)
    lines = [
        f"{sum(counts.values())} trials of {counted(choices)}, {budget} a method."
        + (f" Unlearning them took {spent[0]:.0f} to {spent[-1]:.0f} s a method: neither the number of trials nor their cost is matched." if spent else "")
    ]
    weak = sorted(picked, key=lambda m: picked[m].pick.readings["distance"])
    if few < many and len(weak) > 1:
        half = {"nearer": weak[: len(weak) // 2], "farther": weak[len(weak) // 2 :]}
        average = {k: sum(counts[m] for m in part) / len(part) for k, part in half.items()}
        lines.append(
            f"Extra trials went to weak methods: {average['farther']:.1f} a method on average in the half whose picks lie farther from the twin, "
            f"{average['nearer']:.1f} in the half nearer to it."
            if average["farther"] > average["nearer"]
            else f"The half of the methods whose picks lie farther from the twin had {average['farther']:.1f} trials on average, the other {average['nearer']:.1f}."
        )
    if not differ and not nothing:
        lines.append("The recipe's default is the rule's choice for every method.")
    else:
        lines.append(f"The recipe's default is the rule's choice for {len(choices) - len(differ) - len(nothing)} of {len(choices)}.")
    if differ:
        lines.append(f"It is not for {names(differ, 12)}.")
    if short:
        lines.append(
            f"No trial of {names(short, 12)} ends with at most {_percent(LEVEL)} of the forget questions answered: there the rule takes the one that answers fewest."
        )
    if nothing:
        lines.append(f"No trial of {names(nothing, 12)} gave finite readings.")
    if any(gone.values()):
        lines.append(f"Diverged trials: {listed([f'{_label(m)} {n}' for m, n in gone.items() if n], 12)}.")
    if any(failed.values()):
        lines.append(f"Failed trials: {listed([f'{_label(m)} {n}' for m, n in failed.items() if n], 12)}.")
    bullets = "\n".join(f"- {x}" for x in lines)
    return say(f"```{{admonition}} In short\n:class: tip\n{bullets}\n\nOne seed: small differences mean nothing.\n```")


def search_summary(choices: Mapping[str, Any]) -> Any:
    """One row a method: its budget, what the rule picks and why, and the recipe's default."""
    from reprolib.report.tables import Table

    rows = []
    for m, c in choices.items():
        seconds = [t.seconds for t in c.trials if t.seconds == t.seconds]
        default = c.default.label if c.default else "not tried"
        rows.append({
            "method": _label(m), "trials": f"{len(c.trials)}", "unlearning, s": f"{sum(seconds):.0f}", "the rule picks": c.pick.label if c.pick else "–",
            "forgets enough": "yes" if c.enough else "no", "because": c.reason, "recipe's default": default,
            "the same": "–" if c.pick is None else "yes" if c.pick.default else "no",
        })  # fmt: skip
    return Table.of(rows, caption="The search, method by method: number of trials and seconds spent on them, the rule's choice, and what the recipe has.")


def search_trials(choices: Mapping[str, Any]) -> Any:
    """Every trial, one table a method; the rule's pick and the recipe's default are marked."""
    from IPython.display import HTML

    from reprolib.report.tables import Table, number

    tables = []
    for m, c in choices.items():
        rows = []
        for t in c.trials:
            marks = [word for word, here in (("picked", t is c.pick), ("default", t.default)) if here]
            state = [t.status] if t.status != "done" else []
            values = [t.readings.get(k, math.nan) for k in READINGS]
            rows.append({
                "trial": t.label, "mark": ", ".join(marks + state), "forgets enough": "–" if not t.eligible else "yes" if t.enough else "no",
                **dict(zip(HEADS, (*(number(v) for v in values[:-1]), f"{values[-1]:.3f}" if math.isfinite(values[-1]) else "–"), strict=True)),
            })  # fmt: skip
        twin = next((t.twin for t in c.trials if t.twin), {})
        if twin:
            rows.append({"trial": "the twin of this seed", "mark": "", "forgets enough": "", **dict(zip(HEADS, (number(twin[k]) for k in READINGS), strict=True))})
        reasons = "".join(f" {t.label}: {t.reason}." for t in c.trials if t.reason)
        tables.append(Table.of(rows, caption=f"{_label(m)}.{reasons}")._repr_html_())
    return HTML("\n".join(tables))


def trials(method: str, testbed: str) -> Any:
    """The recorded trials of one method's options, or a sentence where there are none."""
    from reprolib import search as rule
    from reprolib.grid import Search

    found = Search.load()
    if found is None or method not in found.trials or testbed != found.testbed:
        where = f" on `{testbed}`" if found and method in found.trials else ""
        return say(f"No search was made{where}: the options are the recipe's defaults.")
    return search_trials({method: rule.gather(found, method, compute=False)})


def methods(family: str | None = None) -> Any:
    """All methods by family (or those of one), each with a link to its page, its paper, its stages and the cost of its steps."""
    import html

    from IPython.display import HTML

    from reprolib.errors import SpecError, unknown
    from reprolib.recipes import FAMILIES, METHODS
    from reprolib.report.tables import Table

    if family and family not in FAMILIES:
        raise SpecError(unknown("family", family, FAMILIES))
    out = []
    for name in (family,) if family else FAMILIES:
        rows = [
            {"method": f'<a href="../methods/{n}.html">{html.escape(r.card.label)}</a>', "idea": html.escape(r.card.idea),
             "source": html.escape(r.card.paper), "stages": html.escape(" → ".join(s.name for s in r.build({}))), "cost of a step": r.cost_class}
            for n, r in METHODS.items() if r.card.family == name
        ]  # fmt: skip
        if rows:
            out.append(Table.of(rows, caption=name.capitalize())._repr_html_())
    return HTML("\n".join(out))


def importance_cost(study: Study) -> Any:
    """What the importance pass of Fisher-initialised LoRA took, from the records: medians over seeds."""
    from reprolib.report.tables import Table

    rows = []
    for m, records in study.items():
        costs = [r.cost for r in records if "importance_s" in r.cost]
        if costs:
            def middle(key: str, costs: list[Any] = costs) -> float:
                return statistics.median(c[key] for c in costs)

            rows.append({
                "method": _label(m), "parameters with gradients": f"{middle('importance_parameters'):,.0f}",
                "importance pass, s": f"{middle('importance_s'):.1f}", "SVD and start, s": f"{middle('initialisation_s'):.1f}",
                "importance values, MiB": f"{middle('importance_values_bytes') / 2**20:.1f}", "whole unlearning run, s": f"{middle('train_s'):.0f}",
            })  # fmt: skip
    if not rows:
        return say("No method here measures importance.")
    return Table.of(rows, caption="Medians over seeds. The runs were not timed side by side; the page on cost has ratios that were measured in one run.")


def diagnostics(study: Study, method: str) -> Any:
    """What a second-order optimizer says of itself at the end of each stage: means over seeds."""
    from reprolib.report.tables import Table

    ends: dict[str, list[Mapping[str, Any]]] = {}
    for r in study[method]:
        last = {p["stage"]: p for p in r.trajectory if p["stage"]}
        for stage, point in last.items():
            ends.setdefault(stage, []).append(point)
    names = sorted({k for points in ends.values() for p in points for k in p if k.startswith("optimizer/")})
    if not names:
        return say("No second-order stage ran.")
    rows = []
    for name in names:
        row = {"diagnostic": name.removeprefix("optimizer/").replace("_", " ")}
        for stage, points in ends.items():
            values = [p[name] for p in points if p.get(name) is not None]
            row[stage] = f"{sum(values) / len(values):.3g}" if values else "–"
        rows.append(row)
    return Table.of(rows, caption="Diagnostics of the optimizer at the last measured step of each stage, means over seeds.")


def routing(study: Study, method: str) -> Any:
    """How well a prompt classifier tells forget from retain, by what it had seen, and which prompts it sent away: means over seeds."""
    from IPython.display import HTML

    from reprolib.report.tables import Table

    def over_seeds(name: str) -> str:
        values = [r.metrics.get(f"routing/{name}") for r in study[method]]
        return "–" if None in values else _ranged(values)

    rows = [
        {"the classifier of a prompt had seen": text, "AUC": over_seeds(f"auc_{how}"), "told rightly": over_seeds(f"accuracy_{how}")}
        for how, text in (("documents", "no row of its document"), ("rows", "other rows of its document"), ("seen", "the prompt itself"))
    ]
    groups = {"forget": "forget", "retain": "retain", "holdout": "holdout passages", "world": "world questions"}
    sent = [{"prompts": text, "sent to the model that says nothing": over_seeds(f"sent_{g}")} for g, text in groups.items()]
    tables = (
        Table.of(rows, caption="Forget against retain prompts: AUC (chance 0.5) and share told rightly. Means over seeds, and the range over seeds."),
        Table.of(sent, caption="Share of prompts sent away in the evaluation above."),
    )
    return HTML("\n".join(t._repr_html_() for t in tables))


Sizes = Mapping[str, Mapping[float, list[Record]]]


def answered(record: Record, given: int | None) -> float:
    """Share of forget questions still answered among rows that were given (2), whose document was given in part (1),
    of whose document nothing was given (0), or all (None). NaN where there are none."""
    columns = record.rows
    level = columns.get("given") or [2] * len(columns["group"])
    hits = [
        s for g, k, s, v in zip(columns["group"], columns["kind"], columns["score"], level, strict=True)
        if g == "forget" and k == "qa" and (given is None or v == given)
    ]  # fmt: skip
    return sum(hits) / len(hits) if hits else float("nan")


def _over(records: Iterable[Record], given: int | None) -> float:
    values = [answered(r, given) for r in records]
    return sum(values) / len(values)


def actual_rows(by_rows: Sizes) -> dict[str, dict[float, list[Record]]]:
    """The same settings keyed by the share of forget rows really given: every document gives at least one row."""
    out = {}
    for m, shares in by_rows.items():
        total = shares[1.0][0].cost["forget_rows_given"]
        out[m] = {round(_given(records) / total, 3): records for records in shares.values()}
    return out


def _given(records: Iterable[Record]) -> float:
    values = [r.cost["forget_rows_given"] for r in records]
    return sum(values) / len(values)


def size_answer(by_documents: Sizes, by_rows: Sizes) -> Any:
    """What the ablation of the forget set's size says, in a sentence a method."""
    lines = []
    for m in by_documents:
        shares = sorted(s for s in by_documents[m] if s < 1)
        small, large = shares[0], shares[-1]
        row = min(by_rows[m])
        lines.append(
            f"{_label(m)}: given {_percent(small)} of the documents, {_percent(_over(by_documents[m][small], 0))} of the questions about "
            f"documents *not* given are still answered; given {_percent(large)}, {_percent(_over(by_documents[m][large], 0))}. Given "
            f"{_percent(row)} of all rows, at least one of every document, {_percent(_over(by_rows[m][row], 1))} of the questions *not* given are. Retain "
            f"questions answered at these three: {_percent(mean(by_documents[m][small], 'retain/questions'))}, "
            f"{_percent(mean(by_documents[m][large], 'retain/questions'))}, {_percent(mean(by_rows[m][row], 'retain/questions'))}."
        )
    n = len(next(iter(next(iter(by_documents.values())).values())))
    return say(
        "```{admonition} The answer\n:class: tip\n" + "\n\n".join(lines) + f"\n\nMeans over {n} seed{'s' if n > 1 else ''}. Forgetting of what "
        "was not given is no success where retain questions go with it: it is then damage, not generalisation.\n```"
    )


def _ranged(values: list[float]) -> str:
    if any(v != v for v in values):
        return ""
    text = f"{sum(values) / len(values):.2f}"
    return text + (f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else "")


def size_table(by_documents: Sizes, by_rows: Sizes) -> Any:
    """Every setting of the ablation with its means over seeds."""
    from reprolib.report.tables import Table

    rows = []
    for what, group in (("documents", by_documents), ("rows, some of every document", by_rows)):
        for m, shares in group.items():
            for share, records in sorted(shares.items()):
                cells = {"method": _label(m), "share of": what, "given": f"{100 * share:g} %", "rows given": f"{_given(records):.0f}"}
                for level, name in ((2, "given: answered"), (1, "rest of their documents"), (0, "documents not given")):
                    cells[name] = _ranged([answered(r, level) for r in records])
                cells |= {"retain answered": _ranged([r.metrics["retain/questions"] for r in records]), "attack AUC": f"{mean(records, 'attack/auc'):.2f}"}
                rows.append(cells)
    return Table.of(rows, caption="Share of questions answered after unlearning: means over seeds, and the range over seeds.")
