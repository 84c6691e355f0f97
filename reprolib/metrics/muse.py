"""MUSE's metrics: verbatim and knowledge memorisation, leakage of membership, scalability, sustainability.

PrivLeak as MUSE and open-unlearning print it is in :mod:`reprolib.metrics.privacy`; here is its bounded form.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector

STOPS = ("\n\n", "\nQuestion", "Question:")  # where MUSE ends an answer
_MUSE = "MUSE (Shi et al. 2025)"

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="rouge_l_f1",
            label="ROUGE-L F1",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source="Lin 2004; package rouge_score",
            trap=(
                "MUSE scores without a stemmer, open-unlearning with one: their numbers differ on the same"
                " texts."
            ),
        ),
        Card(
            name="verbmem",
            label="VerbMem",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source=f"{_MUSE}, section 3.1",
            trap=(
                "Any fluent continuation shares words with the true one: the twin is not at 0, and below"
                " the twin is gibberish."
            ),
        ),
        Card(
            name="knowmem",
            label="KnowMem",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source=f"{_MUSE}, section 3.1",
            trap=(
                "Low on forget rows can mean that the model answers nothing any more: read it beside that"
                " of retain rows."
            ),
        ),
        Card(
            name="privleak_difference",
            label="Leakage (AUC difference)",
            unit="AUC",
            low=-1.0,
            high=1.0,
            better="twin",
            source=f"this study: the numerator of PrivLeak ({_MUSE}, section 3.1)",
            trap=(
                "0 is good. Negative is under-unlearned, positive over-unlearned; both tell an attacker"
                " who was to be forgotten."
            ),
        ),
        Card(
            name="scalability",
            label="Scalability",
            unit="per unit of size",
            low=None,
            high=None,
            better="higher",
            source=f"{_MUSE}, section 3.2, there a figure",
            trap=(
                "A slope near 0 is good only if the utility it starts from is good: a destroyed model has"
                " nothing left to lose."
            ),
        ),
        Card(
            name="sustainability",
            label="Sustainability",
            unit="per request",
            low=None,
            high=None,
            better="higher",
            source=f"{_MUSE}, section 3.2, there a figure",
            trap="A slope hides one bad request: read the worst drop.",
        ),
    )
}


@lru_cache(maxsize=2)
def _scorer(stemmer: bool) -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stemmer)


def rouge_l_f1(reference: str, output: str, *, stemmer: bool = False) -> float:
    """Harmonic mean of ROUGE-L recall and precision: 2 LCS / (tokens of the reference + tokens of the
    output).

    Tokens are lower-cased runs of [a-z0-9] (package ``rouge_score``), as they are, like MUSE, or
    Porter-stemmed with ``stemmer=True``, like open-unlearning. Share in [0, 1]; 0 for an empty output, and
    for a reference without such a token (other scripts). Source: Lin 2004. Raises MetricError if an argument
    is no str or the reference is blank.
    """
    for name, text in (("reference", reference), ("output", output)):
        if not isinstance(text, str):
            raise MetricError(
                f"{name} is {type(text).__name__}; allowed: str. Decode the tokens first, special tokens"
                " skipped."
            )
    if not reference.strip():
        raise MetricError(
            "reference is blank; allowed: a text with at least one word. Drop rows without an answer."
        )
    return float(_scorer(stemmer).score(reference, output)["rougeL"].fmeasure)


def verbmem(reference: str, output: str) -> float:
    """Verbatim memorisation of one passage: `rouge_l_f1` of the true and the generated continuation, without
    a stemmer.

    Both of the same number of tokens (MUSE: the first 128), since a longer output costs precision. Share in
    [0, 1]; the corpus' score is the mean over its passages (MUSE prints 100 times it). Forget rows should be
    as low as the twin's. Source: MUSE, section 3.1. Raises MetricError as `rouge_l_f1` does.
    """
    return rouge_l_f1(reference, output)


def knowmem(reference: str, output: str) -> float:
    """Knowledge memorisation of one question: `rouge_l_f1` of the true and the generated answer, without a
    stemmer.

    The output counts up to the first of ``STOPS`` (a blank line, or the next question that a few-shot prompt
    invites). Share in [0, 1]; the score of a group is the mean over its questions (MUSE prints 100 times it).
    Forget rows should be as low as the twin's, retain rows high. Source: MUSE, section 3.1. Raises
    MetricError as `rouge_l_f1` does.
    """
    if isinstance(output, str):
        for stop in STOPS:
            output = output.split(stop)[0]
    return rouge_l_f1(reference, output)


def privleak_difference(auc: float, reference: float = 0.5) -> float:
    """How far the attack's AUC is from that of the retrained model: R - A, PrivLeak's numerator without its
    denominator.

    ``auc``: A, 1 when members are recognised (`privacy.auc`); ``reference``: R, the twin's AUC, 0.5 where
    there is no twin. In [-1, 1] for every reference, 0 and 1 included, where PrivLeak divides by (nearly) 0;
    0 is good, negative under-unlearned and positive over-unlearned, as in open-unlearning's PrivLeak, which
    is 100 / (1 - R) times this number.

    Raises MetricError for an AUC outside [0, 1] or NaN.
    """
    return share("reference", reference) - share("auc", auc)


class Trend(NamedTuple):
    """How a score moves. ``slope``: least squares, per unit of x. ``worst_drop``: the most that it ever lost
    against the model before unlearning (or its own first value), 0 or more, first at index ``worst_at``.
    ``end``: last value minus that start.
    """

    slope: float
    worst_drop: float
    worst_at: int
    end: float


def scalability(sizes: Any, values: Any, start: float | None = None) -> Trend:
    """How a score holds as the set to forget grows: one model unlearned for each size.

    ``sizes`` [n]: of the forget sets, in any unit (tokens, documents), in rising order; ``values`` [n]: a
    score of the model that forgot a set of that size, higher = better (MUSE: KnowMem on retain rows; for a
    score where lower is better pass its negative); ``start``: the score of the model before unlearning. Flat
    is good.

    MUSE (section 3.2) shows the curve and puts no number on it: slope, worst drop and end are this study's.
    Raises MetricError for fewer than two sizes, unequal lengths, sizes that do not rise, and values that are
    not finite.
    """
    x, y = vector("sizes", sizes), vector("values", values)
    if len(x) != len(y) or len(x) < 2:
        raise MetricError(
            f"there are {len(x)} sizes and {len(y)} values; allowed: equally many, at least two. Give one"
            " a size."
        )
    if (np.diff(x) <= 0).any():
        raise MetricError(
            f"sizes are {x.tolist()}; allowed: rising, each once. Sort them, with their values."
        )
    before = float(y[0] if start is None else vector("start", [start])[0])
    centred = x - x.mean()
    drops = np.maximum(before - y, 0.0)
    return Trend(
        float(centred @ (y - y.mean()) / (centred @ centred)),
        float(drops.max()),
        int(drops.argmax()),
        float(y[-1] - before),
    )


def sustainability(values: Any, start: float | None = None) -> Trend:
    """How a score holds under one request to forget after another: the same model, unlearned again and again.

    ``values`` [requests]: the score after each request, in order, higher = better; ``start``: that before the
    first. The slope is per request. MUSE (section 3.2) has four requests. Otherwise as `scalability`, errors
    included.
    """
    y = vector("values", values)
    return scalability(np.arange(1.0, len(y) + 1), y, start)
