"""Runs at true size beside each other: models of two sizes, and bases of several precisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reprolib.record import Record
from study.readings.quantities import LADDER
from study.readings.twin import between
from study.report import arms, style
from study.report.true_size.files import runs
from study.report.words import say

SIZES = {"olmo-1b": "1B", "olmo-7b": "7B"}  # how a model's name begins -> its size

KINDS = {  # how it ends -> what it began with; else random weights
    "-0724": " (pretrained)",
    "-semeval": " (organisers' target)",
}

BITS = {"nf4": "4 bits", "int8": "8 bits"}
RATES = ("phase2_lr", "lr")  # of an arm, the first that a run names


def further(record: Record) -> str:
    """The options that make a run of another arm than those that differ from it in rate only, e.g. settings
    as published.
    """
    return "".join(
        f", {k} {v:g}" if isinstance(v, float) else f", {k} {v}"
        for k, v in sorted(record.spec.options.items())
        if k not in (*RATES, "trainable")
    )


def what(record: Record) -> str:
    """Method, its options, weights that move and the base's precision: what two runs have in common that
    differ in size, rate or seed.
    """
    s = record.spec
    trainable = str(s.options.get("trainable", ""))
    kind, _, rest = trainable.partition("-")
    moved = (
        "LoRA " + rest.replace("-", "/")
        if kind == "lora"
        else f"last {rest} blocks"
        if kind == "last"
        else trainable.replace("full", "")
    )
    return ", ".join(
        x
        for x in (
            style.label(s.method) + further(record),
            moved,
            "" if s.precision == "fp32" else BITS.get(s.precision, s.precision),
        )
        if x
    )


def grouped(records: Sequence[Record], label: Callable[[Record], str | None]) -> dict[str, arms.Arm]:
    """Runs as arms: those with one label differ in learning rate and seed. Without a label, or a twin of its
    own, a run is left out.
    """
    twins = {(r.spec.testbed, r.spec.seed): r for r in records if r.spec.method == "twin"}
    found: dict[str, dict[str, list[Record]]] = {}
    for r in records:
        name = label(r)
        if name is not None and r.spec.method not in LADDER and (r.spec.testbed, r.spec.seed) in twins:
            options = {k: v for k, v in r.spec.options.items()}
            found.setdefault(name, {}).setdefault(json.dumps(options, sort_keys=True), []).append(r)
    out = {}
    for name, settings in found.items():
        own = [
            arms.Setting(
                next((same[0].spec.options[k] for k in RATES if k in same[0].spec.options), None),
                tuple(same),
                tuple(arms.kept(r) for r in same),
                tuple(between(r, twins[r.spec.testbed, r.spec.seed]) for r in same),
            )
            for same in settings.values()
        ]
        out[name] = arms.Arm(name, settings[next(iter(settings))][0].spec.method, tuple(own))
    return out


def size(record: Record) -> str | None:
    """1B or 7B; None for a model of another family."""
    return next((s for name, s in SIZES.items() if record.spec.testbed.startswith(name)), None)


def both_sizes(base: Path | str | None = None) -> dict[str, arms.Arm]:
    """What was run on OLMo-1B and on OLMo-7B of the same kind (:data:`KINDS`), one below the other."""
    every = grouped(runs(base), lambda r: f"{what(r)}{_kind(r)}: {size(r)}" if size(r) else None)
    names = {label.rpartition(": ")[0] for label in every}
    both = sorted(n for n in names if all(f"{n}: {s}" in every for s in SIZES.values()))
    return {f"{n}: {s}": every[f"{n}: {s}"] for n in both for s in SIZES.values()}


def _kind(record: Record) -> str:
    model = record.spec.testbed.partition("/")[0]
    return next((kind for end, kind in KINDS.items() if model.endswith(end)), "")


def bases(base: Path | str | None = None) -> dict[str, arms.Arm]:
    """LoRA of rank 64 and alpha 16 on a base in each precision, for every model and method of which there are
    two precisions or more.
    """
    found = [r for r in runs(base) if r.spec.options.get("trainable") == "lora-64-16"]

    def about(r: Record) -> str:
        return f"{r.spec.testbed.partition('/')[0]}: {style.label(r.spec.method)}{further(r)}"

    precisions: dict[str, set[str]] = {}
    for r in found:
        precisions.setdefault(about(r), set()).add(r.spec.precision)
    twins = [r for r in runs(base) if r.spec.method == "twin"]
    every = grouped(
        [*twins, *found],
        lambda r: f"{about(r)}, {r.spec.precision}" if len(precisions.get(about(r), ())) > 1 else None,
    )
    return dict(sorted(every.items()))


def figure(found: Mapping[str, arms.Arm], caption: str) -> Any:
    """The arms as dots, or a sentence that there are none and which command makes them."""
    if not found:
        return say(
            "Nothing was measured at true size yet: `python -m study.gpu run olmo-1b olmo-7b` makes these"
            " runs, see `study/gpu/README.md`."
        )
    return style.show(*arms.figure(found), caption)


def table(found: Mapping[str, arms.Arm]) -> Any:
    """Every setting of the arms; nothing where there are none."""
    return arms.table(found) if found else None
