"""Estimates of the diagonal of a curvature matrix, one tensor a parameter, in the parameter's shape.

All are in nats per weight squared, for losses that are *means*. All leave ``p.grad`` untouched, sum over the
micro-batches of the step before anything is squared, and draw what they draw from a generator made of (seed,
step): how a step is cut into micro-batches does not matter, and an interrupted run draws the same numbers
again. Gradients are those of this process; nothing is exchanged between several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from reprolib.corpus.batching import Batch, Tokens, buckets, collate
from reprolib.errors import SpecError, unknown
from reprolib.optim.base import Moment, check_count, precise
from reprolib.seeds import derive

Batching = Literal["per_sample", "minibatch"]
BATCHINGS = ("per_sample", "minibatch")


def gauss_newton_bartlett(moment: Moment, tokens: float | None = None) -> list[torch.Tensor]:
    r"""Gauss-Newton-Bartlett estimate of the diagonal of the Gauss-Newton matrix (Sophia-G).

    .. math::

        \hat y_b \sim p_\theta(\cdot \mid b), \qquad
        \hat g = \nabla_\theta \frac1B \sum_{b=1}^{B} -\log p_\theta(\hat y_b \mid b), \qquad
        \hat h = B\, \hat g \odot \hat g

    over the B labelled tokens of the whole step: forget and retain rows and their other answers alike. Labels
    drawn from the model make the B gradients independent with mean zero, so that the square of their *mean*
    has the expectation of one square divided by B; the factor B undoes that, and :math:`E\hat h` is the
    diagonal of the Gauss-Newton matrix of the mean loss. It is the curvature of the likelihood on these rows
    whatever the objective does with them (the objective of an ascent has a concave part, which no such
    estimate sees), so it is never negative.

    ``tokens`` replaces the factor B (not the mean) by a fixed number; see :class:`reprolib.optim.Sophia`.
    Source: Liu et al. 2024 (arXiv 2305.14342), algorithm 2.
    """
    batches = list(_rows(moment))
    sizes = [int(b.predict.sum()) for b in batches]
    total = sum(sizes)
    uniforms = torch.rand(total, generator=_generator(moment, "gauss-newton")).split(sizes)
    mean = _zeros(moment.parameters)
    for batch, uniform in zip(batches, uniforms, strict=True):
        logits = moment.policy(batch).logits.float()
        labels = sample(logits.detach(), uniform.to(logits.device))
        _add(mean, _gradient(F.cross_entropy(logits, labels, reduction="sum") / total, moment.parameters))
    factor = total if tokens is None else tokens
    return [g.square_().mul_(factor) for g in mean]


def hutchinson(moment: Moment) -> list[torch.Tensor]:
    r"""Hutchinson's estimate of the diagonal of the Hessian of the step's whole objective (Sophia-H).

    .. math:: u \sim \mathcal N(0, I), \qquad \hat h = u \odot (\nabla^2_\theta \mathcal L\; u)

    One draw, one Hessian-vector product by double backward, summed over the micro-batches; needs about twice
    the memory of a step. :math:`E\hat h` is the exact diagonal; a single draw can be negative even where that
    is positive, and where an objective ascends it often is. No token factor belongs to it: the Hessian of a
    mean is a mean.

    Source: Liu et al. 2024 (arXiv 2305.14342), algorithm 1; Hutchinson 1989.
    """
    generator = _generator(moment, "hutchinson")
    directions = [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) for p in moment.parameters]
    product = _zeros(moment.parameters)
    for batch in moment.batches:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no double backward
            total = moment.objective(moment.policy, moment.references, batch, moment.retain_weight).total
            first = _gradient(total, moment.parameters, create_graph=True)
            slope = sum((g * u).sum() for g, u in zip(first, directions, strict=True) if g is not None)
            if (
                isinstance(slope, torch.Tensor) and slope.requires_grad
            ):  # a loss linear in the weights has no curvature
                _add(product, _gradient(slope, moment.parameters))
    return [h.mul_(u) for h, u in zip(product, directions, strict=True)]


def empirical(moment: Moment, tokens: float | None = None) -> list[torch.Tensor]:
    r"""Squared gradient of the step itself, :math:`\hat h = B\, g \odot g`, as SOUL's released code has it.

    ``g`` is what stands in ``p.grad``: of the *unlearning* objective, with the labels of the data, and
    clipped. B is the number of labelled tokens of the step, or ``tokens``. Costs nothing. Unlike with sampled
    labels the gradients have no mean of zero, so it measures the gradient more than any curvature: far from a
    minimum it grows with B.

    Source: Jia et al. 2024 (SOUL, arXiv 2404.18239), released code.
    """
    factor = sum(int(b.predict.sum()) for b in _rows(moment)) if tokens is None else tokens
    squares = _zeros(moment.parameters)
    for total, p in zip(squares, moment.parameters, strict=True):
        if p.grad is not None:
            total.addcmul_(p.grad, p.grad, value=factor)
    return squares


def diagonal_fisher(
    policy: nn.Module,
    tokens: Tokens,
    parameters: Sequence[nn.Parameter],
    batching: Batching = "per_sample",
    rows: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> list[torch.Tensor]:
    r"""Diagonal of the empirical Fisher matrix on ``rows`` rows of ``tokens`` (all by default).

    .. math::

        F_{ii} = \frac1n \sum_{z=1}^{n} \Big(\partial_i\, \bar\ell_z\Big)^2, \qquad
        \bar\ell_z = -\frac1{T_z} \sum_{t=1}^{T_z} \log p_\theta(y_t \mid x, y_{<t})

    :math:`\bar\ell_z` is the mean over the labelled tokens of row z, in nats. ``batching="per_sample"`` is
    this. "minibatch", which released codes often compute instead, squares the gradient of the mean of
    :math:`\bar\ell_z` over ``batch_size`` rows (a short last batch counts by its rows): where gradients of
    rows are independent it is smaller by that factor. With ``batch_size=1`` both are the same. Without
    dropout; n backward passes.

    Source: LIBU (arXiv 2506.04044), equation of phase 1, there over the retain set.
    """
    if batching not in BATCHINGS:
        raise SpecError(unknown("Fisher batching", batching, BATCHINGS))
    check_count("diagonal_fisher", batch_size=batch_size, **({} if rows is None else {"rows": rows}))
    if not len(tokens):
        raise SpecError("diagonal_fisher: there are no rows to measure on; give the stage retain rows.")
    order = torch.randperm(
        len(tokens), generator=torch.Generator().manual_seed(derive(seed, "fisher-rows"))
    ).tolist()
    chosen = order[: None if rows is None else int(rows)]  # more rows than there are: all
    size = 1 if batching == "per_sample" else int(batch_size)
    device = parameters[0].device
    fisher = _zeros(parameters)
    was_training = policy.training
    policy.eval()
    try:
        for first in range(0, len(chosen), size):
            batch = chosen[first : first + size]
            mean = _zeros(parameters)
            for part in buckets(tokens, batch, 4096):
                scored = policy(collate(tokens, part).to(device))
                lengths = torch.tensor([tokens.n_labels(i) for i in part], device=device)
                row_means = -scored.sequence_logp / lengths
                _add(mean, _gradient(row_means.sum() / len(batch), parameters))
            for total, g in zip(fisher, mean, strict=True):
                total.addcmul_(g, g, value=len(batch) / len(chosen))
    finally:
        policy.train(was_training)
    return fisher


def sample(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """One label a row from softmax(logits) by inversion: [N, V] and [N] numbers in [0, 1) -> [N]."""
    cumulated = torch.softmax(logits.float(), dim=-1).cumsum(-1)
    at = (uniform.to(cumulated.dtype) * cumulated[:, -1])[:, None]
    return torch.searchsorted(cumulated, at, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)


def _rows(moment: Moment) -> Iterator[Batch]:
    """Every batch of rows that the step's objective can read, in the order of the micro-batches."""
    for micro in moment.batches:
        for rows in (micro.forget, micro.retain):
            if rows is not None:
                yield rows
                if rows.other is not None:
                    yield rows.other


def _generator(moment: Moment, purpose: str) -> torch.Generator:
    """On the CPU, so that every machine draws the same numbers."""
    return torch.Generator().manual_seed(derive(moment.seed, "curvature", purpose, moment.step))


def _gradient(loss: torch.Tensor, parameters: Sequence[nn.Parameter], create_graph: bool = False):
    return torch.autograd.grad(loss, parameters, create_graph=create_graph, allow_unused=True)


def _zeros(parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    return [torch.zeros_like(p, dtype=precise(p), requires_grad=False) for p in parameters]


def _add(totals: Sequence[torch.Tensor], parts: Sequence[torch.Tensor | None]) -> None:
    for total, part in zip(totals, parts, strict=True):
        if part is not None:
            total.add_(part.detach())
