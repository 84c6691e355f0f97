"""Unlearning for language models: methods, metrics, and the records of a reproducible study.

>>> import reprolib
>>> spec = reprolib.Spec(testbed="smoke/synthetic", method="npo", seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reprolib.corpus.rows import Corpus, Row
    from reprolib.experiment import run
    from reprolib.recipes import recipe, recipes
    from reprolib.record import Record, all_records
    from reprolib.spec import Spec

__version__ = "0.1.0"

_PUBLIC = {
    "Spec": "reprolib.spec",
    "run": "reprolib.experiment",
    "Record": "reprolib.record",
    "all_records": "reprolib.record",
    "recipe": "reprolib.recipes",
    "recipes": "reprolib.recipes",
    "Corpus": "reprolib.corpus.rows",
    "Row": "reprolib.corpus.rows",
}

__all__ = ["Corpus", "Record", "Row", "Spec", "all_records", "recipe", "recipes", "run"]


def __getattr__(name: str):
    # lazy, so that `import reprolib` costs milliseconds and optional packages are asked for only when used
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'reprolib' has no attribute {name!r}")
