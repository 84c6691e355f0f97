"""What cost.py measures: methods, organisations of a step, and importance passes, on presets' shapes."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

LORA = {"trainable": "lora-64-16"}
LAST = {"trainable": "last-8"}

# a GPU takes longer for 112 exact SVDs of 2048 x 8192 in double precision than for the unlearning
RANDOMISED = {"exact_up_to": 512}
VILA = {"rank": 64, "alpha": 16, **RANDOMISED}


@dataclass(frozen=True, slots=True)
class Case:
    model: str  # preset
    method: str = ""  # a recipe, or "ceilings", "organisations", "importance"
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    micro_tokens: int | None = None
    checkpointing: bool = False


@functools.lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """By name, the most wanted of each model first."""
    out = {"ceilings": Case("smollm2", "ceilings")}

    def add(
        model: str, short: str, method: str, precision: str = "fp32", note: str = "", **options: Any
    ) -> None:
        settings = {k: options.pop(k) for k in ("micro_tokens", "checkpointing") if k in options}
        name = "_".join(x for x in (short, method, options.get("trainable", ""), precision, note) if x)
        out[name] = Case(model, method, {"epochs": 3, **options}, precision, **settings)

    for model, short in (("olmo-1b-scratch", "olmo-1b"), ("smollm2", "smollm2")):
        for method in ("npo", "gradient_difference"):
            add(model, short, method, trainable="full")
        out[f"{short}_organisations"] = Case(model, "organisations")
    small = "olmo-1b-scratch", "olmo-1b"
    for precision in ("fp32", "bf16", "nf4", "int8"):
        add(*small, "npo", precision, **LORA)
    out["olmo-1b_importance"] = Case(small[0], "importance")
    for method, more in (
        ("gradient_ascent", {"trainable": "full"}),
        ("kl_minimisation", {"trainable": "full"}),
        ("so_npo", {"trainable": "full"}),
        ("adaptive_rmu", {}),
        ("sugd", {**LAST, "epochs": 1}),
        ("libu", {**LORA, "phase2_epochs": 3}),
        ("vila_ihl", VILA),
        ("fila", VILA),
    ):
        add(*small, method, **more)
    add(*small, "gradient_difference", note="checkpointing", trainable="full", checkpointing=True)
    large = "olmo-7b-scratch", "olmo-7b"
    for precision in ("bf16", "nf4", "int8"):
        add(*large, "npo", precision, **LORA)
    add(*large, "npo", "nf4", note="micro-1024", micro_tokens=1024, **LORA)  # for a GPU of 24 GB
    add(*large, "gradient_difference", "bf16", **LORA)
    out["olmo-7b_importance"] = Case(large[0], "importance", precision="bf16")
    add(*large, "sugd", **{**LAST, "epochs": 1})
    add(*large, "adaptive_rmu")
    add(*large, "libu", "bf16", **{**LORA, "phase2_epochs": 3})
    add(
        *large, "gradient_difference", note="micro-1024", trainable="full", micro_tokens=1024
    )  # all 7 billion, in fp32
    return out
