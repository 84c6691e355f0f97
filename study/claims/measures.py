"""How forgetting should be measured."""

from __future__ import annotations

from study.claims.evidence import Evidence, claim
from study.readings.quantities import LADDER
from study.report import advice, yardsticks


@claim("synthesis/yardsticks")
def no_single_number_orders_methods(e: Evidence) -> tuple[bool, str]:
    """Of 18 single measures of the field, none orders ten methods as the distance to the twin does (Kendall's
    tau below 0.7).
    """
    found = [a for a in yardsticks.agreements(e.core, e.wide) if a.name not in yardsticks.WHOLES]
    taus = sorted((a.tau for a in found), reverse=True)
    methods = sum(m not in LADDER for m in e.wide)
    return (
        taus[0] < 0.7 and len(found) == 18 and methods == 10,
        f"{len(found)} measures, {methods} methods, tau from {taus[-1]:.2f} to {taus[0]:.2f}",
    )


@claim("synthesis/advice")
def forgetting_alone_favours_destruction(e: Evidence) -> tuple[bool, str]:
    """By what is left to forget alone, destroyed models are ahead of most methods."""
    left = {m: x for m, (x, _) in advice.points(e.core).items()}
    methods = [m.method for m in e.methods]
    worst = max(left["random"], left["always_eos"])
    behind = [m for m in methods if left[m] > worst]
    return (
        2 * len(behind) > len(methods),
        f"{len(behind)} of {len(methods)} methods have more left than {worst:.2f}",
    )
