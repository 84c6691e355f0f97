"""Organisations of a step, and importance passes, against each other."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from study.gpu.cases import Case
from study.gpu.clock import clock, peak_bytes
from study.gpu.places import REHEARSAL, ROOT
from study.gpu.subjects import load

ROUNDS = 8


@contextlib.contextmanager
def benchmarks() -> Iterator[tuple[Any, Any, Any]]:
    """common, contestants and importance of study/benchmarks/, which set themselves up for a CPU."""
    before = os.environ.get("REPROLIB_DEVICE")
    sys.path.insert(0, str(ROOT / "study" / "benchmarks"))
    try:
        import common
        import contestants
        import importance
    finally:
        sys.path.remove(str(ROOT / "study" / "benchmarks"))
        if before is None:
            os.environ.pop("REPROLIB_DEVICE", None)
        else:
            os.environ["REPROLIB_DEVICE"] = before
    yield common, contestants, importance


def contest(case: Case, contestants: Any) -> Any:
    """The shape of a preset as a case of study/benchmarks/, on rows as unequal as LUME's."""
    from reprolib.testbeds.presets import PRESETS

    config = PRESETS[case.model].config
    return replace(
        contestants.CASES["mixed"], about=case.model, hidden=config.hidden_size,
        layers=config.num_hidden_layers, heads=config.num_attention_heads,
        vocabulary=config.vocab_size, tied=config.tie_word_embeddings,
        batch=4 if os.environ.get(REHEARSAL) else 16, rounds=3 if os.environ.get(REHEARSAL) else ROUNDS,
    )  # fmt: skip


def organisations(case: Case) -> dict[str, Any]:
    """The shipped step against the plain ones, GradDiff and NPO: peak memory one after another, seconds side
    by side.
    """
    from reprolib.models import device

    found: dict[str, Any] = {
        "ratio": {},
        "seconds": {},
        "peak_bytes": {},
        "largest_relative_difference": {},
    }
    with benchmarks() as (common, contestants, _):
        shape = contest(case, contestants)
        with device.place():
            start = contestants.model(shape, 0)
        rows = contestants.rows(shape, 0), contestants.rows(shape, 1)
        # before any race, whose models would be counted
        for objective, names in contestants.OBJECTIVES.items():
            found["peak_bytes"][objective] = {
                n: peak_of(n, contestants, shape, start, objective, rows) for n in names
            }
        for objective, names in contestants.OBJECTIVES.items():
            seconds, apart = race(names, common, contestants, shape, start, objective, rows)
            gc.collect()
            found["seconds"][objective] = {n: common.median(s) for n, s in seconds.items()}
            found["ratio"][objective] = {
                n: common.ratio(s, seconds["shipped"]) for n, s in seconds.items() if n != "shipped"
            }
            found["largest_relative_difference"][objective] = float(f"{apart:.1e}")
    return found | {"rows": "of LUME's lengths", "contest": asdict(shape)}


def contestant(name: str, contestants: Any, lm: Any, objective: str, rows: tuple) -> Any:
    """A runner of study/benchmarks/contestants.py on this device and in its arithmetic."""
    from reprolib.models import device

    on = device.accelerator()

    class Plain(contestants.Plain):
        @staticmethod
        def batch(tokens, chosen):
            return {k: v.to(on.device) for k, v in contestants.Plain.batch(tokens, chosen).items()}

        def step(self, chosen):
            with on.autocast():
                return super().step(chosen)

    with device.autocast():  # references
        if name == "shipped":
            return contestants.Shipped(lm, objective, *rows)
    return Plain(lm, objective, *rows, hf=name == "plain-hf")


def peak_of(name: str, contestants: Any, shape: Any, start: Any, objective: str, rows: tuple) -> int:
    """Bytes in three steps, over what the model that is copied holds."""
    clock(reset=True)
    held = peak_bytes()
    runner = contestant(name, contestants, copy.deepcopy(start), objective, rows)
    for number in range(3):
        runner.step(contestants.chosen(shape, number))
    return peak_bytes() - held


def race(
    names: Any, common: Any, contestants: Any, shape: Any, start: Any, objective: str, rows: tuple
) -> tuple[dict, float]:
    """Seconds of each in every round, and how far their results were apart, relatively."""
    runners = {n: contestant(n, contestants, copy.deepcopy(start), objective, rows) for n in names}
    apart = [0.0]

    def timed(runner) -> Callable[[int], Any]:
        def one(number: int):
            result = runner.step(contestants.chosen(shape, number))
            clock()
            return result

        return one

    def same_weights(_: int) -> None:
        for n, r in runners.items():
            if n != "plain":
                r.lm.load_state_dict(runners["plain"].lm.state_dict())

    def agree(_: int, results: dict) -> None:
        want = results["plain"]
        apart[0] = max(
            apart[0],
            *(abs(x - y) / abs(y) for r in results.values() for x, y in zip(r, want, strict=True)),
        )

    work = {n: timed(r) for n, r in runners.items()}
    common.interleave(work, 2, before=same_weights)
    return common.interleave(work, shape.rounds, before=same_weights, after=agree), apart[0]


def importance(case: Case) -> dict[str, Any]:
    """FILA's importance pass against VILA's, over the same rows once: seconds, parameters, memory."""
    found: dict[str, Any] = {
        "seconds": {},
        "parameters": {},
        "values_bytes": {},
        "peak_bytes": {},
        "ratio": {},
    }
    with benchmarks() as (_, contestants, module):
        lm = load(case)
        shape = replace(contest(case, contestants), vocabulary=lm.config.vocab_size, batch=4)
        rows = module.data(shape, contestants.ROWS, 0)
        rank = 8  # VILA's
        for name in ("vila", *module.CONTESTANTS):  # the first time to warm up
            began = clock(reset=True)
            notes = module.measure(name, shape, rank, lm, rows, 0)
            found["seconds"][name] = clock() - began
            found["peak_bytes"][name] = peak_bytes()
            found["parameters"][name] = int(notes["importance_parameters"])
            found["values_bytes"][name] = int(notes["importance_values_bytes"])
    found["ratio"] = {
        n: round(found["seconds"]["fila"] / s, 2) for n, s in found["seconds"].items() if n != "fila"
    }
    return found | {"rows": {"a_side": contestants.ROWS, "batch": shape.batch}, "rank": rank}
