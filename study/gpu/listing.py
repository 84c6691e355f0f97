"""The table of `python -m study.gpu list`: time and memory of each step, by the planner where it can say."""

from __future__ import annotations

from functools import lru_cache

from study.gpu.jobs import Make, Measure, Run
from study.gpu.steps import Phase, Step

GIB = 1 << 30
GPU_MEMORY_GIB = 139


def listing(steps: dict[str, Step]) -> str:
    rows = [("step", "phase", "jobs", "done", "at a time", "minutes", "largest peak (planner)")]
    for name, step in steps.items():
        for phase in step.phases:
            kind = {Make: "models", Run: "runs", Measure: "cost"}[type(phase.jobs[0])]
            together = min(phase.workers, len(phase.jobs))
            minutes = phase.minutes * len(phase.jobs) / together
            done = sum(j.done() for j in phase.jobs)
            size, what = peak(phase)
            shown = f"{size / GIB:.0f} GiB: {what}" + (f" (times {together})" if together > 1 else "")
            rows.append((name, kind, str(len(phase.jobs)), str(done), str(together), f"{minutes:.0f}", shown))
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    return "\n".join("  ".join(x.ljust(w) for x, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def peak(phase: Phase) -> tuple[float, str]:
    """The largest job's, and what it is."""
    return max((bytes_of(j) for j in phase.jobs), key=lambda found: found[0])


def bytes_of(job: Make | Run | Measure) -> tuple[float, str]:
    if isinstance(job, Make):
        return training(job.testbed.partition("/")[0]), "training"
    if isinstance(job, Measure):
        from study.gpu.cases import cases

        case = cases()[job.case]
        if case.method in ("ceilings", "organisations", "importance"):
            return 0.0, job.case
        return (
            planned(case.model, case.method, tuple(case.options.items()), case.precision, case.micro_tokens),
            job.case,
        )
    s = job.spec
    return (
        planned(s.testbed.partition("/")[0], s.method, tuple(s.options.items()), s.precision),
        f"{s.method}, {s.precision}",
    )


@lru_cache(maxsize=512)
def planned(
    model: str, method: str, options: tuple, precision: str, micro_tokens: int | None = None
) -> float:
    from reprolib.plan.prediction import plan

    more = {"precision": precision, "micro_tokens": micro_tokens, "gpu_memory_gib": GPU_MEMORY_GIB}
    return plan(model, method, dict(options), **more).peak_bytes


@lru_cache(maxsize=32)
def training(model: str) -> float:
    """Memorising: ascent on all weights is the same step; Adafactor keeps next to nothing of AdamW's two
    numbers a weight.
    """
    from reprolib.plan.prediction import plan
    from reprolib.testbeds.presets import PRESETS

    # long rows go in several passes, the second beside the gradients of the first
    options = {"trainable": "full", "batch_size": 32}
    parts = plan(model, "gradient_ascent", options, gpu_memory_gib=GPU_MEMORY_GIB, target_beside=False).parts
    adafactor = PRESETS[model].optimizer == "adafactor"
    # teaching counts no weights that did not move
    spared = {"weights before the first step", *(["optimizer state"] if adafactor else [])}
    left = [p for p in parts if p.name not in spared]
    return max(sum(p.bytes for p in left if phase in p.phases) for phase in ("loss", "blocks", "step"))
