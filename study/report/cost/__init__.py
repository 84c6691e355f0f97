"""What unlearning costs: benchmarks of this machine as ratios, true size as measured on a GPU, and as the
planner sees it beforehand.
"""

from study.report.cost.benchmarks import CONTESTANTS, OBJECTIVES, benchmark, importance, steps
from study.report.cost.counting import agreement, counted
from study.report.cost.on_gpu import ceilings, measured
from study.report.cost.page import answer
from study.report.cost.planned import predictions
from study.report.true_size import GIB

__all__ = [
    "CONTESTANTS",
    "GIB",
    "OBJECTIVES",
    "agreement",
    "answer",
    "benchmark",
    "ceilings",
    "counted",
    "importance",
    "measured",
    "predictions",
    "steps",
]
