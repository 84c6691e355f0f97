"""Records by method: read where ``results/`` holds them, computed where not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reprolib import experiment
from reprolib.record import Record
from reprolib.spec import Spec
from study.grid import study_seeds
from study.readings.quantities import LADDER


def record(spec: Spec | None = None, **fields: Any) -> Record:
    """The record of ``spec`` (or of ``Spec(**fields)``): the one way by which pages and the search come to
    compute anything.
    """
    return experiment.run(spec, **fields)


def seeds(seed: int | None) -> tuple[int, ...]:
    """The seed of a page's parameter, or all seeds of the study."""
    return study_seeds() if seed is None else (seed,)


def gather(
    methods: Iterable[str], testbed: str, seed: int | None = None, *, ladder: bool = True, **fields: Any
) -> dict[str, list[Record]]:
    """Records by method: read where ``results/`` holds them, computed where not. The sanity ladder comes
    first.
    """
    out = {}
    for name in (*LADDER, *methods) if ladder else tuple(methods):
        own = fields if name not in LADDER else {k: v for k, v in fields.items() if k == "suite"}
        out[name] = [record(testbed=testbed, method=name, seed=s, **own) for s in seeds(seed)]
    return out


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spec fields of a method page's ``options`` parameter."""
    return {"options": dict(options)} if options else {}
