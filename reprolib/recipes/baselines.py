"""The sanity ladder: models that no method made, and that every leaderboard must place correctly."""

from reprolib.recipes.base import Card, Recipe


def nothing():
    return ()


def _baseline(name: str, label: str, start, idea: str, trap: str) -> Recipe:
    card = Card(
        name=name,
        label=label,
        paper="this study",
        citation="",
        idea=idea,
        published="",
        cost="none",
        trap=trap,
    )
    return Recipe(card=card, stages=nothing, start=start)


TARGET = _baseline(
    "target", "Untouched target", "target", "Do nothing.", "Knows everything that should be forgotten."
)

TWIN = _baseline(
    "twin",
    "Retrained twin",
    "twin",
    "Train again without the forget documents.",
    "The gold standard; too costly in practice, which is why unlearning exists.",
)

RANDOM = _baseline(
    "random", "Random weights", "random", "Forget everything.", "Scores about 0.4 on the official mean."
)

ALWAYS_EOS = _baseline(
    "always_eos",
    "Always end-of-text",
    "always-eos",
    "Answer nothing, ever.",
    "Same loss for every text, so the attack sees 0.5.",
)
