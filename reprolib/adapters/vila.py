"""VILA (Improving Fisher Information Estimation and Efficiency for LoRA-based LLM Unlearning, arXiv
2508.21300).

FILA with two changes: the importance is centred (importance.py), and measured on LoRA factors instead of all
weights. Every linear layer but the head gets :math:`A, B \sim N(0, \sigma^2)`, :math:`\sigma = 0.05`, so that
both have gradients; the base is frozen. The maps of the factors are multiplied to weight shape,

.. math::
    F_{BA} = F_B F_A \quad [d_{out}, r] [r, d_{in}], \qquad
    R = \frac{F_{BA,f} / N_f}{10^{-5} + F_{BA,r} / N_r},

the random factors thrown away, and steps 3 to 5 of FILA follow.

Code quirks. (i) Token counts are divided out twice: the variance is a mean already, and the published R
divides by
:math:`N` again, so that the retain term vanishes beside 1e-5 (``tokens_twice`` of ``FisherLoRA``; with a
relative
:math:`\epsilon` it is only a factor :math:`N_r / N_f`). (ii) The variance is one of batch gradients. (iii) It
depends on the draw of A and B: average over two or more. (iv) The random factors stay in the forward pass, so
that the gradients are those of a disturbed model: per output unit the disturbance is about :math:`s \sqrt r
\sigma^2` times the input's norm, 0.014 at rank 8 and s = 2, where weights of 0.02 make the signal 0.02.
``perturb=False`` takes it out again, values and gradients with respect to inputs alike, and leaves the
gradients of the factors at the undisturbed model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from typing import NamedTuple

import torch
from torch import nn

from reprolib.adapters.importance import Maps, frozen, linears, moments
from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError
from reprolib.seeds import derive


class Factors(NamedTuple):
    """``a`` [r, d_in], ``b`` [d_out, r] of one module."""

    a: torch.Tensor
    b: torch.Tensor


def draw(lm: nn.Module, rank: int, sigma: float = 0.05, seed: int = 0) -> dict[str, Factors]:
    """Random factors of every linear layer but the head, i.i.d. N(0, sigma^2), fp32, drawn on the CPU."""
    if rank < 1 or not sigma > 0:
        raise SpecError(
            f"random factors need rank >= 1 and sigma > 0, got rank={rank}, sigma={sigma}; 0 would have no"
            " gradients."
        )
    out = {}
    for name, m in linears(lm).items():
        generator = torch.Generator().manual_seed(derive(seed, name))
        a = sigma * torch.randn(rank, m.in_features, generator=generator)
        b = sigma * torch.randn(m.out_features, rank, generator=generator)
        out[name] = Factors(a.to(m.weight.device), b.to(m.weight.device))
    return out


@contextmanager
def beside(
    lm: nn.Module, factors: Mapping[str, Factors], scaling: float, perturb: bool = True
) -> Iterator[None]:
    """While it lasts, each named layer computes W x + s B A x (minus the same, detached, unless
    ``perturb``).
    """

    def hook(f: Factors):
        def add(module, inputs, output):
            x = inputs[0].to(f.a.dtype)
            extra = (scaling * (x @ f.a.T)) @ f.b.T
            if not perturb:
                extra = extra - (scaling * (x @ f.a.detach().T)) @ f.b.detach().T
            return output + extra.to(output.dtype)

        return add

    layers = linears(lm)
    with ExitStack() as stack:
        for name, f in factors.items():
            stack.callback(layers[name].register_forward_hook(hook(f)).remove)
        yield


def importance(
    lm: nn.Module,
    tokens: Tokens,
    rows: Sequence[int],
    factors: Mapping[str, Factors],
    *,
    scaling: float = 2.0,
    batch_size: int = 4,
    centred: bool = True,
    perturb: bool = True,
) -> Maps:
    """Importance of the factors: "MODULE.a" -> F_A [r, d_in], "MODULE.b" -> F_B [d_out, r]. ``lm`` is left as
    it was.
    """
    leaves = {
        f"{n}.{k}": t.detach().requires_grad_(True)
        for n, f in factors.items()
        for k, t in f._asdict().items()
    }
    live = {n: Factors(leaves[f"{n}.a"], leaves[f"{n}.b"]) for n in factors}
    with frozen(lm), beside(lm, live, scaling, perturb):
        return moments(lm, leaves, tokens, rows, batch_size=batch_size, centred=centred)


def lift(draws: Sequence[Maps], module: str) -> torch.Tensor:
    """:math:`F_{BA} = F_B F_A` of a module, averaged over draws: [d_out, d_in]."""
    products = (m.values[f"{module}.b"] @ m.values[f"{module}.a"] for m in draws)
    return reduce(torch.add, products) / len(draws)
