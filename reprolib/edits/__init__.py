"""Changes of the weights that are no training: task vectors, merges, noise; several models in the place of
one.
"""

from __future__ import annotations

from reprolib.edits.base import Edit, Past
from reprolib.edits.contrast import Contrast, Reinitialise
from reprolib.edits.routing import Route
from reprolib.edits.weights import Extrapolate, MergeAdapters, Noise

__all__ = ["Contrast", "Edit", "Extrapolate", "MergeAdapters", "Noise", "Past", "Reinitialise", "Route"]
