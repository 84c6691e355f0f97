"""Which forget rows a method is given, and in which portions."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from reprolib.corpus.rows import Row
from reprolib.errors import SpecError
from reprolib.seeds import derive
from reprolib.spec import Spec


def portions_of(given: Sequence[Row], spec: Spec) -> tuple[tuple[Row, ...], ...]:
    """The forget rows by request: documents in a shuffled order, dealt into ``spec.requests`` portions of
    about equal size.
    """
    if spec.requests == 1:
        return (tuple(given),)
    documents = list(dict.fromkeys(r.document for r in given))
    if len(documents) < spec.requests:
        raise SpecError(
            f"spec: requests={spec.requests}, but the method is given {len(documents)} documents; each"
            " request needs at least one."
        )
    Random(derive(spec.seed, "requests")).shuffle(documents)
    number = {d: i * spec.requests // len(documents) for i, d in enumerate(documents)}
    return tuple(tuple(r for r in given if number[r.document] == n) for n in range(spec.requests))


def choose_forget(rows: Sequence[Row], spec: Spec) -> tuple[Row, ...]:
    """The forget rows that the method is given: a share of the documents, and a share of each one's rows.

    Larger shares contain smaller ones (same seed), so that effects of size are not effects of choice;
    at least one document, and at least one row of each chosen document, is given.
    """
    if spec.forget_documents == 1 and spec.forget_rows == 1:
        return tuple(rows)
    random = Random(derive(spec.seed, "forget-subset"))
    by_task: dict[str, dict[str, list[Row]]] = {}
    for r in rows:
        by_task.setdefault(r.task, {}).setdefault(r.document, []).append(r)
    total = sum(len(d) for d in by_task.values())
    # documents in one shuffled order over all tasks, so that also one single document can be asked for
    order = [d for task in sorted(by_task) for d in by_task[task].values()]
    random.shuffle(order)
    chosen = order[: max(1, round(spec.forget_documents * total))]
    out: list[Row] = []
    for document in chosen:
        shuffled = list(document)
        random_document = Random(derive(spec.seed, "rows", document[0].document))
        random_document.shuffle(shuffled)
        keep = {r.id for r in shuffled[: max(1, round(spec.forget_rows * len(document)))]}
        out.extend(r for r in document if r.id in keep)
    return tuple(out)
