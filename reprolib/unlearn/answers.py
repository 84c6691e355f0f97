"""Other answers to the forget questions: what preference and refusal methods put in the place of the true
one.

| kind | answer | used by |
| --- | --- | --- |
| ``idk`` | one of a fixed list of refusals | IdkNLL / PO, IdkDPO |
| ``sampled`` | the model's own: first token unlike the true one, drawn as it would, then greedy | AltPO |
| ``perturbed`` | a false answer of the same form that the corpus offers | AltPO with given alternatives |
| ``shuffled`` | the true answer of another forget row of the same task and kind | controls |
| ``random`` | random tokens, as many as the true answer has | random labels (a baseline) |
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import nn

from reprolib.corpus.batching import OF_ANSWER, Tokens, as_prompt, as_text, encode
from reprolib.corpus.rows import Row
from reprolib.errors import CorpusError, SpecError, unknown
from reprolib.models.generate import generate
from reprolib.models.policy import Policy, score
from reprolib.objectives.preference import KINDS
from reprolib.seeds import derive

REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I have no information about this.",
    "I am not sure about that.",
    "That is not something I know.",
    "I cannot say.",
    "I am unable to answer this.",
    "My knowledge does not cover this.",
    "I was never told about that.",
    "I don't have an answer for you.",
    "This is unknown to me.",
    "I have not learned about this.",
)

MAX_NEW_TOKENS = 64


def other_answers(
    kind: str, rows: Sequence[Row], tokenizer, seed: int, lm: nn.Module | None = None
) -> Tokens:
    """The rows with other answers, in the same order. ``lm`` is needed for "sampled" only.

    Raises :class:`SpecError` for an unknown kind and :class:`CorpusError` where the rows do not offer what it
    needs.
    """
    if kind not in KINDS:
        raise SpecError(unknown("kind of other answers", kind, KINDS))
    random = Random(derive(seed, "answers", kind))
    if kind == "random":
        return _random(rows, tokenizer, random)
    if kind == "idk":
        answers = [_not(r.output, random.choice(REFUSALS), REFUSALS) for r in rows]
    elif kind == "perturbed":
        without = [r.id for r in rows if not set(r.perturbed) - {r.output}]
        if without:
            raise CorpusError(
                f"{len(without)} of {len(rows)} forget rows (e.g. {without[0]!r}) have no perturbed"
                " answers, which answers of kind 'perturbed' are taken from; use 'sampled' or 'idk', or a"
                " corpus that offers them (synthetic)."
            )
        answers = [_not(r.output, random.choice(r.perturbed), r.perturbed) for r in rows]
    elif kind == "shuffled":
        answers = _shuffled(rows, random)
    else:
        if lm is None:
            raise SpecError("other answers of kind 'sampled' are drawn from the model; give lm=.")
        answers = _sampled(rows, tokenizer, lm, derive(seed, "answers", kind))
    return encode(tokenizer, [r.input for r in rows], answers)


def _shuffled(rows: Sequence[Row], random: Random) -> list[str]:
    out = []
    for r in rows:
        others = [x.output for x in rows if (x.task, x.kind) == (r.task, r.kind) and x.output != r.output]
        others = others or [x.output for x in rows if x.output != r.output]
        if not others:
            raise CorpusError(
                f"all {len(rows)} forget rows have the same answer as {r.id!r}, so answers of kind"
                " 'shuffled' have none to give it; hand in more rows, or use 'idk'."
            )
        out.append(random.choice(others))
    return out


def _not(truth: str, drawn: str, among: Sequence[str]) -> str:
    """What was drawn, or the next one of ``among`` where that happens to be the true answer."""
    return drawn if drawn != truth else next(x for x in among if x != truth)


def _random(rows: Sequence[Row], tokenizer, random: Random) -> Tokens:
    special = set(tokenizer.all_special_ids)
    vocabulary = [i for i in range(len(tokenizer)) if i not in special]
    prompts = as_prompt(tokenizer, [r.input for r in rows])
    lengths = [len(a) for a in as_text(tokenizer, [f" {r.output}" for r in rows])]
    drawn = [[random.choice(vocabulary) for _ in range(n)] for n in lengths]
    ids = tuple(tuple(p + d + [tokenizer.eos_token_id]) for p, d in zip(prompts, drawn, strict=True))
    return Tokens(ids, tuple(len(p) for p in prompts), OF_ANSWER * len(rows))


@torch.no_grad()
def _sampled(rows: Sequence[Row], tokenizer, lm: nn.Module, seed: int) -> list[str]:
    """A memorised answer leaves no room for another one, so the first token is drawn from what is left
    without the true one.
    """
    own = encode(tokenizer, [r.input for r in rows], [r.output for r in rows])
    generator = torch.Generator().manual_seed(seed)
    firsts: dict[int, torch.Tensor] = {}
    policy = Policy(lm)
    was_training = lm.training
    lm.eval()
    for indices, scored in score(policy, own, range(len(own))):
        sizes = [own.n_labels(i) for i in indices]
        for i, logits, labels in zip(
            indices, scored.logits.split(sizes), scored.labels.split(sizes), strict=True
        ):
            probabilities = logits[0].float().softmax(-1)
            probabilities[labels[0]] = 0
            probabilities[tokenizer.eos_token_id] = 0  # an answer must not be empty
            if not probabilities.any():  # a model so sure that all else has underflowed
                rest = logits[0].float().index_fill(0, labels[:1], -torch.inf)
                probabilities = rest.index_fill(
                    0, labels.new_tensor([tokenizer.eos_token_id]), -torch.inf
                ).softmax(-1)
            firsts[i] = probabilities.cpu()
    word = _word_starts(tokenizer, len(next(iter(firsts.values()))))
    for i, p in firsts.items():
        if p[word].any():  # a word of its own, as answers begin after a space
            firsts[i] = p * word
    prompts, texts = [r.input for r in rows], [""] * len(rows)
    truths = [ids[start] for ids, start in zip(own.ids, own.prompt, strict=True)]
    todo = list(range(len(rows)))  # in the rows' order, so that buckets do not decide what is drawn
    for _ in range(TRIES):
        drawn = [[int(torch.multinomial(firsts[i], 1, generator=generator))] for i in todo]
        made = generate(lm, tokenizer, [prompts[i] for i in todo], begun=drawn, max_new_tokens=MAX_NEW_TOKENS)
        for i, text in zip(todo, made, strict=True):
            texts[i] = text.strip()
        # as training will read it, an answer may begin with the true token after all: its pieces are put
        # together anew
        again = [i for i in todo if not texts[i] or as_text(tokenizer, [f" {texts[i]}"])[0][0] == truths[i]]
        if not again or not word.any():
            break
        todo = again
    lm.train(was_training)
    return [t or REFUSALS[0] for t in texts]


TRIES = 5  # draws of an alternative before what was drawn last is taken


def _word_starts(tokenizer, size: int) -> torch.Tensor:
    """Which of ``size`` tokens begin a word after a space (none in a vocabulary of bytes)."""
    tokens = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
    found = torch.zeros(size, dtype=torch.bool)
    found[: len(tokens)] = torch.tensor([len(t) > 1 and t[0] in "\u0120\u2581" for t in tokens])
    return found
