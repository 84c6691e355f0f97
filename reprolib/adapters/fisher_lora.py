"""LoRA that begins where the Fisher information of forget rows is high, relative to retain rows (FILA,
VILA).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from reprolib.adapters import fila, vila
from reprolib.adapters.base import Data, LoRA, Notes, Trainable, adapted_modules, lora_config
from reprolib.adapters.importance import EPS, Maps, linears, paired_rows, ratio, row_importance
from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError, unknown
from reprolib.models.policy import quantised
from reprolib.seeds import derive


@dataclass(frozen=True, slots=True, kw_only=True)
class FisherLoRA(Trainable):
    r"""A LoRA that begins in the rows of each weight that matter for the forget rows: FILA, VILA, and what
    lies between.

    Defaults are FILA (LoKU, arXiv 2408.06621) but for ``eps``; ``space="lora", centred=True`` is VILA (arXiv
    2508.21300). Equations and code quirks: fila.py, vila.py. The frozen base is :math:`W - sBA`, so that the
    adapter means nothing without it: merge before saving (the loop does). Attaching again with the same
    weights, seed and data gives the same.
    """

    rank: int = 16
    alpha: float = 32.0  # scaling s = alpha / rank
    dropout: float = 0.0
    space: str = "full"  # gradients of all linear weights (FILA), or "lora": of random factors, lifted (VILA)
    centred: bool = False  # importance is E[g^2], or with True its variance E[g^2] - E[g]^2 (VILA)
    # beside the retain importance: eps_value x its mean in the module; "absolute": eps_value (published)
    eps: str = "relative"
    eps_value: float | None = None  # None: 1e-2 relative, 1e-5 absolute
    tokens_twice: bool = False  # VILA's code divides each importance by its token count once more
    # row importance; controls: "permuted" among a module's rows, "uniform" (1: PiSSA's adapter)
    rows: str = "fisher"
    normalise: bool = (
        False  # divide a module's row importance by its root mean square, which "uniform" has (not published)
    )
    draws: int = 2  # of random factors, averaged; only for space="lora" (published: 1)
    sigma: float = 0.05  # their standard deviation
    perturb: bool = (
        True  # they stay in the forward pass (published); False: gradients at the undisturbed model
    )
    batch_size: int = 4  # rows per gradient
    # smaller dimension of a weight up to which its SVD is exact; above it is randomised, which is faster
    exact_up_to: int = field(default=2048, metadata={"later": True})
    adapter: ClassVar[bool] = True
    measures_rows: ClassVar[bool] = True
    blank: ClassVar[bool] = False  # with the adapter off this is not the model before unlearning

    def __post_init__(self) -> None:
        LoRA(rank=self.rank, alpha=self.alpha, dropout=self.dropout)  # the same limits
        for name, allowed in (
            ("space", ("full", "lora")),
            ("eps", tuple(EPS)),
            ("rows", ("fisher", "permuted", "uniform")),
        ):
            if getattr(self, name) not in allowed:
                raise SpecError(f"FisherLoRA: {unknown(name, getattr(self, name), allowed)}")
        if self.eps_value is not None and not self.eps_value > 0:
            raise SpecError(
                f"FisherLoRA: eps_value must be > 0 (or None for the default), got {self.eps_value}."
            )
        for name in ("draws", "batch_size", "exact_up_to"):
            if not getattr(self, name) >= 1 or getattr(self, name) % 1:
                raise SpecError(f"FisherLoRA: {name} must be a whole number >= 1, got {getattr(self, name)}.")
            object.__setattr__(self, name, int(getattr(self, name)))
        if not self.sigma > 0:
            raise SpecError(
                f"FisherLoRA: sigma must be > 0, got {self.sigma}; factors of 0 have no gradients."
            )

    def attach(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> nn.Module:
        """``notes`` gets what ``row_importance`` writes and "initialisation_s", seconds of the SVDs."""
        from peft.tuners.lora import LoraLayer

        if quantised(lm):
            raise SpecError(
                "FisherLoRA replaces the base weights W by W - sBA, which 4 or 8 bits cannot represent:"
                " the model would change before the first step. Use precision='fp32' or 'bf16', or a plain"
                " LoRA (trainable='lora-16') on this base."
            )
        narrow = {n: min(m.weight.shape) for n, m in linears(lm).items() if min(m.weight.shape) < self.rank}
        if narrow:
            name, size = min(narrow.items(), key=lambda item: item[1])
            raise SpecError(
                f"FisherLoRA: rank={self.rank}, but {name} has {size} singular values; use a rank of at"
                f" most {size}."
            )
        rho = self.row_importance(lm, seed, data, notes)
        began = time.perf_counter()
        adapted = adapted_modules(lm, lora_config(self.rank, self.alpha, self.dropout, True), seed)
        layers = {
            n.removeprefix("base_model.model."): m
            for n, m in adapted.named_modules()
            if isinstance(m, LoraLayer)
        }
        if layers.keys() != rho.keys():
            odd = sorted(layers.keys() ^ rho.keys())
            raise SpecError(
                f"FisherLoRA: peft puts adapters on other layers than have an importance: {odd[:3]}; use a"
                " plain LoRA."
            )
        for name, layer in layers.items():
            fila.initialise(layer, rho[name], derive(seed, "svd", name), exact_up_to=self.exact_up_to)
        if notes is not None:
            notes["initialisation_s"] = time.perf_counter() - began
        return adapted

    def row_importance(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> dict[str, torch.Tensor]:
        """Row importance of every linear layer but the head: name -> [d_out], float64 on the CPU. ``lm`` is
        left as it was.

        ``notes`` gets "importance_s", seconds; "importance_parameters", how many get a gradient;
        "importance_values_bytes", gradients, sums and finished maps held at once at most;
        "importance_nll_forget" and "_retain", mean NLL in nats of the model as the gradients saw it (with
        space="lora" a disturbed one). "uniform" rows measure nothing, for 0.
        """
        layers = linears(lm)
        noted = dict.fromkeys(("importance_s", "importance_parameters", "importance_values_bytes"), 0.0)
        if self.rows == "uniform":
            rho = {n: torch.ones(m.out_features, dtype=torch.float64) for n, m in layers.items()}
        elif data is None:
            raise SpecError(
                "FisherLoRA measures importance on the rows of a run; attach(lm, seed, Data(forget,"
                " retain)) needs them."
            )
        else:
            began = time.perf_counter()
            sides = [
                self._maps(lm, seed, t, r)
                for t, r in zip(data, paired_rows(len(data.forget), len(data.retain), seed), strict=True)
            ]
            rho = {n: self._rows(n, *sides).cpu() for n in layers}
            noted["importance_s"] = time.perf_counter() - began
            shapes = [m.weight.shape for m in layers.values()]
            numbers = sum(a * b if self.space == "full" else self.rank * (a + b) for a, b in shapes)
            finished = 2 * len(sides[0]) - 1
            noted["importance_parameters"] = float(numbers)
            noted["importance_values_bytes"] = 4.0 * numbers * (1 + (2 if self.centred else 1) + finished)
            for side, maps in zip(data._fields, sides, strict=True):
                noted[f"importance_nll_{side}"] = sum(m.nll for m in maps) / len(maps)
        if self.rows == "permuted":
            for n, values in rho.items():
                generator = torch.Generator().manual_seed(derive(seed, "permuted", n))
                rho[n] = values[torch.randperm(len(values), generator=generator)]
        if notes is not None:
            notes.update(noted)
        return rho

    def _maps(self, lm: nn.Module, seed: int, tokens: Tokens, rows: Sequence[int]) -> list[Maps]:
        """One pass over a side's rows; with space="lora" one for each draw, of the same factors on both
        sides.
        """
        if self.space == "full":
            return [fila.importance(lm, tokens, rows, batch_size=self.batch_size, centred=self.centred)]
        draws = (
            vila.draw(lm, self.rank, self.sigma, derive(seed, "importance", d)) for d in range(self.draws)
        )
        return [
            vila.importance(
                lm, tokens, rows, factors, scaling=self.alpha / self.rank, batch_size=self.batch_size,
                centred=self.centred, perturb=self.perturb,
            )
            for factors in draws
        ]  # fmt: skip

    def _rows(self, name: str, forget: list[Maps], retain: list[Maps]) -> torch.Tensor:
        """Row importance of a module; maps in weight shape exist for one module at a time only."""
        f, r = (vila.lift(m, name) if self.space == "lora" else m[0].values[name] for m in (forget, retain))
        if self.tokens_twice:
            f, r = f / forget[0].tokens, r / retain[0].tokens
        rho = row_importance(ratio(f, r, self.eps, self.eps_value))
        if not (torch.isfinite(rho).all() and rho.any()):
            raise SpecError(
                f"FisherLoRA: the row importance of {name} is 0 or not finite, so its adapter could not"
                " learn; the forget rows have no usable gradient there. Use rows='uniform', a smaller"
                " batch_size, or a plain LoRA."
            )
        return rho / rho.square().mean().sqrt() if self.normalise else rho
