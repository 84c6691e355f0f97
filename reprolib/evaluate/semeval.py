"""The numbers of SemEval-2025 Task 4, as its leaderboard has them."""

from __future__ import annotations

from collections.abc import Mapping

from reprolib.evaluate.passes import Examination, Scores
from reprolib.metrics import lume, privacy
from reprolib.metrics import lume as lume_metrics


def final(core_metrics: Mapping[str, float], mmlu: Mapping[str, float]) -> dict[str, float]:
    """The leaderboard's numbers of SemEval-2025 Task 4: task aggregate, MIA score, MMLU, their mean, and
    eligibility.

    From the metrics of the core part and of MMLU; only what can be had: no final score without non-members
    and MMLU.
    """
    if "official/mia" not in core_metrics:
        return {}
    out = {"official/task_aggregate": core_metrics["lume/task_aggregate"]}
    out |= {k: core_metrics[k] for k in ("official/mia_auc", "official/mia")}
    if "mmlu/accuracy_questions" in mmlu:
        out["official/mmlu"] = mmlu["mmlu/accuracy_questions"]
        out["official/final"] = lume_metrics.final_score(
            out["official/task_aggregate"], out["official/mia"], out["official/mmlu"]
        )
        out["official/eligible"] = mmlu["mmlu/eligible"]
    return out


def listed_attack(s: Scores, exam: Examination) -> dict[str, float]:
    """The organisers' attack, if the release has their lists of members ("attack/auc" has the passages of all
    tasks).
    """
    listed = set(exam.corpus.facts.get("members", ()))  # type: ignore[call-overload]
    members = [-v for r, v in zip(exam.rows["forget"], s.document["forget"], strict=True) if r.id in listed]
    if not members or not exam.corpus["holdout"]:
        return {}
    auc = privacy.auc(members, -s.document["holdout"])
    return {"official/mia_auc": auc, "official/mia": lume.mia_score(auc)}


def official(rows: dict[str, list], metrics: dict[str, float]) -> dict[str, float]:
    """The SemEval-2025 Task 4 score and its parts. ``rows``: columns group, task, kind, score."""
    parts = lume.twelve(rows)
    out = {f"lume/{k}": v for k, v in parts.items()}
    out["lume/task_aggregate"] = lume.task_aggregate(list(parts.values()))
    out["lume/task_aggregate_floored"] = lume.floored_aggregate(list(parts.values()))
    if "attack/auc" in metrics:
        out["lume/mia"] = lume.mia_score(metrics["attack/auc"])
        if "world/accuracy" in metrics:
            out["lume/final"] = lume.final_score(
                out["lume/task_aggregate"], out["lume/mia"], metrics["world/accuracy"]
            )
    return out
