"""Which methods are run at which settings, in the order in which they are wanted: (method, options,
precision...).

Learning rates: two or three a method. Where the study's small models memorise at 2e-3 and unlearn best at
1e-4 to 5e-4, a model that memorised at 2e-4 gets a tenth of that, which is where the published rates of
OLMo-1B lie (2e-5). LoRA of rank 64 and alpha 16 has a scaling of 1/4, which damps its rates. SUGD moves the
last 8 blocks, as its authors'.
"""

from __future__ import annotations

import itertools
from typing import Any

from study.gpu.cases import LAST, LORA, RANDOMISED, VILA

LADDER = ("target", "twin", "random", "always_eos")


def ladder(*names: str) -> list[tuple]:
    return [(name, {}) for name in names]


def in_turn(*lists: list[tuple]) -> list[tuple]:
    """The first of each list, then the second of each, and so on."""
    return [x for group in itertools.zip_longest(*lists) for x in group if x is not None]


def rates(method: str, *lrs: float, precision: str = "fp32", **options: Any) -> list[tuple]:
    return [(method, {"lr": lr, **options}, precision) for lr in lrs]


def libu(
    method: str = "libu", precision: str = "fp32", rates: tuple[float, ...] = (1e-4, 3e-5)
) -> list[tuple]:
    """The rate of phase 1 is relative to the Fisher's damping and stays the recipe's; that of phase 2 is
    varied.
    """
    if method == "libu_influence":
        return [(method, LORA, precision), (method, {"lr": 0.6, **LORA}, precision)]
    return [(method, {"phase2_lr": lr, **LORA}, precision) for lr in rates]


def published(billions: int) -> list[tuple]:
    """What Cyber for AI states for a model of this size, and LIBU's first phase as notes on its paper have it
    for 7B.

    What they leave open stays the recipes'; LIBU's adapter and precision are those of the other runs here.
    """
    libu = ("libu", {"lr": 2e-5, "damping": "absolute", "damping_value": 1e-3, **LORA}, "bf16")
    if billions == 1:
        own = {"lr": 2e-5, "weight_decay": 2e-4}
        return [
            ("gradient_ascent", {**own, "epochs": 3}),
            ("gradient_descent", {**own, "epochs": 20}),
            libu,
        ]
    ascent = {"lr": 2e-6, "epochs": 10, **LORA}
    again = {
        "lr": 1e-5,
        "epochs": 3,
        "retain_lr": 2e-6,
        "retain_epochs": 3,
        "last_lr": 2e-5,
        "last_epochs": 1,
        **LORA,
    }
    return [
        ("gradient_ascent", ascent, "nf4"),
        ("chain_ga_gd", {**ascent, "retain_lr": 2e-6, "retain_epochs": 1}, "nf4"),
        ("chain_ga_gd_ga", again, "nf4"),
        libu,
    ]


def before(first: list[tuple], wanted: list[tuple]) -> list[tuple]:
    """``first`` right behind the ladder."""
    n = sum(w[0] in LADDER for w in wanted)
    return [*wanted[:n], *first, *wanted[n:]]


def pretrained() -> list[tuple]:
    """The main methods in full precision, for a model that was taught the rows at 5e-4."""
    return ladder(*LADDER) + in_turn(
        rates("npo", 1e-4, 3e-4),
        rates("gradient_difference", 5e-5, 1e-4),
        rates("gradient_ascent", 2e-5, 5e-5),
        libu(),
        rates("sugd", 1e-4, 3e-4, **LAST),
        rates("vila_ihl", 2e-4, 5e-4, **VILA),
        rates("adaptive_rmu", 1e-3, 3e-4),
    )


def rest() -> list[tuple]:
    """Every method that :func:`pretrained` leaves out: at its recipe's rates, chosen for a small model, and
    at a fifth of them.
    """
    from reprolib.recipes import BASELINES, recipes

    known = {method for method, *_ in pretrained()} | set(BASELINES)
    out: list[tuple] = []
    for name, recipe in recipes().items():
        if name not in known:
            own = {k: v for k, v in recipe.defaults.items() if k == "lr" or k.endswith("_lr")}
            if name == "libu_sophia":  # its first phase, and the rate of that, is left out
                own.pop("lr")
            more = RANDOMISED if "exact_up_to" in recipe.defaults else {}
            slower = [(name, {**{k: v / 5 for k, v in own.items()}, **more})] if own else []
            out += [(name, dict(more)), *slower]
    return out


def one_billion() -> list[tuple]:
    """In full, and by LoRA on four precisions; both phases of LIBU apart."""
    full = in_turn(
        rates("npo", 5e-5, 2e-5, 1e-4),
        rates("gradient_difference", 2e-5, 5e-5, 1e-5),
        rates("gradient_ascent", 1e-5, 2e-5, 5e-6),
        libu(),
        rates("sugd", 1e-4, 3e-5, **LAST),
        rates("vila_ihl", 2e-4, 5e-4, **VILA),
        rates("adaptive_rmu", 3e-4, 1e-4),
        libu("libu_influence"),
        libu("libu_sophia"),
    )
    return ladder(*LADDER) + in_turn(full, adapters("fp32", "bf16", "nf4", "int8"))


def adapters(*precisions: str) -> list[tuple]:
    """LoRA of rank 64 and alpha 16 on a base in each precision, all precisions of a setting before the
    next.
    """
    return [
        (method, {"lr": lr, **LORA}, precision)
        for method, lr in (
            ("npo", 3e-4),
            ("gradient_difference", 3e-4),
            ("gradient_ascent", 1e-4),
            ("npo", 1e-3),
            ("gradient_difference", 1e-3),
            ("gradient_ascent", 3e-4),
        )
        for precision in precisions
    ]


def seven_billion() -> list[tuple]:
    """LoRA as published, and the methods that move a part of the weights; those in fp32."""
    more = in_turn(
        libu(precision="bf16"),
        rates("vila_ihl", 2e-4, 5e-4, precision="bf16", **VILA),
        rates("sugd", 3e-5, 1e-4, **LAST),
        rates("adaptive_rmu", 3e-4, 1e-4),
        libu(precision="nf4"),
    )
    lora = adapters("bf16", "nf4", "int8")
    return [*ladder("target", "twin"), *lora[:6], *in_turn(more, lora[6:])]
