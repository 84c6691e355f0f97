"""CE-U: cross-entropy to one's own predictions without the true token."""

from reprolib.adapters.names import named
from reprolib.errors import SpecError
from reprolib.objectives import CEU, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    ignore_first: int = 1,
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    if ignore_first not in (0, 1):
        raise SpecError(
            f"ce_u: ignore_first must be 1 (the first answer token is left out) or 0, got {ignore_first!r}."
        )
    objective = Objective(
        forget=CEU(ignore_first=bool(ignore_first)),
        retain=retain_term(retain),
        retain_weight=retain_weight,
    )
    return (
        Stage(
            name="ce_u",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="ce_u",
        label="CE-U",
        family="distillation",
        paper="Yang 2025",
        citation="yang2025ceu",
        idea="Move to the distribution that the model itself has once the true token is struck out.",
        published=(
            "No retain term; the first answer token is left out. The default here has a retain term of"
            " weight 1; retain_weight=0 leaves it out."
        ),
        cost="2 forward + backward (forget, retain)",
        trap=(
            "The first token of every answer is left alone, so that answers of one token are not unlearned"
            " at all."
        ),
    ),
    stages=stages,
)
