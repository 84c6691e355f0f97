"""SimNPO: NPO without a reference model and with length-normalised likelihoods."""

from reprolib.adapters.names import named
from reprolib.objectives import Objective, SimNPO, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 5e-4,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 4.5,
    delta: float = 0.0,
    retain: str = "nll",
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(
        forget=SimNPO(beta=beta, delta=delta),
        retain=retain_term(retain),
        forget_weight=forget_weight,
        retain_weight=retain_weight,
    )
    return (
        Stage(
            name="simnpo",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="simnpo",
        label="SimNPO",
        family="preference",
        paper="Fan et al. 2024",
        citation="fan2024simnpo",
        idea=(
            "Reject forget answers by their mean token likelihood alone, so that long and short answers"
            " fade alike."
        ),
        published=(
            "OpenUnlearning's configuration: beta 4.5, delta 0, forget weight 0.125. In its table, read"
            " second-hand (TOFU forget10, Llama-3.2-1B), an aggregate of 0.53, the best of the methods"
            " there."
        ),
        cost="2 forward + backward (forget, retain)",
        trap=(
            "Fades as soon as the mean loss is high: what remains recognisable to the loss attack stays so."
        ),
    ),
    stages=stages,
)
