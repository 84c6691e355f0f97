"""SatImp: ascent weighted towards tokens that are known, but not saturated."""

from reprolib.adapters.names import named
from reprolib.objectives import Objective, SatImp, retain_term
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 10,
    batch_size: int = 16,
    beta1: float = 1.0,
    beta2: float = 1.0,
    retain: str = "nll",
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    term = SatImp(beta1=beta1, beta2=beta2)
    objective = Objective(
        forget=term, retain=retain_term(retain), forget_weight=forget_weight, retain_weight=retain_weight
    )
    return (
        Stage(
            name="satimp",
            objective=objective,
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="satimp",
        label="SatImp",
        family="weighting",
        paper="Yang et al. 2025",
        citation="yang2025satimp",
        idea="Weight p^b1 (1-p)^b2 per token: neither lost tokens nor wholly certain ones dominate.",
        published=(
            "beta1 5, beta2 1; the released code's forget and retain weights (1, 0.1) contradict its"
            " configuration (0.1, 1); both are 1 by default here."
        ),
        cost="2 forward + backward (forget, retain)",
        trap="On a model that has memorised to certainty, (1-p) is almost 0 and the method starts slowly.",
    ),
    stages=stages,
)
