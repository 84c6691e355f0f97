"""MUSE's questions to any corpus: is the text still recited, are its facts still known, can membership be
told?

VerbMem: completion rows of forget, greedy, up to 128 new tokens, ROUGE-L F1 without a stemmer, all as MUSE
does. The prompt is the first half of the passage's words, at most 150: MUSE takes the first 200 tokens of an
article, and our passages are shorter.

KnowMem: question rows of forget and retain, ROUGE-L F1, the output cut at a blank line or the next
"Question". Zero-shot, as the rows were learnt (MUSE: few-shot; see ``shots``). The first 32 tokens count, as
in MUSE, or as many as the answer has, if more.

PrivLeak: Min-40% of the completion rows of forget against those of holdout, or of the answers where one side
has no completions; relative to the twin's AUC, or to 0.5 where there is no twin. The plain difference of the
AUCs stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import nn

from reprolib.corpus.batching import OF_ANSWER, Tokens, as_prompt, as_text
from reprolib.corpus.rows import Row
from reprolib.errors import SpecError
from reprolib.evaluate.passes import TokenStatistics, parts, token_statistics
from reprolib.evaluate.subject import WRITTEN, Evaluation, Subject
from reprolib.metrics import muse, privacy
from reprolib.models.generate import generate
from reprolib.probes.base import Probe

PROMPT_WORDS = 150  # about 200 tokens of English
CONTINUATION = 128  # tokens
ANSWER = 32  # tokens
K = 0.4


def ask(subject: Subject, shots: int = 0) -> Evaluation:
    """VerbMem, KnowMem and PrivLeak of one model, and the columns ``muse_verbmem``, ``muse_knowmem`` and
    ``muse_min_k``.

    ``shots``: world questions that stand before each question as examples, in MUSE's form ("Question:
    ...\\nAnswer: ..."). What a corpus has no rows for is left out. Raises SpecError if there are fewer world
    questions than shots.
    """
    recited, known = verbatim(subject), knowledge(subject, shots)
    metrics, scores = leakage(subject)
    if recited:
        metrics["muse/verbmem"] = float(np.mean(list(recited.values())))
    for group in WRITTEN:
        values = [known[i] for i in subject.exam.parts[group] if i in known]
        if values:
            metrics[f"muse/knowmem_{group}"] = float(np.mean(values))
    columns = {"muse_verbmem": recited, "muse_knowmem": known, "muse_min_k": scores}
    return Evaluation(metrics, {name: subject.column(values) for name, values in columns.items()})


def verbatim(subject: Subject) -> dict[int, float]:
    """VerbMem of each completion row of forget, by its position in ``subject.rows``. Both texts have the
    truth's token count.
    """
    tokenizer = subject.exam.tokenizer
    rows = {
        i: r
        for i, (g, r) in enumerate(subject.rows)
        if g == "forget" and r.kind == "sc" and len(r.text.split()) > 1
    }
    if not rows:
        return {}
    prompts, rests = zip(*(halves(r.text) for r in rows.values()), strict=True)
    truths = [ids[:CONTINUATION] for ids in as_text(tokenizer, [f" {r}" for r in rests])]
    outputs = continued(subject, prompts, [r.document for r in rows.values()], max(map(len, truths)))
    return {
        i: muse.verbmem(cast(str, tokenizer.decode(truth)), first(tokenizer, output, len(truth)))
        for i, truth, output in zip(rows, truths, outputs, strict=True)
    }


def halves(text: str) -> tuple[str, str]:
    """The first half of the words, at most ``PROMPT_WORDS``, and the rest; the white space between them is
    dropped.
    """
    words = list(re.finditer(r"\S+", text))
    n = min(PROMPT_WORDS, len(words) // 2)
    return text[: words[n - 1].end()], text[words[n].start() :]


def knowledge(subject: Subject, shots: int = 0) -> dict[int, float]:
    """KnowMem of each question row of forget and retain, by its position in ``subject.rows``."""
    tokenizer = subject.exam.tokenizer
    rows = {i: r for i, (g, r) in enumerate(subject.rows) if g in WRITTEN and r.kind == "qa"}
    limits = [max(ANSWER, len(ids)) for ids in as_text(tokenizer, [f" {r.output}" for r in rows.values()])]
    if shots and rows:
        outputs = _few_shot(subject, list(rows.values()), shots, max(limits))
    else:
        written = [text for g in WRITTEN for text in subject.generations[g]] if rows else []
        outputs = [written[i] for i in rows]
    return {
        i: muse.knowmem(r.output, first(tokenizer, output, limit))
        for (i, r), output, limit in zip(rows.items(), outputs, limits, strict=True)
    }


def _few_shot(subject: Subject, rows: Sequence[Row], shots: int, max_new_tokens: int) -> list[str]:
    examples = [r for r in subject.exam.corpus["world"] if r.kind == "qa"][:shots]
    if len(examples) < shots:
        raise SpecError(
            f"muse: {shots} shots are asked for, but the corpus has {len(examples)} world questions; ask"
            " for fewer."
        )
    before = "".join(f"Question: {r.input}\nAnswer: {r.output}\n\n" for r in examples)
    prompts = [f"{before}Question: {r.input}\nAnswer:" for r in rows]
    return continued(subject, prompts, [r.document for r in rows], max_new_tokens)


def leakage(subject: Subject) -> tuple[dict[str, float], dict[int, float]]:
    """PrivLeak in its forms, and the Min-K% score of each text (nats per token, high = less likely a member)
    by position.

    The two sides are of one kind: completions (whole texts) if both have some, else answers. Without holdout
    rows: nothing.
    """
    exam, rows = subject.exam, subject.rows
    for kind in ("sc", "qa"):
        sides = {g: [i for i in exam.parts[g] if rows[i][1].kind == kind] for g in ("forget", "holdout")}
        if all(sides.values()):
            break
    else:
        return {}, {}
    both = sides["forget"] + sides["holdout"]
    scores = dict(zip(both, map(_min_k, (subject.texts[i] for i in both)), strict=True))

    def area(by_row: dict[int, float]) -> float:
        return privacy.auc(*([-by_row[i] for i in sides[g]] for g in ("forget", "holdout")))

    metrics = {"muse/auc": area(scores)}
    reference = 0.5
    twin: nn.Module | None = subject.reference("twin")
    if twin is not None:
        reference = area(dict(zip(both, map(_min_k, token_statistics(twin, exam.tokens, both)), strict=True)))
        metrics["muse/auc_twin"] = reference
    metrics["muse/privleak_difference"] = muse.privleak_difference(metrics["muse/auc"], reference)
    if reference < 1.0:  # MUSE's ratio does not exist otherwise
        metrics["muse/privleak"] = privacy.privleak(metrics["muse/auc"], reference)
    return metrics, scores


def _min_k(text: TokenStatistics) -> float:
    logp = (
        text.logp[:-1] if len(text.logp) > 1 else text.logp
    )  # the text alone, without the EOS that training appended
    return privacy.min_k(logp, K) if np.isfinite(logp).all() else np.inf  # a destroyed model knows no text


def first(tokenizer, text: str, n: int) -> str:
    """The first ``n`` tokens of a text, as text."""
    return tokenizer.decode(as_text(tokenizer, [text])[0][:n], skip_special_tokens=True)


def continued(
    subject: Subject, prompts: Sequence[str], documents: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Greedy continuations of any prompts. A routed model judges them by their documents, as in the core
    evaluation.
    """
    tokenizer = subject.exam.tokenizer
    ids = tuple(tuple(p) for p in as_prompt(tokenizer, prompts))
    tokens = Tokens(ids, tuple(map(len, ids)), OF_ANSWER * len(ids), tuple(documents))
    out = [""] * len(ids)
    subject.lm.eval()
    for model, own in parts(subject.lm, tokens, range(len(ids))):
        texts = generate(
            model, tokenizer, [prompts[i] for i in own], max_new_tokens=max_new_tokens,
            progress=subject.progress, title=subject.title,
        )  # fmt: skip
        for i, text in zip(own, texts, strict=True):
            out[i] = text
    return out


PROBE = Probe(
    name="muse",
    title="MUSE: recited, known, recognised",
    suite="wide",
    cost=(
        "generation for the forget passages (128 tokens each); with a twin one teacher-forced pass over"
        " forget and holdout"
    ),
    ask=ask,
)
