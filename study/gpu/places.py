"""Folders and environment of the GPU playbook."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DEFAULTS = {
    "REPROLIB_RESULTS": str(ROOT / "results" / "gpu"),
    "REPROLIB_CACHE": str(ROOT / ".cache"),
    "REPROLIB_CHECKPOINT_BYTES": str(32 << 20),  # a run of minutes is begun again sooner than saved ten times
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_ALLOC_CONF": (
        "expandable_segments:True"
    ),  # several processes on one GPU: none should hold what it does not use
    "OMP_NUM_THREADS": "2",
}

PRETEND = "GPU_PRETEND"  # set: compute as on a GPU, without one (study/gpu/pretend.py)
REHEARSAL = "GPU_REHEARSAL"  # a folder: everything at toy size in there
