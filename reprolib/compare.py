"""A study made again beside the committed one: are its numbers the same, and if not, within the intervals that pages print?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reprolib.errors import RecordError
from reprolib.metrics.statistics import Interval
from reprolib.record import Record, path_of, read, results_dir
from reprolib.spec import Spec


@dataclass(frozen=True, slots=True)
class Again:
    """One setting, on the seeds that were made again."""

    committed: tuple[Record, ...]
    made: tuple[Record, ...]

    @property
    def name(self) -> str:
        s = self.made[0].spec
        options = "".join(f", {k} {v}" for k, v in sorted(s.options.items()))
        seeds = ", ".join(str(r.spec.seed) for r in self.made)
        return f"{s.method} on {s.testbed}{options}, seed{'s' * (len(self.made) > 1)} {seeds}"

    @property
    def identical(self) -> int:
        """How many records hold the same scores to the last digit, row by row."""
        return sum(a.metrics == b.metrics and a.rows == b.rows for a, b in zip(self.committed, self.made, strict=True))

    def readings(self) -> dict[str, tuple[Interval, float]]:
        """Reading -> the committed mean with its 95 % interval (over documents, and over seeds if there are several), the new mean.

        Those that a run does not have are left out.
        """
        from reprolib.report import summary

        out = {}
        for name in summary.READINGS:
            old = summary.interval(self.committed, name)
            if math.isfinite(old.low) and math.isfinite(old.high):
                # not summary.interval, which keeps what it found by fingerprints: those of both are the same
                out[name] = (old, statistics.mean(summary.value(r, name) for r in self.made))
        return out

    def outside(self) -> dict[str, tuple[Interval, float]]:
        """The readings whose new mean is not within the committed interval."""
        if self.identical == len(self.made):
            return {}
        slack = 1e-9  # of rounding in records
        return {k: (i, v) for k, (i, v) in self.readings().items() if not i.low - slack <= v <= i.high + slack}


def compare(folder: Path | str) -> tuple[list[Again], int]:
    """Settings with records both in ``folder`` (of a results directory) and in ``results/``, and how many records are new there."""
    folder = Path(folder)
    own = folder / "records"
    if not own.is_dir():
        raise RecordError(f"{folder} holds no folder records/; give a results folder: what REPROLIB_RESULTS named in the rerun.")
    if own.resolve() == (results_dir() / "records").resolve():
        raise RecordError(f"{folder} is the folder that it would be compared with; give the rerun's, with REPROLIB_RESULTS unset.")
    found: dict[str, list[tuple[Record, Record]]] = {}
    new = 0
    for path in sorted(own.rglob("*.json")):
        made = read(path)
        committed = path_of(made.spec)
        if not committed.exists():
            new += 1
            continue
        found.setdefault(_but_seed(made.spec), []).append((read(committed), made))
    settings = []
    for pairs in found.values():
        pairs.sort(key=lambda p: p[1].spec.seed)
        settings.append(Again(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))
    return settings, new


def _but_seed(spec: Spec) -> str:
    return repr(sorted((k, v) for k, v in spec.to_dict().items() if k != "seed"))


def report(settings: Sequence[Again], new: int) -> str:
    """What differs, setting by setting, and a line for all."""
    lines = []
    for a in settings:
        differ, out = len(a.made) - a.identical, a.outside()
        if differ:
            where = f"{len(out)} readings outside:" if out else "all within"
            lines.append(f"{a.name}: {differ} of {len(a.made)} differ, {where}")
        for name, (i, v) in out.items():
            lines.append(f"    {name:18} {v:.4f}, committed {i.estimate:.4f} [{i.low:.4f}, {i.high:.4f}]")
    runs, same = sum(len(a.made) for a in settings), sum(a.identical for a in settings)
    outside = sum(len(a.outside()) for a in settings)
    lines.append(
        f"{runs} runs made again: {same} with the same scores to the last digit, {runs - same} with others; "
        f"{outside} readings outside their 95 % interval." + (f" {new} runs are not among the committed ones." if new else "")
    )
    return "\n".join(lines)
