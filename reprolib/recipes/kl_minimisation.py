"""KL minimisation: ascent on the forget rows, while predictions on the retain rows stay where they were."""

from reprolib.adapters.names import named
from reprolib.objectives import Ascent, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    retain: str = "kl",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(forget=Ascent(), retain=retain_term(retain), retain_weight=retain_weight)
    return (
        Stage(
            name="kl_minimisation",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="kl_minimisation",
        label="KL minimisation",
        family="likelihood",
        paper="TOFU (Maini et al. 2024); SemEval organisers' baseline",
        citation="maini2024",
        idea=(
            "Raise the loss of forget answers while the whole distribution on retain answers is held by KL"
            " to the start."
        ),
        published=(
            "SemEval organisers on OLMo-7B: task aggregate 0, MIA score 0.916, MMLU 0.269, final 0.395."
        ),
        cost="2 forward + backward (forget, retain); reference logits cached once",
        trap=(
            "The forget term has no lower bound, the KL term has no slope near its minimum: ascent has the"
            " advantage at the start."
        ),
    ),
    stages=stages,
)
