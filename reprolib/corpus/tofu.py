"""TOFU: 200 invented authors with 20 questions each (Maini et al. 2024, locuslab/TOFU on the Hugging Face
hub), as a corpus.

A document is an author: 20 consecutive rows of a file. All rows are questions; there are no passages to
complete. Nothing of the release is shipped: a local folder or a hub id is given as an argument or in
``REPROLIB_DATA``. Editions for continual unlearning (rows with a ``task_id``) hold several requests to forget
in one file; their first request is TOFU's own split, and only it is read.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

from reprolib.corpus.files import HUB_ID, VARIABLE, collect, decode, numbered_lines, texts_of, whole_number
from reprolib.corpus.rows import Corpus, Group, Row
from reprolib.errors import CorpusError, unknown

SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
WORLD = {"real_authors_perturbed": "RealAuthors", "world_facts_perturbed": "WorldFacts"}  # file -> task
QUESTIONS = 20  # of each author

EXPECTED = (
    "Expected are the files of locuslab/TOFU as JSON lines (forget10.json, forget10_perturbed.json,"
    " retain90.json, retain_perturbed.json, real_authors_perturbed.json, world_facts_perturbed.json, ...),"
    " or a folder holding them as tofu/."
)

REMEDY = (
    "Give a local folder or a hub id (locuslab/TOFU) as the argument or in the environment variable"
    f" {VARIABLE}. {EXPECTED}"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a file."""

    request: object  # ``task_id`` of an edition for continual unlearning, None in the release
    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    perturbed: tuple[str, ...] = ()


def find(source: str | Path | None = None) -> Path:
    """The local folder with the files that ``source`` names.

    ``source``: a folder, or one that holds it as ``tofu/``, or a hub id ``owner/name`` or
    ``owner/name@revision`` (a revision pins the data). ``None`` takes the environment variable
    ``REPROLIB_DATA``. Raises :class:`CorpusError` if nothing is given, found or reachable.
    """
    given = source if source is not None else os.environ.get(VARIABLE)
    if not given:
        raise CorpusError(f"no TOFU data: no source was given and {VARIABLE} is not set. {REMEDY}")
    folder = Path(given).expanduser()
    hub = HUB_ID.fullmatch(given) if isinstance(given, str) else None
    if not folder.is_dir():
        if folder.exists() or hub is None:
            raise CorpusError(f"{str(given)!r} is neither a folder nor a hub id (owner/name). {REMEDY}")
        folder = _download(*hub.groups())
    for place in (folder, folder / "tofu"):
        if any((place / f"{name}.json").is_file() for name in SPLITS):
            return place
    raise CorpusError(f"{str(given)!r} holds no TOFU data. {REMEDY}")


def read_authors(path: str | Path) -> tuple[Row, ...]:
    """The rows of a file of authors, 20 questions each; with ``paraphrases`` and ``perturbed`` if it is a
    ``*_perturbed`` file.

    ``Row.document`` is a hash of an author's questions, so that an author has the same key in every file.
    Raises :class:`CorpusError` that names the file, the first bad line, what is wrong and what to do, and if
    the rows do not make whole authors.
    """
    path = Path(path)
    entries = _entries(path)
    if len(entries) % QUESTIONS:
        raise CorpusError(
            f"{path}: {len(entries)} rows do not make authors of {QUESTIONS} questions each; "
            "fetch the file again, whole and in order."
        )
    rows = []
    for first in range(0, len(entries), QUESTIONS):
        author = entries[first : first + QUESTIONS]
        key = hashlib.sha256("\n".join(sorted(e.question for e in author)).encode()).hexdigest()[:12]
        rows += [_row(e, key, n, "TOFU") for n, e in enumerate(author)]
    return tuple(rows)


def read_world(path: str | Path, task: str) -> tuple[Row, ...]:
    """The rows of ``real_authors_perturbed.json`` or ``world_facts_perturbed.json``, each a document of its
    own.

    ``perturbed`` are the wrong options. Raises :class:`CorpusError` as `read_authors` does.
    """
    return tuple(
        _row(e, f"{task}-{n:03d}", 0, task) for n, e in enumerate(_entries(Path(path), options=True))
    )


def load(
    source: str | Path | None = None,
    *,
    forget: str = "forget10",
    authors: int | None = None,
    holdout: int | None = None,
    seed: int = 0,
) -> Corpus:
    """The corpus of one of TOFU's splits.

    ``source``: see :func:`find`. ``forget``: forget01, forget05 or forget10 (2, 10, 20 authors); retain is
    its complement among the 200, read from retain99, retain95 or retain90, or put together from retain90 and
    forget10 where that file is not there. World is Real Authors and World Facts in turn, with their wrong
    options. Forget rows have a paraphrased and five false answers, as have retain rows of 20 authors
    (``retain_perturbed``).

    ``authors`` draws so many forget authors and as many retain authors, those with false answers first
    (``None``: all); a smaller draw of a seed is part of a larger one. ``holdout`` authors are taken from what
    such a draw leaves, forget authors first; ``None`` takes the forget authors that are left. A model that is
    trained on this corpus never sees them, but a published TOFU model has seen all 200. With ``authors=None``
    nothing is left: holdout is then that of the release (``holdout10.json``, which open-unlearning added
    later; its authors need not be distributed as the forget authors are, so compare an attack with the twin,
    not with 0.5), or empty if there is no such file.

    Raises :class:`CorpusError` for an unknown split, a missing or bad file, or more authors than there are.
    """
    if forget not in SPLITS:
        raise CorpusError(unknown("forget split of TOFU", forget, SPLITS))
    for name, value, least in (("authors", authors, 1), ("holdout", holdout, 0)):
        if value is not None:
            whole_number(name, value, least)
    whole_number("seed", seed, 0)
    folder = find(source)
    out = _with_answers(
        read_authors(_file(folder, forget)), read_authors(_file(folder, f"{forget}_perturbed"))
    )
    kept = _with_answers(_retain(folder, forget), read_authors(_file(folder, "retain_perturbed")))
    sides = {"forget": _by_author(out), "retain": _by_author(kept)}
    if authors is None:
        extra = folder / f"{forget.replace('forget', 'holdout')}.json"
        spare = _by_author(read_authors(extra)) if extra.is_file() else {}
        wanted = len(spare) if holdout is None else holdout
    else:
        spare = {}
        for side, found in sides.items():
            if authors > len(found):
                raise CorpusError(
                    f"{authors} {side} authors of {forget} asked for, but there are {len(found)}; ask for"
                    " fewer."
                )
            drawn = sorted(found)
            random.Random(seed).shuffle(drawn)
            plain = {k for k, rows in found.items() if not any(r.perturbed for r in rows)}
            drawn.sort(key=plain.__contains__)  # last
            spare |= {key: found[key] for key in drawn[authors:]}
            sides[side] = {key: found[key] for key in drawn[:authors]}
        wanted = len(_by_author(out)) - authors if holdout is None else holdout
    if wanted > len(spare):
        where = (
            "the release's holdout file" if authors is None else f"what a draw of {authors} authors leaves"
        )
        raise CorpusError(
            f"{wanted} holdout authors asked for, but {where} has {len(spare)}; lower holdout or authors."
        )
    world = [read_world(_file(folder, name), task) for name, task in WORLD.items()]
    groups: dict[Group, tuple[Row, ...]] = {
        "forget": tuple(chain(*sides["forget"].values())),
        "retain": tuple(chain(*sides["retain"].values())),
        "holdout": tuple(chain(*list(spare.values())[:wanted])),
        "world": tuple(r for turn in zip_longest(*world) for r in turn if r is not None),
    }
    return Corpus("tofu", groups, {"forget": forget, "authors": authors, "holdout": holdout, "seed": seed})


def _retain(folder: Path, forget: str) -> tuple[Row, ...]:
    """All authors but those of the forget split."""
    path = folder / f"{SPLITS[forget]}.json"
    if path.is_file() or forget == "forget10":
        return read_authors(_file(folder, SPLITS[forget]))
    gone = {r.document for r in read_authors(_file(folder, forget))}
    rest = tuple(r for r in read_authors(_file(folder, "forget10")) if r.document not in gone)
    return read_authors(_file(folder, "retain90")) + rest


def _with_answers(rows: tuple[Row, ...], others: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, with the paraphrased and false answers that ``others`` have for the same questions."""
    found = {(r.input, r.output): r for r in others}
    twins = [found.get((r.input, r.output), r) for r in rows]
    return tuple(
        replace(r, paraphrases=t.paraphrases, perturbed=t.perturbed) for r, t in zip(rows, twins, strict=True)
    )


def _by_author(rows: Iterable[Row]) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row.document, []).append(row)
    return out


def _file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise CorpusError(f"{path} is not there; fetch the release again, whole. {EXPECTED}")
    return path


def _row(entry: _Entry, document: str, number: int, task: str) -> Row:
    return Row(
        id=f"{document}qa{number}",
        document=document,
        task=task,
        kind="qa",
        input=entry.question,
        output=entry.answer,
        paraphrases=entry.paraphrases,
        perturbed=entry.perturbed,
    )


def _entries(path: Path, options: bool = False) -> list[_Entry]:
    """The lines of a file. Those with ``options`` (world) have false answers, ``*_perturbed`` ones a
    paraphrase as well.
    """
    paraphrased = not options and path.stem.endswith("_perturbed")

    def build(number: int, raw: bytes) -> _Entry:
        record = decode(raw)
        names = ("question", "answer", *(("paraphrased_answer",) if paraphrased else ()))
        question, answer, *paraphrases = (text.strip() for text in texts_of(record, names))
        assert isinstance(record, dict)  # _texts has made sure
        perturbed: tuple[str, ...] = ()
        if options or paraphrased:
            false = record.get("perturbed_answer")
            if not isinstance(false, list) or not false:
                raise CorpusError(
                    "field perturbed_answer must be a list of false answers; fetch the file again from the"
                    " release."
                )
            perturbed = tuple(
                texts_of({"perturbed_answer": f}, ("perturbed_answer",))[0].strip() for f in false
            )
        return _Entry(record.get("task_id"), question, answer, tuple(paraphrases), perturbed)

    entries = collect(path, "line", numbered_lines(path), build)
    return [e for e in entries if e.request == entries[0].request]


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.json"])
        )
    except Exception as error:  # the hub client raises errors of several libraries; all mean: not to be had
        at = f" at revision {revision!r}" if revision else ""
        raise CorpusError(
            f"{name!r} is no local folder, and the data set{at} could not be fetched from the Hugging Face"
            f" hub ({type(error).__name__}: {error}); it may be gated or there is no network. {REMEDY}"
        ) from error
