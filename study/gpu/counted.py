"""What the pretended GPU holds: bytes of the tensors alive, and tensors that have a size but no numbers."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

BLOCK = 512  # bytes that a GPU's memory is given out by


class Memory:
    """Bytes of the pretended GPU: of tensors alive, and the most there were."""

    def __init__(self) -> None:
        self.allocated = self.peak = 0
        self.known: dict[int, Any] = {}

    def count(self, inner: torch.Tensor) -> None:
        storage = inner.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.allocated += size
        self.peak = max(self.peak, self.allocated)

        def gone(_, key=key, size=size) -> None:
            self.known.pop(key, None)
            self.allocated -= size

        self.known[key] = weakref.ref(storage, gone)


memory = Memory()
SMALL = 4096  # numbers: hollow tensors have more


def hollowed(function, args: tuple, kwargs: dict[str, Any]):
    """The same for tensors without numbers: large ones of floating point have a size and a type and nothing
    else.

    What control flow hangs on (whole numbers, truth values) is kept; where it would follow from numbers that
    are not there it is zeros, and true.
    """
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    name = function._schema.name.partition("::")[2]
    if not any(t.is_meta for t in given):
        if not given or name == "_to_copy":  # made there, or brought there
            made = function(
                *tree_map_only(torch.Tensor, meta, args), **{**kwargs, "device": torch.device("meta")}
            )
            if made.is_floating_point() and made.numel() > SMALL:
                return made
        return function(*args, **kwargs)
    if name == "_local_scalar_dense":
        return 1.0
    if name == "copy_" and not args[0].is_meta:
        return args[0]
    if name in UNSIZED:
        return UNSIZED[name](*args, **kwargs)
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        places = []
        for x in args[1]:
            places += [x] if x is None or x.dtype != torch.bool else x.nonzero().unbind(1)
        args = (args[0], places, *args[2:])
    real = {}

    def bare(t: torch.Tensor) -> torch.Tensor:
        if t.is_meta:
            return t
        own = meta(t)
        real[id(own)] = (t, own)
        return own

    args, kwargs = tree_map_only(torch.Tensor, bare, (args, kwargs))
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("meta")}
    out = function(*args, **kwargs)

    def filled(t: torch.Tensor) -> torch.Tensor:
        if id(t) in real:
            return real[id(t)][0]
        if t.is_meta and t.dtype in (torch.bool, torch.int64):
            return torch.full(t.shape, t.dtype == torch.bool, dtype=t.dtype)
        return t

    return tree_map_only(torch.Tensor, filled, out)


def quantised_rows(a: torch.Tensor, threshold: float = 0.0):
    return (*torch.ops.bitsandbytes.int8_vectorwise_quant(meta(a))[:2], torch.empty(0, dtype=torch.int64))


def product_of_8_bits(a: torch.Tensor, ca: torch.Tensor, cb: torch.Tensor, *_: Any, **__: Any):
    out = torch.empty(*ca.shape[:-1], cb.shape[0], dtype=a.dtype, device="meta")
    memory.count(out)
    memory.count(torch.empty(out.shape, dtype=torch.int32, device="meta"))  # before it is scaled
    return out, torch.empty(0, dtype=a.dtype)


# operations of bitsandbytes whose sizes hang on which columns hold outliers: here none does
UNSIZED = {"int8_vectorwise_quant": quantised_rows, "int8_mixed_scaled_mm": product_of_8_bits}


def nothing(t: torch.Tensor) -> torch.Tensor:
    """Zeros on the CPU; large ones are a single number seen in all places, since the host may have no room
    for them.
    """
    return (
        torch.zeros((), dtype=t.dtype).expand(t.shape)
        if t.numel() > 1 << 20
        else torch.zeros(t.shape, dtype=t.dtype)
    )


def meta(t: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
