"""The metrics page: every metric's card, where it is measured, and what that costs.

Other pages link to a metric by its target, e.g. ``{ref}`Min-K% <metric-min_k>```, and from HTML by ``#metric-min-k`` (`anchor`).
``KEYS`` and ``COLUMNS`` say which names in a record stand for which metric; the tests hold them against records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from reprolib.errors import SpecError, unknown
from reprolib.metrics import MODULES, Card
from reprolib.record import results_dir

SUITES = ("core", "wide", "stress", "data", "records")  # from what every run has to what touches no model


@dataclass(frozen=True, slots=True)
class Part:
    """What is done to a model to have some metrics: a pass of the core evaluation, a probe, or nothing."""

    name: str
    title: str
    suite: str
    cost: str  # in passes over the data


# --- which names mean what ------------------------------------------------------------------------------------
# part -> name of a metric, * for any text and {a,b} for a or b -> name of its card

KEYS: dict[str, dict[str, str]] = {
    "teacher-forced": {
        "*/nll": "nll", "*/em": "exact_memorisation", "*/es": "extraction_strength", "*/questions": "questions",
        "attack/auc": "auc", "lume/mia": "mia_score", "world/accuracy": "choice_accuracy", "retain/kl": "kl",
    },
    "generation": {
        "lume/*/*/{sc,qa}": "twelve", "lume/task_aggregate": "task_aggregate", "lume/task_aggregate_floored": "floored_aggregate",
        "lume/final": "final_score",
    },
    "attacks": {"attacks/*/{auc,auc_matched}": "auc", "attacks/length_auc": "auc", "attacks/*/tpr": "tpr_at_fpr"},
    "tofu": {
        "tofu/*/probability": "probability", "tofu/*/option_probability": "option_probability",
        "tofu/*/rouge_l_recall": "rouge_l_recall", "tofu/*/{truth_score,truth_score_arithmetic}": "truth_score",
        "tofu/*/{parity_score,parity_score_arithmetic}": "parity_score", "tofu/*/truth_ratio_new": "truth_ratio",
        "tofu/model_utility": "model_utility", "tofu/partial_utility": "partial_utility", "tofu/forget_quality": "forget_quality",
        "tofu/log10_p": "log10_p", "tofu/ks_distance": "ks_distance",
    },
    "muse": {
        "muse/verbmem": "verbmem", "muse/knowmem_*": "knowmem", "muse/{auc,auc_twin}": "auc", "muse/privleak": "privleak",
        "muse/privleak_difference": "privleak_difference",
    },
    "fluency": {
        "fluency/*/{distinct_?,distinct_?_text}": "distinct_n", "fluency/*/repetition": "repetition", "fluency/*/loop": "loop",
        "fluency/*/empty": "empty_share", "fluency/*/length_ratio": "length_ratio", "fluency/*/perplexity": "perplexity",
        "fluency/collapsed": "collapsed",
    },
    "relearning": {
        "relearning/*/{questions,retain_questions}": "questions", "relearning/*/{questions_em,passages_em}": "exact_memorisation",
        "relearning/*/auc": "auc",
    },
    "quantization": {
        "quantization/*/questions": "questions", "quantization/*/em": "exact_memorisation",
        "quantization/*/es": "extraction_strength", "quantization/*/nll": "nll",
        "quantization/*/attack/auc": "auc", "quantization/*/world/accuracy": "choice_accuracy",
        "quantization/*/retain/kl": "kl", "quantization/*/lume/task_aggregate": "task_aggregate",
        "quantization/*/lume/mia": "mia_score", "quantization/*/lume/final": "final_score",
    },
    "prompts": {
        "prompts/*/{plain,small,lower,please,twice,brief,form,aside,instruction,few_shot}": "knowledge",
        "prompts/*/{prefix_*,passage_*}": "knowledge", "prompts/*/leak@*": "leak_at_k",
    },
    "mmlu": {
        "mmlu/accuracy_questions*": "mmlu/accuracy_questions", "mmlu/accuracy_subjects*": "mmlu/accuracy_subjects",
        "mmlu/subject/*": "mmlu/subject",
    } | {f"mmlu/{n}": f"mmlu/{n}" for n in ("eligible", "answer_mass", "chance", "scored", "shortened", "shots_dropped", "cut")},
    "harness": {"harness/*": "harness"},
}  # fmt: skip
# part -> column of scores, one a row of the corpus -> names of its cards, which differ by the kind of the row
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "teacher-forced": {
        "nll": ("nll",), "em": ("exact_memorisation",), "es": ("extraction_strength",), "score": ("choice_accuracy",),
    },
    "generation": {"score": ("rouge_l_recall", "knowledge")},
    "attacks": {
        "attack_zlib": ("zlib_score",), "attack_min_k": ("min_k",), "attack_min_k_plus_plus": ("min_k_plus_plus",),
        "attack_gradient_norm": ("gradient_norm",), "attack_reference": ("reference_attack",),
    },
    "tofu": {"tofu_probability": ("probability",), "tofu_rouge": ("rouge_l_recall",), "truth_ratio": ("truth_ratio",)},
    "muse": {"muse_verbmem": ("verbmem", "rouge_l_f1"), "muse_knowmem": ("knowmem", "rouge_l_f1"), "muse_min_k": ("min_k",)},
    "fluency": {"repetition": ("repetition",), "loop": ("loop",)},
    "relearning": {"relearnt_part": ("questions",), "relearnt_benign": ("questions",)},
    "quantization": {"score_int8": ("rouge_l_recall", "knowledge"), "score_nf4": ("rouge_l_recall", "knowledge")},
    "prompts": {"leak_sampled": ("leak_at_k",)},
}  # fmt: skip
# Names of numbers that are no metric of their own: counts, sizes, readings of one method.
OTHERS: dict[str, dict[str, str]] = {
    "teacher-forced": {
        "routing/sent_*": "of prompt routing: share of the group's prompts that it sends to the model that says nothing",
        "routing/{auc,accuracy}_*": "of prompt routing: how well its classifier tells forget from retain prompts",
        "text_nll": "column: mean loss of the whole passage, which the loss attack ranks by",
    },
    "attacks": {
        "attacks/matched_pairs": "pairs of forget and holdout passages of about equal length, which auc_matched is read on",
        "attack_loss": "column: minus the mean loss of the whole passage",
    },
    "tofu": {
        "tofu/utility_parts": "how many numbers the partial model utility is the harmonic mean of",
        "tofu/{forget_rows,forget_rows_twin}": "how many truth ratios the forget quality compares on either side",
    },
    "fluency": {
        "fluency/*/scored": "how many outputs are not empty, so that they have a perplexity",
        "generation_nll": "column: mean loss of the output under the model before unlearning",
    },
    "prompts": {
        "prompts/*/worst": "the largest share over all ways of asking; it grows with their number, so read it beside the twin's",
        "prompts/*/any": "share of questions that at least one way of asking, or one sample, drew the answer from",
        "prompts/informative": "share of the ways of asking that still work on retain rows; the others say nothing",
        "leak_any": "column: whether any way of asking drew the answer",
    },
}
# Metrics that no evaluation of one model gives: what they are computed from.
RECORDS: dict[str, str] = {
    "gap_closed": "records of a model, its target and its twin",
    "standardised_difference": "records of two methods over seeds",
    "superiority": "records of two methods over seeds",
    "cliffs_delta": "records of two methods over seeds",
    "rank_stability": "records of several methods over seeds",
    "quantisation_robustness": "records of suite stress",
    "relearning_robustness": "records of suite stress, the twin's included",
    "robustness": "records of suite stress, the twin's included",
    "scalability": "records of one method with forget sets of several sizes",
    "sustainability": "records of one model that was given several requests in a row",
    "faithfulness": "records of many models, with the knowledge and without",
    "stability": "records of suite stress, the twin's included",
    "overall": "records of many models, those of suite stress included",
}


def expand(pattern: str) -> list[str]:
    """A pattern for each choice in braces.

    >>> expand("muse/{auc,auc_twin}")
    ['muse/auc', 'muse/auc_twin']
    """
    found = re.search(r"\{([^}]*)\}", pattern)
    if not found:
        return [pattern]
    return [p for word in found[1].split(",") for p in expand(pattern[: found.start()] + word + pattern[found.end() :])]


def fits(name: str, pattern: str) -> bool:
    return any(fnmatchcase(name, p) for p in expand(pattern))


def resolve(name: str, part: str) -> list[str]:
    """What a metric or a column of a part stands for: names of cards, or "" if it is declared as no metric; empty if unknown."""
    found = [card for pattern, card in KEYS.get(part, {}).items() if fits(name, pattern)]
    found += [c for column, cards in COLUMNS.get(part, {}).items() if column == name for c in cards]
    return found + ["" for pattern in OTHERS.get(part, {}) if fits(name, pattern)]


# --- cards and parts ------------------------------------------------------------------------------------------


def groups() -> dict[str, dict[str, Card]]:
    """All cards: those of ``reprolib.metrics`` by module, then the core evaluation's own readings and lm-eval's."""
    from reprolib.probes.harness import CARDS as HARNESS
    from reprolib.report.assessment import CARDS as OWN

    own = {"readings": OWN}
    return own | {m.__name__.rpartition(".")[2]: m.CARDS for m in MODULES} | {"harness": HARNESS}


def cards() -> dict[str, Card]:
    return {name: card for group in groups().values() for name, card in group.items()}


def parts() -> dict[str, Part]:
    """All parts, from the cheapest to have to the dearest suite; probes of installed packages included."""
    from reprolib.probes import probes

    found = [
        Part("teacher-forced", "Teacher-forced pass", "core", "one forward pass over all rows"),
        Part("generation", "Greedy generation", "core", "generation for forget and retain rows"),
    ]
    found += [Part(p.name, p.title, p.suite, p.cost) for p in sorted(probes().values(), key=lambda p: SUITES.index(p.suite))]
    found += [
        Part("mmlu", "MMLU", "data", "one forward pass over all prompts; worked examples are read once a subject"),
        Part("harness", "lm-evaluation-harness", "data", "as the tasks say"),
        Part("records", "From finished records", "records", "no pass over a model"),
    ]
    return {p.name: p for p in found}


def measured(card: str) -> list[tuple[Part, list[str]]]:
    """Where a metric comes from: parts, the first of the cheapest suite, and its names there ("column ..." for those of rows)."""
    out = []
    for part in parts().values():
        names = [pattern for pattern, c in KEYS.get(part.name, {}).items() if c == card]
        names += [f"column {column}" for column, cards in COLUMNS.get(part.name, {}).items() if card in cards]
        if part.name == "records" and card in RECORDS:
            names = [RECORDS[card]]
        if names:
            out.append((part, names))
    return out


def suite(card: str) -> str:
    """The cheapest suite that has a metric."""
    return measured(card)[0][0].suite


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
    words = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else "unbounded"
    return f"{card.unit}, {words}"


# --- sources --------------------------------------------------------------------------------------------------

CITED = {  # as cards name a source -> its key in references.bib
    "Carlini et al. 2021": "carlini2021", "Carlini et al. 2022": "carlini2022", "Chen et al. 2021": "chen2021codex",
    "Cliff 1993": "cliff1993", "Cohen 1988": "cohen1988", "Dorna et al. 2025": "openunlearning2025", "Gao et al.": "gao2024harness",
    "Hall and Miller 2009": "hall2009", "Hendrycks et al. 2021": "hendrycks2021mmlu", "Jelinek et al. 1977": "jelinek1977",
    "Kendall 1945": "kendall1945", "Lakens 2013": "lakens2013", "Li et al. 2016": "li2016", "Lin 2004": "lin2004",
    "Maini et al. 2024": "maini2024", "McGraw and Wong 1992": "mcgraw1992", "Ramakrishna et al. 2025": "semeval2025task4",
    "Shi et al. 2024": "shi2024mink", "Shi et al. 2025": "muse2025", "Tirumala et al. 2022": "tirumala2022",
    "Wang et al. 2024": "wang2024pandora", "Welleck et al. 2020": "welleck2020", "Zhang et al. 2025": "zhang2025minkpp",
}  # fmt: skip
_CITATION = re.compile("|".join(rf"\({re.escape(c)}\)|{re.escape(c)}" for c in sorted(CITED, key=len, reverse=True)))


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
        out += [escape(source[at : m.start()]), f"{{cite:{'p' if m[0][0] == '(' else 't'}}}`{CITED[bare]}`"]
        at = m.end()
    return "".join(out) + escape(source[at:])


# --- what the page shows --------------------------------------------------------------------------------------


def listing(
    header: Sequence[str], rows: Sequence[Sequence[str]], targets: Sequence[str], widths: Sequence[int], note: str = "",
    kind: str = "metric-cards",
) -> Any:  # fmt: skip
    """A table in MyST, so that its rows are targets and cite papers. A blank line in a cell parts paragraphs.

    ``targets``: one a row; ``widths`` of columns, in percent; ``note``: stands below; ``kind``: CSS classes, "filtered" if rows can be hidden.
    """
    from reprolib.report.page import say

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
    """The cards of one group, each with where it is measured. ``only``: those that a suite is the cheapest to have."""
    known = groups()
    if group not in known:
        raise SpecError(unknown("group of metrics", group, known))
    chosen = _chosen(known[group], only)
    if not chosen:
        from reprolib.report.page import say

        return say(f"None of them in suite {only}.")
    rows = [
        (f"**{escape(c.label)}** {_arrow(c)}\n\n`{name}`\n\n{escape(extent(c))}", escape(c.trap), _where(name), cited(c.source))
        for name, c in chosen.items()
    ]
    header, targets = ("metric", "what misleads", "measured in", "source"), tuple(f"metric-{name}" for name in chosen)
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
    """What ``benchmarks/probes.py`` measured; empty where it has not run."""
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
        rows.append((f"**{escape(part.title)}**\n\n`{part.name}`", part.suite, escape(part.cost), shown, f"{n}"))
    note = "Times: the core evaluation is 1; brackets hold 95 % intervals over rounds. "
    note += _machine(timed) if timed else "They have not been measured here."
    header, targets = ("part", "suite", "cost in passes", "time, as a ratio", "metrics"), tuple(f"part-{n}" for n in parts())
    return listing(header, rows, targets, (24, 11, 37, 17, 11), note)


def _times(timed: Mapping[str, Any], part: str) -> str:
    found = timed.get("parts", {}).get(part)
    return "–" if found is None else ratio(found["ratio"])


def ratio(r: Mapping[str, float]) -> str:
    """A ratio with its interval.

    >>> ratio({"median": 12.34, "low": 11.9, "high": 12.8}), ratio({"median": 0.512, "low": 0.5, "high": 0.53})
    ('12.3 [11.9, 12.8]', '0.51 [0.50, 0.53]')
    """
    return "{} [{}, {}]".format(*(f"{r[k]:.1f}" if r["median"] >= 10 else f"{r[k]:.2f}" for k in ("median", "low", "high")))


def _machine(timed: Mapping[str, Any]) -> str:
    s, m = timed["settings"], timed["machine"]
    threads = f"{m['threads']} thread{'s' if m['threads'] != 1 else ''}"
    threads += f", with a load of {m['load_at_start']:.1f} when it began" if m.get("load_at_start") else ""
    texts = timed["parts"].get("token statistics")
    users = [f"`{n}`" for n, e in timed["parts"].items() if "token statistics" in e.get("shares", ())]
    between = f" One pass that {' and '.join(users)} share takes {ratio(texts['ratio'])}." if texts and users else ""
    return (
        f"Measured after `{s['method']}` on `{s['testbed']}` in {s['rounds']} rounds on a CPU, {threads}. What a probe takes from "
        "a pass of the core evaluation, or shares with another probe, is not counted for it." + between
    )


def counts() -> dict[str, int]:
    """How many metrics each suite is the cheapest to have."""
    found = [suite(name) for name in cards()]
    return {s: found.count(s) for s in SUITES}


def answer() -> Any:
    """The page in short: how many metrics there are, where they come from, and what the suites cost."""
    from reprolib.report.page import say

    n, every = counts(), cards()
    own = [c for name, c in every.items() if suite(name) != "data"]
    twin = sum(c.better == "twin" for c in own)
    lines = [
        f"{len(every)} metrics have a card. {n['core']} come with every run, from a teacher-forced pass and a generation. Suite "
        f"*wide* has {n['wide']} more. *stress* has {n['stress']} more, and reads others again when the model is trained further, rounded, "
        f"or asked otherwise. *data* has {n['data']}, of other benchmarks. {n['records']} are computed from finished records and touch "
        "no model.",
        f"Other benchmarks aside, for {twin} of {len(own)} neither high nor low is good (→ twin): good is what a model has that never "
        "saw the forget rows, and to go beyond it is not better.",
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


STYLE = """
.metric-filter { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: 0 0 1rem; }
.metric-filter[hidden] { display: none; }
.metric-filter label { display: flex; flex-direction: column; font-size: .85em; color: var(--pst-color-text-muted); }
.metric-filter input, .metric-filter select { font: inherit; font-size: 1rem; padding: .25rem .45rem; border-radius: .25rem;
  color: var(--pst-color-text-base); background: var(--pst-color-background); border: 1px solid var(--pst-color-text-muted); }
.metric-filter input { min-width: 14rem; }
.metric-filter output { padding-bottom: .35rem; }
table.metric-cards { font-size: .86em; table-layout: fixed; width: 100%; }
table.metric-cards td, table.metric-cards th { vertical-align: top; white-space: normal; text-align: left; }
table.metric-cards td { overflow-wrap: break-word; }
table.metric-cards p { margin: 0 0 .25em; }
table.metric-cards code, table.metric-cards code .pre { overflow-wrap: anywhere; white-space: normal; }
table.metric-cards tr:has(:target) { outline: 2px solid var(--pst-color-primary); outline-offset: -2px; }
table.metric-cards td * { scroll-margin-top: 6rem; }
@media (max-width: 720px) {
  table.metric-cards, table.metric-cards tbody, table.metric-cards tr, table.metric-cards td { display: block; width: auto; }
  table.metric-cards colgroup, table.metric-cards thead { display: none; }
  table.metric-cards tr { border-bottom: 2px solid var(--pst-color-border); padding: .4rem 0; }
  table.metric-cards tr[hidden] { display: none; }
  table.metric-cards td { border: 0; padding: .15rem .3rem; }
  table.metric-cards td[data-head] { position: relative; padding-left: 7.2rem; min-height: 1.6em; }
  table.metric-cards td[data-head]::before { content: attr(data-head); position: absolute; left: .3rem; max-width: 6.6rem;
    color: var(--pst-color-text-muted); }
}
"""
SCRIPT = """
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".metric-filter");
  const tables = [...document.querySelectorAll("table.metric-cards")];
  for (const t of tables) {
    const heads = [...t.querySelectorAll("thead th")].map(h => h.textContent.trim());
    for (const r of t.querySelectorAll("tbody tr")) [...r.cells].forEach((c, i) => { if (i) c.dataset.head = heads[i]; });
  }
  const own = tables.filter(t => t.classList.contains("filtered"));
  if (!form || !own.length) return;
  form.hidden = false;
  const [words, way, where] = ["words", "way", "where"].map(n => form.elements[n]);
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let left = 0, all = 0;
    for (const t of own) {
      const section = t.closest("section"), title = section?.querySelector("h1, h2, h3")?.textContent || "";
      let here = 0;
      for (const r of t.querySelectorAll("tbody tr")) {
        const text = `${title} ${r.textContent}`.toLowerCase(), good = r.cells[0].textContent.includes(way.value);
        const suites = r.cells[2].textContent.match(/\\b(core|wide|stress|data|records)(?=:)/g) || [];
        const ok = good && wanted.every(w => text.includes(w)) && (!where.value || suites.includes(where.value));
        r.hidden = !ok;
        all += 1; left += ok; here += ok;
      }
      if (section) section.hidden = !here;
    }
    form.querySelector("output").textContent = `${left} of ${all} metrics`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", e => e.preventDefault());
  window.addEventListener("hashchange", () => { form.reset(); show(); });
  show();
});
"""


def filters() -> Any:
    """What narrows the tables of the page: words, direction, suite. Without scripts all rows stay, and it does not show."""
    from IPython.display import HTML

    ways = {"": "any", "↑": "↑ higher is better", "↓": "↓ lower is better", "→": "→ as the twin", "±": "± neither"}
    options = "".join(f'<option value="{v}">{t}</option>' for v, t in ways.items())
    suites = '<option value="">any</option>' + "".join(f'<option value="{s}">{s}</option>' for s in SUITES)
    return HTML(
        f'<style>{STYLE}</style><form class="metric-filter" role="search" aria-label="Filter the metrics" hidden>'
        '<label>words<input name="words" type="search" placeholder="e.g. membership, TOFU, em"></label>'
        f'<label>good is<select name="way">{options}</select></label>'
        f'<label>measured in<select name="where">{suites}</select></label>'
        f'<output aria-live="polite"></output></form><script>{SCRIPT}</script>'
    )
