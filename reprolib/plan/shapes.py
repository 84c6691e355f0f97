"""GPUs and models as the planner sees them: vendors' sheets, built-in shapes, and the linear layers of a
configuration.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from reprolib.errors import SpecError, unknown
from reprolib.models.architectures import SHAPES
from reprolib.testbeds.presets import PRESETS


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU by its vendor's sheet: memory in GiB (which sheets write as GB), dense peak of bf16 matrix
    products in TFLOPS.
    """

    memory_gib: float
    tflops: float
    note: str = ""


GPUS = {
    "T4": GPU(16, 8.1, "no bf16: the peak is that of fp32"),
    "L4": GPU(24, 121),
    "RTX 4090": GPU(24, 165.2),
    "A100 40GB": GPU(40, 312),
    "A100 80GB": GPU(80, 312),
    "H100 80GB": GPU(80, 989, "SXM"),
    "H200": GPU(141, 989, "SXM"),
}

FAMILIES = ("olmo", "llama", "qwen2", "mistral")  # model types whose blocks the arithmetic below describes


def config_of(model: str):
    """The transformers config of a name: one of :data:`SHAPES`, its repository, a preset ("tiny", also
    "tiny/synthetic"), a folder.

    A folder needs a config.json and nothing else. Raises :class:`SpecError` for other names, and for model
    types whose blocks are built in another way than :data:`FAMILIES`.
    """
    from transformers import AutoConfig

    preset = model.partition("/")[0]
    repositories = {repository: name for name, (_, repository, _) in SHAPES.items()}
    name = repositories.get(model, model)
    if name in SHAPES:
        kind, _, shape = SHAPES[name]
        config = AutoConfig.for_model(kind, **shape)
    elif preset in PRESETS:
        config = PRESETS[preset].config
    elif (Path(model) / "config.json").is_file():
        config = _config_in(Path(model))
    else:
        raise SpecError(
            unknown("model", model, [*SHAPES, *PRESETS]) + " Or give a folder that holds a config.json."
        )
    return config


def _config_in(folder: Path):
    """The config of a folder; what cannot be read as one is refused before transformers stumbles over it
    somewhere inside.
    """
    from transformers import AutoConfig

    file, remedy = folder / "config.json", "Give the config.json that the model was published with."
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{file} cannot be read: {error}. {remedy}") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if not isinstance(kind, str):
        raise SpecError(f"{file} names no model_type, got {kind!r}; allowed: {', '.join(FAMILIES)}. {remedy}")
    if kind not in FAMILIES:
        raise SpecError(
            f"{folder}: " + unknown("model type", kind, FAMILIES) + " Only their blocks can be planned."
        )
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        value = raw.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{file}: {name} must be a whole number >= 1, got {value!r}. {remedy}")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds, by the field that is odd
        raise SpecError(
            f"{file} is no configuration of {kind!r}: {' '.join(str(error).split())}. {remedy}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer: ``inputs`` -> ``outputs``; ``block`` from 0, None for the output head; ``rank`` of its
    adapter, or 0.
    """

    block: int | None
    role: str  # q, k, v, o, gate, up, down or head
    inputs: int
    outputs: int
    trained: bool = False
    rank: int = 0

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def adapter(self) -> int:
        return self.rank * (self.inputs + self.outputs)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A model's shapes, and which of its weights move. Counts are of numbers, not bytes; tied weights count
    once.
    """

    linears: tuple[Linear, ...]
    parameters: int  # without adapters
    trained: int  # of them
    tensors: tuple[int, ...]  # sizes of those that move, or of the adapter's
    norms_trained: frozenset[int | None]  # blocks whose norms move; None: the last norm
    inputs_reached: bool  # a gradient is asked for what the embeddings return
    width: int
    blocks: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    vocabulary: int
    norm: str  # "layer" (without weights) or "rms"
    clipped: bool  # q, k, v are clipped in place, which keeps what they were

    @cached_property
    def adapter(self) -> int:
        return sum(x.adapter for x in self.linears)

    @property
    def moving(self) -> int:
        return self.trained + self.adapter

    @cached_property
    def inner(self) -> list[Linear]:
        """All linear layers but the head: what is quantised, and what has adapters."""
        return [x for x in self.linears if x.block is not None]

    @cached_property
    def head(self) -> Linear:
        return next(x for x in self.linears if x.block is None)

    @cached_property
    def first(self) -> int:
        """The first block that is part of the graph; the number of blocks if none is."""
        layers = (x.block for x in self.inner if x.trained or x.rank)
        moved = [b for b in (*layers, *self.norms_trained) if b is not None]
        return 0 if self.inputs_reached else min(moved, default=self.blocks)

    @cached_property
    def by_block(self) -> list[dict[str, Linear]]:
        """Linear layers of each block, by role."""
        out: list[dict[str, Linear]] = [{} for _ in range(self.blocks)]
        for x in self.inner:
            if x.block is not None:
                out[x.block][x.role] = x
        return out

    def attends(self, block: int) -> bool:
        """Whether the attention of a block is part of the graph."""
        if block != self.first or self.inputs_reached or block in self.norms_trained:
            return block >= self.first
        return any(
            x.trained or x.rank for role, x in self.by_block[block].items() if role in ("q", "k", "v", "o")
        )

    def passes(self, x: Linear) -> bool:
        """Whether a gradient goes through this layer to its input (and so needs its weight)."""
        if x.block is None:
            return self.first < self.blocks
        if x.block != self.first or self.inputs_reached or x.block in self.norms_trained:
            return x.block >= self.first
        return x.role == "down" or (x.role not in ("q", "k", "v") and self.attends(x.block))


def anatomy_of(config: Any, trainable: Any) -> Anatomy:
    """Shapes of a transformers config with a trainable (:mod:`reprolib.adapters`) in place, from the meta
    device.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rank = trainable.rank if trainable.adapter else 0
    if rank:  # shapes of adapters are simpler than putting them in place
        lm.requires_grad_(False)
    else:
        trainable.attach(lm, 0)

    def block(name: str) -> int | None:
        hit = re.search(r"layers\.(\d+)\.", name)
        return int(hit[1]) if hit else None

    head, linears = lm.get_output_embeddings(), []
    for name, m in lm.named_modules():
        if isinstance(m, nn.Linear):
            role = "head" if m is head else name.rpartition(".")[2].removesuffix("_proj")
            linears.append(
                Linear(
                    block=block(name), role=role, inputs=m.in_features, outputs=m.out_features,
                    trained=m.weight.requires_grad, rank=0 if m is head else rank,
                )
            )  # fmt: skip
    moving = {n: p.numel() for n, p in lm.named_parameters() if p.requires_grad}
    heads = config.num_attention_heads
    return Anatomy(
        linears=tuple(linears),
        parameters=sum(p.numel() for p in lm.parameters()),
        trained=sum(moving.values()),
        tensors=tuple(moving.values())
        or tuple(rank * n for x in linears if x.rank for n in (x.inputs, x.outputs)),
        norms_trained=frozenset(block(n) for n in moving if "norm" in n),
        inputs_reached=lm.get_input_embeddings().weight.requires_grad,
        width=config.hidden_size,
        blocks=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        mlp=config.intermediate_size,
        vocabulary=config.vocab_size,
        norm="layer" if config.model_type == "olmo" else "rms",
        clipped=getattr(config, "clip_qkv", None) is not None,
    )


@lru_cache(maxsize=32)
def anatomy(model: str, trainable: Any) -> Anatomy:
    """:func:`anatomy_of` a model by its name, kept."""
    return anatomy_of(config_of(model), trainable)
