"""Precision, pretrained models and models of other sizes."""

from __future__ import annotations

from study.claims.compared import beside, verdicts
from study.claims.evidence import Evidence, claim
from study.readings.gate import gather
from study.readings.twin import distance, ordered
from study.report import arms, pretrained, scale, style
from study.report.words import percent


@claim("ablations/quantization")
def full_precision_shows_no_advantage(e: Evidence) -> tuple[bool, str]:
    """Under an adapter, a base in full precision shows no advantage over one of 8 or 4 bits."""
    p = e.parameters("ablations/quantization")
    found = arms.gather(
        arms.precisions(p["methods"], p["precisions"], p["options"], p["rates"]),
        e.testbed,
        e.seed,
        p.get("fresh", ()),
    )
    pairs = [
        (f"{style.label(m)}, fp32", f"{style.label(m)}, {x}")
        for m in p["methods"]
        for x in p["precisions"]
        if x != "fp32"
    ]
    return not any("yes" in verdicts(found, *x) for x in pairs), ". ".join(beside(found, *x) for x in pairs)


@claim("synthesis/pretrained")
def a_pretrained_model_pays_for_forgetting(e: Evidence) -> tuple[bool, str]:
    """On a pretrained model of 135 million weights (one seed, 18 forget documents), no run that ended at a
    tenth of the forget questions or less ended with three quarters of the retain questions that its twin
    answers.

    At settings that were not searched for this model.
    """
    p = e.parameters("synthesis/pretrained")
    found = arms.gather(p["arms"], p["testbed"], p["seed"])
    there = pretrained.ended(found, gather(["twin"], p["testbed"], p["seed"], ladder=False)["twin"][0])
    said = ", ".join(f"{style.label(r.spec.method)} {percent(kept)}" for kept, r in there)
    return (
        bool(there) and there[-1][0] < 0.75,
        (
            f"{len(there)} of {len(arms.records(found))} runs end at a tenth or less; of what the twin"
            f" answers they keep: {said}"
        ),
    )


@claim("ablations/scale")
def one_rate_is_not_one_strength(e: Evidence) -> tuple[bool, str]:
    """At one learning rate, in every seed and at every size, all weights leave less than a twentieth of the
    forget questions, an adapter scaled by a quarter more than a fifth.

    Scaled by one, it leaves less than a twentieth too.
    """
    p = e.parameters("ablations/scale")
    sizes = scale.gather(p["testbeds"], p["arms"], p["methods"], e.seed)
    left = {label: [scale.left(s.arms[label], p["rates"][0]) for s in sizes] for label in p["arms"]}
    said = "; ".join(f"{label}: {', '.join(map(scale.told, v))}" for label, v in left.items())
    one = scale.left(
        arms.gather({"x": p["others"]["LoRA, alpha / r = 1"]}, p["others_at"], e.seed)["x"], p["rates"][0]
    )
    said += (
        f"; LoRA, alpha / r = 1: {scale.told(one)}, with"
        f" {next(s.label for s in sizes if s.testbed == p['others_at'])}"
    )
    most, least = max(map(max, left["all weights"])), min(map(min, left["LoRA, alpha / r = 1/4"]))
    holds = most < 0.05 and least > 0.2 and max(one) < 0.05
    return (
        holds,
        (
            f"forget questions left at {p['rates'][0]:g}, with {', '.join(s.label for s in sizes)}"
            f" weights: {said}"
        ),
    )


@claim("ablations/scale")
def size_alone_keeps_the_order(e: Evidence) -> tuple[bool, str]:
    """From 0.6 to 4.7 million weights, four methods keep their order at fixed options."""
    p = e.parameters("ablations/scale")
    sizes = scale.gather(p["testbeds"], {}, p["methods"], e.seed)
    orders = [tuple(ordered(s.study, p["methods"])) for s in sizes]
    said = [f"{style.label(m)} {', '.join(f'{distance(s.study, m):.2f}' for s in sizes)}" for m in orders[0]]
    holds = len(set(orders)) == 1 and [s.label for s in (sizes[0], sizes[-1])] == [
        "0.6\u202fM",
        "4.7\u202fM",
    ]
    return holds, f"distances with {', '.join(s.label for s in sizes)} weights: {'; '.join(said)}"
