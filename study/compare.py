"""A study made again beside the committed one: are its numbers the same, and if not, within their intervals?

Intervals are those that pages print, taken over the seeds that were made again: 95 % over documents, and over
seeds where there are several. Of many readings a few lie outside by chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from reprolib.errors import RecordError, ReprolibError
from reprolib.metrics.resample import Interval
from reprolib.places import results_dir
from reprolib.record import Record, read
from reprolib.spec import Spec
from study.readings import quantities
from study.readings.intervals import interval
from study.readings.quantities import READINGS

KINDS = ("records", "wide", "stress")  # folders of results/, by suite
SLACK = 1e-9  # of rounding in records


@dataclass(frozen=True)
class Again:
    """One setting, on the seeds that were made again."""

    committed: tuple[Record, ...]
    made: tuple[Record, ...]

    @property
    def name(self) -> str:
        s = self.made[0].spec
        usual = {f.name: f.default for f in fields(Spec)}
        own = {k: getattr(s, k) for k in usual if k not in ("testbed", "method", "seed", "options")}
        named = {**{k: v for k, v in own.items() if v != usual[k]}, **dict(sorted(s.options.items()))}
        seeds = ", ".join(str(r.spec.seed) for r in self.made)
        settings = [f"{k} {v}" for k, v in named.items()]
        return ", ".join(
            [f"{s.method} on {s.testbed}", *settings, f"seed{'s' * (len(self.made) > 1)} {seeds}"]
        )

    @property
    def differ(self) -> int:
        """How many records do not hold the same scores, to the last digit and row by row, and the same
        status.
        """
        pairs = zip(self.committed, self.made, strict=True)
        return sum((a.status, a.metrics, a.rows) != (b.status, b.metrics, b.rows) for a, b in pairs)

    @cached_property
    def findings(self) -> tuple[list[str], list[str]]:
        """(what is outside its interval, what differs and has none), a line each."""
        outside, unjudged = [], []
        if not self.differ:
            return outside, unjudged
        for a, b in zip(self.committed, self.made, strict=True):
            if a.status != b.status:
                outside.append(f"seed {a.spec.seed} is {b.status}, committed {a.status}")
        if self.made[0].spec.suite == "core":
            for name, old, new in self._readings():
                said = f"{name:18} {new:.4f}, committed {old.estimate:.4f}"
                if math.isfinite(old.low) and math.isfinite(old.high):
                    if not old.low - SLACK <= new <= old.high + SLACK:  # also where there is no new one
                        outside.append(f"{said} [{old.low:.4f}, {old.high:.4f}]")
                elif math.isfinite(old.estimate) != math.isfinite(new):
                    outside.append(said)
                elif math.isfinite(new) and abs(new - old.estimate) > SLACK:
                    unjudged.append(f"{said}, no interval")
        else:
            pairs = list(zip(self.committed, self.made, strict=True))
            names = sorted(
                {
                    k
                    for a, b in pairs
                    for k in {*a.metrics, *b.metrics}
                    if a.metrics.get(k) != b.metrics.get(k)
                }
            )
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            unjudged += [f"{len(names)} metrics without an interval: {shown}"] if names else []
        return outside, unjudged

    def _readings(self) -> Iterator[tuple[str, Interval, float]]:
        """(reading, the committed mean with its interval, the new mean); NaN where a record does not have
        it.
        """

        def value(record: Record, name: str) -> float:
            try:
                return quantities.value(record, name)
            except (
                KeyError,
                TypeError,
                ValueError,
                ReprolibError,
            ):  # its rows are not there, or hold nothing to read
                return math.nan

        for name in READINGS:
            old = Interval(statistics.fmean(value(r, name) for r in self.committed), math.nan, math.nan, 0)
            if math.isfinite(old.estimate):
                old = interval(self.committed, name)
            # not summary.interval, which keeps what it found by fingerprints: those of both are the same
            yield name, old, statistics.fmean(value(r, name) for r in self.made)


def compare(folder: Path | str) -> tuple[list[Again], int, list[str]]:
    """Settings with records both in ``folder`` (of a results directory) and in ``results/``; how many records
    only ``folder`` has; what could not be read there.
    """
    folder, base = Path(folder), results_dir()
    if not any((folder / kind).is_dir() for kind in KINDS):
        holds = f"holds none of {', '.join(KINDS)}"
        what = "is not there" if not folder.exists() else "is no folder" if not folder.is_dir() else holds
        raise RecordError(
            f"{folder} {what}; give a results folder: what REPROLIB_RESULTS named in the rerun."
        )
    if folder.resolve() == base.resolve():
        raise RecordError(
            f"{folder} is the folder that it would be compared with; give the rerun's, with"
            " REPROLIB_RESULTS unset."
        )
    found: dict[str, list[tuple[Record, Record]]] = {}
    new, bad = 0, []
    for kind in KINDS:
        for path in sorted((folder / kind).rglob("*.json")):
            try:
                made = _named(path)
                # by what stands in the record: defaults of a recipe may have moved since it was made
                place = base / path.relative_to(folder).parent
                committed = next(iter(sorted(place.glob(f"*-{made.fingerprint}.json"))), None)
                other = _named(committed) if committed else None
            except (ReprolibError, KeyError, TypeError, ValueError) as error:
                bad.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
                continue
            if other is None:
                new += 1
            else:
                setting = {k: v for k, v in made.spec.to_dict().items() if k != "seed"}
                found.setdefault(f"{kind}/{path.parent}/{sorted(setting.items(), key=str)}", []).append(
                    (other, made)
                )
    settings = []
    for pairs in found.values():
        pairs.sort(key=lambda p: p[1].spec.seed)
        settings.append(Again(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))
    return settings, new, bad


def _named(path: Path) -> Record:
    """A record whose content is that of its file's name."""
    record = read(path)
    if not path.stem.endswith(f"-{record.fingerprint}"):
        raise RecordError(f"{path} holds run {record.fingerprint}, not that of its name.")
    return record


def report(settings: list[Again], new: int, bad: list[str]) -> Iterator[str]:
    """What differs, setting by setting, and a line for all."""
    outside = unjudged = 0
    for a in settings:
        if a.differ:
            out, open_ = a.findings
            outside, unjudged = outside + len(out), unjudged + len(open_)
            yield f"{a.name}: {a.differ} of {len(a.made)} differ" + (
                ", all readings within" if not out and not open_ else ""
            )
            yield from (f"    outside     {line}" for line in out)
            yield from (f"    not judged  {line}" for line in open_)
    yield from (f"cannot be read: {line}" for line in bad)
    runs, differ = sum(len(a.made) for a in settings), sum(a.differ for a in settings)
    yield (
        f"{runs} runs made again, beside those of {results_dir()}: {runs - differ} with the same scores to"
        f" the last digit, {differ} with others; outside their 95 % interval: {outside}, not judged:"
        f" {unjudged}, not among the committed runs: {new}, unreadable: {len(bad)}."
    )
