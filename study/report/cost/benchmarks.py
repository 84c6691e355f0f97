"""Benchmarks of this machine, as ratios."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from reprolib.errors import RecordError
from reprolib.places import results_dir
from study.report import style
from study.report.tables import Table
from study.report.words import ratio, say

OBJECTIVES = {"graddiff": "gradient_difference", "npo": "npo"}  # of study/benchmarks/step.py


def benchmark(name: str) -> dict[str, Any]:
    """What a script of ``benchmarks/`` left; empty where it has not run."""
    path = results_dir() / "benchmarks" / f"{name}.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read: {error}. Restore it (git checkout), or run python benchmarks/{name}.py."
        ) from error


def steps(caption: str) -> Any:
    """Plain over shipped, time of a step and peak memory, a row a shape of the model; bars are 95 % intervals
    over rounds.
    """
    found = benchmark("step").get("cases", {})
    return style.show(*_chart(found), caption) if found else say("Not measured here; `make bench` does it.")


def _chart(found: Mapping[str, Any]) -> tuple[Any, str]:
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 1.4 + 0.5 * len(found)), sharey=True)
    words = []
    for y, (name, case) in enumerate(found.items()):
        for n, (objective, method) in enumerate(OBJECTIVES.items()):
            r, peak = case[objective]["ratio"]["plain"], case[objective].get("peak_ratio", {}).get("plain")
            at = y + 0.16 * (2 * n - 1)
            look = {"color": style.colour(method), "marker": style.marker(method)}
            axes[0].plot([r["low"], r["high"]], [at, at], color=look["color"], linewidth=2.5, alpha=0.6)
            axes[0].plot(r["median"], at, label=style.label(method) if y == 0 else None, linestyle="", **look)
            if peak is not None:
                axes[1].plot(peak, at, linestyle="", **look)
            words.append(
                f"{name}, {style.label(method)}: {r['median']:.2f} in time"
                + (f", {peak:.2f} in memory" if peak is not None else "")
            )
    for axis, title in zip(axes, ("time of a step", "peak memory"), strict=True):
        axis.axvline(1, color=style.INK, linewidth=1)
        axis.set(
            title=title, xlabel="plain / as shipped (1: the same)", xlim=(0.8, 1.04 * axis.get_xlim()[1])
        )
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(
        range(len(found)),
        [
            f"{name}: {c['parameters'] / 1e6:.0f} M, head {c['head_to_blocks']:.1f}x the blocks"
            for name, c in found.items()
        ],
    )
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig, "Dot plots of plain over shipped. " + "; ".join(words) + "."


CONTESTANTS = {  # of study/benchmarks/importance.py
    "vila": "VILA (one draw of LoRA factors)",
    "vila, 2 draws": "VILA with two draws, as shipped",
    "vila, all weights": "centred as VILA, on all weights as FILA",
}


def importance() -> Any:
    """FILA's importance pass beside VILA's on the same rows; the published claim beside what is measured."""
    rows = []
    found = benchmark("importance")
    for name, case in found.get("cases", {}).items():
        for contestant, r in case["ratio"].items():
            rows.append(
                {
                    "model": f"{name}: {case['about']}",
                    "FILA against": CONTESTANTS.get(contestant, contestant),
                    "time": ratio(r),
                    "weights measured": f"{case['parameters_ratio'][contestant]:.1f}x",
                    "peak memory": (
                        f"{case['peak_ratio'][contestant]:.2f}x"
                        if contestant in case.get("peak_ratio", {})
                        else "–"
                    ),
                }
            )
    if not rows:
        return say("Not measured here; `make bench` does it.")
    return Table.of(
        rows,
        caption=(
            "How many times FILA's pass takes what VILA's takes, on the same rows; brackets: 95 % over"
            " rounds. The abstract claims up to 100x fewer parameters and 40x the speed."
        ),
    )
