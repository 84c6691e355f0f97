"""AltPO: prefer the model's own alternative answer to the forget answer."""

from reprolib.adapters.names import named
from reprolib.objectives import DPO, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 5e-4,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 0.1,
    answers: str = "sampled",
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(
        forget=DPO(beta=beta, other=answers), retain=retain_term(retain), retain_weight=retain_weight
    )
    return (
        Stage(
            name="alt_po",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="alt_po",
        label="AltPO",
        family="preference",
        paper="Mekala et al. 2024",
        citation="mekala2024altpo",
        idea="As IdkDPO, but the winner is a plausible other answer that the model gives itself.",
        published=(
            "TOFU: beta in {0.05, 0.1, 0.5}, lr in {1, 2, 5}e-5, retain weight in {1, 2, 5};"
            " OpenUnlearning's table, read second-hand (TOFU forget10, Llama-3.2-1B): aggregate 0.15."
        ),
        cost=(
            "3 forward + backward (forget, alternative, retain); alternatives and reference"
            " log-probabilities made once"
        ),
        trap=(
            "A model trained from scratch cannot be prompted for alternatives: here the first token is"
            " drawn without the true one, the rest is greedy."
        ),
    ),
    stages=stages,
    version=2,  # 2: alternatives begin with a word of their own
)
