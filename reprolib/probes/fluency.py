"""What does the model write, and is it still text? Diversity, loops, length, and how likely the target finds
it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from reprolib.corpus.batching import OF_ANSWER, Tokens, as_prompt, as_text
from reprolib.errors import SpecError
from reprolib.evaluate.subject import WRITTEN, Evaluation, Subject
from reprolib.metrics import fluency
from reprolib.models.policy import Policy, score
from reprolib.probes.base import Probe


def ask(subject: Subject) -> Evaluation:
    """Numbers of the greedy generations for all forget and retain prompts, for each of the two groups:

    ``distinct_1/2/3`` (pooled) and ``distinct_1/2/3_text`` (mean of texts); ``repetition`` and ``loop``
    (means), ``empty`` (share), ``length_ratio`` to the true answers; ``perplexity`` of what is written under
    the target, after its prompt, the mean over all tokens of texts that are not empty; ``scored``: how many
    these are (without any, there is no perplexity). ``fluency/collapsed``: 1 if more than half of the
    *retain* generations are empty, loop, or are gibberish to the target.

    Columns: ``repetition``, ``loop`` (shares) and ``generation_nll`` (nats per token; none for an empty
    text). Raises SpecError where there is no target.
    """
    target = subject.reference("target")
    if target is None:
        raise SpecError(
            "the fluency probe reads generations with the model before unlearning; got none: give Subject"
            " a reference."
        )
    tokenizer = subject.exam.tokenizer
    metrics: dict[str, float] = {}
    columns: dict[str, dict[str, Sequence[float] | np.ndarray]] = {
        "repetition": {},
        "loop": {},
        "generation_nll": {},
    }
    for group in WRITTEN:
        rows, texts = subject.exam.rows[group], subject.generations[group]
        nll, size = generation_nll(target, tokenizer, [r.input for r in rows], texts)
        columns["repetition"][group] = [fluency.repetition(t) for t in texts]
        columns["loop"][group] = [fluency.loop(t) for t in texts]
        columns["generation_nll"][group] = nll
        own = {f"distinct_{n}": fluency.distinct_n(texts, n) for n in (1, 2, 3)}
        own |= {f"distinct_{n}_text": fluency.distinct_n(texts, n, per_text=True) for n in (1, 2, 3)}
        own |= {name: float(np.mean(columns[name][group])) for name in ("repetition", "loop")}
        own["empty"] = fluency.empty_share(texts)
        own["length_ratio"] = fluency.length_ratio(texts, [r.output for r in rows])
        written = size > 0
        own["scored"] = float(written.sum())
        if written.any():
            own["perplexity"] = fluency.perplexity(float(np.average(nll[written], weights=size[written])))
        metrics |= {f"fluency/{group}/{k}": v for k, v in own.items()}
        if group == "retain":
            judged = [fluency.verdict(t, x, len(tokenizer)) for t, x in zip(texts, nll, strict=True)]
            metrics["fluency/collapsed"] = fluency.collapsed(judged)
    return Evaluation(metrics, {name: subject.column(values) for name, values in columns.items()})


@torch.no_grad()
def generation_nll(
    lm: nn.Module, tokenizer, prompts: Sequence[str], texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean token NLL (nats) of each text after its prompt, and its length in tokens: [texts], [texts].

    The text as it was decoded, white space and all, without end-of-text: whether the model stops is not a
    question of fluency. NaN and 0 for a blank text.
    """
    before, after = as_prompt(tokenizer, prompts), as_text(tokenizer, texts)
    tokens = Tokens(
        tuple((*p, *t) for p, t in zip(before, after, strict=True)),
        tuple(map(len, before)),
        OF_ANSWER * len(texts),
    )
    nll, size = np.full(len(texts), np.nan), np.zeros(len(texts), dtype=int)
    # without a prompt the first token is not predicted, so that a text of one token has no NLL
    chosen = [i for i, t in enumerate(texts) if t.strip() and tokens.n_answer(i) > 0]
    Policy(lm).eval()
    for indices, scored in score(Policy(lm), tokens, chosen):
        for i, logp in zip(indices, scored.sequence_logp.double().cpu().tolist(), strict=True):
            size[i] = tokens.n_answer(i)
            nll[i] = max(0.0, -logp) / tokens.n_answer(i)
    return nll, size


PROBE = Probe(
    name="fluency",
    title="Fluency of what is written",
    suite="wide",
    cost="the generations, and one pass of the target over them",
    ask=ask,
    needs=("target",),
)
