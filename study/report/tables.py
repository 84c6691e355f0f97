"""Tables and stamps: HTML for the page, CSV for whoever wants the numbers."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reprolib.places import results_dir
from reprolib.record import Record, path_of
from study.readings.intervals import interval
from study.readings.quantities import ASPECTS, LADDER, READINGS
from study.report import style

COLUMNS = (*ASPECTS, "retain_kl")
OFFICIAL = ("task_aggregate", "mia_score", "world_questions", "final_score")


@dataclass(frozen=True)
class Table:
    """Rows of cells; shown as HTML that scrolls sideways on narrow screens."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    help: Mapping[str, str] | None = None  # header -> tooltip
    rule_after: int = 0  # rows above a separating rule
    data: tuple[Mapping[str, Any], ...] = ()  # plain values for the CSV; the cells themselves if empty
    groups: Mapping[int, str] | None = None  # number of the row that a group begins with -> the group's title
    named: int = 0  # which column names the row
    file: tuple[str, str] | None = None  # name and text of the CSV, which the page then offers

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], caption: str = "") -> Table:
        header = tuple(rows[0])
        return cls(header, tuple(tuple(str(r[k]) for k in header) for r in rows), caption, data=tuple(rows))

    def _repr_html_(self) -> str:
        tips = self.help or {}
        titles = [html.escape(tips.get(h, ""), quote=True) for h in self.header]
        head = "".join(
            f'<th scope="col" title="{t}">{html.escape(h)}</th>'
            for t, h in zip(titles, self.header, strict=True)
        )
        body = []
        for n, row in enumerate(self.rows):
            cells = "".join(
                f'<th scope="row">{c}</th>' if i == self.named else f"<td>{c}</td>" for i, c in enumerate(row)
            )
            mark = ' class="rule"' if self.rule_after and n == self.rule_after else ""
            if self.groups and n in self.groups:
                title = html.escape(self.groups[n])
                body.append(
                    f'<tr class="rule group"><th scope="rowgroup" colspan="{len(row)}">{title}</th></tr>'
                )
            body.append(f"<tr{mark}>{cells}</tr>")
        # beside the table, not in it: a caption in a wide table would scroll away with it
        offer = ""
        if self.file:
            data = base64.b64encode(self.file[1].encode()).decode()
            offer = (
                f' <a class="csv" download="{self.file[0]}.csv"'
                f' href="data:text/csv;base64,{data}">{self.file[0]}.csv</a>'
            )
        caption = (
            f"<figcaption>{html.escape(self.caption)}{offer}</figcaption>" if self.caption or offer else ""
        )
        return (
            '<figure class="result-table"><div class="scrolls" tabindex="0"><table'
            f' class="result"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>{caption}</figure>"
        )

    def csv(self, name: str) -> Table:
        """Also write ``results/tables/<name>.csv``; returns the table with a link to it."""
        data = self.data or tuple(dict(zip(self.header, r, strict=True)) for r in self.rows)
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(data[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(data)
        path = results_dir() / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(out.getvalue(), encoding="utf-8")
        return replace(self, file=(name, out.getvalue()))


def number(x: float) -> str:
    return "–" if not math.isfinite(x) else f"{round(x, 2) + 0.0:.2f}"  # + 0: no minus before a zero


def cell(i: Any) -> str:
    """Estimate with its interval, e.g. ``0.98 [0.96, 0.99]``."""
    if not (math.isfinite(i.low) and math.isfinite(i.high)):
        return number(i.estimate)
    if alike(i):
        return f'{number(i.estimate)} <span class="interval" title="{ALIKE}">[=]</span>'
    return f'{number(i.estimate)} <span class="interval">[{number(i.low)}, {number(i.high)}]</span>'


ALIKE = "However the documents are drawn again, this number stays: an interval would say nothing."


def alike(i: Any) -> bool:
    """Whether resampling documents found no spread, since these are few and alike, or tied. At a bound (0, 1)
    that is no wonder.
    """
    drawn = getattr(i, "n_documents", 0) > 0
    return (
        drawn
        and max(abs(i.low - i.estimate), abs(i.high - i.estimate)) < 1e-9
        and abs(i.estimate - round(i.estimate)) > 1e-9
    )


def scores(study: Mapping[str, Sequence[Record]], names: Sequence[str] = COLUMNS, caption: str = "") -> Table:
    """Methods against readings, each a mean over seeds with its 95 % interval; the sanity ladder on top."""
    readings = [READINGS[n] for n in names]
    heads = {r.name: f"{r.label} {r.arrow}" for r in readings}
    order = [m for m in LADDER if m in study] + [m for m in study if m not in LADDER]
    rows, data = [], []
    for method in order:
        records = study[method]
        intervals = {r.name: interval(records, r.name) for r in readings}
        gone = sum(r.status == "diverged" for r in records)
        note = f' <span class="diverged">({gone} of {len(records)} diverged)</span>' if gone else ""
        swatch = f'<span class="swatch" style="background:{style.colour(method)}"></span>'
        rows.append(
            (
                swatch + html.escape(style.label(method)) + note,
                *(cell(intervals[r.name]) for r in readings),
            )
        )
        data.append(
            {"method": method, "seeds": len(records), "diverged": gone}
            | {f"{k}{end}": round(v, 4) for r in readings for k, i in [(r.name, intervals[r.name])]
               for end, v in (("", i.estimate), ("_low", i.low), ("_high", i.high))}
        )  # fmt: skip
    counts = sorted({len(r) for r in study.values()})
    many = f"{counts[0]} seeds." if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]} seeds."
    seeds = many if counts[-1] > 1 else "One seed: intervals are over documents only."
    help_ = {heads[r.name]: r.tip for r in readings}
    header = ("model", *heads.values())
    caption = f"{caption}. {seeds}" if caption else seeds
    if any("[=]" in c for r in rows for c in r):
        caption += f" [=]: {ALIKE[0].lower()}{ALIKE[1:]}"
    return Table(header, tuple(rows), caption, help_, sum(m in LADDER for m in order), tuple(data))


def stamp(records: Sequence[Record], notebook: str) -> Any:
    """Provenance: which records, made where, from which code; whether they are stale; and how to make them
    again.
    """
    from IPython.display import HTML

    stale = [r for r in records if _stale(r)]
    facts = {
        "records": (
            f"{len(records)}, fingerprints "
            + ", ".join(f"<code>{r.fingerprint}</code>" for r in records[:6])
            + (" …" if len(records) > 6 else "")
        ),
        "seeds": ", ".join(str(s) for s in sorted({r.spec.seed for r in records})),
        "commit": ", ".join(sorted({_commit(r) for r in records})),
        "hardware": ", ".join(
            sorted({r.provenance["machine"]["gpu"] or r.provenance["machine"]["cpu"] for r in records})
        ),
        "versions": ", ".join(f"{k} {v}" for k, v in records[0].provenance["versions"].items() if v),
        "made": _span(sorted(r.provenance["time"][:10] for r in records)),
        "unlearning": (
            f"{_range([r.cost['train_s'] for r in records])} s a run, measuring along the way included"
        ),
        "evaluation": f"{_range([r.cost['evaluate_s'] for r in records])} s a run",
    }
    for r in records:
        if r.status != "done":
            facts[f"{r.status}: {r.spec.method}, seed {r.spec.seed}"] = html.escape(r.reason)
    badge = (
        f'<span class="badge stale">stale: {len(stale)} of {len(records)} records belong to older'
        " settings</span>"
        if stale
        else '<span class="badge fresh">records match the present code, settings and data</span>'
    )
    spec = records[0].spec
    command = f"papermill {notebook} out.ipynb"
    if len({r.spec.testbed for r in records}) == 1:  # a page of several testbeds names them itself
        command += f" -p testbed {spec.testbed}"
    options = {json.dumps(dict(r.spec.options), sort_keys=True) for r in records}
    if len(options) == 1 and spec.options:
        command += f" -y '{{options: {options.pop()}}}'"
    if len({r.spec.seed for r in records}) == 1:
        command += f" -p seed {spec.seed}"
    folders = sorted({path_of(r.spec).parent.relative_to(results_dir()) for r in records})
    if len(folders) > 6:
        folders = sorted({f.parent for f in folders})
    where = "</code>, <code>".join(f"results/{f}/" for f in folders)
    lines = "".join(f"<tr><th scope='row'>{html.escape(k)}</th><td>{v}</td></tr>" for k, v in facts.items())
    return HTML(
        f'<div class="stamp">{badge}<div class="scrolls" tabindex="0"><table>{lines}'
        f"<tr><th scope='row'>files</th><td><code>{where}</code></td></tr></table></div>"
        "<p>Make this page again; without the records, it computes"
        f" them:</p><pre><code>{html.escape(command)}</code></pre></div>"
    )


def _stale(record: Record) -> bool:
    try:
        return record.spec.fingerprint != record.fingerprint
    except ValueError:  # e.g. an option that the recipe no longer has
        return True


def _commit(record: Record) -> str:
    commit = record.provenance["commit"]
    if not commit:
        return "unknown"
    return f"<code>{commit[:10]}</code>" + (" with local changes" if record.provenance["dirty"] else "")


def _span(days: Sequence[str]) -> str:
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
