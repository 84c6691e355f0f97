"""Jobs one after another or side by side in processes on one GPU, until they are done or the time is over.

A job begins only if it should end in time, but the first of a call always; one that does not end in time is
ended, and begins again with the next call. Whatever is finished lies in results/ at once.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from study.gpu import carry
from study.gpu.jobs import Job
from study.gpu.prepare import prepare
from study.gpu.steps import Phase, Step

MARGIN = 15.0  # seconds at the end, to end processes and pack results


class Said(NamedTuple):
    """What became of a job."""

    ok: bool
    text: str
    seconds: float


def attempt(job: Job) -> Said:
    """Do a job; what it raises is said, and the memory that it held is free afterwards."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        ok, text = True, job.do()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ok, text = (
            False,
            f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})",
        )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Said(ok, text, time.perf_counter() - began)


def serve(pipe) -> None:
    """A process that does what comes through the pipe."""
    prepare()
    while (job := pipe.recv()) is not None:
        pipe.send(attempt(job))


class Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        self.pipe.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


class Runner:
    """Steps against the clock."""

    def __init__(
        self,
        minutes: float,
        workers: int | None = None,
        archive: Path | None = None,
        began: float | None = None,
    ):
        self.deadline = (began or time.monotonic()) + 60 * minutes - min(MARGIN, 6 * minutes)
        self.workers, self.archive = workers, archive
        self.failed: list[str] = []
        self.left: list[str] = []
        self.seen: list[float] = []  # seconds of the present phase's jobs
        self.begun = False

    @property
    def time_left(self) -> float:
        return self.deadline - time.monotonic()

    def step(self, name: str, step: Step) -> None:
        print(f"\n{name}: {step.about}", flush=True)
        for number, phase in enumerate(step.phases):
            todo = [j for j in phase.jobs if not j.done()]
            later = [j for p in step.phases[number + 1 :] for j in p.jobs]
            if later and all(j.done() for j in later):
                continue  # models that are not in the cache of this machine, and whose runs are all done
            count = phase.workers if self.workers is None else self.workers
            print(
                f"  {len(phase.jobs) - len(todo)} of {len(phase.jobs)} jobs done before; {max(1, count)}"
                " at a time",
                flush=True,
            )
            failed = len(self.failed)
            self._phase(phase, todo, count)
            if later and (self.left or len(self.failed) > failed):
                return  # what follows needs all of it

    def _phase(self, phase: Phase, todo: list[Job], count: int) -> None:
        waiting, longest = list(todo), 60 * phase.minutes

        def take() -> Job | None:
            expected = 0.0 if not self.begun else max(self.seen, default=longest)
            if not waiting or self.time_left <= expected:
                return None
            self.begun = True
            return waiting.pop(0)

        self.seen = []
        if count <= 0:  # in this process
            while (job := take()) is not None:
                self._say(job, attempt(job))
        elif waiting:
            self._side_by_side(take, min(count, len(todo)))
        self.left += [j.name for j in waiting]

    def _side_by_side(self, take, count: int) -> None:
        os.environ["REPROLIB_PROCESSES"] = str(count)  # records say with how many others they shared the GPU
        workers: list[Worker] = []
        try:
            while len(workers) < count and (job := take()) is not None:
                workers.append(Worker())
                workers[-1].give(job)
            while any(w.job for w in workers):
                ready = wait([w.pipe for w in workers if w.job], timeout=max(0.0, self.time_left))
                if not ready:
                    break
                for n, worker in enumerate(workers):
                    if worker.pipe not in ready:
                        continue
                    try:
                        said = worker.pipe.recv()
                    except (EOFError, OSError):
                        said = Said(False, "its process ended (killed for memory?)", 0.0)
                    self._say(worker.job, said)
                    worker.job, job = None, take()
                    if job is None:
                        continue
                    if not said.ok:  # a GPU's error can stay with its process
                        worker.end()
                        workers[n] = worker = Worker()
                    worker.give(job)
            self.left += [w.job.name for w in workers if w.job]
        finally:
            for w in workers:
                w.end()
            del os.environ["REPROLIB_PROCESSES"]

    def _say(self, job: Job, said: Said) -> None:
        print(
            f"  {'done' if said.ok else 'FAILED'} {said.seconds:5.0f} s  {job.name}: {said.text}",
            flush=True,
        )
        if said.ok:
            self.seen.append(said.seconds)
        else:
            self.failed.append(job.name)
        self.pack()

    def pack(self) -> int:
        return carry.pack(carry.kept(), *([self.archive] if self.archive else []))

    def report(self) -> None:
        count = self.pack()
        print(
            f"\n{count} result files in {os.environ['REPROLIB_RESULTS']}"
            + (f", and in {self.archive}" if self.archive else "")
        )
        if self.failed:
            print(f"{len(self.failed)} failed: {'; '.join(self.failed[:5])}")
        if not self.left:
            print("nothing is left to do." if not self.failed else "the same command tries them again.")
            return
        print(f"time is over with {len(self.left)} jobs left; the same command goes on.")
