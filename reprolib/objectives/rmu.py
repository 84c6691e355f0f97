"""Representation misdirection for unlearning (RMU): push hidden states of the forget set to a random
direction.

.. math::

    \mathcal L_f = \mathbb E_t\, \tfrac1D \big\| h^{(l)}_{\theta,t} - c\, u \big\|^2,
    \qquad
    \mathcal L_r = \mathbb E_t\, \tfrac1D \big\| h^{(l)}_{\theta,t} - h^{(l)}_{\theta_0,t} \big\|^2,
    \qquad u = \frac{r}{\|r\|},\; r \sim U[0, 1)^D

Symbols: :math:`h^{(l)}_t` the output of transformer block l (from 0) at an answer position, D its width, u a
unit vector drawn once from a seed, c its length. In squared activations, means over answer tokens; 0 is the
aim of both. Adaptive RMU takes
:math:`c\,\|h^{(l)}_{\theta_0,t}\|` in the place of c, so that one c fits every layer.

The paper writes the squared norm, a *sum* over the D activations; its code calls ``mse_loss``, their *mean*,
and so does this file: the published c, retain weight and learning rate belong to the code. The two differ by
the factor D in both terms, which Adam does not feel, but gradient clipping and a retain term that is no
hidden-state distance (NLL) do. The code averages over all tokens (prompt and padding too), open-unlearning
over answer tokens row by row; here over the answer tokens of the step. The adaptive code fixes one
coefficient from the first batch's mean norm; here every token has its own, as the paper's equation.

Sources: Li et al. 2024 (WMDP, arXiv 2403.03218); adaptive: Huu-Tien et al. 2024 (arXiv 2408.06223).
Published: zephyr-7b, l = 7, c = 6.5, retain weight 1200, only the MLP's down-projections of blocks 5 to 7;
adaptive: c = 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from reprolib.errors import SpecError
from reprolib.objectives.base import Term
from reprolib.seeds import derive


def direction(size: int, seed: int) -> torch.Tensor:
    """A unit vector of ``size`` uniform [0, 1) numbers, the same on every device and at every call: [D],
    fp32.
    """
    u = torch.rand(size, generator=torch.Generator().manual_seed(derive(seed, "rmu", "direction")))
    return u / u.norm()


def squared_distance(hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the D activations of the squared difference, per position: [N, D] x [N, D] or [D] -> [N]."""
    return (hidden.float() - target.float()).square().mean(-1)


def misdirection(
    hidden: torch.Tensor, u: torch.Tensor, c: float, start: torch.Tensor | None = None
) -> torch.Tensor:
    """RMU's forget loss per position: [N, D], [D] -> [N]. With the ``start``'s hidden states [N, D]: adaptive
    RMU.
    """
    length = c if start is None else c * start.float().norm(dim=-1, keepdim=True)
    return squared_distance(hidden, length * u)


def _check_layer(name: str, layer: int) -> None:
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise SpecError(
            f"{name}: layer is the number of a transformer block, a whole number >= 0, got {layer!r}."
        )


@dataclass(frozen=True, slots=True)
class Misdirect(Term):
    """Forget term. ``layer``: block whose output is moved; ``c``: length of the target (in norms of the start
    if ``adaptive``).
    """

    layer: int = field()
    c: float = 6.5
    adaptive: bool = False
    seed: int = 0
    unit: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        _check_layer("Misdirect", self.layer)
        if not 0 < self.c < math.inf:
            raise SpecError(
                f"Misdirect: c must be a finite number > 0, got {self.c}; the paper uses 6.5 (adaptive: 5)."
            )
        if not isinstance(self.adaptive, bool):
            raise SpecError(f"Misdirect: adaptive must be true or false, got {self.adaptive!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SpecError(f"Misdirect: seed must be a whole number >= 0, got {self.seed!r}.")

    @property
    def needs(self) -> str | None:
        return "hidden" if self.adaptive else None

    def values(self, policy, rows, sources):
        hidden = policy(rows, layer=self.layer)
        start = sources.own.on(policy, rows).hidden(rows.index) if self.adaptive else None
        return misdirection(hidden, direction(hidden.shape[-1], self.seed).to(hidden.device), self.c, start)


@dataclass(frozen=True, slots=True)
class Anchor(Term):
    """Retain term. Holds the output of block ``layer`` where it was before unlearning."""

    layer: int = field()
    unit: ClassVar[str] = "token"
    needs: ClassVar[str | None] = "hidden"

    def __post_init__(self) -> None:
        _check_layer("Anchor", self.layer)

    def values(self, policy, rows, sources):
        return squared_distance(
            policy(rows, layer=self.layer), sources.own.on(policy, rows).hidden(rows.index)
        )
