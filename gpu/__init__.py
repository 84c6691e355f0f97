"""Records at true size on one GPU, in steps of minutes: README.md beside this says in which order, run with ``python -m gpu``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {
    "REPROLIB_RESULTS": str(ROOT / "results" / "gpu"),
    "REPROLIB_CACHE": str(ROOT / ".cache"),
    "REPROLIB_CHECKPOINT_BYTES": str(32 << 20),  # a run of minutes is begun again sooner than saved ten times
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # several processes on one GPU: none should hold what it does not use
    "OMP_NUM_THREADS": "2",
}
PRETEND = "GPU_PRETEND"  # set: compute as on a GPU, without one (gpu/pretend.py)
REHEARSAL = "GPU_REHEARSAL"  # a folder: everything at toy size in there


def prepare() -> None:
    """Folders, what was carried here, and the rehearsal's toy sizes. For every process, before torch is imported."""
    given = os.environ.get(REHEARSAL)
    if given:
        os.environ |= {"REPROLIB_RESULTS": str(Path(given) / "results"), "REPROLIB_CACHE": str(Path(given) / "cache")}
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from gpu import carry

    carry.settle()
    if os.environ.get(PRETEND):
        if not given:
            from reprolib.errors import SpecError

            raise SpecError(f"{PRETEND} is set without a rehearsal: a pretended GPU makes no results; unset it, or add --rehearse.")
        from gpu import pretend

        pretend.install()
    if given:
        from gpu import rehearse

        rehearse.install(Path(given))
    from reprolib.localise import fila
    from reprolib.models import device

    if device.on_gpu():
        fila.EXACT_UP_TO = 512  # 112 exact SVDs of 2048 x 8192 in double precision take a GPU longer than the unlearning
