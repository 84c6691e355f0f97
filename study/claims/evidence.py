"""What a claim is, and the records that claims are checked against."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from reprolib.errors import ReprolibError
from reprolib.places import project_root
from reprolib.record import Record
from study.grid import Grid
from study.readings.gate import gather
from study.readings.quantities import LADDER
from study.report import arms as _arms
from study.report import audit, leaderboard


class ClaimError(ReprolibError):
    """The records no longer support what the book says."""


class Finding(NamedTuple):
    holds: bool
    numbers: str


@dataclass(frozen=True, slots=True)
class Claim:
    name: str
    page: str  # of the book, with the evidence
    text: str
    check: Callable[[Evidence], Finding]


CLAIMS: dict[str, Claim] = {}


def claim(
    of: str,
) -> Callable[[Callable[[Evidence], tuple[bool, str]]], Callable[[Evidence], tuple[bool, str]]]:
    """Register the decorated check, whose docstring's first paragraph says the claim, as one that rests on
    the page ``of``.
    """

    def add(check: Callable[[Evidence], tuple[bool, str]]) -> Callable[[Evidence], tuple[bool, str]]:
        text = " ".join((check.__doc__ or "").strip().partition("\n\n")[0].split())  # wrapped in the source
        CLAIMS[check.__name__] = Claim(check.__name__, of, text, lambda e: Finding(*check(e)))
        return check

    return add


class Evidence:
    """Records of the study, gathered when a claim first asks for them."""

    def __init__(self, testbed: str = "tiny/synthetic", real: str = "tiny/lume", seed: int | None = None):
        self.testbed, self.real, self.seed = testbed, real, seed

    def _gather(self, block: str, testbed: str, **fields: Any) -> dict[str, list[Record]]:
        methods = dict.fromkeys(s.method for s in Grid.load().blocks[block] if s.method not in LADDER)
        return gather(methods, testbed, self.seed, **fields)

    @cached_property
    def core(self) -> dict[str, list[Record]]:
        return self._gather("methods", self.testbed)

    @cached_property
    def board(self) -> tuple[leaderboard.Entry, ...]:
        return leaderboard.board(self.core)

    @cached_property
    def methods(self) -> list[leaderboard.Entry]:
        """The leaderboard without the ladder and the bounds."""
        return [e for e in self.board if e.counts]

    @cached_property
    def lume(self) -> dict[str, list[Record]]:
        return self._gather("methods-lume", self.real)

    @cached_property
    def wide(self) -> dict[str, list[Record]]:
        return self._gather("wide", self.testbed, suite="wide")

    @cached_property
    def stress(self) -> dict[str, list[Record]]:
        return self._gather("stress", self.testbed, suite="stress")

    @cached_property
    def published(self) -> audit.Published:
        return audit.published()

    def parameters(self, of: str) -> dict[str, Any]:
        """The parameters of a page's notebook, which name what the page compares."""
        path = Path(project_root()) / "notebooks" / f"{of}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        scope: dict[str, Any] = {}
        exec(
            "".join(next(c["source"] for c in cells if "parameters" in c["metadata"].get("tags", ()))),
            scope,
        )
        return {k: v for k, v in scope.items() if k != "__builtins__"}

    def arms(self, of: str) -> dict[str, _arms.Arm]:
        p = self.parameters(of)
        return _arms.gather(p["arms"], self.testbed, self.seed, p.get("fresh", ()))
