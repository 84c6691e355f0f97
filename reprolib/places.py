"""Where things are: the project, results and the cache, from environment variables; and how files are written
whole.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    return Path(os.environ.get("REPROLIB_CACHE", ".cache")).absolute()


def project_root() -> Path:
    """The nearest folder upwards that holds ``study.yml``; the working directory if none does."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "study.yml").exists()), here)


def results_dir() -> Path:
    """Where records live: REPROLIB_RESULTS, or ``results`` in the project."""
    return Path(os.environ.get("REPROLIB_RESULTS") or project_root() / "results").absolute()


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """NaN and infinities as null: they are not JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
