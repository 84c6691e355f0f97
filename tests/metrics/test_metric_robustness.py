"""Leaks over samples, quantisation and relearning: vectors by hand, every division by zero, and the estimator's bias."""

import math
from math import comb

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import robustness as module
from reprolib.metrics.robustness import (
    CARDS,
    leak_at_k,
    quantisation_robustness,
    relearning_robustness,
    robustness,
)


def test_leak_at_k_by_hand():
    assert leak_at_k([0, 1, 2, 4], 4, 2) == pytest.approx([0, 1 - 3 / 6, 1 - 1 / 6, 1])
    assert leak_at_k([0, 5, 20], 20, 1) == pytest.approx([0, 0.25, 1])
    assert leak_at_k([0, 1, 20], 20, 20).tolist() == [0, 1, 1]


def test_leak_at_k_is_the_ratio_of_binomials():
    for n in (1, 7, 20):
        for k in range(1, n + 1):
            expected = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]
            assert leak_at_k(range(n + 1), n, k) == pytest.approx(expected)


def test_leak_at_k_is_unbiased_where_the_plain_estimate_is_not():
    rng = np.random.default_rng(0)
    p, n, k = 0.1, 10, 5
    c = rng.binomial(n, p, 40_000)
    true = 1 - (1 - p) ** k
    assert leak_at_k(c, n, k).mean() == pytest.approx(true, abs=0.005)
    assert (1 - (1 - c / n) ** k).mean() < true - 0.03


def test_leak_at_k_rises_with_k_and_with_leaks():
    rows = np.array([leak_at_k(range(21), 20, k) for k in range(1, 21)])
    assert (np.diff(rows, axis=0) >= -1e-12).all() and (np.diff(rows, axis=1) >= -1e-12).all()
    assert rows.min() == 0 and rows.max() == 1


def test_quantisation_robustness():
    assert quantisation_robustness(0.2, 0.4) == 0.5
    assert quantisation_robustness(0.4, 0.2) == 1
    assert quantisation_robustness(0, 0) == 1  # nothing came back
    assert quantisation_robustness(0, 0.3) == 0  # all of it did
    assert quantisation_robustness(0.3, 0) == 1
    assert quantisation_robustness([0.2, 0, 0], [0.4, 0, 1]).tolist() == [0.5, 1, 0]
    assert isinstance(quantisation_robustness(0.2, 0.4), float)


def test_relearning_robustness():
    assert relearning_robustness(0.1, 0.9, 0.1, 0.5) == pytest.approx(0.5)
    assert relearning_robustness(0.1, 0.3, 0.1, 0.5) == 1  # slower than the twin
    assert relearning_robustness(0.1, 0.1, 0.1, 0.1) == 1  # 0/0
    assert relearning_robustness(0.1, 0.1, 0.1, 0.5) == 1
    assert relearning_robustness(0.5, 0.1, 0.5, 0.4) == 1  # both lost
    assert relearning_robustness(0.1, 0.5, 0.3, 0.3) == 0
    assert relearning_robustness(0.1, 0.5, 0.3, 0.2) == 0  # never below
    assert relearning_robustness(0.1 + 0.2, 0.3, 0.3, 0.3) == 1  # a gain of rounding is none
    assert relearning_robustness([0.1, 0], [0.9, 0], [0.1, 0], [0.5, 0]) == pytest.approx([0.5, 1])


def test_both_stay_in_range_and_are_never_nan():
    rng = np.random.default_rng(1)
    values = [rng.choice([0.0, 0.3, 1.0, rng.random()], 500) for _ in range(4)]
    for got in (quantisation_robustness(*values[:2]), relearning_robustness(*values)):
        assert np.isfinite(got).all() and got.min() == 0 and got.max() == 1 and len(np.unique(got)) > 3


def test_robustness_is_the_harmonic_mean():
    assert robustness(0.5, 1.0) == pytest.approx(2 / 3)
    assert robustness(0, 1) == robustness(0, 0) == 0
    assert robustness(1, 1) == 1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: leak_at_k([1], 20, 21), "k is 21 of 20"),
        (lambda: leak_at_k([1], 20, 0), "k is 0"),
        (lambda: leak_at_k([1], 2.0, 1), "samples is 2.0"),
        (lambda: leak_at_k([21], 20, 1), "whole numbers from 0 to 20"),
        (lambda: leak_at_k([0.5], 20, 1), "whole numbers"),
        (lambda: leak_at_k([], 20, 1), "shape"),
        (lambda: quantisation_robustness(-0.1, 0.2), "before is -0.1"),
        (lambda: quantisation_robustness(0.1, math.nan), "after is nan"),
        (lambda: quantisation_robustness([0.1], [0.1, 0.2]), "equal ones"),
        (lambda: relearning_robustness(0.1, 0.2, 0.1, "x"), "reference_after is 'x'"),
        (lambda: robustness(1.2, 0.5), "relearning is 1.2"),
        (lambda: robustness(0.5, math.nan), "quantisation is nan"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    assert all(c.name == name and callable(getattr(module, name)) for name, c in CARDS.items())
