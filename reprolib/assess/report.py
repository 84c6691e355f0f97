"""The report of one evaluation: what both forms say, and the table for the terminal (HTML: page.py)."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reprolib.assess.result import NOISE, Assessment, Result
from reprolib.metrics import CARDS as KNOWN
from reprolib.metrics.card import Card
from reprolib.metrics.mmlu import CARDS as MMLU
from reprolib.probes.harness import CARDS as HARNESS

DETAILS = re.compile(r"mmlu/subject/|_(low|high)$")  # in the JSON and folded on the page, not in the terminal
WORDS = {"sc": "passages", "qa": "questions", "tpr": "TPR", "nf4": "NF4", "int8": "INT8"}


def _card(name: str, label: str, trap: str, **changes) -> Card:
    usual = Card(
        name=name, label=label, trap=trap, unit="share", low=0.0, high=1.0, better="twin", source="this study"
    )
    return replace(usual, **changes)


_OFFICIAL = "SemEval-2025 Task 4, organisers' script (Dec 2024)"

CARDS: dict[
    str, Card
] = {  # of the core evaluation's own names, where no function of reprolib.metrics has one
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
    "em": "exact_memorisation",
    "es": "extraction_strength",
    "accuracy": "choice_accuracy",
    "tpr": "tpr_at_fpr",
    "mia": "mia_score",
    "mia_auc": "auc",
    "final": "final_score",
    "task_aggregate_floored": "floored_aggregate",
    "score/sc": "rouge_l_recall",
    "score/qa": "knowledge",
    "mmlu": "mmlu/accuracy_questions",
    "eligible": "mmlu/eligible",
}

GROUPS = {  # of the core part, by the first word of a metric's name
    "forget": "Forget rows", "retain": "Retain rows", "holdout": "Holdout rows: non-members of the attack",
    "attack": "Loss attack on forget against holdout", "world": "World questions", "routing": "Routing",
    "lume": "The study's score: official but for the attack's members and world questions in MMLU's place",
}  # fmt: skip


def card(name: str) -> Card | None:
    """The card of a metric as evaluations name them, e.g. ``forget/qa/em`` or ``tofu/retain/truth_ratio``;
    None if it has none.
    """
    return describe(name)[0]


def describe(name: str) -> tuple[Card | None, list[str]]:
    """The card of a metric, and the words of its name that the card does not say.

    The longest beginning of the name that is a card's counts; else, from the right, the first word that is a
    card's name or holds one (``auc_matched``, ``knowmem_forget``, ``length_auc``, ``distinct_2``, ``empty``
    for ``empty_share``).
    """
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
    """(name of the card that a word holds, what the word says besides). Only a last word may be the beginning
    of a card's name.
    """
    if word in cards:
        return word, ""
    general = re.sub(r"_\d+", "_n", word, count=1)
    heads = [c for c in cards if general.startswith(f"{c}_") or (general == c != word)]
    if heads:
        head = max(heads, key=len)
        digits = re.findall(r"\d+", word)[:1] if head.endswith("_n") else []
        return head, "_".join(
            [*digits, *([general.removeprefix(head).strip("_")] if general != head else [])]
        )
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
        extent = (
            f"{low} to {high}"
            if low and high
            else f"from {low}"
            if low
            else f"up to {high}"
            if high
            else "unbounded"
        )
        return f"{self.card.arrow}, {self.card.unit}, {extent}"


def lines(a: Assessment, part: Result) -> Iterator[Line]:
    """The metrics of a part, in its order."""
    tables = {role: a.metrics(role) for role in a.results}
    names = list(part.metrics)
    if part.name == "core":
        names = [
            n for g in GROUPS for n in names if n.startswith(f"{g}/")
        ]  # what is official has a part of its own
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


def facts(a: Assessment) -> list[tuple[str, str]]:
    out = []
    for role, m in a.models.items():
        more = [m.get("architecture") or "", f"{m['parameters']:,} parameters" if m.get("parameters") else "",
                f"adapter {m['adapter']}" if m.get("adapter") else "", m["fingerprint"]]  # fmt: skip
        out.append((role, f"{m['name']} ({', '.join(x for x in more if x)})"))
    groups = ", ".join(f"{g['rows']} {name}" for name, g in a.data["groups"].items() if g["rows"])
    out.append(("data", f"{a.data['name']}: rows {groups} ({a.data['fingerprint']})"))
    out.append(
        (
            "settings",
            ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in a.settings.items() if v is not None),
        )
    )
    return out


def intro(a: Assessment) -> str:
    both = {"target", "twin"} <= set(a.results)
    gap = (
        "Gap: share of the way from target to twin; 1 is the retrained twin, – where the two hardly differ."
        if both
        else ""
    )
    return (
        "↑ higher is better, ↓ lower, → twin: good is what a model has that never saw the forget rows."
        f" {gap}".strip()
    )


def text(a: Assessment, width: int | None = None) -> str:
    """The table for the terminal, part by part. ``width`` in characters; that of the terminal by default."""
    width = width or max(80, shutil.get_terminal_size((110, 24)).columns)
    roles = list(a.results)
    both = {"target", "twin"} <= set(roles)
    heads = [*roles, *(["gap"] if both else [])]
    out = [f"{k:>9}  {v}" for k, v in facts(a)] + ["", intro(a)]
    room = max(24, min(52, width - 9 * len(heads) - 28))
    for part in a.results["model"].values():
        every = list(lines(a, part))
        shown = [x for x in every if not DETAILS.search(x.name)]
        out += [
            "",
            f"{_cut(part.title, room):<{room}}" + "".join(f"{h:>9}" for h in heads),
            "-" * (room + 9 * len(heads)),
        ]
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
