"""Chains of ascent and descent, one stage after another (Cyber for AI)."""

from reprolib.adapters.names import named
from reprolib.objectives import NLL, Ascent, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Pairing, Recipe, Schedule, Stage


def _stage(
    name: str,
    objective: Objective,
    pairing: Pairing,
    lr: float,
    epochs: float,
    batch_size: int,
    weight_decay: float,
    trainable: str,
):
    return Stage(
        name=name,
        objective=objective,
        trainable=named(trainable),
        optimizer=AdamW(lr=lr, weight_decay=weight_decay),
        schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=pairing),
    )


def ga_gd(
    lr: float = 4e-4,
    epochs: float = 2.5,
    retain_lr: float = 5e-4,
    retain_epochs: float = 5,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    rest = (batch_size, weight_decay, trainable)
    return (
        _stage("ascent", Objective(forget=Ascent()), "forget", lr, epochs, *rest),
        _stage("descent", Objective(retain=NLL()), "retain", retain_lr, retain_epochs, *rest),
    )


def ga_gd_ga(
    lr: float = 1e-4,
    epochs: float = 2.5,
    retain_lr: float = 5e-4,
    retain_epochs: float = 5,
    last_lr: float = 1e-4,
    last_epochs: float = 2,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    rest = (batch_size, weight_decay, trainable)
    return (
        *ga_gd(lr, epochs, retain_lr, retain_epochs, *rest),
        _stage("ascent again", Objective(forget=Ascent()), "forget", last_lr, last_epochs, *rest),
    )


def difference_ga(
    lr: float = 2e-4,
    epochs: float = 10,
    last_lr: float = 2e-5,
    last_epochs: float = 1,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    trainable: str = "full",
):
    rest = (batch_size, weight_decay, trainable)
    both = Objective(forget=Ascent(), retain=NLL(), forget_weight=forget_weight, retain_weight=retain_weight)
    return (
        _stage("difference", both, "paired", lr, epochs, *rest),
        _stage("ascent", Objective(forget=Ascent()), "forget", last_lr, last_epochs, *rest),
    )


GA_GD = Recipe(
    card=Card(
        name="chain_ga_gd",
        label="Ascent, then descent",
        family="chains",
        paper="Cyber for AI at SemEval-2025 Task 4",
        citation="cyberforai2025",
        idea="Destroy by ascent on the forget rows, then repair by descent on the retain rows.",
        published=(
            "OLMo-7B 4-bit + LoRA r=64, alpha 16: one epoch of descent at lr 2e-6 brings MMLU from 0.284"
            " (ascent at 2e-6, 10 epochs) back to 0.511; untouched 0.512. Elsewhere, further descent at"
            " 2e-8 took an MIA score from 0.982 to 0."
        ),
        cost="1 forward + backward per step",
        trap="Repair brings back part of what was forgotten along with what should be kept.",
    ),
    stages=ga_gd,
)

GA_GD_GA = Recipe(
    card=Card(
        name="chain_ga_gd_ga",
        label="Ascent, descent, ascent",
        family="chains",
        paper="Cyber for AI at SemEval-2025 Task 4",
        citation="cyberforai2025",
        idea="Ascent, repair, and a short ascent again.",
        published=(
            "OLMo-7B 4-bit + LoRA r=64, alpha 16: lr 1e-5 for 3 epochs, 2e-6 for 3, 2e-5 for 1; scores not"
            " found."
        ),
        cost="1 forward + backward per step",
        trap="The last ascent is not held by anything: it decides the result.",
    ),
    stages=ga_gd_ga,
)

DIFFERENCE_GA = Recipe(
    card=Card(
        name="chain_difference_ga",
        label="Difference, then ascent",
        family="chains",
        paper="Cyber for AI at SemEval-2025 Task 4",
        citation="cyberforai2025",
        idea="Gradient difference, then ascent alone: the submitted 7B system.",
        published=(
            "OLMo-7B 4-bit + LoRA r=64, alpha 16, test: final 0.409 with task aggregate 0, MIA score"
            " 0.999, MMLU 0.229."
        ),
        cost="2 forward + backward (forget, retain), then 1",
        trap="Its published score is that of a destroyed model (task aggregate 0).",
    ),
    stages=difference_ga,
)
