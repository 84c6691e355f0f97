"""``run(spec)``: the record of a run, read if it exists and computed otherwise."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from reprolib.corpus import mmlu
from reprolib.corpus.batching import encode_rows
from reprolib.corpus.mmlu import MMLU
from reprolib.corpus.rows import Row
from reprolib.errors import ReprolibError, SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.semeval import final
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.evaluate.summary import evaluate, measure
from reprolib.identity import plain
from reprolib.models import device
from reprolib.models.policy import causal_lm
from reprolib.places import cache_dir, results_dir
from reprolib.portions import choose_forget, portions_of
from reprolib.probes import mmlu as mmlu_probe
from reprolib.probes import suite
from reprolib.probes.base import Probe
from reprolib.provenance import provenance
from reprolib.recipes import Stage, recipe
from reprolib.record import Record, check_writable, find, path_of, read, write
from reprolib.seeds import derive
from reprolib.spec import Spec
from reprolib.testbeds import memorise
from reprolib.testbeds.beds import testbed
from reprolib.testbeds.presets import EVERY
from reprolib.unlearn.answers import other_answers
from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import unlearn
from reprolib.unlearn.run import Outcome

if TYPE_CHECKING:
    from torch import nn


def run(spec: Spec | None = None, *, progress: bool = True, **fields: Any) -> Record:
    """Return the record of ``spec`` (or of ``Spec(**fields)``), computing it if ``results/`` does not hold
    it.

    Safe to call from several processes at once: one computes, the others wait and read. Interrupted
    runs continue from their last checkpoint.
    """
    spec = spec or Spec.from_dict(fields)
    found = find(spec)
    if device.agreed(found is not None):
        return found or read(path_of(spec))  # another process may have it written
    check_writable()
    folder = _checkpoint(spec).path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    # of the model: two suites of one run do not unlearn side by side (of processes that share a run, the
    # first holds it for all)
    with FileLock(f"{folder}.lock") if device.first() else nullcontext():
        found = find(spec)
        if device.agreed(found is not None):
            return found or read(path_of(spec))  # another process may have it written
        try:
            record = compute(spec, progress=progress and device.first())
        except ReprolibError:
            raise  # the user's to mend; nothing was learnt about the method
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            failed = Record(
                spec=spec,
                fingerprint=spec.fingerprint,
                status="failed",
                metrics={},
                rows={},
                trajectory=[],
                cost={},
                provenance=provenance(),
                stages=plain(spec.stages),
                reason=f"{type(e).__name__}: {e} ({Path(where.filename).name}, line {where.lineno})",
            )
            write(failed, results_dir() / "failed" / path_of(spec).name)
            raise
        path = path_of(spec)
        if device.first():
            write(record)
            (results_dir() / "failed" / path.name).unlink(missing_ok=True)
            for request in range(spec.requests):
                _checkpoint(spec, request).finish(KEEP_BYTES)
        device.together()
        return read(path)  # what every later call returns


KEEP_BYTES = (
    32 << 20
)  # finished models up to this size stay in the cache, so that a further suite need not unlearn again


def _checkpoint(spec: Spec, request: int = 0):
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
    """Run the stages of ``spec``, continuing from a checkpoint if there is one (of a finished run: nothing is
    trained again).
    """
    import torch

    bed = testbed(spec.testbed)
    corpus = bed.corpus()
    given = choose_forget(corpus["forget"], spec)
    with device.one_thread(not torch.cuda.is_available()):
        target, tokenizer = memorise.load(bed, "target", spec.seed, progress=progress)
        start = recipe(spec.method).start
        precision = cast(device.Precision, spec.precision)  # which Spec has checked
        lm, _ = memorise.load(bed, start, spec.seed, precision, progress=progress)
        to = device.accelerator().device
        target, lm = target.to(to), (lm if spec.precision in ("nf4", "int8") else lm.to(to))
        exam = Examination.of(corpus, tokenizer, target)
        began = time.perf_counter()
        outcome = Outcome()
        stages = spec.stages
        kinds = {
            s.objective.forget.other
            for s in stages
            if isinstance(s, Stage) and s.objective.forget is not None and s.objective.forget.other
        }
        portions = portions_of(given, spec) if stages else ()
        others = [
            {k: other_answers(k, p, tokenizer, spec.seed, target) for k in sorted(kinds)} for p in portions
        ]
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

    asked = questions(spec)  # before hours of training, not after: they may not be at hand
    done = unlearned(spec, progress=progress)
    outcome = done.outcome
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    with device.one_thread(not torch.cuda.is_available()):
        if spec.suite == "core":
            evaluation = evaluate(done.lm, done.exam, progress=progress, title=_title(spec))
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
        spec=spec,
        fingerprint=spec.fingerprint,
        status=outcome.status,
        reason=outcome.reason,
        stages=plain(spec.stages),
        metrics={k: round(v, 6) for k, v in evaluation.metrics.items()},
        rows=_with_given(evaluation.rows, spec, done),
        trajectory=(
            [
                {k: round(v, 6) if isinstance(v, float) else v for k, v in p.items()}
                for p in outcome.trajectory
            ]
            if spec.suite == "core"
            else []
        ),
        cost=cost,
        provenance=provenance() | answers,
    )


def questions(spec: Spec) -> MMLU | None:
    """The MMLU questions that runs of a pretrained model are asked besides, the same of all runs."""
    each = testbed(spec.testbed).preset.mmlu
    return mmlu.load(per_subject=None if each == EVERY else each) if each and spec.suite == "core" else None


def answered(
    asked: MMLU, done: Unlearned, evaluation: Evaluation, spec: Spec, progress: bool
) -> dict[str, Any]:
    """Put MMLU and the leaderboard's numbers among the metrics; returns which questions, and each hit (1) or
    miss (0).
    """
    with device.autocast():
        answer = mmlu_probe.score(
            done.lm,
            done.exam.tokenizer,
            asked,
            batch_tokens=65_536 if device.on_gpu() else 8192,
            seed=spec.seed,
            progress=progress,
            title=f"{_title(spec)}: MMLU",
        )
    found = {k: v for k, v in answer.metrics.items() if not k.startswith("mmlu/subject/")}
    evaluation.metrics.update(found | final(evaluation.metrics, found))
    hits = "".join(str(int(h)) for h in answer.rows["hit"])
    return {"mmlu": {"questions": asked.subset or "all", "content": asked.fingerprint, "hits": hits}}


def examine(spec: Spec, done: Unlearned, *, progress: bool = True) -> tuple[Evaluation, dict[str, float]]:
    """Ask the probes of a suite about an unlearned model; returns what they say and the seconds that each
    took.
    """
    bed, to = testbed(spec.testbed), device.accelerator().device
    loaded: dict[str, Any] = {}

    def reference(which: str):
        if which not in loaded:
            start = cast(memorise.Start, which)
            loaded[which] = memorise.load(bed, start, spec.seed, progress=progress)[0].to(to)
        return loaded[which]

    subject = Subject(done.lm, done.exam, spec.seed, reference, progress, _title(spec))
    return ask(subject, suite(spec.suite))


def ask(subject: Subject, probes: Sequence[Probe]) -> tuple[Evaluation, dict[str, float]]:
    """Metrics and per-row columns of several probes side by side, and ``<probe>_s``: how long each took.

    A pass that several probes share counts for the first that needs it.
    """
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
                f"probe {probe.name!r} returned {(foreign + wrong)[0]!r}; its metrics must be named"
                f" '{probe.name}/...', and its columns must be new and have one value a row"
                f" ({len(rows['group'])})."
            )
        metrics |= answer.metrics
        rows |= answer.rows
        seconds[f"{probe.name}_s"] = round(time.perf_counter() - began, 2)
    return Evaluation(metrics, rows), seconds


def _with_given(rows: dict[str, list], spec: Spec, done: Unlearned) -> dict[str, list]:
    """Which forget rows the method was given, where that is not all of them, and in which request, where
    there were several.
    """
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


def joined(before: Outcome, own: Outcome, request: int) -> Outcome:
    """The outcome of one request after those of the ones before."""
    trajectory = [p | {"step": before.steps + p["step"], "request": request} for p in own.trajectory]
    notes = {k: before.notes.get(k, 0.0) + v for k, v in own.notes.items()}
    return replace(
        own,
        trajectory=before.trajectory + trajectory,
        steps=before.steps + own.steps,
        notes=notes,
        unchanged_after_first_step=before.unchanged_after_first_step,
    )


def _title(spec: Spec) -> str:
    return f"{spec.method} on {spec.testbed}, seed {spec.seed}"
