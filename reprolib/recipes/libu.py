"""LIBU: an influence step preconditioned by the retain set's Fisher information, then Sophia."""

from functools import partial

from reprolib.adapters.names import named
from reprolib.errors import SpecError, unknown
from reprolib.objectives import NLL, Ascent, Objective
from reprolib.optim import AdamW, Influence, Sophia
from reprolib.optim.curvature import Batching
from reprolib.optim.influence import Damping, Preconditioner, Refresh
from reprolib.optim.sophia import Hessian
from reprolib.recipes.base import Card, Pairing, Recipe, Schedule, Stage

PHASES = ("both", "influence", "sophia")
DATA: dict[str, Pairing] = {"forget": "forget", "retain": "retain", "both": "paired"}

ALLOWED = {
    "phases": PHASES,
    "phase2_data": DATA,
    "phase2_optimizer": ("sophia", "adamw"),
    "forget_direction": ("ascent", "descent"),
}


def stages(
    lr: float = 0.6,
    epochs: float = 3,
    batch_size: int = 16,
    damping: Damping = "relative",
    damping_value: float = 1e-1,
    fisher: Batching = "per_sample",
    fisher_rows: int = 0,
    refresh: Refresh = "epoch",
    preconditioner: Preconditioner = "fisher",
    clip_step: float = 0.0,
    forget_direction: str = "ascent",
    phase2_lr: float = 1e-4,
    phase2_epochs: float = 15,
    phase2_data: str = "both",
    phase2_optimizer: str = "sophia",
    hessian: Hessian = "gnb",
    rho: float = 0.04,
    interval: int = 10,
    beta1: float = 0.965,
    beta2: float = 0.99,
    clip: bool = True,
    eps: float = 1e-15,
    batch_tokens: float = 0.0,
    phases: str = "both",
    trainable: str = "lora-16",
):
    """``phases``: "both", "influence" or "sophia"; ``phase2_data``: rows of the second phase, "forget" (as
    published, by ascent), "retain" (by descent) or "both"; ``phase2_optimizer``: "adamw" is the yardstick for
    Sophia; ``forget_direction``: "descent" is the printed sign, which learns the forget rows.

    Of phase 1 (:class:`reprolib.optim.Influence`): ``fisher_rows`` retain rows are measured on (0: all), at
    every ``refresh`` ("epoch" or "stage"); ``clip_step`` bounds the norm of the preconditioned gradient (0:
    no bound). Of phase 2 (:class:`reprolib.optim.Sophia`): ``batch_tokens`` is the curvature's factor (0: the
    tokens of the step), ``eps`` its least denominator. What is printed has no clipping and no running means,
    and squared gradients as curvature: ``clip=False, beta1=0, beta2=0, hessian="empirical", interval=1,
    batch_tokens=1``, with an ``eps`` far above the default, which was not found.
    """
    check(phases=phases, phase2_data=phase2_data, phase2_optimizer=phase2_optimizer,
          forget_direction=forget_direction)  # fmt: skip
    forget = Ascent() if forget_direction == "ascent" else NLL()
    influence = Influence(
        lr=lr, damping=damping, value=damping_value, fisher=fisher, fisher_rows=fisher_rows or None,
        refresh=refresh, preconditioner=preconditioner, clip_step=clip_step or None,
    )  # fmt: skip
    first = Stage(
        name="influence",
        objective=Objective(forget=forget),
        trainable=named(trainable),
        optimizer=influence,
        schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="forget"),
    )
    sophia = Sophia(
        lr=phase2_lr, hessian=hessian, rho=rho, interval=interval, beta1=beta1, beta2=beta2, clip=clip,
        eps=eps, batch_tokens=batch_tokens or "actual", weight_decay=0.0,
    )  # fmt: skip
    second = Stage(
        name=phase2_optimizer,
        objective=objective_of(phase2_data, forget),
        trainable=named(trainable),
        optimizer=sophia if phase2_optimizer == "sophia" else AdamW(lr=phase2_lr, weight_decay=0.0),
        schedule=Schedule(epochs=phase2_epochs, batch_size=batch_size, pairing=DATA[phase2_data]),
    )
    return {"both": (first, second), "influence": (first,), "sophia": (second,)}[phases]


def check(**given: str) -> None:
    for name, value in given.items():
        if value not in ALLOWED[name]:
            raise SpecError(f"libu: {unknown(name, value, ALLOWED[name])}")


def objective_of(data: str, forget: Ascent | NLL) -> Objective:
    """Of the second phase, on the rows that it is to have."""
    return Objective(forget=forget if data != "retain" else None, retain=NLL() if data != "forget" else None)


RECIPE = Recipe(
    card=Card(
        name="libu",
        label="LIBU",
        family="second order",
        paper="Lacuna Inc. at SemEval-2025 Task 4 (Kudelya & Shirnin 2025)",
        citation="libu2025",
        idea=(
            "Forget along directions that the retain set's Fisher information says are cheap, then settle"
            " with Sophia."
        ),
        published=(
            "By notes on the paper, whose text was not to be had: OLMo-7B, lr 2e-5 chosen (4e-5 lost"
            " MMLU), damping 1e-3, accumulation 4 to 8. Official scores: task aggregate 0.283, MIA score"
            " 0, MMLU 0.469, final 0.251 (rank 9 of 14); 1B final 0.177."
        ),
        cost=(
            "phase 1: 1 forward + backward on forget rows, and one per retain row and epoch for the"
            " Fisher; phase 2: 2, and 2 more every 10 steps"
        ),
        trap=(
            "By an estimate of its size, the Fisher of a LoRA adapter is far below the published damping"
            " of 1e-3; phase 1 is then plain ascent at 1000 times the learning rate. At the settings that"
            " the search picked here phase 1 moves next to nothing, so that the numbers of this method are"
            " Sophia's."
        ),
    ),
    stages=stages,
)

INFLUENCE = Recipe(
    card=Card(
        name="libu_influence",
        label="LIBU, phase 1 only",
        family="second order",
        paper="Lacuna Inc. at SemEval-2025 Task 4",
        citation="libu2025",
        idea="The influence step alone.",
        published="No separate score.",
        cost="1 forward + backward on forget rows, and one per retain row and epoch for the Fisher",
        trap="No retain term: what is kept is kept by the preconditioner alone.",
    ),
    stages=partial(stages, phases="influence", lr=2.5),
)

SOPHIA = Recipe(
    card=Card(
        name="libu_sophia",
        label="LIBU, phase 2 only",
        family="second order",
        paper="Lacuna Inc. at SemEval-2025 Task 4",
        citation="libu2025",
        idea="Sophia alone, on gradient difference.",
        published="No separate score.",
        cost="2 forward + backward (forget, retain), and 2 more every 10 steps",
        trap=(
            "Where the curvature estimate is near 0, Sophia is sign descent with a step of the learning"
            " rate; without clipping (clip=False, as notes on the paper print it) the step there is the"
            " momentum over eps, which must then be far above 1e-15."
        ),
    ),
    stages=partial(stages, phases="sophia"),
)
