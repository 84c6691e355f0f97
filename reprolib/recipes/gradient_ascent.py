"""Gradient ascent: raise the loss of the forget rows, and nothing else."""

from reprolib.adapters.names import named
from reprolib.objectives import Ascent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1.5e-4,
    epochs: float = 2.5,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    return (
        Stage(
            name="ascent",
            objective=Objective(forget=Ascent()),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr, weight_decay=weight_decay),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="forget"),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="gradient_ascent",
        label="Gradient ascent",
        family="likelihood",
        paper="Jang et al. 2023; Cyber for AI at SemEval-2025 Task 4",
        citation="jang2023",
        idea="Maximise the negative log-likelihood of the forget answers.",
        published=(
            "OLMo-7B 4-bit + LoRA r=64: lr 2e-6, 10 epochs, MIA score 0.865, MMLU 0.284 (from 0.512). "
            "OLMo-1B in full: lr 2e-5, weight decay 2e-4, 3 epochs, MIA score 0.807."
        ),
        cost="1 forward + backward on forget rows",
        trap="The loss has no lower bound: the model is destroyed if it is not stopped in time.",
    ),
    stages=stages,
)
