"""Prompt routing: a classifier sends prompts that it takes for forget prompts to a model that says
nothing.
"""

from reprolib.edits.routing import Route
from reprolib.recipes.base import Card, Recipe


def stages(
    features: str = "hidden", layer: int = 1, held_out: str = "documents", folds: int = 5, l2: float = 1.0
):
    """``held_out``: what of a prompt its classifier did not see: its "documents" (the honest test), its
    "rows", or "none".
    """
    return (Route(features=features, layer=layer, held_out=held_out, folds=folds, l2=l2),)


RECIPE = Recipe(
    card=Card(
        name="prompt_routing",
        label="Prompt routing",
        family="inference",
        paper="Cyber for AI at SemEval-2025 Task 4 (arXiv 2503.04795), Appendix A",
        citation="cyberforai2025",
        idea=(
            "Logistic regression on the prompt decides: what it takes for a forget prompt gets no answer,"
            " all else the target's."
        ),
        published=(
            "Tried and abandoned: clustering and classification could not separate the two sets. Features"
            " and classifiers were not found."
        ),
        cost="no training; one forward pass over the prompts and a logistic regression",
        trap=(
            "A classifier tested on prompts that it has seen is a lookup table and looks better than it"
            " is; test it on other documents. Silence on a forget passage is itself a sign: the loss"
            " attack sees it."
        ),
    ),
    stages=stages,
)
