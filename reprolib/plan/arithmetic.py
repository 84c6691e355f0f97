"""Bytes and FLOPs as functions of shapes: weights, optimizer states, kept activations, losses, passes. No
model is built.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.corpus.batching import Batch
from reprolib.errors import SpecError
from reprolib.models.policy import Cached, Scored
from reprolib.objectives.base import Sources, Term
from reprolib.optim import SGD, AdamW, Influence, Sophia
from reprolib.plan.shapes import Anatomy, Linear

NF4_BLOCK = 64  # weights that share an fp32 scale
NF4_CODE_BYTES = 16 * 4  # each quantised matrix brings its table of 16 fp32 levels


# --- weights and what moves them
# -------------------------------------------------------------------------------


def nf4_bytes(x: Linear) -> int:
    """A matrix in NF4: 4 bits a weight, an fp32 scale for every 64 of them, and the table of levels."""
    return math.ceil(x.weights / 2) + 4 * math.ceil(x.weights / NF4_BLOCK) + NF4_CODE_BYTES


def int8_bytes(x: Linear) -> int:
    """A matrix in LLM.int8: a byte a weight and an fp32 scale for every output."""
    return x.weights + 4 * x.outputs


def float_bytes(precision: str, autocast: bool) -> int:
    """Of a weight that is not quantised (with 4 and 8 bits embeddings, head, norms and biases), as
    device.load_lm loads it.

    Beside a quantised base that is bf16 where the loop computes in it, and with it all that passes between
    layers.
    """
    return 4 if precision == "fp32" or (precision != "bf16" and not autocast) else 2


def base_bytes(a: Anatomy, precision: str, autocast: bool = True) -> int:
    """Weights without adapters."""
    quantised = {"nf4": nf4_bytes, "int8": int8_bytes}.get(precision)
    whole = a.parameters - (sum(x.weights for x in a.inner) if quantised else 0)
    return float_bytes(precision, autocast) * whole + (sum(map(quantised, a.inner)) if quantised else 0)


def moving_width(a: Anatomy, precision: str) -> int:
    """Bytes of a number that moves, and of its gradient: adapters are fp32 on every base, other weights are
    what they are.
    """
    return 2 if precision == "bf16" and a.trained else 4


def optimizer_state_bytes(optimizer: Any, a: Anatomy, precision: str) -> int:
    """What the optimizer keeps of every number that moves (counters of steps are on the host)."""
    own = moving_width(a, precision)
    if isinstance(optimizer, AdamW):
        return 2 * own * a.moving
    if isinstance(optimizer, Sophia):
        return 2 * 4 * a.moving  # in fp32 also for bf16 weights
    if isinstance(optimizer, Influence):
        return 0 if optimizer.preconditioner == "identity" else 4 * (a.moving + len(a.tensors))
    if isinstance(optimizer, SGD):
        return own * a.moving if optimizer.momentum else 0
    raise SpecError(
        f"plan: {type(optimizer).__name__} is none of the optimizers it knows (AdamW, SGD, Sophia,"
        " Influence)."
    )


def optimizer_step_bytes(optimizer: Any, a: Anatomy, precision: str) -> int:
    """What ``optimizer.step()`` holds for a moment on a GPU: AdamW nothing, in one pass (device.lean); others
    a few of a tensor.
    """
    return 0 if isinstance(optimizer, AdamW) else 5 * 4 * max(a.tensors, default=0)


def curvature_bytes(optimizer: Any, a: Anatomy, precision: str) -> int:
    """Tensors in the shape of all that moves which a second-order estimate holds, its gradient among them."""
    own = moving_width(a, precision)
    if isinstance(optimizer, Influence) and optimizer.preconditioner == "fisher":
        return (4 + 4 + own) * a.moving  # Fisher, mean of a batch, gradient
    if isinstance(optimizer, Sophia):
        return {"gnb": 4 + own, "hutchinson": 4 + 3 * own, "empirical": 4}[optimizer.hessian] * a.moving
    return 0


def importance_bytes(trainable: Any, a: Anatomy) -> int:
    """Gradients, sums and finished maps that :class:`~reprolib.adapters.fisher_lora.FisherLoRA` holds at
    once; 0 without it.
    """
    gradients = importance_gradient_bytes(trainable, a)
    if not gradients:
        return 0
    finished = 0 if trainable.space == "full" else 2 * trainable.draws - 2
    return gradients * (3 + trainable.centred + finished)


def importance_gradient_bytes(trainable: Any, a: Anatomy) -> int:
    """The gradients among them: of all linear weights but the head's, or of random factors."""
    if not isinstance(trainable, FisherLoRA) or trainable.rows == "uniform":
        return 0
    return 4 * sum(x.weights if trainable.space == "full" else x.adapter for x in a.inner)


# --- activations
# -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of a number: in the residual stream, as linear layers return it, as matrices are multiplied."""

    residual: int
    linear: int
    matmul: int
    autocast: bool
    cast: bool  # every adapter has a copy of its input: peft casts it to the adapter's fp32, autocast back


def widths(precision: str, autocast: bool) -> Widths:
    """``autocast``: bf16, as the loop computes on a GPU; without, all is fp32, as on a CPU (bf16 weights then
    compute in bf16).
    """
    own = float_bytes(precision, autocast)
    # peft's layers on bitsandbytes' leave the cast to CUDA's autocast, which finds the input in bf16 and
    # makes no copy
    return (
        Widths(own, 2, 2, True, precision in ("fp32", "bf16"))
        if autocast
        else Widths(own, own, own, False, False)
    )


def input_copies(layers: list[Linear], w: Widths, arrives: int, dropout: bool, free: bool = False) -> int:
    """Copies of one input that linear layers which read it keep. ``arrives``: its bytes a number; ``free``:
    kept already.

    A layer keeps its input if its weight trains. Where that has to be cast, each layer has its own copy; so
    has every adapter whose input is cast or dropped out. Else one serves all.
    """
    full, adapted = sum(x.trained for x in layers), sum(x.rank > 0 for x in layers)
    own = (full if arrives != w.matmul else 0) + (adapted if w.cast or dropout else 0)
    shared = not free and ((full and arrives == w.matmul) or (adapted and not (w.cast or dropout)))
    return own + bool(shared)


def norm_bytes(a: Anatomy, tokens: int, w: Widths, passed: bool, trained: bool) -> int:
    """A norm keeps its fp32 input and a number or two a token if a gradient passes it, RMS its output if its
    weight trains.
    """
    statistics = 8 if a.norm == "layer" else 4
    kept = tokens * (4 * a.width + statistics) if passed else 0
    return kept + (tokens * a.width * w.residual if trained and a.norm == "rms" else 0)


def block_bytes(
    a: Anatomy, block: int, tokens: int, w: Widths, precision: str = "fp32", dropout: bool = False
) -> int:
    """What one transformer block keeps for its backward pass of ``tokens`` padded tokens (module:
    equation).
    """
    if block < a.first:
        return 0
    x = a.by_block[block]
    q, kv, d, f = a.heads * a.head_size, a.kv_heads * a.head_size, a.width, a.mlp
    qkv, mlp, norm = (
        [x[r] for r in ("q", "k", "v")],
        [x[r] for r in ("gate", "up")],
        block in a.norms_trained,
    )
    numbers = 0  # bytes a token
    if a.attends(block):
        numbers += d * w.matmul * input_copies(qkv, w, w.residual, dropout)
        numbers += (
            w.matmul * (2 * q + 2 * kv) + 4 * a.heads
        )  # fused attention: q, k, v, result, one number a head
        numbers += q * w.matmul * input_copies([x["o"]], w, w.matmul, dropout, free=True)
        numbers += (q + 2 * kv) * w.linear if a.clipped else 0
    numbers += d * w.matmul * input_copies(mlp, w, w.residual, dropout)
    numbers += 3 * f * w.linear  # gate before and after its activation, up
    numbers += f * w.matmul * input_copies([x["down"]], w, w.linear, dropout)
    numbers += sum(y.rank for y in x.values()) * w.matmul  # what A returns
    if dropout:  # its mask: of booleans where it is fused (GPU), else in fp32
        numbers += sum(y.inputs * (1 if w.autocast else 4) for y in x.values() if y.rank and a.passes(y))
    if precision == "int8" and dropout:
        numbers += (
            2 * d * w.residual + f * w.linear
        )  # LLM.int8 keeps its inputs; without dropout they are those of the adapters
    below = block > a.first or a.inputs_reached
    norms = norm_bytes(a, tokens, w, below, norm) + norm_bytes(a, tokens, w, a.attends(block), norm)
    return tokens * numbers + norms


def weight_copies_bytes(
    a: Anatomy, w: Widths, precision: str, depth: int, checkpointing: bool = False
) -> tuple[int, int]:
    """16-bit copies of fp32 weights that autocast makes: (at the loss, in the backward pass of a block).

    The graph keeps them down to the first block that trains. With checkpointing it keeps the head's and those
    of one block at a time, while autocast's own cache holds all that train until the forward pass is over.
    """
    if not w.autocast:
        return 0, 0

    def size(x: Linear) -> int:
        return 2 * (x.weights * (precision == "fp32" and a.passes(x)) + x.adapter)

    head = size(a.head) if depth == a.blocks else 0
    each = [sum(map(size, x.values())) for x in a.by_block[a.first : depth]]
    if not checkpointing:
        return sum(each) + head, sum(each)
    cached = sum(size(x) for b in a.by_block[a.first : depth] for x in b.values() if x.trained or x.rank)
    return cached + head, max(each, default=0)


@dataclass(frozen=True, slots=True)
class Graph:
    """Bytes that a forward pass keeps: in the blocks, around them, and of a block that its backward pass
    computes again.
    """

    blocks: int
    head: int
    again: int = 0


def graph_bytes(
    a: Anatomy,
    rows: int,
    tokens: int,
    labels: int,
    w: Widths,
    precision: str,
    depth: int,
    dropout: bool = False,
    checkpointing: bool = False,
) -> Graph:
    """Of ``rows`` rows of ``tokens`` tokens through ``depth`` blocks, and the head if that is all of them.

    With checkpointing a block keeps its input and nothing else.
    """
    kept = [block_bytes(a, b, rows * tokens, w, precision, dropout) for b in range(depth)]
    head = head_bytes(a, rows, tokens, labels, w) if depth == a.blocks else 0
    if checkpointing:
        return Graph(
            sum(k > 0 for k in kept) * rows * tokens * a.width * w.residual, head, max(kept, default=0)
        )
    return Graph(sum(kept), head)


def head_bytes(a: Anatomy, rows: int, tokens: int, labels: int, w: Widths) -> int:
    """Around the blocks: rotary tables, the last norm, and the head's input at N = rows x labels
    positions.
    """
    n = rows * labels
    out = 2 * 4 * tokens * a.head_size + norm_bytes(
        a, rows * tokens, w, a.first < a.blocks, None in a.norms_trained
    )
    out += 8 * rows * tokens if a.inputs_reached else 0
    return out + 2 * 8 * n + (n * a.width * w.matmul if a.head.trained else 0)


@lru_cache(maxsize=128)
def loss_bytes(term: Term, half: bool) -> float:
    """Most bytes that a term holds at once, forward or backward, for a number of its logits [N, V] (or hidden
    states [N, D]).

    The logits are among them, in 16 bits if ``half``. Measured by running the term on a toy batch, so that it
    holds for terms of other packages too: 12 for a plain NLL in fp32.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    size, answer, most = 256, 32, 0
    alive: dict[int, tuple[int, weakref.ref]] = {}  # storages: bytes, and what tells of their end
    weight = torch.ones(size, 1, dtype=torch.bfloat16 if half else torch.float32)

    def ended(key: int, _) -> None:
        alive.pop(key, None)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal most
            out = function(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if (
                    isinstance(t, torch.Tensor)
                    and (key := (storage := t.untyped_storage())._cdata) not in alive
                ):
                    alive[key] = (
                        storage.nbytes(),
                        weakref.ref(storage, partial(ended, key)),
                    )
            most = max(most, sum(n for n, _ in alive.values()))
            return out

    class Toy(nn.Module):
        def forward(self, batch: Batch, layer: int | None = None):
            out = F.linear(torch.ones(2 * answer, 1, dtype=weight.dtype, requires_grad=True), weight)
            return out if layer is not None else Scored(out, batch.labels, batch.row, batch.index)

    predict = torch.zeros(2, answer + 2, dtype=torch.bool)
    predict[:, 1:-1] = True
    rows = Batch(torch.ones_like(predict, dtype=torch.long), predict, torch.arange(2))
    rows = replace(rows, other=rows)
    cached = Cached(torch.zeros(2), (torch.zeros(answer, size),) * 2, (torch.zeros(answer, size),) * 2)
    toy, sources = Toy(), Sources(cached, cached, cached)
    with Watch():
        term.values(toy, rows, sources).sum().backward()
    return most / (2 * answer * size)


# --- arithmetic per step
# ---------------------------------------------------------------------------------------


def pass_flops(
    a: Anatomy,
    rows: int,
    tokens: int,
    labels: int,
    depth: int,
    backward: bool,
    checkpointing: bool = False,
) -> float:
    """Floating point operations of a pass over ``rows`` rows through ``depth`` blocks (and the head, if that
    is all of them).

    2 for every weight and token forward, as many for the gradient of a layer's input where one is asked for,
    and of its weight where it trains: 6 N for all weights, about 4 N for an adapter. Attention counts the
    full T x T square in each product.
    """
    total = 0.0
    for x in a.linears:
        if depth < a.blocks if x.block is None else x.block >= depth:
            continue
        n = rows * (labels if x.block is None else tokens)
        total += 2 * n * (x.weights + x.adapter)
        if (
            backward and checkpointing and x.block is not None and x.block >= a.first
        ):  # what no gradient needs is not repeated
            total += (
                2
                * n
                * (
                    x.weights + x.adapter
                    if x.role != "down"
                    else (x.weights + x.rank * x.inputs) * (x.rank > 0)
                )
            )
        if backward and (x.block is None or x.block >= a.first):
            through = a.passes(x)
            total += (
                2
                * n
                * (x.weights * (through + x.trained) + x.adapter + x.rank * (x.outputs + x.inputs * through))
            )
    square = 4 * rows * tokens**2 * a.heads * a.head_size  # two products
    for b in range(depth):
        inside = backward and a.attends(b)
        again = backward and checkpointing and b >= a.first
        total += square * (1 + 2.5 * inside + again)  # backward: four products, and the scores again
    return total
