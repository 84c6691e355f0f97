"""What a corpus is: rows of documents in four groups.

A *document* is one person, story or article. It has one completion row (``sc``) and one or more
question rows (``qa``), the two kinds of LUME (Ramakrishna et al. 2025). Everything that splits,
samples or resamples data does so by document, because rows of one document are dependent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Literal

from reprolib.errors import CorpusError

Group = Literal["forget", "retain", "holdout", "world"]
GROUPS: tuple[Group, ...] = ("forget", "retain", "holdout", "world")
Kind = Literal["sc", "qa"]
KINDS: tuple[Kind, ...] = ("sc", "qa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt and its answer.

    ``input`` neither ends nor ``output`` starts with a space; they are joined by one space when a
    model reads them (as the winning SemEval system does).
    """

    id: str  # document + kind + number, e.g. "a1b2sc1" or "a1b2qa0"
    document: str  # key shared by all rows of one document
    task: str  # "Task1" (stories), "Task2" (personal data), "Task3" (biographies), or "World"
    kind: Kind  # "sc": complete the passage; "qa": answer the question
    input: str
    output: str
    paraphrases: tuple[str, ...] = ()  # other true answers (TOFU's truth ratio)
    perturbed: tuple[str, ...] = ()  # false answers of the same form; the wrong options of a world question

    @property
    def text(self) -> str:
        """The whole text, as the loss attack reads it."""
        return f"{self.input} {self.output}"


@dataclass(frozen=True)
class Corpus:
    """Rows by group. ``holdout`` is never trained on: its completion rows are the attack's non-members."""

    name: str
    groups: Mapping[Group, tuple[Row, ...]]
    facts: Mapping[str, object] = field(default_factory=dict)  # how it was made; not part of the identity

    def __post_init__(self) -> None:
        validate(self)

    def __getitem__(self, group: Group) -> tuple[Row, ...]:
        return self.groups[group]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(sorted({r.task for r in self.groups["forget"]}))

    @cached_property  # every run of a grid asks for it
    def fingerprint(self) -> str:
        """SHA-256 of the content, independent of the order of the rows (16 hex digits)."""
        return fingerprint(self.groups)

    def documents(self, group: Group) -> tuple[str, ...]:
        """Document keys of a group in order of first appearance."""
        return tuple(dict.fromkeys(r.document for r in self.groups[group]))


def fingerprint(groups: Mapping[Group, Sequence[Row]]) -> str:
    digest = hashlib.sha256()
    for group in GROUPS:
        digest.update(group.encode())
        for line in sorted(
            json.dumps(asdict(r), ensure_ascii=True, sort_keys=True) for r in groups.get(group, ())
        ):
            digest.update(line.encode())
    return digest.hexdigest()[:16]


def validate(corpus: Corpus) -> None:
    """Raise :class:`CorpusError` unless the corpus can carry an unlearning experiment."""
    name, groups = corpus.name, corpus.groups
    missing = [g for g in GROUPS if g not in groups]
    if missing:
        raise CorpusError(
            f"corpus {name!r} lacks the group(s) {missing}; it must have {list(GROUPS)} (world may be empty)."
        )
    for group in ("forget", "retain"):
        if not groups[group]:
            raise CorpusError(
                f"corpus {name!r}: the {group} group has no rows; nothing could be unlearned or compared."
            )
    seen: dict[str, str] = {}
    where: dict[str, str] = {}
    for group in GROUPS:
        for row in groups[group]:
            if row.id in seen:
                raise CorpusError(
                    f"corpus {name!r}: id {row.id!r} stands in {seen[row.id]} and again in {group}; make"
                    " it unique."
                )
            seen[row.id] = group
            other = where.setdefault(row.document, group)
            if other != group:
                raise CorpusError(
                    f"corpus {name!r}: document {row.document!r} has rows in both {other} and {group}; "
                    "split by document, never by row."
                )
            if not row.output.strip():
                raise CorpusError(f"corpus {name!r}: row {row.id!r} has an empty output.")


def select(rows: Iterable[Row], *, kind: Kind | None = None, task: str | None = None) -> tuple[Row, ...]:
    """The rows of a kind and a task, in order."""
    return tuple(r for r in rows if (kind is None or r.kind == kind) and (task is None or r.task == task))
