"""Published rows of SemEval-2025 Task 4, and what follows from the formula of their score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reprolib.metrics import lume
from reprolib.places import project_root
from reprolib.record import Record

Study = Mapping[str, Sequence[Record]]
DESTROYED = ("random", "always_eos")  # the rungs of the ladder that know nothing
CHANCE = 0.25  # of a question with four options

PARTS = {
    "task": ("task aggregate", "#0072B2"),
    "mia": ("MIA score", "#56B4E9"),
    "mmlu": ("MMLU", "#E69F00"),
}

HALF = 0.0005  # a number printed with three decimals is known to half a unit of the third


@dataclass(frozen=True, slots=True)
class Row:
    """A published row: the printed final score and its three parts."""

    track: str
    board: str
    rank: int | None
    team: str
    final: float
    task: float
    mia: float
    mmlu: float

    @property
    def label(self) -> str:
        return f"{self.team} ({self.track})"

    @property
    def parts(self) -> dict[str, float]:
        """The parts of the final score by the names of :data:`PARTS`."""
        return {"task": self.task, "mia": self.mia, "mmlu": self.mmlu}

    @property
    def recomputed(self) -> float:
        return lume.final_score(self.task, self.mia, self.mmlu)

    @property
    def difference(self) -> float:
        return self.recomputed - self.final

    @property
    def allowed(self) -> float:
        """The difference that rounding explains: half a unit in the parts' mean, and half a unit in the
        final.
        """
        decimals = max(3, len(f"{self.final!r}".partition(".")[2]))
        return HALF + 0.5 * 10.0**-decimals

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.allowed + 1e-9

    @property
    def eligible(self) -> bool:
        return self.mmlu >= lume.ELIGIBLE_MMLU

    @property
    def destroyed(self) -> float:
        """The final score of a destroyed model with this row's MMLU."""
        return destroyed(self.mmlu)

    @property
    def below(self) -> bool:
        """Whether the row scores no more than that: task aggregate + MIA score <= 1."""
        return self.recomputed <= self.destroyed + 1e-9

    @property
    def blank(self) -> bool:
        """The look of a destroyed model: an aggregate of 0, and an attack that finds little."""
        return self.task == 0 and self.mia > 0.5


@dataclass(frozen=True)
class Published:
    """What ``book/published_scores.yml`` holds."""

    rows: tuple[Row, ...]
    boards: tuple[Mapping[str, Any], ...]
    papers: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, Mapping[str, str]]
    untouched: Mapping[str, Any]
    answers: Mapping[str, int]  # letter -> number of MMLU's test questions that it answers
    attack_sets: tuple[Mapping[str, Any], ...]

    def of(self, track: str, *boards: str) -> tuple[Row, ...]:
        """Rows of a track that teams submitted, or those of the boards named."""
        return tuple(
            r
            for r in self.rows
            if r.track == track and (r.board in boards if boards else r.board != "baseline")
        )

    def row(self, track: str, team: str) -> Row:
        return next(r for r in self.rows if (r.track, r.team) == (track, team))

    def board_size(self, row: Row) -> int:
        return next(b["of"] for b in self.boards if (b["track"], b["board"]) == (row.track, row.board))

    def letter(self, mmlu: float) -> str:
        """The letter that a model scores ``mmlu`` with if it answers nothing else, to the three printed
        decimals; "" if none.
        """
        total = sum(self.answers.values())
        return next((k for k, n in self.answers.items() if abs(n / total - mmlu) <= HALF), "")


def published(path: Path | None = None) -> Published:
    raw = yaml.safe_load(
        (path or project_root() / "book" / "published_scores.yml").read_text(encoding="utf-8")
    )
    answers = {k: v for k, v in raw["mmlu_answers"].items() if k != "source"}
    return Published(
        rows=tuple(Row(*r) for r in raw["rows"]),
        boards=tuple(raw["boards"]),
        papers=raw["papers"],
        sources=raw["sources"],
        untouched=raw["untouched"],
        answers=answers,
        attack_sets=tuple(raw["attack_sets"]),
    )


def destroyed(mmlu: float = CHANCE) -> float:
    """The final score of a model that has lost everything: aggregate 0 (no retain answer), MIA score 1 (all
    texts alike).
    """
    return lume.final_score(0.0, 1.0, mmlu)


def break_even(mmlu: float, mia: float = 0.0, chance: float = CHANCE) -> float:
    """The task aggregate that gives a model of this MMLU and MIA score what a destroyed one gets: 1 + chance
    - MIA - MMLU.
    """
    return 1.0 + chance - mia - mmlu


def forgotten(aggregate: float) -> float:
    """The share q of forget rows forgotten that gives this aggregate to a model that keeps all else.

    Six of the twelve scores are then q and six are 1, so that their harmonic mean is a = 2 q / (1 + q), and q
    = a / (2 - a).
    """
    return aggregate / (2.0 - aggregate)


def implied_task(final: float, mia: float, mmlu: float) -> tuple[float, float]:
    """The task aggregates that fit a final score and two of its parts, all printed with three decimals, cut
    at 0 and 1.
    """
    middle = 3 * final - mia - mmlu
    return max(0.0, middle - 5 * HALF), min(1.0, middle + 5 * HALF)
