"""Probes by name: everything that is measured of a model besides the core evaluation."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from reprolib.errors import SpecError, unknown
from reprolib.evaluate.passes import TokenStatistics, token_statistics
from reprolib.evaluate.subject import Subject
from reprolib.probes import attacks, fluency, muse, prompts, quantization, relearning, tofu
from reprolib.probes.base import Probe
from reprolib.versions import SUITES


def own() -> dict[str, Probe]:
    """The probes of this package."""
    return {m.PROBE.name: m.PROBE for m in (attacks, tofu, muse, fluency, relearning, quantization, prompts)}


@cache
def probes() -> dict[str, Probe]:
    """All probes: those of this package, then those of installed packages (entry-point group
    ``reprolib.metrics``).
    """
    known = own()
    for point in entry_points(group="reprolib.metrics"):
        if point.name not in known:
            known[point.name] = point.load()
    return known


def suite(name: str) -> tuple[Probe, ...]:
    """The probes that a run's record holds: of this package only, so that the same spec gives the same record
    everywhere.
    """
    if name not in SUITES:
        raise SpecError(unknown("suite", name, ("core", *SUITES)))
    return tuple(p for p in own().values() if p.suite == name)


__all__ = ["SUITES", "Probe", "Subject", "TokenStatistics", "own", "probes", "suite", "token_statistics"]
