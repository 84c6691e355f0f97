"""``reprolib evaluate``: any transformers checkpoint on LUME, SemEval or TOFU rows, part by part."""

from reprolib.assess.result import Assessment, Result
from reprolib.assess.run import assess

__all__ = ["Assessment", "Result", "assess"]
