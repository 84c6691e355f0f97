"""Importance of weights for a set of rows, from the gradients of its batches.

For batch :math:`b` of :math:`n_b` labelled tokens with gradient :math:`g_b` of the *mean* NLL over them (nats
per token), elementwise, :math:`N=\sum_b n_b`:

.. math::
    F = \tfrac1N \sum_b n_b g_b^2 \quad\text{(uncentred; FILA, LoKU, arXiv 2408.06621)}

    F = \max\Big(0,\ \tfrac1N \sum_b n_b g_b^2 - \big(\tfrac1N \sum_b n_b g_b\big)^2\Big)
    \quad\text{(centred; VILA, arXiv 2508.21300)}

VILA's reason: Fisher information is the *variance* of the score, and equals its mean square only where its
mean is 0, which holds over the distribution that the model was fitted to, not on a subset such as the forget
rows.

Traps. ``g_b`` is a batch mean: both maps shrink as batches grow (``batch_size=1`` gives the row-wise ones),
and the centred one is 0 if there is one batch only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from reprolib.corpus.batching import Tokens, collate
from reprolib.errors import SpecError, unknown
from reprolib.models.policy import Policy, causal_lm
from reprolib.seeds import derive

EPS = {
    "absolute": 1e-5,
    "relative": 1e-2,
}  # what is added to the retain importance; relative: times its mean


@dataclass(frozen=True, slots=True)
class Maps:
    """Importance on one set of rows. ``values``: of each tensor, in its shape, in (nats per token / unit of
    weight)^2.
    """

    values: dict[str, torch.Tensor]
    tokens: int  # labelled tokens seen, N
    nll: float  # their mean NLL in nats, of the model as the gradients saw it


def linears(lm: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer of a transformers model but its output head, by name."""
    head = causal_lm(lm).get_output_embeddings()
    found = {n: m for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not head}
    if not found:
        raise SpecError(
            f"this {causal_lm(lm).config.model_type!r} model has no nn.Linear beside its head, so nothing can"
            " be localised in it; use a model such as OLMo, Llama or Qwen, or another trainable."
        )
    return found


def paired_rows(n_forget: int, n_retain: int, seed: int) -> tuple[list[int], list[int]]:
    """All forget rows, and as many retain rows (all, if there are fewer), both in a shuffled order of the
    seed.

    So the papers' loaders do: each forget batch comes with a retain batch.
    """

    def shuffled(side: str, n: int) -> list[int]:
        return torch.randperm(
            n, generator=torch.Generator().manual_seed(derive(seed, "importance", side))
        ).tolist()

    return shuffled("forget", n_forget), shuffled("retain", n_retain)[:n_forget]


@contextmanager
def frozen(lm: nn.Module) -> Iterator[None]:
    """No dropout and no weight that asks for gradients; both as before afterwards."""
    flags = [(p, p.requires_grad) for p in lm.parameters()]
    modes = [(m, m.training) for m in lm.modules()]
    lm.eval().requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
        for m, mode in modes:
            m.training = mode


def moments(
    lm: nn.Module,
    leaves: Mapping[str, torch.Tensor],
    tokens: Tokens,
    rows: Sequence[int],
    *,
    batch_size: int,
    centred: bool,
) -> Maps:
    r"""One forward and backward pass over ``rows``: :math:`F` (module docstring) of each of ``leaves``, in
    fp32.

    ``leaves``: the tensors that get gradients. The centred map is summed up around a running mean (West
    1979), the same number without subtracting two nearly equal ones: exactly 0 where all batches have the
    same gradient, never below.
    """
    if not rows:
        raise SpecError("importance needs at least one row on each side; got none.")
    if centred and len(rows) <= batch_size:
        raise SpecError(
            f"centred importance is a variance between batches and needs two; {len(rows)} rows make one"
            f" batch of up to {batch_size}. Use a smaller batch_size (recipes call it importance_batch),"
            " or centred=False."
        )
    policy = Policy(lm)
    names, tensors = list(leaves), list(leaves.values())
    square = {n: torch.zeros_like(t, dtype=torch.float32) for n, t in leaves.items()}
    mean = {n: torch.zeros_like(t, dtype=torch.float32) for n, t in leaves.items()} if centred else {}
    total, nll = 0, 0.0
    for first in range(0, len(rows), batch_size):
        scored = policy(collate(tokens, rows[first : first + batch_size]).to(policy.device))
        n = len(scored.labels)
        loss = -scored.token_logp.mean()
        gradients = torch.autograd.grad(loss, tensors, materialize_grads=True)
        total, nll = total + n, nll + n * loss.item()
        for name, g in zip(names, gradients, strict=True):
            g = g.float()
            if centred:
                g = g - mean[name]
                mean[name].add_(g, alpha=n / total)
                square[name].addcmul_(g, g, value=n * (1 - n / total))
            else:
                square[name].addcmul_(g, g, value=n)
        del gradients
    if not math.isfinite(nll):
        raise SpecError(
            "the loss of the rows whose importance is measured is not finite; the model is broken, or"
            " sigma too large."
        )
    return Maps({n: s.div_(total) for n, s in square.items()}, total, nll / total)


def ratio(
    forget: torch.Tensor, retain: torch.Tensor, eps: str = "relative", eps_value: float | None = None
) -> torch.Tensor:
    r""":math:`R = F_f / (\epsilon + F_r)` of one module, [d_out, d_in].

    "absolute": :math:`\epsilon` = ``eps_value``, 1e-5 as published. Where mean :math:`F_r` is far smaller
    than that R is forget importance alone. So it is for full gradients: a mean of 4e-9 to 6e-9 on the targets
    of tiny/synthetic, where rows have the same order as by :math:`F_f` (Spearman above 0.999 in every
    module), and about 1e-10 by an estimate at 7B. "relative" (default):
    :math:`\epsilon` = ``eps_value`` x mean(:math:`F_r`), 1e-2 by default, which keeps the retain side in it
    at any scale.
    """
    if eps not in EPS:
        raise SpecError(unknown("eps", eps, EPS))
    value = EPS[eps] if eps_value is None else eps_value
    if eps == "relative":
        value = value * float(retain.double().mean())
    if not value > 0:
        raise SpecError(
            f"eps={eps!r} of {eps_value} adds {value} to the retain importance, which must be > 0: no"
            " retain row has a gradient in some module. Use eps='absolute' with a positive eps_value."
        )
    return forget / (value + retain)


def row_importance(r: torch.Tensor) -> torch.Tensor:
    r""":math:`\rho_i = \sqrt{\sum_j R_{ij}}`, one value per output unit: [d_out, d_in] -> [d_out],
    float64.
    """
    return r.double().sum(dim=1).sqrt()
