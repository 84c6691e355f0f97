"""What there is to do: steps of phases of jobs, the most wanted first. A job knows whether it is done, and does itself.

Learning rates: two or three a method. Where the study's small models memorise at 2e-3 and unlearn best at 1e-4 to 5e-4, a model
that memorised at 2e-4 gets a tenth of that, which is where the published rates of OLMo-1B lie (2e-5). LoRA of rank 64 and alpha 16
has a scaling of 1/4, which damps its rates. SUGD moves the last 8 blocks, as its authors'.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reprolib.spec import Spec

LORA = {"trainable": "lora-64-16"}
LAST = {"trainable": "last-8"}
VILA = {"rank": 64, "alpha": 16}
LADDER = ("target", "twin", "random", "always_eos")


@dataclass(frozen=True, slots=True)
class Make:
    """A target or twin, kept in the cache. What is kept of it for good: how it was trained, and what it knows."""

    testbed: str
    which: str
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.testbed}: {self.which}, seed {self.seed}"

    def _folder(self) -> Path:
        from reprolib.models.memorise import folder_of
        from reprolib.models.testbeds import testbed

        return folder_of(testbed(self.testbed), self.which, self.seed)

    def _log(self) -> list[dict[str, float]] | None:
        folder = self._folder()
        return json.loads((folder / "training.json").read_text(encoding="utf-8")) if (folder / "config.json").exists() else None

    def _card(self, log: list[dict[str, float]]) -> str:
        """By its training log: made again on another day, a model is another one."""
        from reprolib.identity import digest

        return f"{self._folder().name}-{digest(log)[:8]}"

    def done(self) -> bool:
        log = self._log()
        return log is not None and path("models", self._card(log)).exists()

    def do(self) -> str:
        from reprolib import record
        from reprolib.evaluate import Examination, measure
        from reprolib.models import device, memorise
        from reprolib.models.testbeds import testbed

        bed, there, began = testbed(self.testbed), self._log(), time.perf_counter()
        folder = memorise.get(bed, self.which, self.seed, progress=False)
        seconds, peak = time.perf_counter() - began, device.peak_memory_bytes()
        lm, tokenizer = memorise.load(bed, self.which, self.seed)
        metrics = measure(lm.to(device.accelerator().device), Examination.of(bed.corpus(), tokenizer))
        log = self._log()
        wanted = {k.partition(" ")[2]: v for k, v in memorise.REQUIREMENTS.items() if k.startswith(self.which)}
        unfit = {k: round(metrics[k], 4) for k, (low, high) in wanted.items() if k in metrics and not low <= metrics[k] <= high}
        about = {
            "testbed": self.testbed, "which": self.which, "seed": self.seed, "folder": folder.name,
            # where a call was killed between training and measuring, neither is known any more
            **({} if there is not None else {"seconds": round(seconds, 1), "peak_bytes": peak}),
            "parameters": lm.num_parameters(), "training": log, "unfit": unfit,
            "metrics": {k: round(v, 6) for k, v in metrics.items()}, "provenance": record.provenance(),
        }  # fmt: skip
        save("models", self._card(log), about)
        taught = f"{len(log)} epochs to {log[-1]['nll']:.4f} nats" if log else "as published"
        known = f"{taught}, EM {metrics.get('forget/em', 0):.3f} / {metrics['retain/em']:.3f}"
        return known + (f"; NOT FIT for comparisons: {unfit}" if unfit else "")


@dataclass(frozen=True, slots=True)
class Run:
    """A record of the study."""

    spec: Spec

    @property
    def name(self) -> str:
        return f"{self.spec.testbed}: {self.spec.method} {self.spec.slug}"

    def done(self) -> bool:
        from reprolib.record import path_of

        return path_of(self.spec).exists()

    def do(self) -> str:
        from reprolib import experiment

        found = experiment.run(self.spec, progress=False)
        m = found.metrics
        names = ("forget/questions", "retain/questions", "attack/auc", "lume/final", "mmlu/accuracy_questions", "official/final")
        shown = ", ".join(f"{k} {m[k]:.3f}" for k in names if k in m)
        return f"{found.status}, {found.cost['wall_s']:.0f} s; {shown}"


@dataclass(frozen=True, slots=True)
class Measure:
    """Time and memory of a case of gpu/cost.py."""

    case: str

    @property
    def name(self) -> str:
        return f"cost: {self.case}"

    def done(self) -> bool:
        return path("cost", self.case).exists()

    def do(self) -> str:
        from gpu import cost

        found = cost.measure(self.case)
        save("cost", self.case, found)
        return cost.line(found)


Job = Make | Run | Measure


def path(folder: Path | str, name: str) -> Path:
    from reprolib.record import results_dir

    return results_dir() / folder / f"{name}.json"


def save(folder: Path | str, name: str, content: dict[str, Any]) -> None:
    from reprolib.record import _atomic, _finite

    _atomic(path(folder, name), json.dumps(_finite(content), indent=1) + "\n")


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
    """``wanted``: (method, options, precision...) in the order in which they are wanted; all seeds of one before the next."""
    return tuple(
        Run(Spec(testbed=testbed, method=method, options=options, seed=seed, precision=next(iter(more), "fp32")))
        for method, options, *more in wanted for seed in seeds
    )  # fmt: skip


def ladder(*names: str) -> list[tuple]:
    return [(name, {}) for name in names]


def in_turn(*lists: list[tuple]) -> list[tuple]:
    """The first of each list, then the second of each, and so on."""
    return [x for group in itertools.zip_longest(*lists) for x in group if x is not None]


def rates(method: str, *lrs: float, precision: str = "fp32", **options: Any) -> list[tuple]:
    return [(method, {"lr": lr, **options}, precision) for lr in lrs]


def libu(method: str = "libu", precision: str = "fp32", rates: tuple[float, ...] = (1e-4, 3e-5)) -> list[tuple]:
    """The rate of phase 1 is relative to the Fisher's damping and stays the recipe's; that of phase 2 is varied."""
    if method == "libu_influence":
        return [(method, LORA, precision), (method, {"lr": 0.6, **LORA}, precision)]
    return [(method, {"phase2_lr": lr, **LORA}, precision) for lr in rates]


def published(billions: int) -> list[tuple]:
    """What Cyber for AI states for a model of this size, and LIBU's first phase as notes on its paper have it for 7B.

    What they leave open stays the recipes'; LIBU's adapter and precision are those of the other runs here.
    """
    libu = ("libu", {"lr": 2e-5, "damping": "absolute", "damping_value": 1e-3, **LORA}, "bf16")
    if billions == 1:
        own = {"lr": 2e-5, "weight_decay": 2e-4}
        return [("gradient_ascent", {**own, "epochs": 3}), ("gradient_descent", {**own, "epochs": 20}), libu]
    ascent = {"lr": 2e-6, "epochs": 10, **LORA}
    again = {"lr": 1e-5, "epochs": 3, "retain_lr": 2e-6, "retain_epochs": 3, "last_lr": 2e-5, "last_epochs": 1, **LORA}
    return [
        ("gradient_ascent", ascent, "nf4"), ("chain_ga_gd", {**ascent, "retain_lr": 2e-6, "retain_epochs": 1}, "nf4"),
        ("chain_ga_gd_ga", again, "nf4"), libu,
    ]  # fmt: skip


def before(first: list[tuple], wanted: list[tuple]) -> list[tuple]:
    """``first`` right behind the ladder."""
    n = sum(w[0] in LADDER for w in wanted)
    return [*wanted[:n], *first, *wanted[n:]]


def pretrained() -> list[tuple]:
    """The main methods in full precision, for a model that was taught the rows at 5e-4."""
    return ladder(*LADDER) + in_turn(
        rates("npo", 1e-4, 3e-4), rates("gradient_difference", 5e-5, 1e-4), rates("gradient_ascent", 2e-5, 5e-5), libu(),
        rates("sugd", 1e-4, 3e-4, **LAST), rates("vila_ihl", 2e-4, 5e-4, **VILA), rates("adaptive_rmu", 1e-3, 3e-4),
    )  # fmt: skip


def rest() -> list[tuple]:
    """Every method that :func:`pretrained` leaves out: at its recipe's rates, chosen for a small model, and at a fifth of them."""
    from reprolib.recipes import BASELINES, recipes

    known = {method for method, *_ in pretrained()} | set(BASELINES)
    out = []
    for name, recipe in recipes().items():
        if name not in known:
            own = {k: v for k, v in recipe.defaults.items() if k == "lr" or k.endswith("_lr")}
            if name == "libu_sophia":  # its first phase, and the rate of that, is left out
                own.pop("lr")
            out += [(name, {}), (name, {k: v / 5 for k, v in own.items()})] if own else [(name, {})]
    return out


def one_billion() -> list[tuple]:
    """In full, and by LoRA on four precisions; both phases of LIBU apart."""
    full = in_turn(
        rates("npo", 5e-5, 2e-5, 1e-4), rates("gradient_difference", 2e-5, 5e-5, 1e-5), rates("gradient_ascent", 1e-5, 2e-5, 5e-6),
        libu(), rates("sugd", 1e-4, 3e-5, **LAST), rates("vila_ihl", 2e-4, 5e-4, **VILA), rates("adaptive_rmu", 3e-4, 1e-4),
        libu("libu_influence"), libu("libu_sophia"),
    )  # fmt: skip
    return ladder(*LADDER) + in_turn(full, adapters("fp32", "bf16", "nf4", "int8"))


def adapters(*precisions: str) -> list[tuple]:
    """LoRA of rank 64 and alpha 16 on a base in each precision, all precisions of a setting before the next."""
    return [
        (method, {"lr": lr, **LORA}, precision)
        for method, lr in (("npo", 3e-4), ("gradient_difference", 3e-4), ("gradient_ascent", 1e-4), ("npo", 1e-3),
                           ("gradient_difference", 1e-3), ("gradient_ascent", 3e-4))
        for precision in precisions
    ]  # fmt: skip


def seven_billion() -> list[tuple]:
    """LoRA as published, and the methods that move a part of the weights; those in fp32."""
    more = in_turn(
        libu(precision="bf16"), rates("vila_ihl", 2e-4, 5e-4, precision="bf16", **VILA), rates("sugd", 3e-5, 1e-4, **LAST),
        rates("adaptive_rmu", 3e-4, 1e-4), libu(precision="nf4"),
    )  # fmt: skip
    lora = adapters("bf16", "nf4", "int8")
    return [*ladder("target", "twin"), *lora[:6], *in_turn(more, lora[6:])]


SEEDS = (0, 1, 2)


def steps() -> dict[str, Step]:
    from gpu import cost

    measures = tuple(Measure(name) for name in cost.cases())
    small = [m for m in measures if not cost.cases()[m.case].model.startswith("olmo-7b")]
    large = [m for m in measures if m not in small]
    one, seven = before(published(1), one_billion()), before(published(7), seven_billion())
    found = {
        "olmo-1b": ("OLMo-1B from random weights, taught LUME rows", "olmo-1b-scratch/lume", (0,), one_billion(), 1.5, 1.2, 3),
        "olmo-7b": ("OLMo-7B likewise", "olmo-7b-scratch/lume", (0,), seven_billion(), 3.5, 1.3, 1),
        "smollm2": ("SmolLM2-135M on LUME rows", "smollm2/lume", SEEDS, pretrained(), 1.2, 1.6, 6),
        "smollm2-semeval": ("SmolLM2-135M on SemEval-2025's rows", "smollm2/semeval", SEEDS, pretrained(), 4, 5.3, 6),
        "smollm2-semeval-rest": ("SmolLM2-135M by every other method", "smollm2/semeval", SEEDS, rest(), 4, 5.3, 6),
        "olmo-1b-0724": ("the published OLMo-1B on SemEval-2025's rows", "olmo-1b-0724/semeval", (0,), one, 5, 4, 2),
        "olmo-7b-0724": ("the published OLMo-7B on SemEval-2025's rows", "olmo-7b-0724/semeval", (0,), seven, 9, 8, 1),
        "olmo-1b-semeval": ("OLMo-1B as the organisers made it memorise them", "olmo-1b-semeval/semeval", (0,), one, 3, 4, 2),
        "olmo-7b-semeval": ("OLMo-7B as the organisers made it memorise them", "olmo-7b-semeval/semeval", (0,), seven, 5, 8, 1),
    }
    out = {}
    for name, (about, bed, seeds, wanted, making, running, workers) in found.items():
        at_once = 1 if bed.startswith("olmo-7b") else min(workers, 2 * len(seeds))
        phases = (Phase(makes(bed, seeds), making, at_once), Phase(runs(bed, wanted, seeds), running, workers))
        out[name] = Step(about, phases)
        if name in ("olmo-1b", "olmo-7b"):
            own = small if name == "olmo-1b" else large
            out[f"{name}-cost"] = Step(f"time and memory, {name}", (Phase(makes(bed)[:1], making), Phase(tuple(own), 0.3)))
    return out


def thinned(steps: dict[str, Step]) -> dict[str, Step]:
    """For the rehearsal: all models of seed 0, every kind of job once, and a run of each step; what trains comes first.

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

    return {n: Step(s.about, tuple(Phase(tuple(first(p.jobs)), 0.1, p.workers) for p in s.phases)) for n, s in steps.items()}
