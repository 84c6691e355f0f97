"""Edits of the weights: extrapolation (task vectors), noise, merges of adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import nn

from reprolib.adapters.base import lora_config
from reprolib.edits.base import Edit, Past
from reprolib.errors import SpecError, unknown
from reprolib.models.policy import adapted, quantised
from reprolib.seeds import derive

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolate(Edit):
    r"""Task arithmetic: :math:`\theta \leftarrow \theta_0 + f\,(\theta - \theta_0)`; a ``factor`` f < 0
    negates what was learnt.

    Source: Ilharco et al. 2023 (arXiv 2212.04089), "task negation". On a 4/8-bit base the adapter is the task
    vector.
    """

    factor: float = -1.0
    name: str = "extrapolate"
    needs_start: ClassVar[bool] = True
    quantisable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor):
            raise SpecError(
                "Extrapolate: factor must be finite (-1 negates, 0 is the start, 1 leaves all), got"
                f" {self.factor}."
            )

    @torch.no_grad()
    def apply(self, lm: nn.Module, past: Past, seed: int) -> nn.Module:
        if adapted(lm):
            for name, p in lm.named_parameters():
                if ".lora_B." in name:
                    p.mul_(self.factor)
            return lm
        if quantised(lm):  # without an adapter nothing has moved
            return lm
        for name, p in lm.named_parameters():
            if p.is_floating_point():
                p.copy_(past.start[name] + self.factor * (p - past.start[name]))
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Edit):
    """Gaussian noise on every weight matrix; ``scale``: its standard deviation over that of the matrix."""

    scale: float = 0.1
    name: str = "noise"
    needs_start: ClassVar[bool] = False
    quantisable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise SpecError(
                "noise: scale must be finite and >= 0 (0 changes nothing, 1 is as large as the weights),"
                f" got {self.scale}."
            )

    @torch.no_grad()
    def apply(self, lm: nn.Module, past: Past, seed: int) -> nn.Module:
        if quantised(lm):
            raise SpecError(
                "Noise changes weights in place, which 4 or 8 bits cannot represent; use precision='fp32'"
                " or 'bf16'."
            )
        generator = torch.Generator().manual_seed(derive(seed, "noise"))
        for p in lm.parameters():
            if p.is_floating_point() and p.dim() >= 2:
                drawn = torch.randn(p.shape, generator=generator)
                p.add_(drawn.to(p) * self.scale * p.float().std())
        return lm


COMBINATIONS = (
    "ties",
    "ties_svd",
    "linear",
    "svd",
    "cat",
    "magnitude_prune",
    "magnitude_prune_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeAdapters(Edit):
    """Merge the adapters that stages with ``keep="adapter:NAME"`` left, by peft, on the weights before
    unlearning.

    ``combination``: a merging rule of peft's ``add_weighted_adapter``: "ties" trims, elects signs and
    averages the LoRA factors (what ZJUKLAB ran), "ties_svd" does so on the full updates. TIES: Yadav et al.
    2023 (arXiv 2306.01708).
    """

    adapters: tuple[str, ...] = ("first", "second")
    weights: tuple[float, ...] = (1.0, 1.0)
    combination: str = "ties"
    density: float = 0.8
    rank: int = 32
    alpha: float = 32.0
    name: str = "merge"
    needs_start: ClassVar[bool] = True
    quantisable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (
            not self.adapters
            or len(set(self.adapters)) != len(self.adapters)
            or isinstance(self.adapters, str)
        ):
            raise SpecError(
                f"MergeAdapters: adapters must be different names, at least one, got {self.adapters!r}."
            )
        if len(self.adapters) != len(self.weights):
            raise SpecError(
                f"MergeAdapters: {len(self.adapters)} adapters need as many weights, got {len(self.weights)}."
            )
        if not all(math.isfinite(w) for w in self.weights):
            raise SpecError(f"MergeAdapters: weights must be finite, got {self.weights}.")
        if self.combination not in COMBINATIONS:
            raise SpecError(f"MergeAdapters: {unknown('combination', self.combination, COMBINATIONS)}")
        if not 0 < self.density <= 1:
            raise SpecError(
                f"MergeAdapters: density is the share of entries kept, in (0, 1], got {self.density}."
            )

    def apply(self, lm: nn.Module, past: Past, seed: int) -> nn.Module:
        from peft import get_peft_model
        from peft.utils import set_peft_model_state_dict

        parts = {name: _part(past.kept, f"{name}/") for name in self.adapters}
        missing = [name for name, tensors in parts.items() if not tensors]
        if missing:
            raise SpecError(
                f"MergeAdapters: no stage left the adapter(s) {missing}; give their stages"
                " keep='adapter:NAME'."
            )
        base, config = cast("PreTrainedModel", past.restore(lm)), lora_config(self.rank, self.alpha)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "merge"))  # "dare_..." drops entries at random
            merged = cast("PeftModel", get_peft_model(base, config, adapter_name=self.adapters[0]))
            for name, tensors in parts.items():
                if name != self.adapters[0]:
                    merged.add_adapter(name, config)
                set_peft_model_state_dict(merged, tensors, adapter_name=name)
            merged.add_weighted_adapter(
                list(self.adapters),
                list(self.weights),
                "default",
                combination_type=self.combination,
                density=self.density,
            )
        merged.set_adapter("default")
        for name in self.adapters:
            merged.delete_adapter(name)
        return merged if quantised(merged) else merged.merge_and_unload()


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
