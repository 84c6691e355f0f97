"""Which rows a step sees, how many steps a stage has, and when the run is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from reprolib.corpus.batching import Tokens, buckets, collate
from reprolib.objectives import StepBatch
from reprolib.recipes.base import Schedule
from reprolib.seeds import derive

Rows = tuple[list[int] | None, list[int] | None]  # numbers of the forget and the retain rows of a step


def n_steps(schedule: Schedule, n_forget: int, n_retain: int) -> int:
    """Optimizer steps of a stage; an epoch is a pass over the forget rows (retain rows if only those are
    used).
    """
    if schedule.pairing in ("interleaved", "alternating"):
        return sum(
            sum(chunk_steps(schedule, len(c), n_retain))
            for c in chunks(list(range(n_forget)), schedule.chunk)
        )
    rows = n_retain if schedule.pairing == "retain" else n_forget
    return max(1, round(schedule.epochs * math.ceil(rows / schedule.batch_size)))


def chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def chunk_steps(schedule: Schedule, n_chunk: int, n_retain: int) -> tuple[int, int]:
    """Forget steps and retain steps for one chunk of an interleaved or alternating stage."""
    own = max(1, round(schedule.epochs * math.ceil(n_chunk / schedule.batch_size)))
    if schedule.pairing == "interleaved":
        return own, own * schedule.ratio
    shared = max(1, round(schedule.share * n_retain))
    return own, max(1, round(schedule.epochs * math.ceil(shared / schedule.batch_size)))


def measuring_points(total: int, points: int) -> set[int]:
    """At most ``points`` step numbers in 1..total at equal distances, the last one always among them."""
    if total == 0 or points == 0:
        return set()
    return {max(1, round(total * (k + 1) / points)) for k in range(points)}


def rate(schedule: Schedule, total: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step (counted from 0)."""
    warm = schedule.warmup * total

    def factor(step: int) -> float:
        up = min(1.0, (step + 1) / warm) if warm else 1.0
        down = 1.0 if schedule.decay == "constant" else max(0.0, (total - step) / max(1.0, total - warm))
        return min(up, down)

    return factor


def steps(schedule: Schedule, forget: Tokens, retain: Tokens, seed: int, stage: int) -> Iterator[Rows]:
    """Row numbers (forget, retain) of each step, without end. Every epoch reshuffles; retain cycles through
    all its rows.
    """
    size = schedule.batch_size
    both = schedule.pairing == "paired"

    def shuffled(side: str, n: int, epoch: int) -> list[int]:
        return torch.randperm(
            n, generator=torch.Generator().manual_seed(derive(seed, stage, "order", side, epoch))
        ).tolist()

    def cycle(side: str, n: int) -> Iterator[int]:
        epoch = 0
        while True:
            yield from shuffled(side, n, epoch)
            epoch += 1

    endless = cycle("retain", len(retain))
    if schedule.pairing in ("interleaved", "alternating"):
        yield from _chunked(schedule, len(forget), len(retain), shuffled, endless)
        return
    main, n = ("retain", len(retain)) if schedule.pairing == "retain" else ("forget", len(forget))
    epoch = 0
    while True:
        order = shuffled(main, n, epoch) if both or main == "forget" else [next(endless) for _ in range(n)]
        for first in range(0, n, size):
            rows = order[first : first + size]
            if main == "retain":
                yield None, rows
            else:
                # as many retain rows in every step, also where the last forget batch is short
                yield rows, ([next(endless) for _ in range(min(size, len(retain)))] if both else None)
        epoch += 1


def _chunked(schedule: Schedule, n_forget: int, n_retain: int, shuffled, endless):
    size = schedule.batch_size
    for number, chunk in enumerate(chunks(shuffled("forget", n_forget, 0), schedule.chunk)):
        own, kept = chunk_steps(schedule, len(chunk), n_retain)

        def passes(rows: list[int], side: str, count: int, number: int = number):
            epoch = 0
            while True:  # each pass in an order of its own
                order = shuffled(f"{side}-{number}", len(rows), epoch)
                for part in chunks([rows[i] for i in order], size):
                    if count == 0:
                        return
                    count -= 1
                    yield part
                epoch += 1

        if schedule.pairing == "interleaved":
            for part in passes(chunk, "chunk", own):
                yield part, None
                for _ in range(schedule.ratio):
                    yield None, [next(endless) for _ in range(min(size, n_retain))]
        else:
            drawn = shuffled(f"share-{number}", n_retain, 0)[: max(1, round(schedule.share * n_retain))]
            yield from ((part, None) for part in passes(chunk, "chunk", own))
            yield from ((None, part) for part in passes(drawn, "anneal", kept))


def micro_batches(
    rows: Rows,
    forget: Tokens,
    retain: Tokens,
    max_tokens: int,
    to: torch.device,
    other: Tokens | None = None,
) -> Iterator[StepBatch]:
    """Length-sorted parts of a step; every part knows the units of the whole step, so that the mean is the
    step's.
    """
    sides = {"forget": (forget, rows[0] or []), "retain": (retain, rows[1] or [])}
    units = {}
    for side, (tokens, chosen) in sides.items():
        units[f"{side}/row"] = len(chosen)
        units[f"{side}/token"] = sum(tokens.n_labels(i) for i in chosen)
    if other is not None:
        units["forget/other"] = sum(other.n_labels(i) for i in sides["forget"][1])
    for side, (tokens, chosen) in sides.items():
        for chunk in buckets(tokens, chosen, max_tokens):
            batch = collate(tokens, chunk)
            if side == "forget" and other is not None:
                batch = replace(batch, other=collate(other, chunk))
            batch = batch.to(to)
            yield StepBatch(batch if side == "forget" else None, batch if side == "retain" else None, units)
