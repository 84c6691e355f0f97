"""Ablations by arms: what differs is one thing, every arm has the same number of learning rates, and arms are compared where all have
forgotten equally much.

Two readings decide. *Kept*: the mean of retain and world questions when the forget questions first come down to a tenth, read off the
trajectory, so that an arm that is merely gentler has no advantage. *Distance*: to the twin of the same seed, at the run's end. Each arm
shows its best setting by each of them. It is chosen on the seeds that are shown, for all arms alike: arms may be compared with each
other, but each looks a little better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt

from reprolib.errors import SpecError, unknown
from reprolib.experiment import run
from reprolib.metrics.statistics import SeedsInterval, seeds_interval
from reprolib.record import Record
from reprolib.report import style
from reprolib.report.page import between, seeds, within
from reprolib.report.summary import at_level
from reprolib.report.tables import Table, cell, number
from reprolib.search import LEVEL

KEYS = ("method", "options", "rate", "rates", "precision", "forget_documents", "forget_rows")
KEPT, DISTANCE = "kept", "distance"
HEADS = {KEPT: f"kept at {LEVEL:.0%} of the forget questions", DISTANCE: "distance to the twin at the end"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One learning rate of an arm."""

    rate: float | None
    records: tuple[Record, ...]  # by seed
    kept: tuple[float, ...]  # NaN for a seed that never gets there
    distance: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    label: str
    method: str
    settings: tuple[Setting, ...]

    def best(self, reading: str) -> Setting:
        """The setting with the most kept (of those whose seeds all get there, if there are any) or the smallest distance."""
        if reading == DISTANCE:
            return min(self.settings, key=lambda s: (_mean(s.distance) != _mean(s.distance), _mean(s.distance)))
        there = {id(s): sum(math.isfinite(v) for v in s.kept) for s in self.settings}
        return max(self.settings, key=lambda s: (there[id(s)], _mean(s.kept)))

    def values(self, reading: str) -> tuple[float, ...]:
        return getattr(self.best(reading), reading)


Arms = Mapping[str, Arm]


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else -math.inf


def fields(label: str, arm: Mapping[str, Any]) -> list[tuple[float | None, dict[str, Any]]]:
    """(learning rate, fields of a run) for each setting of an arm as a page's parameters give it."""
    for key in arm:
        if key not in KEYS:
            raise SpecError(f"arm {label!r}: " + unknown("key", key, KEYS))
    if "method" not in arm:
        raise SpecError(f"arm {label!r}: method is missing; allowed keys: {', '.join(KEYS)}.")
    common = {k: v for k, v in arm.items() if k not in ("options", "rate", "rates")}
    options = dict(arm.get("options", {}))
    if not arm.get("rates"):
        return [(None, common | ({"options": options} if options else {}))]
    return [(rate, common | {"options": {**options, arm.get("rate", "lr"): rate}}) for rate in arm["rates"]]


def gather(arms: Mapping[str, Mapping[str, Any]], testbed: str, seed: int | None = None) -> dict[str, Arm]:
    """Records of every arm, read where they exist and computed where not."""
    chosen = seeds(seed)
    twins = {s: run(testbed=testbed, method="twin", seed=s) for s in chosen}
    out = {}
    for label, arm in arms.items():
        settings = []
        for rate, own in fields(label, arm):
            records = tuple(run(testbed=testbed, seed=s, **own) for s in chosen)
            settings.append(Setting(
                rate, records, tuple(kept(r) for r in records),
                tuple(between(r, twins[s]) for r, s in zip(records, chosen, strict=True)),
            ))  # fmt: skip
        out[label] = Arm(label, arm["method"], tuple(settings))
    return out


def kept(record: Record) -> float:
    """Mean of retain and world questions when the level is first reached; NaN if it never is."""
    found = at_level(record, LEVEL)
    return math.nan if found is None else (found["retain/questions"] + found["world/accuracy"]) / 2


def difference(arms: Arms, a: str, b: str, reading: str = KEPT) -> SeedsInterval | None:
    """a - b, seed by seed, each at its best setting, with a t interval over seeds; None if fewer than two seeds have both."""
    pairs = zip(arms[a].values(reading), arms[b].values(reading), strict=True)
    both = [x - y for x, y in pairs if math.isfinite(x - y)]
    return seeds_interval(both) if len(both) > 1 else None


def compare(arms: Arms, a: str, b: str, reading: str = KEPT) -> str:
    """A sentence: which of two arms keeps more (or ends nearer to the twin), and whether seeds tell them apart."""
    found = difference(arms, a, b, reading)
    if found is None:
        silent = [x for x in (a, b) if not any(math.isfinite(v) for v in arms[x].values(reading))]
        return f"**{a}** and **{b}** cannot be compared" + (f": {' and '.join(silent)} never gets there." if silent else " on one seed.")
    means = " and ".join(f"{_shown(arms[x].values(reading), reading)}" for x in (a, b))
    apart = found.low > 0 or found.high < 0
    if reading == KEPT:
        size = f"{100 * found.estimate:+.0f} points [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"
        verb = ("keeps more than" if found.estimate > 0 else "keeps less than") if apart else "is not told apart from"
    else:
        size = f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        verb = ("ends farther from the twin than" if found.estimate > 0 else "ends nearer to the twin than") if apart else "is not told apart by its distance from"
    return f"**{a}** {verb} **{b}** ({means}; difference {size})."


def _shown(values: Sequence[float], reading: str) -> str:
    m = _mean(values)
    return "–" if math.isinf(m) else f"{100 * m:.0f}\u202f%" if reading == KEPT else f"{m:.2f}"


def figure(arms: Arms) -> tuple[Any, str]:
    """A row an arm, a panel a reading: dots are seeds of the best setting, bars their intervals, rings the means of other settings."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 1.5 + 0.42 * len(arms)), sharey=True)
    words = []
    for axis, reading in zip(axes, (KEPT, DISTANCE), strict=True):
        said = []
        for y, arm in enumerate(arms.values()):
            shade, best = style.colour(arm.method), arm.best(reading)
            for s in arm.settings:
                m = _mean(getattr(s, reading))
                if s is not best and math.isfinite(m):
                    axis.plot(m, y, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=shade, alpha=0.7, linestyle="")
            values = [v for v in getattr(best, reading) if math.isfinite(v)]
            if len(values) > 1:
                i = within(seeds_interval(values), 1.0)
                axis.plot([i.low, i.high], [y, y], color=shade, linewidth=3, alpha=0.45, solid_capstyle="round")
            axis.plot(values, [y] * len(values), marker=style.marker(arm.method), color=shade, linestyle="")
            said.append(f"{arm.label} {number(_mean(values)) if values else 'never gets there'}")
        axis.set(title=HEADS[reading].replace(" at ", "\nat "), xlabel="share of questions" if reading == KEPT else "distance (0: the twin)")
        axis.grid(axis="y", visible=False)
        words.append(f"{HEADS[reading]}: {', '.join(said)}")
    axes[0].set_xlim(-0.04, 1.04)
    axes[1].set_xlim(left=0)
    axes[0].set_yticks(range(len(arms)), list(arms))
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    ink = {"color": style.INK, "linestyle": ""}
    marks = [plt.Line2D([], [], marker="o", **ink), plt.Line2D([], [], marker="o", markersize=9, markerfacecolor="none", **ink)]
    fig.legend(marks, ["seeds, best setting", "mean of another setting"], loc="outside lower center", ncols=2)
    return fig, "Dot plots with a row an arm. " + "; ".join(words) + "."


CAPTION = (
    "Every setting. At the level: where the run first answers no more than a tenth of the forget questions, by interpolation along the trajectory, "
    "over the seeds that get there; the other columns are the run's end. Means, 95 % t intervals over seeds. KEPT and NEAREST mark the best setting of an arm."
)


def table(arms: Arms) -> Table:
    """Every setting of every arm."""
    rows, data = [], []
    for arm in arms.values():
        for s in arm.settings:
            marks = [m for m, reading in (("KEPT", KEPT), ("NEAREST", DISTANCE)) if len(arm.settings) > 1 and s is arm.best(reading)]
            there = [v for v in s.kept if math.isfinite(v)]
            end = {k: [r.metrics[k] for r in s.records] for k in ("forget/questions", "attack/auc", "retain/questions", "world/accuracy")}
            rows.append({
                "arm": arm.label, "rate": "–" if s.rate is None else f"{s.rate:g}", "best by": ", ".join(marks) or "–",
                "at the level": f"{len(there)} of {len(s.records)}", "kept there": cell(within(seeds_interval(there), 1.0)) if there else "–",
                "distance": cell(within(seeds_interval(s.distance), None)), "forget q.": number(_mean(end["forget/questions"])),
                "AUC": number(_mean(end["attack/auc"])), "retain q.": number(_mean(end["retain/questions"])),
                "world q.": number(_mean(end["world/accuracy"])),
            })  # fmt: skip
            data.append({
                "arm": arm.label, "method": arm.method, "rate": s.rate, "seeds": len(s.records), "seeds_at_level": len(there),
                "kept": round(_mean(there), 4) if there else "", "distance": round(_mean(s.distance), 4),
                **{k: round(_mean(v), 4) for k, v in end.items()},
            })  # fmt: skip
    header = tuple(rows[0])
    return Table(header, tuple(tuple(str(r[k]) for k in header) for r in rows), CAPTION, data=tuple(data))


def records(arms: Arms) -> list[Record]:
    return [r for arm in arms.values() for s in arm.settings for r in s.records]
