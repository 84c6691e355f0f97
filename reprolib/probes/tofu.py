"""TOFU's questions to any corpus: probability, ROUGE and truth ratio of each group, model utility, forget
quality.

A truth ratio compares a true answer in other words (``Row.paraphrases``) with false answers
(``Row.perturbed``), and means something only if all have the same form. TOFU's false answers are sentences in
the form of the paraphrase. A corpus whose paraphrases hold the true answer word for word (the synthetic one)
gives bare false answers: there each is put into the paraphrase in place of the true one, and questions whose
answer no paraphrase repeats have no truth ratio. Of world questions the true answer is compared with the
wrong options, as TOFU does for Real Authors and World Facts.

Groups are ``forget``, ``retain``, and the world rows by their task: ``real_authors``, ``world_facts`` (TOFU),
else ``world``. In a group with truth ratios all three numbers are means over the rows that have one (TOFU:
its perturbed subset), otherwise probability and ROUGE are means over its questions. ROUGE-L recall, stemmed,
reads what the core evaluation generates for forget and retain (up to 256 tokens), and up to 200 tokens, as in
TOFU, for world questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from reprolib.corpus.batching import encode
from reprolib.corpus.rows import Corpus, Row
from reprolib.evaluate.passes import token_statistics
from reprolib.evaluate.subject import WRITTEN, Evaluation, Subject
from reprolib.metrics import tofu
from reprolib.metrics.lume import rouge_l_recall
from reprolib.probes.base import Probe
from reprolib.probes.muse import continued

NEW_TOKENS = 200
WORST = 1e4  # nats a token: what a model that gives no numbers any more is taken to lose
WORLD = {"RealAuthors": "real_authors", "WorldFacts": "world_facts"}  # tasks of TOFU's world rows

PARTS = {  # of the model utility: how they are called here and in TOFU
    "probability": "probability",
    "option_probability": "probability",
    "rouge_l_recall": "rouge",
    "truth_score": "truth_ratio",
}

Forms = tuple[tuple[str, ...], tuple[str, ...]]  # true and false answers of one form
Losses = dict[int, tuple[np.ndarray, np.ndarray]]  # of true and false answers, by position in Subject.rows


def ask(subject: Subject) -> Evaluation:
    """TOFU's numbers of one model, and the columns ``tofu_probability``, ``tofu_rouge`` and ``truth_ratio``
    (geometric).

    Metrics are named by their cards: in each group ``probability`` (of world groups ``option_probability``),
    ``rouge_l_recall``, the truth ratio as ``parity_score`` (forget) or ``truth_score`` (the others) and as
    ``truth_ratio_new``; then ``model_utility`` or ``partial_utility`` with its number of parts; with a twin
    ``forget_quality``, ``log10_p``, ``ks_distance`` and both numbers of rows.
    """
    rows, known = subject.rows, forms(subject.exam.corpus)
    asked = {i: known[r.id] for i, (_, r) in enumerate(rows) if r.id in known}
    forget = {
        i: f for i, f in asked.items() if rows[i][0] == "forget"
    }  # by itself, in the batches of the twin: equal to the bit
    lost = losses(subject.lm, subject, forget)
    lost |= losses(subject.lm, subject, {i: f for i, f in asked.items() if i not in forget})
    probability, rouge = _probability(subject, lost), _rouge(subject)
    ratio = {i: tofu.truth_ratio(*pair) for i, pair in lost.items()}
    metrics: dict[str, float] = {}
    for group, members in _groups(subject).items():
        rated = [i for i in members if i in ratio]
        likely = "probability" if group in WRITTEN else "option_probability"
        for name, values in ((likely, probability), ("rouge_l_recall", rouge)):
            if found := [values[i] for i in rated or members if i in values]:
                metrics[f"tofu/{group}/{name}"] = float(np.mean(found))
        if rated:
            score = tofu.parity_score if group == "forget" else tofu.truth_score
            arithmetic, new = (
                [tofu.truth_ratio(*lost[i], variant=v) for i in rated] for v in ("arithmetic", "new")
            )
            metrics[f"tofu/{group}/{score.__name__}"] = float(score([ratio[i] for i in rated]).mean())
            metrics[f"tofu/{group}/{score.__name__}_arithmetic"] = float(score(arithmetic).mean())
            metrics[f"tofu/{group}/truth_ratio_new"] = float(np.mean(new))
    metrics |= utility(metrics) | quality(subject, forget, ratio)
    columns = {"tofu_probability": probability, "tofu_rouge": rouge, "truth_ratio": ratio}
    return Evaluation(metrics, {name: subject.column(values) for name, values in columns.items()})


def forms(corpus: Corpus) -> dict[str, Forms]:
    """By row id the true and the false answers that a truth ratio compares, for every row that has one."""
    questions = [r for g in WRITTEN for r in corpus[g] if r.kind == "qa" and r.paraphrases and r.perturbed]
    framed = any(_frames(r) for r in questions)
    out = {
        r.id: _framed(r) if framed else (r.paraphrases, r.perturbed)
        for r in questions
        if _frames(r) or not framed
    }
    return out | {r.id: ((r.output,), r.perturbed) for r in corpus["world"] if r.perturbed}


def _frames(row: Row) -> tuple[str, ...]:
    return tuple(p for p in row.paraphrases if row.output in p)


def _framed(row: Row) -> Forms:
    return _frames(row), tuple(p.replace(row.output, wrong) for p in _frames(row) for wrong in row.perturbed)


def losses(lm: nn.Module, subject: Subject, asked: Mapping[int, Forms]) -> Losses:
    """Mean losses (nats per token, EOS included) of the true and the false answers to some rows, in one
    teacher-forced pass.
    """
    flat = [(i, answer) for i, (true, false) in asked.items() for answer in (*true, *false)]
    if not flat:
        return {}
    every = subject.rows
    rows = [every[i][1] for i, _ in flat]
    tokens = encode(subject.exam.tokenizer, [r.input for r in rows], [answer for _, answer in flat])
    tokens = replace(tokens, document=tuple(r.document for r in rows))  # by which a routed model sends them
    found = token_statistics(lm, tokens, range(len(tokens)))
    each = iter(_sane([-f.logp.mean() for f in found]))
    return {i: tuple(np.array([next(each) for _ in side]) for side in pair) for i, pair in asked.items()}  # type: ignore[misc]


def _sane(nll: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.nan_to_num(nll, nan=WORST, posinf=WORST).clip(0.0, WORST)


def _groups(subject: Subject) -> dict[str, list[int]]:
    """Positions in ``subject.rows`` of the questions of each group."""
    out: dict[str, list[int]] = {}
    for i, (group, row) in enumerate(subject.rows):
        if row.kind == "qa" and group in (*WRITTEN, "world"):
            out.setdefault(WORLD.get(row.task, "world") if group == "world" else group, []).append(i)
    return out


def _probability(subject: Subject, lost: Losses) -> dict[int, float]:
    """Of each question: p(answer) per token; of world questions its share in that of all options."""
    rows = subject.rows
    nll = np.concatenate([subject.scores.nll[g] for g in WRITTEN])
    own = tofu.probability(_sane(nll))
    out = {i: float(own[i]) for i in range(len(own)) if rows[i][1].kind == "qa"}
    world = {i: pair for i, pair in lost.items() if rows[i][0] == "world"}
    return out | {i: float(tofu.option_probability([np.concatenate(pair)])[0]) for i, pair in world.items()}


def _rouge(subject: Subject) -> dict[int, float]:
    """ROUGE-L recall of the answers to all questions."""
    rows = subject.rows
    written = dict(enumerate(text for g in WRITTEN for text in subject.generations[g]))
    world = [i for i, (g, _) in enumerate(rows) if g == "world"]
    asked = [rows[i][1] for i in world]
    written |= zip(
        world,
        continued(subject, [r.input for r in asked], [r.document for r in asked], NEW_TOKENS),
        strict=True,
    )
    return {
        i: rouge_l_recall(rows[i][1].output, text) for i, text in written.items() if rows[i][1].kind == "qa"
    }


def utility(metrics: Mapping[str, float]) -> dict[str, float]:
    """TOFU's model utility if all of its nine parts are there, else the harmonic mean of what is, under
    another name.
    """
    found = {}
    for key, value in metrics.items():
        _, group, name = key.split("/")
        if group != "forget" and name in PARTS:
            found[f"{group}/{PARTS[name]}"] = value
    if set(found) == set(tofu.NINE):
        return {"tofu/model_utility": tofu.model_utility(found)}
    return (
        {"tofu/partial_utility": tofu.partial_utility(found), "tofu/utility_parts": len(found)}
        if found
        else {}
    )


def quality(subject: Subject, forget: Mapping[int, Forms], ratio: Mapping[int, float]) -> dict[str, float]:
    """Forget quality against the twin with its effect size and both sample sizes; nothing without a twin or
    truth ratios.
    """
    twin = subject.reference("twin") if forget else None
    if twin is None:
        return {}
    lost = losses(twin, subject, forget)
    found = tofu.forget_quality(
        [ratio[i] for i in forget], [tofu.truth_ratio(*pair) for pair in lost.values()]
    )
    names = ("forget_quality", "log10_p", "ks_distance", "forget_rows", "forget_rows_twin")
    return {f"tofu/{name}": value for name, value in zip(names, found, strict=True)}


PROBE = Probe(
    name="tofu",
    title="TOFU: probability, ROUGE, truth ratio",
    suite="wide",
    cost=(
        "one teacher-forced pass over true and false answers (4 to 6 a question), generation for the world"
        " questions; with a twin another pass over those of forget"
    ),
    ask=ask,
)
