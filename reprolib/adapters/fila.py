"""FILA, Fisher-initialised LoRA (LoKU: Cha et al., ICLR 2025, arXiv 2408.06621).

1. :math:`F_f, F_r`: uncentred importance (importance.py) of *all* weights of the linear layers but the head.
2. :math:`R = F_f / (10^{-5} + F_r)`; row importance :math:`\rho_i = \sqrt{\sum_j R_{ij}}`.
3. Row-weighted truncated SVD :math:`\operatorname{diag}(\rho) W \approx U S V^\top` of rank r.
4. With the LoRA scaling :math:`s = \alpha / r` and :math:`S \leftarrow S / s`:
   :math:`A = \sqrt S V^\top`, :math:`B = \operatorname{diag}(1 / (\rho + 10^{-5})) U \sqrt S`.
5. The base becomes :math:`W^{*} = W - s B A` and is frozen; the function is unchanged until A or B move.

Code quirks. The published absolute 1e-5 of step 2 makes the ratio forget-only (see ``importance.ratio``). The
scale of :math:`\rho` decides how the norm is shared between A and B (:math:`\rho \to c\rho` gives
:math:`\sqrt c A`,
:math:`B / \sqrt c`), hence how fast each moves under Adam: controls must have the same scale (``normalise``).
An adapter is valid only on top of *its* :math:`W^{*}`: saved alone it is worthless, so the library merges
before it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from reprolib.adapters.importance import Maps, frozen, linears, moments
from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

ROW_EPS = 1e-5  # beside rho in step 4


def importance(
    lm: nn.Module, tokens: Tokens, rows: Sequence[int], *, batch_size: int = 4, centred: bool = False
) -> Maps:
    """Importance of every weight of the linear layers but the head: module name -> [d_out, d_in].

    Needs gradients, sums and finished maps in the size of the model. ``rows``: which of ``tokens``, in
    batching order.
    """
    with frozen(lm):
        leaves = {n: m.weight.requires_grad_(True) for n, m in linears(lm).items()}
        return moments(lm, leaves, tokens, rows, batch_size=batch_size, centred=centred)


def row_weighted_factors(
    weight: torch.Tensor,
    rho: torch.Tensor,
    rank: int,
    scaling: float,
    seed: int = 0,
    exact_up_to: int = 2048,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps 3 and 4: ``weight`` [d_out, d_in], ``rho`` [d_out] -> A [rank, d_in], B [d_out, rank], in
    float64.

    In float64, since B divides by rho, whose rows can be orders of magnitude apart. The SVD is exact where
    the smaller dimension is at most ``exact_up_to``, else randomised (4 power iterations, 16 extra
    directions) with draws of ``seed``.
    """
    if rho.shape != weight.shape[:1]:
        raise SpecError(
            f"rho has shape {tuple(rho.shape)}, but a weight of shape {tuple(weight.shape)} has"
            f" {len(weight)} rows."
        )
    if not 1 <= rank <= min(weight.shape):
        raise SpecError(
            f"rank must lie in 1..{min(weight.shape)} for a weight of shape {tuple(weight.shape)}, got"
            f" {rank}."
        )
    if not (torch.isfinite(rho).all() and (rho >= 0).all()):
        raise SpecError("row importance must be finite and >= 0.")
    rho = rho.to(weight.device, torch.float64)
    weighted = rho[:, None] * weight.detach().double()
    if min(weighted.shape) <= exact_up_to:
        u, s, vt = torch.linalg.svd(weighted, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
            torch.manual_seed(seed)
            u, s, v = torch.svd_lowrank(weighted, q=min(rank + 16, min(weighted.shape)), niter=4)
            vt = v.T
    root = (s[:rank] / scaling).sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root / (rho + ROW_EPS)[:, None]


@torch.no_grad()
def initialise(
    layer: LoraLayer, rho: torch.Tensor, seed: int = 0, adapter: str = "default", exact_up_to: int = 2048
) -> None:
    """Steps 3 to 5 on a peft LoRA layer, in place. The residual base is what rounded A and B leave of the
    weight.
    """
    matrices = (layer.lora_A[adapter], layer.lora_B[adapter], layer.get_base_layer())
    a, b, base = (cast(nn.Linear, m).weight for m in matrices)
    scaling = layer.scaling[adapter]
    new_a, new_b = row_weighted_factors(base, rho, len(a), scaling, seed, exact_up_to)
    a.copy_(new_a)
    b.copy_(new_b)
    base.copy_(base.double() - scaling * (b.double() @ a.double()))
