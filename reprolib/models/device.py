"""Where and in what precision a model computes: decided here and nowhere else.

fp32 weights always (bf16 AdamW updates at unlearning's learning rates are lost to rounding), with bf16
autocast on a GPU that has it. On a CPU everything is fp32: bf16 is many times slower there.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from reprolib.errors import SpecError, unknown

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Precision = Literal["fp32", "bf16", "nf4", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "nf4", "int8")


def accelerator() -> Accelerator:
    """`accelerate`'s view of this machine; CUDA with bf16 autocast where there is one, else the CPU in fp32.

    REPROLIB_DEVICE=cpu keeps a run off the GPU.
    """
    from accelerate import Accelerator

    cpu = os.environ.get("REPROLIB_DEVICE", "") == "cpu" or not torch.cuda.is_available()
    bf16 = not cpu and torch.cuda.is_bf16_supported()
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")


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


def load_lm(path: str, precision: Precision = "fp32", **kwargs) -> nn.Module:
    """A causal LM from a local folder or the hub, its weights in ``precision``.

    "fp32" and "bf16" are trainable in full; "nf4" and "int8" are bitsandbytes bases (4-bit NormalFloat,
    LLM.int8) that only adapters can train on. Works on a CPU too.
    """
    from transformers import AutoModelForCausalLM

    if precision not in PRECISIONS:
        raise SpecError(unknown("precision", precision, PRECISIONS))
    quiet()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if precision in ("nf4", "int8"):
        kwargs["quantization_config"] = quantization(precision)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **kwargs)
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights at the first evaluation on such a CPU, and from then on computes in bf16
        # and passes no gradient through them, so that adapters train on a fraction of theirs
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def quantization(precision: Precision):
    """bitsandbytes settings of the Cyber for AI runs: NF4, compute in bf16 on a GPU and fp32 on a CPU."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as e:
        raise SpecError(f"precision={precision!r} needs bitsandbytes; install reprolib[quantized] or use fp32.") from e
    import logging

    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every layer and pass that inputs are rounded
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def peak_memory_bytes() -> int:
    """Peak memory of this process so far: of the GPU where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, str | None]:
    """What a record says about the hardware."""
    import platform

    gpu = driver = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        driver = torch.version.cuda
    return {"gpu": gpu, "cuda": driver, "cpu": cpu_name(), "python": platform.python_version()}


def cpu_name() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
