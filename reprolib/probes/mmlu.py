"""MMLU as the SemEval-2025 Task 4 organisers run it: k worked examples, the question, and which letter comes
next.

The prompt is that of Open-Instruct's script (its two spaces before the subject included). Which tokens stand
for the letters is read off the tokenizer in context: what " A" adds after "Answer:". For byte-pair and
SentencePiece vocabularies that is one token a letter, the one that Open-Instruct takes as the last of
``encode(" A")``; where the space is a token of its own (bytes), it goes to the end of the prompt and the bare
letter is the next token. "A" without its space is never scored: after "Answer:" a model writes " A", and the
bare token would measure an accident.

The worked examples of a subject begin all its prompts, so that their keys and values are computed once and
shared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import OF_ANSWER, Tokens, as_prompt, as_text
from reprolib.corpus.mmlu import LETTERS, MMLU, Question
from reprolib.errors import SpecError
from reprolib.evaluate.passes import parts
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.metrics import mmlu as metrics
from reprolib.metrics import utility
from reprolib.models.policy import CausalLM, Composed, Policy, causal_lm
from reprolib.probes.base import Probe

VERSION = 1  # raise when a number of this probe changes
SHOTS = 5
CONTEXT = 2048  # tokens; the organisers' limit, also for models that could read more


def prompt(question: Question, shots: Sequence[Question] = ()) -> str:
    """The text that a model reads, up to and with the last "Answer:"."""
    subject = question.subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about  {subject}.\n\n"
    return head + "".join(f"{_form(s)} {LETTERS[s.answer]}\n\n" for s in shots) + _form(question)


def _form(q: Question) -> str:
    return "\n".join(
        (q.question, *(f"{letter}. {c}" for letter, c in zip(LETTERS, q.choices, strict=True)), "Answer:")
    )


def letters(tokenizer) -> tuple[list[int], list[int]]:
    """(tokens that end the prompt, the four tokens of which one comes next); see the head of this file.

    Raises :class:`SpecError` for a tokenizer in which the letters after "Answer:" are not one token each.
    """
    before, *after = as_text(tokenizer, ["Answer:", *(f"Answer: {x}" for x in LETTERS)])
    tails = [ids[len(before) :] for ids in after]
    lead = tails[0][: _alike(tails)]
    following = [t[len(lead) :] for t in tails]
    if any(ids[: len(before)] != before for ids in after) or any(len(f) != 1 for f in following):
        raise SpecError(
            f"this tokenizer writes the letters after 'Answer:' as {tails} and not as one token each that"
            " differ, so that no next token stands for an answer; score this model with"
            " reprolib.probes.harness instead."
        )
    return lead, [f[0] for f in following]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Tokenised prompts of one subject; ``dropped`` examples of each, and whether its question had to be
    ``cut`` too.
    """

    ids: list[list[int]]
    dropped: list[int]
    cut: list[bool]


def encode(
    tokenizer,
    questions: Sequence[Question],
    shots: Sequence[Question],
    context: int,
    lead: Sequence[int] = (),
) -> Prompts:
    """Prompts of at most ``context`` tokens.

    Worked examples are dropped from the front, so that those next to the question stay. (Open-Instruct drops
    from the end; both keep as many.) A question that is too long even alone loses its beginning.
    """
    ids = [x + list(lead) for x in as_prompt(tokenizer, [prompt(q, shots) for q in questions])]
    dropped, cut = [0] * len(ids), [False] * len(ids)
    for i, q in enumerate(questions):
        while len(ids[i]) > context and dropped[i] < len(shots):
            dropped[i] += 1
            ids[i] = as_prompt(tokenizer, [prompt(q, shots[dropped[i] :])])[0] + list(lead)
        if len(ids[i]) > context:
            ids[i], cut[i] = ids[i][-context:], True
    return Prompts(ids, dropped, cut)


@torch.no_grad()
def next_token(
    lm: nn.Module,
    prompts: Sequence[Sequence[int]],
    candidates: Sequence[int],
    batch_tokens: int = 8192,
    bar=None,
):
    """Probabilities of the ``candidates`` as next token, of the whole vocabulary's softmax: [prompts,
    candidates].

    What all prompts begin with is read once. The output head runs on the last position alone. A batch holds
    at most ``batch_tokens`` padded tokens, the shared ones counted for each row.
    """
    out = np.zeros((len(prompts), len(candidates)))
    tokens = Tokens(tuple(map(tuple, prompts)), tuple(map(len, prompts)), OF_ANSWER * len(prompts))
    for model, rows in parts(lm, tokens, range(len(prompts))):
        Policy(model).eval()
        inner = causal_lm(model)
        to = next(inner.parameters()).device
        rows = sorted(rows, key=lambda i: (len(prompts[i]), i))
        shared = _shared([prompts[i] for i in rows]) if not isinstance(inner, Composed) else 0
        cache = _read(inner, prompts[rows[0]][:shared], to) if shared else None
        for batch in _batches(rows, prompts, batch_tokens):
            rest = [prompts[i][shared:] for i in batch]
            last = torch.tensor([len(r) - 1 for r in rest], device=to)
            ids = torch.zeros((len(rest), int(last.max()) + 1), dtype=torch.long, device=to)
            for b, r in enumerate(rest):  # right padding is invisible to real tokens
                ids[b, : len(r)] = torch.tensor(r, device=to)
            past = copy.deepcopy(cache)
            if past is not None:
                past.batch_repeat_interleave(len(batch))
            inputs = {"past_key_values": past} if past is not None else {}
            hidden = inner.base_model(input_ids=ids, use_cache=past is not None, **inputs).last_hidden_state
            logits = inner.get_output_embeddings()(hidden[torch.arange(len(rest), device=to), last])
            out[batch] = logits.float().softmax(-1)[:, list(candidates)].double().cpu().numpy()
            if bar is not None:
                bar.update(len(batch))
    return out


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; at least the last of each is left. Not worth a cache for one
    prompt.
    """
    return min(_alike(prompts), min(map(len, prompts)) - 1) if len(prompts) > 1 else 0


def _alike(sequences: Sequence[Sequence[int]]) -> int:
    """How many first entries all sequences share."""
    columns = zip(*sequences, strict=False)
    return next((n for n, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))


def _read(inner: CausalLM, ids: Sequence[int], to: torch.device):
    from transformers import DynamicCache

    cache = DynamicCache(config=inner.config)
    inner.base_model(input_ids=torch.tensor([list(ids)], device=to), past_key_values=cache, use_cache=True)
    return cache


def _batches(rows: Sequence[int], prompts: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Rows sorted by length, in batches of at most ``batch_tokens`` padded tokens (at least one row)."""
    batch: list[int] = []
    for i in rows:
        if batch and (len(batch) + 1) * len(prompts[i]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def score(
    lm: nn.Module,
    tokenizer,
    data: MMLU,
    *,
    shots: int = SHOTS,
    context: int = CONTEXT,
    batch_tokens: int = 8192,
    seed: int = 0,
    progress: bool = True,
    title: str = "MMLU",
) -> Evaluation:
    """MMLU of one model, metrics named ``mmlu/...``.

    ``shots``: worked examples in front of each question; ``context``: most tokens of a prompt, or fewer where
    the model's config says so. ``rows`` has a column entry for each question of ``data.test``, in its order:
    subject, hit, probability of the right letter, examples dropped. No text leaves with it. Raises
    :class:`SpecError` for ``shots`` out of range and for a tokenizer whose letters are no tokens.
    """
    most = min(len(d) for d in data.dev.values())
    if isinstance(shots, bool) or not isinstance(shots, int) or not 0 <= shots <= most:
        raise SpecError(
            f"shots is {shots!r}; allowed: 0 to {most}, as many as every subject has worked examples."
        )
    lead, candidates = letters(tokenizer)
    limit = min(context, getattr(causal_lm(lm).config, "max_position_embeddings", None) or context)
    answers = np.array([q.answer for q in data.test])
    subjects = np.array([q.subject for q in data.test])
    p = np.zeros((len(answers), len(LETTERS)))
    dropped, cut = np.zeros(len(answers), int), np.zeros(len(answers), bool)
    with tqdm(total=len(answers), desc=title, unit="question", disable=not progress, mininterval=2) as bar:
        for subject in data.subjects:
            rows = np.flatnonzero(subjects == subject)
            asked = encode(tokenizer, [data.test[i] for i in rows], data.dev[subject][:shots], limit, lead)
            dropped[rows], cut[rows] = asked.dropped, asked.cut
            for n in sorted(set(asked.dropped)):  # prompts with as many examples begin alike
                own = [k for k, d in enumerate(asked.dropped) if d == n]
                p[rows[own]] = next_token(lm, [asked.ids[k] for k in own], candidates, batch_tokens, bar)
    return _evaluation(p, answers, subjects, dropped, cut, seed)


def _evaluation(
    p: np.ndarray,
    answers: np.ndarray,
    subjects: np.ndarray,
    dropped: np.ndarray,
    cut: np.ndarray,
    seed: int,
):
    hit = metrics.hits(p, answers)
    questions, over_subjects = metrics.intervals(hit, subjects, seed=seed)
    out: dict[str, float] = {}
    for name, interval in (("questions", questions), ("subjects", over_subjects)):
        out |= {
            f"mmlu/accuracy_{name}{end}": float(v)
            for end, v in zip(("", "_low", "_high"), interval, strict=False)
        }
    out["mmlu/chance"] = utility.chance(len(LETTERS))
    out["mmlu/eligible"] = float(metrics.eligible(questions.estimate))
    out["mmlu/answer_mass"] = float(np.nan_to_num(p).sum(1).mean())
    out["mmlu/scored"] = float(len(hit))
    out["mmlu/shortened"] = float((dropped > 0).mean())
    out["mmlu/shots_dropped"] = float(dropped.sum())
    out["mmlu/cut"] = float(cut.sum())
    out |= {f"mmlu/subject/{s}": v for s, v in metrics.by_subject(hit, subjects).items()}
    right = np.nan_to_num(p[np.arange(len(answers)), answers]).round(4)
    rows = {
        "subject": subjects.tolist(),
        "hit": hit.tolist(),
        "p_right": right.tolist(),
        "shots_dropped": dropped.tolist(),
    }
    return Evaluation({k: v for k, v in out.items() if np.isfinite(v)}, rows)


def probe(data: MMLU, *, shots: int = SHOTS, context: int = CONTEXT, batch_tokens: int = 8192) -> Probe:
    """MMLU as a probe of the ``data`` suite. Its columns have one entry a question of MMLU, not one a row of
    the corpus.
    """

    def ask(subject: Subject) -> Evaluation:
        return score(
            subject.lm,
            subject.exam.tokenizer,
            data,
            shots=shots,
            context=context,
            batch_tokens=batch_tokens,
            seed=subject.seed,
            progress=subject.progress,
            title=f"{subject.title}: MMLU",
        )

    note = f" ({data.subset})" if data.subset else ""
    cost = (
        f"one forward pass over {len(data.test)} prompts of {shots} examples, which are read once a subject"
    )
    return Probe(name="mmlu", title=f"MMLU, {shots}-shot{note}", suite="data", cost=cost, ask=ask)
