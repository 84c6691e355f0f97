"""Gradient difference: ascent on the forget rows, descent on the retain rows, in one step."""

from reprolib.adapters.names import named
from reprolib.objectives import Ascent, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 2e-4,
    epochs: float = 10,
    batch_size: int = 16,
    retain: str = "nll",
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(
        forget=Ascent(),
        retain=retain_term(retain),
        forget_weight=forget_weight,
        retain_weight=retain_weight,
    )
    return (
        Stage(
            name="difference",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="gradient_difference",
        label="Gradient difference",
        family="likelihood",
        paper="Liu et al. 2022; TOFU (Maini et al. 2024); Cyber for AI at SemEval-2025 Task 4",
        citation="liu2022",
        idea="Raise the loss of forget answers while lowering that of retain answers.",
        published=(
            "SemEval organisers on OLMo-7B: task aggregate 0, MIA score 0.382, MMLU 0.348, final 0.243."
        ),
        cost="2 forward + backward (forget, retain)",
        trap="The forget term is unbounded and ends up larger than any retain term.",
    ),
    stages=stages,
)
