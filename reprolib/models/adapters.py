"""Which weights may move: everything, the last layers, some MLPs, or a LoRA adapter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from reprolib.errors import SpecError
from reprolib.seeds import derive


def layer_count(lm: nn.Module) -> int:
    return lm.config.num_hidden_layers


def _only(lm: nn.Module, pattern: str) -> None:
    """Make exactly the parameters whose name matches trainable."""
    hit = False
    for name, p in lm.named_parameters():
        p.requires_grad_(bool(re.search(pattern, name)))
        hit |= p.requires_grad
    if not hit:
        raise SpecError(f"no weight of this {lm.config.model_type!r} model matches {pattern!r}; see model.named_parameters().")


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """All weights move."""

    adapter: ClassVar[bool] = False

    def attach(self, lm: nn.Module, seed: int) -> nn.Module:
        lm.requires_grad_(True)
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLayers:
    """Only the last ``layers`` transformer blocks move (AILS-NTUA's SUGD trains 8 of OLMo's)."""

    layers: int = 2
    adapter: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise SpecError(f"LastLayers: layers must be >= 1, got {self.layers}.")

    def attach(self, lm: nn.Module, seed: int) -> nn.Module:
        n = layer_count(lm)
        if self.layers > n:
            raise SpecError(f"LastLayers: layers={self.layers}, but the model has {n}; use at most {n}, or trainable='full'.")
        ids = "|".join(str(i) for i in range(n - self.layers, n))
        _only(lm, rf"layers\.({ids})\.")
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP:
    """Only the MLPs of layers ``first`` to ``last`` (inclusive) move (SHA256 trains those of layers 0 to 5)."""

    first: int = 0
    last: int = 5
    adapter: ClassVar[bool] = False

    def attach(self, lm: nn.Module, seed: int) -> nn.Module:
        ids = "|".join(str(i) for i in range(self.first, min(self.last, layer_count(lm) - 1) + 1))
        _only(lm, rf"layers\.({ids})\.mlp\.")
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """A peft LoRA adapter on every linear layer but the head. Scaling is ``alpha / rank``.

    Cyber for AI's 7B runs use rank 64 and alpha 16, a scaling of 0.25, which damps their learning rates.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    init: str = "default"  # "default" (B = 0) or "pissa"
    adapter: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SpecError(f"LoRA: rank must be >= 1, got {self.rank}.")
        if self.alpha <= 0:
            raise SpecError(f"LoRA: alpha must be > 0, got {self.alpha}; alpha/rank scales the adapter, 2 is usual.")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"LoRA: dropout must lie in [0, 1), got {self.dropout}.")
        if self.init not in ("default", "pissa"):
            raise SpecError(f"LoRA: init must be 'default' or 'pissa', got {self.init!r}.")

    def attach(self, lm: nn.Module, seed: int) -> nn.Module:
        import torch
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear",
            init_lora_weights=True if self.init == "default" else "pissa",
            task_type="CAUSAL_LM",
        )
        if hasattr(lm, "peft_config"):  # an earlier stage's, on a quantised base that it cannot be merged into
            had = lm.peft_config["default"]
            if any(getattr(had, k) != getattr(config, k) for k in ("r", "lora_alpha", "lora_dropout", "init_lora_weights")):
                raise SpecError(
                    f"{self} cannot follow an adapter of rank {had.r}, alpha {had.lora_alpha} on a quantised base, where "
                    "adapters are not merged between stages; give all stages the same LoRA, or use precision='fp32'."
                )
            return lm  # it goes on training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "lora-init"))
            return get_peft_model(lm, config)


Trainable = Full | LastLayers | MLP | LoRA


def named(name: str | Trainable, **options) -> Trainable:
    """A trainable by its short name, as recipes' ``trainable`` option gives it.

    "full", "last-2" (layers), "mlp-0-5" (layers), "lora-16" or "lora-64-16" (rank, alpha; alpha is twice the rank by default).
    """
    if not isinstance(name, str):
        return name
    head, *numbers = name.split("-")
    try:
        n = [float(x) if "." in x else int(x) for x in numbers]
    except ValueError:
        n = []
        head = ""
    if head == "full" and not n:
        return Full()
    if head == "last" and len(n) == 1:
        return LastLayers(layers=int(n[0]))
    if head == "mlp" and len(n) == 2:
        return MLP(first=int(n[0]), last=int(n[1]))
    if head == "lora" and len(n) in (1, 2):
        return LoRA(rank=int(n[0]), alpha=float(n[1] if len(n) == 2 else 2 * n[0]), **options)
    raise SpecError(f"unknown trainable {name!r}; use 'full', 'last-K', 'mlp-FIRST-LAST', 'lora-RANK' or 'lora-RANK-ALPHA'.")
