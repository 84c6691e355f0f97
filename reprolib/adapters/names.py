"""Trainables by the short names that recipes' options take, e.g. ``lora-64-16``."""

from __future__ import annotations

from typing import Any

from reprolib.adapters.base import MLP, Full, LastLayers, LoRA, Trainable
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.errors import SpecError

FISHER: dict[str, dict[str, Any]] = {
    "fila": {"space": "full", "centred": False},
    "vila": {"space": "lora", "centred": True},
}


def named(name: str | Trainable, **options) -> Trainable:
    """A trainable by its short name, as recipes' ``trainable`` option gives it.

    "full", "last-2" (layers), "mlp-0-5" and "down-5-7" (layers; whole MLPs, or their output weights),
    "lora-16" or "lora-64-16" (rank, alpha; alpha is twice the rank by default), "fila-16", "vila-16" or
    "vila-16-32" (rank, alpha). ``options``: further fields of the last three.
    """
    if not isinstance(name, str):
        return name
    head, *numbers = name.split("-")
    try:
        n = [float(x) if "." in x else int(x) for x in numbers]
    except ValueError:
        n = []
        head = ""
    if not all(
        isinstance(x, int) for x in (n if head in ("mlp", "down") else n[:1])
    ):  # only alpha may be a fraction
        head = ""
    if head == "full" and not n:
        return Full()
    if head == "last" and len(n) == 1:
        return LastLayers(layers=int(n[0]))
    if head in ("mlp", "down") and len(n) == 2:
        return MLP(first=int(n[0]), last=int(n[1]), part="down_proj" if head == "down" else "")
    if head in ("lora", *FISHER) and len(n) in (1, 2):
        rank, alpha = int(n[0]), float(n[1] if len(n) == 2 else 2 * n[0])
        if head == "lora":
            return LoRA(rank=rank, alpha=alpha, **options)
        return FisherLoRA(rank=rank, alpha=alpha, **{**FISHER[head], **options})
    raise SpecError(
        f"unknown trainable {name!r}; use 'full', 'last-K', 'mlp-FIRST-LAST', 'down-FIRST-LAST',"
        " 'lora-RANK' or 'lora-RANK-ALPHA' (so too with 'fila' and 'vila')."
    )
