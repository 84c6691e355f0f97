"""``reprolib evaluate``: the scores of any transformers checkpoint on LUME, SemEval or TOFU data, part by
part.

Each finished part is written at once, so that a killed evaluation continues where it was when the same
command is given again. No text of the data is written, only scores and running numbers of documents.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprolib.assess import report as assessment
from reprolib.assess.checkpoint import Source, locate
from reprolib.assess.page import page
from reprolib.assess.parts import chosen_parts, wanted_parts
from reprolib.assess.result import ROLES, SCHEMA, Assessment, to_json
from reprolib.assess.scoring import Scoring
from reprolib.corpus.read import read
from reprolib.corpus.rows import Corpus
from reprolib.errors import SpecError, unknown
from reprolib.models.device import PRECISIONS
from reprolib.places import write_whole


def assess(
    model: str | Path,
    data: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    target: str | Path | None = None,
    twin: str | Path | None = None,
    suites: Iterable[str] | None = None,
    only: Iterable[str] = (),
    mmlu: str | Path | None = None,
    mmlu_per_subject: int | None = None,
    harness: Iterable[str] = (),
    adapter: str | Path | None = None,
    precision: str = "fp32",
    documents: int | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    max_new_tokens: int = 256,
    batch_tokens: int = 8192,
    overwrite: bool = False,
    progress: bool = True,
) -> Assessment:
    """Score the checkpoint ``model`` on ``data``, and in the same way the ``target`` (the model before
    unlearning) and the ``twin`` (retrained without the forget rows) where they are given.

    ``suites``: core, wide, stress, data (default: core and wide, and data if ``mmlu`` or ``harness`` is
    given); ``only`` names single parts instead. ``mmlu``: folder or hub id of MMLU, ``harness``: tasks of
    lm-eval; both are the data suite. ``adapter``: a peft adapter on ``model``. ``documents``: so many of each
    task and side (TOFU: authors). ``output``: folder of the results (default ``evaluations/<name of the
    model>``): parts/, assessment.json, report.html.

    Finished parts are read, not computed again. Raises :class:`SpecError` or :class:`CorpusError` for
    whatever a user can mend; a part that cannot be asked of this data or breaks is named in
    ``Assessment.skipped``, and the others go on.
    """
    suites, only, harness = _tuple(suites), _tuple(only) or (), _tuple(harness) or ()
    if precision not in PRECISIONS:
        raise SpecError(unknown("precision", precision, PRECISIONS))
    _check_whole(documents=documents, seed=seed, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens,
                 mmlu_per_subject=mmlu_per_subject)  # fmt: skip
    wanted = wanted_parts(suites, only, mmlu is not None, bool(harness))
    sources = {
        role: locate(place, role, adapter if role == "model" else None, progress=progress)
        for role, place in zip(ROLES, (model, target, twin), strict=True) if place is not None
    }  # fmt: skip
    corpus = read(data, format, documents=documents, split=split, seed=seed)
    parts = chosen_parts(wanted, mmlu, mmlu_per_subject, harness, seed, batch_tokens)
    settings = {
        "precision": precision,
        "seed": seed,
        "documents": documents,
        "max_new_tokens": max_new_tokens,
    }
    folder = Path(output) if output is not None else Path("evaluations") / _slug(model)
    with _held(folder):
        run = _open(folder, sources, corpus, settings, overwrite)
        out = Scoring(folder, run, sources, corpus, parts, settings, batch_tokens, progress).score()
        _describe(out, folder)
    return out


def _check_whole(**given: int | None) -> None:
    for name, value in given.items():
        least = 0 if name == "seed" else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise SpecError(f"{name} is {value!r}; allowed: a whole number of at least {least}.")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder of the results, which no other evaluation writes to meanwhile."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SpecError(
            f"another evaluation is writing to {folder}; wait for it, or give another --output."
        ) from error
    except OSError as error:
        raise SpecError(
            f"the output folder {folder} cannot be written ({error}); give another --output."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _tuple(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip())


def _slug(model: str | Path) -> str:
    name = Path(model).expanduser()
    return re.sub(r"[^\w.-]+", "-", name.resolve().name if name.is_dir() else str(model)) or "model"


def _open(
    folder: Path, sources: Mapping[str, Source], corpus: Corpus, settings: dict, overwrite: bool
) -> dict[str, Any]:
    """The run that this folder belongs to; an error if that is another one."""
    path = folder / "run.json"
    run: dict[str, Any] = {
        "schema": SCHEMA, "data": corpus.fingerprint, "settings": settings,
        "models": {r: s.fingerprint for r, s in sources.items()}, "facts": {},
    }  # fmt: skip
    bound = path.exists() and any(
        (folder / "parts").rglob("*.json")
    )  # nothing finished yet: anyone may begin here
    if bound and not overwrite:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            other = [k for k in ("schema", "data") if before[k] != run[k]]
            other += [k for k in settings if before["settings"].get(k) != settings[k]]
            other += [k for k, v in run["models"].items() if before["models"].get(k, v) != v]
            run["models"], run["facts"] = before["models"] | run["models"], before["facts"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpecError(
                f"{path} cannot be read ({error}); give --overwrite to begin again, or another --output."
            ) from error
        if other:
            raise SpecError(
                f"{folder} holds the evaluation of another {', '.join(other)}; give another --output, or"
                " --overwrite to replace what is there."
            )
    if overwrite:
        shutil.rmtree(folder / "parts", ignore_errors=True)
    write_whole(path, json.dumps(run, indent=1))
    return run


def _describe(a: Assessment, folder: Path) -> None:
    write_whole(folder / "assessment.json", to_json(a))
    write_whole(folder / "report.html", page(a))


def main(args: Any) -> int:
    """What ``reprolib evaluate`` does with its arguments: score, print the table, say where the report is."""
    import sys

    output = Path(args.output) if args.output else Path("evaluations") / _slug(args.model)
    a = assess(
        args.model,
        args.data,
        format=args.format,
        split=args.split,
        target=args.target,
        twin=args.twin,
        suites=args.suites,
        only=args.only or (),
        mmlu=args.mmlu,
        mmlu_per_subject=args.mmlu_per_subject,
        harness=args.harness or (),
        adapter=args.adapter,
        precision=args.precision,
        documents=args.documents,
        output=output,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
        batch_tokens=args.batch_tokens,
        overwrite=args.overwrite,
    )
    print(assessment.text(a))
    print(f"\nreport: {output / 'report.html'}   numbers: {output / 'assessment.json'}")
    if a.failed:
        print(f"failed: {', '.join(a.failed)}; the same command tries them again.", file=sys.stderr)
    return 1 if a.failed else 0
