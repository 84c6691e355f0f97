"""Gradient descent on the retain rows alone: forgetting is left to drift."""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    return (
        Stage(
            name="descent",
            objective=Objective(retain=NLL()),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr, weight_decay=weight_decay),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="retain"),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="gradient_descent",
        label="Descent on retain",
        family="likelihood",
        paper="Cyber for AI at SemEval-2025 Task 4",
        citation="cyberforai2025",
        idea="Keep training on the retain rows and hope that the forget rows fade.",
        published=(
            "OLMo-1B in full: lr 2e-5, weight decay 2e-4, 20 epochs, aggregate 0.410 (validation), which"
            " implies a task aggregate of about 0 (0.001 by arithmetic). OLMo-7B 4-bit + LoRA: no effect"
            " (0.170, as untouched)."
        ),
        cost="1 forward + backward on retain rows",
        trap="Nothing in the loss mentions the forget rows.",
    ),
    stages=stages,
)
