"""What unlearning costs: benchmarks of this machine as ratios, true size as measured on a GPU, and as the planner sees it beforehand."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from reprolib.errors import RecordError, SpecError, unknown
from reprolib.record import results_dir
from reprolib.report import style, true_size
from reprolib.report.cards import ratio
from reprolib.report.page import listed, say
from reprolib.report.tables import Table, number
from reprolib.report.true_size import GIB

if TYPE_CHECKING:
    from reprolib.plan import Plan

OBJECTIVES = {"graddiff": "gradient_difference", "npo": "npo"}  # of benchmarks/step.py
NEAR = 0.05  # of a GPU's memory: a prediction this close to it does not decide
COMMAND = "`python -m gpu run olmo-1b-cost olmo-7b-cost`"


def benchmark(name: str) -> dict[str, Any]:
    """What a script of ``benchmarks/`` left; empty where it has not run."""
    path = results_dir() / "benchmarks" / f"{name}.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Restore it (git checkout), or run python benchmarks/{name}.py.") from error


def answer(models: Sequence[str], cases: Mapping[str, Mapping[str, Any]], base: Path | str | None = None) -> Any:
    """What the shipped organisation saves where the head is large and where it is small, and what is known at true size."""
    lines = _organisation(benchmark("step"), benchmark("evaluate"))
    measured = true_size.tables(base)["cost"]
    if measured.empty:
        rows = [(model, title, found.peak_bytes / GIB) for model, title, found in _planned(models, cases)]
        least, most = (f(rows, key=lambda r: r[2]) for f in (min, max))
        lines.append(
            f"**At true size nothing was measured**: {COMMAND} does it on one GPU. The planner expects a peak of {least[2]:.0f} GiB for {least[0]} ({least[1]}) "
            f"to {most[2]:.0f} GiB for {most[0]} ({most[1]})."
        )
        if ratios := [case["predicted_of_counted"] for case in _counted("predicted_peak_bytes")]:
            lines[-1] += f" Counted tensor by tensor, without a GPU, {len(ratios)} cases hold what it expects, to within {100 * max(abs(r - 1) for r in ratios):.1f} %."
    else:
        lines.append(f"At true size {len(measured)} cases were measured on {listed(sorted(set(measured['gpu'].dropna()))) or 'no GPU'}, see below.")
    return say("```{admonition} The answer\n:class: tip\n" + "\n\n".join(lines) + "\n```")


def _organisation(step: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    if not step or not evaluation:
        return ["The benchmarks have not run here; `make bench` runs them."]
    found = step["cases"]
    gains, plainest = ({k: found[k][objective]["ratio"]["plain"] for k in found} for objective in ("npo", "graddiff"))
    heads = {k: found[k]["head_to_blocks"] for k in found}
    small = min(heads, key=heads.get)
    even = [k for k in found if found[k].get("lengths") == "even" and k != small]
    largest = max(even, key=lambda k: gains[k]["median"])
    evaluated = evaluation["models"]
    faster = [f"{ratio(m['ratio']['shipped'])} times as fast for a model {_state(n)}" for n, m in evaluated.items()]
    return [
        f"A step of NPO as it is organised here is {ratio(gains[largest])} times as fast as the plain way where the output head is {heads[largest]:.1f} times "
        f"the blocks, and {ratio(gains[small])} times where it is {heads[small]:.2f} of them, as in OLMo-1B; gradient difference, which needs no reference, "
        f"{ratio(plainest[largest])} and {ratio(plainest[small])} times. The result is the same. An evaluation of the smallest model of this book "
        f"(`{evaluation['settings']['testbed']}`), beside one that generates every answer and makes a pass for each metric, is {listed(faster)}.",
    ]  # fmt: skip


def _state(name: str) -> str:
    return {"target": "that knows its rows", "half unlearned": "half unlearned"}.get(name, name)


def steps(caption: str) -> Any:
    """Plain over shipped, time of a step and peak memory, a row a shape of the model; bars are 95 % intervals over rounds."""
    found = benchmark("step").get("cases", {})
    return style.show(*_chart(found), caption) if found else say("Not measured here; `make bench` does it.")


def _chart(found: Mapping[str, Any]) -> tuple[Any, str]:
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 1.4 + 0.5 * len(found)), sharey=True)
    words = []
    for y, (name, case) in enumerate(found.items()):
        for n, (objective, method) in enumerate(OBJECTIVES.items()):
            r, peak = case[objective]["ratio"]["plain"], case[objective].get("peak_ratio", {}).get("plain")
            at, look = y + 0.16 * (2 * n - 1), {"color": style.colour(method), "marker": style.marker(method)}
            axes[0].plot([r["low"], r["high"]], [at, at], color=look["color"], linewidth=2.5, alpha=0.6)
            axes[0].plot(r["median"], at, label=style.label(method) if y == 0 else None, linestyle="", **look)
            if peak is not None:
                axes[1].plot(peak, at, linestyle="", **look)
            words.append(f"{name}, {style.label(method)}: {r['median']:.2f} in time" + (f", {peak:.2f} in memory" if peak is not None else ""))
    for axis, title in zip(axes, ("time of a step", "peak memory"), strict=True):
        axis.axvline(1, color=style.INK, linewidth=1)
        axis.set(title=title, xlabel="plain / as shipped (1: the same)", xlim=(0.8, 1.04 * axis.get_xlim()[1]))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(found)), [f"{name}: {c['parameters'] / 1e6:.0f} M, head {c['head_to_blocks']:.1f}x the blocks" for name, c in found.items()])
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig, "Dot plots of plain over shipped. " + "; ".join(words) + "."


CONTESTANTS = {  # of benchmarks/importance.py
    "vila": "VILA (one draw of LoRA factors)", "vila, 2 draws": "VILA with two draws, as shipped", "vila, all weights": "centred as VILA, on all weights as FILA",
}  # fmt: skip


def importance() -> Any:
    """FILA's importance pass beside VILA's on the same rows; the published claim beside what is measured."""
    rows = []
    found = benchmark("importance")
    for name, case in found.get("cases", {}).items():
        for contestant, r in case["ratio"].items():
            rows.append({
                "model": f"{name}: {case['about']}", "FILA against": CONTESTANTS.get(contestant, contestant), "time": ratio(r),
                "weights measured": f"{case['parameters_ratio'][contestant]:.1f}x",
                "peak memory": f"{case['peak_ratio'][contestant]:.2f}x" if contestant in case.get("peak_ratio", {}) else "–",
            })  # fmt: skip
    if not rows:
        return say("Not measured here; `make bench` does it.")
    return Table.of(rows, caption="How many times FILA's pass takes what VILA's takes, on the same rows; brackets: 95 % over rounds. The abstract claims up to 100x fewer parameters and 40x the speed.")


def measured(base: Path | str | None = None) -> Any:
    """Measured seconds, throughput and memory beside the planner's prediction; a sentence where nothing was measured."""
    frame = true_size.tables(base)["cost"]
    frame = frame[frame["step_s"].notna()] if len(frame) else frame
    if not len(frame):
        return say(f"Nothing was measured at true size yet: {COMMAND} does it, see `gpu/README.md`.")
    rows = [
        {"model": r.model, "method": style.label(r.method), "precision": r.precision, "stage": r.stage, "step, s": f"{r.step_s:.3f}",
         "tokens a second": f"{r.tokens_per_s:,.0f}", "share of bf16 peak": "–" if r.mfu is None or r.mfu != r.mfu else f"{100 * r.mfu:.0f} %",
         "peak, GiB": number(r.peak_gib), "predicted, GiB": number(r.predicted_gib), "GPU": r.gpu or "none (CPU)"}
        for r in frame.itertuples()
    ]  # fmt: skip
    return Table.of(rows, caption="Time and memory of a training step, as shipped. Predicted: reprolib.plan, before the run.")


def ceilings(base: Path | str | None = None) -> Any:
    """What the GPU itself reaches, the shipped step against plain ones and FILA against VILA, each as measured there; nothing without files."""
    lines = []
    needed = {"ceilings": ("bf16_tflops", "copy_gb_s"), "importance": ("ratio",), "organisations": ("ratio",)}
    for path in sorted((true_size.folder(base) / "cost").glob("*.json")):
        found = true_size.read_json(path, "case.model", "case.method")
        own = found["case"]
        true_size.require(path, found, *needed.get(own["method"], ()))
        if own["method"] == "ceilings":
            lines.append(f"The GPU itself reaches {found['bf16_tflops']} TFLOP/s in a bf16 product and copies {found['copy_gb_s']} GB/s.")
        elif own["method"] == "importance":
            said = listed([f"{r:.2f} times as long as {name}" for name, r in found["ratio"].items()])
            lines.append(f"{own['model']}: FILA's importance pass takes {said}, on the same rows.")
        elif own["method"] == "organisations":
            for objective, ratios in found["ratio"].items():
                said = listed([f"{name} takes {ratio(r)} times as long" for name, r in ratios.items()])
                lines.append(f"{own['model']}, {style.label(OBJECTIVES[objective])}: {said} as the shipped step.")
    return say("\n".join(f"- {line}" for line in lines)) if lines else None


def counted() -> Any:
    """Peaks at true size as ``benchmarks/memory.py`` counted them without a GPU, beside the planner's; a sentence where it has not run."""
    made = benchmark("memory")
    own, versions, rows = made.get("settings", {}), made.get("versions", {}), []
    for case in _counted("predicted_peak_bytes"):
        options = {k: v for k, v in case["options"].items() if not k.endswith("epochs")}
        moves = options.get("trainable") or (f"LoRA {options['rank']}/{options['alpha']}" if "rank" in options else "as its recipe")
        more = [f"{case['micro_tokens'] // own['tokens']} rows at a time"] if case["micro_tokens"] else []
        more += ["blocks computed again"] if case["checkpointing"] else []
        rows.append({
            "model": case["model"].removesuffix("-scratch"), "method": style.label(case["method"]), "what moves": ", ".join([moves, *more]),
            "base": case["precision"], "counted, GiB": f"{case['peak_bytes'] / GIB:.1f}", "predicted, GiB": f"{case['predicted_peak_bytes'] / GIB:.1f}",
            "predicted / counted": f"{case['predicted_of_counted']:.3f}",
        })  # fmt: skip
    if not rows:
        return say("Not counted here; `make bench` does it.")
    return Table.of(rows, caption=f"Peak memory of a training step, counted on tensors without numbers: rows of {own['tokens']} tokens, {own['labels']} of them predicted, 16 a side; "
                    f"torch {versions['torch']}, transformers {versions['transformers']}. No GPU was there: workspaces of its kernels, the allocator's loss and the context are not in it.")  # fmt: skip


def agreement() -> Any:
    """How far the planner is from what was counted, and what the shipped step holds of the plain ones' memory."""
    ratios = [case["predicted_of_counted"] for case in _counted("predicted_peak_bytes")]
    if not ratios:
        return None
    lines = [f"In all {len(ratios)} cases the planner's peak is {100 * min(ratios):.0f} to {100 * max(ratios):.0f} % of the one counted."]
    for case in _counted("shipped_of_it"):
        shares = [f"{style.label(OBJECTIVES[o])} {100 * own['plain']:.0f} %" for o, own in case["shipped_of_it"].items()]
        model = case["model"].removesuffix("-scratch")
        lines.append(f"{model}, all weights in fp32, 16 rows a side of LUME's lengths: of what the plain step holds, the shipped one holds for {listed(shares)}.")
    return say("\n".join(f"- {line}" for line in lines))


def _counted(key: str) -> list[dict[str, Any]]:
    """Cases of ``benchmarks/memory.py`` that have ``key``: peaks of methods, or of organisations."""
    cases = [case for case in benchmark("memory").get("cases", {}).values() if key in case]
    needed = {"predicted_peak_bytes": ("model", "method", "options", "precision", "micro_tokens", "checkpointing", "peak_bytes", "predicted_of_counted")}
    for case in cases:
        true_size.require(results_dir() / "benchmarks" / "memory.json", case, *needed.get(key, ("model",)))
    return cases


def _planned(models: Sequence[str], cases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Plan]]:
    """(model, title, plan) of every case on every model."""
    from reprolib.plan import Setting

    fields = {"method", "options", "trainable", "batch_size", *Setting.__dataclass_fields__} - {"model", "target_beside"}
    if isinstance(models, str) or not models:
        raise SpecError(f"models must be a list with at least one name, got {models!r}; e.g. ['olmo-7b'].")
    if not isinstance(cases, Mapping) or not cases:
        raise SpecError(f"cases must map at least one title to fields of a plan, got {cases!r}; e.g. {{'NPO': {{'method': 'npo'}}}}.")
    for title, case in cases.items():
        if not isinstance(case, Mapping) or "method" not in case:
            raise SpecError(f"case {title!r}: method is missing in {case!r}; allowed fields: {', '.join(sorted(fields))}.")
        for name in case:
            if name not in fields:
                raise SpecError(f"case {title!r}: " + unknown("field", name, fields))
    return [(m, title, _plan(m, json.dumps(dict(case), sort_keys=True))) for m in models for title, case in cases.items()]


@functools.cache  # the answer and the table of a page ask for the same
def _plan(model: str, fields: str) -> Any:
    from reprolib.plan import plan

    return plan(model, **json.loads(fields), target_beside=False)


def predictions(models: Sequence[str], cases: Mapping[str, Mapping[str, Any]], memory: Sequence[int] = (24, 80, 141)) -> Table:
    """Peak memory as the planner sees it, and on which GPUs (by memory in GiB) it fits. ``cases``: title -> fields of :func:`reprolib.plan.plan`."""
    from reprolib.plan import fits, needed

    rows = []
    for model, title, found in _planned(models, cases):
        enough = [m for m in memory if fits(found.peak_bytes, replace(found.setting, gpu_memory_gib=m))]
        near = [m for m in memory if abs(needed(found.peak_bytes) / (m * GIB) - 1) < NEAR]
        rows.append({
            "model": model, "run": title, "weights that move": f"{found.trained_parameters / 1e6:,.0f} M", "peak, GiB": f"{found.peak_bytes / GIB:.0f}",
            "most of it": max(found.parts, key=lambda p: p.bytes if largest(found) in p.phases else 0).name,
            "fits on": (f"{enough[0]:g} GiB{', barely' if enough[0] in near else ''}" if enough else "none of them")
            + (f" ({near[0]:g} GiB perhaps)" if near and near[0] not in enough else ""),
            "steps": f"{found.steps:,}", "on an H200": minutes(found.seconds("H200")),
        })  # fmt: skip
    shown = ", ".join(str(m) for m in memory)
    return Table.of(rows, caption=f"Predicted, not measured: peak memory in training or evaluation, without the target beside, the smallest GPU of {shown} GiB that it fits on (GiB is what "
                    f"vendors write as GB; barely, perhaps: what it takes with the allocator's loss is within {100 * NEAR:.0f} % of the memory), and training time at an assumed 30 % of the peak.")  # fmt: skip


def largest(found: Any) -> str:
    return max(found.phases, key=found.phases.get)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
