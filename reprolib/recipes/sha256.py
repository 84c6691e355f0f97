"""SHA256's recipe: gradient difference in the MLPs of early layers, the retain weight steered by the retain
loss.
"""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, Ascent, Feedback, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 8,
    batch_size: int = 16,
    low: float = 1.2,
    high: float = 2.3,
    divisor: float = 1.0,
    trainable: str = "mlp-0-1",
):
    """``low``, ``high``: bounds of the retain weight (2.3 is the released code's upper one, 2.8 stands in a
    summary of the paper); ``divisor``: the first epoch's mean retain loss is divided by it; the retain rows
    of a batch, to do as the released code does.
    """
    return (
        Stage(
            name="sha256",
            objective=Objective(
                forget=Ascent(), retain=NLL(), control=Feedback(low=low, high=high, divisor=divisor)
            ),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="sha256",
        label="SHA256",
        family="competition",
        paper="SHA256 at SemEval-2025 Task 4 (arXiv 2504.12996)",
        citation="sha2562025",
        idea=(
            "Only the MLPs of early layers move; the retain weight grows while the retain loss lies above"
            " its average of the first epoch."
        ),
        published=(
            "7B: 0.711 (task 0.964, MIA 0.894, MMLU 0.275: excluded for MMLU); 1B final 0.652. Layers 0 to"
            " 5, lr 1.5e-5, batch 12 with 10 accumulated, 8 epochs."
        ),
        cost="2 forward + backward (forget, retain)",
        trap="The steering compares single batches with an average: with small batches it follows noise.",
    ),
    stages=stages,
)
