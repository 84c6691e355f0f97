"""The page of metrics: every metric's card, where it is measured, and what that costs.

Other pages link to a metric by its target, e.g. ``{ref}`Min-K% <metric-min_k>```, and from HTML by
``#metric-min-k`` (`anchor`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.display import HTML

from reprolib.errors import SpecError, unknown
from reprolib.metrics import Card
from reprolib.places import results_dir
from study.readings.names import OTHERS, SUITES, Part, cards, groups, measured, parts, suite
from study.report.words import ratio, say


def anchor(card: str) -> str:
    """The fragment of a metric's row, e.g. ``metric-min-k``."""
    return _identifier(f"metric-{card}")


def _identifier(target: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")


def extent(card: Card) -> str:
    """Unit and range in words.

    >>> from reprolib.metrics import CARDS
    >>> extent(CARDS["auc"]), extent(CARDS["min_k"]), extent(CARDS["gap_closed"])
    ('AUC, 0 to 1', 'nats/token, from 0', 'share, unbounded')
    """
    low, high = ("" if x is None else f"{x:g}" for x in (card.low, card.high))
    words = (
        f"{low} to {high}"
        if low and high
        else f"from {low}"
        if low
        else f"up to {high}"
        if high
        else "unbounded"
    )
    return f"{card.unit}, {words}"


# --- sources ------------------------------------------------------------------------------------------------

CITED = {  # as cards name a source -> its key in references.bib
    "Carlini et al. 2021": "carlini2021",
    "Carlini et al. 2022": "carlini2022",
    "Chen et al. 2021": "chen2021codex",
    "Cliff 1993": "cliff1993",
    "Cohen 1988": "cohen1988",
    "Dorna et al. 2025": "openunlearning2025",
    "Gao et al.": "gao2024harness",
    "Hall and Miller 2009": "hall2009",
    "Hendrycks et al. 2021": "hendrycks2021mmlu",
    "Jelinek et al. 1977": "jelinek1977",
    "Kendall 1945": "kendall1945",
    "Lakens 2013": "lakens2013",
    "Li et al. 2016": "li2016",
    "Lin 2004": "lin2004",
    "Maini et al. 2024": "maini2024",
    "McGraw and Wong 1992": "mcgraw1992",
    "Ramakrishna et al. 2025": "semeval2025task4",
    "Shi et al. 2024": "shi2024mink",
    "Shi et al. 2025": "muse2025",
    "Tirumala et al. 2022": "tirumala2022",
    "Wang et al. 2024": "wang2024pandora",
    "Welleck et al. 2020": "welleck2020",
    "Zhang et al. 2025": "zhang2025minkpp",
}

_CITATION = re.compile(
    "|".join(rf"\({re.escape(c)}\)|{re.escape(c)}" for c in sorted(CITED, key=len, reverse=True))
)


def escape(text: str) -> str:
    r"""Text as MyST that shows it as it is.

    >>> escape("d_z [a]")
    'd\\_z \\[a\\]'
    """
    return re.sub(r"([\\`*_\[\]<>$|{}~^#])", r"\\\1", text)


def cited(source: str) -> str:
    """A card's source as MyST, papers as citations.

    >>> cited("TOFU (Maini et al. 2024), figures")
    'TOFU {cite:p}`maini2024`, figures'
    """
    out, at = [], 0
    for m in _CITATION.finditer(source):
        bare = m[0].strip("()")
        out += [
            escape(source[at : m.start()]),
            f"{{cite:{'p' if m[0][0] == '(' else 't'}}}`{CITED[bare]}`",
        ]
        at = m.end()
    return "".join(out) + escape(source[at:])


# --- what the page shows ------------------------------------------------------------------------------------


def listing(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    targets: Sequence[str],
    widths: Sequence[int],
    note: str = "",
    kind: str = "metric-cards",
) -> Any:
    """A table in MyST, so that its rows are targets and cite papers. A blank line in a cell parts paragraphs.

    ``targets``: one a row; ``widths`` of columns, in percent; ``note``: stands below; ``kind``: CSS classes,
    "filtered" if rows can be hidden.
    """
    widths_ = " ".join(map(str, widths))
    lines = ["```{list-table}", ":header-rows: 1", f":class: {kind}", f":widths: {widths_}", ""]
    lines += _item(header)
    for target, row in zip(targets, rows, strict=True):
        lines += _item((f"({target})=\n{row[0]}", *row[1:]))
    return say("\n".join([*lines, "```", "", note]).strip())


def _item(cells: Sequence[str]) -> list[str]:
    """One row of a list-table."""
    lines = []
    for n, cell in enumerate(cells):
        first, *rest = cell.split("\n")
        lines += [("* - " if n == 0 else "  - ") + first, *(f"    {x}".rstrip() for x in rest)]
    return lines


def table(group: str, only: str | None = None) -> Any:
    """The cards of one group, each with where it is measured. ``only``: those that a suite is the cheapest to
    have.
    """
    known = groups()
    if group not in known:
        raise SpecError(unknown("group of metrics", group, known))
    chosen = _chosen(known[group], only)
    if not chosen:
        return say(f"None of them in suite {only}.")
    rows = [
        (
            f"**{escape(c.label)}** {_arrow(c)}\n\n`{name}`\n\n{escape(extent(c))}",
            escape(c.trap),
            _where(name),
            cited(c.source),
        )
        for name, c in chosen.items()
    ]
    header, targets = (
        ("metric", "what misleads", "measured in", "source"),
        tuple(f"metric-{name}" for name in chosen),
    )
    return listing(header, rows, targets, (23, 32, 25, 20), kind="metric-cards filtered")


def _chosen(of: Mapping[str, Card], only: str | None) -> dict[str, Card]:
    if only is not None and only not in SUITES:
        raise SpecError(unknown("suite", only, SUITES))
    return {name: c for name, c in of.items() if only in (None, suite(name))}


def _arrow(card: Card) -> str:
    return card.arrow.replace(" ", "\N{NO-BREAK SPACE}")


def _where(card: str) -> str:
    (first, names), *more = measured(card)
    if first.suite == "records":
        return f"{_link(first, 'records')}: {names[0].removeprefix('records ')}; {first.cost}"
    keys = [n for n in names if not n.startswith("column ")]
    columns = [n.removeprefix("column ") for n in names if n.startswith("column ")]
    said = [f"as {', '.join(f'`{k}`' for k in keys)}"] if keys else []
    said += [f"row by row as {', '.join(f'`{c}`' for c in columns)}"] if columns else []
    text = f"{_link(first)}, {'; '.join(said)}\n\n{_cost(first)}"
    return text + (f"\n\nalso {', '.join(_link(p) for p, _ in more)}" if more else "")


def _cost(part: Part) -> str:
    return f"Cost: {escape(part.cost)}"


def _link(part: Part, text: str = "") -> str:
    named = text or (f"core: {part.title.lower()}" if part.suite == "core" else f"{part.suite}: {part.name}")
    return f"{{ref}}`{named} <part-{part.name}>`"


def benchmark() -> dict[str, Any]:
    """What ``study/benchmarks/probes.py`` measured; empty where it has not run."""
    path = results_dir() / "benchmarks" / "probes.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def costs() -> Any:
    """Every part with its cost in passes and, where they were timed, beside the core evaluation."""
    timed = benchmark()
    has = {name: {part.name for part, _ in measured(name)} for name in cards()}
    rows = []
    for part in parts().values():
        n = sum(part.name in found for found in has.values())
        shown = _times(timed, part.name)
        rows.append(
            (f"**{escape(part.title)}**\n\n`{part.name}`", part.suite, escape(part.cost), shown, f"{n}")
        )
    note = "Times: the core evaluation is 1; brackets hold 95 % intervals over rounds. "
    note += _machine(timed) if timed else "They have not been measured here."
    header, targets = (
        ("part", "suite", "cost in passes", "time, as a ratio", "metrics"),
        tuple(f"part-{n}" for n in parts()),
    )
    return listing(header, rows, targets, (24, 11, 37, 17, 11), note)


def _times(timed: Mapping[str, Any], part: str) -> str:
    found = timed.get("parts", {}).get(part)
    return "–" if found is None else ratio(found["ratio"])


def _machine(timed: Mapping[str, Any]) -> str:
    s, m = timed["settings"], timed["machine"]
    threads = f"{m['threads']} thread{'s' if m['threads'] != 1 else ''}"
    threads += f", with a load of {m['load_at_start']:.1f} when it began" if m.get("load_at_start") else ""
    texts = timed["parts"].get("token statistics")
    users = [f"`{n}`" for n, e in timed["parts"].items() if "token statistics" in e.get("shares", ())]
    between = (
        f" One pass that {' and '.join(users)} share takes {ratio(texts['ratio'])}."
        if texts and users
        else ""
    )
    return (
        f"Measured after `{s['method']}` on `{s['testbed']}` in {s['rounds']} rounds on a CPU, {threads}."
        " What a probe takes from a pass of the core evaluation, or shares with another probe, is not"
        " counted for it." + between
    )


def counts() -> dict[str, int]:
    """How many metrics each suite is the cheapest to have."""
    found = [suite(name) for name in cards()]
    return {s: found.count(s) for s in SUITES}


def answer() -> Any:
    """The page in short: how many metrics there are, where they come from, and what the suites cost."""
    n, every = counts(), cards()
    own = [c for name, c in every.items() if suite(name) != "data"]
    twin = sum(c.better == "twin" for c in own)
    lines = [
        (
            f"{len(every)} metrics have a card. {n['core']} come with every run, from a teacher-forced"
            f" pass and a generation. Suite *wide* has {n['wide']} more. *stress* has {n['stress']} more,"
            " and reads others again when the model is trained further, rounded, or asked otherwise."
            f" *data* has {n['data']}, of other benchmarks. {n['records']} are computed from finished"
            " records and touch no model."
        ),
        (
            f"Other benchmarks aside, for {twin} of {len(own)} neither high nor low is good (→ twin): good"
            " is what a model has that never saw the forget rows, and to go beyond it is not better."
        ),
    ]
    timed = benchmark()
    if timed:
        said = " and ".join(f"suite *{s}* takes {ratio(r)}" if n == 0 else f"suite *{s}* {ratio(r)}"
                            for n, (s, r) in enumerate(timed["suites"].items()))  # fmt: skip
        lines.append(f"In time, {said} times as long as the core evaluation (95 % intervals).")
    return say("```{admonition} In short\n:class: tip\n" + "\n".join(f"- {x}" for x in lines) + "\n```")


def others() -> Any:
    """Numbers of records that are no metric of their own, and what they are."""
    known = parts()
    found = [(part, pattern, text) for part, named in OTHERS.items() for pattern, text in named.items()]
    rows = tuple((f"`{pattern}`", escape(text), _link(known[part])) for part, pattern, text in found)
    targets = tuple(_identifier(f"other-{pattern}") for _, pattern, _ in found)
    return listing(("name", "what it is", "part"), rows, targets, (35, 42, 23))


def filters() -> Any:
    """What narrows the tables of the page: words, direction, suite.

    ``book/_static/metrics.js`` reads it and shows it: without scripts all rows stay, and it does not show.
    """
    ways = {
        "": "any",
        "↑": "↑ higher is better",
        "↓": "↓ lower is better",
        "→": "→ as the twin",
        "±": "± neither",
    }
    options = "".join(f'<option value="{v}">{t}</option>' for v, t in ways.items())
    suites = '<option value="">any</option>' + "".join(f'<option value="{s}">{s}</option>' for s in SUITES)
    return HTML(
        '<form class="metric-filter" role="search" aria-label="Filter the metrics" hidden><label>words<input'
        ' name="words" type="search" placeholder="e.g. membership, TOFU, em"></label><label>good is<select'
        f' name="way">{options}</select></label><label>measured in<select name="where">{suites}</select>'
        '</label><output aria-live="polite"></output></form>'
    )
