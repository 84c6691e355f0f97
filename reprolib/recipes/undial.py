"""UNDIAL: distil from one's own predictions with the true token's logit lowered."""

from reprolib.adapters.names import named
from reprolib.objectives import UNDIAL, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 10.0,
    retain: str = "nll",
    retain_weight: float = 0.0,
    trainable: str = "full",
):
    objective = Objective(forget=UNDIAL(beta=beta), retain=retain_term(retain), retain_weight=retain_weight)
    return (
        Stage(
            name="undial",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="undial",
        label="UNDIAL",
        family="distillation",
        paper="Dong et al. 2024",
        citation="dong2024undial",
        idea=(
            "The teacher is the model before unlearning with beta subtracted from the true token's logit:"
            " a fixed, bounded goal."
        ),
        published=(
            "beta 10 (3 to 30), lr 1e-4, 10 epochs, LoRA r=8, no retain term; OpenUnlearning's table, read"
            " second-hand (TOFU forget10, Llama-3.2-1B): aggregate 0.42."
        ),
        cost="1 forward + backward on forget rows; teacher logits cached once",
        trap="Without a retain term, which is the published form, drift is not held.",
    ),
    stages=stages,
)
