"""Sophia, and the variant of it that SOUL released.

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
    h_t &= \beta_2 h_{t-k} + (1 - \beta_2)\, \hat h_t \quad \text{every } k \text{ steps, first at step 0} \\
    \theta &\leftarrow (1 - \eta\lambda)\, \theta, \qquad
    \theta \leftarrow \theta - \eta\; \mathrm{clip}\Big(\frac{m_t}{\max(\rho\, h_t,\, \epsilon)},\, 1\Big)

**The number of tokens.** Sophia-G estimates :math:`\hat h = B\,\hat g \odot \hat g` with B labelled tokens in
the batch that
:math:`\hat g` is a mean over. The published code keeps :math:`\hat g \odot \hat g` without B in its running
mean and divides by
:math:`\rho \cdot bs \cdot h` instead, with bs = B given at every step. For constant B the two are the same;
where B differs from step to step, as it does with rows of many lengths, only the first weighs every estimate
with its own B. Here the factor is therefore part of the estimate, and :math:`h_t` is the curvature itself:
``batch_tokens="actual"`` multiplies with the B of the step, a number with that number, which gives the
published code's :math:`\rho \cdot bs \cdot h` for bs = that number. A batch of 500 answer tokens under the
fixed 5120 has its curvature overrated tenfold.

The code adds its 1e-15 to the denominator, the paper takes the maximum; so does this (Hutchinson's estimate
can be negative, which must end in a step of full length along the sign of m). They differ only where
:math:`\rho h` is itself about 1e-15, and there both clip every m above 2e-15.

Sources: Liu et al. 2024 (arXiv 2305.14342), algorithm 3 and its code; Jia et al. 2024 (SOUL, arXiv
2404.18239) and its code.
"""

from __future__ import annotations

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
    check_decay,
    check_positive,
    check_settings,
    quantiles,
)
from reprolib.optim.curvature import empirical, gauss_newton_bartlett, hutchinson

Hessian = Literal["gnb", "hutchinson", "empirical"]
HESSIANS: tuple[Hessian, ...] = ("gnb", "hutchinson", "empirical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sophia(Optimizer):
    """Momentum divided by a running estimate of the diagonal curvature, each coordinate's step at most ``lr``
    (module: equations).

    Where nothing is known of the curvature (h = 0: LoRA's A while its B is zero, or in the first steps, when
    h holds only 1 - beta2 of it) a step is sign descent of length ``lr``. Tuning: ``unclipped_share`` of the
    trajectory between 0.1 and 0.5; a larger ``rho`` raises it. SOUL as released:
    ``Sophia(hessian="empirical", interval=1, double_momentum=True, batch_tokens=5120, beta1=0.9, beta2=0.95,
    weight_decay=0.1)`` with the loop's gradient clipping at 1 (it spared norms and biases the weight decay,
    which is not done here).
    """

    second_order: ClassVar[bool] = True
    lr: float = 1e-4  # per step and coordinate, at most
    beta1: float = 0.965  # of the momentum
    beta2: float = 0.99  # of the curvature; published code
    rho: float = 0.04  # gamma of the paper: larger steps are shorter and fewer are clipped
    eps: float = 1e-15  # least denominator, > 0
    weight_decay: float = 0.0  # decoupled, before the step; published: 0.1
    hessian: Hessian = "gnb"
    interval: int = 10  # steps between two estimates
    batch_tokens: Literal["actual"] | float = (
        "actual"  # B of the estimate; SOUL leaves the code's default of 5120
    )
    double_momentum: bool = False  # SOUL's code updates m twice a step: m = beta1^2 m + (1 - beta1^2) g
    clip: bool = True  # False: LIBU's printed formula; a step is then as long as m / eps where h is 0

    def __post_init__(self) -> None:
        check_settings("Sophia", lr=self.lr, weight_decay=self.weight_decay, rho=self.rho)
        check_decay("Sophia", beta1=self.beta1, beta2=self.beta2)
        check_positive("Sophia", eps=self.eps)
        check_count("Sophia", interval=self.interval)
        if self.hessian not in HESSIANS:
            raise SpecError("Sophia: " + unknown("hessian", self.hessian, HESSIANS))
        tokens = self.batch_tokens
        if tokens != "actual" and (
            isinstance(tokens, bool | str) or not isinstance(tokens, int | float) or not tokens > 0
        ):
            raise SpecError(
                f"Sophia: batch_tokens must be 'actual' or a number > 0 (SOUL: 5120), got {tokens!r}."
            )
        if self.hessian == "hutchinson" and tokens != "actual":
            raise SpecError(
                f"Sophia: batch_tokens={tokens!r} has no place with hessian='hutchinson', whose estimate"
                " has no token factor; leave it 'actual', or use hessian='gnb' or 'empirical'."
            )

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> SophiaOptimizer:
        return SophiaOptimizer(
            parameters, lr=self.lr, beta1=self.beta1, beta2=self.beta2, rho=self.rho, eps=self.eps,
            weight_decay=self.weight_decay, double_momentum=self.double_momentum, clip=self.clip,
        )  # fmt: skip

    def estimate(self, moment: Moment) -> list[torch.Tensor] | None:
        """The diagonal curvature at this step, with its token factor; None between two intervals."""
        if moment.step % self.interval:
            return None
        if self.hessian == "hutchinson":
            return hutchinson(moment)
        tokens = None if self.batch_tokens == "actual" else self.batch_tokens
        return {"gnb": gauss_newton_bartlett, "empirical": empirical}[self.hessian](moment, tokens)


class SophiaOptimizer(Curved):
    """The update of the module's equations. State of a parameter: ``momentum`` and ``curvature``, in its
    shape.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        rho: float,
        eps: float,
        weight_decay: float,
        double_momentum: bool,
        clip: bool,
    ):
        super().__init__(
            parameters,
            {"lr": lr, "beta1": beta1, "beta2": beta2, "rho": rho, "eps": eps, "weight_decay": weight_decay,
             "double_momentum": double_momentum, "clip": clip},
        )  # fmt: skip
        self._counts: list[
            tuple[torch.Tensor, torch.Tensor]
        ] = []  # of the last step: coordinates that moved, clipped ones

    def _state(self, p: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        state = self.state[p]
        for name in ("momentum", "curvature"):
            if name not in state:
                state[name] = self.zeros(p)
        return state

    @torch.no_grad()
    def curve(self, estimates: Sequence[torch.Tensor]) -> None:
        """Take estimates of the diagonal curvature, one tensor a parameter, into the running mean."""
        beta2 = {id(p): group["beta2"] for group in self.param_groups for p in group["params"]}
        for p, estimate in self.given(estimates):
            h = self._state(p)["curvature"]
            h.mul_(beta2[id(p)]).add_(estimate.to(h.device, h.dtype), alpha=1 - beta2[id(p)])

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._counts = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self._state(p)
                m, h = state["momentum"], state["curvature"]
                for _ in range(2 if group["double_momentum"] else 1):
                    m.mul_(group["beta1"]).add_(p.grad.to(m.dtype), alpha=1 - group["beta1"])
                least = (group["rho"] * h).clamp_(min=group["eps"])
                self._counts.append(((m != 0).sum(), ((m.abs() >= least) & (m != 0)).sum()))
                ratio = m / least
                if group["clip"]:
                    ratio.clamp_(-1, 1)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(ratio, alpha=-group["lr"])
        return loss

    def diagnostics(self) -> dict[str, float]:
        """Of the last step: shares of the coordinates with momentum that were clipped and not (the "win
        rate"), and quantiles of h over all coordinates, in nats per weight squared.
        """
        if not self._counts:
            return {}
        moved, clipped = (int(sum(int(c[k]) for c in self._counts)) for k in (0, 1))
        share = clipped / moved if moved else 0.0
        known = [s["curvature"] for s in self.state.values()]
        low, middle, high = quantiles(known, sum(h.numel() for h in known), (0.05, 0.5, 0.95))
        return {
            "clipped_share": share, "unclipped_share": 1 - share,
            "curvature_p5": low, "curvature_p50": middle, "curvature_p95": high,
        }  # fmt: skip
