"""All parts of an evaluation, asked one after another and each kept as soon as it is there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib import provenance
from reprolib.assess.checkpoint import Source, load_model, load_tokenizer, out_of_memory
from reprolib.assess.parts import check_answer, finished, keep_result
from reprolib.assess.result import SCHEMA, Assessment, Result
from reprolib.corpus.rows import GROUPS, Corpus
from reprolib.errors import ReprolibError, SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.semeval import final
from reprolib.evaluate.subject import Subject
from reprolib.identity import digest
from reprolib.models.policy import causal_lm
from reprolib.places import write_whole
from reprolib.probes.base import Probe

if TYPE_CHECKING:
    from torch import nn


class Models:
    """Checkpoints by role, each loaded when it is first asked for."""

    def __init__(self, sources: Mapping[str, Source], precision: str, tokenizer):
        self.sources, self.precision, self.tokenizer = sources, precision, tokenizer
        self.loaded: dict[str, nn.Module] = {}

    def __call__(self, role: str) -> nn.Module:
        if role not in self.loaded:
            self.loaded[role] = load_model(self.sources[role], self.precision, self.tokenizer)
        return self.loaded[role]

    def get(self, role: str) -> nn.Module | None:
        return self(role) if role in self.sources else None


Job = tuple[str, Probe, str]  # role, part, key of its result


@dataclass
class Scoring:
    """All parts of an evaluation: those that are finished are read, the others asked and kept."""

    folder: Path
    run: dict[str, Any]
    sources: Mapping[str, Source]
    corpus: Corpus
    parts: Sequence[tuple[Probe, Any]]
    settings: dict[str, Any]
    batch_tokens: int
    progress: bool
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    subject: Subject | None = None

    def score(self) -> Assessment:
        from tqdm.auto import tqdm

        jobs = self.wanted()
        tokenizer = load_tokenizer(self.sources["model"])
        exam = Examination.of(self.corpus, tokenizer)
        models = Models(self.sources, self.settings["precision"], tokenizer)
        with tqdm(jobs, unit="part", disable=not (self.progress and jobs), leave=False) as bar:
            for role, probe, key in bar:
                bar.set_description(f"{role}: {probe.name}")
                absent = [n for n in probe.needs if n not in self.sources]
                if absent:
                    self.skipped[probe.name] = f"needs --{' and --'.join(absent)}"
                    continue
                try:
                    result = self.ask(role, probe, models, exam)
                except Exception as error:
                    self.broke(role, probe, error)
                    continue
                keep_result(self.place(role, probe), key, result)
                self.results[role][probe.name] = result
        run, settings = self.run, self.settings
        return Assessment(
            models={
                r: {"name": s.name, "fingerprint": s.fingerprint, **run["facts"].get(r, {})}
                for r, s in self.sources.items()
            },
            data=_about(self.corpus),
            settings=settings,
            results={role: self.ordered(role) for role in self.sources},
            skipped=self.skipped,
            failed=tuple(self.failed),
            notes=tuple(_notes(exam, run, settings, self.parts)),
            provenance=provenance.provenance(),
        )

    def wanted(self) -> list[Job]:
        """What is to be asked; what is finished goes to the results."""
        shared = {"data": self.run["data"], "settings": self.settings, "schema": SCHEMA}
        self.results = {role: {} for role in self.sources}
        jobs: list[Job] = []
        for role in self.sources:
            for probe, depends in self.parts:
                # a part may read any reference that there is, so that its results belong to all of them; MMLU
                # reads none
                models = {
                    r: s.fingerprint for r, s in self.sources.items() if r == role or probe.suite != "data"
                }
                if role != "model":
                    models.pop("model", None)
                of = {"part": probe.name, "depends": depends, "role": role, "models": models}
                key = digest({**shared, **of})
                found = finished(self.place(role, probe), key)
                if found is not None:
                    self.results[role][probe.name] = found
                else:
                    jobs.append((role, probe, key))
        return jobs

    def place(self, role: str, probe: Probe) -> Path:
        return self.folder / "parts" / role / f"{probe.name}.json"

    def ask(self, role: str, probe: Probe, models: Models, exam: Examination) -> Result:
        began = time.perf_counter()
        if self.subject is None or self.subject.title != role:
            self.subject = Subject(
                models(role),
                exam,
                max_new_tokens=self.settings["max_new_tokens"],
                batch_tokens=self.batch_tokens,
                seed=self.settings["seed"],
                reference=models.get,
                progress=self.progress,
                title=role,
            )
            self.run["facts"][role] = _facts(models(role), self.sources[role])
            write_whole(self.folder / "run.json", json.dumps(self.run, indent=1))
        answer = probe.ask(self.subject)
        check_answer(probe, answer, self.subject)
        return Result(
            name=probe.name,
            title=probe.title,
            suite=probe.suite,
            metrics=answer.metrics,
            rows=answer.rows,
            seconds=round(time.perf_counter() - began, 2),
        )

    def broke(self, role: str, probe: Probe, error: Exception) -> None:
        """Put down why a part gave nothing; raises where the others would fare no better."""
        if out_of_memory(error):
            raise SpecError(
                f"out of memory in {probe.name!r} of the {role}; what is finished is kept, so"
                f" lower --batch-tokens (now {self.batch_tokens}) or --max-new-tokens (now"
                f" {self.settings['max_new_tokens']}) and go on, or begin again with --precision bf16"
                " or nf4."
            ) from error
        if probe.suite == "core":
            raise error
        known = isinstance(error, ReprolibError)
        why = str(error) if known else f"broke off with {type(error).__name__}: {error}"
        self.skipped[probe.name] = why if role == "model" else f"{why} ({role})"
        self.failed += [] if known else [probe.name]

    def ordered(self, role: str) -> dict[str, Result]:
        """Results in the order of the parts, behind the official score where there is one."""
        found = self.results[role]
        own = {p.name: found[p.name] for p, _ in self.parts if p.name in found}
        metrics = final(*(own[n].metrics if n in own else {} for n in ("core", "mmlu")))
        if not metrics:
            return own
        title = "SemEval-2025 Task 4, as on the leaderboard"
        official = Result(name="official", title=title, suite="core", metrics=metrics, rows={}, seconds=0.0)
        return {"official": official} | own


def _facts(lm: nn.Module, source: Source) -> dict[str, Any]:
    inner = causal_lm(lm)
    return {
        "architecture": inner.config.model_type, "parameters": inner.num_parameters(),
        "context": getattr(inner.config, "max_position_embeddings", None),
        "adapter": None if source.adapter is None else source.adapter.name,
    }  # fmt: skip


def _about(corpus: Corpus) -> dict[str, Any]:
    counts = {g: {"documents": len(corpus.documents(g)), "rows": len(corpus[g])} for g in GROUPS}
    return {
        "name": corpus.name,
        "fingerprint": corpus.fingerprint,
        "groups": counts,
        "tasks": list(corpus.tasks),
    }


def _notes(exam, run, settings, parts) -> Iterable[str]:
    """What a reader must know before comparing these numbers with others."""
    if settings["documents"] is not None:
        yield (
            f"A subset: {settings['documents']} documents of each task and side. Compare with the same"
            " subset only."
        )
    for probe, _ in parts:
        if probe.name == "mmlu" and "(" in probe.title:
            yield f"{probe.title}: a subset."
    context = run["facts"].get("model", {}).get("context")
    long = sum(len(ids) > context for ids in exam.tokens.ids) if context else 0
    if long:
        yield (f"{long} of {len(exam.tokens)} texts are longer than the model's context of {context} tokens.")
    if not exam.corpus["holdout"]:
        yield "There are no documents that the model has not seen, so no membership attack."
    if Counter(r.kind for r in exam.corpus["forget"])["sc"] == 0:
        yield (
            "There are no passages, so no official aggregate: it needs passages and questions of each task."
        )
