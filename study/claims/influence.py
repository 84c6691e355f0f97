"""Influence steps and Sophia, the parts of LIBU."""

from __future__ import annotations

from study.claims.compared import beside, verdicts
from study.claims.evidence import Evidence, claim
from study.report import arms
from study.report.words import percent


@claim("ablations/sophia_vs_influence")
def an_influence_step_costs_more_than_it_brings(e: Evidence) -> tuple[bool, str]:
    """An influence step that moves the model, before Sophia, ends farther from the twin than Sophia alone, by
    seven seeds that chose no setting and with the page's comparisons counted.
    """
    found, pair = e.arms("ablations/sophia_vs_influence"), ("Sophia", "Fisher step, then Sophia")
    asked = [(a, b) for _, a, b in e.parameters("ablations/sophia_vs_influence")["questions"]]
    holds = (*pair, arms.DISTANCE) in arms.apart(found, asked)
    return holds and all(len(found[k].shown(arms.KEPT).records) == 7 for k in pair), beside(found, *pair)


@claim("ablations/sophia_vs_influence")
def the_fisher_decides_little(e: Evidence) -> tuple[bool, str]:
    """In LIBU's influence step, alone or before Sophia, the Fisher matrix shows no advantage over the
    identity; with the published damping it multiplies nine tenths of the weights alike, within a twentieth,
    as long as half of the retain questions are answered.
    """
    found = e.arms("ablations/sophia_vs_influence")
    pairs = [
        ("Fisher step, then Sophia", "plain step, then Sophia"),
        ("Fisher step", "plain step"),
        ("Fisher step, damping 0.001", "plain step"),
    ]
    spread = arms.spreads(found["Fisher step, damping 0.001"])
    holds = all(verdicts(found, *p) <= {"open", "no"} for p in pairs) and bool(spread) and max(spread) < 1.05
    said = ". ".join(beside(found, *p) for p in pairs)
    return (
        holds,
        (
            f"{said}. 95th over 5th percentile of the weights with the published damping:"
            f" {min(spread, default=0):.2f} to {max(spread, default=0):.2f}"
        ),
    )


@claim("ablations/sophia_vs_influence")
def the_influence_step_alone_destroys(e: Evidence) -> tuple[bool, str]:
    """Alone, the influence step, with the Fisher or without, brings the forget questions down to a tenth only
    where less than half of the rest is kept, if at all.
    """
    found = e.arms("ablations/sophia_vs_influence")
    kept = [
        arms.kept(r)
        for r in arms.records(
            {k: found[k] for k in ("Fisher step", "Fisher step, damping 0.001", "plain step")}
        )
    ]
    there = [v for v in kept if v == v]
    said = f", and keep ≈ {percent(min(there))} to {percent(max(there))}" if there else ""
    return max(there, default=0.0) < 0.5, f"{len(there)} of {len(kept)} runs come down to a tenth{said}"


@claim("ablations/sophia_vs_influence")
def sophia_is_not_better_than_adamw(e: Evidence) -> tuple[bool, str]:
    """Sophia shows no advantage over AdamW in its place, by seven seeds that chose the rate of neither."""
    found = e.arms("ablations/sophia_vs_influence")
    holds = (
        verdicts(found, "Sophia", "AdamW") <= {"open", "no"}
        and len(found["Sophia"].shown(arms.DISTANCE).records) == 7
    )
    return holds, beside(found, "Sophia", "AdamW")
