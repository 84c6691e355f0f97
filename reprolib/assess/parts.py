"""The parts of an evaluation: which are wanted, which are finished, what each may return."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from reprolib import probes
from reprolib.assess.result import LABELS, SUITES, Result
from reprolib.corpus.mmlu import load
from reprolib.errors import SpecError, unknown
from reprolib.evaluate.passes import kl_to
from reprolib.evaluate.subject import WRITTEN, Subject
from reprolib.evaluate.summary import core
from reprolib.places import finite, write_whole
from reprolib.probes import harness as engine
from reprolib.probes import mmlu as own
from reprolib.probes.base import Probe
from reprolib.versions import METRICS_VERSION
from reprolib.versions import SUITES as VERSIONS

# --- the core part
# -------------------------------------------------------------------------------------------


def core_part() -> Probe:
    """The core evaluation as a part: :func:`reprolib.evaluate.summary.core`, and what the leaderboard's own
    lists say.
    """
    return Probe(
        name="core", title="Core evaluation", suite="core", ask=_ask_core,
        cost="one forward pass over all rows, and one generation of what is not known by heart",
    )  # fmt: skip


def _ask_core(subject: Subject):
    import numpy as np

    exam, s = subject.exam, subject.scores
    target = subject.reference("target")
    if target is not None:
        s.kl = kl_to(target, subject.lm, exam, max(1, subject.batch_tokens // 2))
    found = core(subject)
    groups, kinds = np.array(found.rows["group"]), np.array(found.rows["kind"])
    score = np.array([math.nan if v is None else v for v in found.rows["score"]], float)
    for g in WRITTEN:
        for kind in ("sc", "qa"):
            own = score[(groups == g) & (kinds == kind)]
            if len(own):
                found.metrics[f"{g}/{kind}/score"] = float(own.mean())
    return found


def wanted_parts(
    suites: tuple[str, ...] | None, only: tuple[str, ...], mmlu: bool, harness: bool
) -> tuple[tuple[str, ...], bool]:
    """Names of the parts to score, in order. Known before anything is loaded, so that a slip costs
    nothing.
    """
    own = {"mmlu": mmlu, "harness": harness}
    known = {
        "core": "core",
        **{p.name: p.suite for p in probes.probes().values()},
        **dict.fromkeys(own, "data"),
    }
    for suite in suites or ():
        if suite not in SUITES:
            raise SpecError(unknown("suite", suite, SUITES))
    for name in only:
        if name not in known:
            raise SpecError(unknown("part", name, known))
        if name in own and not own[name]:
            raise SpecError(
                f"part {name!r} needs {'--mmlu DIR (or a hub id)' if name == 'mmlu' else '--harness TASKS'}."
            )
    if suites is not None and "data" in suites and not any(own.values()):
        raise SpecError(
            "the data suite needs --mmlu (a folder or hub id of MMLU) or --harness (tasks of lm-eval)."
        )
    chosen = suites or (("core", "wide") + (("data",) if any(own.values()) else ()))
    picked = [
        n for n, suite in known.items() if (n in only if only else suite in chosen) and own.get(n, True)
    ]
    return tuple(sorted(picked, key=lambda n: (SUITES.index(known[n]), n != "core"))), bool(only)


def chosen_parts(wanted, mmlu, per_subject, harness, seed: int, batch_tokens: int) -> list[tuple[Probe, Any]]:
    """Each part with what its results depend on besides the model, the data and the settings of the run."""
    out: list[tuple[Probe, Any]] = []
    for name in wanted[0]:
        if name == "core":
            out.append((core_part(), METRICS_VERSION))
        elif name == "mmlu":
            questions = load(mmlu, per_subject=per_subject, seed=seed)
            probe = own.probe(questions, batch_tokens=batch_tokens)
            out.append((probe, [own.VERSION, questions.fingerprint, own.SHOTS, own.CONTEXT]))
        elif name == "harness":
            out.append((engine.probe(harness), [engine.VERSION, list(harness)]))
        else:
            probe = probes.probes()[name]
            out.append((probe, VERSIONS.get(probe.suite, 0)))
    return out


def check_answer(probe: Probe, answer, subject: Subject) -> None:
    foreign = [k for k in answer.metrics if probe.suite != "core" and not k.startswith(f"{probe.name}/")]
    uneven = [k for k, v in answer.rows.items() if probe.suite != "data" and len(v) != len(subject.rows)]
    texts = [k for k, v in answer.rows.items() if k not in LABELS and any(isinstance(x, str) for x in v)]
    for names, what in (
        (foreign, f"metrics must be named '{probe.name}/...'"),
        (uneven, "columns must have one value a row"),
        (texts, "columns must hold numbers, no text"),
    ):
        if names:
            raise SpecError(f"probe {probe.name!r} returned {names[0]!r}, but its {what}.")


def finished(path: Path, key: str) -> Result | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("fingerprint") != key:
            return None
        raw["metrics"] = {k: math.nan if v is None else v for k, v in raw["metrics"].items()}
        return Result(**raw)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # absent, or broken: it is computed (again)
        return None


def keep_result(path: Path, key: str, result: Result) -> None:
    write_whole(path, json.dumps(finite({"fingerprint": key, **dataclasses.asdict(result)})))
