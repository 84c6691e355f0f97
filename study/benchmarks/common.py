"""What both benchmarks need: interleaved timing, intervals of ratios, the machine's name, JSON, a table."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[2] / "results" / "benchmarks"


def interleave(
    contestants: Mapping[str, Callable[[int], Any]],
    rounds: int,
    *,
    before: Callable[[int], None] = lambda _: None,
    after: Callable[[int, dict[str, Any]], None] = lambda _, __: None,
    tick: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round. All run in every round, every other round in reverse order.

    ``before(round)`` and ``after(round, results)`` are not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        before(number)
        results = {}
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            results[name] = contestants[name](number)
            seconds[name].append(time.perf_counter() - began)
            tick()
        after(number, results)
    return seconds


def ratio(
    slow: Sequence[float], fast: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Median over rounds of slow / fast in the same round, with the bootstrap 95 % interval of that
    median.
    """
    values = np.asarray(slow, dtype=float) / np.asarray(fast, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), (0.025, 0.975))
    return {
        "median": round(float(np.median(values)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "rounds": len(values),
    }


def median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 5)


def shown(r: Mapping[str, Any]) -> str:
    return f"{r['median']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]"


def machine(threads: int) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_at_start": load and round(load, 2),
    }


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{p: version(p) for p in ("reprolib", "torch", "transformers")},
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as f:
        json.dump(content, f, indent=2)
        f.write("\n")
    os.chmod(part, 0o644)
    os.replace(part, path)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(str(r[c])) for r in (header, *rows)) for c in range(len(header))]
    lines = [
        "  ".join(str(x).ljust(w) for x, w in zip(r, widths, strict=True)).rstrip() for r in (header, *rows)
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
