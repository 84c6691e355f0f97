"""Every claim of the book, as a check over the records: one module a theme, in the order of the argument."""

from __future__ import annotations

# A claim is registered when its module is imported, so that the order of these lines is that of the claims.
# isort: off
from study.claims import official_score
from study.claims import methods
from study.claims import hidden
from study.claims import forget_rows
from study.claims import influence
from study.claims import importance_and_cost
from study.claims import size
from study.claims import measures

# isort: on
from study.claims.official_score import the_official_score_rewards_destruction

__all__ = [
    "forget_rows",
    "hidden",
    "importance_and_cost",
    "influence",
    "measures",
    "methods",
    "official_score",
    "size",
    "the_official_score_rewards_destruction",  # which the page of the claims shows
]
