"""What the optimizers of variants logged of themselves, and where runs stood after their first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.report.arms.variants import Arm, Arms, Setting, mean_of, records
from study.report.tables import Table


def spread(arms: Arms, names: Mapping[str, str], caption: str = "") -> Table:
    """What the optimizers of every setting said of themselves, mean over seeds and logged steps: ``names``
    maps a logged name to a title.
    """
    rows = []
    for arm in arms.values():
        for s in arm.settings:
            row = {"arm": arm.label, "rate": "–" if s.rate is None else f"{s.rate:g}"}
            for name, title in names.items():
                own = _logged(s, name)
                row[title] = f"{sum(own) / len(own):.3g}" if own else "–"
            if any(row[t] != "–" for t in names.values()):
                rows.append(row)
    return Table.of(rows or [{"arm": "no optimizer logged any of it"}], caption=caption)


def spreads(arm: Arm, whole: bool = True) -> list[float]:
    """How far the weights of an arm's preconditioners spread, at every line of the log at which a run answers
    more than half of the retain questions (``whole``), or no longer does."""
    logged = (
        (p.get("optimizer/weight_spread"), p.get("retain/questions"))
        for r in records({"": arm})
        for p in r.trajectory
    )
    return [v for v, q in logged if v is not None and q is not None and (q > 0.5) == whole]


def acts(arms: Arms, published: str, ours: str) -> str:
    """Whether a preconditioner decides anything: how far its weights spread under two dampings, by what all
    runs logged; "" if none did.

    The Fisher is of the retain rows: once a model has lost these, it grows, and says nothing more of what is
    worth keeping.
    """

    def span(values: Sequence[float]) -> str:
        ends = list(dict.fromkeys(f"{v:.3g}" if v < 10 else f"{v:.0f}" for v in (min(values), max(values))))
        return " to ".join(ends)

    gone = spreads(arms[published], whole=False)
    if not (spreads(arms[published]) and spreads(arms[ours])):
        return ""
    return (
        "Does the Fisher act at all? In all runs, fresh seeds too: with the published damping its weights"
        f" spread by a factor of **{span(spreads(arms[published]))}** (95th over 5th percentile; 1 is"
        " plain ascent) as long as a run answers half of the retain questions"
        + (f", and by up to {span(gone).rpartition(' ')[2]} once a model has lost these" if gone else "")
        + f"; with a damping relative to the Fisher's own size by **{span(spreads(arms[ours]))}**."
    )


def _logged(setting: Setting, name: str) -> list[float]:
    """What the optimizers of a setting's runs logged under a name, over seeds and steps."""
    return [p[name] for r in setting.records for p in r.trajectory if p.get(name) is not None]


def first_stage(arms: Arms) -> Table:
    """Where runs of several stages stood when first measured after the first stage: whether that moved
    anything.
    """
    rows = []
    for arm in arms.values():
        ends = []
        for r in records({"": arm}):
            stages = [p["stage"] for p in r.trajectory if p.get("stage")]
            ends += (
                [p for p in r.trajectory if p.get("stage") and p["stage"] != stages[0]][:1] if stages else []
            )
        if ends:
            names = {
                "forget q.": "forget/questions",
                "AUC": "attack/auc",
                "retain q.": "retain/questions",
                "world q.": "world/accuracy",
            }
            spans = {k: [p[v] for p in ends] for k, v in names.items()}
            rows.append(
                {
                    "arm": arm.label,
                    "runs": f"{len(ends)}",
                    **{k: f"{mean_of(v):.2f} ({min(v):.2f} to {max(v):.2f})" for k, v in spans.items()},
                }
            )
    caption = (
        "Means over settings and seeds, with their range, at the first line of the log after the first"
        " stage, some steps into the second; fresh seeds too. A model that still answers everything was"
        " hardly moved."
    )
    return Table.of(rows or [{"arm": "no run has several stages"}], caption=caption)
