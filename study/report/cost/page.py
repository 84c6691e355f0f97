"""The answer of the page: what the organisation saves, and what is known at true size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.report import true_size
from study.report.cost.benchmarks import benchmark
from study.report.cost.counting import counted_cases
from study.report.cost.on_gpu import COMMAND
from study.report.cost.planned import planned
from study.report.true_size import GIB
from study.report.words import listed, ratio, say


def answer(
    models: Sequence[str], cases: Mapping[str, Mapping[str, Any]], base: Path | str | None = None
) -> Any:
    """What the shipped organisation saves where the head is large and where it is small, and what is known at
    true size.
    """
    lines = _organisation(benchmark("step"), benchmark("evaluate"))
    measured = true_size.tables(base)["cost"]
    if measured.empty:
        rows = [(model, title, found.peak_bytes / GIB) for model, title, found in planned(models, cases)]
        least, most = (f(rows, key=lambda r: r[2]) for f in (min, max))
        lines.append(
            f"**At true size nothing was measured**: {COMMAND} does it on one GPU. The planner expects a"
            f" peak of {least[2]:.0f} GiB for {least[0]} ({least[1]}) to {most[2]:.0f} GiB for {most[0]}"
            f" ({most[1]})."
        )
        if ratios := [case["predicted_of_counted"] for case in counted_cases("predicted_peak_bytes")]:
            lines[-1] += (
                f" Counted tensor by tensor, without a GPU, {len(ratios)} cases hold what it expects, to"
                f" within {100 * max(abs(r - 1) for r in ratios):.1f} %."
            )
    else:
        lines.append(
            f"At true size {len(measured)} cases were measured on"
            f" {listed(sorted(set(measured['gpu'].dropna()))) or 'no GPU'}, see below."
        )
    return say("```{admonition} The answer\n:class: tip\n" + "\n\n".join(lines) + "\n```")


def _organisation(step: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    if not step or not evaluation:
        return ["The benchmarks have not run here; `make bench` runs them."]
    found = step["cases"]
    gains, plainest = (
        {k: found[k][objective]["ratio"]["plain"] for k in found} for objective in ("npo", "graddiff")
    )
    heads = {k: found[k]["head_to_blocks"] for k in found}
    small = min(heads, key=heads.get)
    even = [k for k in found if found[k].get("lengths") == "even" and k != small]
    largest = max(even, key=lambda k: gains[k]["median"])
    evaluated = evaluation["models"]
    faster = [
        f"{ratio(m['ratio']['shipped'])} times as fast for a model {_state(n)}" for n, m in evaluated.items()
    ]
    return [
        (
            f"A step of NPO as it is organised here is {ratio(gains[largest])} times as fast as the plain"
            f" way where the output head is {heads[largest]:.1f} times the blocks, and"
            f" {ratio(gains[small])} times where it is {heads[small]:.2f} of them, as in OLMo-1B; gradient"
            f" difference, which needs no reference, {ratio(plainest[largest])} and"
            f" {ratio(plainest[small])} times. The result is the same. An evaluation of the smallest model"
            f" of this book (`{evaluation['settings']['testbed']}`), beside one that generates every"
            f" answer and makes a pass for each metric, is {listed(faster)}."
        ),
    ]


def _state(name: str) -> str:
    return {"target": "that knows its rows", "half unlearned": "half unlearned"}.get(name, name)
