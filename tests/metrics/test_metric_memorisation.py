"""Exact memorisation and extraction strength: vectors, the two floors, brute force."""

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics.memorisation import exact_memorisation, extraction_strength


def test_vectors():
    labels, predictions = [5, 7, 7, 2], [5, 1, 7, 2]
    assert exact_memorisation(predictions, labels) == 0.75
    assert extraction_strength(predictions, labels) == 0.5


def test_drop_last_leaves_out_the_end_of_text():
    labels, predictions = [5, 7, 7, 2], [5, 1, 7, 9]
    assert exact_memorisation(predictions, labels, drop_last=True) == pytest.approx(2 / 3)
    assert extraction_strength(predictions, labels, drop_last=True) == pytest.approx(1 / 3)
    assert extraction_strength(predictions, labels) == 0.0


def test_perfect_and_hopeless_model():
    labels = [1, 2, 3, 4]
    assert exact_memorisation(labels, labels) == extraction_strength(labels, labels) == 1.0
    assert extraction_strength(labels, labels, compat="open-unlearning") == 1.0
    wrong = [9, 9, 9, 9]
    assert exact_memorisation(wrong, labels) == extraction_strength(wrong, labels) == 0.0
    assert extraction_strength(wrong, labels, compat="open-unlearning") == 0.25
    assert extraction_strength([9, 9], [1, 2], compat="open-unlearning", drop_last=True) == 1.0  # T = 1: 1/T


def test_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(1, 9))
        labels, predictions = rng.integers(0, 2, size), rng.integers(0, 2, size)
        k = next(k for k in range(size + 1) if np.array_equal(predictions[k:], labels[k:]))
        assert extraction_strength(predictions, labels) == pytest.approx(1 - k / size)
        assert extraction_strength(predictions, labels, compat="open-unlearning") == pytest.approx(
            1 - min(k, size - 1) / size
        )
        assert 0 <= extraction_strength(predictions, labels) <= exact_memorisation(predictions, labels) <= 1


@pytest.mark.parametrize("function", [exact_memorisation, extraction_strength])
def test_errors(function):
    with pytest.raises(ReprolibError, match="no answer token"):
        function([], [])
    with pytest.raises(ReprolibError, match="drop_last=True"):
        function([1], [1], drop_last=True)
    with pytest.raises(ReprolibError, match="shape"):
        function([1, 2], [1])
    with pytest.raises(ReprolibError, match="-100"):
        function([1, 2], [-100, 2])
    with pytest.raises(ReprolibError, match="integer token ids"):
        function([0.5, 2.0], [1, 2])


def test_unknown_compat():
    with pytest.raises(ReprolibError, match="did you mean 'open-unlearning'"):
        extraction_strength([1], [1], compat="open-unlearnin")
