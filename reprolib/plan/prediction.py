"""Predicted memory and time of a run, whether it fits a GPU, and what would make it fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from reprolib.adapters.base import Full
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.errors import RecordError, SpecError, unknown
from reprolib.objectives.base import Term
from reprolib.optim import Influence, Sophia
from reprolib.plan import shapes
from reprolib.plan.arithmetic import importance_bytes, pass_flops
from reprolib.plan.memory import (
    all_linears,
    depth_of,
    model_parts,
    phase_bytes,
    reference_of,
    stage_parts,
    terms_of,
)
from reprolib.plan.setting import (
    CONTEXT_BYTES,
    FRAGMENTATION,
    GIB,
    LABEL_SHARE,
    PHASES,
    UTILISATION,
    Part,
    Setting,
)
from reprolib.plan.shapes import GPUS, anatomy
from reprolib.recipes import Stage, recipe
from reprolib.record import Record
from reprolib.testbeds.presets import PRESETS
from reprolib.unlearn.order import n_steps


def stage_flops(stage: Stage, s: Setting) -> tuple[float, float, int]:
    """(operations of a mean step, operations once a stage, steps). Second-order passes are spread over their
    interval.
    """
    a, schedule, opt = s.anatomy(stage.trainable), stage.schedule, stage.optimizer
    terms, (_, live, _) = terms_of(stage, s), reference_of(stage, s, a)

    def passing(term: Term, rows: int, backward: bool = True) -> float:
        return pass_flops(a, rows, s.tokens, s.labels, depth_of(term, a), backward, s.checkpointing)

    n, steps = schedule.batch_size, n_steps(schedule, s.forget_rows, s.retain_rows)
    sides = [t.passes * passing(t, n) + (passing(t, n, False) if t in live else 0) for t, _ in terms]
    step = sum(sides) if schedule.pairing == "paired" else max(sides)
    once = sum(passing(t, rows, False) for t, rows in terms if t.needs and t not in live)
    whole = pass_flops(a, 1, s.tokens, s.labels, a.blocks, True, s.checkpointing)
    if isinstance(opt, Sophia) and opt.hessian != "empirical":
        step += (
            sum(t.passes for t, _ in terms)
            * n
            * whole
            * (3 if opt.hessian == "hutchinson" else 1)
            / opt.interval
        )
    if isinstance(opt, Influence) and opt.preconditioner == "fisher":
        times = math.ceil(schedule.epochs) if opt.refresh == "epoch" else 1
        once += times * min(s.retain_rows, opt.fisher_rows or s.retain_rows) * whole
    how = stage.trainable
    if isinstance(how, FisherLoRA) and importance_bytes(how, a):
        moved, draws = (all_linears(a), 1) if how.space == "full" else (a, how.draws)
        rows = s.forget_rows + min(s.forget_rows, s.retain_rows)
        once += draws * pass_flops(moved, rows, s.tokens, s.labels, a.blocks, True)
    return step, once, steps


# --- the plan
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the setting, what it does to the result, and the peak with it."""

    name: str
    how: str
    setting: Setting
    peak_bytes: int

    @property
    def fits(self) -> bool:
        return fits(self.peak_bytes, self.setting)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Peak bytes as predicted and as a record has them."""

    predicted_bytes: int
    measured_bytes: int

    @property
    def ratio(self) -> float:
        """Predicted over measured: above 1 the plan was too careful."""
        return self.predicted_bytes / self.measured_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run takes: memory of the stage with the highest peak, in bytes on one GPU, and time of all
    stages together.
    """

    setting: Setting
    parameters: int  # of the model
    trained_parameters: int  # that move, at most
    stage: str
    parts: tuple[Part, ...]
    phases: Mapping[str, int]
    host_bytes: int  # reference values kept in the computer's memory
    steps: int
    flops: float  # operations of all steps and of what comes before them, evaluations left out
    remedies: tuple[Remedy, ...] = ()  # only where it does not fit; cheapest in quality first

    @property
    def peak_bytes(self) -> int:
        """Of tensors alive at once: what ``torch.cuda.max_memory_allocated`` should report."""
        return max(self.phases.values())

    @property
    def fits(self) -> bool:
        return fits(self.peak_bytes, self.setting)

    def seconds(self, gpu: str) -> float:
        """Training time on GPUs of a kind of :data:`GPUS`, at :data:`UTILISATION` of their peak, rows shared
        out.
        """
        if gpu not in GPUS:
            raise SpecError("plan: " + unknown("GPU", gpu, GPUS))
        return self.flops / (GPUS[gpu].tflops * 1e12 * UTILISATION * self.setting.gpus)

    def compare(self, record: Record) -> Comparison:
        """The prediction beside ``cost["peak_bytes"]`` of a record from a GPU; that both are of the same
        model is not checked.

        Raises :class:`RecordError` for a record without a GPU, or of another method, precision or options.
        """
        s, what = self.setting, f"record {record.fingerprint}"
        if not record.provenance.get("machine", {}).get("gpu"):
            raise RecordError(
                f"{what} was made without a GPU: its peak_bytes is the resident memory of a process with"
                " all its libraries, not of tensors. Compare with a record from a GPU."
            )
        theirs = (record.spec.method, record.spec.precision, dict(record.spec.options))
        if theirs != (s.method, s.precision, dict(s.options)):
            raise RecordError(
                f"{what} is of {theirs}, the plan of {(s.method, s.precision, dict(s.options))}; plan what"
                " was run."
            )
        return Comparison(self.peak_bytes, int(record.cost["peak_bytes"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out = asdict(self) | {
            "peak_bytes": self.peak_bytes,
            "needed_bytes": needed(self.peak_bytes),
            "fits": self.fits,
        }
        out["setting"]["options"] = dict(self.setting.options)
        out["hours"] = {name: round(self.seconds(name) / 3600, 4) for name in GPUS}
        out["assumed"] = {
            "utilisation": UTILISATION,
            "fragmentation": FRAGMENTATION,
            "context_bytes": CONTEXT_BYTES,
        }
        out["remedies"] = [
            {"name": r.name, "how": r.how, "peak_bytes": r.peak_bytes, "fits": r.fits} for r in self.remedies
        ]
        return out

    def report(self) -> str:
        """The plan as text."""
        s, peak = self.setting, max(self.phases, key=self.phases.__getitem__)
        unit = "GiB" if self.peak_bytes >= GIB else "MiB"

        def size(value: int) -> str:
            scaled = value / (GIB if unit == "GiB" else 1 << 20)
            return f"{scaled:.1f}" if scaled >= 9.95 else f"{scaled:.3f}" if scaled < 0.1 else f"{scaled:.2f}"

        def row(name: str, cells: Sequence[str], note: str = "") -> str:
            return f"{name:38}{''.join(f'{c:>11}' for c in cells)}  {note}".rstrip()

        lines = [
            (
                f"{s.method} on {s.model}: {self.parameters:,} parameters in {s.precision},"
                f" {self.trained_parameters:,} move"
            ),
            "",
        ]
        lines.append(
            row(f"{unit} on one GPU" + f", stage {self.stage!r}" * bool(self.stage), list(self.phases))
        )
        for p in self.parts:
            if any(q in p.phases for q in self.phases):
                lines.append(
                    row(p.name, [size(p.bytes) if q in p.phases else "" for q in self.phases], p.note)
                )
        lines += [
            row("sum", [size(v) for v in self.phases.values()]),
            *(f"  {p}: {PHASES[p]}" for p in self.phases),
            "",
        ]
        lines.append(
            f"peak {size(self.peak_bytes)} {unit} ({peak}); with {FRAGMENTATION:.0%} for the allocator and"
            f" CUDA's own {size(needed(self.peak_bytes))} {unit} of {s.gpu_memory_gib:g} GiB on each of"
            f" {s.gpus} GPU(s): " + ("fits" if self.fits else "does not fit")
        )
        if self.host_bytes > 1 << 20:
            lines.append(f"reference values in the computer's memory: {size(self.host_bytes)} {unit}")
        if self.remedies:
            lines += ["", "what would change that, cheapest in quality first:"]
            for r in self.remedies:
                lines.append(
                    f"  {'fits' if r.fits else 'too large':11}{size(needed(r.peak_bytes)):>7} {unit} "
                    f" {r.name}: {r.how}"
                )
        if self.steps:
            assumed = f"at {UTILISATION:.0%} of the peak, without evaluations:"
            lines += ["", f"{self.steps:,} steps, {self.flops:.3g} operations; {assumed}"]
            for name, gpu in GPUS.items():
                note = "" if needed(self.peak_bytes) <= gpu.memory_gib * GIB else "too small"
                sheet = f"{gpu.memory_gib:g} GiB, {gpu.tflops:g} TFLOPS" + f" ({gpu.note})" * bool(gpu.note)
                lines.append(f"  {name:11}{_duration(self.seconds(name)):>10}  {note:11}{sheet}")
        return "\n".join(lines)


def needed(peak_bytes: int) -> int:
    """With what the allocator loses and CUDA takes."""
    return math.ceil(peak_bytes * (1 + FRAGMENTATION)) + CONTEXT_BYTES


def fits(peak_bytes: int, s: Setting) -> bool:
    return needed(peak_bytes) <= s.gpu_memory_gib * GIB


def _duration(seconds: float) -> str:
    size, unit = next(((n, u) for n, u in ((3600, "h"), (60, "min")) if seconds >= n), (1, "s"))
    return f"{seconds / size:.1f} {unit}"


def plan(
    model: str,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    trainable: str | None = None,
    batch_size: int | None = None,
    labels: int | None = None,
    target_beside: bool | None = None,
    **setting: Any,
) -> Plan:
    """Predict memory and time of ``method`` on ``model`` without running anything.

    ``trainable`` and ``batch_size`` (rows a side and step) are short for two of the recipe's ``options``.
    ``labels``: predicted tokens of a row (None: LABEL_SHARE of them); ``target_beside`` (None: for presets of
    testbeds, which `reprolib run` runs). ``setting``: further fields of :class:`Setting`, e.g.
    ``gpu_memory_gib=24, gpus=1, precision="nf4", tokens=256``. Raises :class:`SpecError` for what cannot be
    run or planned.
    """
    for key in setting:
        if key not in Setting.__dataclass_fields__:
            raise SpecError("plan: " + unknown("setting", key, Setting.__dataclass_fields__))
    chosen = dict(options or {})
    for name, value in (("trainable", trainable), ("batch_size", batch_size)):
        if value is not None and name not in recipe(method).defaults:
            raise SpecError(
                f"plan: {method!r} has no option {name!r}; it has"
                f" {', '.join(sorted(recipe(method).defaults))}."
            )
        chosen |= {} if value is None else {name: value}
    shapes.config_of(model)
    tokens = setting.get("tokens", 256)
    s = Setting(
        model=model, method=method, options=tuple(sorted(chosen.items())), **setting,
        labels=max(1, round(LABEL_SHARE * tokens)) if labels is None else labels,
        target_beside=model.partition("/")[0] in PRESETS if target_beside is None else target_beside,
    )  # fmt: skip
    anatomy.cache_clear()  # a folder's config may have changed
    found = predict(s)
    return found if found.fits else replace(found, remedies=remedies(s))


def predict(s: Setting) -> Plan:
    """The plan of a setting, without remedies."""
    stages = {x.name: x for x in s.training}
    anatomies = [s.anatomy(x.trainable) for x in stages.values()] or [s.anatomy(Full())]
    parts = {name: stage_parts(x, s) for name, x in stages.items()} or {"": model_parts(anatomies[0], s)}
    worst = max(parts, key=lambda name: max(phase_bytes(parts[name]).values()))
    costs = [stage_flops(x, s) for x in stages.values()]
    return Plan(
        setting=s,
        parameters=anatomies[0].parameters,
        trained_parameters=max(x.moving for x in anatomies) if stages else 0,
        stage=worst,
        parts=tuple(parts[worst]),
        phases=phase_bytes(parts[worst]),
        host_bytes=sum(reference_of(x, s, a)[0] for x, a in zip(stages.values(), anatomies, strict=False)),
        steps=sum(n for _, _, n in costs),
        flops=sum(step * n + once for step, once, n in costs),
    )


def remedies(s: Setting) -> tuple[Remedy, ...]:
    """What each single change that helps would do, those that keep the result first; if none is enough, what
    all of them would.
    """

    def best(field: str, values: Sequence[Any]) -> dict[str, Any]:
        """The first value that is enough, else the last."""
        trials = ({field: v} for v in values)
        return next((t for t in trials if predict(replace(s, **t)).fits), {field: values[-1]})

    found: list[tuple[str, str, dict[str, Any]]] = []
    rows = max((s.rows(x) for x in s.training), default=1)
    if rows > 1:
        change = best("micro_tokens", [max(1, rows >> k) * s.tokens for k in range(1, rows.bit_length())])
        found.append(
            (
                f"micro-batches of {change['micro_tokens'] // s.tokens} rows",
                f"REPROLIB_MICRO_TOKENS={change['micro_tokens']}; slower, same result",
                change,
            )
        )
    if s.training and not s.checkpointing:
        how = "REPROLIB_GRADIENT_CHECKPOINTING=1; slower, same result"
        found.append(("gradient checkpointing", how, {"checkpointing": True}))
    if counts := [n for n in (2, 4, 8, 16) if n > s.gpus]:
        change = best("gpus", counts)
        how = "sharded by FSDP (study/gpu/accelerate/fsdp.yaml, so far run on two CPU processes); same result"
        found.append((f"{change['gpus']} GPUs", how, change))
    trainable = "trainable" in recipe(s.method).defaults
    full = any(not x.trainable.adapter for x in s.training)
    lora = {"options": tuple(sorted({**dict(s.options), "trainable": "lora-16"}.items()))} if full else {}
    if full and trainable:
        found.append(("LoRA", "trainable=lora-16; fewer weights move", lora))
    if s.training and s.precision != "nf4" and (trainable or not full):
        found.append(
            (
                "NF4 base" + " with LoRA" * full,
                "precision=nf4; another model to begin with",
                {"precision": "nf4", **lora},
            )
        )
    together: dict[str, Any] = {}
    out, present = [], predict(s).peak_bytes
    for name, how, change in found:
        try:
            changed = replace(s, **change)
        except SpecError:  # this method has no such variant
            continue
        peak = predict(changed).peak_bytes
        if peak >= present:  # no remedy
            continue
        out.append(Remedy(name, how, changed, peak))
        together |= {} if "gpus" in change else change
    if len(out) > 1 and not any(r.fits for r in out):
        changed = replace(s, **together)
        out.append(Remedy("all of these but more GPUs", "at once", changed, predict(changed).peak_bytes))
    return tuple(out)
