"""``reprolib evaluate``: the scores of any transformers checkpoint on LUME, SemEval or TOFU data, part by part.

Each finished part is written at once, so that a killed evaluation continues where it was when the same command is given
again. No text of the data is written, only scores and running numbers of documents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib import record as records
from reprolib.corpus.rows import GROUPS, Corpus, Row
from reprolib.errors import CorpusError, ReprolibError, SpecError, unknown
from reprolib.identity import digest
from reprolib.metrics import lume as lume_metrics
from reprolib.metrics.statistics import gap_closed
from reprolib.seeds import derive
from reprolib.spec import METRICS_VERSION
from reprolib.spec import SUITES as VERSIONS

if TYPE_CHECKING:
    from torch import nn

    from reprolib.probes import Probe, Subject

SCHEMA = 1  # of the files in the output folder
FORMATS = ("auto", "lume", "semeval", "tofu")
SUITES = ("core", "wide", "stress", "data")
ROLES = ("model", "target", "twin")  # in the order in which they are scored
WEIGHTS, CONTENT = "*.safetensors", ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
LABELS = ("group", "task", "kind", "subject")  # columns that may hold names; all others hold numbers
NOISE = 0.01  # of a bounded metric's range: where target and twin differ by less, there is no gap to close
_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one part says of one model."""

    name: str
    title: str
    suite: str
    metrics: dict[str, float]
    rows: dict[str, list]  # columns of per-row scores; no text
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """All that was measured. ``results``: role ("model", and "target", "twin" if given) -> part -> its result."""

    models: dict[str, dict[str, Any]]  # role -> name, fingerprint, architecture, parameters, adapter
    data: dict[str, Any]
    settings: dict[str, Any]
    results: dict[str, dict[str, Result]]
    skipped: dict[str, str] = field(default_factory=dict)  # part -> why it gave nothing
    failed: tuple[str, ...] = ()  # those of them that broke
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def metrics(self, role: str = "model") -> dict[str, float]:
        return {k: v for r in self.results.get(role, {}).values() for k, v in r.metrics.items()}

    def gap(self, name: str, noise: float = 1e-9) -> float:
        """Share of the way from target to twin that the model has gone (0: as the target, 1: as the twin).

        NaN without a target and a twin, where a value is missing or not finite, or where they differ by less than ``noise``.
        """
        values = [self.metrics(role).get(name, math.nan) for role in ("model", "target", "twin")]
        return gap_closed(*values, tolerance=noise) if all(map(math.isfinite, values)) else math.nan


# --- the data ------------------------------------------------------------------------------------------------


def read(
    data: str | Path, format: str = "auto", *, documents: int | None = None, nonmembers: int | None = None,
    split: str | None = None, seed: int = 0,
) -> Corpus:  # fmt: skip
    """The corpus that a checkpoint is scored on: every document, or ``documents`` of each task drawn by ``seed``.

    ``nonmembers``: how many of the SemEval release's list, drawn likewise; as many as ``documents`` unless given.

    ``data``: a local folder or a hub id. ``split``: "train" (default) or "validation" of the SemEval release, or forget01,
    forget05, forget10 (default) of TOFU. The holdout of the SemEval release is its list of non-members (Wikipedia pages),
    for LUME it is empty: a model that memorised the release has seen all of it. World is that of the reader.

    Raises :class:`CorpusError` for a folder without rows in a known layout, and as the readers do.
    """
    if format not in FORMATS:
        raise SpecError(unknown("data format", format, FORMATS))
    layout = _layout(data) if format == "auto" else format
    if layout == "tofu":
        from reprolib.corpus import tofu

        # authors that a draw leaves were seen by a model of the whole release: no non-members
        held = {"holdout": 0} if documents is not None else {}
        return tofu.load(data, forget=split or "forget10", authors=documents, seed=seed, **held)
    from reprolib.corpus import lume

    sub = dict(zip(("lume", "semeval"), lume.SUBFOLDERS, strict=True)).get(layout, "")
    source: str | Path = Path(data).expanduser() / sub if sub and (Path(data).expanduser() / sub).is_dir() else data
    release = lume.find(source)
    if layout in ("lume", "semeval") and release.layout != layout:
        raise CorpusError(f"{str(data)!r} is in the {release.layout} layout, not {layout}; give --format {release.layout}.")
    split = split or "train"
    if split not in release.splits:
        raise CorpusError(unknown(f"split of the {release.layout} layout", split, release.splits))
    sides = [{r.task for r in release.rows[g, split]} for g in lume.SIDES]
    tasks = sorted(sides[0] & sides[1])
    if not tasks:
        raise CorpusError(f"{str(data)!r}: no task has both forget and retain rows; give both files of one release.")
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
        from reprolib.corpus import lume

        if any((p / f"{g}.jsonl").is_file() or any((p / "data").glob(f"{g}_*.parquet"))
               for p in (folder, *(folder / s for s in lume.SUBFOLDERS)) for g in lume.SIDES):  # fmt: skip
            return ""
        if any(any(p.glob("forget[01][0-9].json*")) for p in places):
            return "tofu"
        raise CorpusError(
            f"{str(data)!r} holds no forget and retain rows in a known layout. {lume.EXPECTED} For TOFU: forget10.json, "
            "retain90.json and the other files of locuslab/TOFU."
        )
    return "tofu" if "tofu" in str(data).lower() else ""


def _nonmember(text: str, number: int) -> Row:
    """A whole text as a passage, cut at the space next to its middle, where the tokenizer joins it again.

    Its task is that of the members beside it: the organisers attack the biographies.
    """
    spaces = [m.start() for m in re.finditer(r"(?<=\S) (?=\S)", text)]
    at = min(spaces, key=lambda i: abs(i - len(text) // 2), default=0)
    key = f"nonmember{number}"
    return Row(id=f"{key}sc1", document=key, task="Task3", kind="sc", input=text[:at], output=text[at:].lstrip(" "))


# --- the checkpoints -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint on disk: where it lies, and a hash of all that its numbers can depend on."""

    name: str  # as it was given
    folder: Path
    adapter: Path | None
    fingerprint: str


def locate(given: str | Path, what: str = "model", adapter: str | Path | None = None, *, progress: bool = True) -> Source:
    """The checkpoint that ``given`` names: a folder with config.json and safetensors, or a hub id ``owner/name[@revision]``.

    Nothing is loaded. Raises :class:`SpecError` for a folder that is none, that holds no model, or weights as pickle.
    """
    folder = _folder(given, what)
    if not (folder / "config.json").is_file():
        hint = " It holds an adapter: give its base model here, and the folder as --adapter." if _is_adapter(folder) else ""
        raise SpecError(f"{what} folder {str(given)!r} has no config.json; give the folder that save_pretrained wrote.{hint}")
    if not any(folder.glob(WEIGHTS)):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = "holds its weights as pickle, which is never loaded" if pickled else "holds no weights (*.safetensors)"
        raise SpecError(f"{what} folder {str(given)!r} {why}; save the model with save_pretrained(..., safe_serialization=True).")
    place = None
    if adapter is not None:
        place = _folder(adapter, "adapter")
        if not _is_adapter(place) or not any(place.glob(WEIGHTS)):
            raise SpecError(f"adapter folder {str(adapter)!r} has no adapter_config.json with adapter_model.safetensors (peft).")
    return Source(name=str(given), folder=folder, adapter=place, fingerprint=_hash([folder, *([place] if place else [])], progress))


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _folder(given: str | Path, what: str) -> Path:
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    hub = _HUB.fullmatch(str(given))
    if folder.exists() or hub is None:
        raise SpecError(f"{what} {str(given)!r} is neither a folder nor a hub id (owner/name); check the path.")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(hub[1], revision=hub[2], allow_patterns=list(CONTENT)))
    except Exception as error:  # the hub's clients raise errors of several libraries; all mean: not to be had
        raise SpecError(
            f"{what} {str(given)!r} is no local folder, and it could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {error}); check the path, or the network and your access."
        ) from error


def _hash(folders: Sequence[Path], progress: bool) -> str:
    """SHA-256 over names and contents of the files that make a model."""
    from tqdm.auto import tqdm

    files = sorted({p for f in folders for pattern in CONTENT for p in f.glob(pattern)})
    total, out = sum(p.stat().st_size for p in files), hashlib.sha256()
    with tqdm(total=total, desc="fingerprint", unit="B", unit_scale=True, disable=not progress or total < 1 << 30) as bar:
        for path in files:
            own = hashlib.sha256()
            with open(path, "rb") as f:
                while block := f.read(1 << 22):
                    own.update(block)
                    bar.update(len(block))
            out.update(f"{folders.index(path.parent)}/{path.name}:{own.hexdigest()}\n".encode())
    return out.hexdigest()[:16]


def load_tokenizer(source: Source):
    """The checkpoint's tokenizer. Raises :class:`SpecError` if there is none, or it has no end-of-text token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
        whole = len(tokenizer("a b").input_ids) > 0
    except Exception as error:  # transformers raises many kinds for one cause
        raise SpecError(
            f"no tokenizer could be read from {source.name!r} ({type(error).__name__}: {str(error).splitlines()[0]}); copy "
            "tokenizer.json and tokenizer_config.json of the base model into the folder."
        ) from error
    if not whole or tokenizer.eos_token_id is None:
        lacks = "makes no tokens" if not whole else "has no end-of-text token"
        raise SpecError(f"the tokenizer of {source.name!r} {lacks}; copy the base model's tokenizer files, all of them, there.")
    return tokenizer


def load_model(source: Source, precision: str, tokenizer) -> nn.Module:
    """The model on this machine's device, its adapter merged where weights are not quantised.

    Raises :class:`SpecError` if it cannot be loaded, or has fewer embeddings than the tokenizer has tokens.
    """
    from reprolib.models import device
    from reprolib.models.policy import Policy, causal_lm

    quantised = precision in ("nf4", "int8")
    to = device.accelerator().device
    try:
        merge = source.adapter is not None and not quantised
        lm = device.load_lm(str(source.folder), "fp32" if merge else precision, use_safetensors=True)  # type: ignore[arg-type]
        if source.adapter is not None:
            from peft import PeftModel

            lm = PeftModel.from_pretrained(lm, str(source.adapter))
            # merged in full precision: in bf16 small updates are lost to rounding
            lm = lm.merge_and_unload().to(_dtype(precision)) if merge else lm
        lm = (lm if quantised else lm.to(to)).eval()
    except ReprolibError:
        raise
    except Exception as error:
        if _out_of_memory(error):
            raise SpecError(f"not enough memory to load {source.name!r}; give --precision bf16 or nf4.") from error
        raise SpecError(
            f"the model in {source.name!r} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0]}); "
            "it must be a causal language model that transformers knows without remote code."
        ) from error
    Policy(lm)  # refuses models whose logits it would not compute rightly
    size = causal_lm(lm).get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise SpecError(
            f"the tokenizer has {len(tokenizer)} tokens, but {source.name!r} has embeddings for {size}; "
            "give models that share a tokenizer, each with its own files."
        )
    return lm


def _dtype(precision: str):
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def _out_of_memory(error: BaseException) -> bool:
    import torch

    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
    )


# --- the core part -------------------------------------------------------------------------------------------


def core() -> Probe:
    """The core evaluation as a part: :func:`reprolib.evaluate.core`, and what the leaderboard's own lists say."""
    from reprolib.probes import Probe

    return Probe(
        name="core", title="Core evaluation", suite="core", ask=_core,
        cost="one forward pass over all rows, and one generation of what is not known by heart",
    )  # fmt: skip


def _core(subject: Subject):
    import numpy as np

    from reprolib import evaluate

    exam, s = subject.exam, subject.scores
    target = subject.reference("target")
    if target is not None:
        s.kl = evaluate.kl_to(target, subject.lm, exam, max(1, subject.batch_tokens // 2))
    found = evaluate.core(subject)
    groups, kinds = np.array(found.rows["group"]), np.array(found.rows["kind"])
    score = np.array([math.nan if v is None else v for v in found.rows["score"]], float)
    for g in evaluate.WRITTEN:
        for kind in ("sc", "qa"):
            own = score[(groups == g) & (kinds == kind)]
            if len(own):
                found.metrics[f"{g}/{kind}/score"] = float(own.mean())
    return found


def final(core_metrics: Mapping[str, float], mmlu: Mapping[str, float]) -> dict[str, float]:
    """The leaderboard's numbers of SemEval-2025 Task 4: task aggregate, MIA score, MMLU, their mean, and eligibility.

    From the metrics of the core part and of MMLU; only what can be had: no final score without non-members and MMLU.
    """
    if "official/mia" not in core_metrics:
        return {}
    out = {"official/task_aggregate": core_metrics["lume/task_aggregate"]}
    out |= {k: core_metrics[k] for k in ("official/mia_auc", "official/mia")}
    if "mmlu/accuracy_questions" in mmlu:
        out["official/mmlu"] = mmlu["mmlu/accuracy_questions"]
        out["official/final"] = lume_metrics.final_score(out["official/task_aggregate"], out["official/mia"], out["official/mmlu"])
        out["official/eligible"] = mmlu["mmlu/eligible"]
    return out


# --- the evaluation ------------------------------------------------------------------------------------------


def assess(
    model: str | Path, data: str | Path, *, format: str = "auto", split: str | None = None, target: str | Path | None = None,
    twin: str | Path | None = None, suites: Iterable[str] | None = None, only: Iterable[str] = (), mmlu: str | Path | None = None,
    mmlu_per_subject: int | None = None, harness: Iterable[str] = (), adapter: str | Path | None = None, precision: str = "fp32",
    documents: int | None = None, output: str | Path | None = None, seed: int = 0, max_new_tokens: int = 256,
    batch_tokens: int = 8192, overwrite: bool = False, progress: bool = True,
) -> Assessment:  # fmt: skip
    """Score the checkpoint ``model`` on ``data``, and in the same way the ``target`` (the model before unlearning) and the
    ``twin`` (retrained without the forget rows) where they are given.

    ``suites``: core, wide, stress, data (default: core and wide, and data if ``mmlu`` or ``harness`` is given); ``only`` names
    single parts instead. ``mmlu``: folder or hub id of MMLU, ``harness``: tasks of lm-eval; both are the data suite.
    ``adapter``: a peft adapter on ``model``. ``documents``: so many of each task and side (TOFU: authors). ``output``: folder of
    the results (default ``evaluations/<name of the model>``): parts/, assessment.json, report.html.

    Finished parts are read, not computed again. Raises :class:`SpecError` or :class:`CorpusError` for whatever a user can
    mend; a part that cannot be asked of this data or breaks is named in ``Assessment.skipped``, and the others go on.
    """
    from filelock import FileLock, Timeout

    from reprolib.models.device import PRECISIONS

    suites, only, harness = _tuple(suites), _tuple(only) or (), _tuple(harness) or ()
    if precision not in PRECISIONS:
        raise SpecError(unknown("precision", precision, PRECISIONS))
    for name, value, least in (
        ("documents", documents, 1), ("seed", seed, 0), ("max_new_tokens", max_new_tokens, 1), ("batch_tokens", batch_tokens, 1),
        ("mmlu_per_subject", mmlu_per_subject, 1),
    ):  # fmt: skip
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise SpecError(f"{name} is {value!r}; allowed: a whole number of at least {least}.")
    wanted = _wanted(suites, only, mmlu is not None, bool(harness))
    sources = {
        role: locate(place, role, adapter if role == "model" else None, progress=progress)
        for role, place in zip(ROLES, (model, target, twin), strict=True) if place is not None
    }  # fmt: skip
    corpus = read(data, format, documents=documents, split=split, seed=seed)
    parts = _parts(wanted, mmlu, mmlu_per_subject, harness, seed, batch_tokens)
    settings = {"precision": precision, "seed": seed, "documents": documents, "max_new_tokens": max_new_tokens}
    folder = Path(output) if output is not None else Path("evaluations") / _slug(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SpecError(f"another evaluation is writing to {folder}; wait for it, or give another --output.") from error
    except OSError as error:
        raise SpecError(f"the output folder {folder} cannot be written ({error}); give another --output.") from error
    try:
        run = _open(folder, sources, corpus, settings, overwrite)
        out = _score(folder, run, sources, corpus, parts, settings, batch_tokens, progress)
        _describe(out, folder)
    finally:
        lock.release()
    return out


def _tuple(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip())


def _slug(model: str | Path) -> str:
    name = Path(model).expanduser()
    return re.sub(r"[^\w.-]+", "-", name.resolve().name if name.is_dir() else str(model)) or "model"


def _wanted(suites: tuple[str, ...] | None, only: tuple[str, ...], mmlu: bool, harness: bool) -> tuple[tuple[str, ...], bool]:
    """Names of the parts to score, in order. Known before anything is loaded, so that a slip costs nothing."""
    from reprolib import probes

    own = {"mmlu": mmlu, "harness": harness}
    known = {"core": "core", **{p.name: p.suite for p in probes.probes().values()}, **dict.fromkeys(own, "data")}
    for suite in suites or ():
        if suite not in SUITES:
            raise SpecError(unknown("suite", suite, SUITES))
    for name in only:
        if name not in known:
            raise SpecError(unknown("part", name, known))
        if name in own and not own[name]:
            raise SpecError(f"part {name!r} needs {'--mmlu DIR (or a hub id)' if name == 'mmlu' else '--harness TASKS'}.")
    if suites is not None and "data" in suites and not any(own.values()):
        raise SpecError("the data suite needs --mmlu (a folder or hub id of MMLU) or --harness (tasks of lm-eval).")
    chosen = suites or (("core", "wide") + (("data",) if any(own.values()) else ()))
    picked = [n for n, suite in known.items() if (n in only if only else suite in chosen) and own.get(n, True)]
    return tuple(sorted(picked, key=lambda n: (SUITES.index(known[n]), n != "core"))), bool(only)


def _parts(wanted, mmlu, per_subject, harness, seed: int, batch_tokens: int) -> list[tuple[Probe, Any]]:
    """Each part with what its results depend on besides the model, the data and the settings of the run."""
    from reprolib import probes

    out: list[tuple[Probe, Any]] = []
    for name in wanted[0]:
        if name == "core":
            out.append((core(), METRICS_VERSION))
        elif name == "mmlu":
            from reprolib.corpus.mmlu import load
            from reprolib.probes import mmlu as own

            questions = load(mmlu, per_subject=per_subject, seed=seed)
            probe = own.probe(questions, batch_tokens=batch_tokens)
            out.append((probe, [own.VERSION, questions.fingerprint, own.SHOTS, own.CONTEXT]))
        elif name == "harness":
            from reprolib.probes import harness as engine

            out.append((engine.probe(harness), [engine.VERSION, list(harness)]))
        else:
            probe = probes.probes()[name]
            out.append((probe, VERSIONS.get(probe.suite, 0)))
    return out


def _open(folder: Path, sources: Mapping[str, Source], corpus: Corpus, settings: dict, overwrite: bool) -> dict[str, Any]:
    """The run that this folder belongs to; an error if that is another one."""
    path = folder / "run.json"
    run: dict[str, Any] = {
        "schema": SCHEMA, "data": corpus.fingerprint, "settings": settings,
        "models": {r: s.fingerprint for r, s in sources.items()}, "facts": {},
    }  # fmt: skip
    bound = path.exists() and any((folder / "parts").rglob("*.json"))  # nothing finished yet: anyone may begin here
    if bound and not overwrite:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            other = [k for k in ("schema", "data") if before[k] != run[k]]
            other += [k for k in settings if before["settings"].get(k) != settings[k]]
            other += [k for k, v in run["models"].items() if before["models"].get(k, v) != v]
            run["models"], run["facts"] = before["models"] | run["models"], before["facts"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpecError(f"{path} cannot be read ({error}); give --overwrite to begin again, or another --output.") from error
        if other:
            raise SpecError(
                f"{folder} holds the evaluation of another {', '.join(other)}; give another --output, or --overwrite to "
                "replace what is there."
            )
    if overwrite:
        shutil.rmtree(folder / "parts", ignore_errors=True)
    records._atomic(path, json.dumps(run, indent=1))
    return run


def _score(folder, run, sources, corpus, parts, settings, batch_tokens, progress) -> Assessment:
    from tqdm.auto import tqdm

    from reprolib.evaluate import Examination, Subject

    shared = {"data": run["data"], "settings": settings, "schema": SCHEMA}
    results: dict[str, dict[str, Result]] = {role: {} for role in sources}
    jobs: list[tuple[str, Probe, str]] = []
    for role in sources:
        for probe, depends in parts:
            # a part may read any reference that there is, so that its results belong to all of them; MMLU reads none
            models = {r: s.fingerprint for r, s in sources.items() if r == role or probe.suite != "data"}
            if role != "model":
                models.pop("model", None)
            key = digest({**shared, "part": probe.name, "depends": depends, "role": role, "models": models})
            found = _finished(folder / "parts" / role / f"{probe.name}.json", key)
            if found is not None:
                results[role][probe.name] = found
            else:
                jobs.append((role, probe, key))
    skipped: dict[str, str] = {}
    failed: list[str] = []
    tokenizer = load_tokenizer(sources["model"])
    exam = Examination.of(corpus, tokenizer)
    models = _Models(sources, settings["precision"], tokenizer)
    subject: Subject | None = None
    with tqdm(jobs, unit="part", disable=not (progress and jobs), leave=False) as bar:
        for role, probe, key in bar:
            bar.set_description(f"{role}: {probe.name}")
            absent = [n for n in probe.needs if n not in sources]
            if absent:
                skipped[probe.name] = f"needs --{' and --'.join(absent)}"
                continue
            try:
                began = time.perf_counter()
                if subject is None or subject.title != role:
                    subject = Subject(
                        models(role), exam, max_new_tokens=settings["max_new_tokens"], batch_tokens=batch_tokens,
                        seed=settings["seed"], reference=models.get, progress=progress, title=role,
                    )  # fmt: skip
                    run["facts"][role] = _facts(models(role), sources[role])
                    records._atomic(folder / "run.json", json.dumps(run, indent=1))
                answer = probe.ask(subject)
                _check(probe, answer, subject)
                result = Result(
                    name=probe.name, title=probe.title, suite=probe.suite, metrics=answer.metrics, rows=answer.rows,
                    seconds=round(time.perf_counter() - began, 2),
                )  # fmt: skip
            except Exception as error:
                if _out_of_memory(error):
                    raise SpecError(
                        f"out of memory in {probe.name!r} of the {role}; what is finished is kept, so lower --batch-tokens "
                        f"(now {batch_tokens}) or --max-new-tokens (now {settings['max_new_tokens']}) and go on, or begin again "
                        "with --precision bf16 or nf4."
                    ) from error
                if probe.suite == "core":
                    raise
                why = str(error) if isinstance(error, ReprolibError) else f"broke off with {type(error).__name__}: {error}"
                skipped[probe.name] = why if role == "model" else f"{why} ({role})"
                failed += [] if isinstance(error, ReprolibError) else [probe.name]
                continue
            _keep(folder / "parts" / role / f"{probe.name}.json", key, result)
            results[role][probe.name] = result
    for role in sources:
        own = {p.name: results[role][p.name] for p, _ in parts if p.name in results[role]}
        metrics = final(*(own[n].metrics if n in own else {} for n in ("core", "mmlu")))
        if metrics:
            title = "SemEval-2025 Task 4, as on the leaderboard"
            own = {"official": Result(name="official", title=title, suite="core", metrics=metrics, rows={}, seconds=0.0)} | own
        results[role] = own
    return Assessment(
        models={r: {"name": s.name, "fingerprint": s.fingerprint, **run["facts"].get(r, {})} for r, s in sources.items()},
        data=_about(corpus), settings=settings, results=results, skipped=skipped, failed=tuple(failed),
        notes=tuple(_notes(exam, run, settings, parts)), provenance=records.provenance(),
    )  # fmt: skip


class _Models:
    """Checkpoints by role, each loaded when it is first asked for."""

    def __init__(self, sources: Mapping[str, Source], precision: str, tokenizer):
        self.sources, self.precision, self.tokenizer = sources, precision, tokenizer
        self.loaded: dict[str, nn.Module] = {}

    def __call__(self, role: str) -> nn.Module:
        if role not in self.loaded:
            self.loaded[role] = load_model(self.sources[role], self.precision, self.tokenizer)
        return self.loaded[role]

    def get(self, role: str) -> nn.Module | None:
        return self(role) if role in self.sources else None


def _facts(lm: nn.Module, source: Source) -> dict[str, Any]:
    from reprolib.models.policy import causal_lm

    inner = causal_lm(lm)
    return {
        "architecture": inner.config.model_type, "parameters": inner.num_parameters(),
        "context": getattr(inner.config, "max_position_embeddings", None),
        "adapter": None if source.adapter is None else source.adapter.name,
    }  # fmt: skip


def _check(probe: Probe, answer, subject: Subject) -> None:
    foreign = [k for k in answer.metrics if probe.suite != "core" and not k.startswith(f"{probe.name}/")]
    uneven = [k for k, v in answer.rows.items() if probe.suite != "data" and len(v) != len(subject.rows)]
    texts = [k for k, v in answer.rows.items() if k not in LABELS and any(isinstance(x, str) for x in v)]
    for names, what in ((foreign, f"metrics must be named '{probe.name}/...'"), (uneven, "columns must have one value a row"),
                        (texts, "columns must hold numbers, no text")):  # fmt: skip
        if names:
            raise SpecError(f"probe {probe.name!r} returned {names[0]!r}, but its {what}.")


def _finished(path: Path, key: str) -> Result | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("fingerprint") != key:
            return None
        raw["metrics"] = {k: math.nan if v is None else v for k, v in raw["metrics"].items()}
        return Result(**raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, or broken: it is computed (again)
        return None


def _keep(path: Path, key: str, result: Result) -> None:
    records._atomic(path, json.dumps(records._finite({"fingerprint": key, **dataclasses.asdict(result)})))


def _about(corpus: Corpus) -> dict[str, Any]:
    counts = {g: {"documents": len(corpus.documents(g)), "rows": len(corpus[g])} for g in GROUPS}
    return {"name": corpus.name, "fingerprint": corpus.fingerprint, "groups": counts, "tasks": list(corpus.tasks)}


def _notes(exam, run, settings, parts) -> Iterable[str]:
    """What a reader must know before comparing these numbers with others."""
    if settings["documents"] is not None:
        yield f"A subset: {settings['documents']} documents of each task and side. Compare with the same subset only."
    for probe, _ in parts:
        if probe.name == "mmlu" and "(" in probe.title:
            yield f"{probe.title}: a subset."
    context = run["facts"].get("model", {}).get("context")
    long = sum(len(ids) > context for ids in exam.tokens.ids) if context else 0
    if long:
        yield f"{long} of {len(exam.tokens)} texts are longer than the model's context of {context} tokens."
    if not exam.corpus["holdout"]:
        yield "There are no documents that the model has not seen, so no membership attack."
    if Counter(r.kind for r in exam.corpus["forget"])["sc"] == 0:
        yield "There are no passages, so no official aggregate: it needs passages and questions of each task."


def to_json(a: Assessment) -> str:
    """Everything, as JSON that diffs well: one line a part, a metric block and a column. No text of the data."""
    body = {
        "schema": SCHEMA, "models": a.models, "data": a.data, "settings": a.settings, "notes": list(a.notes), "skipped": a.skipped,
        "gap_closed": {k: g for k in a.metrics() if math.isfinite(g := a.gap(k))}, "provenance": a.provenance,
    }  # fmt: skip
    lines = [f"{json.dumps(k)}: {json.dumps(records._finite(v))}" for k, v in body.items()]
    roles = []
    for role, parts in a.results.items():
        own = [f"{json.dumps(n)}: {json.dumps(records._finite(dataclasses.asdict(r)))}" for n, r in parts.items()]
        roles.append(f'{json.dumps(role)}: {{\n   ' + ",\n   ".join(own) + "\n  }")
    lines.append('"results": {\n  ' + ",\n  ".join(roles) + "\n }")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _describe(a: Assessment, folder: Path) -> None:
    from reprolib.report import assessment

    records._atomic(folder / "assessment.json", to_json(a))
    records._atomic(folder / "report.html", assessment.page(a))


def main(args: Any) -> int:
    """What ``reprolib evaluate`` does with its arguments: score, print the table, say where the report is."""
    import sys

    from reprolib.report import assessment

    output = Path(args.output) if args.output else Path("evaluations") / _slug(args.model)
    a = assess(
        args.model, args.data, format=args.format, split=args.split, target=args.target, twin=args.twin, suites=args.suites,
        only=args.only or (), mmlu=args.mmlu, mmlu_per_subject=args.mmlu_per_subject, harness=args.harness or (),
        adapter=args.adapter, precision=args.precision, documents=args.documents, output=output, seed=args.seed,
        max_new_tokens=args.max_new_tokens, batch_tokens=args.batch_tokens, overwrite=args.overwrite,
    )  # fmt: skip
    print(assessment.text(a))
    print(f"\nreport: {output / 'report.html'}   numbers: {output / 'assessment.json'}")
    if a.failed:
        print(f"failed: {', '.join(a.failed)}; the same command tries them again.", file=sys.stderr)
    return 1 if a.failed else 0
