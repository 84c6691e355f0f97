"""Time and memory at true size, as the planner sees them beforehand."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reprolib.errors import SpecError, unknown
from reprolib.plan.prediction import Plan, fits, needed, plan
from reprolib.plan.setting import Setting
from study.report.tables import Table
from study.report.true_size import GIB

NEAR = 0.05  # of a GPU's memory: a prediction this close to it does not decide


def planned(models: Sequence[str], cases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Plan]]:
    """(model, title, plan) of every case on every model."""
    fields = {"method", "options", "trainable", "batch_size", *Setting.__dataclass_fields__} - {
        "model",
        "target_beside",
    }
    if isinstance(models, str) or not models:
        raise SpecError(f"models must be a list with at least one name, got {models!r}; e.g. ['olmo-7b'].")
    if not isinstance(cases, Mapping) or not cases:
        raise SpecError(
            f"cases must map at least one title to fields of a plan, got {cases!r}; e.g. {{'NPO':"
            " {'method': 'npo'}}."
        )
    for title, case in cases.items():
        if not isinstance(case, Mapping) or "method" not in case:
            raise SpecError(
                f"case {title!r}: method is missing in {case!r}; allowed fields: {', '.join(sorted(fields))}."
            )
        for name in case:
            if name not in fields:
                raise SpecError(f"case {title!r}: " + unknown("field", name, fields))
    return [
        (m, title, _plan(m, json.dumps(dict(case), sort_keys=True)))
        for m in models
        for title, case in cases.items()
    ]


@functools.cache  # the answer and the table of a page ask for the same
def _plan(model: str, fields: str) -> Any:
    return plan(model, **json.loads(fields), target_beside=False)


def predictions(
    models: Sequence[str], cases: Mapping[str, Mapping[str, Any]], memory: Sequence[int] = (24, 80, 141)
) -> Table:
    """Peak memory as the planner sees it, and on which GPUs (by memory in GiB) it fits. ``cases``: title ->
    fields of :func:`reprolib.plan.prediction.plan`.
    """
    rows = []
    for model, title, found in planned(models, cases):
        enough = [m for m in memory if fits(found.peak_bytes, replace(found.setting, gpu_memory_gib=m))]
        near = [m for m in memory if abs(needed(found.peak_bytes) / (m * GIB) - 1) < NEAR]
        rows.append(
            {
                "model": model,
                "run": title,
                "weights that move": f"{found.trained_parameters / 1e6:,.0f} M",
                "peak, GiB": f"{found.peak_bytes / GIB:.0f}",
                "most of it": (
                    max(found.parts, key=lambda p: p.bytes if largest(found) in p.phases else 0).name
                ),
                "fits on": (
                    (
                        f"{enough[0]:g} GiB{', barely' if enough[0] in near else ''}"
                        if enough
                        else "none of them"
                    )
                    + (f" ({near[0]:g} GiB perhaps)" if near and near[0] not in enough else "")
                ),
                "steps": f"{found.steps:,}",
                "on an H200": minutes(found.seconds("H200")),
            }
        )
    shown = ", ".join(str(m) for m in memory)
    return Table.of(
        rows,
        caption=(
            "Predicted, not measured: peak memory in training or evaluation, without the target beside,"
            f" the smallest GPU of {shown} GiB that it fits on (GiB is what vendors write as GB; barely,"
            f" perhaps: what it takes with the allocator's loss is within {100 * NEAR:.0f} % of the"
            " memory), and training time at an assumed 30 % of the peak."
        ),
    )


def largest(found: Any) -> str:
    return max(found.phases, key=found.phases.get)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
