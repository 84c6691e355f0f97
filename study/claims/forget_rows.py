"""What it matters which forget rows are given, and in how many requests."""

from __future__ import annotations

from study.claims.evidence import Evidence, claim
from study.readings.gate import gather
from study.readings.twin import mean
from study.report import requests, style
from study.report.forget_set import answered
from study.report.words import percent


@claim("ablations/forget_set_size")
def a_few_documents_do_not_stand_for_all(e: Evidence) -> tuple[bool, str]:
    """Given one of the forget documents, gradient difference and NPO leave more than four fifths of the
    questions about the others answered.
    """
    own = {
        m: gather([m], e.testbed, e.seed, ladder=False, forget_documents=0.02)[m]
        for m in ("gradient_difference", "npo")
    }
    kept = {m: sum(answered(r, 0) for r in records) / len(records) for m, records in own.items()}
    given = {
        (r.cost["forget_documents_given"], r.cost["forget_rows_given"])
        for records in own.values()
        for r in records
    }
    counts = sorted({n for _, n in given})
    rows = (
        f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} rows, and as many fewer steps"
    )
    return (
        min(kept.values()) > 0.8 and {d for d, _ in given} == {1},
        ", ".join(f"{style.label(m)} {percent(v)}" for m, v in kept.items()) + f" ({rows})",
    )


@claim("ablations/sequential_requests")
def the_best_at_once_is_not_the_best_in_portions(e: Evidence) -> tuple[bool, str]:
    """Asked in four requests instead of one, adaptive RMU ends farther from the twin on every seed; NPO's
    distance hardly moves, and world questions pay.
    """
    said, far = [], {}
    in_four = gather(["adaptive_rmu", "npo"], e.testbed, e.seed, ladder=False, requests=4)
    for m in in_four:
        four = requests.distances(in_four[m], e.core["twin"])
        one = requests.distances(e.core[m], e.core["twin"])
        far[m] = [b - a for a, b in zip(one, four, strict=True)]
        said.append(
            f"{style.label(m)} {sum(one) / len(one):.2f} at once, {sum(four) / len(four):.2f} in four"
        )
    world = [mean(r, "world/accuracy") for r in (e.core["npo"], in_four["npo"])]
    holds = min(far["adaptive_rmu"]) > 0 and max(map(abs, far["npo"])) < 0.05 and world[1] < world[0]
    return (
        holds,
        (
            f"distances: {'; '.join(said)}; world questions of NPO {percent(world[0])}, then"
            f" {percent(world[1])}"
        ),
    )
