"""RMU: misdirect the activations of one layer on forget rows, anchor them on retain rows."""

from functools import partial

from reprolib.adapters.names import named
from reprolib.objectives import Anchor, Misdirect, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    layer: int = 1,
    c: float = 6.5,
    retain_weight: float = 1.0,
    adaptive: bool = False,
    trainable: str = "mlp-0-1",
):
    """``layer``: number of the block, from 0; ``c``: length of the goal vector (times the activation's own,
    if adaptive).

    ``trainable``: the authors move the MLPs' output weights alone, e.g. "down-5-7".
    """
    objective = Objective(
        forget=Misdirect(layer=layer, c=c, adaptive=adaptive),
        retain=Anchor(layer=layer),
        retain_weight=retain_weight,
    )
    return (
        Stage(
            name="rmu",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="rmu",
        label="RMU",
        family="representation",
        paper="Li et al. 2024 (WMDP)",
        citation="li2024wmdp",
        idea=(
            "Push the forget rows' activations at one layer towards a fixed random direction, hold those"
            " of the retain rows."
        ),
        published=(
            "zephyr-7B: layer 7 of 32, MLP output weights of layers 5 to 7, c 6.5, retain weight 1200, lr"
            " 5e-5, 150 batches of 4. OpenUnlearning's table, read second-hand (TOFU forget10,"
            " Llama-3.2-1B): aggregate 0.52."
        ),
        cost="2 forward + backward up to the layer; activations of the start cached once",
        trap="c is a length in the units of one model's activations and carries over to no other.",
    ),
    stages=stages,
)

ADAPTIVE = Recipe(
    card=Card(
        name="adaptive_rmu",
        label="Adaptive RMU",
        family="representation",
        paper="Huu-Tien et al. 2024; Mr. Snuffleupagus at SemEval-2025 Task 4 (Dosajh & Sanghi 2025)",
        citation="huutien2024adaptive",
        idea="RMU with a goal as long as a multiple of the activation that it replaces.",
        published=(
            "SemEval-2025 Task 4 (Mr. Snuffleupagus): 7B final 0.376 (task 0.387, MIA 0.256, MMLU 0.485),"
            " 1B final 0.485."
        ),
        cost="2 forward + backward up to the layer; activations of the start cached once",
        trap="The multiple still has to be found per layer.",
    ),
    stages=partial(stages, c=1.0, adaptive=True),
)
