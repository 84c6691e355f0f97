"""What a probe is: a question to one model, answered in numbers. Each file beside this one asks one.

The core evaluation (:mod:`reprolib.evaluate`) belongs to every run. Probes hold the rest of what the field
measures, in two suites: ``wide`` (other numbers of the same model, from shared passes) and ``stress`` (what
is left when the model is trained again, quantized, or asked in other ways).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reprolib.evaluate.subject import Evaluation, Subject

Suite = Literal["core", "wide", "stress", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a model. ``ask`` returns metrics named ``<probe>/...`` and columns aligned with
    ``Subject.rows``.
    """

    name: str
    title: str
    suite: Suite
    cost: str  # in passes over the data
    ask: Callable[[Subject], Evaluation]
    needs: tuple[str, ...] = ()  # "target", "twin": models without which it cannot be asked
