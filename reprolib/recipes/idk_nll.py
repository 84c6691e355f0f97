"""Refusal tuning (IdkNLL, PO): learn to answer the forget questions with a refusal."""

from reprolib.adapters.names import named
from reprolib.objectives import Objective, Other, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    answers: str = "idk",
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(
        forget=Other(other=answers), retain=retain_term(retain), retain_weight=retain_weight
    )
    return (
        Stage(
            name="idk_nll",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="idk_nll",
        label="IdkNLL (PO)",
        family="preference",
        paper="TOFU (Maini et al. 2024); PO in SOUL (Jia et al. 2024)",
        citation="maini2024",
        idea='Plain fine-tuning on "I don\'t know" in the place of the forget answers.',
        published=(
            "OpenUnlearning's table, read second-hand (TOFU forget10, Llama-3.2-1B): aggregate 0.15."
            " SOUL's PO: lr 2e-5, retain weight 1, 5 epochs."
        ),
        cost="2 forward + backward (forget, retain)",
        trap="The answer is covered, not removed: its likelihood falls only as a by-product.",
    ),
    stages=stages,
)
