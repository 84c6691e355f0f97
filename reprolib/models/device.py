"""Where and in what precision a model computes: decided here and nowhere else.

fp32 weights always (bf16 AdamW updates at unlearning's learning rates are lost to rounding), with bf16
autocast on a GPU that has it. On a CPU everything is fp32: bf16 is many times slower there.

What leaves the maths of a run as it is stands in the environment and not in its spec: REPROLIB_DEVICE=cpu,
REPROLIB_MICRO_TOKENS, REPROLIB_GRADIENT_CHECKPOINTING=1, REPROLIB_CHECKPOINT_BYTES, and the processes that
``accelerate launch`` starts (study/gpu/accelerate holds its configurations). Each of these computes a share
of every step, all of them evaluate, and the first writes.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch

from reprolib.errors import SpecError, unknown

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn
    from transformers import PreTrainedModel

F = TypeVar("F", bound=Callable[..., Any])
GPU = "cuda"
Precision = Literal["fp32", "bf16", "nf4", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "nf4", "int8")


def accelerator() -> Accelerator:
    """`accelerate`'s view of this machine; CUDA with bf16 autocast where there is one, else the CPU in fp32.

    REPROLIB_DEVICE=cpu keeps a run off the GPU.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    patience = (
        [InitProcessGroupKwargs(timeout=timedelta(hours=6))] if processes() > 1 else []
    )  # the first trains targets alone
    return Accelerator(
        cpu=not on_gpu(), mixed_precision="bf16" if has_bf16() else "no", kwargs_handlers=patience
    )


def processes() -> int:
    """How many processes share the run: those of ``accelerate launch``, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the one that trains targets and writes files."""
    return processes() == 1 or int(os.environ["RANK"]) == 0


def together() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        accelerator().wait_for_everyone()


def sharded() -> bool:
    """Whether the processes share the weights (FSDP), so that none holds the whole model."""
    return processes() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


T = TypeVar("T")


def own_share(parts: Sequence[T]) -> list[tuple[T, float]]:
    """This process's parts of a step with the factor on their loss; as many for every process, since they
    compute in step.

    Gradients are averaged over processes, so that the factor is their number; it is 0 for a part that only
    fills up.
    """
    n = processes()
    if n == 1:
        return [(p, 1.0) for p in parts]
    rank = int(os.environ["RANK"])
    return [
        (parts[i], float(n)) if i < len(parts) else (parts[-1], 0.0)
        for i in range(rank, -(-len(parts) // n) * n, n)
    ]


def agreed(value: bool) -> bool:
    """What the first process says, for a decision that all must take alike."""
    return value if processes() == 1 else bool(summed(torch.tensor(float(value and first()))))


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if processes() == 1:
        return values
    own = accelerator()
    return own.reduce(values.to(own.device), "sum").to(values.device)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Over the processes, each of which has a copy of the weights; under FSDP the backward pass has done
    it.
    """
    if processes() == 1 or sharded():
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        torch.distributed.all_reduce(p.grad)
        p.grad /= processes()


def whole_number(tensor: torch.Tensor) -> float:
    """A scalar of all shards together, which under FSDP is spread over processes."""
    return float(tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor)


def held(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a weight that this process holds: all of it, but under FSDP."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def on_gpu() -> bool:
    given = os.environ.get("REPROLIB_DEVICE", "")
    if given.lower() not in ("", "cpu"):
        raise SpecError(
            f"REPROLIB_DEVICE is {given!r}; allowed: cpu, or unset for the GPU if there is one; set or"
            " unset it."
        )
    return not given and torch.cuda.is_available()


def own_gpu() -> str:
    """This process's GPU, by number where several processes have one each: readers of weights take "cuda" for
    the first.
    """
    return GPU if processes() == 1 else f"{GPU}:{os.environ.get('LOCAL_RANK', '0')}"


def has_bf16() -> bool:
    """Whether the GPU multiplies in bf16 itself; one that only emulates it is faster in fp32."""
    return on_gpu() and torch.cuda.is_bf16_supported(including_emulation=False)


def place() -> AbstractContextManager:
    """Where new tensors are made: on the GPU if there is one, where 7 billion random numbers take no
    minute.
    """
    return torch.device(own_gpu()) if on_gpu() else nullcontext()


def autocast() -> AbstractContextManager:
    """bf16 on a GPU that has it, as the loop trains; nothing on a CPU."""
    return torch.autocast(GPU, torch.bfloat16) if has_bf16() else nullcontext()


def inference(function: F) -> F:
    """Decorator: without gradients, and in the arithmetic that the loop trains in."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with torch.no_grad(), autocast():
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def tidy() -> None:
    """Give back GPU memory that nothing uses, so that a second model finds it in one piece."""
    if on_gpu():
        gc.collect()
        torch.cuda.empty_cache()


def free_bytes() -> int:
    """Of the GPU: what no process holds, and what this one's allocator holds without using it."""
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def micro_tokens(own: int) -> int:
    """Padded tokens of a forward pass: REPROLIB_MICRO_TOKENS, or the schedule's ``own``. Less needs less
    memory.
    """
    return _whole("REPROLIB_MICRO_TOKENS", own)


def recompute(lm: nn.Module) -> None:
    """With REPROLIB_GRADIENT_CHECKPOINTING=1 blocks are computed again in the backward pass: slower, less
    memory, same result.
    """
    given = os.environ.get("REPROLIB_GRADIENT_CHECKPOINTING", "0")
    if given not in ("0", "1"):
        raise SpecError(f"REPROLIB_GRADIENT_CHECKPOINTING is {given!r}; allowed: 0 or 1; set or unset it.")
    if given == "1":
        cast("PreTrainedModel", lm).gradient_checkpointing_enable()


def worth_saving(lm: nn.Module) -> bool:
    """Whether a run on this model is checkpointed: not above REPROLIB_CHECKPOINT_BYTES of weights.

    At a billion weights a checkpoint with optimizer state is 14 GB, and ten of them take longer than most
    runs.
    """
    size = sum(p.numel() * p.element_size() for p in lm.parameters())
    return size <= _whole("REPROLIB_CHECKPOINT_BYTES", size)


def _whole(variable: str, default: int) -> int:
    given = os.environ.get(variable)
    if given is None or (given.isdecimal() and int(given) > 0):
        return default if given is None else int(given)
    raise SpecError(f"{variable} is {given!r}; allowed: a whole number >= 1; set or unset it.")


def lean(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """On a GPU, torch's AdamW in one pass: its usual form there holds a further copy of all that moves."""
    if on_gpu() and isinstance(optimizer, torch.optim.AdamW):
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    return optimizer


def copies(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Copies beside the originals; in the host's memory where they would take more than a quarter of what a
    GPU has left.
    """
    tensors = [held(t.detach()) for t in tensors]  # under FSDP the share of this process
    if on_gpu() and 4 * sum(t.numel() * t.element_size() for t in tensors) > free_bytes():
        return [t.cpu() for t in tensors]
    return [t.clone() for t in tensors]


def generation(config: Any, max_new_tokens: int, batch_tokens: int) -> tuple[int, int]:
    """(new tokens to count for a row, tokens in a batch) when rows are put together for generation.

    On a GPU a batch is as large as a quarter of the free memory holds keys and values of, at most 65,536
    tokens, every row at its longest: a destroyed model ends none.
    """
    if not on_gpu():
        return 32, batch_tokens
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    each = 2 * 4 * (getattr(config, "num_key_value_heads", None) or heads) * size * config.num_hidden_layers
    return max_new_tokens, min(65_536, free_bytes() // 4 // each)


def quiet() -> None:
    """No progress bars of transformers' own: loading a small model is not the work that a user waits for."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextmanager
def one_thread(enabled: bool):
    """Tiny models gain nothing from threads; with one, results do not depend on the number of cores."""
    before = torch.get_num_threads()
    if enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_lm(path: str, precision: Precision = "fp32", **kwargs) -> PreTrainedModel:
    """A causal LM from a local folder or the hub, its weights in ``precision``.

    "fp32" and "bf16" are trainable in full; "nf4" and "int8" are bitsandbytes bases (4-bit NormalFloat,
    LLM.int8) that only adapters can train on. Works on a CPU too.
    """
    from transformers import AutoModelForCausalLM

    if precision not in PRECISIONS:
        raise SpecError(unknown("precision", precision, PRECISIONS))
    quiet()
    quantized = precision in ("nf4", "int8")
    # beside a quantised base activations have the type of what is not quantised: fp32 would undo much of it
    # on a GPU
    dtype = torch.bfloat16 if precision == "bf16" or (quantized and has_bf16()) else torch.float32
    if quantized:
        kwargs["quantization_config"] = quantization(precision)
    if on_gpu() and "gguf_file" not in kwargs:
        kwargs.setdefault("device_map", {"": own_gpu()})  # not through the host's memory
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **kwargs)
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights at the first evaluation on such a CPU, and from then on computes
        # in bf16 and passes no gradient through them, so that adapters train on a fraction of theirs
        if getattr(module, "support_avx512bf16_for_cpu", False):
            cast(Any, module).support_avx512bf16_for_cpu = False
    return model.eval()


def quantization(precision: Precision):
    """bitsandbytes settings of the Cyber for AI runs: NF4, compute in bf16 on a GPU and fp32 on a CPU."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as e:
        raise SpecError(
            f"precision={precision!r} needs bitsandbytes; install reprolib[quantized] or use fp32."
        ) from e
    import logging

    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it warns in every layer and pass that inputs are rounded
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if has_bf16() else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def peak_memory_bytes() -> int:
    """Peak memory of this process so far: of the GPU where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, str | int | None]:
    """What a record says about the hardware."""
    import platform

    gpu = driver = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        driver = torch.version.cuda
    own: dict[str, str | int | None] = {"gpu": gpu, "cuda": driver, "cpu": cpu_name()}
    own["python"] = platform.python_version()
    if processes() > 1:
        own["ranks"] = f"{processes()}, {'FSDP' if sharded() else 'data parallel'}"
    if on_gpu():
        own |= {"driver": driver_version(), "processes": _whole("REPROLIB_PROCESSES", 1)}
    return own


@functools.lru_cache(maxsize=1)
def driver_version() -> str | None:
    """Of the GPU, as nvidia-smi says it."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None


def cpu_name() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
