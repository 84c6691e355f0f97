"""SOUL: gradient difference, refusal tuning and NPO with Sophia in the place of AdamW."""

from dataclasses import replace

from reprolib.adapters.names import named
from reprolib.errors import SpecError, unknown
from reprolib.objectives import NPO, Ascent, Objective, Other, Ramp, retain_term
from reprolib.optim import Sophia
from reprolib.optim.sophia import Hessian
from reprolib.recipes.base import Card, Recipe, Schedule, Stage

CODES = ("sophia", "released")


def _sophia(lr: float, rho: float, weight_decay: float, code: str, hessian: Hessian) -> Sophia:
    """Sophia with a ``hessian`` every ten steps ("gnb": Sophia-G, "hutchinson": Sophia-H, "empirical"), or
    ("released") the optimizer of the released code: squared unlearning gradients of every step as curvature,
    momentum applied twice, and a token count fixed at 5120."""
    if code not in CODES:
        raise SpecError(f"soul: {unknown('code', code, CODES)}")
    if code == "released" and hessian not in ("gnb", "empirical"):  # the default, or what it is
        raise SpecError(
            f"soul: code='released' has the hessian 'empirical' and allows no other, got {hessian!r};"
            " leave hessian out, or use code='sophia'."
        )
    sophia = Sophia(
        lr=lr, beta1=0.9, beta2=0.95, rho=rho, weight_decay=weight_decay, hessian=hessian, interval=10
    )
    if code == "released":
        return replace(sophia, hessian="empirical", interval=1, batch_tokens=5120, double_momentum=True)
    return sophia


def _stage(
    name,
    forget,
    retain,
    retain_weight,
    ramp,
    lr,
    epochs,
    batch_size,
    rho,
    weight_decay,
    code,
    hessian,
    trainable,
):
    """``retain``: "nll", "kl" or "soul-kl" (the released code's "KL"); ``ramp``: the retain weight rises by
    epochs, from 0, as an option of the released code has it.
    """
    control = Ramp(full=retain_weight, epochs=epochs) if ramp else None
    objective = Objective(
        forget=forget, retain=retain_term(retain), retain_weight=retain_weight, control=control
    )
    return Stage(
        name=name, objective=objective, trainable=named(trainable),
        optimizer=_sophia(lr, rho, weight_decay, code, hessian),
        schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing=objective.pairing),
    )  # fmt: skip


def difference(
    lr: float = 5e-5,
    epochs: float = 10,
    batch_size: int = 16,
    rho: float = 0.04,
    weight_decay: float = 0.1,
    code: str = "sophia",
    hessian: Hessian = "gnb",
    ramp: bool = False,
    retain: str = "nll",
    retain_weight: float = 2.0,
    trainable: str = "full",
):
    rest = (
        retain,
        retain_weight,
        ramp,
        lr,
        epochs,
        batch_size,
        rho,
        weight_decay,
        code,
        hessian,
        trainable,
    )
    return (_stage("difference", Ascent(), *rest),)


def po(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    rho: float = 0.04,
    weight_decay: float = 0.1,
    code: str = "sophia",
    hessian: Hessian = "gnb",
    ramp: bool = False,
    retain: str = "nll",
    retain_weight: float = 5.0,
    answers: str = "idk",
    trainable: str = "full",
):
    rest = (
        retain,
        retain_weight,
        ramp,
        lr,
        epochs,
        batch_size,
        rho,
        weight_decay,
        code,
        hessian,
        trainable,
    )
    return (_stage("refusal", Other(other=answers), *rest),)


def npo(
    lr: float = 1e-4,
    epochs: float = 10,
    batch_size: int = 16,
    rho: float = 0.04,
    weight_decay: float = 0.1,
    code: str = "sophia",
    hessian: Hessian = "gnb",
    ramp: bool = False,
    beta: float = 0.1,
    ratio: str = "sequence",
    retain: str = "nll",
    retain_weight: float = 1.0,
    trainable: str = "full",
):
    """``ratio``: "sequence" (the NPO paper's) or "mean" (as the released code computes it)."""
    rest = (
        retain,
        retain_weight,
        ramp,
        lr,
        epochs,
        batch_size,
        rho,
        weight_decay,
        code,
        hessian,
        trainable,
    )
    return (_stage("npo", NPO(beta=beta, ratio=ratio), *rest),)


DIFFERENCE = Recipe(
    card=Card(
        name="so_gradient_difference",
        label="SO-GradDiff",
        family="second order",
        paper="SOUL (Jia et al. 2024)",
        citation="jia2024soul",
        idea="Gradient difference, each coordinate scaled by an estimate of its curvature.",
        published=(
            "Llama-2-7B-chat, TOFU forget10: lr 5e-6, retain weight 2, 5 epochs, weight decay 0.1, rho"
            " 0.04, beta (0.9, 0.95)."
        ),
        cost="2 forward + backward (forget, retain), and 2 more every 10 steps",
        trap=(
            'The released optimizer is not Sophia as published; option code="released" reproduces it. So'
            ' too its retain "KL", which is a cross-entropy with the roles exchanged: retain="soul-kl".'
        ),
    ),
    stages=difference,
)

PO = Recipe(
    card=Card(
        name="so_po",
        label="SO-PO",
        family="second order",
        paper="SOUL (Jia et al. 2024)",
        citation="jia2024soul",
        idea="Refusal tuning with Sophia.",
        published="TOFU forget10: lr 1e-5, retain weight 5, 5 epochs.",
        cost="2 forward + backward (forget, retain), and 2 more every 10 steps",
        trap="As refusal tuning: the answer is covered, not removed.",
    ),
    stages=po,
)

NPO_RECIPE = Recipe(
    card=Card(
        name="so_npo",
        label="SO-NPO",
        family="second order",
        paper="SOUL (Jia et al. 2024)",
        citation="jia2024soul",
        idea="NPO with Sophia.",
        published="TOFU forget10: beta 0.1; learning rate and retain weight not found.",
        cost=(
            "2 forward + backward (forget, retain); reference log-probabilities cached once, and 2 more"
            " every 10 steps"
        ),
        trap=(
            "The released code takes the ratio of batch-mean likelihoods, which is another loss; option"
            ' ratio="mean".'
        ),
    ),
    stages=npo,
)
