"""Memory and time of a run, predicted from a model's configuration: no GPU, no weights, nothing
downloaded.
"""

from reprolib.plan.memory import stage_parts, terms_of
from reprolib.plan.prediction import (
    Comparison,
    Plan,
    Remedy,
    fits,
    needed,
    plan,
    predict,
    remedies,
    stage_flops,
)
from reprolib.plan.setting import GIB, Part, Setting

__all__ = [
    "GIB",
    "Comparison",
    "Part",
    "Plan",
    "Remedy",
    "Setting",
    "fits",
    "needed",
    "plan",
    "predict",
    "remedies",
    "stage_flops",
    "stage_parts",
    "terms_of",
]
