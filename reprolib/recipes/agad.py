"""AGAD: ascent on a chunk, then repair on a random part of the retain rows, chunk after chunk."""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, Ascent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 2e-3,
    epochs: float = 3,
    batch_size: int = 16,
    chunk: int = 64,
    share: float = 0.25,
    last_epochs: float = 10,
    trainable: str = "lora-16",
):
    """``share``: part of the retain rows that follows each chunk; at the end come ``last_epochs`` over all of
    them.
    """
    weights, optimizer = named(trainable), AdamW(lr=lr)
    return (
        Stage(
            name="agad",
            objective=Objective(forget=Ascent(), retain=NLL()),
            schedule=Schedule(
                epochs=epochs, batch_size=batch_size, pairing="alternating", chunk=chunk, share=share
            ),
            trainable=weights,
            optimizer=optimizer,
        ),
        Stage(
            name="final annealing",
            objective=Objective(retain=NLL()),
            schedule=Schedule(epochs=last_epochs, batch_size=batch_size, pairing="retain"),
            trainable=weights,
            optimizer=optimizer,
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="agad",
        label="AGAD",
        family="competition",
        paper="AILS-NTUA at SemEval-2025 Task 4 (Premptis et al. 2025)",
        citation="ails2025",
        idea=(
            "Alternate ascent on a chunk of forget rows with annealing on a quarter of the retain rows,"
            " and anneal on all of them at last."
        ),
        published=(
            "Chunks of 64, 3 epochs of ascent (lr 5e-5, batch 16), 3 epochs on 25 % of retain; LoRA r=16,"
            " alpha 32. Not the submitted system."
        ),
        cost="1 forward + backward per step",
        trap="Annealing also repairs chunks forgotten before.",
    ),
    stages=stages,
)
