"""Is it gone, or only hidden? The model is trained again for a few steps, and the forgotten questions are
asked along the way.

Two curves. ``part``: on the rows of a tenth of the forget documents; what is asked are the *other* nine
tenths, so that what comes back was still there. ``benign``: on documents that no model has seen (holdout),
with nothing of the forget set. The twin runs through the same steps in its own record: what it learns is
learnt, not remembered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import torch
from torch import nn

from reprolib.corpus.batching import Tokens, collate, encode_rows
from reprolib.corpus.rows import Corpus, Row, select
from reprolib.evaluate.passes import Examination, parts
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.metrics import privacy
from reprolib.models.policy import Policy, quantised
from reprolib.probes.base import Probe
from reprolib.seeds import derive

SHARE = 0.1  # of the forget documents
STEPS = (1, 2, 5, 10, 20, 50)
LR = 2e-4  # AdamW, constant, no decay: a tenth of the rate that the tiny testbed's targets were trained with
BATCH = 16
ASKED = 60  # retain questions, as a check that the model is still whole


def relearn(lm: nn.Module, tokens: Tokens, seed: int, reached: Callable[[int, nn.Module], None]) -> None:
    """Train ``lm`` in place on the rows' labels (mean NLL), calling ``reached(step, lm)`` after each of
    :data:`STEPS`.

    All floating-point weights move; on a base in 4 or 8 bits, those of its adapter.
    """
    weights = [
        p for n, p in lm.named_parameters() if p.is_floating_point() and (not quantised(lm) or "lora_" in n)
    ]
    for p in lm.parameters():
        p.requires_grad_(False)
    for p in weights:
        p.requires_grad_(True)
    if not weights:
        return
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=0.0)
    order: list[int] = []
    for step in range(1, max(STEPS) + 1):
        if len(order) < BATCH:
            epoch = torch.Generator().manual_seed(derive(seed, "relearn", step))
            order += torch.randperm(len(tokens), generator=epoch).tolist()
        rows, order = order[:BATCH], order[BATCH:]
        rows = list(dict.fromkeys(rows))
        optimizer.zero_grad(set_to_none=True)
        labels = sum(tokens.n_labels(i) for i in rows)
        with torch.enable_grad():
            for model, own in parts(lm, tokens, rows):
                if not own:
                    continue
                policy = Policy(model).train()
                loss = -policy(collate(tokens, own).to(policy.device)).token_logp.sum() / labels
                if loss.requires_grad:
                    loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in weights if p.grad is not None], 1.0)
        optimizer.step()
        if step in STEPS:
            reached(step, lm.eval())


def smaller(exam: Examination) -> Examination:
    """The rows that are asked along the way: all of the forget group, holdout passages, some retain
    questions.
    """
    retain = select(exam.corpus["retain"], kind="qa")[:ASKED] or exam.corpus["retain"][:ASKED]
    corpus = Corpus(exam.corpus.name, {**exam.corpus.groups, "retain": retain, "world": ()})
    return Examination.of(corpus, exam.tokenizer)


def ask(subject: Subject) -> Evaluation:
    column = subject.column
    exam = smaller(subject.exam)
    subject = replace(subject, exam=exam, _kept={})
    documents = list(exam.corpus.documents("forget"))
    random = Random(derive(subject.seed, "relearn-documents"))
    random.shuffle(documents)
    given = set(documents[: max(1, round(SHARE * len(documents)))])
    rest = [i for i, r in enumerate(exam.rows["forget"]) if r.document not in given]
    chosen = {
        "part": tuple(r for r in exam.rows["forget"] if r.document in given),
        "benign": exam.corpus["holdout"],
    }
    metrics: dict[str, float] = {}
    rows = {}
    for curve, taught in chosen.items():
        asked = rest if curve == "part" else list(range(len(exam.rows["forget"])))
        if not taught or not asked:
            continue
        _note(metrics, f"relearning/{curve}/0", subject, asked, nonmembers=curve == "part")
        last: list[np.ndarray] = []

        def reached(step: int, lm: nn.Module, curve=curve, asked=asked, last=last) -> None:
            again = subject.of(lm)
            # after training on the holdout documents they are no longer non-members
            _note(metrics, f"relearning/{curve}/{step}", again, asked, nonmembers=curve == "part")
            last[:] = [again.scores.exact["forget"]]

        relearn(copy.deepcopy(subject.lm), _tokens(subject, taught), derive(subject.seed, curve), reached)
        if last:
            rows[f"relearnt_{curve}"] = column(
                {i: last[0][i] for i in asked if exam.rows["forget"][i].kind == "qa"}
            )
    return Evaluation(metrics, rows)


def _tokens(subject: Subject, rows: tuple[Row, ...]) -> Tokens:
    return encode_rows(subject.exam.tokenizer, rows, ["all" if r.kind == "sc" else "answer" for r in rows])


def _note(metrics: dict[str, float], name: str, subject: Subject, asked: list[int], nonmembers: bool) -> None:
    """Of the forget rows ``asked``: share of questions answered, exact memorisation of passages, AUC of the
    loss attack.
    """
    scores, rows = subject.scores, subject.exam.rows["forget"]
    questions = [i for i in asked if rows[i].kind == "qa"]
    passages = [i for i in asked if rows[i].kind == "sc"]
    if questions:
        metrics[f"{name}/questions"] = float(scores.exact["forget"][questions].mean())
        metrics[f"{name}/questions_em"] = float(scores.em["forget"][questions].mean())
    if passages:
        metrics[f"{name}/passages_em"] = float(scores.em["forget"][passages].mean())
        members, non = -scores.document["forget"][passages], -scores.document["holdout"]
        non = non[~np.isnan(non)]
        if nonmembers and len(non):
            metrics[f"{name}/auc"] = privacy.auc(members, non)
    retain = [i for i, r in enumerate(subject.exam.rows["retain"]) if r.kind == "qa"]
    if retain:
        metrics[f"{name}/retain_questions"] = float(scores.exact["retain"][retain].mean())


PROBE = Probe(
    name="relearning",
    title="Relearning",
    suite="stress",
    cost="100 steps of training and 14 forward passes",
    ask=ask,
)
