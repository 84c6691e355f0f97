"""This GPU, and how time and memory are taken on it."""

from __future__ import annotations

import contextlib
import gc
import re
import time
from collections.abc import Iterator
from typing import Any


def gpu() -> dict[str, Any] | None:
    import torch

    from reprolib.models import device

    if not device.on_gpu():
        return None
    p = torch.cuda.get_device_properties(0)
    return {
        "name": p.name,
        "bytes": p.total_memory,
        "multiprocessors": p.multi_processor_count,
        "driver": device.driver_version(),
        "cuda": torch.version.cuda,
        "peak_tflops": sheet_tflops(),
    }


def sheet_tflops() -> float | None:
    """The vendor's dense bf16 peak of this GPU, if the planner knows it."""
    import torch

    from reprolib.models import device
    from reprolib.plan.shapes import GPUS

    words = set(re.split("[ -]", torch.cuda.get_device_name() if device.on_gpu() else ""))
    return next(
        (g.tflops for n, g in GPUS.items() if {w for w in n.split() if not w.endswith("GB")} <= words),
        None,
    )


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
