"""WGA: gradient ascent with every token weighted by its own likelihood."""

from reprolib.adapters.names import named
from reprolib.objectives import WGA, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 1.0,
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(forget=WGA(beta=beta), retain=retain_term(retain), retain_weight=retain_weight)
    return (
        Stage(
            name="wga",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="wga",
        label="WGA",
        family="weighting",
        paper="Wang et al. 2025",
        citation="wang2025wga",
        idea="Ascent that fades token by token: what is unlikely already is pushed no further.",
        published="beta 1, lr 1e-5, 5 epochs (TOFU, OpenUnlearning's configuration).",
        cost="2 forward + backward (forget, retain)",
        trap=(
            "A token's weight vanishes with its likelihood, and with it every push, also where the rank"
            " has not changed."
        ),
    ),
    stages=stages,
)
