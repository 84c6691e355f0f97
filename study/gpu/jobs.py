"""What a step consists of: a model to be made, a run, a measurement. A job knows whether it is done, and does
itself.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprolib.spec import Spec


@dataclass(frozen=True, slots=True)
class Make:
    """A target or twin, kept in the cache. What is kept of it for good: how it was trained, and what it
    knows.
    """

    testbed: str
    which: str
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.testbed}: {self.which}, seed {self.seed}"

    def _folder(self) -> Path:
        from reprolib.testbeds.beds import testbed
        from reprolib.testbeds.memorise import folder_of

        return folder_of(testbed(self.testbed), self.which, self.seed)

    def _log(self) -> list[dict[str, float]] | None:
        folder = self._folder()
        return (
            json.loads((folder / "training.json").read_text(encoding="utf-8"))
            if (folder / "config.json").exists()
            else None
        )

    def _card(self, log: list[dict[str, float]]) -> str:
        """By its training log: made again on another day, a model is another one."""
        from reprolib.identity import digest

        return f"{self._folder().name}-{digest(log)[:8]}"

    def done(self) -> bool:
        log = self._log()
        return log is not None and path("models", self._card(log)).exists()

    def do(self) -> str:
        from reprolib.evaluate.passes import Examination
        from reprolib.evaluate.summary import measure
        from reprolib.models import device
        from reprolib.provenance import provenance
        from reprolib.testbeds import memorise
        from reprolib.testbeds.beds import testbed
        from reprolib.testbeds.checks import REQUIREMENTS

        bed, there, began = testbed(self.testbed), self._log(), time.perf_counter()
        folder = memorise.get(bed, self.which, self.seed, progress=False)
        seconds, peak = time.perf_counter() - began, device.peak_memory_bytes()
        lm, tokenizer = memorise.load(bed, self.which, self.seed)
        metrics = measure(lm.to(device.accelerator().device), Examination.of(bed.corpus(), tokenizer))
        log = self._log()
        wanted = {k.partition(" ")[2]: v for k, v in REQUIREMENTS.items() if k.startswith(self.which)}
        unfit = {
            k: round(metrics[k], 4)
            for k, (low, high) in wanted.items()
            if k in metrics and not low <= metrics[k] <= high
        }
        about = {
            "testbed": self.testbed, "which": self.which, "seed": self.seed, "folder": folder.name,
            # where a call was killed between training and measuring, neither is known any more
            **({} if there is not None else {"seconds": round(seconds, 1), "peak_bytes": peak}),
            "parameters": lm.num_parameters(), "training": log, "unfit": unfit,
            "metrics": {k: round(v, 6) for k, v in metrics.items()}, "provenance": provenance(),
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
        names = (
            "forget/questions",
            "retain/questions",
            "attack/auc",
            "lume/final",
            "mmlu/accuracy_questions",
            "official/final",
        )
        shown = ", ".join(f"{k} {m[k]:.3f}" for k in names if k in m)
        return f"{found.status}, {found.cost['wall_s']:.0f} s; {shown}"


@dataclass(frozen=True, slots=True)
class Measure:
    """Time and memory of a case of study/gpu/cost.py."""

    case: str

    @property
    def name(self) -> str:
        return f"cost: {self.case}"

    def done(self) -> bool:
        return path("cost", self.case).exists()

    def do(self) -> str:
        from study.gpu import cost

        found = cost.measure(self.case)
        save("cost", self.case, found)
        return cost.line(found)


def path(folder: Path | str, name: str) -> Path:
    from reprolib.places import results_dir

    return results_dir() / folder / f"{name}.json"


def save(folder: Path | str, name: str, content: dict[str, Any]) -> None:
    from reprolib.places import finite, write_whole

    write_whole(path(folder, name), json.dumps(finite(content), indent=1) + "\n")


Job = Make | Run | Measure
