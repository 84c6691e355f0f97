"""Where a result comes from: commit, versions, machine and time."""

from __future__ import annotations

import datetime
import functools
import subprocess
from pathlib import Path
from typing import Any

from reprolib.models import device

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers", "numpy")


def provenance() -> dict[str, Any]:
    """Commit, versions, hardware and time: what a page prints under its results."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    commit, dirty = git_state()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": versions,
        "machine": device.machine(),
        "time": now,
    }


@functools.lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """(commit, whether package sources differ from it) of the tree that this package runs from."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None, None
