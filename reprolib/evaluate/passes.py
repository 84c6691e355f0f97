"""The teacher-forced pass over an examination's rows, and what it gives: NLL, memorisation, attack, KL.

It also begins the generation pass: as long as the argmax under teacher forcing equals the label, greedy
decoding must produce exactly these tokens, and the first other argmax is its next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from reprolib.corpus.batching import OF_ANSWER, Labels, Tokens, collate, encode, encode_rows
from reprolib.corpus.rows import Corpus, Row, select
from reprolib.metrics import memorisation, utility
from reprolib.models import device
from reprolib.models.policy import Cached, Composed, Policy, cache_reference, score
from reprolib.objectives.likelihood import kl_divergence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Examination:
    """A corpus, tokenised once for all evaluations with one tokenizer."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    rows: dict[str, tuple[Row, ...]]
    # all of them: the rows group by group, then the true answer and the wrong options of each world question
    tokens: Tokens
    parts: dict[str, range]  # where each group stands in ``tokens``; "world" is the last
    target: Cached | None = None  # the target's logits on the retain rows, for KL

    @property
    def attacked(self) -> str:
        """The kind of rows that the loss attack reads: passages ("sc"), or answers ("qa") where there are no
        passages.
        """
        return "sc" if any(r.kind == "sc" for r in self.rows["forget"]) else "qa"

    @classmethod
    def of(cls, corpus: Corpus, tokenizer, target: nn.Module | None = None) -> Examination:
        rows = {
            "forget": corpus["forget"],
            "retain": corpus["retain"],
            # non-members of the loss attack: passages, or answers where a corpus has questions only
            "holdout": select(corpus["holdout"], kind="sc") or corpus["holdout"],
        }
        # whole documents are scored for the attack; the answer's part of them for everything else
        prompts = [r.input for g in rows.values() for r in g]
        answers = [r.output for g in rows.values() for r in g]
        labels: list[Labels] = ["all" if r.kind == "sc" else "answer" for g in rows.values() for r in g]
        options = [(r.input, o) for r in corpus["world"] for o in (r.output, *r.perturbed)]
        parts: dict[str, range] = {}
        at = 0
        for group, size in [*((g, len(r)) for g, r in rows.items()), ("world", len(options))]:
            parts[group] = range(at, at + size)
            at += size
        tokens = encode(
            tokenizer,
            [*prompts, *(p for p, _ in options)],
            [*answers, *(o for _, o in options)],
            [*labels, *OF_ANSWER * len(options)],
        )
        documents = [r.document for g in rows.values() for r in g]
        documents += [r.document for r in corpus["world"] for _ in (r.output, *r.perturbed)]
        tokens = replace(tokens, document=tuple(documents))
        cached = None
        if target is not None:
            retain = encode_rows(tokenizer, rows["retain"])
            with device.autocast():
                cached = cache_reference(Policy(target), retain, "logits")
        return cls(corpus, tokenizer, rows, tokens, parts, cached)


@dataclass(slots=True)
class Scores:
    """Per-row results of the teacher-forced pass (nats; shares)."""

    nll: dict[str, np.ndarray] = field(default_factory=dict)  # mean over the answer's tokens
    em: dict[str, np.ndarray] = field(default_factory=dict)  # exact memorisation
    es: dict[str, np.ndarray] = field(default_factory=dict)  # extraction strength
    exact: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # all argmaxes right, EOS included: greedy output = answer
    begun: dict[str, list[list[int]]] = field(
        default_factory=dict
    )  # tokens that greedy decoding must begin with
    document: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # mean NLL of the whole text (completion rows; else NaN)
    world: np.ndarray | None = None  # 1 where the true option is the likeliest
    kl: np.ndarray | None = None  # to the target, per retain row
    parts: list[tuple[nn.Module, Sequence[int]]] = field(
        default_factory=list
    )  # which model answered which rows


def parts(lm: nn.Module, tokens: Tokens, rows: Sequence[int]) -> list[tuple[nn.Module, Sequence[int]]]:
    """Which model answers which rows: one model all of them, unless it is routed
    (:mod:`reprolib.edits.routing`).
    """
    return lm.parts(tokens, rows) if isinstance(lm, Composed) else [(lm, rows)]


def readings(lm: nn.Module) -> Mapping[str, float]:
    """What a composed model says of itself, as metrics."""
    return lm.readings if isinstance(lm, Composed) else {}


@device.inference
def teacher_forced(lm: nn.Module, exam: Examination, max_tokens: int = 4096) -> Scores:
    """One pass over all rows. Leaves the model in evaluation mode."""
    Policy(lm).eval()
    out = Scores()
    n = len(exam.tokens)
    columns = {k: np.full(n, np.nan) for k in ("nll", "em", "es", "exact", "document")}
    begun: list[list[int]] = [[] for _ in range(n)]
    kl = np.full(n, np.nan)
    tokens, world, retain = exam.tokens, exam.parts["world"], exam.parts["retain"]
    out.parts = parts(lm, tokens, range(n))
    for indices, scored in chain.from_iterable(
        score(Policy(m), tokens, chosen, max_tokens) for m, chosen in out.parts
    ):
        logp = scored.token_logp.double().cpu().numpy()
        labels, guesses = scored.labels.cpu().numpy(), scored.logits.argmax(-1).cpu().numpy()
        at = 0
        for i in indices:
            size, answer = tokens.n_labels(i), tokens.n_answer(i)
            here = slice(at + size - answer, at + size)
            columns["nll"][i] = -logp[here].mean()
            if i not in world:
                right = guesses[here] == labels[here]
                columns["em"][i] = memorisation.exact_memorisation(
                    guesses[here], labels[here], drop_last=True
                )
                columns["es"][i] = memorisation.extraction_strength(
                    guesses[here], labels[here], drop_last=True
                )
                columns["exact"][i] = float(right.all())
                if tokens.prompt[i]:
                    leading = int(np.argmin(np.append(right, False)))
                    begun[i] = labels[here][:leading].tolist() + guesses[here][leading : leading + 1].tolist()
                if tokens.labels[i] == "all" or exam.attacked == "qa":
                    # the attack reads the text alone, without the EOS that training appended
                    loss = -logp[at : at + size - 1].mean()
                    columns["document"][i] = (
                        np.inf if np.isnan(loss) else loss
                    )  # a destroyed model knows no text
                if exam.target is not None and i in retain:
                    kl[i] = _divergence(scored.logits[here], exam.target.row_logits(i - retain.start))
            at += size
    for group in exam.rows:
        part = slice(exam.parts[group].start, exam.parts[group].stop)
        for name, values in columns.items():
            getattr(out, name)[group] = values[part]
        out.begun[group] = begun[part]
    if exam.target is not None:
        out.kl = kl[retain.start : retain.stop]
    if len(world):
        nll = columns["nll"][world.start :]
        nll = np.nan_to_num(
            nll, nan=np.finfo(float).max, posinf=np.finfo(float).max
        )  # a destroyed model has no choice
        out.world = utility.choice_accuracy(nll.reshape(len(exam.corpus["world"]), -1))
    return out


def _divergence(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Mean KL(target || model) over the answer tokens of a row, in nats."""
    return float(kl_divergence(logits, target.to(logits.device)).mean())


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of the T labelled positions of one text: log p(label), and mean and standard deviation of log p over
    the vocabulary.

    All in nats, [T]; ``answer``: how many of the last positions belong to the answer (EOS included).
    """

    logp: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray
    answer: int


@device.inference
def token_statistics(
    lm: nn.Module, tokens: Tokens, rows: Iterable[int], max_tokens: int = 4096
) -> list[TokenStatistics]:
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
            columns = [
                x.double().cpu().numpy() for x in (scored.token_logp, mu, variance.clamp(min=0).sqrt())
            ]
            at = 0
            for i in indices:
                size = tokens.n_labels(i)
                logp, mean, sigma = (c[at : at + size] for c in columns)
                found[i] = TokenStatistics(logp, mean, sigma, tokens.n_answer(i))
                at += size
    return [found[i] for i in rows]


@device.inference
def kl_to(target: nn.Module, lm: nn.Module, exam: Examination, max_tokens: int = 4096) -> np.ndarray:
    """Mean KL(target || model) over each retain row's answer, in nats: [rows]. Both models run side by side,
    for a target whose logits on all rows would not fit into memory.
    """
    retain, tokens = exam.parts["retain"], exam.tokens
    out = np.full(len(retain), np.nan)
    reference = Policy(target).eval()
    for model, own in parts(lm, tokens, list(retain)):
        for indices, scored in score(Policy(model).eval(), tokens, own, max_tokens):
            logits = reference(collate(tokens, indices).to(reference.device)).logits
            at = 0
            for i in indices:
                size, answer = tokens.n_labels(i), tokens.n_answer(i)
                here = slice(at + size - answer, at + size)
                out[i - retain.start] = _divergence(scored.logits[here], logits[here])
                at += size
    return out
