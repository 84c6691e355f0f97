"""Task vector: train on the forget rows, then go as far in the opposite direction."""

from reprolib.adapters.names import named
from reprolib.edits.weights import Extrapolate
from reprolib.errors import SpecError
from reprolib.objectives import NLL, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 5e-4, epochs: float = 5, batch_size: int = 16, alpha: float = 3.0, trainable: str = "full"
):
    """``alpha``: how many times the learnt change is taken away."""
    if not alpha >= 0:
        raise SpecError(
            f"task_vector: alpha must be >= 0, got {alpha}; below 0 the learnt change would be added once"
            " more."
        )
    return (
        Stage(
            name="learn forget rows",
            objective=Objective(forget=NLL()),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="forget"),
        ),
        Extrapolate(factor=-alpha, name="negate"),
    )


RECIPE = Recipe(
    card=Card(
        name="task_vector",
        label="Task vector",
        family="weights",
        paper="Ilharco et al. 2023",
        citation="ilharco2023",
        idea="Subtract from the weights what training on the forget rows adds to them.",
        published="MUSE: fine-tuned for 10 epochs at lr 1e-5, alpha 5 on News.",
        cost="1 forward + backward on forget rows, then one subtraction",
        trap=(
            "Where the forget rows are memorised already, training on them changes little that is"
            " particular to them."
        ),
    ),
    stages=stages,
)
