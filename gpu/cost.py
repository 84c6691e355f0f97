"""Time and memory of training steps at true size, beside what reprolib.plan predicts; organisations and importance passes compared.

Cases of methods run the loop itself (reprolib.unlearn) on rows of 256 tokens, 51 of them predicted, 16 a side and step: what the
planner assumes. Times are between the ends of optimizer steps, so that everything in a step counts. Cases of organisations run the
contestants of benchmarks/step.py on rows as unequal as LUME's, those of importance benchmarks/importance.py's.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import itertools
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gpu import REHEARSAL, ROOT

TOKENS, LABELS, ROWS = 256, 51, 64  # of a row; rows a side
ROUNDS = 8  # of contests
TRAINING = ("importance", "loss", "blocks", "curvature", "step")  # phases of the planner that a case goes through
LORA, LAST, VILA = {"trainable": "lora-64-16"}, {"trainable": "last-8"}, {"rank": 64, "alpha": 16}


@dataclass(frozen=True, slots=True)
class Case:
    model: str  # preset
    method: str = ""  # a recipe, or "ceilings", "organisations", "importance"
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    micro_tokens: int | None = None
    checkpointing: bool = False


@functools.lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """By name, the most wanted of each model first."""
    out = {"ceilings": Case("smollm2", "ceilings")}

    def add(model: str, short: str, method: str, precision: str = "fp32", note: str = "", **options: Any) -> None:
        settings = {k: options.pop(k) for k in ("micro_tokens", "checkpointing") if k in options}
        name = "_".join(x for x in (short, method, options.get("trainable", ""), precision, note) if x)
        out[name] = Case(model, method, {"epochs": 3, **options}, precision, **settings)

    for model, short in (("olmo-1b-scratch", "olmo-1b"), ("smollm2", "smollm2")):
        for method in ("npo", "gradient_difference"):
            add(model, short, method, trainable="full")
        out[f"{short}_organisations"] = Case(model, "organisations")
    small = "olmo-1b-scratch", "olmo-1b"
    for precision in ("fp32", "bf16", "nf4", "int8"):
        add(*small, "npo", precision, **LORA)
    out["olmo-1b_importance"] = Case(small[0], "importance")
    for method, more in (("gradient_ascent", {"trainable": "full"}), ("kl_minimisation", {"trainable": "full"}),
                         ("so_npo", {"trainable": "full"}), ("adaptive_rmu", {}), ("sugd", {**LAST, "epochs": 1}),
                         ("libu", {**LORA, "phase2_epochs": 3}), ("vila_ihl", VILA), ("fila", VILA)):  # fmt: skip
        add(*small, method, **more)
    add(*small, "gradient_difference", note="checkpointing", trainable="full", checkpointing=True)
    large = "olmo-7b-scratch", "olmo-7b"
    for precision in ("bf16", "nf4", "int8"):
        add(*large, "npo", precision, **LORA)
    add(*large, "npo", "nf4", note="micro-1024", micro_tokens=1024, **LORA)  # for a GPU of 24 GB
    add(*large, "gradient_difference", "bf16", **LORA)
    out["olmo-7b_importance"] = Case(large[0], "importance", precision="bf16")
    add(*large, "sugd", **{**LAST, "epochs": 1})
    add(*large, "adaptive_rmu")
    add(*large, "libu", "bf16", **{**LORA, "phase2_epochs": 3})
    add(*large, "gradient_difference", note="micro-1024", trainable="full", micro_tokens=1024)  # all 7 billion, in fp32
    return out


def measure(name: str) -> dict[str, Any]:
    """Everything that a case's file holds."""
    from reprolib import record

    case = cases()[name]
    kinds = {"ceilings": ceilings, "organisations": organisations, "importance": importance}
    found = kinds.get(case.method, steps)(case)
    return {"name": name, "case": asdict(case), "gpu": gpu(), **found, "provenance": record.provenance()}


def line(found: dict[str, Any]) -> str:
    """The gist of a case, for the terminal."""
    gib = lambda x: f"{x / 2**30:.1f} GiB"  # noqa: E731
    if "stages" in found:
        parts = [f"{s['step_s']:.3f} s a step, {s['tokens_per_s']:,.0f} tokens/s" + (f", MFU {s['mfu']:.0%}" if s["mfu"] else "")
                 for s in found["stages"]]  # fmt: skip
        return "; ".join(parts) + f"; peak {gib(found['peak_bytes'])}, predicted {gib(found['predicted_peak_bytes'])}"
    if "bf16_tflops" in found:
        return f"{found['bf16_tflops']} TFLOP/s in bf16, copies at {found['copy_gb_s']} GB/s"
    if found["case"]["method"] == "importance":
        return ", ".join(f"fila takes {r:.2f} times as long as {name}" for name, r in found["ratio"].items())
    own = ((objective, name, r["median"]) for objective, ratios in found["ratio"].items() for name, r in ratios.items())
    return ", ".join(f"{objective}: {name} takes {r:.2f} times as long as shipped" for objective, name, r in own)


def gpu() -> dict[str, Any] | None:
    import torch

    from reprolib.models import device

    if not device.on_gpu():
        return None
    p = torch.cuda.get_device_properties(0)
    return {"name": p.name, "bytes": p.total_memory, "multiprocessors": p.multi_processor_count, "driver": device.driver_version(),
            "cuda": torch.version.cuda, "peak_tflops": sheet_tflops()}  # fmt: skip


def sheet_tflops() -> float | None:
    """The vendor's dense bf16 peak of this GPU, if the planner knows it."""
    import torch

    from reprolib.models import device
    from reprolib.plan import GPUS

    words = set(re.split("[ -]", torch.cuda.get_device_name() if device.on_gpu() else ""))
    return next((g.tflops for n, g in GPUS.items() if {w for w in n.split() if not w.endswith("GB")} <= words), None)


# --- a method --------------------------------------------------------------------------------------------------


def steps(case: Case) -> dict[str, Any]:
    """The loop on a memorised model (or on random weights, where the cache holds none)."""
    from reprolib.plan import Setting, predict
    from reprolib.recipes import recipe
    from reprolib.unlearn import n_steps, unlearn

    stages = recipe(case.method).build(case.options)
    setting = Setting(
        model=case.model, method=case.method, options=tuple(sorted(case.options.items())), precision=case.precision, tokens=TOKENS,
        labels=LABELS, micro_tokens=case.micro_tokens, checkpointing=case.checkpointing, forget_rows=ROWS, retain_rows=ROWS,
        **({"gpu_memory_gib": about["bytes"] / 2**30} if (about := gpu()) else {}),
    )  # fmt: skip
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
        "stages": out, "seconds": seconds, "status": outcome.status, "trained_parameters": outcome.trained_parameters,
        "notes": outcome.notes, "peak_bytes": peak,
        "predicted_peak_bytes": max(v for k, v in predicted.phases.items() if k in TRAINING), "predicted_phases": predicted.phases,
        "rows": {"tokens": TOKENS, "labels": LABELS, "a_side": ROWS},
    }  # fmt: skip


def stage_times(stage: Any, setting: Any, began: float, ends: list[float]) -> dict[str, Any]:
    """Seconds of a stage's steps but the first, which warms up, and what they come to."""
    from reprolib.plan import stage_flops

    flops, once, _ = stage_flops(stage, setting)
    terms = sum(t is not None for t in (stage.objective.forget, stage.objective.retain))
    sides = 1 if stage.schedule.pairing in ("interleaved", "alternating") else terms
    tokens = stage.schedule.batch_size * TOKENS * sides
    apart = [b - a for a, b in itertools.pairwise(ends[1:])]
    out = {"stage": stage.name, "steps": len(ends), "tokens": tokens, "flops_per_step": flops, "flops_once": once}
    if not apart:  # diverged at once
        return out | {"step_s": math.nan, "tokens_per_s": math.nan, "mfu": None}
    step, peak = statistics.median(apart), sheet_tflops()
    return out | {
        "until_first_step_s": ends[0] - began, "step_s": step, "step_s_low": min(apart), "step_s_high": max(apart),
        "tokens_per_s": tokens / step, "mfu": flops / step / (peak * 1e12) if peak else None,
    }  # fmt: skip


def load(case: Case):
    import torch
    from transformers import AutoModelForCausalLM

    from reprolib.errors import SpecError
    from reprolib.models import device
    from reprolib.models.testbeds import PRESETS

    folder = saved(case.model)
    if folder is not None:
        return device.load_lm(str(folder), case.precision).to(device.accelerator().device)  # type: ignore[arg-type]
    if case.precision in ("nf4", "int8"):
        raise SpecError(f"{case.precision} is made from saved weights, and the cache has no target of {case.model}; make it first.")
    with device.place():
        torch.manual_seed(0)
        dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
        return AutoModelForCausalLM.from_config(PRESETS[case.model].config, dtype=dtype).eval()


def saved(model: str) -> Path | None:
    """Where the cache has a target of this preset."""
    from reprolib.models import memorise
    from reprolib.models.testbeds import PRESETS, testbed

    for corpus in PRESETS[model].documents:
        if has_data(model, corpus):
            folder = memorise.folder_of(testbed(f"{model}/{corpus}"), "target", 0)
            if (folder / "config.json").exists():
                return folder
    return None


def has_data(model: str, corpus: str) -> bool:
    from reprolib.models.testbeds import PINNED

    return corpus == "synthetic" or (model, corpus) in PINNED or bool(os.environ.get("REPROLIB_DATA"))


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


@contextlib.contextmanager
def step_ends(ends: list[float]) -> Iterator[None]:
    """Put down when each optimizer step has ended on the GPU."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    handle = register_optimizer_step_post_hook(lambda *_: ends.append(clock()))
    try:
        yield
    finally:
        handle.remove()


def clock(reset: bool = False) -> float:
    """Seconds, all work on the GPU done; ``reset``: the peak of its memory counts from here."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        if reset:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return time.perf_counter()


def peak_bytes() -> int:
    from reprolib.models import device

    return device.peak_memory_bytes()


# --- the GPU itself, organisations, importance -----------------------------------------------------------------


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
    return {"bf16_tflops": round(2 * size**3 / product / 1e12, 1), "copy_gb_s": round(2 * source.numel() / copied / 1e9, 1)}


@contextlib.contextmanager
def benchmarks() -> Iterator[tuple[Any, Any, Any]]:
    """The modules common, step and importance of benchmarks/, which set themselves up for a CPU."""
    before = os.environ.get("REPROLIB_DEVICE")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import common
        import importance
        import step
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        os.environ.pop("REPROLIB_DEVICE", None) if before is None else os.environ.update({"REPROLIB_DEVICE": before})
    yield common, step, importance


def contest(case: Case, step: Any) -> Any:
    """The shape of a preset as a case of benchmarks/step.py, on rows as unequal as LUME's."""
    from reprolib.models.testbeds import PRESETS

    config = PRESETS[case.model].config
    return replace(
        step.CASES["mixed"], about=case.model, hidden=config.hidden_size, layers=config.num_hidden_layers,
        heads=config.num_attention_heads, vocabulary=config.vocab_size, tied=config.tie_word_embeddings,
        batch=4 if os.environ.get(REHEARSAL) else 16, rounds=3 if os.environ.get(REHEARSAL) else ROUNDS,
    )  # fmt: skip


def organisations(case: Case) -> dict[str, Any]:
    """The shipped step against the plain ones, GradDiff and NPO: peak memory one after another, seconds side by side."""
    from reprolib.models import device

    found: dict[str, Any] = {"ratio": {}, "seconds": {}, "peak_bytes": {}, "largest_relative_difference": {}}
    with benchmarks() as (common, step, _):
        shape = contest(case, step)
        with device.place():
            start = step.model(shape, 0)
        rows = step.rows(shape, 0), step.rows(shape, 1)
        for objective, names in step.OBJECTIVES.items():  # before any race, whose models would be counted
            found["peak_bytes"][objective] = {n: peak_of(n, step, shape, start, objective, rows) for n in names}
        for objective, names in step.OBJECTIVES.items():
            seconds, apart = race(names, common, step, shape, start, objective, rows)
            gc.collect()
            found["seconds"][objective] = {n: common.median(s) for n, s in seconds.items()}
            found["ratio"][objective] = {n: common.ratio(s, seconds["shipped"]) for n, s in seconds.items() if n != "shipped"}
            found["largest_relative_difference"][objective] = float(f"{apart:.1e}")
    return found | {"rows": "of LUME's lengths", "contest": asdict(shape)}


def contestant(name: str, step: Any, lm: Any, objective: str, rows: tuple) -> Any:
    """A runner of benchmarks/step.py on this device and in its arithmetic."""
    from reprolib.models import device

    on = device.accelerator()

    class Plain(step.Plain):
        @staticmethod
        def batch(tokens, chosen):
            return {k: v.to(on.device) for k, v in step.Plain.batch(tokens, chosen).items()}

        def step(self, chosen):
            with on.autocast():
                return super().step(chosen)

    with device.autocast():  # references
        if name == "shipped":
            return step.Shipped(lm, objective, *rows)
    return Plain(lm, objective, *rows, hf=name == "plain-hf")


def peak_of(name: str, step: Any, shape: Any, start: Any, objective: str, rows: tuple) -> int:
    """Bytes in three steps, over what the model that is copied holds."""
    clock(reset=True)
    held = peak_bytes()
    runner = contestant(name, step, copy.deepcopy(start), objective, rows)
    for number in range(3):
        runner.step(step.chosen(shape, number))
    return peak_bytes() - held


def race(names: Any, common: Any, step: Any, shape: Any, start: Any, objective: str, rows: tuple) -> tuple[dict, float]:
    """Seconds of each in every round, and how far their results were apart, relatively."""
    runners = {n: contestant(n, step, copy.deepcopy(start), objective, rows) for n in names}
    apart = [0.0]

    def timed(runner) -> Callable[[int], Any]:
        def one(number: int):
            result = runner.step(step.chosen(shape, number))
            clock()
            return result

        return one

    def same_weights(_: int) -> None:
        for n, r in runners.items():
            if n != "plain":
                r.lm.load_state_dict(runners["plain"].lm.state_dict())

    def agree(_: int, results: dict) -> None:
        want = results["plain"]
        apart[0] = max(apart[0], *(abs(x - y) / abs(y) for r in results.values() for x, y in zip(r, want, strict=True)))

    work = {n: timed(r) for n, r in runners.items()}
    common.interleave(work, 2, before=same_weights)
    return common.interleave(work, shape.rounds, before=same_weights, after=agree), apart[0]


def importance(case: Case) -> dict[str, Any]:
    """FILA's importance pass against VILA's, over the same rows once: seconds, parameters, memory."""
    found: dict[str, Any] = {"seconds": {}, "parameters": {}, "values_bytes": {}, "peak_bytes": {}, "ratio": {}}
    with benchmarks() as (_, step, module):
        lm = load(case)
        shape = replace(contest(case, step), vocabulary=lm.config.vocab_size, batch=4)
        rows = module.data(shape, step.ROWS, 0)
        rank = 8  # VILA's
        for name in ("vila", *module.CONTESTANTS):  # the first time to warm up
            began = clock(reset=True)
            notes = module.measure(name, shape, rank, lm, rows, 0)
            found["seconds"][name] = clock() - began
            found["peak_bytes"][name] = peak_bytes()
            found["parameters"][name] = int(notes["importance_parameters"])
            found["values_bytes"][name] = int(notes["importance_values_bytes"])
    found["ratio"] = {n: round(found["seconds"]["fila"] / s, 2) for n, s in found["seconds"].items() if n != "fila"}
    return found | {"rows": {"a_side": step.ROWS, "batch": shape.batch}, "rank": rank}
