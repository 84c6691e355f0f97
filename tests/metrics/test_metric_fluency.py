"""Fluency: vectors worked by hand, edges, the verdicts, and true texts that must not be taken for loops."""

import math
import os
import random
from pathlib import Path

import pytest

from reprolib.corpus import lume, synthetic
from reprolib.corpus.files import VARIABLE
from reprolib.errors import ReprolibError
from reprolib.metrics.card import Card
from reprolib.metrics.fluency import (
    CARDS,
    collapsed,
    distinct_n,
    empty_share,
    length_ratio,
    loop,
    perplexity,
    repetition,
    verdict,
    words,
)


def test_words():
    assert words("Mr. O'Neil, 7 May!") == ["mr", ".", "o", "'", "neil", ",", "7", "may", "!"]
    assert words(" \n") == []


def test_distinct_n_by_hand():
    texts = ["a b a b", "a c"]
    assert distinct_n(texts, 1) == 3 / 6
    assert distinct_n(texts, 2) == 3 / 4  # ab ba ab, ac
    assert distinct_n(texts, 3) == 1  # aba bab
    assert distinct_n(texts, 1, per_text=True) == (2 / 4 + 2 / 2) / 2
    assert distinct_n(texts, 2, per_text=True) == pytest.approx((2 / 3 + 1) / 2)
    assert distinct_n(texts, 3, per_text=True) == 1  # the second has no three words
    assert distinct_n(["A a", "a A"], 1) == 1 / 4  # case does not count


def test_distinct_n_of_nothing_is_0_and_never_nan():
    assert distinct_n(["", " "], 1) == distinct_n([""], 3, per_text=True) == distinct_n(["one two"], 3) == 0


def test_repetition_by_hand():
    assert repetition("a b a b a b", n=2) == pytest.approx(1 - 2 / 5)
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # n = 4
    assert repetition("a b c d e") == repetition("a a a") == repetition("") == 0
    assert repetition("no " * 50, n=1) == pytest.approx(1 - 1 / 50)


def test_loop_by_hand():
    assert loop("abcdabcdabcd") == 1
    assert loop("wxyz" + "abcdabcdabcd") == 12 / 16
    assert loop("wxyz" + "abcdabcdabcdab" + "!") == 14 / 19  # cut off
    assert loop("xyabcdefgabcdefgz") == 0  # twice is no loop
    assert loop("never never never") == loop("Never NEVER\n\nnever") == 1  # the space after the last is missing
    assert loop("a" * 12) == 1 and loop("a" * 11) == 0  # twelve characters at least
    assert loop("ssn 000-00-0000") == 0
    assert loop("") == loop(" ") == loop("x") == 0
    sentence = "the ship sailed at noon. "
    assert loop(sentence * 4) == 1 and loop("Once, " + sentence * 3 + "x") == 76 / 82  # and the space before


def test_loop_finds_the_longest_as_brute_force_does():
    def slow(s):
        best = 0
        for p in range(1, len(s)):
            for i in range(len(s) - p):
                j = i
                while j + p < len(s) and s[j] == s[j + p]:
                    j += 1
                size = j - i + p
                if j > i and size >= 12 and size >= 3 * p - 1:
                    best = max(best, size)
        return best / len(s)

    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        unit = "".join(rng.choice("abc") for _ in range(rng.randint(1, 5)))
        text = "".join(rng.choice("abcd") for _ in range(rng.randint(0, 6))) + unit * rng.randint(1, 8) + rng.choice("abcd")
        assert loop(text) == pytest.approx(slow(text)), text
        seen.add(round(loop(text), 2))
    assert len(seen) > 20


def test_empty_share_and_length_ratio():
    assert empty_share(["", " \n", "a", "b"]) == 0.5
    assert length_ratio(["a b c", ""], ["x y", "z w"]) == 0.75
    assert length_ratio([""], ["x"]) == 0


def test_perplexity():
    assert perplexity(0.0) == 1
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf


def test_verdicts():
    assert verdict(" ") == verdict("", 99.0, 10) == "empty"
    assert verdict("no " * 9) == verdict("no " * 9, 0.1, 10) == "loop"
    assert verdict("Born in Delft.") == verdict("Born in Delft.", math.log(10), 10) == "text"
    assert {verdict("Born in Delft.", x, 10) for x in (math.log(10) + 1e-9, math.inf, math.nan)} == {"gibberish"}
    half = "abcdefghijklm" + "xyzxyzxyzxyzx"  # one half is not above one half
    assert loop(half) == 0.5 and verdict(half) == "text" and verdict(half[1:]) == "loop"


def test_collapsed_is_above_one_half_and_counts_all_three():
    assert collapsed(["text"] * 5) == 0
    assert collapsed(["text", "loop"]) == 0
    assert collapsed(["text", "loop", "empty"]) == collapsed(["gibberish"]) == 1
    assert isinstance(collapsed(["text"]), float)


def test_ranges_and_order_of_the_texts():
    rng = random.Random(1)
    texts = [" ".join(rng.choice(["no", "yes", "maybe", "so"]) for _ in range(rng.randint(0, 30))) for _ in range(40)]
    for n in (1, 2, 3):
        assert 0 < distinct_n(texts, n) < distinct_n(texts, n, per_text=True) < 1
        assert distinct_n(texts, n) == distinct_n(texts[::-1], n)
        assert distinct_n(texts, n, per_text=True) == pytest.approx(distinct_n(texts[::-1], n, per_text=True))
    assert all(0 <= f(t) <= 1 for t in texts for f in (repetition, loop))
    assert len({repetition(t, 2) for t in texts}) > 10


def test_invented_true_answers_are_no_loops():
    corpus = synthetic.make(documents=60)
    texts = [r.output for g in ("forget", "retain", "holdout") for r in corpus[g]]
    assert len(texts) > 500 and {verdict(t) for t in texts} == {"text"}


def test_real_true_answers_are_no_loops():
    given = os.environ.get(VARIABLE)
    sibling = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = next((f / "lume" for f in (Path(given) if given else sibling, sibling) if (f / "lume").is_dir()), None)
    if folder is None:
        pytest.skip("no real lume data")
    texts = [r.output for g in ("forget", "retain") for r in lume.read_rows(folder / f"{g}.jsonl")]
    assert len(texts) > 5000 and max(map(loop, texts)) < 0.2 and max(map(repetition, texts)) < 0.5
    assert all(t.strip() for t in texts) and {verdict(t) for t in texts[::10]} == {"text"}  # no more is asked of a text alone
    assert {verdict((t + " ") * 4) for t in texts[:200]} == {"loop"}


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: distinct_n([], 1), "texts is empty"),
        (lambda: distinct_n("abc", 1), "texts is str"),
        (lambda: distinct_n([1], 1), "text is int"),
        (lambda: distinct_n(["a"], 0), "n is 0"),
        (lambda: repetition("a", 1.5), "n is 1.5"),
        (lambda: loop(None), "text is NoneType"),
        (lambda: empty_share([]), "texts is empty"),
        (lambda: length_ratio(["a"], ["b", "c"]), "1 texts and 2 references"),
        (lambda: length_ratio(["a"], [" "]), "hold no word"),
        (lambda: perplexity(-1), "nll is -1"),
        (lambda: perplexity(math.nan), "not finite"),
        (lambda: verdict("a", 1.0), "vocabulary is None"),
        (lambda: collapsed([]), "retain is empty"),
        (lambda: collapsed(["fine"]), "'fine' is no verdict"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_cards():
    from reprolib.metrics import fluency

    for name, card in CARDS.items():
        assert isinstance(card, Card) and card.name == name and callable(getattr(fluency, name))
