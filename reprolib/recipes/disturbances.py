"""Bounds of the table: changes that are no method of unlearning."""

from reprolib.adapters.names import named
from reprolib.edits.weights import Noise
from reprolib.objectives import Objective, Other
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def noise(scale: float = 0.5):
    """``scale``: standard deviation of the noise over that of each weight matrix."""
    return (Noise(scale=scale),)


def random_labels(lr: float = 1e-3, epochs: float = 5, batch_size: int = 16, trainable: str = "lora-16"):
    return (
        Stage(
            name="random labels",
            objective=Objective(forget=Other(other="random")),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="forget"),
        ),
    )


NOISE = Recipe(
    card=Card(
        name="noise",
        label="Noise on the weights",
        family="baseline",
        paper="this study",
        citation="",
        idea="Gaussian noise on every weight matrix.",
        published="",
        cost="none",
        trap="Forgets both sets alike.",
    ),
    stages=noise,
)

RANDOM_LABELS = Recipe(
    card=Card(
        name="random_labels",
        label="Random labels",
        family="baseline",
        paper="this study; Golatkar et al. 2020",
        citation="golatkar2020",
        idea="Fine-tune a LoRA adapter on random tokens in the place of the forget answers.",
        published="",
        cost="1 forward + backward on forget rows",
        trap="Teaches noise to everything that looks alike.",
    ),
    stages=random_labels,
)
