"""``run(spec)``: the record of a run, read if it exists and computed otherwise."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from reprolib import record as records
from reprolib.corpus.rows import Row
from reprolib.errors import ReprolibError, SpecError
from reprolib.identity import plain
from reprolib.record import Record
from reprolib.seeds import derive
from reprolib.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from reprolib.corpus.mmlu import MMLU
    from reprolib.evaluate import Evaluation, Examination
    from reprolib.probes import Probe, Subject
    from reprolib.unlearn import Outcome


def run(spec: Spec | None = None, *, progress: bool = True, **fields: Any) -> Record:
    """Return the record of ``spec`` (or of ``Spec(**fields)``), computing it if ``results/`` does not hold it.

    Safe to call from several processes at once: one computes, the others wait and read. Interrupted
    runs continue from their last checkpoint.
    """
    spec = spec or Spec.from_dict(fields)
    from reprolib.models import device

    found = records.find(spec)
    if device.agreed(found is not None):
        return found or records.find(spec)
    records.check_writable()
    folder = _checkpoint(spec).path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    # of the model: two suites of one run do not unlearn side by side (of processes that share a run, the first holds it for all)
    with FileLock(f"{folder}.lock") if device.first() else nullcontext():
        found = records.find(spec)
        if device.agreed(found is not None):
            return found or records.find(spec)
        try:
            record = compute(spec, progress=progress and device.first())
        except ReprolibError:
            raise  # the user's to mend; nothing was learnt about the method
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            failed = Record(
                spec=spec, fingerprint=spec.fingerprint, status="failed", metrics={}, rows={}, trajectory=[], cost={},
                provenance=records.provenance(), stages=plain(spec.stages),
                reason=f"{type(e).__name__}: {e} ({Path(where.filename).name}, line {where.lineno})",
            )  # fmt: skip
            records.write(failed, records.results_dir() / "failed" / records.path_of(spec).name)
            raise
        path = records.path_of(spec)
        if device.first():
            records.write(record)
            (records.results_dir() / "failed" / path.name).unlink(missing_ok=True)
            for request in range(spec.requests):
                _checkpoint(spec, request).finish(KEEP_BYTES)
        device.together()
        return records.read(path)  # what every later call returns


KEEP_BYTES = 32 << 20  # finished models up to this size stay in the cache, so that a further suite need not unlearn again


def _checkpoint(spec: Spec, request: int = 0):
    from reprolib.checkpoint import Checkpoint
    from reprolib.models.memorise import cache_dir

    model = spec.core.fingerprint  # what is measured afterwards does not change the model
    name = f"checkpoint-{request}.safetensors" if request else "checkpoint.safetensors"
    return Checkpoint(cache_dir() / "runs" / model / name, model)


@dataclass
class Unlearned:
    """A model after the stages of a spec, with all that an evaluation of it needs."""

    lm: nn.Module
    exam: Examination
    outcome: Outcome
    given: tuple[Row, ...]  # the forget rows that the method was given
    seconds: float


def unlearned(spec: Spec, *, progress: bool = True) -> Unlearned:
    """Run the stages of ``spec``, continuing from a checkpoint if there is one (of a finished run: nothing is trained again)."""
    import torch

    from reprolib.corpus.answers import other_answers
    from reprolib.corpus.batching import encode_rows
    from reprolib.evaluate import Examination, measure
    from reprolib.models import device, memorise
    from reprolib.models.testbeds import testbed
    from reprolib.recipes import Stage, recipe
    from reprolib.unlearn import Outcome, unlearn

    bed = testbed(spec.testbed)
    corpus = bed.corpus()
    given = choose_forget(corpus["forget"], spec)
    with device.one_thread(not torch.cuda.is_available()):
        target, tokenizer = memorise.load(bed, "target", spec.seed, progress=progress)
        start = recipe(spec.method).start
        lm, _ = memorise.load(bed, start, spec.seed, spec.precision, progress=progress)
        to = device.accelerator().device
        target, lm = target.to(to), (lm if spec.precision in ("nf4", "int8") else lm.to(to))
        exam = Examination.of(corpus, tokenizer, target)
        began = time.perf_counter()
        outcome = Outcome()
        stages = spec.stages
        kinds = {s.objective.forget.other for s in stages if isinstance(s, Stage) and s.objective.forget is not None} - {None}
        portions = portions_of(given, spec) if stages else ()
        others = [{k: other_answers(k, p, tokenizer, spec.seed, target) for k in sorted(kinds)} for p in portions]
        del target
        retain = encode_rows(tokenizer, corpus["retain"])
        for request, portion in enumerate(portions):
            seed = derive(spec.seed, "request", request) if request else spec.seed
            lm, own = unlearn(
                lm, stages, encode_rows(tokenizer, portion), retain, seed=seed, others=others[request],
                measure=lambda m: measure(m, exam), points=max(1, round(bed.preset.points / len(portions))),
                checkpoint=_checkpoint(spec, request), title=_title(spec), progress=progress,
            )  # fmt: skip
            outcome = own if request == 0 else joined(outcome, own, request)
            if outcome.status == "diverged":
                break
    return Unlearned(lm, exam, outcome, given, time.perf_counter() - began)


def compute(spec: Spec, *, progress: bool = True) -> Record:
    """Start, unlearn, evaluate: the flow of the study, without looking at existing records."""
    import torch

    from reprolib.evaluate import evaluate
    from reprolib.models import device
    from reprolib.models.policy import causal_lm

    asked = questions(spec)  # before hours of training, not after: they may not be at hand
    done = unlearned(spec, progress=progress)
    outcome = done.outcome
    began = time.perf_counter()
    with device.one_thread(not torch.cuda.is_available()):
        if spec.suite == "core":
            evaluation, seconds = evaluate(done.lm, done.exam, progress=progress, title=_title(spec)), {}
        else:
            evaluation, seconds = examine(spec, done, progress=progress)
        answers = answered(asked, done, evaluation, spec, progress) if asked else {}
    evaluated = time.perf_counter() - began
    lost = [k for k, v in evaluation.metrics.items() if not math.isfinite(v)]
    if lost and outcome.status == "done" and spec.suite == "core":
        outcome.status, outcome.reason = "diverged", f"after the last step {lost[0]} is not finite"
    cost = {
        "wall_s": round(done.seconds + evaluated, 2),
        "train_s": round(done.seconds, 2),  # measuring along the way included
        "evaluate_s": round(evaluated, 2),
        "peak_bytes": device.peak_memory_bytes(),
        "steps": outcome.steps,
        "parameters": causal_lm(done.lm).num_parameters(),
        "trained_parameters": outcome.trained_parameters,
        "unchanged_after_first_step": outcome.unchanged_after_first_step,
        "forget_rows_given": len(done.given),
        "forget_documents_given": len({r.document for r in done.given}),
        **{k: round(v, 4) for k, v in outcome.notes.items()},
        **seconds,
    }
    return Record(
        spec=spec, fingerprint=spec.fingerprint, status=outcome.status, reason=outcome.reason, stages=plain(spec.stages),
        metrics={k: round(v, 6) for k, v in evaluation.metrics.items()}, rows=_with_given(evaluation.rows, spec, done),
        trajectory=[{k: round(v, 6) if isinstance(v, float) else v for k, v in p.items()} for p in outcome.trajectory]
        if spec.suite == "core" else [],
        cost=cost, provenance=records.provenance() | answers,
    )  # fmt: skip


def questions(spec: Spec) -> MMLU | None:
    """The MMLU questions that runs of a pretrained model are asked besides, the same of all runs."""
    from reprolib.corpus import mmlu
    from reprolib.models.testbeds import EVERY, testbed

    each = testbed(spec.testbed).preset.mmlu
    return mmlu.load(per_subject=None if each == EVERY else each) if each and spec.suite == "core" else None


def answered(asked: MMLU, done: Unlearned, evaluation: Evaluation, spec: Spec, progress: bool) -> dict[str, Any]:
    """Put MMLU and the leaderboard's numbers among the metrics; returns which questions, and each hit (1) or miss (0)."""
    from reprolib import assess
    from reprolib.models import device
    from reprolib.probes import mmlu

    with device.autocast():
        answer = mmlu.score(
            done.lm, done.exam.tokenizer, asked, batch_tokens=65_536 if device.on_gpu() else 8192, seed=spec.seed,
            progress=progress, title=f"{_title(spec)}: MMLU",
        )  # fmt: skip
    found = {k: v for k, v in answer.metrics.items() if not k.startswith("mmlu/subject/")}
    evaluation.metrics.update(found | assess.final(evaluation.metrics, found))
    hits = "".join(str(int(h)) for h in answer.rows["hit"])
    return {"mmlu": {"questions": asked.subset or "all", "content": asked.fingerprint, "hits": hits}}


def examine(spec: Spec, done: Unlearned, *, progress: bool = True) -> tuple[Evaluation, dict[str, float]]:
    """Ask the probes of a suite about an unlearned model; returns what they say and the seconds that each took."""
    from reprolib.models import device, memorise
    from reprolib.models.testbeds import testbed
    from reprolib.probes import Subject, suite

    bed, to = testbed(spec.testbed), device.accelerator().device
    loaded: dict[str, Any] = {}

    def reference(which: str):
        if which not in loaded:
            loaded[which] = memorise.load(bed, which, spec.seed, progress=progress)[0].to(to)
        return loaded[which]

    subject = Subject(done.lm, done.exam, spec.seed, reference, progress, _title(spec))
    return ask(subject, suite(spec.suite))


def ask(subject: Subject, probes: Sequence[Probe]) -> tuple[Evaluation, dict[str, float]]:
    """Metrics and per-row columns of several probes side by side, and ``<probe>_s``: how long each took.

    A pass that several probes share counts for the first that needs it.
    """
    from reprolib.evaluate import Evaluation

    rows = subject.keys
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for probe in probes:
        began = time.perf_counter()
        answer = probe.ask(subject)
        foreign = [k for k in answer.metrics if not k.startswith(f"{probe.name}/")]
        wrong = [k for k, v in answer.rows.items() if k in rows or len(v) != len(rows["group"])]
        if foreign or wrong:
            raise SpecError(
                f"probe {probe.name!r} returned {(foreign + wrong)[0]!r}; its metrics must be named '{probe.name}/...', "
                f"and its columns must be new and have one value a row ({len(rows['group'])})."
            )
        metrics |= answer.metrics
        rows |= answer.rows
        seconds[f"{probe.name}_s"] = round(time.perf_counter() - began, 2)
    return Evaluation(metrics, rows), seconds


def _with_given(rows: dict[str, list], spec: Spec, done: Unlearned) -> dict[str, list]:
    """Which forget rows the method was given, where that is not all of them, and in which request, where there were several."""
    corpus = done.exam.corpus
    if spec.requests > 1:
        portions = portions_of(done.given, spec)
        number = {r.id: n for n, p in enumerate(portions) for r in p}
        own = [number.get(r.id) for r in corpus["forget"]]
        rows = rows | {"request": own + [None] * (len(rows["group"]) - len(own))}
    if len(done.given) == len(corpus["forget"]):
        return rows
    documents, ids = {r.document for r in done.given}, {r.id for r in done.given}
    # 2: the row was handed to the method; 1: another row of its document was; 0: nothing of its document was
    given = [2 if r.id in ids else 1 if r.document in documents else 0 for r in corpus["forget"]]
    return rows | {"given": given + [0] * (len(rows["group"]) - len(given))}


def portions_of(given: Sequence[Row], spec: Spec) -> tuple[tuple[Row, ...], ...]:
    """The forget rows by request: documents in a shuffled order, dealt into ``spec.requests`` portions of about equal size."""
    if spec.requests == 1:
        return (tuple(given),)
    documents = list(dict.fromkeys(r.document for r in given))
    if len(documents) < spec.requests:
        raise SpecError(
            f"spec: requests={spec.requests}, but the method is given {len(documents)} documents; each request needs at least one."
        )
    Random(derive(spec.seed, "requests")).shuffle(documents)
    number = {d: i * spec.requests // len(documents) for i, d in enumerate(documents)}
    return tuple(tuple(r for r in given if number[r.document] == n) for n in range(spec.requests))


def joined(before: Outcome, own: Outcome, request: int) -> Outcome:
    """The outcome of one request after those of the ones before."""
    trajectory = [p | {"step": before.steps + p["step"], "request": request} for p in own.trajectory]
    notes = {k: before.notes.get(k, 0.0) + v for k, v in own.notes.items()}
    return replace(own, trajectory=before.trajectory + trajectory, steps=before.steps + own.steps, notes=notes,
                   unchanged_after_first_step=before.unchanged_after_first_step)  # fmt: skip


def _title(spec: Spec) -> str:
    return f"{spec.method} on {spec.testbed}, seed {spec.seed}"


def choose_forget(rows: Sequence[Row], spec: Spec) -> tuple[Row, ...]:
    """The forget rows that the method is given: a share of the documents, and a share of each one's rows.

    Larger shares contain smaller ones (same seed), so that effects of size are not effects of choice;
    at least one document, and at least one row of each chosen document, is given.
    """
    if spec.forget_documents == 1 and spec.forget_rows == 1:
        return tuple(rows)
    random = Random(derive(spec.seed, "forget-subset"))
    by_task: dict[str, dict[str, list[Row]]] = {}
    for r in rows:
        by_task.setdefault(r.task, {}).setdefault(r.document, []).append(r)
    total = sum(len(d) for d in by_task.values())
    # documents in one shuffled order over all tasks, so that also one single document can be asked for
    order = [d for task in sorted(by_task) for d in by_task[task].values()]
    random.shuffle(order)
    chosen = order[: max(1, round(spec.forget_documents * total))]
    out = []
    for document in chosen:
        shuffled = list(document)
        random_document = Random(derive(spec.seed, "rows", document[0].document))
        random_document.shuffle(shuffled)
        keep = {r.id for r in shuffled[: max(1, round(spec.forget_rows * len(document)))]}
        out.extend(r for r in document if r.id in keep)
    return tuple(out)
