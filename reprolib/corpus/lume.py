"""LUME and the SemEval-2025 Task 4 public release: read, check, and draw a corpus by document.

LUME (Ramakrishna et al. 2025, amazon-science/lume-llm-unlearning) is two files of JSON lines; the public
release of SemEval-2025 Task 4 is a subset of it in parquet, with the official texts of the loss attack.
Nothing of either is shipped: a local folder or a hub id is given as an argument or in ``REPROLIB_DATA``.
"""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reprolib.corpus.files import (
    EXPECTED,
    HUB_ID,
    SUBFOLDERS,
    VARIABLE,
    collect,
    decode,
    numbered_lines,
    parquet_records,
    texts_of,
    whole_number,
)
from reprolib.corpus.rows import GROUPS, Corpus, Group, Kind, Row
from reprolib.corpus.world import rows as world_rows
from reprolib.errors import CorpusError, unknown

TASKS = ("Task1", "Task2", "Task3")
SPLITS = ("train", "validation")
SIDES: tuple[Group, ...] = ("forget", "retain")

REMEDY = (
    f"Give a local folder or a hub id as the argument or in the environment variable {VARIABLE}. {EXPECTED}"
)

_ID = re.compile(r"(.+)(sc|qa)(0|[1-9][0-9]*)", re.DOTALL)
_SHARD = re.compile(r".*-of-(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Release:
    """One release as it lies on disk: its rows by group and split, and the official texts of the loss attack.

    ``members`` and ``nonmembers`` map a split to whole texts (``mia_data/`` of the SemEval release); LUME has
    none.
    """

    layout: Literal["lume", "semeval"]
    rows: Mapping[tuple[Group, str], tuple[Row, ...]]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nonmembers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits for which both forget and retain rows are there."""
        return tuple(s for s in SPLITS if all((g, s) in self.rows for g in SIDES))


def parse_id(id: str) -> tuple[str, Kind, int]:
    """Document key, kind and number of a row's id; the id is the only place where LUME marks the kind.

    Task-1 ids carry literal quotes around the key, which are dropped. Numbers have no leading zeros, so that
    key, kind and number always name one row. Raises :class:`CorpusError` for any other form.

    >>> parse_id('"8f24-c5"qa0'), parse_id("12762334sc1")
    (('8f24-c5', 'qa', 0), ('12762334', 'sc', 1))
    """
    match = _ID.fullmatch(id)
    if match is None:
        raise CorpusError(
            f"id {id!r} does not end in sc or qa and a number; write it as key + 'sc1' or key + 'qa0'."
        )
    key, number = match[1], match[3]
    kind: Kind = "sc" if match[2] == "sc" else "qa"
    document = key[1:-1] if len(key) > 2 and key[0] == key[-1] == '"' else key
    if '"' in document or not document.strip():
        raise CorpusError(
            f"id {id!r} has an empty key or a stray double quote; quote the whole key or none of it."
        )
    return document, kind, int(number)


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """The rows of one file: JSON lines, or parquet if the name ends so.

    ``Row.id`` is document + kind + number, without the quotes of Task 1. White space where input and output
    meet is dropped (two rows of LUME have one), blank lines are skipped, any other text is kept as it is.
    Raises :class:`CorpusError` that names the file, the first bad line (or row), what is wrong, what to do,
    and how many more lines are bad.
    """
    path = Path(path)
    seen: dict[str, int] = {}
    side = next((g for g in SIDES if path.name.startswith(g)), None)

    def build(number: int, record: object) -> Row:
        id, text, output, task = texts_of(record, ("id", "input", "output", "task"))
        assert isinstance(record, dict), "texts_of refuses everything else"
        document, kind, count = parse_id(id)
        if task not in TASKS:
            raise CorpusError(f"{unknown('task', task, TASKS)} Correct the task field.")
        split = record.get("split", side)  # only SemEval has it, and there it names the group
        if side is not None and split != side:
            raise CorpusError(
                f"field split says {split!r} in a file of {side} rows; move the row or correct it."
            )
        row = Row(
            id=f"{document}{kind}{count}", document=document, task=task, kind=kind,
            input=text.rstrip(), output=output.lstrip(),
        )  # fmt: skip
        first = seen.setdefault(row.id, number)
        if first != number:
            raise CorpusError(f"duplicate id {id!r}, first on {first}; remove one of them.")
        return row

    if path.suffix == ".parquet":
        return collect(path, "row", enumerate(parquet_records(path), 1), build)
    return collect(path, "line", numbered_lines(path), lambda number, raw: build(number, decode(raw)))


def find(source: str | Path | None = None) -> Release:
    """Read the release that ``source`` names.

    ``source`` is a local folder (LUME's layout, the SemEval hub layout, or a folder with either as ``lume/``,
    which goes first, or ``semeval25-unlearning-data/``) or a hub id ``owner/name`` or
    ``owner/name@revision``. ``None`` takes the environment variable ``REPROLIB_DATA``. Raises
    :class:`CorpusError` if nothing is given, found or reachable, if a file is missing or bad, or if an id or
    a document stands in two places.
    """
    given = source if source is not None else os.environ.get(VARIABLE)
    if not given:
        raise CorpusError(f"no LUME data: no source was given and {VARIABLE} is not set. {REMEDY}")
    folder = Path(given).expanduser()
    hub = HUB_ID.fullmatch(given) if isinstance(given, str) else None
    if not folder.is_dir():
        if folder.exists() or hub is None:
            raise CorpusError(f"{str(given)!r} is neither a folder nor a hub id (owner/name). {REMEDY}")
        folder = _download(*hub.groups())
    for place in (folder, *(folder / s for s in SUBFOLDERS)):
        if any((place / f"{g}.jsonl").is_file() for g in SIDES):
            return _checked(Release("lume", {(g, "train"): read_rows(place / f"{g}.jsonl") for g in SIDES}))
        if any(any((place / "data").glob(f"{g}_*-*.parquet")) for g in SIDES):
            return _checked(_semeval(place))
    raise CorpusError(f"{str(given)!r} holds no LUME data. {REMEDY}")


def load(
    source: str | Path | None = None,
    *,
    tasks: Iterable[str] = TASKS,
    documents: int | Mapping[str, int] | None = None,
    holdout: int | Mapping[str, int] | None = None,
    seed: int = 0,
    split: str = "train",
) -> Corpus:
    """Draw a corpus from the release at ``source`` (see :func:`find`).

    ``documents`` are taken per task from forget and as many from retain (``None``: all). ``holdout``
    documents per task come from what is left: forget documents first, being of exactly the same distribution
    as the corpus' forget, then retain documents; ``None`` takes all forget documents that are left, so none
    if all are used. A mapping names a number for each task. The draw shuffles the sorted keys of each task
    and group, so it depends neither on the order of a file nor on the other tasks, and a smaller draw is part
    of a larger one. World is the built-in general-knowledge table. Raises :class:`CorpusError` for an unknown
    task or split, a number out of range, or more documents than there are (saying how many there are per
    task).
    """
    chosen = tuple(sorted({tasks} if isinstance(tasks, str) else set(tasks)))
    for task in chosen:
        if task not in TASKS:
            raise CorpusError(unknown("task", task, TASKS))
    if not chosen:
        raise CorpusError(f"no task was chosen; give one or more of {', '.join(TASKS)}.")
    wanted, kept = _numbers("documents", documents, chosen, 1), _numbers("holdout", holdout, chosen, 0)
    whole_number("seed", seed, 0)
    release = find(source)
    if split not in release.splits:
        raise CorpusError(unknown(f"split of the {release.layout} layout", split, release.splits))

    pools: dict[tuple[str, Group], dict[str, list[Row]]] = {
        (t, g): defaultdict(list) for t in chosen for g in SIDES
    }
    for side in SIDES:
        for row in release.rows[side, split]:
            if row.task in chosen:
                pools[row.task, side][row.document].append(row)
    there = "; ".join(
        f"{t}: {len(pools[t, 'forget'])} forget, {len(pools[t, 'retain'])} retain" for t in chosen
    )
    groups: dict[Group, list[Row]] = {g: [] for g in GROUPS}

    def take(group: Group, task: str, side: Group, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            groups[group] += sorted(pools[task, side][key], key=lambda r: (r.kind != "sc", parse_id(r.id)[2]))

    for task in chosen:
        left: dict[Group, list[str]] = {}
        for side in SIDES:
            keys = sorted(pools[task, side])
            random.Random(seed).shuffle(keys)
            asked = wanted[task]
            number = len(keys) if asked is None else asked
            if not keys or number > len(keys):
                raise CorpusError(
                    f"{number or 'all'} {side} documents of {task} asked for, but the {split} split has"
                    f" {len(keys)} ({there}); ask for fewer documents or leave out the task."
                )
            take(side, task, side, keys[:number])
            left[side] = keys[number:]
        spare = kept[task]
        number = len(left["forget"]) if spare is None else spare
        if number > sum(map(len, left.values())):
            raise CorpusError(
                f"{number} holdout documents of {task} asked for, but beside the corpus"
                f" {len(left['forget'])} forget and {len(left['retain'])} retain documents are left (in"
                f" all {there}); lower documents or holdout."
            )
        take("holdout", task, "forget", left["forget"][:number])
        take("holdout", task, "retain", left["retain"][: max(0, number - len(left["forget"]))])

    facts = {
        "layout": release.layout, "split": split, "seed": seed, "tasks": list(chosen),
        "documents": wanted, "holdout": kept,
    }  # fmt: skip
    frozen: dict[Group, tuple[Row, ...]] = {g: tuple(rows) for g, rows in groups.items()}
    return Corpus("lume", {**frozen, "world": tuple(world_rows(seed))}, facts)


def anonymous(corpus: Corpus) -> dict[str, int]:
    """Running number of each document, in the order of the groups and of their rows.

    Records use it in place of the release's keys, so that nothing of the data is committed.
    """
    keys = dict.fromkeys(key for group in GROUPS for key in corpus.documents(group))
    return {key: number for number, key in enumerate(keys)}


def _numbers(
    name: str, given: int | Mapping[str, int] | None, tasks: tuple[str, ...], least: int
) -> dict[str, int | None]:
    if given is None:
        return dict.fromkeys(tasks)
    if isinstance(given, Mapping):
        if set(given) != set(tasks):
            raise CorpusError(
                f"{name} names {sorted(map(str, given))}; name each of {list(tasks)}, no other."
            )
        return {t: whole_number(f"{name}[{t!r}]", given[t], least) for t in tasks}
    return dict.fromkeys(tasks, whole_number(name, given, least))


def _semeval(folder: Path) -> Release:
    rows: dict[tuple[Group, str], tuple[Row, ...]] = {}
    for side in SIDES:
        for split in SPLITS:
            shards = sorted((folder / "data").glob(f"{side}_{split}-*.parquet"))
            count = {int(m[1]) for m in map(_SHARD.fullmatch, map(str, shards)) if m}
            if (not shards and split == "train") or (count and count != {len(shards)}):
                raise CorpusError(
                    f"{folder / 'data'}: {len(shards)} file(s) {side}_{split}-*.parquet of"
                    f" {max(count, default=1)}; fetch the release again, whole, into an empty folder."
                )
            if shards:
                rows[side, split] = tuple(row for shard in shards for row in read_rows(shard))

    def text(number: int, raw: bytes) -> str:
        return texts_of(decode(raw), ("document", "id"))[0]

    texts: dict[str, dict[str, tuple[str, ...]]] = {"member": {}, "nonmember": {}}
    for name, found in texts.items():
        for split, place in (("train", "mia_data"), ("validation", "mia_data/validation")):
            path = folder / place / f"{name}.jsonl"
            if path.is_file():
                found[split] = collect(path, "line", numbered_lines(path), text)
    return Release("semeval", rows, texts["member"], texts["nonmember"])


def _checked(release: Release) -> Release:
    """The release, if each id stands once and each document in one group, split and task."""
    ids: set[str] = set()
    places: dict[str, str] = {}
    for (side, split), rows in release.rows.items():
        for row in rows:
            place = f"{side} {split} {row.task}"
            other = places.setdefault(row.document, place)
            if other != place:
                raise CorpusError(
                    f"document {row.document!r} stands in {other} and in {place}; a document has one"
                    " group, split and task: remove it from one of them."
                )
            if row.id in ids:
                raise CorpusError(
                    f"duplicate id {row.id!r} in the files of {side} {split}; remove one of them."
                )
            ids.add(row.id)
    return release


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.jsonl", "*.parquet"]
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises errors of several libraries; all mean: not to be had
        at = f" at revision {revision!r}" if revision else ""
        raise CorpusError(
            f"{name!r} is no local folder, and the data set{at} could not be fetched from the Hugging Face"
            f" hub ({type(error).__name__}: {error}); it may be gated or there is no network. {REMEDY}"
        ) from error
