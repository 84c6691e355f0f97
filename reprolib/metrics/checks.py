"""What statistics and metrics ask of their input, and the error that they raise."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprolib.errors import ReprolibError


class MetricError(ReprolibError):
    """A metric was given values that it is not defined for."""


# --- checks shared by the modules of this package ------------------------------------------------


def vector(name: str, values: Any, *, ndim: int = 1, finite: bool = True) -> np.ndarray:
    """``values`` as a float64 array of ``ndim`` axes, not empty, without NaN (and infinities if
    ``finite``).
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise MetricError(
            f"{name} must be numbers; got {type(values).__name__}; allowed: a {ndim}-axis array of floats."
            " Convert it to a numeric array first."
        ) from None
    if array.ndim != ndim or array.size == 0:
        raise MetricError(
            f"{name} has shape {array.shape}; allowed: {ndim} axis/axes with at least one value. "
            "Check that the rows were selected and reshaped as meant."
        )
    bad = ~np.isfinite(array) if finite else np.isnan(array)
    if bad.any():
        raise MetricError(
            f"{name} has {int(bad.sum())} value(s) that are {'not finite' if finite else 'NaN'}, the first"
            f" at index {tuple(int(i) for i in np.argwhere(bad)[0])}; allowed:"
            f" {'finite numbers' if finite else 'no NaN'}. Look for a diverged model or an empty answer in"
            " that row."
        )
    return array


def share(name: str, value: float) -> float:
    """``value`` as a float in [0, 1]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise MetricError(
            f"{name} must be a number; got {value!r}; allowed: 0 to 1. Pass one finished score."
        ) from None
    if not 0.0 <= number <= 1.0:  # also catches NaN
        raise MetricError(
            f"{name} is {number}; allowed: 0 to 1. Divide percentages by 100, and look for an empty group"
            " if it is NaN."
        )
    return number


def check_level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise MetricError(
            f"level is {level!r}; allowed: strictly between 0 and 1. Use 0.95 for a 95 % interval."
        )
    return float(level)


def check_count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise MetricError(
            f"n is {n!r}; allowed: a whole number of resamples, 1 or more. 2000 is the default."
        )
    return int(n)
