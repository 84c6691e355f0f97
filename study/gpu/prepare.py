"""What every process of the playbook does before torch is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from study.gpu.places import DEFAULTS, PRETEND, REHEARSAL, ROOT


def prepare() -> None:
    """Folders, what was carried here, and the rehearsal's toy sizes. For every process, before torch is
    imported.
    """
    given = os.environ.get(REHEARSAL)
    if given:
        os.environ |= {
            "REPROLIB_RESULTS": str(Path(given) / "results"),
            "REPROLIB_CACHE": str(Path(given) / "cache"),
        }
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from study.gpu import carry

    carry.settle()
    if os.environ.get(PRETEND):
        if not given:
            from reprolib.errors import SpecError

            raise SpecError(
                f"{PRETEND} is set without a rehearsal: a pretended GPU makes no results; unset it, or add"
                " --rehearse."
            )
        from study.gpu import pretend

        pretend.install()
    if given:
        from study.gpu import rehearse

        rehearse.install(Path(given))
