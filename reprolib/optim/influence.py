"""The first phase of LIBU: a gradient step divided by the diagonal Fisher matrix of the retain set.

.. math::

    \theta \leftarrow \theta - \eta\, w \odot g, \qquad
    w_i = \frac{1}{F_{ii} + \lambda} \;\text{(absolute, as published)}, \qquad
    w_i = \frac{\bar F}{F_{ii} + \lambda \bar F} \;\text{(relative)}

F: :func:`reprolib.optim.curvature.diagonal_fisher` of the retain rows; :math:`\bar F`: its mean over all
trainable weights together. (A mean for each tensor would give every layer the same length of step and so undo
what F says about *which* layers the retain set needs.) g is the gradient of the objective; whether it ascends
is the objective's sign.

Why relative: the mean of F is :math:`E\lVert g\rVert^2 / P`, about 1e-7 to 1e-5 for the gradients and sizes
of adapters, and far less for all weights. Beside the published :math:`\lambda = 10^{-3}` it vanishes: w is
then the constant 1000, the method SGD with a learning rate of :math:`1000\,\eta`. ``weight_spread`` in the
trajectory shows it: below 2 nothing is preconditioned. Relative damping does not change when F is multiplied
by a number; a weight with average F gets :math:`1 / (1 + \lambda)`, one with F = 0 gets :math:`1 / \lambda`.

Where a whole tensor has F = 0 (LoRA's A while its B is zero: no gradient reaches it) nothing was measured.
Published, it gets the largest weight, :math:`1 / \lambda`, at its first gradient. Relative damping gives it 1
and leaves it out of the mean.

Source: LIBU (arXiv 2506.04044), phase 1; the text of the paper was not to be had, only notes on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reprolib.errors import SpecError, unknown
from reprolib.optim.base import (
    Curved,
    Moment,
    Optimizer,
    check_count,
    check_positive,
    check_settings,
    precise,
    quantiles,
)
from reprolib.optim.curvature import BATCHINGS, Batching, diagonal_fisher
from reprolib.seeds import derive

Damping = Literal["relative", "absolute"]
DAMPINGS: tuple[Damping, ...] = ("relative", "absolute")
Refresh = Literal["epoch", "stage"]
REFRESHES: tuple[Refresh, ...] = ("epoch", "stage")
Preconditioner = Literal["fisher", "identity"]
PRECONDITIONERS: tuple[Preconditioner, ...] = ("fisher", "identity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence(Optimizer):
    """Steps preconditioned by the retain set's diagonal Fisher matrix (module: equations).

    The published run is ``Influence(damping="absolute", value=1e-3, lr=2e-5)``, whose twin without Fisher is
    ``Influence(preconditioner="identity", lr=2e-2)``: ``lr / value``.
    """

    second_order: ClassVar[bool] = True
    lr: float = 2e-5  # per step, times w
    damping: Damping = "relative"
    value: float = (
        1e-3  # lambda, > 0: in units of the mean Fisher (relative) or of squared gradients (absolute)
    )
    fisher: Batching = "per_sample"  # "minibatch": of as many rows as a side of the step has
    fisher_rows: int | None = None  # retain rows measured on, drawn anew at each refresh; None: all
    refresh: Refresh = "epoch"  # measured at the start of every epoch, or once
    preconditioner: Preconditioner = "fisher"  # "identity": w = 1, plain SGD, the yardstick
    clip_step: float | None = None  # greatest norm of w * g over all weights, before lr

    @property
    def reads_retain(self) -> str:
        """Where retain rows come in, although no loss has them."""
        return "in the Fisher matrix" if self.preconditioner == "fisher" else ""

    def __post_init__(self) -> None:
        check_settings("Influence", lr=self.lr)
        check_positive("Influence", value=self.value)
        if self.fisher_rows is not None:
            check_count("Influence", fisher_rows=self.fisher_rows)
        if self.clip_step is not None:
            check_positive("Influence", clip_step=self.clip_step)
        for name, allowed in (
            ("damping", DAMPINGS),
            ("fisher", BATCHINGS),
            ("refresh", REFRESHES),
            ("preconditioner", PRECONDITIONERS),
        ):
            if getattr(self, name) not in allowed:
                raise SpecError("Influence: " + unknown(name, getattr(self, name), allowed))

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> InfluenceOptimizer:
        return InfluenceOptimizer(
            parameters, lr=self.lr, damping=self.damping, value=self.value, clip_step=self.clip_step,
            preconditioner=self.preconditioner,
        )  # fmt: skip

    def estimate(self, moment: Moment) -> list[torch.Tensor] | None:
        """The retain set's diagonal Fisher matrix with the weights as they are; None between two
        refreshes.
        """
        due = moment.step == 0 or (self.refresh == "epoch" and moment.step % max(1, moment.per_epoch) == 0)
        if self.preconditioner == "identity" or not due:
            return None
        units = moment.batches[0].units if moment.batches else {}
        return diagonal_fisher(
            moment.policy,
            moment.retain,
            moment.parameters,
            batching=self.fisher,
            rows=self.fisher_rows,
            batch_size=max(1, units.get("forget/row", 0), units.get("retain/row", 0)),
            seed=derive(moment.seed, "fisher", moment.step),
        )


class InfluenceOptimizer(Curved):
    """The update of the module's equations. State of a parameter: ``fisher`` in its shape, and ``mean``, the
    scalar mean of the Fisher over all weights (0 where the parameter's own is zero throughout, so that
    nothing is known of it).
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        damping: str,
        value: float,
        clip_step: float | None,
        preconditioner: str,
    ):
        defaults = {
            "lr": lr,
            "damping": damping,
            "value": value,
            "clip_step": clip_step,
            "preconditioner": preconditioner,
        }
        super().__init__(parameters, defaults)
        self._length: torch.Tensor | None = None  # of the last step

    @torch.no_grad()
    def curve(self, estimates: Sequence[torch.Tensor]) -> None:
        """Replace the Fisher diagonal: one tensor a parameter, none negative."""
        sums, count = torch.zeros((), dtype=torch.float64), 0
        pairs = list(self.given(estimates))
        known = [bool(f.any()) for _, f in pairs]
        for (_, f), is_known in zip(pairs, known, strict=True):
            if is_known:
                sums += f.sum(dtype=torch.float64).cpu()
                count += f.numel()
        mean = sums / max(1, count)
        for (p, f), is_known in zip(pairs, known, strict=True):
            zeros = self.zeros(p)
            scalar = mean if is_known else torch.zeros_like(mean)
            self.state[p]["fisher"] = zeros.copy_(f)
            self.state[p]["mean"] = scalar.to(zeros.device, zeros.dtype)

    def _weight(self, p: torch.nn.Parameter, group: dict) -> torch.Tensor:
        state = self.state[p]
        if "fisher" not in state:
            raise RuntimeError(
                "Influence: the Fisher matrix was never given; call curve(description.estimate(moment))"
                " before step()."
            )
        fisher, mean = state["fisher"], state["mean"]
        if group["damping"] == "absolute":
            return 1 / (fisher + group["value"])
        return torch.where(mean > 0, mean / (fisher + group["value"] * mean), 1.0)

    def _direction(self, p: torch.nn.Parameter, group: dict) -> torch.Tensor:
        """w * g in full precision."""
        assert p.grad is not None, "step leaves the others out"
        gradient = p.grad.to(precise(p))
        return gradient if group["preconditioner"] == "identity" else self._weight(p, group) * gradient

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        most = self.param_groups[0]["clip_step"]  # of all weights together
        shrink = 1.0
        if most is not None and moving:
            norm = _norm(
                self._direction(p, group) for p, group in moving
            )  # made again below: not all are held at once
            shrink = most / max(most, float(norm))
        lengths = []
        for p, group in moving:
            change = self._direction(p, group) * (group["lr"] * shrink)
            lengths.append(_norm([change]))
            p.sub_(change)
        self._length = _norm(lengths) if lengths else None
        return loss

    def diagnostics(self) -> dict[str, float]:
        """``step_norm``: length of the last step, of all weights together. With a Fisher: its quantiles as
        powers of ten (zero counts as -38), mean of w, and how many times the 95th percentile of w is its 5th.
        """
        found = {} if self._length is None else {"step_norm": float(self._length)}
        pairs = [
            (p, group) for group in self.param_groups for p in group["params"] if "fisher" in self.state[p]
        ]
        if not pairs:
            return found
        count = sum(p.numel() for p, _ in pairs)
        logs = quantiles(
            (self.state[p]["fisher"].clamp(min=1e-38).log10() for p, _ in pairs), count, (0.05, 0.5, 0.95)
        )
        found |= dict(zip(("fisher_log10_p5", "fisher_log10_p50", "fisher_log10_p95"), logs, strict=True))
        low, high = quantiles((self._weight(p, group) for p, group in pairs), count, (0.05, 0.95))
        mean = math.fsum(float(self._weight(p, group).sum(dtype=torch.float64)) for p, group in pairs) / count
        return found | {"weight_mean": mean, "weight_spread": high / low}


def _norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Euclidean length of all tensors together, in double precision."""
    return torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt()
