"""TOFU's metrics: vectors worked by hand, every variant of the truth ratio, edges of the Kolmogorov-Smirnov test."""

import itertools
import math

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import tofu
from reprolib.metrics.card import Card


def test_probability_vectors():
    assert tofu.probability([0.0, math.log(2), math.log(4), np.inf]) == pytest.approx([1.0, 0.5, 0.25, 0.0])


def test_option_probability_vectors():
    # p = 1/2, 1/4, 1/8, 1/8: the right option has 1/2 of a sum of 1
    p = np.array([0.5, 0.25, 0.125, 0.125])
    assert tofu.option_probability([-np.log(p)]) == pytest.approx([0.5])
    assert tofu.option_probability([-np.log(p / 10)], correct=1) == pytest.approx([0.25])  # only their ratios count
    assert tofu.option_probability([[3.0, 3.0, 3.0, 3.0], [2000.0, 2000.0, 2000.0, 2000.0]]) == pytest.approx([0.25, 0.25])
    assert tofu.option_probability([[0.0, 2000.0], [2000.0, 0.0]]) == pytest.approx([1.0, 0.0])


def test_truth_ratio_vectors():
    # p(true) = 1/2; p(false) = 1/4 and 1/16: geometric mean 1/8, arithmetic mean 5/32
    true, false = math.log(2), np.log([4, 16])
    assert tofu.truth_ratio(true, false) == pytest.approx(1 / 4)
    assert tofu.truth_ratio(true, false, "arithmetic") == pytest.approx(5 / 16)
    assert tofu.truth_ratio(true, false, "inverse") == pytest.approx(4)
    assert tofu.truth_ratio(true, false, "new") == pytest.approx(0.5 / (0.5 + 0.125))
    # two paraphrases with p = 1/2 and 1/8: geometric mean 1/4, arithmetic mean 5/16
    assert tofu.truth_ratio(np.log([2, 8]), false) == pytest.approx(1 / 2)
    assert tofu.truth_ratio(np.log([2, 8]), false, "arithmetic") == pytest.approx(1 / 2)


@pytest.mark.parametrize("variant, at_equal", [("geometric", 1.0), ("arithmetic", 1.0), ("inverse", 1.0), ("new", 0.5)])
def test_truth_ratio_of_equal_answers_and_its_direction(variant, at_equal):
    assert tofu.truth_ratio(1.3, [1.3, 1.3, 1.3], variant) == pytest.approx(at_equal)
    knows, does_not = (tofu.truth_ratio(t, [2.0, 3.0], variant) for t in (0.1, 4.0))
    assert (knows < at_equal < does_not) if variant in ("geometric", "arithmetic") else (knows > at_equal > does_not)
    values = [tofu.truth_ratio(1.0, list(false), variant) for false in itertools.permutations([0.5, 2.0, 3.0])]
    assert values == pytest.approx([values[0]] * 6)  # the order of the false answers does not matter


def test_truth_ratio_stays_finite_where_probabilities_underflow():
    assert tofu.truth_ratio(2000.0, [2001.0]) == pytest.approx(math.exp(-1))
    assert tofu.truth_ratio(2000.0, [2001.0], "arithmetic") == pytest.approx(math.exp(-1))
    for variant, (low, high) in {"geometric": (0, np.inf), "arithmetic": (0, np.inf), "new": (0, 1), "inverse": (0, np.inf)}.items():
        for pair in ((0.0, [1e4]), (1e4, [0.0])):
            assert low <= tofu.truth_ratio(*pair, variant) <= high
            assert math.isfinite(tofu.truth_ratio(*pair, variant))


def test_the_paper_averages_probabilities_and_the_code_losses():
    """The arithmetic mean is never below the geometric one, so the paper's ratio is the larger."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        true, false = rng.exponential(2), rng.exponential(2, 5)
        assert tofu.truth_ratio(true, false, "arithmetic") > tofu.truth_ratio(true, false)


def test_scores_of_truth_ratios():
    ratios = [0.0, 0.25, 1.0, 4.0, np.inf]
    assert tofu.truth_score(ratios) == pytest.approx([1.0, 0.75, 0.0, 0.0, 0.0])
    assert tofu.parity_score(ratios) == pytest.approx([0.0, 0.25, 1.0, 0.25, 0.0])


def test_utility_is_the_same_from_either_ratio():
    """TOFU's aggregation takes max(0, 1 - 1/x) of the inverse: the same as max(0, 1 - R)."""
    rng = np.random.default_rng(1)
    pairs = [(rng.exponential(2), rng.exponential(2, 5)) for _ in range(20)]
    direct, inverse = (np.array([tofu.truth_ratio(*p, variant=v) for p in pairs]) for v in ("geometric", "inverse"))
    assert tofu.truth_score(direct) == pytest.approx(np.maximum(0, 1 - 1 / inverse))
    assert tofu.parity_score(direct) == pytest.approx(tofu.parity_score(inverse))


# --- forget quality ------------------------------------------------------------------------------------------


def test_forget_quality_vectors():
    # 3 against 3, all of one below all of the other: D = 1, and 2 of the C(6, 3) = 20 orders are as extreme
    found = tofu.forget_quality([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert found == pytest.approx((0.1, -1.0, 1.0, 3, 3))
    assert tofu.forget_quality([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx((1.0, 0.0, 0.0, 3, 3))
    # F steps at 1, 3 and G at 2, 4: they differ by 1/2 at most; 4 of the 6 orders of two and two differ by no more
    half = tofu.forget_quality([1.0, 3.0], [2.0, 4.0])
    assert half.ks == 0.5 and half.p_value == pytest.approx(1.0)
    assert tofu.forget_quality([1.0], [2.0]).p_value == 1.0  # one row a side shows nothing, though D = 1


def test_ks_distance_vectors_and_range():
    assert tofu.ks_distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert tofu.ks_distance([0.0, np.inf, np.inf], [0.0, 1.0, 2.0]) == pytest.approx(2 / 3)
    assert tofu.ks_distance([1, 1, 1], [1]) == 0.0  # ties
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(2)
    for n, m in ((5, 7), (100, 30), (40, 40)):
        a, b = rng.normal(size=n).round(1), rng.normal(0.5, size=m).round(1)
        assert tofu.ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic)
        assert 0 <= tofu.ks_distance(a, b) == tofu.ks_distance(b, a) <= 1


def test_forget_quality_does_not_depend_on_order_or_a_monotone_transform():
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=60), rng.lognormal(0.5, size=50)
    found = tofu.forget_quality(a, b)
    assert tofu.forget_quality(a[::-1], rng.permutation(b)) == found
    for transform in (np.log, lambda x: 1 / x, lambda x: 1 / (1 + x)):
        assert tofu.forget_quality(transform(a), transform(b)) == pytest.approx(found)


def test_effect_size_stays_where_the_p_value_shrinks():
    """Twice the rows of the same two distributions: same distance, far smaller p. Hence both sizes are reported."""
    a, b = np.arange(30.0), np.arange(30.0) + 10
    small, large = tofu.forget_quality(a, b), tofu.forget_quality(np.tile(a, 4), np.tile(b, 4))
    assert small.ks == pytest.approx(large.ks) and (large.n_model, large.n_twin) == (120, 120)
    assert large.log10_p < 3 * small.log10_p


def test_log10_p_is_finite_where_p_underflows():
    a = np.arange(4000.0)
    found = tofu.forget_quality(a, a + 1e6)
    assert found.p_value == 0.0 and found.ks == 1.0
    assert found.log10_p == pytest.approx((math.log(2) - 2 * 2000) / math.log(10))
    # the first term of the series agrees with the p-value where both exist
    near = tofu.forget_quality(np.arange(11000.0), np.arange(11000.0) + 700)
    series = (math.log(2) - 2 * near.ks**2 * 11000 / 2) / math.log(10)
    assert near.p_value > 0 and near.log10_p == pytest.approx(series, rel=1e-2)


# --- model utility -------------------------------------------------------------------------------------------


def test_model_utility_vectors():
    assert tofu.model_utility(dict.fromkeys(tofu.NINE, 0.4)) == pytest.approx(0.4)
    parts = dict(zip(tofu.NINE, [0.5] * 8 + [1.0], strict=True))  # 9 / (8/0.5 + 1)
    assert tofu.model_utility(parts) == pytest.approx(9 / 17)
    assert tofu.model_utility(dict(reversed(parts.items()))) == pytest.approx(9 / 17)
    assert tofu.model_utility(dict.fromkeys(tofu.NINE, 1.0) | {tofu.NINE[4]: 0.0}) == 0.0
    assert tofu.partial_utility({"retain/rouge": 0.5, "world/rouge": 1.0}) == pytest.approx(2 / 3)


def test_model_utility_takes_nothing_but_the_nine():
    assert len(set(tofu.NINE)) == 9
    nine = dict.fromkeys(tofu.NINE, 0.5)
    with pytest.raises(ReprolibError, match=r"retain/rouge.*allowed: exactly"):
        tofu.model_utility({k: v for k, v in nine.items() if k != "retain/rouge"})
    with pytest.raises(ReprolibError, match="world/rouge"):
        tofu.model_utility(nine | {"world/rouge": 0.5})


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: tofu.probability([]), "at least one value"),
        (lambda: tofu.probability([-1.0]), "not log-probabilities"),
        (lambda: tofu.probability([float("nan")]), "NaN"),
        (lambda: tofu.option_probability([[1.0]]), "2 or more"),
        (lambda: tofu.option_probability([[1.0, -1.0]]), "Pass losses"),
        (lambda: tofu.option_probability([[1.0, 2.0]], correct=2), "correct is 2"),
        (lambda: tofu.option_probability([[1.0, float("inf")]]), "not finite"),
        (lambda: tofu.truth_ratio(1.0, [1.0], "geometrc"), "did you mean 'geometric'"),
        (lambda: tofu.truth_ratio(1.0, []), "nll_false has shape"),
        (lambda: tofu.truth_ratio(float("inf"), [1.0]), "nll_true has 1 value"),
        (lambda: tofu.truth_ratio(1.0, [-0.1]), "nll_false holds -0.1"),
        (lambda: tofu.truth_score([-1.0]), "not their logarithms"),
        (lambda: tofu.parity_score([float("nan")]), "NaN"),
        (lambda: tofu.forget_quality([], [1.0]), "model has shape"),
        (lambda: tofu.forget_quality([1.0], [float("nan")]), "twin has 1 value"),
        (lambda: tofu.log10_p(2.0, 0.5, 3, 3), "p_value is 2.0"),
        (lambda: tofu.log10_p(0.5, float("nan"), 3, 3), "ks is nan"),
        (lambda: tofu.partial_utility({}), "no parts"),
        (lambda: tofu.partial_utility({"retain/rouge": 50}), "retain/rouge is 50"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    for name, card in tofu.CARDS.items():
        assert isinstance(card, Card) and card.name == name and callable(getattr(tofu, name))
        assert card.label and card.unit and card.source and card.trap
