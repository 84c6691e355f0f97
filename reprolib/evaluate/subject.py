"""A model under evaluation: passes are made once, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from torch import nn

from reprolib.corpus.rows import Group, Row
from reprolib.evaluate.passes import Examination, Scores, TokenStatistics, teacher_forced, token_statistics
from reprolib.models.generate import MAX_NEW_TOKENS, generate

WRITTEN: tuple[Group, ...] = ("forget", "retain")  # groups whose prompts are answered by generation


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Numbers of one model: ``metrics`` by name, and ``rows``: columns of per-row scores (no text)."""

    metrics: dict[str, float]
    rows: dict[str, list]


@dataclass
class Subject:
    """One model under examination. What several probes need is computed once and kept here.

    ``reference``: gives the "target" (the model before unlearning) or the "twin" (retrained without the
    forget rows), or None where there is no such model. ``seed`` decides every choice and every sample;
    ``max_new_tokens`` and ``batch_tokens`` are limits of the shared passes.
    """

    lm: nn.Module
    exam: Examination
    seed: int = 0
    reference: Callable[[str], nn.Module | None] = lambda which: None
    progress: bool = True
    title: str = "evaluate"
    max_new_tokens: int = MAX_NEW_TOKENS
    batch_tokens: int = 8192  # padded tokens in a batch of generation; half as many in a teacher-forced one
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """(group, row) in the order of all per-row columns: forget, retain, holdout completions, world."""
        groups = {**self.exam.rows, "world": self.exam.corpus["world"]}
        return [(g, r) for g, rows in groups.items() for r in rows]

    @property
    def keys(self) -> dict[str, list]:
        """The columns that say what a row is. Documents are running numbers, so that no text of the data
        leaves with a record.
        """
        number = {
            d: n
            for n, d in enumerate(
                dict.fromkeys(r.document for g in self.exam.corpus.groups.values() for r in g)
            )
        }
        return {
            "group": [g for g, _ in self.rows],
            "task": [r.task for _, r in self.rows],
            "kind": [r.kind for _, r in self.rows],
            "document": [number[r.document] for _, r in self.rows],
        }

    def column(self, values: Mapping[int, float] | Mapping[str, Iterable[float]]) -> list[float | None]:
        """A per-row column of a record. ``values``: by position in :attr:`rows`, or one array for each of
        some groups.
        """
        out: list[float | None] = [None] * len(self.rows)
        if values and isinstance(next(iter(values)), str):
            groups = [g for g, _ in self.rows]
            named = cast(Mapping[str, Iterable[float]], values)
            placed = {groups.index(g) + i: v for g, column in named.items() for i, v in enumerate(column)}
        else:
            placed = dict(cast(Mapping[int, float], values))
        for i, v in placed.items():
            if v is not None and np.isfinite(v):
                out[i] = round(float(v), 4)
        return out

    @property
    def _forward(self) -> int:
        return max(1, self.batch_tokens // 2)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def scores(self) -> Scores:
        """The core teacher-forced pass."""
        return self.kept("scores", lambda: teacher_forced(self.lm, self.exam, self._forward))

    @property
    def texts(self) -> list[TokenStatistics]:
        """Token statistics of the forget, retain and holdout rows: completion rows whole, question rows by
        their answers.
        """
        n = sum(len(r) for r in self.exam.rows.values())
        return self.kept(
            "texts", lambda: token_statistics(self.lm, self.exam.tokens, range(n), self._forward)
        )

    @property
    def generations(self) -> dict[str, list[str]]:
        """Greedy continuations of the forget and retain prompts."""
        return self.kept("generations", self._generate)

    def _generate(self) -> dict[str, list[str]]:
        rows = [(g, i) for g in WRITTEN for i in range(len(self.exam.rows[g]))]
        out: dict[str, list[str]] = {g: [""] * len(self.exam.rows[g]) for g in WRITTEN}
        for model, own in self.scores.parts:
            chosen = [
                rows[i] for i in own if i < len(rows)
            ]  # rows of both groups are the first of the exam's tokens
            prompts = [self.exam.rows[g][i].input for g, i in chosen]
            begun = [self.scores.begun[g][i] for g, i in chosen]
            texts = generate(
                model, self.exam.tokenizer, prompts, begun=begun, max_new_tokens=self.max_new_tokens,
                batch_tokens=self.batch_tokens, progress=self.progress, title=self.title,
            )  # fmt: skip
            for (g, i), text in zip(chosen, texts, strict=True):
                out[g][i] = text
        return out

    def of(self, lm: nn.Module) -> Subject:
        """The same examination of another model (quantized, trained further)."""
        return replace(self, lm=lm, _kept={})
