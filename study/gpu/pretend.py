"""A CUDA device that is not there: the code paths of a GPU on a machine without one.

Tensors say that they lie on ``cuda:0`` and are computed by the CPU. What a GPU refuses is refused: tensors of
two devices in one operation, ``numpy()`` of the GPU's memory, a CPU's random generator for the GPU's numbers.
What is different there happens: bf16 autocast, with the operations that CUDA's list keeps in fp32; the fused
optimizer; weights loaded straight to the device; and ``torch.cuda`` counts the bytes of the tensors alive,
block by block of 512.

What it cannot show: CUDA's own kernels (their speed, rounding, workspaces and errors), the caching allocator,
streams. To autograd and to torch's C++ the tensors are the CPU's, so that what C++ asks of a device is
answered as for a CPU.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from study.gpu.counted import hollowed, memory, nothing

NAME, BYTES = "pretended GPU (a CPU)", 141 << 30
HERE = torch.device("cuda", 0)
aten = torch.ops.aten

# operations that autocast on CUDA computes in fp32 where the CPU's autocast has no opinion (torch.amp's
# documentation)
IN_FP32 = {
    "__pow__", "__rpow__", "__rdiv__", "__rtruediv__", "acos", "asin", "binary_cross_entropy_with_logits",
    "cdist", "cosh", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "cumprod", "cumsum",
    "dist", "erfinv", "exp", "expm1", "group_norm", "hinge_embedding_loss", "kl_div", "l1_loss",
    "layer_norm", "log", "log10", "log1p", "log2", "log_softmax", "margin_ranking_loss", "mse_loss",
    "multilabel_margin_loss", "nll_loss", "norm", "normalize", "pdist", "poisson_nll_loss", "pow", "prod",
    "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin",
    "softplus", "sum", "tan", "triplet_margin_loss",
}  # fmt: skip

HALF = (torch.bfloat16, torch.float16)

# operations that take tensors of two devices on a GPU as well
ACROSS = {
    "copy_",
    "_to_copy",
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
    "_foreach_copy_",
    "_unsafe_index",
}


class OnGPU(torch.Tensor):
    """A tensor whose numbers lie in ``inner``, a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGPU:
        own = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="cpu",
        )
        own.inner = inner
        memory.count(inner)
        return own

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: HERE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {HERE}"

    def __deepcopy__(self, memo: dict) -> OnGPU:
        if id(self) not in memo:
            own = memo[id(self)] = OnGPU.__new__(type(self), self.inner.clone())
            own.__dict__ |= {k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k != "inner"}
            own.requires_grad_(self.requires_grad)
        return memo[id(self)]


@functools.lru_cache(maxsize=64)
def on_gpu(kind: type) -> type:
    """A kind of parameter, lying on the GPU."""
    return kind if issubclass(kind, OnGPU) else type(kind.__name__, (kind, OnGPU), {})


def put(parameter: torch.Tensor, value: OnGPU) -> None:
    """``parameter.data = value``, the object staying the one that modules, optimizers and tied weights
    know.
    """
    set_data(parameter, value)
    parameter.__class__ = on_gpu(type(parameter))
    parameter.inner = value.inner


def made_of(kind: type, data: torch.Tensor, requires_grad: bool = False, **more: Any) -> torch.Tensor:
    """A parameter of a kind of its own, as quantised weights are, made of a tensor."""
    if not isinstance(data, OnGPU):
        return make_subclass(kind, data, requires_grad, **more)
    return OnGPU.__new__(on_gpu(kind), data.inner).requires_grad_(requires_grad)


make_subclass = torch.Tensor._make_subclass
set_data: Callable = torch.Tensor.data.__set__  # type: ignore[attr-defined]


def refused(function, tensors: list[torch.Tensor]) -> None:
    name = function._schema.name.partition("::")[2]
    apart = {str(t.device) for t in tensors if isinstance(t, OnGPU) or t.dim()}
    if (
        len(apart) > 1
        and not (name in ACROSS and isinstance(tensors[0], OnGPU))
        and name not in ("copy_", "_to_copy")
    ):
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices in {name}:"
            f" {shapes}"
        )


downloading = hollow = differentiating = False


def dispatch(function, args: tuple, kwargs: dict[str, Any]):
    """Below autograd and autocast: on the tensors of the CPU, and the results are the GPU's where they would
    be.
    """
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in given if isinstance(t, OnGPU)]
    asked = kwargs.get("device")
    there = asked is not None and torch.device(asked).type == "cuda"
    backward = differentiating and torch._C._current_graph_task_id() != -1  # what it makes lies there too
    if not (ours or there or backward):
        return function(*args, **kwargs)
    if ours and not backward:
        refused(function, given)
    if there and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnGPU, lambda t: t.inner, (args, kwargs))
    out = hollowed(function, args, kwargs) if hollow else function(*args, **kwargs)
    if downloading:
        return nothing(out) if out.is_meta else out
    if (
        given
        and not isinstance(given[0], OnGPU)
        and function in (aten.copy_.default, aten._foreach_copy_.default)
    ):
        return given[0]
    whose = {id(t.inner): t for t in ours}
    return tree_map_only(torch.Tensor, lambda t: whose[id(t)] if id(t) in whose else OnGPU(t), out)


class Below(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def download(x: torch.Tensor) -> torch.Tensor:
    global downloading
    downloading = True
    try:
        return aten._to_copy.default(x)
    finally:
        downloading = False


def target(value: Any) -> torch.device | None:
    """The device that an argument names."""
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str):
        return torch.device(value)
    return torch.device("cuda", value) if isinstance(value, int) and not isinstance(value, bool) else None


def moved(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``Tensor.to``, where either side may be the GPU."""
    to, left = (
        None,
        {
            k: v
            for k, v in kwargs.items()
            if k in ("dtype", "copy", "memory_format") and v not in (None, False)
        },
    )
    for value in (*args[:2], kwargs.get("device"), kwargs.get("other")):
        if isinstance(value, torch.Tensor):
            to, left["dtype"] = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            left["dtype"] = value
        elif value is not None and not isinstance(value, bool):
            to = target(value)
    if to is not None and to.type == "cuda" and not isinstance(x, OnGPU):
        return plain_to(x, HERE, **left)
    if to is not None and to.type not in ("cpu", "cuda"):
        return plain_to(x, to, **left)
    if left:
        x = plain_to(x, **left)
    return download(x) if to is not None and to.type == "cpu" and isinstance(x, OnGPU) else x


plain_to = torch.Tensor.to


def differentiated(function, args: tuple, kwargs: dict[str, Any]):
    global differentiating
    before, differentiating = differentiating, any(isinstance(t, OnGPU) for t in tree_leaves(args))
    try:
        return function(*args, **kwargs)
    finally:
        differentiating = before


class Above(TorchFunctionMode):
    """What Python asks of tensors, before autograd sees it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        first = args[0] if args else None
        if function in (torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad):
            return differentiated(function, args, kwargs)
        if function is torch.Tensor.to:
            return moved(*args, **kwargs)
        if function is torch.Tensor.cpu:
            return moved(first, "cpu")
        if function is torch.Tensor.cuda:
            return moved(first, HERE)
        if name == "__set__" and len(args) == 2 and isinstance(args[1], OnGPU) and function == set_data:
            return put(*args)
        if isinstance(first, OnGPU):
            if function is torch.Tensor.numpy or function is torch.Tensor.__array__:
                raise TypeError(
                    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the"
                    " host first."
                )
            if name in ("untyped_storage", "storage", "data_ptr"):
                return function(first.inner)
            if function is torch.Tensor.tolist:
                return download(first).tolist()
            if function in (torch.Tensor.__repr__, torch.Tensor.__format__) and first.dim():
                return repr(first)
        if "device" in kwargs and (to := target(kwargs["device"])) is not None and to.type == "cuda":
            if function in (torch.tensor, torch.as_tensor, torch.asarray):  # made below the modes
                made = (
                    first
                    if isinstance(first, torch.Tensor)
                    else function(*args, **{**kwargs, "device": "cpu"})
                )
                return moved(made, HERE, dtype=kwargs.get("dtype"))
            kwargs = {**kwargs, "device": HERE}
        if name in IN_FP32 and torch.is_autocast_enabled("cpu") and isinstance(first, OnGPU):
            args, kwargs = tree_map_only(OnGPU, lambda t: t.float() if t.dtype in HALF else t, (args, kwargs))
        return function(*args, **kwargs)


def install(without_numbers: bool = False) -> None:
    """From here on this process has a GPU.

    ``without_numbers``: large tensors are hollow, so that memory is counted for models of any size.
    """
    global hollow
    hollow = without_numbers
    with contextlib.suppress(ImportError):  # takes its kernels for a GPU, or the CPU's, once
        import bitsandbytes  # noqa: F401
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # modes are a thread's own
    torch._C._set_autograd_fallback_mode("nothing")
    answer_for_the_gpu()
    for kinds in (optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types):
        kinds.extend(k for k in (OnGPU, on_gpu(nn.Parameter)) if k not in kinds)
    cast_as_the_cpu()
    torch.Tensor._make_subclass = staticmethod(made_of)  # type: ignore[assignment]
    Below().__enter__()
    Above().__enter__()


def answer_for_the_gpu() -> None:
    """What torch.cuda says of the device and its memory, and what it is asked to do in vain."""
    answers = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "is_bf16_supported": True,
        "get_device_name": NAME,
        "get_device_properties": SimpleNamespace(
            name=NAME, total_memory=BYTES, multi_processor_count=132, major=9, minor=0
        ),
        "get_device_capability": (9, 0),
        "is_current_stream_capturing": False,
    }
    in_vain = "_lazy_init _lazy_call synchronize set_device empty_cache manual_seed manual_seed_all"
    for asked, answer in (answers | dict.fromkeys(in_vain.split())).items():
        setattr(torch.cuda, asked, lambda *_, answer=answer, **__: answer)
    torch.cuda.get_rng_state = lambda *_, **__: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    torch.cuda.memory_allocated = torch.cuda.memory_reserved = lambda *_: memory.allocated
    torch.cuda.max_memory_allocated = torch.cuda.max_memory_reserved = lambda *_: memory.peak
    torch.cuda.reset_peak_memory_stats = lambda *_: setattr(memory, "peak", memory.allocated)
    torch.cuda.mem_get_info = lambda *_: (BYTES - memory.allocated, BYTES)


def cast_as_the_cpu() -> None:
    """Autocast for a GPU is the CPU's: to C++ the tensors are the CPU's."""
    autocast = torch.amp.autocast_mode.autocast
    begin, enabled, dtype = autocast.__init__, torch.is_autocast_enabled, torch.get_autocast_dtype

    def stand_in(name: Any) -> str:
        return "cpu" if str(name).startswith("cuda") else name

    def init(self, device_type, dtype=None, *args, **kwargs):
        usual = torch.float16 if device_type == "cuda" else None
        begin(self, stand_in(device_type), dtype or usual, *args, **kwargs)

    autocast.__init__ = init  # type: ignore[method-assign]
    torch.is_autocast_enabled = lambda device="cuda": enabled(stand_in(device))
    torch.get_autocast_dtype = lambda device: dtype(stand_in(device))
