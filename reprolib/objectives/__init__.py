"""What a stage minimises. One file a family; pure functions beside their equations."""

from reprolib.errors import SpecError, unknown
from reprolib.objectives.base import Control, Loss, Objective, References, Sources, StepBatch, Term
from reprolib.objectives.distillation import CEU, UNDIAL, WHP, SoulKL
from reprolib.objectives.feedback import Feedback, Ramp
from reprolib.objectives.hinge import IHL
from reprolib.objectives.likelihood import KL, NLL, Ascent, KLAndNLL
from reprolib.objectives.npo import NPO
from reprolib.objectives.pdu import PDU, DualAscent
from reprolib.objectives.preference import DPO, Other
from reprolib.objectives.rmu import Anchor, Misdirect
from reprolib.objectives.simnpo import SimNPO
from reprolib.objectives.weighted import WGA, SatImp

RETAIN_TERMS: dict[str, Term] = {"nll": NLL(), "kl": KL(), "soul-kl": SoulKL()}


def retain_term(name: str) -> Term:
    """The retain term that a recipe's ``retain`` option names."""
    if name not in RETAIN_TERMS:
        raise SpecError(unknown("retain term", name, RETAIN_TERMS))
    return RETAIN_TERMS[name]


__all__ = [
    "CEU",
    "DPO",
    "IHL",
    "KL",
    "NLL",
    "NPO",
    "PDU",
    "RETAIN_TERMS",
    "UNDIAL",
    "WGA",
    "WHP",
    "Anchor",
    "Ascent",
    "Control",
    "DualAscent",
    "Feedback",
    "KLAndNLL",
    "Loss",
    "Misdirect",
    "Objective",
    "Other",
    "Ramp",
    "References",
    "SatImp",
    "SimNPO",
    "SoulKL",
    "Sources",
    "StepBatch",
    "Term",
    "retain_term",
]
