"""Meta-evaluation: AUC between models by hand, its interval, ties, direction; stability as means of ratios."""

import math

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import meta
from reprolib.metrics.meta import CARDS, Stability, faithfulness, overall, stability


def test_faithfulness_by_hand():
    assert faithfulness([0.9, 0.4], [0.5, 0.1], n=10).estimate == 0.75
    assert faithfulness([0.5, 0.5], [0.5, 0.1], n=10).estimate == 0.75  # ties count half
    assert faithfulness([1, 1], [1, 1], n=10)[:3] == (0.5, 0.5, 0.5)  # says nothing
    assert faithfulness([math.inf, 2], [1, 1], n=10).estimate == 1  # losses may overflow


def test_a_perfect_and_a_hopeless_metric():
    rng = np.random.default_rng(0)
    perfect = faithfulness(rng.uniform(0.6, 1, 30), rng.uniform(0, 0.4, 30), n=200)
    assert perfect == (1, 1, 1, 60)
    hopeless = faithfulness(rng.random(30), rng.random(30), n=500)
    assert hopeless.low < 0.5 < hopeless.high and 0.2 < hopeless.high - hopeless.low < 0.4


def test_interval_covers():
    """P(A > B) of N(1, 1) and N(0, 1) is 0.760."""
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(60):
        got = faithfulness(rng.normal(1, 1, 25), rng.normal(0, 1, 25), n=200, seed=i)
        hits += got.low <= 0.7602 <= got.high
    assert 50 <= hits <= 60


def test_direction_is_fixed_unless_asked():
    knows, not_ = [0.1, 0.2, 0.6], [0.5, 0.9, 0.8]
    wrong = faithfulness(knows, not_, n=200)
    free = faithfulness(knows, not_, n=200, direction_free=True)
    assert wrong.estimate == pytest.approx(1 / 9) and free.estimate == pytest.approx(8 / 9)
    assert wrong.low < 0.5 and free.low >= 0.5
    assert faithfulness(not_, knows, n=200).estimate == pytest.approx(8 / 9)


def test_faithfulness_knows_orders_only_and_is_reproducible():
    rng = np.random.default_rng(2)
    a, b = rng.random(12), rng.random(9)
    first = faithfulness(a, b, n=100)
    assert first == faithfulness(np.exp(5 * a), np.exp(5 * b), n=100) == faithfulness(a, b, n=100)
    assert first.estimate == pytest.approx(faithfulness(a[::-1], b[::-1], n=100).estimate)
    assert first != faithfulness(a, b, n=100, seed=1)


def test_one_model_a_side_shows_no_spread():
    got = faithfulness([0.9], [0.1], n=10)
    assert got.estimate == 1 and math.isnan(got.low) and got.n_documents == 2


def test_stability_is_the_mean_over_models():
    got = stability([0.2, 0.1], [0.4, 0.1], [0.6, 0.1], [0.1, 0.1], [0.3, 0.2])
    assert got == pytest.approx((0.75, 0.75, 0.75))  # R: 0.5 and 1, Q: 0.5 and 1
    assert isinstance(got, Stability)
    assert stability(0.2, 0.8, 0.2, 0.1, 0.1) == pytest.approx((1, 0.25, 0.4))
    assert stability(0, 0, 0, 0, 0) == (1, 1, 1)
    assert stability(0, 0.5, 0, 0, 0) == (1, 0, 0)


def test_overall():
    assert overall(0.85, 0.5) == pytest.approx(2 * 0.85 * 0.5 / 1.35)
    assert overall(0, 0) == overall(0, 1) == 0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: faithfulness([], [0.1]), "knows has shape"),
        (lambda: faithfulness([0.1], [math.nan]), "does_not has 1 value"),
        (lambda: faithfulness([0.1], [0.2], n=0), "n is 0"),
        (lambda: stability([0.1], [0.1, 0.2], [0.1], [0.1], [0.1]), "equal ones"),
        (lambda: stability(-1, 0.1, 0.1, 0.1, 0.1), "before is -1"),
        (lambda: overall(1.5, 0.1), "faithfulness is 1.5"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    assert all(c.name == name and callable(getattr(meta, name)) for name, c in CARDS.items())
