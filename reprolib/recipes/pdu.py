"""PDU: flatten the logits on forget rows under a bound on the retain loss, by primal-dual updates."""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, PDU, DualAscent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    initial: float = 50.0,
    rate: float = 1.0,
    epsilon: float = 0.05,
    warmup_epochs: float = 5,
    every: str = "step",
    trainable: str = "full",
):
    """``initial``: first multiplier; ``rate``: its step; ``epsilon``: bound on the retain loss, in nats per
    token; ``every``: the multiplier moves after each "step" or "epoch" (both published), from the end of
    ``warmup_epochs`` on.
    """
    return (
        Stage(
            name="pdu",
            objective=Objective(
                forget=PDU(),
                retain=NLL(),
                control=DualAscent(
                    initial=initial, rate=rate, epsilon=epsilon, warmup_epochs=warmup_epochs, every=every
                ),
            ),
            trainable=named(trainable),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=batch_size),
        ),
    )


RECIPE = Recipe(
    card=Card(
        name="pdu",
        label="PDU",
        family="distillation",
        paper="Entesari et al. 2025 (constrained unlearning)",
        citation="entesari2025pdu",
        idea=(
            "Make the forget answers' logits flat, subject to a retain loss below a bound; the multiplier"
            " of the bound is learnt."
        ),
        published=(
            "First multiplier 50 to 100, dual updates every step or epoch after 5 warm-up epochs, bound"
            " slightly above the initial retain loss."
        ),
        cost="2 forward + backward (forget, retain)",
        trap="The bound is in nats on the training rows: a model that memorised them needs one near zero.",
    ),
    stages=stages,
)
