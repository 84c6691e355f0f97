"""WHP (Who's Harry Potter): train on what the model would say if it knew the forget rows less."""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, WHP, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    alpha: float = 50.0,
    reinforce_lr: float = 1e-3,
    reinforce_epochs: float = 3,
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(forget=WHP(alpha=alpha), retain=retain_term(retain), retain_weight=retain_weight)
    return (
        Stage(
            name="reinforce",
            objective=Objective(forget=NLL()),
            trainable=named(trainable),
            optimizer=AdamW(lr=reinforce_lr),
            schedule=Schedule(epochs=reinforce_epochs, batch_size=batch_size, pairing="forget"),
            keep="helper",
        ),
        Stage(
            name="generic",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
            restart=True,
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="whp",
        label="WHP (logits only)",
        family="distillation",
        paper="Eldan & Russinovich 2023",
        citation="eldan2023whp",
        idea=(
            "A model trained further on the forget rows shows which tokens they raise; the model before"
            " unlearning learns predictions without that rise."
        ),
        published=(
            "alpha 5, on generic targets in which names are also replaced by hand-made ones (left out"
            " here). No retain term; the default here has one of weight 1, retain_weight=0 leaves it out."
        ),
        cost=(
            "1 forward + backward on forget rows for the helper, then 2 (forget, retain); two sets of"
            " logits cached"
        ),
        trap=(
            "On a memorised model reinforcing raises little, so that alpha must lie far above the"
            " published 5."
        ),
    ),
    stages=stages,
)
