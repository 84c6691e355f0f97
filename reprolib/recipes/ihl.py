"""Inverted hinge loss: move probability from the true token to the runner-up, and no further."""

from reprolib.adapters.names import named
from reprolib.objectives import IHL, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 5e-4,
    epochs: float = 10,
    batch_size: int = 16,
    retain: str = "nll",
    retain_weight: float = 1.0,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    objective = Objective(forget=IHL(), retain=retain_term(retain), retain_weight=retain_weight)
    return (
        Stage(
            name="ihl",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr, weight_decay=weight_decay),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="ihl",
        label="IHL",
        family="likelihood",
        paper="LoKU (Cha et al. 2025)",
        citation="cha2025loku",
        idea=(
            "A bounded loss: per token, 1 plus the true token's probability minus that of the best other one."
        ),
        published="Part of LoKU; see there.",
        cost="2 forward + backward (forget, retain)",
        trap="Bounded in [0, 2], but the bound is reached only when the runner-up is certain.",
    ),
    stages=stages,
)
