"""MMLU (Hendrycks et al. 2021): 57 subjects, four options a question, five worked examples a subject.

Read from the Hugging Face hub (``cais/mmlu``) or from a local folder with ``dev/`` and ``test/`` CSV files;
nothing of it is shipped. The worked examples are the ``dev`` split, the scored questions the ``test`` split.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from reprolib.corpus.files import VARIABLE, collect
from reprolib.errors import CorpusError, unknown
from reprolib.identity import digest
from reprolib.seeds import derive

HUB = "cais/mmlu"
LETTERS = "ABCD"
HEADER = ("question", "choice0", "choice1", "choice2", "choice3", "answer")
SPLITS = ("dev", "test")

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
)

EXPECTED = (
    "Expected are dev/<subject>_dev.csv and test/<subject>_test.csv for each subject, with the header "
    f"{','.join(HEADER)} (answer 0 to 3), or without a header and with the answer as A to D."
)

REMEDY = (
    f"Give a local folder, or the hub id {HUB}, as the argument or a folder in the environment variable"
    f" {VARIABLE}. {EXPECTED}"
)

_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its four options; ``answer`` is the number of the right one, 0 to 3."""

    subject: str
    question: str
    choices: tuple[str, str, str, str]
    answer: int


@dataclass(frozen=True)
class MMLU:
    """Worked examples by subject, and the questions to score. ``subset`` says what was left out; "" for
    nothing.
    """

    dev: Mapping[str, tuple[Question, ...]]
    test: tuple[Question, ...]
    subset: str = ""

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(q.subject for q in self.test))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content (12 hex digits)."""
        questions = [q for s in sorted(self.dev) for q in self.dev[s]] + list(self.test)
        return digest([asdict(q) for q in questions])


def load(
    source: str | Path | None = None,
    *,
    subjects: Iterable[str] = SUBJECTS,
    per_subject: int | None = None,
    seed: int = 0,
) -> MMLU:
    """Read MMLU from ``source``: a local folder (or one that holds it as ``mmlu/``), or a hub id
    ``owner/name[@revision]``.

    ``None`` takes the environment variable ``REPROLIB_DATA``. ``per_subject`` draws so many test questions of
    each subject (``None``: all 14,042); the draw depends on ``seed`` and the subject alone, keeps the order
    of the file, and a smaller draw is part of a larger one. A result with less than all subjects and
    questions says so in :attr:`MMLU.subset`.

    Raises :class:`CorpusError` if nothing is given, found or reachable, for a bad line (file, line, what to
    do, and how many more are bad), a subject that is unknown or absent, and more questions asked for than a
    subject has.
    """
    chosen = tuple(sorted({subjects} if isinstance(subjects, str) else set(subjects)))
    for subject in chosen:
        if subject not in SUBJECTS:
            raise CorpusError(unknown("MMLU subject", subject, SUBJECTS))
    if not chosen:
        raise CorpusError("no MMLU subject was chosen; give one or more, or leave `subjects` out for all 57.")
    if per_subject is not None and (
        isinstance(per_subject, bool) or not isinstance(per_subject, int) or per_subject < 1
    ):
        raise CorpusError(
            f"per_subject is {per_subject!r}, but must be a whole number of at least 1, or None for all"
            " questions."
        )
    dev, test = _read(source, chosen)
    if per_subject is not None:
        counts = Counter(q.subject for q in test)
        least = min(chosen, key=lambda s: counts[s])
        if per_subject > counts[least]:
            raise CorpusError(
                f"{per_subject} questions a subject asked for, but {least} has {counts[least]}; ask for"
                " fewer."
            )
        test = tuple(
            q
            for s in chosen
            for q in _draw([q for q in test if q.subject == s], per_subject, derive(seed, "mmlu", s))
        )
    notes = [f"{len(chosen)} of {len(SUBJECTS)} subjects"] if len(chosen) < len(SUBJECTS) else []
    notes += [f"{per_subject} questions a subject, seed {seed}"] if per_subject is not None else []
    return MMLU(dev, test, ", ".join(notes))


def read_questions(path: str | Path, subject: str) -> tuple[Question, ...]:
    """The questions of one CSV file, in order. Text is kept as it is: "None" and "0.10" stay what they are.

    Raises :class:`CorpusError` that names the file, the first bad line, what is wrong, what to do, and how
    many more are bad.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}). {EXPECTED}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8.") from error

    def build(line: int, cells: list[str]) -> Question:
        if len(cells) != len(HEADER):
            raise CorpusError(
                f"has {len(cells)} cell(s), not {len(HEADER)} ({', '.join(HEADER)}); quote cells that hold"
                " a comma."
            )
        return _question(subject, cells[0], cells[1:5], cells[5].strip())

    return collect(path, "line", _records(path, text), build)


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line that a record begins on, its cells), without a header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, first = 1, True
    try:
        for cells in reader:
            if cells and not (first and tuple(c.strip() for c in cells) == HEADER):
                yield line, cells
            line, first = reader.line_num + 1, False
    except csv.Error as error:
        raise CorpusError(
            f"{path}, line {line}: no CSV ({error}); close the quote, or fetch it again."
        ) from error


def _question(subject: str, question: object, choices: object, answer: object) -> Question:
    if not isinstance(question, str) or not question.strip():
        raise CorpusError("the question is empty; fill it or remove the line.")
    if (
        not isinstance(choices, list)
        or len(choices) != 4
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise CorpusError("one of the four options is missing or empty; fill it or remove the line.")
    right = str(answer)
    number = (
        LETTERS.find(right)
        if len(right) == 1 and right in LETTERS
        else int(right)
        if right in ("0", "1", "2", "3")
        else -1
    )
    if number < 0:
        raise CorpusError(f"the answer is {answer!r}; allowed: 0 to 3, or A to D. Correct it.")
    return Question(subject, question, tuple(choices), number)


def _draw(questions: list[Question], number: int, seed: int) -> list[Question]:
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    return [questions[i] for i in sorted(order[:number])]


def _read(
    source: str | Path | None, subjects: tuple[str, ...]
) -> tuple[dict[str, tuple[Question, ...]], tuple[Question, ...]]:
    given = source if source is not None else os.environ.get(VARIABLE)
    if not given:
        raise CorpusError(f"no MMLU data: no source was given and {VARIABLE} is not set. {REMEDY}")
    folder = Path(given).expanduser()
    hub = _ID.fullmatch(given) if isinstance(given, str) else None
    if not folder.is_dir():
        if folder.exists() or hub is None:
            raise CorpusError(f"{str(given)!r} is neither a folder nor a hub id (owner/name). {REMEDY}")
        split = _download(hub[1], hub[2], subjects)
    else:
        place = next((p for p in (folder, folder / "mmlu") if all((p / s).is_dir() for s in SPLITS)), None)
        if place is None:
            raise CorpusError(f"{str(given)!r} holds no MMLU data. {REMEDY}")
        files = {(s, k): place / k / f"{s}_{k}.csv" for s in subjects for k in SPLITS}
        missing = [p for p in files.values() if not p.is_file()]
        if missing:
            raise CorpusError(
                f"{missing[0]}: no such file (and {len(missing) - 1} more are missing); fetch MMLU again,"
                " whole, or name the subjects that are there."
            )
        split = {k: read_questions(path, k[0]) for k, path in files.items()}
    dev = {s: split[s, "dev"] for s in subjects}
    return dev, tuple(q for s in subjects for q in split[s, "test"])


def _download(
    name: str, revision: str | None, subjects: tuple[str, ...]
) -> dict[tuple[str, str], tuple[Question, ...]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CorpusError(
            f"{name!r} from the hub needs the package datasets; pip install 'reprolib[data]'."
        ) from error
    out: dict[tuple[str, str], list[Question]] = {(s, k): [] for s in subjects for k in SPLITS}
    for split in SPLITS:
        try:
            rows = load_dataset(name, "all", split=split, revision=revision)
        except (
            Exception
        ) as error:  # the hub's clients raise errors of several libraries; all mean: not to be had
            raise CorpusError(
                f"{name!r} is no local folder, and its {split} split could not be fetched from the Hugging"
                f" Face hub ({type(error).__name__}: {error}); there may be no network. {REMEDY}"
            ) from error
        for number, row in enumerate(rows, 1):
            if row.get("subject") in subjects:
                try:
                    question = _question(
                        row["subject"], row.get("question"), row.get("choices"), row.get("answer")
                    )
                except CorpusError as error:
                    raise CorpusError(f"{name}, {split} split, row {number}: {error}") from error
                out[row["subject"], split].append(question)
    empty = [f"{s} ({k})" for (s, k), rows in out.items() if not rows]
    if empty:
        raise CorpusError(
            f"{name!r} has no questions of {empty[0]} (and {len(empty) - 1} more); is it MMLU? {REMEDY}"
        )
    return {k: tuple(v) for k, v in out.items()}
