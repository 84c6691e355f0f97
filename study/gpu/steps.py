"""What there is to do: steps of phases of jobs, the most wanted first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from reprolib.spec import Spec
from study.gpu.cases import cases
from study.gpu.jobs import Job, Make, Measure, Run
from study.gpu.wanted import LADDER, before, one_billion, pretrained, published, rest, seven_billion


@dataclass(frozen=True)
class Phase:
    """Jobs that may run side by side, all done before the next phase begins."""

    jobs: tuple[Job, ...]
    minutes: float  # of a job, guessed; the runner goes by what it measures
    workers: int = 1  # processes on one GPU: small models leave most of it idle


@dataclass(frozen=True)
class Step:
    about: str
    phases: tuple[Phase, ...] = field(repr=False)

    @property
    def jobs(self) -> list[Job]:
        return [j for p in self.phases for j in p.jobs]


def makes(testbed: str, seeds: tuple[int, ...] = (0,)) -> tuple[Make, ...]:
    return tuple(Make(testbed, which, seed) for seed in seeds for which in ("target", "twin"))


def runs(testbed: str, wanted: list[tuple], seeds: tuple[int, ...] = (0,)) -> tuple[Run, ...]:
    """``wanted``: (method, options, precision...) in the order in which they are wanted; all seeds of one
    before the next.
    """
    return tuple(
        Run(
            Spec(
                testbed=testbed,
                method=method,
                options=options,
                seed=seed,
                precision=next(iter(more), "fp32"),
            )
        )
        for method, options, *more in wanted
        for seed in seeds
    )


SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """Runs on one testbed, whose models are made first; minutes of a model and of a run are guessed."""

    about: str
    testbed: str
    wanted: list[tuple]
    making: float
    running: float
    workers: int
    seeds: tuple[int, ...] = (0,)

    def step(self) -> Step:
        at_once = 1 if self.testbed.startswith("olmo-7b") else min(self.workers, 2 * len(self.seeds))
        first = Phase(makes(self.testbed, self.seeds), self.making, at_once)
        then = Phase(runs(self.testbed, self.wanted, self.seeds), self.running, self.workers)
        return Step(self.about, (first, then))


def arms() -> dict[str, Arm]:
    one, seven = before(published(1), one_billion()), before(published(7), seven_billion())
    scratch = "from random weights, taught LUME rows"
    rows, organisers = "on SemEval-2025's rows", "as the organisers made it memorise them"
    small = "SmolLM2-135M"
    return {
        "olmo-1b": Arm(f"OLMo-1B {scratch}", "olmo-1b-scratch/lume", one_billion(), 1.5, 1.2, 3),
        "olmo-7b": Arm("OLMo-7B likewise", "olmo-7b-scratch/lume", seven_billion(), 3.5, 1.3, 1),
        "smollm2": Arm(f"{small} on LUME rows", "smollm2/lume", pretrained(), 1.2, 1.6, 6, SEEDS),
        "smollm2-semeval": Arm(f"{small} {rows}", "smollm2/semeval", pretrained(), 4, 5.3, 6, SEEDS),
        "smollm2-semeval-rest": Arm(
            f"{small} by every other method", "smollm2/semeval", rest(), 4, 5.3, 6, SEEDS
        ),
        "olmo-1b-0724": Arm(f"the published OLMo-1B {rows}", "olmo-1b-0724/semeval", one, 5, 4, 2),
        "olmo-7b-0724": Arm(f"the published OLMo-7B {rows}", "olmo-7b-0724/semeval", seven, 9, 8, 1),
        "olmo-1b-semeval": Arm(f"OLMo-1B {organisers}", "olmo-1b-semeval/semeval", one, 3, 4, 2),
        "olmo-7b-semeval": Arm(f"OLMo-7B {organisers}", "olmo-7b-semeval/semeval", seven, 5, 8, 1),
    }


def steps() -> dict[str, Step]:
    measures = {large: [] for large in (False, True)}
    for name, case in cases().items():
        measures[case.model.startswith("olmo-7b")].append(Measure(name))
    out = {}
    for name, arm in arms().items():
        out[name] = arm.step()
        if name in ("olmo-1b", "olmo-7b"):
            own = Phase(tuple(measures[name == "olmo-7b"]), 0.3)
            first = Phase(makes(arm.testbed)[:1], arm.making)
            out[f"{name}-cost"] = Step(f"time and memory, {name}", (first, own))
    return out


def thinned(steps: dict[str, Step]) -> dict[str, Step]:
    """For the rehearsal: all models of seed 0, every kind of job once, and a run of each step; what trains
    comes first.

    An epoch is enough.
    """
    from reprolib.recipes import recipe

    seen: set = set()

    def short(job: Job) -> Job:
        if not isinstance(job, Run):
            return job
        epochs = {k: 1 for k in recipe(job.spec.method).defaults if k.endswith("epochs")}
        return Run(replace(job.spec, options={**job.spec.options, **epochs}))

    def first(jobs: tuple[Job, ...]) -> Iterator[Job]:
        any_yet = False
        for job in sorted(jobs, key=lambda j: isinstance(j, Run) and j.spec.method in LADDER):
            key: Any = job
            if isinstance(job, Run):
                key = (job.spec.method, job.spec.precision, "lora" in str(job.spec.options))
            elif isinstance(job, Measure):
                key = job.case if "organisations" not in job.case else "organisations"
            if getattr(job, "seed", 0) == 0 and (key not in seen or not any_yet):
                any_yet = True
                seen.add(key)
                yield short(job)

    return {
        n: Step(s.about, tuple(Phase(tuple(first(p.jobs)), 0.1, p.workers) for p in s.phases))
        for n, s in steps.items()
    }
