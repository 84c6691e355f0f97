"""Negative preference optimisation with a retain term."""

from reprolib.adapters.names import named
from reprolib.objectives import NPO, Objective, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 5e-4,
    epochs: float = 10,
    batch_size: int = 16,
    beta: float = 0.1,
    ratio: str = "sequence",
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    """``ratio``: of "sequence" log-probabilities (published), or of their "mean" over the answer's tokens (as
    peers compute it).
    """
    objective = Objective(
        forget=NPO(beta=beta, ratio=ratio), retain=retain_term(retain), retain_weight=retain_weight
    )
    return (
        Stage(
            name="npo",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="npo",
        label="NPO",
        family="preference",
        paper="Zhang et al. 2024",
        citation="zhang2024npo",
        idea=(
            "Treat forget answers as rejected ones: a bounded loss whose gradient fades as they become"
            " unlikely."
        ),
        published=(
            "beta 0.1 with a retain term. SemEval organisers on OLMo-7B: task aggregate 0.021, MIA score"
            " 0.080, MMLU 0.463, final 0.188."
        ),
        cost="2 forward + backward (forget, retain); reference log-probabilities cached once",
        trap=(
            "Sequence log-probabilities are sums: beta means something else for long answers than for"
            ' short ones. Peers (SOUL, ZJUKLAB) take means, which is another loss: option ratio="mean".'
        ),
    ),
    stages=stages,
)
