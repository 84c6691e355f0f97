"""What notebooks call: gather records, show source code and computed sentences. Pages hold no numbers of their own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from reprolib.experiment import run
from reprolib.record import Record

LADDER = ("target", "twin", "random", "always_eos")


def seeds(seed: int | None) -> tuple[int, ...]:
    """The seed of a page's parameter, or all seeds of the study."""
    from reprolib.grid import Grid

    return Grid.load().seeds if seed is None else (seed,)


def gather(
    methods: Iterable[str], testbed: str, seed: int | None = None, *, ladder: bool = True, **fields: Any
) -> dict[str, list[Record]]:
    """Records by method: read where ``results/`` holds them, computed where not. The sanity ladder comes first."""
    out = {}
    for name in (*LADDER, *methods) if ladder else tuple(methods):
        own = fields if name not in LADDER else {}
        out[name] = [run(testbed=testbed, method=name, seed=s, **own) for s in seeds(seed)]
    return out


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spec fields of a method page's ``options`` parameter."""
    return {"options": dict(options)} if options else {}


def source(*functions: Any) -> Any:
    """The code of functions or classes as it runs, with its docstring: the other half of the equation above it."""
    from IPython.display import Markdown

    return Markdown("\n".join(f"```python\n{inspect.getsource(f)}```" for f in functions))


def say(text: str) -> Any:
    """A sentence with computed numbers, as Markdown."""
    from IPython.display import Markdown

    return Markdown(text)


def card(method: str) -> Any:
    """The facts of a method: paper, published settings, cost, trap."""
    from reprolib.recipes import recipe

    c = recipe(method).card
    lines = [("Idea", c.idea), ("Source", c.paper), ("Published", c.published), ("Cost of a step", c.cost), ("Trap", c.trap)]
    return say("\n".join(f"- **{k}.** {v}" for k, v in lines if v))


Study = Mapping[str, list[Record]]


def mean(records: Iterable[Record], metric: str) -> float:
    """Mean of a metric over the seeds."""
    values = [r.metrics[metric] for r in records]
    return sum(values) / len(values)


def _label(method: str) -> str:
    from reprolib.recipes import recipe

    return recipe(method).card.label


def _percent(value: float) -> str:
    return f"{100 * value:.0f}\u202f%"  # a space that does not break


def _line(study: Study, method: str) -> str:
    """What a model does, with the twin's value in parentheses."""
    r, t = study[method], study["twin"]

    def pair(metric: str) -> str:
        return f"{_percent(mean(r, metric))} ({_percent(mean(t, metric))})"

    return (
        f"still answers {pair('forget/questions')} of the forget questions, keeps {pair('retain/questions')} of the retain and "
        f"{pair('world/accuracy')} of the world questions, continues forget passages with ROUGE-L {_rouge(r):.2f} ({_rouge(t):.2f}), "
        f"and leaves the loss attack an AUC of {mean(r, 'attack/auc'):.2f} ({mean(t, 'attack/auc'):.2f})"
    )


def _rouge(records: Iterable[Record], group: str = "forget") -> float:
    """Mean ROUGE-L recall of the completion rows of a group, over tasks and seeds."""
    values = [
        (1 - v if group == "forget" else v)
        for r in records
        for k, v in r.metrics.items()
        if k.startswith(f"lume/{group}/") and k.endswith("/sc")
    ]
    return sum(values) / len(values)


def distance(study: Study, method: str) -> float:
    """Mean absolute distance to the twin over five readings, each a share or an AUC; 0 is the twin itself.

    Forget questions, forget passages (ROUGE-L), attack AUC, retain questions and world questions count alike.
    """
    readings = ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")
    parts = [abs(mean(study[method], m) - mean(study["twin"], m)) for m in readings]
    parts.append(abs(_rouge(study[method]) - _rouge(study["twin"])))
    return sum(parts) / len(parts)


def spread(study: Study, method: str) -> tuple[float, float]:
    """Smallest and largest distance to the twin among the seeds, each compared with the twin of its own seed."""
    twins = {r.spec.seed: r for r in study["twin"]}
    values = [distance({method: [r], "twin": [twins[r.spec.seed]]}, method) for r in study[method]]
    return min(values), max(values)


def _caveat(study: Study, methods: Iterable[str]) -> str:
    n = min(len(study[m]) for m in methods)
    gone = [f"{_label(m)} ({sum(r.status == 'diverged' for r in study[m])} of {len(study[m])} seeds)" for m in methods
            if any(r.status == "diverged" for r in study[m])]  # fmt: skip
    text = f" Means over {n} seed{'s' if n > 1 else ''}." + (" One seed says nothing about spread." if n == 1 else "")
    return text + (f" Diverged: {', '.join(gone)}." if gone else "")


def verdict(study: Study, method: str) -> Any:
    """The one-sentence answer on top of a method page."""
    return say(
        f"```{{admonition}} In one sentence\n:class: tip\n{_label(method)} {_line(study, method)}; in parentheses, the twin."
        f"{_caveat(study, [method])}\n```"
    )


def answer(study: Study) -> Any:
    """The answer on the landing page: the method closest to the twin, the one farthest from it, and a warning."""
    methods = [m for m in study if m not in LADDER]
    order = sorted(methods, key=lambda m: distance(study, m))
    best, worst = order[0], order[-1]
    final = mean(study["random"], "lume/final")
    beaten = [_label(m) for m in methods if mean(study[m], "lume/final") < final]
    lines = [
        f"Of {len(methods)} methods, **{_label(best)}** comes closest to a model retrained without the forget set (the *twin*, in "
        f"parentheses): it {_line(study, best)}.",
        f"Farthest from the twin is {_label(worst)}: it {_line(study, worst)}.",
        f"The official score alone would mislead: random weights score {final:.2f}"
        + (f", more than {', '.join(beaten)}." if beaten else "; every method here scores more."),
    ]
    bullets = "\n".join(f"- {x}" for x in lines)
    return say("```{admonition} The answer\n:class: tip\n" + bullets + "\n\n" + _caveat(study, methods).strip() + "\n```")


def distances(study: Study) -> Any:
    """Every model's mean distance to the twin, with the share of the target's distance that it closes."""
    start = distance(study, "target")
    order = sorted(study, key=lambda m: distance(study, m))
    rows = ""
    for m in order:
        low, high = spread(study, m)
        rows += f"| {_label(m)} | {distance(study, m):.2f} | {low:.2f} to {high:.2f} | {_percent(1 - distance(study, m) / start)} |\n"
    return say(
        "| model | mean distance to the twin | single seeds | of the target's distance closed |\n| --- | ---: | ---: | ---: |\n" + rows + "\n"
        "Distance: mean absolute difference to the twin over forget questions, forget passages, attack AUC, retain questions and "
        "world questions, each from 0 to 1. It weighs the five alike, which is a choice; the figure shows them apart."
    )


def within(interval: Any, high: float | None) -> Any:
    """A t interval cut to the metric's range, [0, high]."""
    top = interval.high if high is None else min(high, interval.high)
    return interval._replace(low=max(0.0, interval.low) if interval.low == interval.low else interval.low, high=top)


def gaps(study: Study) -> Any:
    """Gap closed to the twin, (m - target) / (twin - target), for what should be forgotten; mean over seeds with a t interval."""
    from reprolib.metrics.statistics import seeds_interval
    from reprolib.report import summary
    from reprolib.report.tables import Table, cell

    names = ("forget_questions", "forget_passages", "attack_auc")
    rows = []
    for m in study:
        if m in ("target", "twin"):
            continue
        values = {n: summary.gap(study[m], study["target"], study["twin"], n) for n in names}
        rows.append({"model": _label(m)} | {summary.READINGS[n].label: cell(seeds_interval(v)) for n, v in values.items()})
    return Table.of(rows, caption="Gap closed to the twin of the same seed: 0 is the untouched target, 1 the twin, more is beyond the twin. "
                    "95 % t intervals over seeds.")  # fmt: skip


def matched(study: Study, level: float = 0.1) -> Any:
    """What is kept at the moment when forget questions have come down to ``level``, read off the trajectory by interpolation."""
    import math

    from reprolib.metrics.statistics import at_matched, seeds_interval
    from reprolib.report.tables import Table, cell

    kept = {"retain/questions": "Retain questions ↑", "world/accuracy": "World questions ↑", "retain/kl": "KL to target ↓",
            "attack/auc": "Attack AUC → twin"}  # fmt: skip
    rows = []
    for m in study:
        if m in LADDER:
            continue
        found = {k: [at_matched(r.series("forget/questions"), r.series(k), level) for r in study[m]] for k in kept}
        reached = sum(x.reached for x in found["retain/questions"])
        row = {"method": _label(m), "seeds that get there": f"{reached} of {len(study[m])}"}
        for k, name in kept.items():
            values = [x.value for x in found[k] if x.reached and math.isfinite(x.value)]
            high = None if k == "retain/kl" else 1.0
            row[name] = cell(within(seeds_interval(values), high)) if values else "–"
        row["Retain questions at the end ↑"] = cell(within(seeds_interval([r.metrics["retain/questions"] for r in study[m]]), 1.0))
        rows.append(row)
    return Table.of(rows, caption=f"At matched forgetting: where the run first answers only {_percent(level)} of the forget questions. "
                    "Means over the seeds that get there, 95 % t intervals. The last column is the run's end: a method may tear down "
                    "first and repair later.")  # fmt: skip


def compare(real: Study, synthetic: Study) -> Any:
    """Whether the methods come out in the same order on two testbeds."""
    methods = [m for m in real if m not in LADDER]
    orders, names = [], []
    for study in (real, synthetic):
        order = sorted(methods, key=lambda m: distance(study, m))
        told = []
        for m, after in zip(order, [*order[1:], None], strict=True):
            low, high = spread(study, m)
            # neighbours whose seeds overlap are not told apart
            sign = "" if after is None else " ≈ " if high >= spread(study, after)[0] else " < "
            told.append(f"{_label(m)} {distance(study, m):.2f} ({low:.2f} to {high:.2f}){sign}")
        orders.append(order)
        names.append("".join(told))
    first = "The order of the methods by distance to the twin is the same" if orders[0] == orders[1] else "The order of the methods differs"
    bed = real["target"][0].spec.testbed, synthetic["target"][0].spec.testbed
    return say(
        f"```{{admonition}} The answer\n:class: tip\n{first}.\n\n- `{bed[0]}`: {names[0]}\n- `{bed[1]}`: {names[1]}\n\n"
        f"Mean distance to the twin, and in parentheses the range over seeds; ≈ where the seeds of neighbours overlap.{_caveat(real, methods)}\n```"
    )


def search(grid: Any, testbed: str, seed: int) -> Any:
    """The recorded search for each method's learning rate, with the value that the rule picks and the recipe's default."""
    from reprolib.recipes import METHODS, recipe

    blocks = [specs for name, specs in grid.blocks.items() if name.startswith("lr-")]
    specs = [s for b in blocks for s in b if s.testbed == testbed and s.seed == seed and s.method in METHODS]
    twin = run(testbed=testbed, method="twin", seed=seed)
    lines = ["| method | learning rate | distance to the twin | forget questions | retain questions | world questions | attack AUC | |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    agree = []
    for method in METHODS:
        tried = {float(s.options["lr"]): {method: [run(s)], "twin": [twin]} for s in specs if s.method == method}
        best = min(tried, key=lambda lr: distance(tried[lr], method))
        default = recipe(method).defaults["lr"]
        agree.append(best == default)
        for lr, study in sorted(tried.items()):
            m = study[method][0].metrics
            marks = [word for word, here in (("**closest**", lr == best), ("recipe's default", lr == default)) if here]
            shown = " | ".join(f"{m[k]:.2f}" for k in ("forget/questions", "retain/questions", "world/accuracy", "attack/auc"))
            lines.append(f"| {_label(method)} | {lr:g} | {distance(study, method):.3f} | {shown} | {', '.join(marks)} |")
    text = "The recipe's default is the rule's choice for every method." if all(agree) else (
        f"The recipe's default is the rule's choice for {sum(agree)} of {len(agree)} methods.")  # fmt: skip
    return say("\n".join(lines) + f"\n\n{text} One seed, so that small differences mean nothing.")


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
            f"{_percent(row)} of every document's rows, {_percent(_over(by_rows[m][row], 1))} of the questions *not* given are. Retain "
            f"questions answered at these three: {_percent(mean(by_documents[m][small], 'retain/questions'))}, "
            f"{_percent(mean(by_documents[m][large], 'retain/questions'))}, {_percent(mean(by_rows[m][row], 'retain/questions'))}."
        )
    n = len(next(iter(next(iter(by_documents.values())).values())))
    return say(
        "```{admonition} The answer\n:class: tip\n" + "\n\n".join(lines) + f"\n\nMeans over {n} seed{'s' if n > 1 else ''}. Forgetting of what "
        "was not given is no success where retain questions go with it: it is then damage, not generalisation.\n```"
    )


def size_table(by_documents: Sizes, by_rows: Sizes) -> Any:
    """Every setting of the ablation with its means over seeds."""
    from reprolib.report.tables import Table

    rows = []
    for what, group in (("documents", by_documents), ("rows of each document", by_rows)):
        for m, shares in group.items():
            for share, records in sorted(shares.items()):
                cells = {"method": _label(m), "share of": what, "given": f"{100 * share:g} %", "rows given": records[0].cost["forget_rows_given"]}
                for level, name in ((2, "given: answered"), (1, "rest of their documents"), (0, "documents not given")):
                    value = _over(records, level)
                    cells[name] = "" if value != value else f"{value:.2f}"
                cells |= {"retain answered": f"{mean(records, 'retain/questions'):.2f}", "attack AUC": f"{mean(records, 'attack/auc'):.2f}"}
                rows.append(cells)
    return Table.of(rows, caption="Share of questions answered after unlearning; means over seeds.")


def status(every: bool = True) -> Any:
    """What exists, what is missing, what failed: counts by block, then every run."""
    from reprolib.grid import Grid
    from reprolib.record import path_of, read, results_dir

    grid = Grid.load()
    head = ["| block | runs | done | diverged | failed | missing |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines = ["| run | seed | fingerprint | status | train s | made with |", "| --- | ---: | --- | --- | ---: | --- |"]
    for name, specs in grid.blocks.items():
        counts = dict.fromkeys(("done", "diverged", "failed", "missing"), 0)
        for s in specs:
            path = path_of(s)
            if path.exists():
                r = read(path)
                state = r.status
                made = f"{r.provenance['machine']['gpu'] or r.provenance['machine']['cpu']}, {(r.provenance['commit'] or '?')[:8]}"
                cost = f"{r.cost.get('train_s', 0):.0f}"
            else:
                state, made, cost = ("failed" if (results_dir() / "failed" / path.name).exists() else "missing"), "", ""
            counts[state] += 1
            slug = "_".join(s.slug.split("_")[1:]).replace("_", ", ")
            lines.append(f"| {s.method} on {s.testbed}{', ' + slug if slug else ''} | {s.seed} | `{s.fingerprint}` | {state} | {cost} | {made} |")
        head.append(f"| {name} | {len(specs)} | " + " | ".join(str(v) for v in counts.values()) + " |")
    more = "\n\n## Every run\n\n" + "\n".join(lines) if every else ""
    return say("\n".join(head) + "\n\n`make book` computes what is missing; `make study` computes everything from nothing." + more)
