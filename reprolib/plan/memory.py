"""Bytes by part and phase of a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.edits import Edit
from reprolib.evaluate.passes import teacher_forced
from reprolib.models.generate import MAX_NEW_TOKENS, generate
from reprolib.objectives.base import Term
from reprolib.optim import Influence, Sophia
from reprolib.plan.arithmetic import (
    Graph,
    base_bytes,
    curvature_bytes,
    float_bytes,
    graph_bytes,
    importance_bytes,
    importance_gradient_bytes,
    loss_bytes,
    moving_width,
    optimizer_state_bytes,
    optimizer_step_bytes,
    weight_copies_bytes,
    widths,
)
from reprolib.plan.setting import GIB, MOVING, PHASES, QUESTION_TOKENS, UNLEARNING, Part, Setting
from reprolib.plan.shapes import Anatomy
from reprolib.recipes import Stage
from reprolib.unlearn.references import CACHE_BYTES


def terms_of(stage: Stage, s: Setting) -> list[tuple[Term, int]]:
    """Forget and retain term, with the number of rows that each has in all."""
    both = (stage.objective.forget, s.forget_rows), (stage.objective.retain, s.retain_rows)
    return [(t, n) for t, n in both if t is not None]


def passes_of(stage: Stage, s: Setting) -> int:
    """Forward and backward passes of a step: a micro-batch of a side each."""
    each = [-(-min(stage.schedule.batch_size, n) // s.rows(stage)) for _, n in terms_of(stage, s)]
    return max(each) if stage.schedule.pairing in ("interleaved", "alternating") else sum(each)


def depth_of(term: Term, a: Anatomy) -> int:
    """Blocks that a term runs: all, unless it reads the output of one."""
    return a.blocks if term.layer is None else min(a.blocks, term.layer + 1)


def reference_of(stage: Stage, s: Setting, a: Anatomy) -> tuple[int, list[Term], bool]:
    """The model before unlearning: (bytes kept on the host, terms that run it in every step, whether it is a
    copy of its own).

    As unlearn.make_references decides: what terms need is kept, logits only if those of a side are below
    CACHE_BYTES.
    """
    host, live = 0, []
    for term, rows in terms_of(stage, s):
        size = (
            4
            * rows
            * {None: 0, "sequence": 1, "logits": s.labels * a.vocabulary, "hidden": s.labels * a.width}[
                term.needs
            ]
        )
        if term.needs == "logits" and size > CACHE_BYTES:
            live.append(term)
        else:
            host += size
    switchable = stage.trainable.adapter and stage.trainable.blank and len(s.stages) == 1
    return host, live, bool(live) and not switchable


def stage_parts(stage: Stage, s: Setting) -> list[Part]:
    """All parts of a stage on one GPU. FSDP divides weights, gradients and optimizer state; activations are
    each GPU's own.
    """
    a = s.anatomy(stage.trainable)
    parts = [*model_parts(a, s)]
    for of in (moving_parts, copied_parts, cast_parts, activation_parts, importance_parts, curvature_parts):
        parts += [p for p in of(stage, s, a) if p.bytes]
    # device.copies asks before the first step has made the optimizer's state: where they would take more than
    # a quarter of what is left then, the host's memory has them
    late, moving = ("optimizer state", "passing in a step"), moving_bytes(s, a)
    there = sum(p.bytes for p in parts if "step" in p.phases and p.name not in late)
    if moving and 4 * moving <= s.gpu_memory_gib * GIB - there:
        note = "to count those that did not move"
        parts.append(part("weights before the first step", moving, ("step",), note))
    return parts


def part(name: str, size: float, phases: tuple[str, ...], note: str = "") -> Part:
    return Part(name, math.ceil(size), phases, note)


def moving_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """What moves, its gradients, and what the optimizer keeps of it."""
    kept = (*MOVING, "generate")
    yield part("LoRA adapters", 4 * a.adapter / s.gpus, kept, f"{a.adapter:,} in fp32")
    # gone before a model is evaluated; a step of one pass has none before its backward pass, in which they
    # come as activations go
    phases = (*(() if passes_of(stage, s) == 1 else ("loss", "blocks")), "curvature", "step")
    yield part("gradients", moving_bytes(s, a), phases, f"of {a.moving:,} weights")
    state = optimizer_state_bytes(stage.optimizer, a, s.precision) / s.gpus
    yield part("optimizer state", state, MOVING, type(stage.optimizer).__name__)


def moving_bytes(s: Setting, a: Anatomy) -> float:
    """A GPU's share of what moves, and as much of its gradient."""
    return moving_width(a, s.precision) * a.moving / s.gpus


def copied_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """Other models beside the one that is trained."""
    base = base_bytes(a, s.precision, s.autocast)
    again = any(x.restart if isinstance(x, Stage) else x.needs_start for x in s.stages)
    if again and s.precision in ("fp32", "bf16"):
        yield part("copy of the starting weights", base, UNLEARNING, "a stage or an edit needs them")
    if reference_of(stage, s, a)[2]:
        yield part("live reference copy", base, UNLEARNING, "its logits are too many to keep")


def cast_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """Weights as they are multiplied: gathered from all GPUs, or copied by autocast."""
    w = widths(s.precision, s.autocast)
    if s.gpus > 1:
        block = max(sum(x.weights + x.adapter for x in b.values()) for b in a.by_block)
        phases = (*UNLEARNING, "generate")
        yield part("gathered weights of two blocks", 2 * block * w.matmul, phases, "FSDP, prefetching")
        return
    deep = max(depth_of(t, a) for t, _ in terms_of(stage, s))
    at_loss, in_blocks = weight_copies_bytes(a, w, s.precision, deep, s.checkpointing)
    yield part("16-bit copies of weights", in_blocks, ("loss", "blocks", "curvature"), "autocast")
    late = at_loss - in_blocks
    yield part("16-bit copies until the backward pass", late, ("loss", "curvature"), "autocast")


def graph_of(stage: Stage, s: Setting, a: Anatomy, depth: int, rows: int, checkpointing: bool) -> Graph:
    """What a forward pass of a stage keeps."""
    w, dropout = widths(s.precision, s.autocast), stage.trainable.dropout > 0
    return graph_bytes(a, rows, s.tokens, s.labels, w, s.precision, depth, dropout, checkpointing)


def activation_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """What the passes of a step hold: activations, their gradients, and the loss."""
    w, rows, terms = widths(s.precision, s.autocast), s.rows(stage), [t for t, _ in terms_of(stage, s)]
    n, g = max(
        ((t.passes, graph_of(stage, s, a, depth_of(t, a), rows, s.checkpointing)) for t in terms),
        key=lambda x: x[0] * (x[1].blocks + x[1].head),
    )
    note = f"{rows} x {s.tokens} tokens" + " twice" * (n > 1) + ", checkpointed" * s.checkpointing
    yield part("activations", n * g.blocks, ("loss", "blocks"), note)
    if passes_of(stage, s) == 1:
        more = max(0, moving_bytes(s, a) - n * g.blocks)
        yield part("gradients in the place of activations", more, ("blocks",))
    yield part("one block computed again", g.again, ("blocks",))
    yield part("gradients of activations", inside_bytes(s, a, rows), ("blocks",))
    wide = [
        rows * s.labels * (a.vocabulary if t.layer is None else a.width) * loss_bytes(t, w.linear == 2)
        for t in terms
    ]
    note = f"{rows} x {s.labels} labels"
    yield part("head, logits and loss", n * g.head + max(wide), ("loss",), note)


def inside_bytes(s: Setting, a: Anatomy, rows: int) -> int:
    """Gradients of a block's activations; those of an adapter pass in its fp32."""
    width = 4 if a.adapter else widths(s.precision, s.autocast).linear
    return rows * s.tokens * (3 * a.mlp + a.width) * width


def importance_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """What a measurement of importance holds before the first step."""
    how, importance = stage.trainable, importance_bytes(stage.trainable, a)
    if not isinstance(how, FisherLoRA) or not importance:
        return
    gradients = importance_gradient_bytes(how, a)
    n, moved = how.batch_size, all_linears(a) if how.space == "full" else a
    w = widths(s.precision, False)  # not under autocast
    g = graph_bytes(moved, n, s.tokens, s.labels, w, s.precision, a.blocks)
    yield part("importance maps", importance - gradients, ("importance",), "sums, finished maps")
    held = g.blocks + g.head + 12 * n * s.labels * a.vocabulary
    note = f"{n} x {s.tokens} tokens; one goes as the other comes"
    yield part("gradients for them, or activations", max(gradients, held), ("importance",), note)


def curvature_parts(stage: Stage, s: Setting, a: Anatomy) -> Iterator[Part]:
    """What an estimate of the curvature holds, and what the optimizer needs for a moment."""
    w, optimizer = widths(s.precision, s.autocast), stage.optimizer
    estimate = curvature_bytes(optimizer, a, s.precision)
    kind = optimizer.hessian if isinstance(optimizer, Sophia) else "fisher"
    if estimate and kind == "empirical":
        yield part("curvature estimate", estimate / s.gpus, ("curvature",))
    elif estimate:
        alone = isinstance(optimizer, Influence) and optimizer.fisher == "per_sample"
        n = 1 if alone else s.rows(stage)
        twice = kind == "hutchinson"  # keeps the graph of the gradient too, without fused attention
        g = graph_of(stage, s, a, a.blocks, n, s.checkpointing and not twice)
        squares = 2 * n * a.heads * s.tokens**2 * a.blocks * w.matmul * twice
        kept = (3 if twice else 1) * (g.blocks + g.again + g.head + squares)
        held = kept + 16 * n * s.labels * a.vocabulary
        gradients = 0 if twice else moving_bytes(s, a)
        yield part("curvature estimate", estimate / s.gpus - gradients, ("curvature",))
        note = f"{n} x {s.tokens} tokens" + "; one goes as the other comes" * (not twice)
        inside = inside_bytes(s, a, n) * (not twice)
        yield part("gradients for it, or activations", max(gradients, held) + inside, ("curvature",), note)
    passing = optimizer_step_bytes(optimizer, a, s.precision) / s.gpus
    yield part("passing in a step", passing, ("step",))


def model_parts(a: Anatomy, s: Setting) -> list[Part]:
    """Weights, and what evaluating them takes: whole documents labelled, logits in the weights' width,
    generation with its cache.

    The worst case of generation: no row ends before MAX_NEW_TOKENS, as with a model that forgot how to stop.
    (Batches are made by the length of prompts, so that many short ones would then need still more; the note
    says how much.)
    """

    def default(function: Any, name: str) -> int:
        return inspect.signature(function).parameters[name].default

    width, base = float_bytes(s.precision, s.autocast), base_bytes(a, s.precision, s.autocast)
    block = (3 * a.mlp + 4 * a.width) * width  # held for a moment, a token
    scored, prompt = max(s.tokens, default(teacher_forced, "max_tokens")), s.tokens - s.labels
    # logits of the batch before are there beside a block, then beside logits and logarithms (from bf16
    # weights in fp32 too)
    scoring = scored * (a.vocabulary * width + max(block, a.vocabulary * (width + 4 + 4 * (width == 2))))
    new, together = MAX_NEW_TOKENS, default(generate, "batch_tokens")
    models = 1 + any(isinstance(x, Edit) and x.last and x.needs_start for x in s.stages)
    cache = 2 * a.kv_heads * a.head_size * width * models  # a token and block

    def writing(prompt: int) -> tuple[int, float]:
        """Rows in a batch, and bytes: of the last token, while one block's keys grow by a copy, or of reading
        the prompts.
        """
        rows = max(1, together // (prompt + 32))
        return rows, rows * max(
            (prompt + new) * cache * (a.blocks + 0.5), prompt * (cache * a.blocks + block)
        )

    # autocast keeps those of all weights that ask for gradients until the evaluation is over
    copied = (
        2 * s.autocast * sum(x.weights * (x.trained and s.precision == "fp32") + x.adapter for x in a.linears)
    )
    rows, size = writing(prompt)
    short = writing(min(QUESTION_TOKENS, prompt))[1]
    parts = [
        Part("weights", math.ceil(base / s.gpus), tuple(PHASES), f"{a.parameters:,} in {s.precision}"),
        Part("the target's weights", 4 * a.parameters, ("start",), "in fp32, as `reprolib run` loads them"),
        Part(
            "16-bit copies of them",
            2 * s.autocast * sum(x.weights for x in a.linears),
            ("start",),
            "autocast, while it answers",
        ),
        Part("16-bit copies while evaluated", copied, ("measure", "generate"), "autocast"),
        Part("a second model", base * (models - 1), ("generate",), "answers beside the first"),
        Part(
            "scoring",
            scoring,
            ("start", "measure"),
            f"{scored} tokens, all labelled, and logits of as many before",
        ),
        Part(
            "keys and values",
            math.ceil(size),
            ("generate",),
            f"{rows} rows of {prompt} + {new} tokens ({short / GIB:.2g} GiB for short questions, if none"
            " of them ended)",
        ),
    ]
    return [p for p in parts if p.bytes and (s.target_beside or p.phases != ("start",))]


def all_linears(a: Anatomy) -> Anatomy:
    """The same model with gradients for all linear weights but the head, as FILA's importance asks for
    them.
    """
    return replace(a, linears=tuple(replace(x, trained=x.block is not None, rank=0) for x in a.linears))


def phase_bytes(parts: Sequence[Part]) -> dict[str, int]:
    """Bytes of each phase that the run has: those with a part beyond the weights."""
    own = {
        "importance": "importance maps",
        "curvature": "curvature estimate",
        "start": "the target's weights",
    }
    names = {p.name for p in parts}
    there = [p for p in PHASES if p == "generate" or own.get(p, "gradients") in names]
    return {p: sum(x.bytes for x in parts if p in x.phases) for p in there}
