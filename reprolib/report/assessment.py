"""The report of one evaluation: a table for the terminal, and a page that stands alone (no script, nothing fetched)."""

from __future__ import annotations

import html
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reprolib.assess import NOISE, Assessment, Result
from reprolib.metrics import CARDS as KNOWN
from reprolib.metrics.card import Card
from reprolib.metrics.mmlu import CARDS as MMLU

DETAILS = re.compile(r"mmlu/subject/|_(low|high)$")  # in the JSON and folded on the page, not in the terminal
WORDS = {"sc": "passages", "qa": "questions", "tpr": "TPR", "nf4": "NF4", "int8": "INT8"}


def _card(name: str, label: str, trap: str, **changes) -> Card:
    facts = {"unit": "share", "low": 0.0, "high": 1.0, "better": "twin", "source": "this study"} | changes
    return Card(name=name, label=label, trap=trap, **facts)


_OFFICIAL = "SemEval-2025 Task 4, organisers' script (Dec 2024)"
CARDS: dict[str, Card] = {  # of the core evaluation's own names, where no function of reprolib.metrics has one
    c.name: c
    for c in (
        _card(
            "nll",
            "Answer loss",
            "A high mean can come from a few rows that exploded: see the rows.",
            unit="nats/token",
            high=None,
            source="mean negative log-likelihood of an answer's tokens, end-of-text included",
        ),
        _card(
            "kl",
            "KL from the target",
            "The twin has one too: retraining moves predictions also where nothing was to be forgotten.",
            unit="nats/token",
            high=None,
            source="KL(target || model) on retain answers",
        ),
        _card(
            "questions",
            "Questions answered exactly",
            "Low on forget questions is easy: destroy the model.",
            source="greedy answer = answer, end-of-text included",
        ),
        _card(
            "twelve",
            "One of the twelve scores",
            "On forget rows it is 1 - mean: a destroyed model scores 1 there.",
            unit="score",
            better="higher",
            source=_OFFICIAL,
        ),
    )
}
ALIASES = {
    "em": "exact_memorisation", "es": "extraction_strength", "accuracy": "choice_accuracy", "tpr": "tpr_at_fpr",
    "mia": "mia_score", "mia_auc": "auc", "final": "final_score", "task_aggregate_floored": "floored_aggregate",
    "score/sc": "rouge_l_recall", "score/qa": "knowledge", "mmlu": "mmlu/accuracy_questions", "eligible": "mmlu/eligible",
}  # fmt: skip
GROUPS = {  # of the core part, by the first word of a metric's name
    "forget": "Forget rows", "retain": "Retain rows", "holdout": "Holdout rows: non-members of the attack",
    "attack": "Loss attack on forget against holdout", "world": "World questions", "routing": "Routing",
    "lume": "The study's score: official but for the attack's members and world questions in MMLU's place",
}  # fmt: skip


def card(name: str) -> Card | None:
    """The card of a metric as evaluations name them, e.g. ``forget/qa/em`` or ``tofu/retain/truth_ratio``; None if it has none."""
    return describe(name)[0]


def describe(name: str) -> tuple[Card | None, list[str]]:
    """The card of a metric, and the words of its name that the card does not say.

    The longest beginning of the name that is a card's counts; else, from the right, the first word that is a card's name or
    holds one (``auc_matched``, ``knowmem_forget``, ``length_auc``, ``distinct_2``, ``empty`` for ``empty_share``).
    """
    from reprolib.probes.harness import CARDS as HARNESS

    cards = {**KNOWN, **MMLU, **HARNESS, **CARDS}
    words = name.split("/")
    if words[0] == "lume" and len(words) > 2:
        return cards["twelve"], words[1:]
    if words[-1] == "score" and words[-2:-1] in (["sc"], ["qa"]):
        return cards[ALIASES[f"score/{words[-2]}"]], words[:-1]
    bare = re.sub(r"_(low|high)$", "", name)
    for n in range(len(words), 0, -1):
        beginning = "/".join(bare.split("/")[:n])
        if beginning in cards and (n > 1 or beginning == "harness"):
            return cards[beginning], words[n:]
    for i in range(len(words) - 1, -1, -1):
        found, rest = _within(ALIASES.get(words[i], words[i]), cards, last=i == len(words) - 1)
        if found:
            return cards[found], words[:i] + ([rest] if rest else []) + words[i + 1 :]
    return None, words


def _within(word: str, cards: Mapping[str, Card], last: bool) -> tuple[str, str]:
    """(name of the card that a word holds, what the word says besides). Only a last word may be the beginning of a card's name."""
    if word in cards:
        return word, ""
    general = re.sub(r"_\d+", "_n", word, count=1)
    heads = [c for c in cards if general.startswith(f"{c}_") or (general == c != word)]
    if heads:
        head = max(heads, key=len)
        digits = re.findall(r"\d+", word)[:1] if head.endswith("_n") else []
        return head, "_".join([*digits, *([general.removeprefix(head).strip("_")] if general != head else [])])
    tails = [c for c in cards if word.endswith(f"_{c}")]
    if tails:
        tail = max(tails, key=len)
        return tail, word.removesuffix(f"_{tail}")
    longer = [c for c in cards if c.startswith(f"{word}_")]
    return (longer[0], "") if last and len(longer) == 1 else ("", word)


@dataclass(frozen=True, slots=True)
class Line:
    """One metric as both reports show it."""

    name: str
    group: str
    label: str
    card: Card | None
    values: dict[str, float]  # role -> value
    gap: float

    def shown(self, role: str) -> str:
        value = self.values[role]
        if self.card is not None and self.card.unit == "0 or 1" and value in (0, 1):
            return "yes" if value else "no"
        return number(value)

    @property
    def reads(self) -> str:
        """Direction, unit and range in words."""
        if self.card is None:
            return ""
        low, high = ("" if x is None else f"{x:g}" for x in (self.card.low, self.card.high))
        extent = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else "unbounded"
        return f"{self.card.arrow}, {self.card.unit}, {extent}"


def lines(a: Assessment, part: Result) -> Iterator[Line]:
    """The metrics of a part, in its order."""
    tables = {role: a.metrics(role) for role in a.results}
    names = list(part.metrics)
    if part.name == "core":
        names = [n for g in GROUPS for n in names if n.startswith(f"{g}/")]  # what is official has a part of its own
    for name in names:
        c, words = describe(name)
        noise = NOISE * (c.high - c.low) if c and c.low is not None and c.high is not None else 1e-9
        values = {role: table.get(name, math.nan) for role, table in tables.items()}
        group = GROUPS[name.split("/")[0]] if part.name == "core" else ""
        said = {part.name, name.split("/")[0]} if group else {part.name}
        label = _label(c, [w for w in words if w not in said], name)
        yield Line(name, group, label, c, values, a.gap(name, noise) if c else math.nan)


def _label(c: Card | None, words: list[str], name: str) -> str:
    rest = ", ".join(WORDS.get(w, w.replace("_", " ")) for w in words)
    if c is None or c.name == "twelve":
        return rest[:1].upper() + rest[1:] or name
    return f"{c.label}, {rest}" if rest else c.label


def number(x: float | None) -> str:
    """Three decimals, more digits for large numbers only; a dash for what is not there.

    >>> number(0.98765), number(1234567.0), number(3.0), number(float("nan")), number(float("inf"))
    ('0.988', '1234567', '3', '–', '∞')
    """
    if x is None or math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x == int(x) and abs(x) >= 2:
        return str(int(x))
    if abs(x) >= 1000:
        return f"{x:.0f}"
    return f"{x:.3f}" if abs(x) >= 0.001 or x == 0 else f"{x:.1e}"


def _facts(a: Assessment) -> list[tuple[str, str]]:
    out = []
    for role, m in a.models.items():
        more = [m.get("architecture") or "", f"{m['parameters']:,} parameters" if m.get("parameters") else "",
                f"adapter {m['adapter']}" if m.get("adapter") else "", m["fingerprint"]]  # fmt: skip
        out.append((role, f"{m['name']} ({', '.join(x for x in more if x)})"))
    groups = ", ".join(f"{g['rows']} {name}" for name, g in a.data["groups"].items() if g["rows"])
    out.append(("data", f"{a.data['name']}: rows {groups} ({a.data['fingerprint']})"))
    out.append(("settings", ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in a.settings.items() if v is not None)))
    return out


def _intro(a: Assessment) -> str:
    both = {"target", "twin"} <= set(a.results)
    gap = "Gap: share of the way from target to twin; 1 is the retrained twin, – where the two hardly differ." if both else ""
    return f"↑ higher is better, ↓ lower, → twin: good is what a model has that never saw the forget rows. {gap}".strip()


def text(a: Assessment, width: int | None = None) -> str:
    """The table for the terminal, part by part. ``width`` in characters; that of the terminal by default."""
    width = width or max(80, shutil.get_terminal_size((110, 24)).columns)
    roles = list(a.results)
    both = {"target", "twin"} <= set(roles)
    heads = [*roles, *(["gap"] if both else [])]
    out = [f"{k:>9}  {v}" for k, v in _facts(a)] + ["", _intro(a)]
    room = max(24, min(52, width - 9 * len(heads) - 28))
    for part in a.results["model"].values():
        every = list(lines(a, part))
        shown = [x for x in every if not DETAILS.search(x.name)]
        out += ["", f"{_cut(part.title, room):<{room}}" + "".join(f"{h:>9}" for h in heads), "-" * (room + 9 * len(heads))]
        group = ""
        for x in shown:
            out += [f"{x.group}:"] if x.group != group else []
            group = x.group
            cells = [x.shown(r) for r in roles] + ([number(x.gap)] if both else [])
            line = f"{_cut('  ' * bool(group) + x.label, room):<{room}}" + "".join(f"{c:>9}" for c in cells)
            out.append(f"{line}  {_cut(x.reads, width - len(line) - 2)}".rstrip())
        hidden = len(every) - len(shown)
        out += [f"({hidden} more in the report: intervals, single subjects)"] if hidden else []
        if not shown and not hidden:
            out.append("(nothing: this data have no rows for it)")
    out += ["", *(f"not scored: {k}: {v}" for k, v in a.skipped.items())] if a.skipped else []
    out += ["", *(f"note: {n}" for n in a.notes)] if a.notes else []
    return "\n".join(out)


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: max(0, room - 1)] + "…"


# --- the page ------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5c5c5c; --line: #d8d8d8; --ground: #ffffff; --band: #f4f4f2;
  --model: #0a5ea8; --twin: #00724f; --target: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e9e6; --soft: #a9a9a4; --line: #3b3b3b; --ground: #161616; --band: #202020;
  --model: #6cb6ff; --twin: #4fd1a5; --target: #f0a75a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .6rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
p, dd { margin: .3rem 0; } .soft, small { color: var(--soft); } small { display: block; font-size: .78rem; font-weight: 400; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; font-size: .92rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .8rem 0; }
a { color: var(--model); }
.scroll { overflow-x: auto; } .scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--model); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding-bottom: .3rem; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; min-width: 8.4rem; overflow-wrap: break-word; }
thead th { vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 500; } th.group { background: var(--band); font-style: italic; font-weight: 400; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.m { color: var(--model); font-weight: 600; } .w { color: var(--twin); } .t { color: var(--target); }
td.bar { width: 9.5rem; padding-top: .55rem; } svg { display: block; width: 8.5rem; height: 1rem; margin-left: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
.cards dt { font-weight: 600; margin-top: .7rem; } .cards dd { margin-left: 0; font-size: .92rem; }
.warn { border-left: 4px solid var(--target); background: var(--band); padding: .5rem .8rem; margin: .6rem 0; }
@media (max-width: 640px) { .bar, .key { display: none !important; } th, td { padding: .3rem .2rem; }
  table { font-size: .8rem; } th:first-child { min-width: 6.4rem; }
  dl.facts { grid-template-columns: 1fr; } dl.facts dd { margin-bottom: .3rem; } }
"""
CLASSES = {"model": "m", "target": "t", "twin": "w"}


def page(a: Assessment) -> str:
    """The report as one HTML file: no script, nothing fetched, light or dark as the reader's system is."""
    e = html.escape
    title = f"Evaluation of {a.models['model']['name']}"
    facts = "".join(f"<dt>{e(k)}</dt><dd>{e(v)}</dd>" for k, v in _facts(a))
    parts = a.results["model"].values()
    nav = "".join(f'<li><a href="#{e(p.name)}">{e(p.title)}</a></li>' for p in parts)
    warn = "".join(f'<p class="warn">Not scored: <b>{e(k)}</b>. {e(v)}</p>' for k, v in a.skipped.items())
    warn += "".join(f'<p class="warn">{e(n)}</p>' for n in a.notes)
    bars = "".join(f'<span class="{CLASSES[r]}">{_SIGN[r]} {r}</span> ' for r in a.results)
    used = {c.name: c for p in parts for x in lines(a, p) if (c := x.card)}
    cards = "".join(
        f"<dt>{e(c.label)}</dt><dd>{e(c.trap)} <span class='soft'>{e(c.arrow)}, {e(c.unit)}. Source: {e(c.source)}.</span></dd>"
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
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>{e(title)}</title><style>{STYLE}</style></head><body><main><h1>{e(title)}</h1>'
        f'<dl class="facts">{facts}</dl>{warn}<nav aria-label="Parts"><ul>{nav}<li><a href="#cards">What the metrics mean</a></li>'
        f'</ul></nav><p class="soft">{e(_intro(a))}</p><p class="soft bar">Range, from the lowest to the highest value: {bars}</p>'
        + "".join(_section(a, x) for x in parts)
        + f'<h2 id="cards">What the metrics mean, and what misleads</h2><dl class="cards">{cards}</dl>'
        f'<h2>Made</h2><p class="soft">{e(made)}</p></main></body></html>\n'
    )


def _section(a: Assessment, part: Result) -> str:
    shown = list(lines(a, part))
    head = f'<section aria-labelledby="{html.escape(part.name)}"><h2 id="{html.escape(part.name)}">{html.escape(part.title)}</h2>'
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
    heads = [f'<th scope="col" class="{CLASSES[r]}">{r}</th>' for r in roles] + (['<th scope="col">gap</th>'] if both else [])
    body: list[str] = []
    group = ""
    for x in shown:
        if x.group != group:
            group = x.group
            columns = len(heads) + 2
            body.append(f'<tr><th scope="rowgroup" class="group" colspan="{columns}">{html.escape(group)}</th></tr>')
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
            f'<tr><th scope="row">{html.escape(x.label)}<small>{key}{html.escape(x.reads)}</small></th>{"".join(cells)}'
            f'<td class="bar">{_bar(x)}</td></tr>'
        )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption, quote=True)}, scrolls sideways"><table>'
        f'<caption>{html.escape(caption)}</caption><thead><tr><th scope="col">metric</th>{"".join(heads)}'
        f'<th scope="col" class="bar">range</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


_SIGN = {"model": "●", "target": "▲", "twin": "│"}


def _bar(x: Line) -> str:
    """Where model, target and twin lie between the metric's lowest and highest value; shapes differ, not colours alone."""
    if x.card is None or x.card.low is None or x.card.high is None:
        return ""
    low, width = x.card.low, x.card.high - x.card.low
    at = {r: 6 + 124 * (v - low) / width for r, v in x.values.items() if math.isfinite(v) and low <= v <= x.card.high}
    marks = {
        "twin": lambda p: f'<path d="M{p:.1f} 1V15" stroke="var(--twin)" stroke-width="3"/>',
        "target": lambda p: f'<path d="M{p:.1f} 3l5 9h-10z" fill="none" stroke="var(--target)" stroke-width="1.8"/>',
        "model": lambda p: f'<circle cx="{p:.1f}" cy="8" r="4.5" fill="var(--model)"/>',
    }
    drawn = "".join(mark(at[r]) for r, mark in marks.items() if r in at)
    return f'<svg viewBox="0 0 136 16" aria-hidden="true"><path d="M6 8H130" stroke="var(--line)" stroke-width="2"/>{drawn}</svg>'
