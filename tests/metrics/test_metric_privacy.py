"""Attack scores and their summaries: brute force, scipy, vectors, ties and errors."""

import zlib

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from reprolib.errors import ReprolibError
from reprolib.metrics.privacy import auc, min_k, min_k_plus_plus, privleak, tpr_at_fpr, zlib_score


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tied", [False, True])
def test_auc_against_brute_force_and_scipy(seed, tied):
    rng = np.random.default_rng(seed)
    m, r = rng.normal(0.3, 1, 37), rng.normal(0, 1, 23)
    if tied:
        m, r = np.round(m), np.round(r)
    got = auc(m, r)
    brute = np.mean((m[:, None] > r).astype(float) + 0.5 * (m[:, None] == r))
    assert got == pytest.approx(brute, abs=1e-12)
    assert got == pytest.approx(mannwhitneyu(m, r).statistic / (37 * 23), abs=1e-12)
    assert auc(r, m) == pytest.approx(1 - got)
    assert auc(np.exp(m), np.exp(r)) == got  # order only
    assert auc(rng.permutation(m), rng.permutation(r)) == got


def test_auc_extremes():
    assert auc([2, 3], [0, 1]) == 1.0
    assert auc([0, 1], [2, 3]) == 0.0
    assert auc([1, 1, 1], [1, 1]) == 0.5
    assert auc([1.0, np.inf], [-np.inf, 0.0]) == 1.0


def test_tpr_at_fpr():
    nonmembers = np.arange(100.0)
    assert tpr_at_fpr([98.5, 99.5, 50, 98], nonmembers, 0.01) == 0.5  # one false positive allowed: 99
    assert tpr_at_fpr([98.5, 99.5, 50, 98], nonmembers, 0.0) == 0.25
    assert tpr_at_fpr([0], nonmembers, 1.0) == 1.0
    assert tpr_at_fpr([5, 5], [5, 5], 0.5) == 0.0  # ties are flagged together
    assert tpr_at_fpr([2, 3], [0, 1]) == 1.0


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.29, 0.5, 1.0])
def test_tpr_against_all_thresholds(fpr):
    rng = np.random.default_rng(3)
    m, r = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 50), 1)
    best = max(
        ((m >= t).mean() for t in [*m, *r, np.inf] if (r >= t).mean() <= fpr + 1e-9),
        default=0.0,
    )
    assert tpr_at_fpr(m, r, fpr) == pytest.approx(best)


def test_min_k_vector_and_limits():
    lp = [-0.1, -2.3, -0.7, -4.0, -0.2]
    assert min_k(lp, 0.4) == pytest.approx(3.15)
    assert min_k(lp[::-1], 0.4) == min_k(lp, 0.4)
    assert min_k(lp, 1.0) == pytest.approx(-np.mean(lp))  # the loss attack
    assert min_k(lp, 0.01) == 4.0  # at least one token
    assert min_k(np.arange(-100.0, 0.0), 0.29) == pytest.approx(100 - 14)  # 29 tokens, not int(28.99...)


def test_min_k_plus_plus():
    lp, mu, sigma = np.array([-0.1, -2.3, -0.7, -4.0, -0.2]), np.full(5, -1.0), np.full(5, 2.0)
    assert min_k_plus_plus(lp, mu, sigma, 0.4) == pytest.approx((3.15 - 1) / 2)
    assert min_k_plus_plus(lp, np.zeros(5), np.ones(5), 0.4) == pytest.approx(min_k(lp, 0.4))
    assert min_k_plus_plus([-1.0], [-1.0], [0.0]) == 0.0
    assert min_k_plus_plus([-2.0], [-1.0], [0.0]) == pytest.approx(1 / 1e-3)  # clamped


def test_min_k_plus_plus_from_a_distribution():
    logits = np.random.default_rng(0).normal(size=(6, 11))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    p = np.exp(log_p)
    mu = (p * log_p).sum(1)
    sigma = np.sqrt((p * log_p**2).sum(1) - mu**2)
    z = (log_p - mu[:, None]) / sigma[:, None]
    assert (p * z).sum(1) == pytest.approx(np.zeros(6), abs=1e-9)  # the standardisation is right
    assert min_k_plus_plus(log_p[:, 0], mu, sigma, 1.0) == pytest.approx(-z[:, 0].mean())


def test_zlib_score():
    text = "the quick brown fox é" * 3
    assert zlib_score(2.0, text) == pytest.approx(2.0 / len(zlib.compress(text.encode())))
    assert zlib_score(0, text) == 0.0


def test_privleak_forms():
    assert privleak(0.6, 0.5) == pytest.approx(-20)
    assert privleak(1.0) == -100 and privleak(0.0) == 100 and privleak(0.5) == 0
    assert privleak(0.6, 0.5, form="direct") == pytest.approx(20)
    assert privleak(0.7, 0.7) == privleak(0.7, 0.7, form="direct") == 0
    assert privleak(0.4, 0.2) == pytest.approx(-25)
    assert privleak(0.4, 0.2, form="direct") == pytest.approx(100)
    assert privleak(0.4, 0.2) == pytest.approx(privleak(0.6, 0.8, form="direct"))  # complement = flipped direct


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: auc([], [1]), "members has shape"),
        (lambda: auc([1], [float("nan")]), "nonmembers has 1 value.*NaN"),
        (lambda: tpr_at_fpr([1], [1], 5), "fpr is 5.*allowed: 0 to 1"),
        (lambda: min_k([], 0.4), "logprobs has shape"),
        (lambda: min_k([0.5, -1]), "allowed: 0 or less"),
        (lambda: min_k([-1.0], 0), "k is 0; allowed"),
        (lambda: min_k([-1.0], 40), "k is 40; allowed"),
        (lambda: min_k_plus_plus([-1.0], [-1.0, 0], [1.0]), "1, 2 and 1 values"),
        (lambda: min_k_plus_plus([-1.0], [-1.0], [-1.0]), "sigma holds -1"),
        (lambda: zlib_score(-1.0, "a"), "nll is -1.0"),
        (lambda: zlib_score(1.0, ""), "text is ''"),
        (lambda: privleak(0.5, 1.0), "divide by 0"),
        (lambda: privleak(0.5, 0.0, form="direct"), "divide by 0"),
        (lambda: privleak(0.5, form="directly"), "did you mean 'direct'"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()
