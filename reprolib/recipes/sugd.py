"""SUGD: gradient difference in chunks, every forget step followed by seven retain steps, in the last
layers.
"""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, Ascent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 3,
    batch_size: int = 8,
    chunk: int = 32,
    ratio: int = 7,
    retain_weight: float = 0.5,
    trainable: str = "last-2",
):
    """``epochs``: passes over each chunk of ``chunk`` forget rows before the next one; ``ratio``: retain
    steps per forget step.
    """
    return (
        Stage(
            name="sugd",
            objective=Objective(forget=Ascent(), retain=NLL(), retain_weight=retain_weight),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(
                epochs=epochs, batch_size=batch_size, pairing="interleaved", chunk=chunk, ratio=ratio
            ),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="sugd",
        label="SUGD",
        family="competition",
        paper="AILS-NTUA at SemEval-2025 Task 4 (Premptis et al. 2025)",
        citation="ails2025",
        idea=(
            "Ascent a chunk at a time, diluted by seven times as many retain steps, in the last layers only."
        ),
        published=(
            "Winner of SemEval-2025 Task 4: 7B final 0.706 (task 0.827, MIA 0.847, MMLU 0.443), 1B final"
            " 0.688. Released example: last 8 layers, chunks of 32, 7 epochs, lr 1e-5, batch 1, retain"
            " factor 0.5; the submitted run may differ."
        ),
        cost="1 forward + backward; one step in eight is a forget step",
        trap=(
            "Chunks unlearned early are seen no more: what the rest of the run does to them is not checked"
            " by any loss."
        ),
    ),
    stages=stages,
)
