"""Which weights may move: all, the last layers, some MLPs, or a LoRA adapter."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, cast

import torch
from torch import nn

from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError
from reprolib.models.policy import adapted, causal_lm
from reprolib.seeds import derive

if TYPE_CHECKING:
    from peft import LoraConfig


class Data(NamedTuple):
    """The rows of a run, for trainables that look at them before they begin."""

    forget: Tokens
    retain: Tokens


Notes = dict[str, float]  # what attaching cost, for the record


class Trainable:
    """Base of everything that says which weights move: a frozen dataclass with :meth:`attach`."""

    __slots__ = ()
    adapter: ClassVar[bool] = False  # whether weights are added beside those of the model
    dropout: float = 0.0  # of an adapter's input
    measures_rows: ClassVar[bool] = False  # whether it looks at the run's rows before it begins

    @property
    def blank(self) -> bool:
        """Whether the model is that before unlearning while the adapter is off (and its base is left as it
        was).
        """
        return True

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        """The model with exactly the trainable weights requiring gradients. ``notes`` gets what attaching
        cost.
        """
        raise NotImplementedError


def layer_count(lm: nn.Module) -> int:
    return causal_lm(lm).config.num_hidden_layers


def _only(lm: nn.Module, pattern: str) -> None:
    """Make exactly the parameters whose name matches trainable."""
    hit = False
    for name, p in lm.named_parameters():
        p.requires_grad_(bool(re.search(pattern, name)))
        hit |= p.requires_grad
    if not hit:
        raise SpecError(
            f"no weight of this {causal_lm(lm).config.model_type!r} model matches {pattern!r}; see"
            " model.named_parameters()."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Full(Trainable):
    """All weights move."""

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        lm.requires_grad_(True)
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLayers(Trainable):
    """Only the last ``layers`` transformer blocks move (AILS-NTUA's SUGD trains 8 of OLMo's)."""

    layers: int = 2

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise SpecError(f"LastLayers: layers must be >= 1, got {self.layers}.")

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        n = layer_count(lm)
        if self.layers > n:
            raise SpecError(
                f"LastLayers: layers={self.layers}, but the model has {n}; use at most {n}, or"
                " trainable='full'."
            )
        ids = "|".join(str(i) for i in range(n - self.layers, n))
        _only(lm, rf"layers\.({ids})\.")
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP(Trainable):
    """Only the MLPs of layers ``first`` to ``last`` (inclusive) move (SHA256 trains those of layers 0 to 5).

    ``part``: one matrix of each, e.g. "down_proj", the output weights that RMU's authors train.
    """

    first: int = 0
    last: int = 5
    part: str = field(default="", metadata={"later": True})

    def __post_init__(self) -> None:
        layers = (self.first, self.last)
        if not (all(isinstance(x, int) for x in layers) and 0 <= self.first <= self.last):
            raise SpecError(
                f"MLP: first and last must be whole, 0 <= first <= last, got {layers}; e.g."
                " trainable='mlp-0-5'."
            )

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        n = layer_count(lm)
        if self.last >= n:
            most = f"{'down' if self.part else 'mlp'}-{min(self.first, n - 1)}-{n - 1}"
            raise SpecError(
                f"MLP: last={self.last}, but the model has layers 0 to {n - 1}; use at most {most}."
            )
        ids = "|".join(str(i) for i in range(self.first, self.last + 1))
        _only(lm, rf"layers\.({ids})\.mlp\.{self.part}")
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA(Trainable):
    """A peft LoRA adapter on every linear layer but the head. Scaling is ``alpha / rank``.

    Cyber for AI's 7B runs use rank 64 and alpha 16, a scaling of 0.25, which damps their learning rates.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    init: str = "default"  # "default" (B = 0) or "pissa"
    adapter: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.rank >= 1 or self.rank % 1:
            raise SpecError(f"LoRA: rank must be >= 1 and whole, got {self.rank}.")
        object.__setattr__(self, "rank", int(self.rank))
        if not 0 < self.alpha < math.inf:
            raise SpecError(
                f"LoRA: alpha must be finite and > 0, got {self.alpha}; alpha/rank scales the adapter, 2"
                " is usual."
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"LoRA: dropout must lie in [0, 1), got {self.dropout}.")
        if self.init not in ("default", "pissa"):
            raise SpecError(f"LoRA: init must be 'default' or 'pissa', got {self.init!r}.")

    @property
    def blank(self) -> bool:
        return self.init == "default"

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        config = lora_config(self.rank, self.alpha, self.dropout, True if self.init == "default" else "pissa")
        if adapted(lm):  # an earlier stage's, on a quantised base that it cannot be merged into
            had = cast("LoraConfig", lm.peft_config["default"])
            if any(
                getattr(had, k) != getattr(config, k)
                for k in ("r", "lora_alpha", "lora_dropout", "init_lora_weights")
            ):
                raise SpecError(
                    f"{self} cannot follow an adapter of rank {had.r}, alpha {had.lora_alpha} on a"
                    " quantised base, where adapters are not merged between stages; give all stages the"
                    " same LoRA, or use precision='fp32'."
                )
            return lm  # it goes on training
        return adapted_modules(lm, config, seed)


def lora_config(
    rank: int, alpha: float, dropout: float = 0.0, init: Literal[True, "pissa"] = True
) -> LoraConfig:
    """On every linear layer but the head."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=cast(int, alpha),  # peft divides it by the rank, whole or not
        lora_dropout=dropout,
        target_modules="all-linear",
        init_lora_weights=init,
        task_type="CAUSAL_LM",
    )


def adapted_modules(lm: nn.Module, config, seed: int) -> nn.Module:
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora-init"))
        return get_peft_model(lm, config)
