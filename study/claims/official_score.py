"""What the official score of the task rewards."""

from __future__ import annotations

from study.claims.evidence import Evidence, claim
from study.readings.twin import closed
from study.report import audit, style
from study.report.words import percent


@claim("synthesis/audit")
def the_official_score_rewards_destruction(e: Evidence) -> tuple[bool, str]:
    """A destroyed model scores more on the official mean than an untouched one, on both corpora."""
    said, holds = [], True
    for study in (e.core, e.lume):
        ends = {m: audit.finals(study, m) for m in ("target", "random", "always_eos")}
        holds &= min(*ends["random"], *ends["always_eos"]) > max(ends["target"])
        said.append(
            f"`{study['twin'][0].spec.testbed}`: "
            + ", ".join(f"{style.label(m).lower()} {sum(v) / len(v):.2f}" for m, v in ends.items())
        )
    return holds, "; ".join(said)


@claim("synthesis/audit")
def a_destroyed_model_outscores_most_published_systems(e: Evidence) -> tuple[bool, str]:
    """What a destroyed 7B model scores for nothing is more than most of the published 7B systems got."""
    rows = e.published.of("7B")
    below = [r for r in rows if r.final < audit.destroyed()]
    return (
        2 * len(below) > len(rows),
        (
            f"{len(below)} of {len(rows)} submissions score less than {audit.destroyed():.2f}; the"
            " threshold on MMLU, not the score, keeps such models out"
        ),
    )


@claim("synthesis/audit")
def the_distance_sees_destruction(e: Evidence) -> tuple[bool, str]:
    """The distance to a retrained twin gives destroyed models next to nothing: less than a tenth of the gap
    is closed.
    """
    gaps = [g for m in ("random", "always_eos") for g in closed(e.core, m).values()]
    return (
        max(gaps) < 0.1,
        (
            f"{percent(min(gaps))} to {percent(max(gaps))} of the gap, over two destroyed models and"
            f" {len(gaps) // 2} seeds"
        ),
    )


@claim("synthesis/audit")
def a_headline_was_the_score_of_a_destroyed_model(e: Evidence) -> tuple[bool, str]:
    """The headline scores of Cyber for AI come with a task aggregate of zero."""
    rows = [e.published.row(t, "Cyber for AI") for t in ("7B", "1B")]
    return all(r.task == 0 for r in rows), "; ".join(
        f"{r.track}: final {r.final:.3f}, task aggregate {r.task:g}" for r in rows
    )
