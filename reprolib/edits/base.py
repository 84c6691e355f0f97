"""What edits share: what was kept of earlier stages, and the form of a composed model's output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from reprolib.adapters.base import Data
from reprolib.models.policy import adapted, quantised


class Edit:
    """Base of all changes of a model that are no training: a frozen dataclass with :meth:`apply`."""

    __slots__ = ()
    name: str
    needs_start: ClassVar[bool] = False  # whether it reads the weights before unlearning
    quantisable: ClassVar[bool] = False  # whether it can be made on a base in 4 or 8 bits
    last: ClassVar[bool] = False  # whether no stage can go on from what it leaves
    extra: ClassVar[str] = ""  # what it costs beside training, in words
    reads_retain: ClassVar[str] = ""  # where retain rows come in, in words

    def apply(self, lm: nn.Module, past: Past, seed: int) -> nn.Module:
        raise NotImplementedError


@dataclass(slots=True)
class Out:
    """The parts of a transformers output that this package reads."""

    logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    past_key_values: object = None


@dataclass(slots=True)
class Past:
    """What a run keeps of its own past, for edits and for stages that start again.

    ``start``: full-precision weights before unlearning (empty where nothing needs them, or on a 4/8-bit
    base); ``kept``: adapters ("NAME/KEY") and helper logits ("helper/ROW") that stages left behind; ``data``:
    the run's rows.
    """

    start: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    data: Data | None = None

    @torch.no_grad()
    def restore(self, lm: nn.Module) -> nn.Module:
        """The model before unlearning, in place; an adapter on a quantised base is taken off."""
        if adapted(lm):
            return lm.unload()
        if quantised(lm):  # without an adapter nothing has moved
            return lm
        for name, p in lm.named_parameters():
            if p.is_floating_point():
                p.copy_(self.start[name])
        return lm
