"""The core evaluation, which every run has: from the passes to metrics and per-row scores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import nn

from reprolib.evaluate.passes import Examination, Scores, readings, teacher_forced
from reprolib.evaluate.semeval import listed_attack, official
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.metrics import lume, privacy


def measure(lm: nn.Module, exam: Examination) -> dict[str, float]:
    """Cheap measures for the trajectory: everything the teacher-forced pass knows, as means."""
    return summarise(teacher_forced(lm, exam), exam) | dict(readings(lm))


def summarise(s: Scores, exam: Examination) -> dict[str, float]:
    out: dict[str, float] = {}
    for group in exam.rows:
        kinds = np.array([r.kind for r in exam.rows[group]])
        for name in ("nll", "em", "es"):
            if len(kinds):
                out[f"{group}/{name}"] = float(getattr(s, name)[group].mean())
        for kind in ("sc", "qa"):
            at = kinds == kind
            if at.any():
                out[f"{group}/{kind}/em"] = float(s.em[group][at].mean())
                if kind == "qa":
                    out[f"{group}/questions"] = float(s.exact[group][at].mean())
    member, non = (-s.document[g][~np.isnan(s.document[g])] for g in ("forget", "holdout"))
    if len(member) and len(non):
        out["attack/auc"] = privacy.auc(member, non)
    if s.world is not None:
        out["world/accuracy"] = float(s.world.mean())
    if s.kl is not None:
        out["retain/kl"] = float(s.kl.mean())
    if len(s.parts) > 1:  # the first model is the target
        away = np.isin(np.arange(len(exam.tokens)), [i for _, chosen in s.parts[1:] for i in chosen])
        out |= {
            f"routing/sent_{g}": float(away[p.start : p.stop].mean()) for g, p in exam.parts.items() if len(p)
        }
    return out


def evaluate(
    lm: nn.Module, exam: Examination, *, progress: bool = True, title: str = "evaluate"
) -> Evaluation:
    """All metrics of the study for one model (SemEval/LUME score, memorisation, attack, utility, KL): see
    :func:`core`.
    """
    return core(Subject(lm, exam, progress=progress, title=title))


def core(subject: Subject) -> Evaluation:
    """The core evaluation, from the passes that the subject shares with the probes.

    ``rows`` has one entry per forget and retain row, in corpus order, then holdout documents and world
    questions.
    """
    s, exam = subject.scores, subject.exam
    metrics = summarise(s, exam) | dict(readings(subject.lm))
    written = subject.generations
    measured = {"sc": lume.rouge_l_recall, "qa": lume.knowledge}
    score = {
        g: [measured[r.kind](r.output, text) for r, text in zip(exam.rows[g], texts, strict=True)]
        for g, texts in written.items()
    }
    scores: dict[str, Iterable[float]] = {**score}
    if s.world is not None:
        scores["world"] = s.world
    rows = subject.keys | {
        "score": subject.column(scores),
        "nll": subject.column(s.nll),
        "em": subject.column(s.em),
        "es": subject.column(s.es),
        "text_nll": subject.column(s.document),
    }
    both = [(g, r, v) for g in written for r, v in zip(exam.rows[g], score[g], strict=True)]
    if len({(g, r.task, r.kind) for g, r, _ in both}) == 4 * len(
        exam.corpus.tasks
    ):  # passages and questions everywhere
        twelve: dict[str, list] = {
            "group": [g for g, _, _ in both],
            "task": [r.task for _, r, _ in both],
            "kind": [r.kind for _, r, _ in both],
            "score": [v for _, _, v in both],
        }
        metrics |= official(twelve, metrics) | listed_attack(s, exam)
    return Evaluation(metrics, rows)
