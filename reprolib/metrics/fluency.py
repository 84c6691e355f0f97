"""Is what a model writes still text? Diversity, repetition, loops, length, perplexity, and a verdict with
fixed thresholds.

A *word* here is a lower-cased run of letters and digits, or one mark of punctuation. Loops are sought in
characters, since a model that stutters inside a word ("theththth") repeats no word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, vector

# Fixed before any unlearned model was judged by them.
MIN_REPEATS = 3  # a unit that follows itself fewer times is no loop: "New York, New York"
MIN_LOOP = 12  # characters; true answers hold short runs ("000-00-0000")
LOOPS_ABOVE = 0.5  # share of a text
COLLAPSED_ABOVE = 0.5  # share of a model's retain generations
Verdict = Literal["text", "empty", "loop", "gibberish"]
_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = re.compile(r"\s+")


def _card(name: str, label: str, trap: str, **changes: Any) -> Card:
    usual = Card(
        name=name, label=label, trap=trap, unit="share", low=0.0, high=1.0, better="twin", source="this study"
    )
    return replace(usual, **changes)


CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        _card(
            "distinct_n",
            "Distinct-n",
            "Falls as more text is pooled: compare only over the same prompts and similar lengths. Random"
            " tokens score near 1.",
            source="Li et al. 2016 (A diversity-promoting objective function)",
        ),
        _card(
            "repetition",
            "Repetition (seq-rep-n)",
            "Answers of fewer than n words have nothing to repeat and count as 0, so that question rows"
            " hide repetition.",
            better="lower",
            source="Welleck et al. 2020 (Neural text generation with unlikelihood training)",
        ),
        _card(
            "loop",
            "Longest loop",
            "Only direct repetition counts: a text that comes back to the same sentence after another one"
            " has no loop.",
            better="lower",
        ),
        _card(
            "empty_share",
            "Empty outputs",
            "On forget rows silence may be what was asked for (prompt routing, refusal by end-of-text).",
        ),
        _card(
            "length_ratio",
            "Length ratio",
            "1 does not mean that lengths agree row by row: long and short outputs cancel.",
            unit="ratio",
            high=None,
        ),
        _card(
            "perplexity",
            "Perplexity",
            "Under a target that memorised its rows, reciting scores near 1 and other fluent answers do"
            " not; loops can be cheap.",
            unit="perplexity",
            low=1.0,
            high=None,
            source="exp of the mean token NLL (Jelinek et al. 1977)",
        ),
        _card(
            "collapsed",
            "Collapsed",
            "A verdict by thresholds: 0 does not mean that the text is true, or good.",
            unit="0 or 1",
            better="lower",
        ),
    )
}


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, and single marks of punctuation.

    >>> words("Born 7 May; Oslo.")
    ['born', '7', 'may', ';', 'oslo', '.']
    """
    if not isinstance(text, str):
        raise MetricError(
            f"text is {type(text).__name__}; allowed: str. Decode the tokens first, special tokens skipped."
        )
    return _WORD.findall(text.lower())


def _texts(texts: Any, name: str = "texts") -> list[str]:
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise MetricError(
            f"{name} is {'empty' if isinstance(texts, Sequence) and not texts else type(texts).__name__};"
            " allowed: a list of at least one str. Pass the generations of one group, empty ones"
            " included."
        )
    return list(texts)


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise MetricError(f"n is {n!r}; allowed: a whole number of 1 or more. 1, 2 and 3 are usual.")
    w = words(text)
    return [tuple(w[i : i + n]) for i in range(len(w) - n + 1)]


def distinct_n(texts: Sequence[str], n: int, *, per_text: bool = False) -> float:
    """Different n-grams of words over all n-grams: of all texts together, or the mean over the texts.

    Corpus level: the union of the texts' n-grams / sum of their numbers. ``per_text=True``: each text by
    itself, averaged over texts of at least n words. In [0, 1]; low means always the same; 0 where no text has
    n words (nothing different is said).

    Source: Li et al. 2016, "distinct-n". Raises MetricError for an empty list, an entry that is no str, or n
    below 1.
    """
    grams = [g for g in (_ngrams(t, n) for t in _texts(texts)) if g]
    if not grams:
        return 0.0
    if per_text:
        return float(np.mean([len(set(g)) / len(g) for g in grams]))
    return len(set().union(*grams)) / sum(map(len, grams))


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams of words that stood in it before: 1 - different n-grams / all n-grams.

    In [0, 1), lower is better; 0 for a text of fewer than n words. Source: Welleck et al. 2020, "seq-rep-n"
    (n = 4). Raises MetricError if ``text`` is no str, or n below 1.
    """
    grams = _ngrams(text, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def loop(text: str) -> float:
    """Share of a text's characters that its longest loop takes up.

    A loop is one unit, of any length, that stands ``MIN_REPEATS`` times or more in direct succession. With s
    the text (lower case, runs of white space as one), L pairs s[j] = s[j+p] in a row are a loop of p
    characters that takes up L + p; the space after the last time may be missing. Stretches below ``MIN_LOOP``
    characters do not count. In [0, 1], lower is better; 0 for an empty text.

    Time is quadratic in the length of the text. Raises MetricError if ``text`` is no str.
    """
    if not isinstance(text, str):
        raise MetricError(
            f"text is {type(text).__name__}; allowed: str. Decode the tokens first, special tokens skipped."
        )
    s = np.array([ord(c) for c in _SPACE.sub(" ", text.strip().lower())])
    longest = 0
    for p in range(1, (len(s) + 1) // MIN_REPEATS + 1):
        unequal = np.flatnonzero(s[:-p] != s[p:])
        edges = np.concatenate([[-1], unequal, [len(s) - p]])
        stretch = int(np.diff(edges).max()) - 1 + p
        if stretch >= max(MIN_REPEATS * p - 1, MIN_LOOP):
            longest = max(longest, stretch)
    return longest / len(s) if len(s) else 0.0


def empty_share(texts: Sequence[str]) -> float:
    """Share of texts without any character but white space, in [0, 1]. Raises MetricError for an empty
    list.
    """
    return float(np.mean([not t.strip() for t in _texts(texts)]))


def length_ratio(texts: Sequence[str], references: Sequence[str]) -> float:
    """Words of all texts over words of all references: below 1 shorter, above 1 longer than the true answers.
    At least 0.

    Raises MetricError for unequal numbers of texts, or references without any word.
    """
    given, true = _texts(texts), _texts(references, "references")
    if len(given) != len(true):
        raise MetricError(
            f"{len(given)} texts and {len(true)} references; allowed: as many. Take both from the same rows."
        )
    whole = sum(len(words(t)) for t in true)
    if not whole:
        raise MetricError("the references hold no word; allowed: at least one. Drop rows without an answer.")
    return sum(len(words(t)) for t in given) / whole


def perplexity(nll: float) -> float:
    """exp(mean token NLL): the number of equally likely tokens that a reader wavers between.

    ``nll`` in nats per token, 0 or more, the mean over *tokens*, not over texts. 1 or more; infinite where
    exp overflows. Raises MetricError for a negative or non-finite loss.
    """
    (value,) = vector("nll", [nll])
    if value < 0:
        raise MetricError(
            f"nll is {value:.6g}; allowed: 0 or more, the mean token loss in nats. Pass minus the"
            " log-probability."
        )
    return math.exp(value) if value < 709.0 else math.inf


def verdict(text: str, nll: float | None = None, vocabulary: int | None = None) -> Verdict:
    """What a generation is: "empty", "loop" (its longest takes up more than ``LOOPS_ABOVE``), "gibberish", or
    "text".

    ``nll``: mean token NLL of the text under a model that was not unlearned, in nats; a text is gibberish if
    ``nll`` > ln V, that is, if that model finds it less likely than tokens drawn uniformly from its
    ``vocabulary`` of V. Left out, nothing is called gibberish; an infinite or NaN loss is. Raises MetricError
    for a vocabulary below 2, or a loss without one.
    """
    if not text.strip():
        return "empty"
    if loop(text) > LOOPS_ABOVE:
        return "loop"
    if nll is None:
        return "text"
    if vocabulary is None or vocabulary < 2:
        raise MetricError(
            f"vocabulary is {vocabulary!r}; allowed: 2 or more tokens. Pass its size beside the loss."
        )
    return "text" if nll <= math.log(vocabulary) else "gibberish"


def collapsed(retain: Sequence[Verdict]) -> float:
    """1 if more than ``COLLAPSED_ABOVE`` of the generations for *retain* prompts are no text, else 0.

    ``retain``: a `verdict` for each. What a model writes for forget prompts does not count: silence may be
    meant there. Raises MetricError for an empty list, or an entry that is no verdict.
    """
    unknown = [v for v in _texts(retain, "retain") if v not in ("text", "empty", "loop", "gibberish")]
    if unknown:
        raise MetricError(
            f"{unknown[0]!r} is no verdict; allowed: text, empty, loop, gibberish. Pass what verdict()"
            " returns."
        )
    return float(np.mean([v != "text" for v in retain]) > COLLAPSED_ABOVE)
