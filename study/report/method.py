"""What a method's page shows beside the common tables."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from IPython.display import Markdown

from reprolib.errors import SpecError, unknown
from reprolib.recipes import FAMILIES, METHODS, recipe
from reprolib.record import Record
from study.readings.trajectory import way
from study.readings.twin import Study
from study.report.front import ranged
from study.report.tables import Table
from study.report.words import caveat, label_of, model_line, percent, say


def source(*functions: Any) -> Any:
    """The code of functions or classes as it runs, with its docstring: the other half of the equation above
    it.
    """
    return Markdown("\n".join(f"```python\n{inspect.getsource(f)}```" for f in functions))


def card(method: str) -> Any:
    """The facts of a method: paper, published settings, cost, trap."""
    c = recipe(method).card
    lines = [
        ("Idea", c.idea),
        ("Source", c.paper),
        ("Published", c.published),
        ("Cost of a step", c.cost),
        ("Trap", c.trap),
    ]
    return say("\n".join(f"- **{k}.** {v}" for k, v in lines if v))


def _lowest(records: Iterable[Record]) -> str:
    """The low point of the retain questions along the run: what was torn down, even if it was learnt again
    later.
    """
    low = [
        min(p["retain/questions"] for p in way(r))
        for r in records
        if r.cost.get("trained_parameters", 1) and r.trajectory and way(r)
    ]
    return (
        f"Along the way, the retain questions answered fell as low as {percent(sum(low) / len(low))}."
        if low
        else ""
    )


def verdict(study: Study, method: str) -> Any:
    """The one-sentence answer on top of a method page."""
    return say(
        f"```{{admonition}} In short\n:class: tip\n{label_of(method)} {model_line(study, method)}; in"
        f" parentheses, the twin. {_lowest(study[method])}{caveat(study, [method])}\n```"
    )


def methods(family: str | None = None) -> Any:
    """All methods by family (or those of one), each with a link to its page, its paper, its stages and the
    cost of its steps.
    """
    import html

    from IPython.display import HTML

    if family and family not in FAMILIES:
        raise SpecError(unknown("family", family, FAMILIES))
    out = []
    for name in (family,) if family else FAMILIES:
        rows = [
            {
                "method": f'<a href="../methods/{n}.html">{html.escape(r.card.label)}</a>',
                "idea": html.escape(r.card.idea),
                "source": html.escape(r.card.paper),
                "stages": html.escape(" → ".join(s.name for s in r.build({}))),
                "cost of a step": r.cost_class,
            }
            for n, r in METHODS.items()
            if r.card.family == name
        ]
        if rows:
            out.append(Table.of(rows, caption=name.capitalize())._repr_html_())
    return HTML("\n".join(out))


def importance_cost(study: Study) -> Any:
    """What the importance pass of Fisher-initialised LoRA took, from the records: medians over seeds."""
    rows = []
    for m, records in study.items():
        costs = [r.cost for r in records if "importance_s" in r.cost]
        if costs:

            def middle(key: str, costs: list[Any] = costs) -> float:
                return statistics.median(c[key] for c in costs)

            rows.append(
                {
                    "method": label_of(m),
                    "parameters with gradients": f"{middle('importance_parameters'):,.0f}",
                    "importance pass, s": f"{middle('importance_s'):.1f}",
                    "SVD and start, s": f"{middle('initialisation_s'):.1f}",
                    "importance values, MiB": f"{middle('importance_values_bytes') / 2**20:.1f}",
                    "whole unlearning run, s": f"{middle('train_s'):.0f}",
                }
            )
    if not rows:
        return say("No method here measures importance.")
    return Table.of(
        rows,
        caption=(
            "Medians over seeds. The runs were not timed side by side; the page on cost has ratios that"
            " were measured in one run."
        ),
    )


def diagnostics(study: Study, method: str) -> Any:
    """What a second-order optimizer says of itself at the end of each stage: means over seeds."""
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
    return Table.of(
        rows,
        caption="Diagnostics of the optimizer at the last measured step of each stage, means over seeds.",
    )


def routing(study: Study, method: str) -> Any:
    """How well a prompt classifier tells forget from retain, by what it had seen, and which prompts it sent
    away: means over seeds.
    """
    from IPython.display import HTML

    def over_seeds(name: str) -> str:
        values = [r.metrics.get(f"routing/{name}") for r in study[method]]
        return "–" if None in values else ranged(values)

    rows = [
        {
            "the classifier of a prompt had seen": text,
            "AUC": over_seeds(f"auc_{how}"),
            "told rightly": over_seeds(f"accuracy_{how}"),
        }
        for how, text in (
            ("documents", "no row of its document"),
            ("rows", "other rows of its document"),
            ("seen", "the prompt itself"),
        )
    ]
    groups = {
        "forget": "forget",
        "retain": "retain",
        "holdout": "holdout passages",
        "world": "world questions",
    }
    sent = [
        {"prompts": text, "sent to the model that says nothing": over_seeds(f"sent_{g}")}
        for g, text in groups.items()
    ]
    tables = (
        Table.of(
            rows,
            caption=(
                "Forget against retain prompts: AUC (chance 0.5) and share told rightly. Means over seeds,"
                " and the range over seeds."
            ),
        ),
        Table.of(sent, caption="Share of prompts sent away in the evaluation above."),
    )
    return HTML("\n".join(t._repr_html_() for t in tables))
