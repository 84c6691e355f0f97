"""LoRA that starts where the forget set is stored: FILA, LoKU and VILA."""

from functools import partial

from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.errors import SpecError, unknown
from reprolib.objectives import IHL, NLL, NPO, Ascent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage

LOSSES = ("difference", "ihl", "npo")


def stages(
    lr: float = 2e-4,
    epochs: float = 10,
    batch_size: int = 16,
    loss: str = "difference",
    space: str = "full",
    centred: bool = False,
    rank: int = 16,
    alpha: float = 32,
    eps: str = "relative",
    eps_value: float = 0.0,
    tokens_twice: bool = False,
    rows: str = "fisher",
    normalise: bool = False,
    draws: int = 2,
    sigma: float = 0.05,
    perturb: bool = True,
    importance_batch: int = 4,
    dropout: float = 0.0,
    exact_up_to: int = 2048,
    beta: float = 0.1,
    ratio: str = "sequence",
    retain_weight: float = 1.0,
    weight_decay: float = 0.01,
):
    """``loss``: "difference", "ihl" or "npo"; ``space``, ``centred``: FILA measures importance on the full
    weights by uncentred squares, VILA on LoRA factors by variances. Of
    :class:`reprolib.adapters.fisher_lora.FisherLoRA` are ``eps``, ``eps_value`` (0: what is usual for
    ``eps``; published: "absolute", 1e-5), ``tokens_twice`` (VILA's code), ``rows``, ``normalise``, ``draws``,
    ``sigma``, ``perturb``, ``dropout``, ``exact_up_to`` and, as ``importance_batch``, its ``batch_size``.
    ``beta``, ``ratio`` are NPO's: "sequence", or "mean" as peers compute it.
    """
    if loss not in LOSSES:
        raise SpecError(f"localised: {unknown('loss', loss, LOSSES)}")
    forget = {"difference": Ascent(), "ihl": IHL(), "npo": NPO(beta=beta, ratio=ratio)}[loss]
    objective = Objective(forget=forget, retain=NLL(), retain_weight=retain_weight)
    return (
        Stage(
            name=loss,
            objective=objective,
            trainable=FisherLoRA(
                rank=rank,
                alpha=alpha,
                space=space,
                centred=centred,
                eps=eps,
                eps_value=eps_value or None,
                tokens_twice=tokens_twice,
                rows=rows,
                normalise=normalise,
                draws=draws,
                sigma=sigma,
                perturb=perturb,
                batch_size=importance_batch,
                dropout=dropout,
                exact_up_to=exact_up_to,
            ),
            optimizer=AdamW(lr=lr, weight_decay=weight_decay),
            schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
        ),
    )


FILA = Recipe(
    card=Card(
        name="fila",
        label="FILA + difference",
        family="localised",
        paper="LoKU (Cha et al. 2025)",
        citation="cha2025loku",
        idea=(
            "Gradient difference on LoRA factors cut out of the weights along rows that matter to the"
            " forget set and not to the retain set."
        ),
        published=(
            "TOFU: rank 4 to 32, alpha twice the rank, 5 epochs, batch 32, lr 1e-4 (Llama-2-7B), 2e-4"
            " (Phi-1.5)."
        ),
        cost=(
            "2 forward + backward (forget, retain); before that one pass of gradients of all linear"
            " weights over both sets"
        ),
        trap=(
            "The released code adds an absolute epsilon of 1e-5 to the retain importance, which is far"
            " smaller on this study's small model (looked at once, no record holds it) and at 7B by an"
            " estimate: rows are then ranked by the forget set alone. Here epsilon is relative by default;"
            ' eps="absolute" is as published.'
        ),
    ),
    stages=stages,
)

LOKU = Recipe(
    card=Card(
        name="loku",
        label="LoKU (FILA + IHL)",
        family="localised",
        paper="LoKU (Cha et al. 2025)",
        citation="cha2025loku",
        idea="The inverted hinge loss on Fisher-initialised LoRA.",
        published="TOFU: rank 4 to 32, alpha twice the rank, 5 epochs, retain weight 1.",
        cost=(
            "2 forward + backward (forget, retain); before that one pass of gradients of all linear"
            " weights over both sets"
        ),
        trap="The adapter is valid on the residual base only; saved alone it is useless.",
    ),
    stages=partial(stages, loss="ihl", lr=5e-4),
)

VILA_DIFFERENCE = Recipe(
    card=Card(
        name="vila_difference",
        label="VILA + difference",
        family="localised",
        paper="VILA (arXiv 2508.21300)",
        citation="vila2025",
        idea=(
            "As FILA, with importance as the variance of the gradients of LoRA factors, lifted to the"
            " weights' shape."
        ),
        published=(
            "TOFU, Llama-2-7B: lr 7e-5 / 1e-4 / 5e-5 and retain weight 0.7 / 1.8 / 1.6 for forget 1 / 5 /"
            " 10 %; rank 8, alpha 16."
        ),
        cost=(
            "2 forward + backward (forget, retain); before that one pass of LoRA gradients over both sets,"
            " per draw"
        ),
        trap=(
            "Measured on random LoRA factors: averages over few draws are noisy. The released code divides"
            " by token counts twice (option tokens_twice), which puts the retain importance far below its"
            " absolute epsilon."
        ),
    ),
    stages=partial(stages, space="lora", centred=True, lr=1e-4),
)

VILA_IHL = Recipe(
    card=Card(
        name="vila_ihl",
        label="VILA + IHL",
        family="localised",
        paper="VILA (arXiv 2508.21300)",
        citation="vila2025",
        idea="VILA's start with the inverted hinge loss.",
        published="TOFU, Llama-2-7B: lr 2e-4 / 1e-4 / 1e-4, retain weight 0.9 / 1.3 / 1.3.",
        cost=(
            "2 forward + backward (forget, retain); before that one pass of LoRA gradients over both sets,"
            " per draw"
        ),
        trap="As VILA + difference.",
    ),
    stages=partial(stages, loss="ihl", space="lora", centred=True, lr=5e-4),
)

VILA_NPO = Recipe(
    card=Card(
        name="vila_npo",
        label="VILA + NPO",
        family="localised",
        paper="VILA (arXiv 2508.21300)",
        citation="vila2025",
        idea="VILA's start with NPO.",
        published=(
            "TOFU, Llama-2-7B: lr 2e-4 / 1e-4 / 1e-4, retain weight 0.7 / 1.5 / 1.5, beta 0.3 / 0.5 / 0.5."
        ),
        cost=(
            "2 forward + backward (forget, retain); reference log-probabilities cached once; before that"
            " one pass of LoRA gradients over both sets, per draw"
        ),
        trap="As VILA + difference.",
    ),
    stages=partial(stages, loss="npo", space="lora", centred=True, lr=5e-4),
)
