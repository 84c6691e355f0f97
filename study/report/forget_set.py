"""The page of forget-set size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reprolib.record import Record
from study.readings.twin import mean
from study.report.front import ranged
from study.report.tables import Table
from study.report.words import label_of, percent, say

Sizes = Mapping[str, Mapping[float, list[Record]]]


def answered(record: Record, given: int | None) -> float:
    """Share of forget questions still answered among rows that were given (2), whose document was given in
    part (1), of whose document nothing was given (0), or all (None). NaN where there are none."""
    columns = record.rows
    level = columns.get("given") or [2] * len(columns["group"])
    hits = [
        s for g, k, s, v in zip(columns["group"], columns["kind"], columns["score"], level, strict=True)
        if g == "forget" and k == "qa" and (given is None or v == given)
    ]  # fmt: skip
    return sum(hits) / len(hits) if hits else float("nan")


def _over(records: Iterable[Record], given: int | None) -> float:
    values = [answered(r, given) for r in records]
    return sum(values) / len(values)


def actual_rows(by_rows: Sizes) -> dict[str, dict[float, list[Record]]]:
    """The same settings keyed by the share of forget rows really given: every document gives at least one
    row.
    """
    out = {}
    for m, shares in by_rows.items():
        total = shares[1.0][0].cost["forget_rows_given"]
        out[m] = {round(_given(records) / total, 3): records for records in shares.values()}
    return out


def _given(records: Iterable[Record]) -> float:
    values = [r.cost["forget_rows_given"] for r in records]
    return sum(values) / len(values)


def size_answer(by_documents: Sizes, by_rows: Sizes) -> Any:
    """What the ablation of the forget set's size says, in a sentence a method."""
    lines = []
    for m in by_documents:
        shares = sorted(s for s in by_documents[m] if s < 1)
        small, large = shares[0], shares[-1]
        row = min(by_rows[m])
        lines.append(
            f"{label_of(m)}: given {percent(small)} of the documents,"
            f" {percent(_over(by_documents[m][small], 0))} of the questions about documents *not* given"
            f" are still answered; given {percent(large)}, {percent(_over(by_documents[m][large], 0))}."
            f" Given {percent(row)} of all rows, at least one of every document,"
            f" {percent(_over(by_rows[m][row], 1))} of the questions *not* given are. Retain questions"
            f" answered at these three: {percent(mean(by_documents[m][small], 'retain/questions'))},"
            f" {percent(mean(by_documents[m][large], 'retain/questions'))},"
            f" {percent(mean(by_rows[m][row], 'retain/questions'))}."
        )
    n = len(next(iter(next(iter(by_documents.values())).values())))
    return say(
        "```{admonition} The answer\n:class: tip\n"
        + "\n\n".join(lines)
        + f"\n\nMeans over {n} seed{'s' if n > 1 else ''}. Forgetting of what was not given is no success"
        " where retain questions go with it: it is then damage, not generalisation.\n```"
    )


def size_table(by_documents: Sizes, by_rows: Sizes) -> Any:
    """Every setting of the ablation with its means over seeds."""
    rows = []
    for what, group in (("documents", by_documents), ("rows, some of every document", by_rows)):
        for m, shares in group.items():
            for share, records in sorted(shares.items()):
                cells = {
                    "method": label_of(m),
                    "share of": what,
                    "given": f"{100 * share:g} %",
                    "rows given": f"{_given(records):.0f}",
                }
                for level, name in (
                    (2, "given: answered"),
                    (1, "rest of their documents"),
                    (0, "documents not given"),
                ):
                    cells[name] = ranged([answered(r, level) for r in records])
                cells |= {
                    "retain answered": ranged([r.metrics["retain/questions"] for r in records]),
                    "attack AUC": f"{mean(records, 'attack/auc'):.2f}",
                }
                rows.append(cells)
    return Table.of(
        rows,
        caption=("Share of questions answered after unlearning: means over seeds, and the range over seeds."),
    )
