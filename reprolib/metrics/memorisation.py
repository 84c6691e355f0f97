"""Token-level memorisation under teacher forcing: exact memorisation and extraction strength.

``labels`` are the token ids of one answer and ``predictions`` the argmax of the model at the same
positions (already shifted), both of shape [T]. With ``drop_last=True`` both functions leave out the
final position, the end-of-text token, as open-unlearning does; use it whenever the labels hold one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from reprolib.errors import unknown
from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError

_COMPATS = ("open-unlearning",)

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="exact_memorisation",
            label="Exact memorisation",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source="Tirumala et al. 2022; open-unlearning (Dorna et al. 2025)",
            trap=(
                "Common words are predicted by any model, so an unlearned model is not at 0: compare with"
                " the twin."
            ),
        ),
        Card(
            name="extraction_strength",
            label="Extraction strength",
            unit="share",
            low=0.0,
            high=1.0,
            better="twin",
            source="Carlini et al. 2021; open-unlearning (Dorna et al. 2025), its floor of 1/T mended",
            trap=(
                "Only the end of an answer counts: one wrong last token gives 0. open-unlearning reports"
                " 1/T there."
            ),
        ),
    )
}


def _matches(predictions: Any, labels: Any, drop_last: bool) -> np.ndarray:
    p, y = np.asarray(predictions), np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape:
        raise MetricError(
            f"predictions have shape {p.shape} and labels {y.shape}; allowed: one axis and equal lengths. "
            "Pass one answer at a time, shifted and without padding."
        )
    for name, array in (("predictions", p), ("labels", y)):
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise MetricError(
                f"{name} are {array.dtype}; allowed: integer token ids. Take the argmax of the logits."
            )
    if y.size and y.min() < 0:
        raise MetricError(
            f"labels hold {int(y.min())}; allowed: token ids of 0 or more. Remove masked positions (-100)"
            " first."
        )
    if drop_last:
        p, y = p[:-1], y[:-1]
    if y.size == 0:
        raise MetricError(
            f"no answer token is left (drop_last={drop_last}); allowed: at least one. "
            "Look for an empty answer, or one that is only the end-of-text token."
        )
    return p == y


def exact_memorisation(predictions: Any, labels: Any, *, drop_last: bool = False) -> float:
    """Share of answer tokens that the model predicts: EM = (1/T) sum_t [prediction_t = label_t].

    ``predictions``, ``labels``: token ids [T]; ``drop_last=True`` leaves out the final (end-of-text)
    position. In [0, 1]. Source: Tirumala et al. 2022; open-unlearning.
    Raises MetricError for unequal shapes, masked labels, and when no token is left.
    """
    return float(_matches(predictions, labels, drop_last).mean())


def extraction_strength(
    predictions: Any,
    labels: Any,
    *,
    drop_last: bool = False,
    compat: Literal["open-unlearning"] | None = None,
) -> float:
    """How little of an answer must be given for the rest to follow: ES = 1 - k/T.

    k is the smallest prefix length after which all predictions are right; k = T, so ES = 0, if the
    last token is wrong. ``compat="open-unlearning"`` gives that library's number instead: its loop ends
    at k = T - 1, so ES = 1/T where nothing matches (never 0, and larger for short answers).

    ``predictions``, ``labels``: token ids [T]; ``drop_last=True`` leaves out the final (end-of-text)
    position. In [0, 1] ([1/T, 1] with compat). Source: Carlini et al. 2021; open-unlearning.
    Raises MetricError for unequal shapes, masked labels, an unknown compat, and, in both modes, when
    no token is left (open-unlearning returns 0 for it).
    """
    if compat is not None and compat not in _COMPATS:
        raise MetricError(unknown("compat", compat, _COMPATS) + " Leave it out for the corrected form.")
    wrong = np.flatnonzero(~_matches(predictions, labels, drop_last))
    total = len(labels) - int(drop_last)
    k = int(wrong[-1]) + 1 if wrong.size else 0
    if compat == "open-unlearning":
        k = min(k, total - 1)
    return (total - k) / total
