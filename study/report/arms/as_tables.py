"""Variants as tables: every setting, the best ones on fresh seeds, and what runs took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reprolib.metrics.resample import seeds_interval
from study.readings.twin import within
from study.report.arms.variants import DISTANCE, GUESS, KEPT, Arms, mean_of
from study.report.tables import Table, cell, number

CAPTION = (
    "Every setting. At the level: where the run first answers no more than a tenth of the forget"
    " questions, by interpolation along the trajectory, over the seeds that get there (≈: most of them"
    " fell there from more than half of the questions between two lines of the log, and the number is a"
    " straight line's guess); the other columns are the run's end. Questions count here if the greedy"
    " answer equals the true one letter for letter. Means, 95 % t intervals over seeds. KEPT and NEAREST"
    " mark the best setting of an arm, the nearest of those that leave a tenth or less in as many seeds as"
    " any of its settings does; (edge): it is the smallest or largest of the rates that were tried, and a"
    " further one might do better."
)


def table(arms: Arms) -> Table:
    """Every setting of every arm."""
    rows, data = [], []
    for arm in arms.values():
        for s in arm.settings:
            marks = [
                m
                for m, reading in (("KEPT", KEPT), ("NEAREST", DISTANCE))
                if len(arm.settings) > 1 and s is arm.best(reading)
            ]
            marks = [f"{m} (edge)" if arm.at_edge(s) else m for m in marks]
            there, away = ([v for v in values if math.isfinite(v)] for values in (s.kept, s.distance))
            end = {
                k: [r.metrics[k] for r in s.records]
                for k in ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")
            }
            rows.append(
                {
                    "arm": arm.label,
                    "rate": "–" if s.rate is None else f"{s.rate:g}",
                    "best by": ", ".join(marks) or "–",
                    "at the level": f"{len(there)} of {len(s.records)}",
                    "kept there": (
                        (GUESS if s.guessed else "") + cell(within(seeds_interval(there), 1.0))
                        if there
                        else "–"
                    ),
                    "distance": cell(within(seeds_interval(away), None)) if away else "–",
                    "forget q.": number(mean_of(end["forget/questions"])),
                    "AUC": number(mean_of(end["attack/auc"])),
                    "retain q.": number(mean_of(end["retain/questions"])),
                    "world q.": number(mean_of(end["world/accuracy"])),
                }
            )
            data.append(
                {
                    "arm": arm.label,
                    "method": arm.method,
                    "rate": s.rate,
                    "seeds": len(s.records),
                    "seeds_at_level": len(there),
                    "kept": round(mean_of(there), 4) if there else "",
                    "distance": round(mean_of(s.distance), 4),
                    **{k: round(mean_of(v), 4) for k, v in end.items()},
                }
            )
    header = tuple(rows[0])
    return Table(header, tuple(tuple(str(r[k]) for k in header) for r in rows), CAPTION, data=tuple(data))


def confirmed(arms: Arms) -> Table:
    """Each arm's best setting by each reading: on the seeds that chose it, and on fresh ones."""
    rows, data = [], []
    for arm in arms.values():
        for reading, s in arm.fresh.items():
            before = arm.best(reading)
            old, new = ([v for v in x.values(reading) if math.isfinite(v)] for x in (before, s))
            end = {
                k: mean_of([r.metrics[k] for r in s.records])
                for k in ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")
            }
            rows.append(
                {
                    "arm": arm.label,
                    "best by": "what is kept" if reading == KEPT else "distance",
                    "rate": "–" if s.rate is None else f"{s.rate:g}",
                    "where chosen": number(mean_of(old)) if old else "–",
                    "fresh seeds": (
                        (GUESS if reading == KEPT and s.guessed else "")
                        + cell(within(seeds_interval(new), 1.0 if reading == KEPT else None))
                        if new
                        else "–"
                    ),
                    "lowest to highest": f"{number(min(new))} to {number(max(new))}" if new else "–",
                    "ended at the level": f"{s.forgot} of {len(s.records)}",
                    "forget q.": number(end["forget/questions"]),
                    "AUC": number(end["attack/auc"]),
                    "retain q.": number(end["retain/questions"]),
                    "world q.": number(end["world/accuracy"]),
                }
            )
            data.append(
                {
                    "arm": arm.label,
                    "method": arm.method,
                    "reading": reading,
                    "rate": s.rate,
                    "chosen_on": round(mean_of(old), 4) if old else "",
                    "seeds": " ".join(str(r.spec.seed) for r in s.records),
                    "mean": round(mean_of(new), 4) if new else "",
                    "by_seed": " ".join("" if math.isnan(v) else f"{v:.4f}" for v in s.values(reading)),
                    **{k: round(v, 4) for k, v in end.items()},
                }
            )
    caption = (
        "The best settings once more. Where chosen: the mean that chose it, on the study's seeds. Fresh"
        " seeds: mean and 95 % t interval over the seeds that chose nothing and that have the reading. A"
        " seed that never comes down to a tenth has nothing kept there, and is left out. ≈: in most of"
        " them a straight line's guess, since the log leaps over the level. Ended at the level: seeds"
        " whose last model answers a tenth of the forget questions or less. The other columns are the end"
        " of these runs."
    )
    if not rows:
        return Table.of([{"arm": "no arm has fresh seeds"}])
    return replace(Table.of(rows, caption), data=tuple(data))


def cost(arms: Arms) -> Table:
    """What an arm moved, and what its runs took: medians over settings and seeds, seconds rough (other runs
    shared the machine).
    """
    rows = []
    for arm in arms.values():
        costs = [r.cost for s in arm.settings for r in s.records]

        def middle(key: str, costs: Sequence[Mapping[str, Any]] = costs) -> float:
            own = sorted(c[key] for c in costs if c.get(key) is not None)
            return own[len(own) // 2] if own else math.nan

        row = {
            "arm": arm.label,
            "weights that move": f"{middle('trained_parameters'):,.0f}",
            "steps": f"{middle('steps'):.0f}",
            "training, s": f"{middle('train_s'):.0f}",
            "peak, MiB": f"{middle('peak_bytes') / 2**20:.0f}",
        }
        if math.isfinite(middle("importance_s")):
            row |= {
                "weights measured": f"{middle('importance_parameters'):,.0f}",
                "importance, s": f"{middle('importance_s'):.1f}",
            }
        rows.append(row)
    header = list(dict.fromkeys(k for r in rows for k in r))
    caption = (
        "Medians over settings and seeds. Seconds were taken on a machine that ran other things besides,"
        " and are rough."
    )
    return Table.of([{k: r.get(k, "–") for k in header} for r in rows], caption=caption)
