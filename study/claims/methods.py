"""How close methods come to the twin, on synthetic and on real rows."""

from __future__ import annotations

from study.claims.evidence import Evidence, claim
from study.readings.quantities import LADDER
from study.readings.twin import distance, mean, noise
from study.report import yardsticks


@claim("synthesis/leaderboard")
def the_best_come_close(e: Evidence) -> tuple[bool, str]:
    """The best methods close more than four fifths of the gap to the twin, and none closes all of it."""
    ranked = [m for m in e.methods if m.group == "all" and m.gap]
    near = [m for m in ranked if m.gap.estimate > 0.8]
    floor = noise(e.core)
    least = min(ranked, key=lambda m: m.distance)
    said = ", ".join(f"{m.label} {m.gap.estimate:.2f}" for m in near)
    return (
        bool(near) and least.distance > floor,
        f"{said}; smallest distance {least.distance:.2f}, between twins at most {floor:.2f}",
    )


@claim("synthesis/leaderboard")
def the_best_train_on_retain_rows(e: Evidence) -> tuple[bool, str]:
    """The ten methods that come closest to the twin all train on retain rows."""
    first = [m for m in e.methods if m.group == "all" and m.gap][:10]
    other = max((m for m in e.methods if m.retains == "no" and m.gap), key=lambda m: m.gap.estimate)
    return (
        len(first) == 10 and all(m.retains == "in the loss" for m in first),
        f"the best without them, {other.label}, closes {other.gap.estimate:.2f} of the gap",
    )


@claim("synthesis/leaderboard")
def the_systems_of_the_three_papers_are_not_the_best(e: Evidence) -> tuple[bool, str]:
    """LIBU, the chains of Cyber for AI and VILA with gradient difference, at the options searched for here,
    lie behind the best method in every seed.
    """
    best = next(m for m in e.methods if m.group == "all")
    own = {
        m.method: m
        for m in e.methods
        if m.method in ("libu", "chain_ga_gd", "chain_ga_gd_ga", "chain_difference_ga", "vila_difference")
    }
    behind = all(min(m.distances) > max(best.distances) for m in own.values())
    return behind, f"distance {best.distance:.2f} ({best.label}); " + ", ".join(
        f"{m.label} {m.distance:.2f}" for m in own.values()
    )


@claim("synthesis/real_data")
def real_rows_give_a_like_order(e: Evidence) -> tuple[bool, str]:
    """On rows of LUME, 14 methods come in a like order as on synthetic people (Kendall's tau above 0.7)."""
    methods = [m for m in e.lume if m not in LADDER]
    found, p = yardsticks.tau(
        {m: distance(e.lume, m) for m in methods}, {m: distance(e.core, m) for m in methods}, methods
    )
    return (
        found > 0.7 and len(methods) == 14,
        f"tau {found:.2f} over {len(methods)} methods ({'p < 0.001' if p < 0.001 else f'p = {p:.3f}'})",
    )


@claim("synthesis/real_data")
def real_passages_stay_recognisable(e: Evidence) -> tuple[bool, str]:
    """On rows of LUME most methods leave the forget passages recognisable to the plainest attack (AUC above
    0.75; the twin's is near 0.5).
    """
    methods = [m for m in e.lume if m not in LADDER]
    seen = [m for m in methods if mean(e.lume[m], "attack/auc") > 0.75]
    return (
        2 * len(seen) > len(methods),
        f"{len(seen)} of {len(methods)}; the twin's AUC is {mean(e.lume['twin'], 'attack/auc'):.2f}",
    )
