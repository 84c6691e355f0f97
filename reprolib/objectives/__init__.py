"""What a stage minimises. One file a family; pure functions beside their equations."""

from reprolib.errors import SpecError, unknown
from reprolib.objectives.base import Loss, Objective, References, StepBatch
from reprolib.objectives.likelihood import KL, NLL, Ascent
from reprolib.objectives.npo import NPO

RETAIN_TERMS = {"nll": NLL(), "kl": KL()}


def retain_term(name: str) -> NLL | KL:
    """The retain term that a recipe's ``retain`` option names."""
    if name not in RETAIN_TERMS:
        raise SpecError(unknown("retain term", name, RETAIN_TERMS))
    return RETAIN_TERMS[name]


__all__ = ["KL", "NLL", "NPO", "Ascent", "Loss", "Objective", "References", "StepBatch", "retain_term"]
