"""IdkDPO: prefer a refusal to the forget answer."""

from reprolib.adapters.names import named
from reprolib.objectives import DPO, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 0.1,
    answers: str = "idk",
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    objective = Objective(
        forget=DPO(beta=beta, other=answers), retain=retain_term(retain), retain_weight=retain_weight
    )
    return (
        Stage(
            name="idk_dpo",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="idk_dpo",
        label="IdkDPO",
        family="preference",
        paper="TOFU (Maini et al. 2024); DPO (Rafailov et al. 2023)",
        citation="rafailov2023dpo",
        idea=(
            "Direct preference optimisation with a refusal as the winner and the forget answer as the loser."
        ),
        published=(
            "OpenUnlearning's table, read second-hand (TOFU forget10, Llama-3.2-1B): aggregate 0.14; beta"
            " 0.1."
        ),
        cost="3 forward + backward (forget, refusal, retain); reference log-probabilities cached once",
        trap=("Only the difference of the two likelihoods counts: it can grow while both rise or both fall."),
    ),
    stages=stages,
)
