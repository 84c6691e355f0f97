"""Time and memory of training steps at true size, beside what reprolib.plan predicts; organisations and
importance passes compared.

Cases of methods run the loop itself (reprolib.unlearn) on rows of 256 tokens, 51 of them predicted, 16 a side
and step: what the planner assumes. Times are between the ends of optimizer steps, so that everything in a
step counts. Cases of organisations run the contestants of study/benchmarks/step.py on rows as unequal as
LUME's, those of importance study/benchmarks/importance.py's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from study.gpu.cases import Case, cases
from study.gpu.clock import clock, gpu, peak_bytes, sheet_tflops, step_ends
from study.gpu.contests import importance, organisations
from study.gpu.subjects import load

TOKENS, LABELS, ROWS = 256, 51, 64  # of a row; rows a side

TRAINING = (
    "importance",
    "loss",
    "blocks",
    "curvature",
    "step",
)  # phases of the planner that a case goes through


def measure(name: str) -> dict[str, Any]:
    """Everything that a case's file holds."""
    from reprolib.provenance import provenance

    case = cases()[name]
    kinds = {"ceilings": ceilings, "organisations": organisations, "importance": importance}
    found = kinds.get(case.method, steps)(case)
    return {"name": name, "case": asdict(case), "gpu": gpu(), **found, "provenance": provenance()}


def line(found: dict[str, Any]) -> str:
    """The gist of a case, for the terminal."""
    gib = lambda x: f"{x / 2**30:.1f} GiB"  # noqa: E731
    if "stages" in found:
        parts = [
            f"{s['step_s']:.3f} s a step, {s['tokens_per_s']:,.0f} tokens/s"
            + (f", MFU {s['mfu']:.0%}" if s["mfu"] else "")
            for s in found["stages"]
        ]
        return (
            "; ".join(parts)
            + f"; peak {gib(found['peak_bytes'])}, predicted {gib(found['predicted_peak_bytes'])}"
        )
    if "bf16_tflops" in found:
        return f"{found['bf16_tflops']} TFLOP/s in bf16, copies at {found['copy_gb_s']} GB/s"
    if found["case"]["method"] == "importance":
        return ", ".join(f"fila takes {r:.2f} times as long as {name}" for name, r in found["ratio"].items())
    own = (
        (objective, name, r["median"])
        for objective, ratios in found["ratio"].items()
        for name, r in ratios.items()
    )
    return ", ".join(
        f"{objective}: {name} takes {r:.2f} times as long as shipped" for objective, name, r in own
    )


def steps(case: Case) -> dict[str, Any]:
    """The loop on a memorised model (or on random weights, where the cache holds none)."""
    from reprolib.plan.prediction import predict
    from reprolib.plan.setting import Setting
    from reprolib.recipes import recipe
    from reprolib.unlearn.loop import unlearn
    from reprolib.unlearn.order import n_steps

    stages = recipe(case.method).build(case.options)
    setting = Setting(
        model=case.model,
        method=case.method,
        options=tuple(sorted(case.options.items())),
        precision=case.precision,
        tokens=TOKENS,
        labels=LABELS,
        micro_tokens=case.micro_tokens,
        checkpointing=case.checkpointing,
        forget_rows=ROWS,
        retain_rows=ROWS,
        **({"gpu_memory_gib": about["bytes"] / 2**30} if (about := gpu()) else {}),
    )
    predicted = predict(setting)
    lm = load(case)
    forget, retain = even_rows(lm.config.vocab_size, 0), even_rows(lm.config.vocab_size, 1)
    ends: list[float] = []
    with runtime(case), step_ends(ends):
        began = clock(reset=True)
        _, outcome = unlearn(lm, stages, forget, retain, seed=0, points=0, progress=False)
        seconds, peak = clock() - began, peak_bytes()
    out, last = [], began
    for stage in stages:
        count = n_steps(stage.schedule, len(forget), len(retain))
        out.append(stage_times(stage, setting, last, ends[:count]))
        last, ends = ends[count - 1] if len(ends) >= count else last, ends[count:]
    return {
        "stages": out,
        "seconds": seconds,
        "status": outcome.status,
        "trained_parameters": outcome.trained_parameters,
        "notes": outcome.notes,
        "peak_bytes": peak,
        "predicted_peak_bytes": max(v for k, v in predicted.phases.items() if k in TRAINING),
        "predicted_phases": predicted.phases,
        "rows": {"tokens": TOKENS, "labels": LABELS, "a_side": ROWS},
    }


def stage_times(stage: Any, setting: Any, began: float, ends: list[float]) -> dict[str, Any]:
    """Seconds of a stage's steps but the first, which warms up, and what they come to."""
    from reprolib.plan.prediction import stage_flops

    flops, once, _ = stage_flops(stage, setting)
    terms = sum(t is not None for t in (stage.objective.forget, stage.objective.retain))
    sides = 1 if stage.schedule.pairing in ("interleaved", "alternating") else terms
    tokens = stage.schedule.batch_size * TOKENS * sides
    apart = [b - a for a, b in itertools.pairwise(ends[1:])]
    out = {
        "stage": stage.name,
        "steps": len(ends),
        "tokens": tokens,
        "flops_per_step": flops,
        "flops_once": once,
    }
    if not apart:  # diverged at once
        return out | {"step_s": math.nan, "tokens_per_s": math.nan, "mfu": None}
    step, peak = statistics.median(apart), sheet_tflops()
    return out | {
        "until_first_step_s": ends[0] - began,
        "step_s": step,
        "step_s_low": min(apart),
        "step_s_high": max(apart),
        "tokens_per_s": tokens / step,
        "mfu": flops / step / (peak * 1e12) if peak else None,
    }


def even_rows(vocabulary: int, seed: int):
    import torch

    from reprolib.corpus.batching import Tokens

    ids = torch.randint(2, vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(seed))
    return Tokens(tuple(map(tuple, ids.tolist())), (TOKENS - LABELS,) * ROWS, ("answer",) * ROWS)


@contextlib.contextmanager
def runtime(case: Case) -> Iterator[None]:
    """The settings of a case that are no part of a spec."""
    own = {"REPROLIB_GRADIENT_CHECKPOINTING": "1" if case.checkpointing else None,
           "REPROLIB_MICRO_TOKENS": str(case.micro_tokens) if case.micro_tokens else None}  # fmt: skip
    before = {k: os.environ.get(k) for k in own}

    def put(values: dict[str, str | None]) -> None:
        for k, v in values.items():
            os.environ.pop(k, None) if v is None else os.environ.update({k: v})

    put({k: v if v is not None else before[k] for k, v in own.items()})
    try:
        yield
    finally:
        put(before)


def ceilings(case: Case) -> dict[str, Any]:
    """What the GPU reaches on a large bf16 matrix product and a large copy."""
    import torch

    from reprolib.models import device

    size = 8192 if device.on_gpu() else 64
    with device.place():
        a, b = (torch.randn(size, size).to(torch.bfloat16) for _ in range(2))
        source = torch.empty(size * size * 32, dtype=torch.uint8)
        target = torch.empty_like(source)

    def best(work: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(13):
            began = clock()
            work()
            seconds.append(clock() - began)
        return statistics.median(seconds[3:])

    product, copied = best(lambda: a @ b), best(lambda: target.copy_(source))
    return {
        "bf16_tflops": round(2 * size**3 / product / 1e12, 1),
        "copy_gb_s": round(2 * source.numel() / copied / 1e9, 1),
    }
