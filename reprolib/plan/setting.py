"""What a prediction is asked about, and the constants that it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from reprolib.errors import SpecError, unknown
from reprolib.plan.shapes import Anatomy, anatomy
from reprolib.recipes import Stage, recipe

GIB = 1 << 30

UTILISATION = (
    0.3  # share of the peak arithmetic that a step of short rows reaches without compiled kernels; assumed
)

FRAGMENTATION = 0.05  # of the peak, lost between blocks of the allocator; assumed
CONTEXT_BYTES = int(0.6 * GIB)  # CUDA context and libraries, outside of the allocator; assumed
LABEL_SHARE = 0.2  # of a row's tokens, where nobody says: LUME's completion rows
QUESTION_TOKENS = 13  # of a short prompt: the mean of LUME's questions
PRECISIONS = ("fp32", "bf16", "nf4", "int8")

# --- one stage
# -------------------------------------------------------------------------------------------------

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

MOVING = (
    "loss",
    "blocks",
    "curvature",
    "step",
    "measure",
)  # what moves, its gradients and its optimizer state are there

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
    checkpointing: bool = (
        False  # blocks keep their input only and are computed again, as transformers' switch does it
    )
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
            raise SpecError(
                f"plan: labels must be fewer than the {self.tokens} tokens of a row, got {self.labels}."
            )
        if not 0 < self.gpu_memory_gib < math.inf:
            raise SpecError(
                f"plan: gpu_memory_gib, of one GPU, must be finite and > 0, got {self.gpu_memory_gib!r};"
                " e.g. 24."
            )
        if self.precision not in PRECISIONS:
            raise SpecError("plan: " + unknown("precision", self.precision, PRECISIONS))
        fixed = [s.name for s in self.stages if not s.quantisable]
        if self.precision in ("nf4", "int8") and fixed:
            lora = "add trainable='lora-16', or " if "trainable" in recipe(self.method).defaults else ""
            raise SpecError(
                f"plan: precision={self.precision!r} freezes the base weights, which stage {fixed[0]!r} of"
                f" {self.method!r} moves; {lora}use precision='fp32' or 'bf16'."
            )

    @property
    def stages(self) -> tuple[Any, ...]:
        """Stages and edits of the recipe."""
        return recipe(self.method).build(dict(self.options))

    @property
    def training(self) -> list[Stage]:
        return [s for s in self.stages if isinstance(s, Stage)]

    def rows(self, stage: Stage) -> int:
        """Rows of a full micro-batch."""
        most = self.micro_tokens or stage.schedule.micro_tokens
        return min(stage.schedule.batch_size, max(1, most // self.tokens))

    def anatomy(self, trainable: Any) -> Anatomy:
        a = anatomy(self.model, trainable)
        # transformers' switch asks for gradients of what the embeddings return, so that all blocks are part
        # of the graph
        return replace(a, inputs_reached=True) if self.checkpointing else a
