"""Which weights may move: everything, the last layers, some MLPs, or a LoRA adapter (blank, or begun where the forget rows are)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError, unknown
from reprolib.localise import fila, vila
from reprolib.localise.importance import EPS, Maps, linears, paired_rows, ratio, row_importance
from reprolib.models.policy import quantised
from reprolib.seeds import derive


class Data(NamedTuple):
    """The rows of a run, for trainables that look at them before they begin."""

    forget: Tokens
    retain: Tokens


Notes = dict[str, float]  # what attaching cost, for the record


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

    def attach(self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None) -> nn.Module:
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

    def attach(self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None) -> nn.Module:
        n = layer_count(lm)
        if self.layers > n:
            raise SpecError(f"LastLayers: layers={self.layers}, but the model has {n}; use at most {n}, or trainable='full'.")
        ids = "|".join(str(i) for i in range(n - self.layers, n))
        _only(lm, rf"layers\.({ids})\.")
        return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP:
    """Only the MLPs of layers ``first`` to ``last`` (inclusive) move (SHA256 trains those of layers 0 to 5).

    ``part``: one matrix of each, e.g. "down_proj", the output weights that RMU's authors train.
    """

    first: int = 0
    last: int = 5
    part: str = field(default="", metadata={"later": True})
    adapter: ClassVar[bool] = False

    def __post_init__(self) -> None:
        layers = (self.first, self.last)
        if not (all(isinstance(x, int) for x in layers) and 0 <= self.first <= self.last):
            raise SpecError(f"MLP: first and last must be whole, 0 <= first <= last, got {layers}; e.g. trainable='mlp-0-5'.")

    def attach(self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None) -> nn.Module:
        n = layer_count(lm)
        if self.last >= n:
            most = f"{'down' if self.part else 'mlp'}-{min(self.first, n - 1)}-{n - 1}"
            raise SpecError(f"MLP: last={self.last}, but the model has layers 0 to {n - 1}; use at most {most}.")
        ids = "|".join(str(i) for i in range(self.first, self.last + 1))
        _only(lm, rf"layers\.({ids})\.mlp\.{self.part}")
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
        if not self.rank >= 1 or self.rank % 1:
            raise SpecError(f"LoRA: rank must be >= 1 and whole, got {self.rank}.")
        object.__setattr__(self, "rank", int(self.rank))
        if not 0 < self.alpha < math.inf:
            raise SpecError(f"LoRA: alpha must be finite and > 0, got {self.alpha}; alpha/rank scales the adapter, 2 is usual.")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"LoRA: dropout must lie in [0, 1), got {self.dropout}.")
        if self.init not in ("default", "pissa"):
            raise SpecError(f"LoRA: init must be 'default' or 'pissa', got {self.init!r}.")

    def attach(self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None) -> nn.Module:
        config = _config(self.rank, self.alpha, self.dropout, True if self.init == "default" else "pissa")
        if hasattr(lm, "peft_config"):  # an earlier stage's, on a quantised base that it cannot be merged into
            had = lm.peft_config["default"]
            if any(getattr(had, k) != getattr(config, k) for k in ("r", "lora_alpha", "lora_dropout", "init_lora_weights")):
                raise SpecError(
                    f"{self} cannot follow an adapter of rank {had.r}, alpha {had.lora_alpha} on a quantised base, where "
                    "adapters are not merged between stages; give all stages the same LoRA, or use precision='fp32'."
                )
            return lm  # it goes on training
        return _adapted(lm, config, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class FisherLoRA:
    r"""A LoRA that begins in the rows of each weight that matter for the forget rows: FILA, VILA, and what lies between.

    Defaults are FILA (LoKU, arXiv 2408.06621) but for ``eps``; ``space="lora", centred=True`` is VILA (arXiv 2508.21300).
    Equations and code quirks: reprolib/localise/. The frozen base is :math:`W - sBA`, so that the adapter means nothing
    without it: merge before saving (the loop does). Attaching again with the same weights, seed and data gives the same.
    """

    rank: int = 16
    alpha: float = 32.0  # scaling s = alpha / rank
    dropout: float = 0.0
    space: str = "full"  # gradients of all linear weights (FILA), or "lora": of random factors, lifted (VILA)
    centred: bool = False  # importance is E[g^2], or with True its variance E[g^2] - E[g]^2 (VILA)
    eps: str = "relative"  # beside the retain importance: eps_value x its mean in the module; "absolute": eps_value (published)
    eps_value: float | None = None  # None: 1e-2 relative, 1e-5 absolute
    tokens_twice: bool = False  # VILA's code divides each importance by its token count once more
    rows: str = "fisher"  # row importance; controls: "permuted" among a module's rows, "uniform" (1: PiSSA's adapter)
    normalise: bool = False  # divide a module's row importance by its root mean square, which "uniform" has (not published)
    draws: int = 2  # of random factors, averaged; only for space="lora" (published: 1)
    sigma: float = 0.05  # their standard deviation
    perturb: bool = True  # they stay in the forward pass (published); False: gradients at the undisturbed model
    batch_size: int = 4  # rows per gradient
    adapter: ClassVar[bool] = True
    init: ClassVar[str] = "fisher"  # not "default": with the adapter off this is not the model before unlearning

    def __post_init__(self) -> None:
        LoRA(rank=self.rank, alpha=self.alpha, dropout=self.dropout)  # the same limits
        for name, allowed in (("space", ("full", "lora")), ("eps", tuple(EPS)), ("rows", ("fisher", "permuted", "uniform"))):
            if getattr(self, name) not in allowed:
                raise SpecError(f"FisherLoRA: {unknown(name, getattr(self, name), allowed)}")
        if self.eps_value is not None and not self.eps_value > 0:
            raise SpecError(f"FisherLoRA: eps_value must be > 0 (or None for the default), got {self.eps_value}.")
        for name in ("draws", "batch_size"):
            if not getattr(self, name) >= 1 or getattr(self, name) % 1:
                raise SpecError(f"FisherLoRA: {name} must be a whole number >= 1, got {getattr(self, name)}.")
            object.__setattr__(self, name, int(getattr(self, name)))
        if not self.sigma > 0:
            raise SpecError(f"FisherLoRA: sigma must be > 0, got {self.sigma}; factors of 0 have no gradients.")

    def attach(self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None) -> nn.Module:
        """``notes`` gets what ``row_importance`` writes and "initialisation_s", seconds of the SVDs."""
        from peft.tuners.lora import LoraLayer

        if quantised(lm):
            raise SpecError(
                "FisherLoRA replaces the base weights W by W - sBA, which 4 or 8 bits cannot represent: the model would change "
                "before the first step. Use precision='fp32' or 'bf16', or a plain LoRA (trainable='lora-16') on this base."
            )
        narrow = {n: min(m.weight.shape) for n, m in linears(lm).items() if min(m.weight.shape) < self.rank}
        if narrow:
            name, size = min(narrow.items(), key=lambda item: item[1])
            raise SpecError(f"FisherLoRA: rank={self.rank}, but {name} has {size} singular values; use a rank of at most {size}.")
        rho = self.row_importance(lm, seed, data, notes)
        began = time.perf_counter()
        adapted = _adapted(lm, _config(self.rank, self.alpha, self.dropout, True), seed)
        layers = {n.removeprefix("base_model.model."): m for n, m in adapted.named_modules() if isinstance(m, LoraLayer)}
        if layers.keys() != rho.keys():
            odd = sorted(layers.keys() ^ rho.keys())
            raise SpecError(f"FisherLoRA: peft puts adapters on other layers than have an importance: {odd[:3]}; use a plain LoRA.")
        for name, layer in layers.items():
            fila.initialise(layer, rho[name], derive(seed, "svd", name))
        if notes is not None:
            notes["initialisation_s"] = time.perf_counter() - began
        return adapted

    def row_importance(
        self, lm: nn.Module, seed: int, data: Data | None = None, notes: Notes | None = None
    ) -> dict[str, torch.Tensor]:
        """Row importance of every linear layer but the head: name -> [d_out], float64 on the CPU. ``lm`` is left as it was.

        ``notes`` gets "importance_s", seconds; "importance_parameters", how many get a gradient; "importance_values_bytes",
        gradients, sums and finished maps held at once at most; "importance_nll_forget" and "_retain", mean NLL in nats of
        the model as the gradients saw it (with space="lora" a disturbed one). "uniform" rows measure nothing, for 0.
        """
        layers = linears(lm)
        noted = dict.fromkeys(("importance_s", "importance_parameters", "importance_values_bytes"), 0.0)
        if self.rows == "uniform":
            rho = {n: torch.ones(m.out_features, dtype=torch.float64) for n, m in layers.items()}
        elif data is None:
            raise SpecError(
                "FisherLoRA measures importance on the rows of a run; attach(lm, seed, Data(forget, retain)) needs them."
            )
        else:
            began = time.perf_counter()
            sides = [self._maps(lm, seed, t, r) for t, r in zip(data, paired_rows(*map(len, data), seed), strict=True)]
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
        """One pass over a side's rows; with space="lora" one for each draw, of the same factors on both sides."""
        same = {"batch_size": self.batch_size, "centred": self.centred}
        if self.space == "full":
            return [fila.importance(lm, tokens, rows, **same)]
        draws = (vila.draw(lm, self.rank, self.sigma, derive(seed, "importance", d)) for d in range(self.draws))
        more = {"scaling": self.alpha / self.rank, "perturb": self.perturb}
        return [vila.importance(lm, tokens, rows, factors, **same, **more) for factors in draws]

    def _rows(self, name: str, forget: list[Maps], retain: list[Maps]) -> torch.Tensor:
        """Row importance of a module; maps in weight shape exist for one module at a time only."""
        f, r = (vila.lift(m, name) if self.space == "lora" else m[0].values[name] for m in (forget, retain))
        if self.tokens_twice:
            f, r = f / forget[0].tokens, r / retain[0].tokens
        rho = row_importance(ratio(f, r, self.eps, self.eps_value))
        if not (torch.isfinite(rho).all() and rho.any()):
            raise SpecError(
                f"FisherLoRA: the row importance of {name} is 0 or not finite, so its adapter could not learn; the forget "
                "rows have no usable gradient there. Use rows='uniform', a smaller batch_size, or a plain LoRA."
            )
        return rho / rho.square().mean().sqrt() if self.normalise else rho


def _config(rank: int, alpha: float, dropout: float, init: bool | str):
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        init_lora_weights=init,
        task_type="CAUSAL_LM",
    )


def _adapted(lm: nn.Module, config, seed: int) -> nn.Module:
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora-init"))
        return get_peft_model(lm, config)


Trainable = Full | LastLayers | MLP | LoRA | FisherLoRA
FISHER = {"fila": {"space": "full", "centred": False}, "vila": {"space": "lora", "centred": True}}


def named(name: str | Trainable, **options) -> Trainable:
    """A trainable by its short name, as recipes' ``trainable`` option gives it.

    "full", "last-2" (layers), "mlp-0-5" and "down-5-7" (layers; whole MLPs, or their output weights), "lora-16" or "lora-64-16"
    (rank, alpha; alpha is twice the rank by default), "fila-16", "vila-16" or "vila-16-32" (rank, alpha). ``options``: further
    fields of the last three.
    """
    if not isinstance(name, str):
        return name
    head, *numbers = name.split("-")
    try:
        n = [float(x) if "." in x else int(x) for x in numbers]
    except ValueError:
        n = []
        head = ""
    if not all(isinstance(x, int) for x in (n if head in ("mlp", "down") else n[:1])):  # only alpha may be a fraction
        head = ""
    if head == "full" and not n:
        return Full()
    if head == "last" and len(n) == 1:
        return LastLayers(layers=int(n[0]))
    if head in ("mlp", "down") and len(n) == 2:
        return MLP(first=int(n[0]), last=int(n[1]), part="down_proj" if head == "down" else "")
    if head in ("lora", *FISHER) and len(n) in (1, 2):
        size = {"rank": int(n[0]), "alpha": float(n[1] if len(n) == 2 else 2 * n[0])}
        return LoRA(**size, **options) if head == "lora" else FisherLoRA(**size, **{**FISHER[head], **options})
    raise SpecError(
        f"unknown trainable {name!r}; use 'full', 'last-K', 'mlp-FIRST-LAST', 'down-FIRST-LAST', 'lora-RANK' or 'lora-RANK-ALPHA' "
        "(so too with 'fila' and 'vila')."
    )
