"""The search for each method's options: a few recorded trials on a seed of its own, and the rule that picks
one.

**The rule** goes by the one measure that the book ranks by, the distance to the twin over five readings
(:func:`study.readings.twin.distance`), behind one gate on forgetting:

1. Eligible are trials whose five readings are all finite; a diverged one too, with the weights that it
  stopped at. A trial that
   failed (raised an error) is kept and shown, but not eligible.
2. A trial *forgets enough* if it ends with at most ``LEVEL`` (10 %) of the forget questions answered.
3. Of the trials that forget enough, the one with the smallest distance to the twin of the same seed.
  Distances within 0.01 of it
   count as equal to it: of those the smaller learning rate, then the order in ``study.yml``.
4. If none forgets enough, the one that answers fewest forget questions; within 0.01 of it, the smaller
  distance, then again the
   smaller learning rate and the order. The choice then says that it does not forget enough.

This is the second rule. A first one looked at retain rows only and also asked for forget passages as low as
the twin's; it was replaced, after the trials of about two thirds of the methods had been seen and before any
run on the reported seeds of the methods that were searched by it, because it chose by other quantities than
the book ranks by. The first four methods (gradient ascent, gradient descent, gradient difference and NPO)
follow this rule too; they had been run on the reported seeds before either rule was written.

Which options are tried, and how many, stands in ``study.yml``. The search looks at rows that the study
reports on, of models with another seed, and uses the twin, which nobody has in practice; it is small, one
seed wide, and its budget is not the same for all methods: the page of the search shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprolib.errors import ReprolibError, SpecError, unknown
from reprolib.places import results_dir
from reprolib.recipes import BASELINES, METHODS, recipe, recipes
from reprolib.record import Record, find, path_of, read
from reprolib.spec import Spec
from study.grid import Search
from study.readings import gate
from study.readings import twin as _twin
from study.readings.quantities import value
from study.readings.twin import EQUAL, HEADS, READINGS, between, enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial, as the rule sees it. ``readings`` and ``twin``: by the names of ``READINGS``."""

    options: Mapping[str, Any]
    status: str  # done, diverged, failed or missing
    readings: Mapping[str, float] = field(default_factory=dict)
    twin: Mapping[str, float] = field(default_factory=dict)
    lr: float = math.inf  # with the recipe's default where the options name none
    default: bool = False  # the options are those of the recipe
    reason: str = ""  # why it diverged or failed
    seconds: float = math.nan  # of unlearning

    @property
    def eligible(self) -> bool:
        finite = all(math.isfinite(self.readings.get(k, math.nan)) for k in ("forget_questions", "distance"))
        return self.status in ("done", "diverged") and finite

    @property
    def enough(self) -> bool:
        return enough(self.readings.get("forget_questions", math.nan))

    @property
    def label(self) -> str:
        return (
            ", ".join(
                f"{k} {v:g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in self.options.items()
            )
            or "defaults"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule picks. ``enough``: whether the pick forgets enough; ``pick``: None if no trial is
    eligible.
    """

    trials: tuple[Trial, ...]
    pick: Trial | None
    enough: bool
    reason: str

    @property
    def default(self) -> Trial | None:
        """The trial at the recipe's defaults, if it was made."""
        return next((t for t in self.trials if t.default), None)


def choose(trials: Sequence[Trial]) -> Choice:
    """The rule of this module, applied to the trials of one method."""
    trials = tuple(trials)
    eligible = [t for t in trials if t.eligible]
    if not eligible:
        return Choice(trials, None, False, "no trial has finite readings")
    able = [t for t in eligible if t.enough]
    if able:
        pick, why = _closest(able)
        return Choice(trials, pick, True, f"{len(able)} of {len(trials)} forget enough; {why}")
    fewest = min(t.readings["forget_questions"] for t in eligible)
    equal = [t for t in eligible if t.readings["forget_questions"] <= fewest + EQUAL + 1e-9]
    near = min(t.readings["distance"] for t in equal)
    pick = min((t for t in equal if t.readings["distance"] <= near + 1e-9), key=lambda t: t.lr)
    return Choice(
        trials,
        pick,
        False,
        f"none forgets enough; this one answers fewest, {pick.readings['forget_questions']:.2f}",
    )


def _closest(trials: Sequence[Trial]) -> tuple[Trial, str]:
    """The trial closest to the twin, and what decided."""
    least = min(t.readings["distance"] for t in trials)
    equal = [t for t in trials if t.readings["distance"] <= least + EQUAL + 1e-9]
    slow = min(t.lr for t in equal)
    slowest = [t for t in equal if t.lr == slow]
    if len(equal) == 1:
        return equal[0], "the smallest distance"
    if len(slowest) == 1:
        return slowest[0], f"the smallest learning rate of {len(equal)} with about the same distance"
    return slowest[0], f"the first of {len(slowest)} with about the same distance"


def trial(spec: Spec, record: Record | None, twin: Record | None) -> Trial:
    """What the rule needs of a record. ``record``: None if there is none; ``twin``: of the same seed."""
    lr = {**recipe(spec.method).defaults, **spec.options}.get("lr", math.inf)
    plain = Spec(testbed=spec.testbed, method=spec.method, seed=spec.seed)
    known = {
        "options": dict(spec.options),
        "lr": float(lr),
        "default": plain.fingerprint == spec.fingerprint,
    }
    if record is None:
        return Trial(status="missing", **known)
    if record.status == "failed":
        return Trial(status="failed", reason=record.reason, **known)
    return Trial(
        status=record.status, reason=record.reason, readings=_readings(record, twin) if twin else {},
        twin=_readings(twin, twin) if twin else {}, seconds=record.cost.get("train_s", math.nan), **known,
    )  # fmt: skip


def _readings(record: Record, twin: Record) -> dict[str, float]:
    out = _twin.readings(record) | {
        "retain_passages": value(record, "retain_passages"),
        "distance": between(record, twin),
    }
    return {k: out[k] for k in READINGS}


def gather(search: Search, method: str, *, compute: bool = True, retry: bool = False) -> Choice:
    """The trials of a method and the rule's choice: records are read, missing ones computed if ``compute``
    says so.

    A run that raised an error is shown as failed; ``retry`` runs it again.
    """
    specs = check(search, method).of(method)
    twin = _record(search.twin, compute, True)
    return choose([trial(s, _record(s, compute, retry), twin) for s in specs])


def _record(spec: Spec, compute: bool, retry: bool) -> Record | None:
    found = find(spec)
    failed = results_dir() / "failed" / path_of(spec).name
    if found or (failed.exists() and not (compute and retry)):
        return found or read(failed)
    if not compute:
        return None
    try:
        return gate.record(spec)
    except ReprolibError:
        raise
    except Exception:
        if not failed.exists():
            raise
        return read(failed)  # one broken trial must not keep the others from being made


def check(search: Search | None, method: str) -> Search:
    """The search, if it has trials of this method; an error that names what to do otherwise."""
    if search is None:
        raise SpecError(
            "study.yml has no section 'search'; add one with testbed, seed and trials (see study/search.py)."
        )
    if method not in search.trials:
        known = [m for m in recipes() if m in METHODS or m in search.trials]
        if method not in recipes():
            raise SpecError(unknown("method", method, known))
        if method in BASELINES:
            raise SpecError(
                f"{method!r} belongs to the sanity ladder and has no options to search; name a method."
            )
        raise SpecError(
            f"method {method!r} has no trials; add them to study.yml, e.g. search: trials: {method}:"
            f" [{{lr: 0.0005}}]. With trials: {', '.join(search.trials)}."
        )
    search.differ(method)
    return search


def main(methods: Sequence[str], *, every: bool = False, dry_run: bool = False) -> int:
    """What ``study search`` does: make missing trials, print them and what the rule picks."""
    search = Search.load()
    if not methods and not every:
        raise SpecError("search: name a method that has trials in study.yml, or give --all.")
    if every and search is None:
        check(search, "")
    methods = tuple(search.trials) if every else tuple(dict.fromkeys(methods))
    for m in methods:  # all of them, before anything is computed
        check(search, m)
    failed = 0
    for m in methods:
        choice = gather(search, m, compute=not dry_run, retry=True)
        failed += sum(t.status == "failed" for t in choice.trials)
        print(text(m, choice, search), end="\n\n")
    return 1 if failed and not dry_run else 0


def text(method: str, choice: Choice, search: Search) -> str:
    """The trials of a method as a table of plain text, and the verdict."""
    head = ("", "trial", "status", "forgets enough", *HEADS, "")
    rows = [head]
    for t in choice.trials:
        rows.append(
            (
                ">" if t is choice.pick else "",
                t.label,
                t.status,
                ("yes" if t.enough else "no") if t.eligible else "",
                *(_number(t.readings.get(k)) for k in READINGS),
                "default" if t.default else "",
            )
        )
    twin = next((t.twin for t in choice.trials if t.twin), None)
    if twin:
        rows.append(("", "twin", "", "", *(_number(twin[k]) for k in READINGS), ""))
    width = [max(len(r[i]) for r in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, width, strict=True)).rstrip() for r in rows]
    title = f"{method} on {search.testbed}, seed {search.seed}: {len(choice.trials)} trials"
    why = [f"  {t.label}: {t.status}: {t.reason}" for t in choice.trials if t.reason]
    return "\n".join([title, *lines, *why, verdict(choice)])


def verdict(choice: Choice) -> str:
    """Whether the rule's pick is what the recipe has, in a sentence."""
    missing = sum(t.status == "missing" for t in choice.trials)
    if missing == len(choice.trials):
        return "no trial has been made."
    told = f" {missing} of {len(choice.trials)} trials are missing, so this may change." if missing else ""
    if choice.pick is None:
        return f"no pick: {choice.reason}.{told}"
    if choice.pick.default:
        same = "the recipe's default"
    else:
        same = "not the recipe's default" + ("" if choice.default else ", which was not tried")
    return f"pick: {choice.pick.label} ({choice.reason}); {same}.{told}"


def _number(x: float | None) -> str:
    return "" if x is None or not math.isfinite(x) else f"{x:.3f}"
