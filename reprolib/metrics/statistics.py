"""Statistics of tables and comparisons, from checks.py, resample.py, effects.py and ranks.py, and their
cards.
"""

from __future__ import annotations

from reprolib.metrics.card import Card
from reprolib.metrics.checks import MetricError, share, vector
from reprolib.metrics.effects import (
    Matched,
    at_matched,
    benjamini_hochberg,
    cliffs_delta,
    gap_closed,
    gap_reason,
    holm,
    standardised_difference,
    superiority,
)
from reprolib.metrics.ranks import Ranking, rank_stability
from reprolib.metrics.resample import (
    Interval,
    Plan,
    SeedsInterval,
    bootstrap,
    combined_interval,
    paired_difference,
    paired_p_value,
    percentiles,
    seeds_interval,
    weighted_mean,
)

CARDS: dict[str, Card] = {
    c.name: c
    for c in (
        Card(
            name="gap_closed",
            label="Share of the way",
            unit="share",
            low=None,
            high=None,
            better="twin",
            source="this study: (m - target) / (twin - target)",
            trap=(
                "1 is the retrained twin, above 1 is beyond it and not better; NaN where target and twin"
                " agree."
            ),
        ),
        Card(
            name="standardised_difference",
            label="Standardised difference",
            unit="standard deviations",
            low=None,
            high=None,
            better="neither",
            source="Cohen 1988; d_z of Lakens 2013",
            trap=(
                "In units of the spread of *differences*: two methods that err alike get a large one from"
                " a tiny difference."
            ),
        ),
        Card(
            name="superiority",
            label="Probability of superiority",
            unit="share",
            low=0.0,
            high=1.0,
            better="neither",
            source="McGraw and Wong 1992 (common language effect size); the AUC",
            trap="0.5 is no effect. It says how often, not by how much.",
        ),
        Card(
            name="cliffs_delta",
            label="Cliff's delta",
            unit="score",
            low=-1.0,
            high=1.0,
            better="neither",
            source="Cliff 1993",
            trap="±1 needs no large difference, only no overlap: with three seeds a side it is common.",
        ),
        Card(
            name="rank_stability",
            label="Rank stability (tau)",
            unit="Kendall tau",
            low=-1.0,
            high=1.0,
            better="higher",
            source="this study; Kendall 1945 (tau-b), bootstrap of ranks after Hall and Miller 2009",
            trap=(
                "A stable order can be an order of differences too small to matter, and a wrong metric"
                " ranks stably too."
            ),
        ),
    )
}

__all__ = [
    "CARDS",
    "Interval",
    "Matched",
    "MetricError",
    "Plan",
    "Ranking",
    "SeedsInterval",
    "at_matched",
    "benjamini_hochberg",
    "bootstrap",
    "cliffs_delta",
    "combined_interval",
    "gap_closed",
    "gap_reason",
    "holm",
    "paired_difference",
    "paired_p_value",
    "percentiles",
    "rank_stability",
    "seeds_interval",
    "share",
    "standardised_difference",
    "superiority",
    "vector",
    "weighted_mean",
]
