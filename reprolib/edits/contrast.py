"""An assistant's logits taken from the target's, at inference time: two models that answer as one.

.. math:: z' = z_{\mathrm{target}} - \alpha\,(z_{\mathrm{assistant}} - z_{\mathrm{base}})

No weight of the target moves: what should be forgotten is still in it, and every answer costs two forward
passes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from reprolib.edits.base import Edit, Out, Past
from reprolib.errors import SpecError, unknown
from reprolib.models.policy import Composed, adapted, causal_lm, quantised
from reprolib.seeds import derive

BASES = ("none", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinitialise(Edit):
    """Random weights of the same architecture, drawn from the run's seed (others than those that the target
    began with).
    """

    name: str = "random weights"
    needs_start: ClassVar[bool] = False
    quantisable: ClassVar[bool] = False

    @torch.no_grad()
    def apply(self, lm: nn.Module, past: Past, seed: int) -> nn.Module:
        from transformers import AutoModelForCausalLM

        if quantised(lm) or adapted(lm):
            raise SpecError(
                "Reinitialise draws all weights anew, which a base in 4 or 8 bits cannot hold; use"
                " precision='fp32'."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "assistant"))
            drawn = AutoModelForCausalLM.from_config(copy.deepcopy(causal_lm(lm).config), dtype=lm.dtype)
        fresh = dict(drawn.named_parameters())
        for name, p in lm.named_parameters():
            p.copy_(fresh[name])
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(Edit):
    r"""The model as it is now becomes the assistant of the model before unlearning: :class:`Contrasted`.

    ``base``: what the assistant is compared with. "target": the model before unlearning, which the assistant
    then should have begun from, so that :math:`z' = (1+\alpha)\,z_{\mathrm{target}} -
    \alpha\,z_{\mathrm{assistant}}`; "none": nothing, for an assistant from random weights, whose logits
    before training say nothing. Must be the last stage.
    """

    alpha: float = 1.0
    base: str = "none"
    name: str = "contrast"
    needs_start: ClassVar[bool] = True
    quantisable: ClassVar[bool] = False
    last: ClassVar[bool] = True
    extra: ClassVar[str] = "2 models at inference"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise SpecError(
                f"Contrast: alpha must be finite and >= 0 (0 is the target itself), got {self.alpha}."
            )
        if self.base not in BASES:
            raise SpecError("Contrast: " + unknown("base", self.base, BASES))

    def apply(self, lm: nn.Module, past: Past, seed: int) -> Contrasted:
        if quantised(lm) or adapted(lm) or not past.start:
            raise SpecError(
                "Contrast keeps a full-precision copy of the model before unlearning beside the assistant;"
                " a base in 4 or 8 bits, or an adapter that is not merged, cannot be one. Use"
                " precision='fp32' or 'bf16'."
            )
        target = past.restore(copy.deepcopy(lm))
        return Contrasted(target, lm, self.alpha, self.base)


class Contrasted(Composed):
    """Target and assistant behind the face of one causal language model.

    ``base_model`` gives both models' hidden states side by side, [B, T, 2D], and the output head maps them to
    combined logits, so that training-time code that runs the head on chosen positions works as it does for
    one model.
    """

    def __init__(self, target: nn.Module, assistant: nn.Module, alpha: float, base: str = "none"):
        super().__init__()
        self.target, self.assistant = causal_lm(target), causal_lm(assistant)
        sizes = [m.config.vocab_size for m in (self.target, self.assistant)]
        if sizes[0] != sizes[1]:
            raise SpecError(
                f"Contrasted: the vocabularies have {sizes[0]} and {sizes[1]} entries; logits of two"
                " models can be combined only over the same tokens."
            )
        self.weights = (1.0 + (alpha if base == "target" else 0.0), -alpha)
        self.config = self.target.config

    @property
    def base_model(self) -> nn.Module:
        return _Bodies(self.target.base_model, self.assistant.base_model)

    def get_output_embeddings(self) -> nn.Module:
        heads = self.target.get_output_embeddings(), self.assistant.get_output_embeddings()
        return _Heads(*heads, self.weights, self.target.config.hidden_size)

    def num_parameters(self) -> int:
        """Of both models: an answer needs both."""
        return sum(p.numel() for p in self.parameters())

    def new_cache(self) -> Caches:
        """One for each of the two."""
        from transformers import DynamicCache

        return Caches(DynamicCache(config=self.target.config), DynamicCache(config=self.assistant.config))

    def forward(self, input_ids: torch.Tensor, *, logits_to_keep: int = 0, **inputs) -> Out:
        hidden = self.base_model(input_ids=input_ids, **inputs).last_hidden_state
        if logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        return Out(logits=self.get_output_embeddings()(hidden), past_key_values=inputs.get("past_key_values"))


class Caches:
    """A cache for each of the two models; rows leave both at once."""

    def __init__(self, target: Any, assistant: Any):
        self.both = (target, assistant)

    def batch_select_indices(self, keep: torch.Tensor) -> None:
        for cache in self.both:
            cache.batch_select_indices(keep)


class _Bodies(nn.Module):
    def __init__(self, target: nn.Module, assistant: nn.Module):
        super().__init__()
        self.target, self.assistant = target, assistant

    def forward(self, input_ids: torch.Tensor, past_key_values: Caches | None = None, **inputs) -> Out:
        caches = past_key_values.both if past_key_values is not None else (None, None)
        states = [
            body(input_ids=input_ids, past_key_values=cache, **inputs).last_hidden_state
            for body, cache in zip((self.target, self.assistant), caches, strict=True)
        ]
        return Out(last_hidden_state=torch.cat(states, -1), past_key_values=past_key_values)


class _Heads(nn.Module):
    def __init__(self, target: nn.Module, assistant: nn.Module, weights: tuple[float, float], width: int):
        super().__init__()
        self.target, self.assistant, self.weights, self.width = target, assistant, weights, width

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        # in fp32: where both models are sure, small differences of large logits decide
        first, second = hidden[..., : self.width], hidden[..., self.width :]
        return self.weights[0] * self.target(first).float() + self.weights[1] * self.assistant(second).float()
