"""Effects and corrections: standardised differences, the gap closed, Holm and Benjamini-Hochberg, values at
matched forgetting.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from reprolib.metrics.checks import MetricError, vector
from reprolib.metrics.privacy import auc
from reprolib.metrics.resample import Plan, check_p_values


class Matched(NamedTuple):
    """Value of ``y`` where ``x`` first crosses a level; ``position`` is a fractional index (2.5: between 2
    and 3).
    """

    value: float
    position: float
    reached: bool


def holm(p: Any) -> np.ndarray:
    """p-values of a family of m comparisons, adjusted so that the chance of *any* false one stays below the
    level: [m].

    Step-down: the i-th smallest becomes max_{j <= i} min(1, (m - j + 1) p_(j)). In [0, 1], in the order
    given; compare with the level as usual. Holds for dependent comparisons. Source: Holm 1979. Raises
    MetricError for values outside [0, 1] or NaN.
    """
    values = check_p_values(p)
    order, m = np.argsort(values, kind="stable"), len(values)
    out = np.empty(m)
    out[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * values[order]))
    return out


def benjamini_hochberg(p: Any) -> np.ndarray:
    """p-values of m comparisons, adjusted so that the expected *share* of false ones among those found stays
    below the level: [m].

    Step-up: the i-th smallest becomes min_{j >= i} min(1, m p_(j) / j). In [0, 1], in the order given; weaker
    than `holm`, and proven for independent or positively dependent comparisons. Source: Benjamini and
    Hochberg 1995. Errors as `holm`.
    """
    values = check_p_values(p)
    order, m = np.argsort(values, kind="stable"), len(values)
    out = np.empty(m)
    scaled = m * values[order] / (1 + np.arange(m))
    out[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return out


def standardised_difference(a: Any, b: Any, cluster: Any = None) -> float:
    """Mean of the paired differences over their standard deviation, by document: d_z = mean(D) / s(D).

    ``a``, ``b``: scores of the same rows [rows]; ``cluster``: document key [rows] (None: each row is one), D
    being the mean difference in each document, s with D - 1. In standard deviations, positive where ``a`` is
    larger; 0 where all are equal, ±inf where all documents differ by the same amount, NaN with one document
    (no spread can be seen).

    Source: Cohen 1988; Lakens 2013 (d_z). Raises MetricError for unequal lengths or values that are not
    finite.
    """
    x, y = vector("a", a), vector("b", b)
    if len(x) != len(y):
        raise MetricError(
            f"a has {len(x)} rows and b has {len(y)}; allowed: as many. Score both on the same rows."
        )
    plan = Plan(np.arange(len(x)) if cluster is None else cluster)
    if plan.rows != len(x):
        raise MetricError(
            f"cluster has {plan.rows} rows, a and b have {len(x)}; allowed: as many. Take all from the"
            " same rows."
        )
    d = np.add.reduceat((x - y)[plan.order], plan.starts) / plan.sizes
    if plan.n < 2:
        return math.nan
    mean, spread = float(d.mean()), float(d.std(ddof=1))
    if spread <= 1e-12 * max(1.0, float(np.abs(d).max())):  # equal but for rounding
        return 0.0 if abs(mean) <= 1e-12 else math.copysign(math.inf, mean)
    return mean / spread


def superiority(a: Any, b: Any) -> float:
    """P(A > B) + P(A = B) / 2 for a value of ``a`` [n] and one of ``b`` [m] drawn at random, e.g. scores of
    two methods' seeds.

    In [0, 1]: 0.5 is no effect, 1 where every value of ``a`` is above every one of ``b``. Unpaired.
    Source: McGraw and Wong 1992; Vargha and Delaney 2000. Raises MetricError for an empty side or NaN.
    """
    return auc(a, b)


def cliffs_delta(a: Any, b: Any) -> float:
    """P(A > B) - P(A < B) = 2 `superiority` - 1: in [-1, 1], 0 is no effect. Source: Cliff 1993. Errors as
    `superiority`.
    """
    return 2.0 * superiority(a, b) - 1.0


# --- comparisons with the target and the twin ----------------------------------------------------


def gap_reason(target: float, twin: float, tolerance: float = 1e-9) -> str | None:
    """Why `gap_closed` is NaN for this target and twin, as a sentence for a table's footnote; None if it is
    not.
    """
    if math.isnan(target) or math.isnan(twin):
        return f"no value for the {'target' if math.isnan(target) else 'twin'}, so there is no gap to close"
    if not abs(twin - target) >= tolerance:
        return (
            f"target ({target:.6g}) and twin ({twin:.6g}) differ by less than {tolerance:g}: no gap to close"
        )
    return None


def gap_closed(value: float, target: float, twin: float, tolerance: float = 1e-9) -> float:
    """Share of the way from target to twin: (m - target) / (twin - target).

    0 at the target (nothing forgotten), 1 at the retrained twin, above 1 beyond it, negative in the
    wrong direction. No unit, unbounded. NaN where ``abs(twin - target)`` < ``tolerance`` (there is no gap
    to close, a ratio would be noise) or an input is NaN; `gap_reason` gives the reason in words.
    Choose a tolerance above the noise of the metric: a tiny gap makes wild shares.

    Raises MetricError if a value is infinite or the tolerance is not above 0.
    """
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise MetricError(f"tolerance is {tolerance!r}; allowed: a number above 0. The default is 1e-9.")
    for name, number in (("value", value), ("target", target), ("twin", twin)):
        if math.isinf(number):
            raise MetricError(
                f"{name} is {number}; allowed: finite (or NaN). Use a bounded form of this metric."
            )
    if math.isnan(value) or gap_reason(target, twin, tolerance) is not None:
        return math.nan
    return (float(value) - float(target)) / (float(twin) - float(target))


def at_matched(x: Any, y: Any, level: float) -> Matched:
    """Value of ``y`` where ``x`` first reaches or crosses ``level`` along a trajectory, by linear
    interpolation.

    ``x``, ``y``: shape [steps], in the order of training; ``x`` need not be monotone and may cross in
    either direction; the first crossing counts. With x_i and x_{i+1} on two sides of the level,
    f = (level - x_i) / (x_{i+1} - x_i) and value = y_i + f (y_{i+1} - y_i), position = i + f. An exact
    hit at i gives y_i and position i. Never crossed: NaN, NaN and ``reached=False``. Unit is that of y.

    Raises MetricError for unequal lengths, an empty trajectory, or values that are not finite.
    """
    xs, ys = vector("x", x), vector("y", y)
    if len(xs) != len(ys):
        raise MetricError(
            f"x has {len(xs)} points and y has {len(ys)}; allowed: equal lengths. Take both from the same"
            " trajectory."
        )
    if not math.isfinite(level):
        raise MetricError(f"level is {level!r}; allowed: a finite number. Pass the value of x to match at.")
    side = np.sign(xs - level)
    hits = np.flatnonzero(side == 0)
    crossings = np.flatnonzero(side[:-1] * side[1:] < 0)
    hit = int(hits[0]) if hits.size else len(xs)
    crossing = int(crossings[0]) if crossings.size else len(xs)
    if hit == crossing == len(xs):
        return Matched(math.nan, math.nan, False)
    if hit <= crossing:
        return Matched(float(ys[hit]), float(hit), True)
    i = crossing
    f = (level - xs[i]) / (xs[i + 1] - xs[i])
    return Matched(float(ys[i] + f * (ys[i + 1] - ys[i])), float(i + f), True)
