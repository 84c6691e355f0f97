"""The report of one evaluation as a page that stands alone: no script, nothing fetched."""

from __future__ import annotations

import html
import math
from importlib.resources import files

from reprolib.assess.report import DETAILS, Line, facts, intro, lines, number
from reprolib.assess.result import Assessment, Result

CLASSES = {"model": "m", "target": "t", "twin": "w"}
SIGNS = {"model": "●", "target": "▲", "twin": "│"}


def page(a: Assessment) -> str:
    """The report as one HTML file: no script, nothing fetched, light or dark as the reader's system is."""
    e = html.escape
    style = "\n" + files("reprolib.assess").joinpath("report.css").read_text(encoding="utf-8")
    title = f"Evaluation of {a.models['model']['name']}"
    about = "".join(f"<dt>{e(k)}</dt><dd>{e(v)}</dd>" for k, v in facts(a))
    parts = a.results["model"].values()
    nav = "".join(f'<li><a href="#{e(p.name)}">{e(p.title)}</a></li>' for p in parts)
    warn = "".join(f'<p class="warn">Not scored: <b>{e(k)}</b>. {e(v)}</p>' for k, v in a.skipped.items())
    warn += "".join(f'<p class="warn">{e(n)}</p>' for n in a.notes)
    bars = "".join(f'<span class="{CLASSES[r]}">{SIGNS[r]} {r}</span> ' for r in a.results)
    used = {c.name: c for p in parts for x in lines(a, p) if (c := x.card)}
    cards = "".join(
        f"<dt>{e(c.label)}</dt><dd>{e(c.trap)} <span class='soft'>{e(c.arrow)}, {e(c.unit)}. Source:"
        f" {e(c.source)}.</span></dd>"
        for c in sorted(used.values(), key=lambda c: c.label.lower())
    )
    p = a.provenance
    made = ", ".join(
        x for x in (
            str(p.get("time", "")), f"commit {p['commit'][:10]}" if p.get("commit") else "",
            str((p.get("machine") or {}).get("gpu") or (p.get("machine") or {}).get("cpu") or ""),
            ", ".join(f"{k} {v}" for k, v in (p.get("versions") or {}).items() if v),
        ) if x
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><title>{e(title)}</title><style>{style}</style></head>'
        f'<body><main><h1>{e(title)}</h1><dl class="facts">{about}</dl>{warn}'
        f'<nav aria-label="Parts"><ul>{nav}<li><a href="#cards">What the metrics mean</a></li></ul></nav>'
        f'<p class="soft">{e(intro(a))}</p><p class="soft bar">Range,'
        f" from the lowest to the highest value: {bars}</p>"
        + "".join(_section(a, x) for x in parts)
        + f'<h2 id="cards">What the metrics mean, and what misleads</h2><dl class="cards">{cards}</dl>'
        f'<h2>Made</h2><p class="soft">{e(made)}</p></main></body></html>\n'
    )


def _section(a: Assessment, part: Result) -> str:
    shown = list(lines(a, part))
    head = (
        f'<section aria-labelledby="{html.escape(part.name)}"><h2'
        f' id="{html.escape(part.name)}">{html.escape(part.title)}</h2>'
    )
    if not shown:
        return f'{head}<p class="soft">Nothing: this data have no rows for it.</p></section>'
    main = [x for x in shown if not DETAILS.search(x.name)]
    more = [x for x in shown if x.name.startswith("mmlu/subject/")]
    intervals = {x.name.removesuffix("_low"): (x, y) for x in shown if x.name.endswith("_low")
                 for y in shown if y.name == x.name.removesuffix("_low") + "_high"}  # fmt: skip
    seconds = f", {part.seconds:.0f} s for the model" if part.seconds >= 1 else ""
    out = head + _table(a, main, f"{len(main)} metrics{seconds}", intervals)
    if more:
        single = _table(a, more, f"{len(more)} subjects", {})
        out += f"<details><summary>{len(more)} single subjects</summary>{single}</details>"
    return out + "</section>"


def _table(a: Assessment, shown: list[Line], caption: str, intervals: dict) -> str:
    roles = list(a.results)
    both = {"target", "twin"} <= set(roles)
    heads = [f'<th scope="col" class="{CLASSES[r]}">{r}</th>' for r in roles] + (
        ['<th scope="col">gap</th>'] if both else []
    )
    body: list[str] = []
    group = ""
    for x in shown:
        if x.group != group:
            group = x.group
            columns = len(heads) + 2
            body.append(
                f'<tr><th scope="rowgroup" class="group" colspan="{columns}">{html.escape(group)}</th></tr>'
            )
        cells = []
        for r in roles:
            span = ""
            if x.name in intervals:
                low, high = (end.values[r] for end in intervals[x.name])
                span = f"<small>{number(low)} to {number(high)}</small>"
            cells.append(f'<td class="{CLASSES[r]}">{x.shown(r)}{span}</td>')
        if both:
            cells.append(f"<td>{number(x.gap)}</td>")
        key = f'<span class="key">{html.escape(x.name)}{" · " if x.reads else ""}</span>'
        body.append(
            f'<tr><th scope="row">{html.escape(x.label)}<small>{key}{html.escape(x.reads)}</small></th>'
            f'{"".join(cells)}<td class="bar">{_bar(x)}</td></tr>'
        )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption, quote=True)},'
        f' scrolls sideways"><table><caption>{html.escape(caption)}</caption><thead><tr><th'
        f' scope="col">metric</th>{"".join(heads)}<th scope="col"'
        f' class="bar">range</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _bar(x: Line) -> str:
    """Where model, target and twin lie between the metric's lowest and highest value; shapes differ, not
    colours alone.
    """
    if x.card is None or x.card.low is None or x.card.high is None:
        return ""
    low, width = x.card.low, x.card.high - x.card.low
    at = {
        r: 6 + 124 * (v - low) / width
        for r, v in x.values.items()
        if math.isfinite(v) and low <= v <= x.card.high
    }
    marks = {
        "twin": lambda p: f'<path d="M{p:.1f} 1V15" stroke="var(--twin)" stroke-width="3"/>',
        "target": lambda p: (
            f'<path d="M{p:.1f} 3l5 9h-10z" fill="none" stroke="var(--target)" stroke-width="1.8"/>'
        ),
        "model": lambda p: f'<circle cx="{p:.1f}" cy="8" r="4.5" fill="var(--model)"/>',
    }
    drawn = "".join(mark(at[r]) for r, mark in marks.items() if r in at)
    return (
        '<svg viewBox="0 0 136 16" aria-hidden="true"><path d="M6 8H130" stroke="var(--line)"'
        f' stroke-width="2"/>{drawn}</svg>'
    )
