"""What a probe is: a question to one model, answered in numbers. Each file beside this one asks one.

The core evaluation (:mod:`reprolib.evaluate`) belongs to every run. Probes hold the rest of what the field measures, in two
suites: ``wide`` (other numbers of the same model, from shared passes) and ``stress`` (what is left when the model is trained
again, quantized, or asked in other ways).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from reprolib.corpus.batching import Tokens
from reprolib.corpus.rows import Row
from reprolib.evaluate import Evaluation, Examination, Scores, generate, parts, teacher_forced
from reprolib.models.policy import Policy, score

Suite = Literal["wide", "stress", "data"]
GENERATED = ("forget", "retain")


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of the T labelled positions of one text: log p(label), and mean and standard deviation of log p over the vocabulary.

    All in nats, [T]; ``answer``: how many of the last positions belong to the answer (EOS included).
    """

    logp: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray
    answer: int


@dataclass
class Subject:
    """One model under examination. What several probes need is computed once and kept here.

    ``reference``: gives the "target" (the model before unlearning) or the "twin" (retrained without the forget rows), or None
    where there is no such model. ``seed`` decides every choice and every sample.
    """

    lm: nn.Module
    exam: Examination
    seed: int = 0
    reference: Callable[[str], nn.Module | None] = lambda which: None
    progress: bool = True
    title: str = "probe"
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """(group, row) in the order of all per-row columns: forget, retain, holdout completions, world."""
        groups = {**self.exam.rows, "world": self.exam.corpus["world"]}
        return [(g, r) for g, rows in groups.items() for r in rows]

    def column(self, values: Mapping[int, float] | Mapping[str, Iterable[float]]) -> list[float | None]:
        """A per-row column of a record. ``values``: by position in :attr:`rows`, or one array for each of some groups."""
        out: list[float | None] = [None] * len(self.rows)
        if values and isinstance(next(iter(values)), str):
            groups = [g for g, _ in self.rows]
            values = {groups.index(g) + i: v for g, column in values.items() for i, v in enumerate(column)}  # type: ignore
        for i, v in values.items():
            if v is not None and np.isfinite(v):
                out[i] = round(float(v), 4)
        return out

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def scores(self) -> Scores:
        """The core teacher-forced pass."""
        return self.kept("scores", lambda: teacher_forced(self.lm, self.exam))

    @property
    def texts(self) -> list[TokenStatistics]:
        """Token statistics of the forget, retain and holdout rows: completion rows whole, question rows by their answers."""
        n = sum(len(r) for r in self.exam.rows.values())
        return self.kept("texts", lambda: token_statistics(self.lm, self.exam.tokens, range(n)))

    @property
    def generations(self) -> dict[str, list[str]]:
        """Greedy continuations of the forget and retain prompts."""
        return self.kept("generations", self._generate)

    def _generate(self) -> dict[str, list[str]]:
        rows = [(g, i) for g in GENERATED for i in range(len(self.exam.rows[g]))]
        out = {g: [""] * len(self.exam.rows[g]) for g in GENERATED}
        for model, own in self.scores.parts:
            chosen = [rows[i] for i in own if i < len(rows)]  # rows of both groups are the first of the exam's tokens
            prompts = [self.exam.rows[g][i].input for g, i in chosen]
            begun = [self.scores.begun[g][i] for g, i in chosen]
            texts = generate(model, self.exam.tokenizer, prompts, begun=begun, progress=self.progress, title=self.title)
            for (g, i), text in zip(chosen, texts, strict=True):
                out[g][i] = text
        return out

    def of(self, lm: nn.Module) -> Subject:
        """The same examination of another model (quantized, trained further)."""
        return Subject(lm, self.exam, self.seed, self.reference, self.progress, self.title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a model. ``ask`` returns metrics named ``<probe>/...`` and columns aligned with ``Subject.rows``."""

    name: str
    title: str
    suite: Suite
    cost: str  # in passes over the data
    ask: Callable[[Subject], Evaluation]
    needs: tuple[str, ...] = ()  # "target", "twin": models without which it cannot be asked


@torch.no_grad()
def token_statistics(lm: nn.Module, tokens: Tokens, rows: Iterable[int], max_tokens: int = 4096) -> list[TokenStatistics]:
    """One teacher-forced pass over the chosen rows; results in their order."""
    rows = list(rows)
    found: dict[int, TokenStatistics] = {}
    Policy(lm).eval()
    for model, own in parts(lm, tokens, rows):
        for indices, scored in score(Policy(model), tokens, own, max_tokens):
            logp_all = scored.logits.float().log_softmax(-1)
            p = logp_all.exp()
            mu = (p * logp_all).sum(-1)
            variance = (p * logp_all.square()).sum(-1) - mu.square()
            columns = [x.double().cpu().numpy() for x in (scored.token_logp, mu, variance.clamp(min=0).sqrt())]
            at = 0
            for i in indices:
                size = tokens.n_labels(i)
                logp, mean, sigma = (c[at : at + size] for c in columns)
                found[i] = TokenStatistics(logp, mean, sigma, tokens.n_answer(i))
                at += size
    return [found[i] for i in rows]
