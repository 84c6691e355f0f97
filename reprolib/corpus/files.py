"""Reading files of benchmark releases: lines, records and fields, with errors that name file and line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from reprolib.errors import CorpusError

VARIABLE = "REPROLIB_DATA"
SUBFOLDERS = ("lume", "semeval25-unlearning-data")  # in this order: LUME holds every row of the other

EXPECTED = (
    "Expected is LUME's layout (forget.jsonl, retain.jsonl), the SemEval hub layout "
    "(data/forget_train-*.parquet, data/retain_train-*.parquet, optionally *_validation-*.parquet and "
    f"mia_data/), or a folder holding one of them as {' or '.join(s + '/' for s in SUBFOLDERS)}."
)

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")
T = TypeVar("T")


def whole_number(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CorpusError(f"{name} is {value!r}, but must be a whole number of at least {least}.")
    return value


def collect(
    path: Path, unit: str, records: Iterable[tuple[int, T]], build: Callable[[int, T], object]
) -> tuple:
    """Build every record; if any fails, raise the first failure with its place and the count of the
    others.
    """
    built, bad = [], []
    for number, record in records:
        try:
            built.append(build(number, record))
        except CorpusError as error:
            bad.append(f"{path}, {unit} {number}: {error}")
    if bad:
        raise CorpusError(bad[0] + (f" (and {len(bad) - 1} more bad {unit}s)" if bad[1:] else ""))
    if not built:
        raise CorpusError(f"{path}: the file has no {unit}s; fetch it again from the release.")
    return tuple(built)


def numbered_lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}). {EXPECTED}") from error
    return [(number, line) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]


def decode(raw: bytes) -> object:
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise CorpusError(f"byte {error.start} is not UTF-8; save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"malformed JSON ({error}); write one object per line or fetch the file again."
        ) from error


def parquet_records(path: Path) -> list[dict[str, object]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise CorpusError(
            f"{path}: parquet needs pyarrow, which is absent; pip install 'reprolib[data]'."
        ) from error
    try:
        return parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError) as error:  # Arrow's own errors derive from these
        raise CorpusError(
            f"{path}: cannot be read as parquet ({error}); fetch it again from the release."
        ) from error


def texts_of(record: object, names: tuple[str, ...]) -> tuple[str, ...]:
    """The named fields of a record: all there, all text, none empty."""
    if not isinstance(record, dict):
        raise CorpusError(
            f"holds {type(record).__name__} where an object is needed; write one object per line."
        )
    missing = [n for n in names if n not in record]
    if missing:
        raise CorpusError(f"missing field(s) {', '.join(missing)}; each row needs {', '.join(names)}.")
    for name in names:
        value = record[name]
        if not isinstance(value, str):
            raise CorpusError(f"field {name} is {type(value).__name__}, but must be text; put it in quotes.")
        if not value.strip():
            raise CorpusError(f"field {name} is empty; fill it or remove the row.")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise CorpusError(
                f"field {name} has half a surrogate pair, which no tokenizer reads; correct the escape."
            )
    return tuple(record[n] for n in names)
