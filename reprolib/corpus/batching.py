"""From rows to token tensors: tokenised once, sorted by length, padded on the right.

With right padding and causal attention no real token ever sees padding, so no attention mask is
needed: which positions count is decided by lengths, never by comparing ids with the pad id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from reprolib.corpus.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Labels = Literal["answer", "all"]
OF_ANSWER: tuple[Labels] = ("answer",)  # times a number of rows: the labels of Tokens
OF_WHOLE: tuple[Labels] = ("all",)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenised rows. ``ids[i]`` holds prompt, answer and EOS; ``prompt[i]`` is the prompt's length in
    tokens.

    ``document[i]``: key of the document that row i belongs to; empty where nobody said.
    """

    ids: tuple[tuple[int, ...], ...]
    prompt: tuple[int, ...]
    labels: tuple[Labels, ...]  # which positions of row i are predicted
    document: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def n_labels(self, i: int) -> int:
        """Labelled positions of row i (the very first token of a text is never predicted)."""
        return self.n_answer(i) if self.labels[i] == "answer" else len(self.ids[i]) - 1

    def n_answer(self, i: int) -> int:
        """Predicted positions of row i's answer: all its tokens, but for the first if there is no prompt
        before it.
        """
        return len(self.ids[i]) - max(1, self.prompt[i])


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows: ``ids`` [B, T]; ``predict`` [B, T] marks positions whose *next* token is labelled;
    ``index`` [B].

    ``other``: the same questions with other answers (refusals, alternatives), row by row, where a term reads
    them.
    """

    ids: torch.Tensor
    predict: torch.Tensor
    index: torch.Tensor
    other: Batch | None = None

    def to(self, device: torch.device | str) -> Batch:
        other = self.other.to(device) if self.other else None
        return Batch(self.ids.to(device), self.predict.to(device), self.index.to(device), other)

    @property
    def labels(self) -> torch.Tensor:
        """The labelled tokens, row after row: [N]."""
        return self.ids.roll(-1, dims=1)[self.predict]

    @property
    def row(self) -> torch.Tensor:
        """Position within the batch of the row that each label belongs to: [N]."""
        return self.predict.nonzero()[:, 0]


def as_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of plain texts. Special-token strings inside data stay text (rule: data never executes)."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]


def as_prompt(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, with the begin-of-text token where the tokenizer adds one by itself."""
    bos = [tokenizer.bos_token_id] if getattr(tokenizer, "add_bos_token", False) else []
    return [bos + ids for ids in as_text(tokenizer, texts)]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    labels: Labels | Sequence[Labels] = "answer",
    *,
    eos: bool = True,
) -> Tokens:
    """Tokenise prompts and answers apart, join them by one space, and end with EOS."""
    p = as_prompt(tokenizer, prompts)
    a = as_text(tokenizer, [f" {x}" for x in answers])
    end = [tokenizer.eos_token_id] if eos else []
    kinds = (labels,) * len(p) if isinstance(labels, str) else tuple(labels)
    return Tokens(
        tuple(tuple(x + y + end) for x, y in zip(p, a, strict=True)),
        tuple(len(x) for x in p),
        kinds,
    )


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], labels: Labels | Sequence[Labels] = "answer"
) -> Tokens:
    tokens = encode(tokenizer, [r.input for r in rows], [r.output for r in rows], labels)
    return replace(tokens, document=tuple(r.document for r in rows))


def collate(tokens: Tokens, indices: Sequence[int], pad: int = 0) -> Batch:
    """Pad the chosen rows on the right to the longest of them."""
    width = max(len(tokens.ids[i]) for i in indices)
    ids = torch.full((len(indices), width), pad, dtype=torch.long)
    predict = torch.zeros((len(indices), width), dtype=torch.bool)
    for b, i in enumerate(indices):
        row = tokens.ids[i]
        ids[b, : len(row)] = torch.tensor(row)
        predict[b, len(row) - 1 - tokens.n_labels(i) : len(row) - 1] = True
    return Batch(ids, predict, torch.tensor(list(indices), dtype=torch.long))


def buckets(tokens: Tokens, indices: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split rows into batches of similar length, each of at most ``max_tokens`` padded tokens (at least one
    row).
    """
    out: list[list[int]] = []
    for i in sorted(indices, key=lambda i: (len(tokens.ids[i]), i)):
        width = len(tokens.ids[i])
        room = out and (len(out[-1]) + 1) * width <= max_tokens
        # a much longer row would pad all others; it starts a new bucket
        if room and width <= 1.5 * len(tokens.ids[out[-1][0]]) + 4:
            out[-1].append(i)
        else:
            out.append([i])
    return out
