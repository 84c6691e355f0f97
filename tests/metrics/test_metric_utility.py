"""Multiple choice: hits, ties, chance, the cards, and a light import."""

import subprocess
import sys

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import CARDS, MODULES, Card
from reprolib.metrics.utility import chance, choice_accuracy


def test_hits_and_ties():
    nll = [[1, 2, 3, 4], [2, 1, 3, 4], [1, 1, 3, 4], [1, 1, 1, 1], [3, 1, 1, 4]]
    assert choice_accuracy(nll).tolist() == [1, 0, 0.5, 0.25, 0]
    assert choice_accuracy(nll, 1).tolist() == [0, 1, 0.5, 0.25, 0.5]
    assert choice_accuracy(nll, [0, 1, 1, 3, 0]).tolist() == [1, 1, 0.5, 0.25, 0]


def test_perfect_hopeless_and_indifferent_model():
    nll = np.random.default_rng(0).uniform(1, 2, (50, 4))
    best = nll.copy()
    best[:, 0] = 0.5
    worst = nll.copy()
    worst[:, 0] = np.inf
    assert choice_accuracy(best).mean() == 1
    assert choice_accuracy(worst).mean() == 0
    assert choice_accuracy(np.ones((50, 4))).mean() == chance(4) == 0.25


def test_hits_over_all_columns_add_up_to_one_and_ignore_the_order():
    rng = np.random.default_rng(1)
    nll = np.round(rng.uniform(0, 1, (40, 5)), 1)
    assert sum(choice_accuracy(nll, c) for c in range(5)) == pytest.approx(np.ones(40))
    order = rng.permutation(5)
    moved = choice_accuracy(nll[:, order], int(np.flatnonzero(order == 2)[0]))
    assert moved.tolist() == choice_accuracy(nll, 2).tolist()


def test_chance():
    assert chance(2) == 0.5
    assert chance([2, 4]) == 0.375


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: choice_accuracy([1, 2, 3]), "2 axis"),
        (lambda: choice_accuracy([[1], [2]]), "allowed: 2 or more"),
        (lambda: choice_accuracy([[1, float("nan")]]), "NaN"),
        (lambda: choice_accuracy([[np.inf, np.inf]]), "question 0"),
        (lambda: choice_accuracy([[1, 2]], 2), "allowed: 0 to 1"),
        (lambda: choice_accuracy([[1, 2]], [0, 1]), "allowed: an integer or 1"),
        (lambda: choice_accuracy([[1, 2]], 0.5), "integer"),
        (lambda: chance(0), "allowed: an integer of 1 or more"),
        (lambda: chance(2.5), "n_options is 2.5"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    assert len(CARDS) == sum(len(m.CARDS) for m in MODULES)  # no name twice
    for name, card in CARDS.items():
        assert isinstance(card, Card) and card.name == name
        assert card.label and card.unit and card.source and card.trap
        if "/" not in name:  # else a number that a probe makes
            assert any(callable(getattr(m, name, None)) for m in MODULES)
        assert card.low is None or card.high is None or card.low < card.high


def test_import_is_light():
    code = (
        "import sys, reprolib.metrics\n"
        "print([m for m in ('torch', 'scipy', 'rouge_score', 'nltk', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
