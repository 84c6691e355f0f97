"""From a model to numbers: one teacher-forced pass, one generation pass, per-row scores kept."""

from reprolib.evaluate.passes import Examination, Scores, TokenStatistics, teacher_forced, token_statistics
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.evaluate.summary import evaluate, measure

__all__ = [
    "Evaluation",
    "Examination",
    "Scores",
    "Subject",
    "TokenStatistics",
    "evaluate",
    "measure",
    "teacher_forced",
    "token_statistics",
]
