"""MUSE's metrics: vectors worked by hand, the stemmer, bounds, and trends."""

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import lume, muse, privacy
from reprolib.metrics.card import Card


def test_rouge_l_f1_vectors():
    # LCS "a c d" = 3 of 4 and of 5 tokens
    assert muse.rouge_l_f1("a b c d", "a x c d e") == pytest.approx(2 * 3 / 9)
    assert muse.rouge_l_f1("a b c d", "A, b; C d!") == 1.0  # case and punctuation do not count
    assert muse.rouge_l_f1("a b", "c d") == muse.rouge_l_f1("a b", "") == 0.0


def test_f1_punishes_length_where_recall_does_not():
    long = "a b c d " + "e " * 12
    assert lume.rouge_l_recall("a b c d", long) == 1.0
    assert muse.rouge_l_f1("a b c d", long) == pytest.approx(2 * 4 / 20)


def test_the_stemmer_is_off_as_in_muse():
    assert muse.rouge_l_f1("running dogs", "run dog") == 0.0
    assert muse.rouge_l_f1("running dogs", "run dog", stemmer=True) == 1.0
    assert muse.verbmem("running dogs", "run dog") == muse.knowmem("running dogs", "run dog") == 0.0


def test_knowmem_ends_where_muse_ends_an_answer():
    assert muse.knowmem("Perth Glory", "Perth Glory") == 1.0
    for tail in ("\n\nmore of it", "\nQuestion: what else?", " Question: and then?"):
        assert muse.knowmem("Perth Glory", "Perth Glory" + tail) == 1.0
        assert muse.verbmem("Perth Glory", "Perth Glory" + tail) < 1.0
    assert muse.knowmem("Perth Glory", "Question: Perth Glory") == 0.0
    assert muse.knowmem("Perth Glory", "Perth Glory\nor not") == pytest.approx(4 / 6)  # one line break ends nothing


def test_privleak_difference_vectors_and_range():
    assert muse.privleak_difference(0.6) == pytest.approx(-0.1)
    assert muse.privleak_difference(1.0, 0.0) == -1.0 and muse.privleak_difference(0.0, 1.0) == 1.0
    assert muse.privleak_difference(0.3, 0.3) == 0.0


def test_privleak_is_the_difference_over_what_can_explode():
    for a in np.linspace(0, 1, 5):
        for r in (0.0, 0.4, 0.5, 0.9):
            assert privacy.privleak(a, r) == pytest.approx(100 * muse.privleak_difference(a, r) / (1 - r))
    with pytest.raises(ReprolibError):
        privacy.privleak(0.5, 1.0)
    assert muse.privleak_difference(0.5, 1.0) == 0.5


def test_scalability_vectors():
    line = muse.scalability([1, 2, 4], [0.9, 0.8, 0.6])  # a straight line of slope -0.1
    assert line == pytest.approx((-0.1, 0.3, 2, -0.3))
    assert muse.scalability([1, 2, 4], [0.9, 0.8, 0.6], start=1.0) == pytest.approx((-0.1, 0.4, 2, -0.4))
    assert muse.scalability([1e6, 2e6, 4e6], [0.9, 0.8, 0.6]).slope == pytest.approx(-1e-7)  # per unit of size
    assert muse.scalability([1, 2], [0.5, 0.5]) == (0.0, 0.0, 0, 0.0)
    dip = muse.scalability([1, 2, 3], [0.5, 0.1, 0.5])
    assert dip.slope == pytest.approx(0.0) and (dip.worst_drop, dip.worst_at) == (pytest.approx(0.4), 1)
    assert muse.scalability([1, 2], [0.5, 0.7], start=0.4).worst_drop == 0.0  # it never lost anything


def test_sustainability_is_the_trend_over_requests():
    assert muse.sustainability([0.9, 0.7, 0.5, 0.3], start=1.0) == pytest.approx((-0.2, 0.7, 3, -0.7))
    assert muse.sustainability([0.9, 0.7]) == muse.scalability([1, 2], [0.9, 0.7])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: muse.verbmem(" ", "a"), "reference is blank"),
        (lambda: muse.knowmem("a", None), "output is NoneType"),
        (lambda: muse.rouge_l_f1(3, "a"), "reference is int"),
        (lambda: muse.privleak_difference(1.1), "auc is 1.1"),
        (lambda: muse.privleak_difference(0.5, float("nan")), "reference is nan"),
        (lambda: muse.scalability([1], [0.5]), "at least two"),
        (lambda: muse.scalability([1, 2], [0.5]), "2 sizes and 1 values"),
        (lambda: muse.scalability([2, 1], [0.5, 0.4]), "rising"),
        (lambda: muse.scalability([1, 1], [0.5, 0.4]), "rising"),
        (lambda: muse.sustainability([0.5, float("nan")]), "values has 1 value"),
        (lambda: muse.sustainability([0.5, 0.4], start=float("inf")), "start has 1 value"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    for name, card in muse.CARDS.items():
        assert isinstance(card, Card) and card.name == name and callable(getattr(muse, name))
        assert card.label and card.unit and card.source and card.trap
