r"""Will it fit, and how long will it take? Memory and time of a run, from the model's configuration alone.

Nothing is downloaded and no GPU is asked: the model is built on torch's meta device (shapes without numbers), and the rest is
arithmetic on what the loop (unlearn.py) keeps, in small functions below. Bytes are those of tensors alive at once, as
``torch.cuda.max_memory_allocated`` counts them. A run passes through *phases* (:data:`PHASES`), each of which holds some of the
*parts*; the peak is that of the largest phase.

With n padded tokens of a forward pass, N labelled ones, width d, q and k/v heads of together :math:`d_q` and :math:`d_k`
numbers, MLP width f, vocabulary V, a block that trains keeps for its backward pass (bytes; w: of the type that matrices are
multiplied in, u: of what linear layers return, c: number of separate copies of an input)

.. math::
    n\,\big[\,2 \cdot 4d \;+\; w\,(c_{qkv} + c_{mlp})\,d \;+\; w\,(2 d_q + 2 d_k) \;+\; 3 u f \;+\; w f\,\big]

and a little: attention is fused, so that no T x T matrix is kept. Under autocast every linear layer casts its input itself
(c counts them) and keeps a 16-bit copy of its fp32 weight. The head keeps one fp32 [N, V] tensor or more, by the loss. Beside a
quantised base all the rest is bf16 on a GPU, and adapters share their inputs.

tests/test_plan.py holds all this against real tensors, graphs and steps on a CPU (under its autocast too). What only a GPU
could show is not checked: times, fused dropout's masks, FSDP. What is assumed, not known: :data:`UTILISATION`,
:data:`FRAGMENTATION`, :data:`CONTEXT_BYTES`. Not modelled: fused losses, tensor or pipeline parallelism.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from reprolib.errors import RecordError, SpecError, unknown
from reprolib.plan import shapes
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
    pass_flops,
    weight_copies_bytes,
    widths,
)
from reprolib.plan.shapes import FAMILIES, GPUS, SHAPES, Anatomy, anatomy, anatomy_of, config_of

if TYPE_CHECKING:
    from reprolib.objectives.base import Term
    from reprolib.recipes import Stage
    from reprolib.record import Record

GIB = 1 << 30
UTILISATION = 0.3  # share of the peak arithmetic that a step of short rows reaches without compiled kernels; assumed
FRAGMENTATION = 0.05  # of the peak, lost between blocks of the allocator; assumed
CONTEXT_BYTES = int(0.6 * GIB)  # CUDA context and libraries, outside of the allocator; assumed
LABEL_SHARE = 0.2  # of a row's tokens, where nobody says: LUME's completion rows
QUESTION_TOKENS = 13  # of a short prompt: the mean of LUME's questions
PRECISIONS = ("fp32", "bf16", "nf4", "int8")

__all__ = [
    "FAMILIES",
    "GPUS",
    "SHAPES",
    "Anatomy",
    "Comparison",
    "Part",
    "Plan",
    "Remedy",
    "Setting",
    "anatomy",
    "anatomy_of",
    "base_bytes",
    "config_of",
    "graph_bytes",
    "importance_bytes",
    "loss_bytes",
    "moving_width",
    "optimizer_state_bytes",
    "optimizer_step_bytes",
    "pass_flops",
    "plan",
    "predict",
    "remedies",
    "weight_copies_bytes",
    "widths",
]

# --- one stage -------------------------------------------------------------------------------------------------

PHASES = {  # in the order of a run; what each holds is said by the parts
    "start": "the target beside the model",
    "importance": "importance of weights, before a localised LoRA",
    "loss": "a micro-batch at its loss",
    "blocks": "its backward pass, in the blocks",
    "curvature": "a second-order estimate",
    "step": "an early optimizer step",
    "measure": "a teacher-forced pass along the way",
    "generate": "generation at the end",
}
MOVING = ("loss", "blocks", "curvature", "step", "measure")  # what moves, its gradients and its optimizer state are there
UNLEARNING = ("importance", *MOVING)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes on one GPU, the phases in which they are there, and how they come about."""

    name: str
    bytes: int
    phases: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything that a plan depends on."""

    model: str  # see config_of
    method: str
    options: tuple[tuple[str, Any], ...] = ()  # of the recipe
    gpu_memory_gib: float = 24.0  # of one GPU
    gpus: int = 1
    precision: str = "fp32"  # of the base: fp32, bf16, nf4, int8
    tokens: int = 256  # of a row, the same for all
    labels: int = round(LABEL_SHARE * 256)  # of them predicted
    micro_tokens: int | None = None  # padded tokens of a forward pass; None: the stage's own
    checkpointing: bool = False  # blocks keep their input only and are computed again, as transformers' switch does it
    autocast: bool = True  # bf16, as on a GPU
    target_beside: bool = False  # the fp32 target is on the GPU too at the start, as with `reprolib run`
    forget_rows: int = 1112  # for time and references; default: the training rows of SemEval-2025's release
    retain_rows: int = 1136

    def __post_init__(self) -> None:
        for name in ("gpus", "tokens", "labels", "micro_tokens", "forget_rows", "retain_rows"):
            value = getattr(self, name)
            missing = value is None and name == "micro_tokens"
            if not missing and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise SpecError(f"plan: {name} must be a whole number >= 1, got {value!r}.")
        if self.labels >= self.tokens:
            raise SpecError(f"plan: labels must be fewer than the {self.tokens} tokens of a row, got {self.labels}.")
        if not 0 < self.gpu_memory_gib < math.inf:
            raise SpecError(f"plan: gpu_memory_gib, of one GPU, must be finite and > 0, got {self.gpu_memory_gib!r}; e.g. 24.")
        if self.precision not in PRECISIONS:
            raise SpecError("plan: " + unknown("precision", self.precision, PRECISIONS))
        fixed = [s.name for s in self.stages if not s.quantisable]
        if self.precision in ("nf4", "int8") and fixed:
            from reprolib.recipes import recipe

            lora = "add trainable='lora-16', or " if "trainable" in recipe(self.method).defaults else ""
            raise SpecError(
                f"plan: precision={self.precision!r} freezes the base weights, which stage {fixed[0]!r} of {self.method!r} moves; "
                f"{lora}use precision='fp32' or 'bf16'."
            )

    @property
    def stages(self) -> tuple[Any, ...]:
        """Stages and edits of the recipe."""
        from reprolib.recipes import recipe

        return recipe(self.method).build(dict(self.options))

    @property
    def training(self) -> list[Stage]:
        return [s for s in self.stages if hasattr(s, "schedule")]

    def rows(self, stage: Stage) -> int:
        """Rows of a full micro-batch."""
        most = self.micro_tokens or stage.schedule.micro_tokens
        return min(stage.schedule.batch_size, max(1, most // self.tokens))

    def anatomy(self, trainable: Any) -> Anatomy:
        a = anatomy(self.model, trainable)
        # transformers' switch asks for gradients of what the embeddings return, so that all blocks are part of the graph
        return replace(a, inputs_reached=True) if self.checkpointing else a


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
    """The model before unlearning: (bytes kept on the host, terms that run it in every step, whether it is a copy of its own).

    As unlearn.make_references decides: what terms need is kept, logits only if those of a side are below CACHE_BYTES.
    """
    from reprolib.unlearn import CACHE_BYTES

    host, live = 0, []
    for term, rows in terms_of(stage, s):
        size = 4 * rows * {None: 0, "sequence": 1, "logits": s.labels * a.vocabulary, "hidden": s.labels * a.width}[term.needs]
        if term.needs == "logits" and size > CACHE_BYTES:
            live.append(term)
        else:
            host += size
    switchable = stage.trainable.adapter and getattr(stage.trainable, "init", "") == "default" and len(s.stages) == 1
    return host, live, bool(live) and not switchable


def stage_parts(stage: Stage, s: Setting) -> list[Part]:
    """All parts of a stage on one GPU. FSDP divides weights, gradients and optimizer state; activations are each GPU's own."""
    a, w, share, rows = s.anatomy(stage.trainable), widths(s.precision, s.autocast), s.gpus, s.rows(stage)
    moving, base = moving_width(a, s.precision) * a.moving, base_bytes(a, s.precision, s.autocast)
    parts = model_parts(a, s)

    def add(name: str, size: float, phases: tuple[str, ...], note: str = "") -> None:
        if size:
            parts.append(Part(name, math.ceil(size), phases, note))

    kept = (*MOVING, "generate")
    add("LoRA adapters", 4 * a.adapter / share, kept, f"{a.adapter:,} in fp32")
    # gone before a model is evaluated; a step of one pass has none before its backward pass, in which they come as activations go
    once = passes_of(stage, s) == 1
    add("gradients", moving / share, (*(() if once else ("loss", "blocks")), "curvature", "step"), f"of {a.moving:,} weights")
    add("optimizer state", optimizer_state_bytes(stage.optimizer, a, s.precision) / share, MOVING, type(stage.optimizer).__name__)
    again = any(getattr(x, "restart", False) or getattr(x, "needs_start", False) for x in s.stages)
    if again and s.precision in ("fp32", "bf16"):
        add("copy of the starting weights", base, UNLEARNING, "a stage or an edit needs them")
    if reference_of(stage, s, a)[2]:
        add("live reference copy", base, UNLEARNING, "its logits are too many to keep")

    terms = [t for t, _ in terms_of(stage, s)]
    if share > 1:
        block = max(sum(x.weights + x.adapter for x in b.values()) for b in a.by_block)
        add("gathered weights of two blocks", 2 * block * w.matmul, (*UNLEARNING, "generate"), "FSDP, prefetching")
    else:
        deep = max(depth_of(t, a) for t in terms)
        at_loss, in_blocks = weight_copies_bytes(a, w, s.precision, deep, s.checkpointing)
        add("16-bit copies of weights", in_blocks, ("loss", "blocks", "curvature"), "autocast")
        add("16-bit copies until the backward pass", at_loss - in_blocks, ("loss", "curvature"), "autocast")
    dropout = getattr(stage.trainable, "dropout", 0) > 0

    def graph(depth: int, n: int, checkpointing: bool = s.checkpointing) -> Graph:
        return graph_bytes(a, n, s.tokens, s.labels, w, s.precision, depth, dropout, checkpointing)

    n, g = max(((t.passes, graph(depth_of(t, a), rows)) for t in terms), key=lambda x: x[0] * (x[1].blocks + x[1].head))
    note = f"{rows} x {s.tokens} tokens" + " twice" * (n > 1) + ", checkpointed" * s.checkpointing
    add("activations", n * g.blocks, ("loss", "blocks"), note)
    add("gradients in the place of activations", once * max(0, moving / share - n * g.blocks), ("blocks",))
    add("one block computed again", g.again, ("blocks",))
    # those of an adapter pass in its fp32
    add("gradients of activations", rows * s.tokens * (3 * a.mlp + a.width) * (4 if a.adapter else w.linear), ("blocks",))
    wide = [rows * s.labels * (a.vocabulary if t.layer is None else a.width) * loss_bytes(t, w.linear == 2) for t in terms]
    add("head, logits and loss", n * g.head + max(wide), ("loss",), f"{rows} x {s.labels} labels")

    if importance := importance_bytes(stage.trainable, a):
        gradients = importance_gradient_bytes(stage.trainable, a)
        n, moved = stage.trainable.batch_size, all_linears(a) if stage.trainable.space == "full" else a
        g = graph_bytes(moved, n, s.tokens, s.labels, widths(s.precision, False), s.precision, a.blocks)  # not under autocast
        add("importance maps", importance - gradients, ("importance",), "sums, finished maps")
        held = g.blocks + g.head + 12 * n * s.labels * a.vocabulary
        note = f"{n} x {s.tokens} tokens; one goes as the other comes"
        add("gradients for them, or activations", max(gradients, held), ("importance",), note)
    estimate, kind = curvature_bytes(stage.optimizer, a, s.precision), getattr(stage.optimizer, "hessian", "fisher")
    if estimate and kind == "empirical":
        add("curvature estimate", estimate / share, ("curvature",))
    elif estimate:
        n = 1 if getattr(stage.optimizer, "fisher", "") == "per_sample" else rows
        twice = kind == "hutchinson"  # keeps the graph of the gradient too, without fused attention
        g = graph(a.blocks, n, s.checkpointing and not twice)
        squares = 2 * n * a.heads * s.tokens**2 * a.blocks * w.matmul * twice
        held = (3 if twice else 1) * (g.blocks + g.again + g.head + squares) + 16 * n * s.labels * a.vocabulary
        inside = n * s.tokens * (3 * a.mlp + a.width) * (4 if a.adapter else w.linear) * (not twice)
        gradients = 0 if twice else moving / share
        add("curvature estimate", estimate / share - gradients, ("curvature",))
        note = f"{n} x {s.tokens} tokens" + "; one goes as the other comes" * (not twice)
        add("gradients for it, or activations", max(gradients, held) + inside, ("curvature",), note)
    add("passing in a step", optimizer_step_bytes(stage.optimizer, a, s.precision) / share, ("step",))
    # device.copies asks before the first step has made the optimizer's state: where they would take more than a quarter of what is
    # left then, the host's memory has them
    late = ("optimizer state", "passing in a step")
    if 4 * moving / share <= s.gpu_memory_gib * GIB - sum(p.bytes for p in parts if "step" in p.phases and p.name not in late):
        add("weights before the first step", moving / share, ("step",), "to count those that did not move")
    return parts


def model_parts(a: Anatomy, s: Setting) -> list[Part]:
    """Weights, and what evaluating them takes: whole documents labelled, logits in the weights' width, generation with its cache.

    The worst case of generation: no row ends before MAX_NEW_TOKENS, as with a model that forgot how to stop. (Batches are made
    by the length of prompts, so that many short ones would then need still more; the note says how much.)
    """
    from reprolib import evaluate

    def default(function: Any, name: str) -> int:
        return inspect.signature(function).parameters[name].default

    width, base = float_bytes(s.precision, s.autocast), base_bytes(a, s.precision, s.autocast)
    block = (3 * a.mlp + 4 * a.width) * width  # held for a moment, a token
    scored, prompt = max(s.tokens, default(evaluate.teacher_forced, "max_tokens")), s.tokens - s.labels
    # logits of the batch before are there beside a block, then beside logits and logarithms (from bf16 weights in fp32 too)
    scoring = scored * (a.vocabulary * width + max(block, a.vocabulary * (width + 4 + 4 * (width == 2))))
    new, together = evaluate.MAX_NEW_TOKENS, default(evaluate.generate, "batch_tokens")
    models = 1 + any(getattr(x, "last", False) and getattr(x, "needs_start", False) for x in s.stages)
    cache = 2 * a.kv_heads * a.head_size * width * models  # a token and block

    def writing(prompt: int) -> tuple[int, float]:
        """Rows in a batch, and bytes: of the last token, while one block's keys grow by a copy, or of reading the prompts."""
        rows = max(1, together // (prompt + 32))
        return rows, rows * max((prompt + new) * cache * (a.blocks + 0.5), prompt * (cache * a.blocks + block))

    # autocast keeps those of all weights that ask for gradients until the evaluation is over
    copied = 2 * s.autocast * sum(x.weights * (x.trained and s.precision == "fp32") + x.adapter for x in a.linears)
    rows, size = writing(prompt)
    short = writing(min(QUESTION_TOKENS, prompt))[1]
    parts = [
        Part("weights", math.ceil(base / s.gpus), tuple(PHASES), f"{a.parameters:,} in {s.precision}"),
        Part("the target's weights", 4 * a.parameters, ("start",), "in fp32, as `reprolib run` loads them"),
        Part("16-bit copies of them", 2 * s.autocast * sum(x.weights for x in a.linears), ("start",), "autocast, while it answers"),
        Part("16-bit copies while evaluated", copied, ("measure", "generate"), "autocast"),
        Part("a second model", base * (models - 1), ("generate",), "answers beside the first"),
        Part("scoring", scoring, ("start", "measure"), f"{scored} tokens, all labelled, and logits of as many before"),
        Part("keys and values", math.ceil(size), ("generate",),
             f"{rows} rows of {prompt} + {new} tokens ({short / GIB:.2g} GiB for short questions, if none of them ended)"),
    ]  # fmt: skip
    return [p for p in parts if p.bytes and (s.target_beside or p.phases != ("start",))]


def all_linears(a: Anatomy) -> Anatomy:
    """The same model with gradients for all linear weights but the head, as FILA's importance asks for them."""
    return replace(a, linears=tuple(replace(x, trained=x.block is not None, rank=0) for x in a.linears))


def phase_bytes(parts: Sequence[Part]) -> dict[str, int]:
    """Bytes of each phase that the run has: those with a part beyond the weights."""
    own = {"importance": "importance maps", "curvature": "curvature estimate", "start": "the target's weights"}
    names = {p.name for p in parts}
    there = [p for p in PHASES if p == "generate" or own.get(p, "gradients") in names]
    return {p: sum(x.bytes for x in parts if p in x.phases) for p in there}


def stage_flops(stage: Stage, s: Setting) -> tuple[float, float, int]:
    """(operations of a mean step, operations once a stage, steps). Second-order passes are spread over their interval."""
    from reprolib.optim import Influence, Sophia
    from reprolib.unlearn import n_steps

    a, schedule, opt = s.anatomy(stage.trainable), stage.schedule, stage.optimizer
    terms, (_, live, _) = terms_of(stage, s), reference_of(stage, s, a)

    def passing(term: Term, rows: int, backward: bool = True) -> float:
        return pass_flops(a, rows, s.tokens, s.labels, depth_of(term, a), backward, s.checkpointing)

    n, steps = schedule.batch_size, n_steps(schedule, s.forget_rows, s.retain_rows)
    sides = [t.passes * passing(t, n) + (passing(t, n, False) if t in live else 0) for t, _ in terms]
    step = sum(sides) if schedule.pairing == "paired" else max(sides)
    once = sum(passing(t, rows, False) for t, rows in terms if t.needs and t not in live)
    whole = pass_flops(a, 1, s.tokens, s.labels, a.blocks, True, s.checkpointing)
    if isinstance(opt, Sophia) and opt.hessian != "empirical":
        step += sum(t.passes for t, _ in terms) * n * whole * (3 if opt.hessian == "hutchinson" else 1) / opt.interval
    if isinstance(opt, Influence) and opt.preconditioner == "fisher":
        times = math.ceil(schedule.epochs) if opt.refresh == "epoch" else 1
        once += times * min(s.retain_rows, opt.fisher_rows or s.retain_rows) * whole
    if importance_bytes(stage.trainable, a):
        moved, draws = (all_linears(a), 1) if stage.trainable.space == "full" else (a, stage.trainable.draws)
        rows = s.forget_rows + min(s.forget_rows, s.retain_rows)
        once += draws * pass_flops(moved, rows, s.tokens, s.labels, a.blocks, True)
    return step, once, steps


# --- the plan --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the setting, what it does to the result, and the peak with it."""

    name: str
    how: str
    setting: Setting
    peak_bytes: int

    @property
    def fits(self) -> bool:
        return fits(self.peak_bytes, self.setting)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Peak bytes as predicted and as a record has them."""

    predicted_bytes: int
    measured_bytes: int

    @property
    def ratio(self) -> float:
        """Predicted over measured: above 1 the plan was too careful."""
        return self.predicted_bytes / self.measured_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run takes: memory of the stage with the highest peak, in bytes on one GPU, and time of all stages together."""

    setting: Setting
    parameters: int  # of the model
    trained_parameters: int  # that move, at most
    stage: str
    parts: tuple[Part, ...]
    phases: Mapping[str, int]
    host_bytes: int  # reference values kept in the computer's memory
    steps: int
    flops: float  # operations of all steps and of what comes before them, evaluations left out
    remedies: tuple[Remedy, ...] = ()  # only where it does not fit; cheapest in quality first

    @property
    def peak_bytes(self) -> int:
        """Of tensors alive at once: what ``torch.cuda.max_memory_allocated`` should report."""
        return max(self.phases.values())

    @property
    def fits(self) -> bool:
        return fits(self.peak_bytes, self.setting)

    def seconds(self, gpu: str) -> float:
        """Training time on GPUs of a kind of :data:`GPUS`, at :data:`UTILISATION` of their peak, rows shared out."""
        if gpu not in GPUS:
            raise SpecError("plan: " + unknown("GPU", gpu, GPUS))
        return self.flops / (GPUS[gpu].tflops * 1e12 * UTILISATION * self.setting.gpus)

    def compare(self, record: Record) -> Comparison:
        """The prediction beside ``cost["peak_bytes"]`` of a record from a GPU; that both are of the same model is not checked.

        Raises :class:`RecordError` for a record without a GPU, or of another method, precision or options.
        """
        s, what = self.setting, f"record {record.fingerprint}"
        if not record.provenance.get("machine", {}).get("gpu"):
            raise RecordError(
                f"{what} was made without a GPU: its peak_bytes is the resident memory of a process with all its libraries, not "
                "of tensors. Compare with a record from a GPU."
            )
        theirs = (record.spec.method, record.spec.precision, dict(record.spec.options))
        if theirs != (s.method, s.precision, dict(s.options)):
            raise RecordError(f"{what} is of {theirs}, the plan of {(s.method, s.precision, dict(s.options))}; plan what was run.")
        return Comparison(self.peak_bytes, int(record.cost["peak_bytes"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out = asdict(self) | {"peak_bytes": self.peak_bytes, "needed_bytes": needed(self.peak_bytes), "fits": self.fits}
        out["setting"]["options"] = dict(self.setting.options)
        out["hours"] = {name: round(self.seconds(name) / 3600, 4) for name in GPUS}
        out["assumed"] = {"utilisation": UTILISATION, "fragmentation": FRAGMENTATION, "context_bytes": CONTEXT_BYTES}
        out["remedies"] = [{"name": r.name, "how": r.how, "peak_bytes": r.peak_bytes, "fits": r.fits} for r in self.remedies]
        return out

    def report(self) -> str:
        """The plan as text."""
        s, peak = self.setting, max(self.phases, key=self.phases.__getitem__)
        unit = "GiB" if self.peak_bytes >= GIB else "MiB"

        def size(value: int) -> str:
            scaled = value / (GIB if unit == "GiB" else 1 << 20)
            return f"{scaled:.1f}" if scaled >= 9.95 else f"{scaled:.3f}" if scaled < 0.1 else f"{scaled:.2f}"

        def row(name: str, cells: Sequence[str], note: str = "") -> str:
            return f"{name:38}{''.join(f'{c:>11}' for c in cells)}  {note}".rstrip()

        lines = [f"{s.method} on {s.model}: {self.parameters:,} parameters in {s.precision}, {self.trained_parameters:,} move", ""]
        lines.append(row(f"{unit} on one GPU" + f", stage {self.stage!r}" * bool(self.stage), list(self.phases)))
        for p in self.parts:
            if any(q in p.phases for q in self.phases):
                lines.append(row(p.name, [size(p.bytes) if q in p.phases else "" for q in self.phases], p.note))
        lines += [row("sum", [size(v) for v in self.phases.values()]), *(f"  {p}: {PHASES[p]}" for p in self.phases), ""]
        lines.append(
            f"peak {size(self.peak_bytes)} {unit} ({peak}); with {FRAGMENTATION:.0%} for the allocator and CUDA's own "
            f"{size(needed(self.peak_bytes))} {unit} of {s.gpu_memory_gib:g} GiB on each of {s.gpus} GPU(s): "
            + ("fits" if self.fits else "does not fit")
        )
        if self.host_bytes > 1 << 20:
            lines.append(f"reference values in the computer's memory: {size(self.host_bytes)} {unit}")
        if self.remedies:
            lines += ["", "what would change that, cheapest in quality first:"]
            for r in self.remedies:
                lines.append(f"  {'fits' if r.fits else 'too large':11}{size(needed(r.peak_bytes)):>7} {unit}  {r.name}: {r.how}")
        if self.steps:
            assumed = f"at {UTILISATION:.0%} of the peak, without evaluations:"
            lines += ["", f"{self.steps:,} steps, {self.flops:.3g} operations; {assumed}"]
            for name, gpu in GPUS.items():
                note = "" if needed(self.peak_bytes) <= gpu.memory_gib * GIB else "too small"
                sheet = f"{gpu.memory_gib:g} GiB, {gpu.tflops:g} TFLOPS" + f" ({gpu.note})" * bool(gpu.note)
                lines.append(f"  {name:11}{_duration(self.seconds(name)):>10}  {note:11}{sheet}")
        return "\n".join(lines)


def needed(peak_bytes: int) -> int:
    """With what the allocator loses and CUDA takes."""
    return math.ceil(peak_bytes * (1 + FRAGMENTATION)) + CONTEXT_BYTES


def fits(peak_bytes: int, s: Setting) -> bool:
    return needed(peak_bytes) <= s.gpu_memory_gib * GIB


def _duration(seconds: float) -> str:
    size, unit = next(((n, u) for n, u in ((3600, "h"), (60, "min")) if seconds >= n), (1, "s"))
    return f"{seconds / size:.1f} {unit}"


def plan(
    model: str, method: str, options: Mapping[str, Any] | None = None, *, trainable: str | None = None,
    batch_size: int | None = None, labels: int | None = None, target_beside: bool | None = None, **setting: Any,
) -> Plan:  # fmt: skip
    """Predict memory and time of ``method`` on ``model`` without running anything.

    ``trainable`` and ``batch_size`` (rows a side and step) are short for two of the recipe's ``options``. ``labels``: predicted
    tokens of a row (None: LABEL_SHARE of them); ``target_beside`` (None: for presets of testbeds, which `reprolib run` runs).
    ``setting``: further fields of :class:`Setting`, e.g. ``gpu_memory_gib=24, gpus=1, precision="nf4", tokens=256``.
    Raises :class:`SpecError` for what cannot be run or planned.
    """
    from reprolib.models.testbeds import PRESETS
    from reprolib.recipes import recipe

    for key in setting:
        if key not in Setting.__dataclass_fields__:
            raise SpecError("plan: " + unknown("setting", key, Setting.__dataclass_fields__))
    chosen = dict(options or {})
    for name, value in (("trainable", trainable), ("batch_size", batch_size)):
        if value is not None and name not in recipe(method).defaults:
            raise SpecError(f"plan: {method!r} has no option {name!r}; it has {', '.join(sorted(recipe(method).defaults))}.")
        chosen |= {} if value is None else {name: value}
    shapes.config_of(model)
    tokens = setting.get("tokens", 256)
    s = Setting(
        model=model, method=method, options=tuple(sorted(chosen.items())), **setting,
        labels=max(1, round(LABEL_SHARE * tokens)) if labels is None else labels,
        target_beside=model.partition("/")[0] in PRESETS if target_beside is None else target_beside,
    )  # fmt: skip
    anatomy.cache_clear()  # a folder's config may have changed
    found = predict(s)
    return found if found.fits else replace(found, remedies=remedies(s))


def predict(s: Setting) -> Plan:
    """The plan of a setting, without remedies."""
    from reprolib.models.adapters import Full

    stages = {x.name: x for x in s.training}
    anatomies = [s.anatomy(x.trainable) for x in stages.values()] or [s.anatomy(Full())]
    parts = {name: stage_parts(x, s) for name, x in stages.items()} or {"": model_parts(anatomies[0], s)}
    worst = max(parts, key=lambda name: max(phase_bytes(parts[name]).values()))
    costs = [stage_flops(x, s) for x in stages.values()]
    return Plan(
        setting=s, parameters=anatomies[0].parameters, trained_parameters=max(x.moving for x in anatomies) if stages else 0,
        stage=worst, parts=tuple(parts[worst]), phases=phase_bytes(parts[worst]),
        host_bytes=sum(reference_of(x, s, a)[0] for x, a in zip(stages.values(), anatomies, strict=False)),
        steps=sum(n for _, _, n in costs), flops=sum(step * n + once for step, once, n in costs),
    )  # fmt: skip


def remedies(s: Setting) -> tuple[Remedy, ...]:
    """What each single change that helps would do, those that keep the result first; if none is enough, what all of them would."""
    from reprolib.recipes import recipe

    def best(field: str, values: Sequence[Any]) -> dict[str, Any]:
        """The first value that is enough, else the last."""
        trials = ({field: v} for v in values)
        return next((t for t in trials if predict(replace(s, **t)).fits), {field: values[-1]})

    found: list[tuple[str, str, dict[str, Any]]] = []
    rows = max((s.rows(x) for x in s.training), default=1)
    if rows > 1:
        change = best("micro_tokens", [max(1, rows >> k) * s.tokens for k in range(1, rows.bit_length())])
        found.append((f"micro-batches of {change['micro_tokens'] // s.tokens} rows",
                      f"REPROLIB_MICRO_TOKENS={change['micro_tokens']}; slower, same result", change))  # fmt: skip
    if s.training and not s.checkpointing:
        how = "REPROLIB_GRADIENT_CHECKPOINTING=1; slower, same result"
        found.append(("gradient checkpointing", how, {"checkpointing": True}))
    if counts := [n for n in (2, 4, 8, 16) if n > s.gpus]:
        change = best("gpus", counts)
        how = "sharded by FSDP (gpu/accelerate/fsdp.yaml, so far run on two CPU processes); same result"
        found.append((f"{change['gpus']} GPUs", how, change))
    trainable = "trainable" in recipe(s.method).defaults
    full = any(not x.trainable.adapter for x in s.training)
    lora = {"options": tuple(sorted({**dict(s.options), "trainable": "lora-16"}.items()))} if full else {}
    if full and trainable:
        found.append(("LoRA", "trainable=lora-16; fewer weights move", lora))
    if s.training and s.precision != "nf4" and (trainable or not full):
        found.append(("NF4 base" + " with LoRA" * full, "precision=nf4; another model to begin with", {"precision": "nf4", **lora}))
    out, together, present = [], {}, predict(s).peak_bytes
    for name, how, change in found:
        try:
            changed = replace(s, **change)
        except SpecError:  # this method has no such variant
            continue
        peak = predict(changed).peak_bytes
        if peak >= present:  # no remedy
            continue
        out.append(Remedy(name, how, changed, peak))
        together |= {} if "gpus" in change else change
    if len(out) > 1 and not any(r.fits for r in out):
        changed = replace(s, **together)
        out.append(Remedy("all of these but more GPUs", "at once", changed, predict(changed).peak_bytes))
    return tuple(out)
