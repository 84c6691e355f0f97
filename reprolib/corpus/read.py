"""Rows of any known release, told by its layout."""

from __future__ import annotations

import random
import re
from pathlib import Path

from reprolib.corpus import lume, tofu
from reprolib.corpus.files import EXPECTED, SUBFOLDERS
from reprolib.corpus.rows import Corpus, Row
from reprolib.errors import CorpusError, SpecError, unknown
from reprolib.seeds import derive

FORMATS = ("auto", "lume", "semeval", "tofu")


# --- the data
# ------------------------------------------------------------------------------------------------


def read(
    data: str | Path, format: str = "auto", *, documents: int | None = None, nonmembers: int | None = None,
    split: str | None = None, seed: int = 0,
) -> Corpus:  # fmt: skip
    """The corpus that a checkpoint is scored on: every document, or ``documents`` of each task drawn by
    ``seed``.

    ``nonmembers``: how many of the SemEval release's list, drawn likewise; as many as ``documents`` unless
    given.

    ``data``: a local folder or a hub id. ``split``: "train" (default) or "validation" of the SemEval release,
    or forget01, forget05, forget10 (default) of TOFU. The holdout of the SemEval release is its list of
    non-members (Wikipedia pages), for LUME it is empty: a model that memorised the release has seen all of
    it. World is that of the reader.

    Raises :class:`CorpusError` for a folder without rows in a known layout, and as the readers do.
    """
    if format not in FORMATS:
        raise SpecError(unknown("data format", format, FORMATS))
    layout = _layout(data) if format == "auto" else format
    if layout == "tofu":
        # authors that a draw leaves were seen by a model of the whole release: no non-members
        held = {"holdout": 0} if documents is not None else {}
        return tofu.load(data, forget=split or "forget10", authors=documents, seed=seed, **held)
    sub = dict(zip(("lume", "semeval"), SUBFOLDERS, strict=True)).get(layout, "")
    source: str | Path = (
        Path(data).expanduser() / sub if sub and (Path(data).expanduser() / sub).is_dir() else data
    )
    release = lume.find(source)
    if layout in ("lume", "semeval") and release.layout != layout:
        raise CorpusError(
            f"{str(data)!r} is in the {release.layout} layout, not {layout}; give --format {release.layout}."
        )
    split = split or "train"
    if split not in release.splits:
        raise CorpusError(unknown(f"split of the {release.layout} layout", split, release.splits))
    sides = [{r.task for r in release.rows[g, split]} for g in lume.SIDES]
    tasks = sorted(sides[0] & sides[1])
    if not tasks:
        raise CorpusError(
            f"{str(data)!r}: no task has both forget and retain rows; give both files of one release."
        )
    corpus = lume.load(source, tasks=tasks, documents=documents, holdout=0, seed=seed, split=split)
    others = list(release.nonmembers.get(split, ()))
    if documents is not None:
        random.Random(derive(seed, "nonmembers")).shuffle(others)
        others = others[: nonmembers or documents]
    holdout = tuple(_nonmember(text, n) for n, text in enumerate(others))
    listed = {" ".join(text.split()) for text in release.members.get(split, ())}
    members = [r.id for r in corpus["forget"] if r.kind == "sc" and " ".join(r.text.split()) in listed]
    facts = {**corpus.facts, "members": tuple(members), "nonmembers": len(holdout)}
    return Corpus(release.layout, {**corpus.groups, "holdout": holdout}, facts)


def _layout(data: str | Path) -> str:
    """Which reader; "" for those of the LUME module, which looks for itself."""
    folder = Path(data).expanduser()
    if folder.is_dir():
        places = (folder, folder / "tofu")
        if any((p / f"{g}.jsonl").is_file() or any((p / "data").glob(f"{g}_*.parquet"))
               for p in (folder, *(folder / s for s in SUBFOLDERS)) for g in lume.SIDES):  # fmt: skip
            return ""
        if any(any(p.glob("forget[01][0-9].json*")) for p in places):
            return "tofu"
        raise CorpusError(
            f"{str(data)!r} holds no forget and retain rows in a known layout. {EXPECTED} For TOFU:"
            " forget10.json, retain90.json and the other files of locuslab/TOFU."
        )
    return "tofu" if "tofu" in str(data).lower() else ""


def _nonmember(text: str, number: int) -> Row:
    """A whole text as a passage, cut at the space next to its middle, where the tokenizer joins it again.

    Its task is that of the members beside it: the organisers attack the biographies.
    """
    spaces = [m.start() for m in re.finditer(r"(?<=\S) (?=\S)", text)]
    at = min(spaces, key=lambda i: abs(i - len(text) // 2), default=0)
    key = f"nonmember{number}"
    return Row(
        id=f"{key}sc1",
        document=key,
        task="Task3",
        kind="sc",
        input=text[:at],
        output=text[at:].lstrip(" "),
    )
