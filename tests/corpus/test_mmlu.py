"""MMLU: both local layouts, the hub, every error, the draw, and the counts of the real files."""

import csv
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from reprolib.corpus import mmlu
from reprolib.corpus.files import VARIABLE
from reprolib.corpus.mmlu import HEADER, LETTERS, SUBJECTS, Question, load, read_questions
from reprolib.errors import CorpusError


def real_data():
    """The real MMLU, found without an absolute path; skips if there is none."""
    given = os.environ.get(VARIABLE)
    sibling = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    for folder in (Path(given) if given else sibling, sibling):
        if (folder / "mmlu").is_dir():
            return folder / "mmlu"
    pytest.skip("no real MMLU data")


def record(subject, n):
    return [f"{subject} {n}?", f"w{n}", "None", "0.10", "x, y", str(n % 4)]


def write(path, records, header=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([HEADER] * header + records)
    return path


def mmlu_folder(folder, subjects=SUBJECTS, test=4, header=True):
    """A whole MMLU of invented questions: five worked examples and ``test`` questions a subject."""
    for subject in subjects:
        for split, count in (("dev", 5), ("test", test)):
            records = [record(f"{subject} {split}", n) for n in range(count)]
            if not header:
                records = [[*r[:5], LETTERS[int(r[5])]] for r in records]
            write(folder / split / f"{subject}_{split}.csv", records, header)
    return folder


def test_local_folder_is_read_as_it_is(tmp_path):
    data = load(mmlu_folder(tmp_path))
    assert len(data.subjects) == len(SUBJECTS) == 57 and data.subset == ""
    assert [len(d) for d in data.dev.values()] == [5] * 57
    assert data.test[1] == Question("abstract_algebra", "abstract_algebra test 1?", ("w1", "None", "0.10", "x, y"), 1)
    assert len(data.test) == 57 * 4
    assert data.fingerprint == load(tmp_path).fingerprint != load(tmp_path, per_subject=3).fingerprint


def test_the_original_layout_without_a_header_gives_the_same(tmp_path):
    assert load(mmlu_folder(tmp_path / "a", header=False)).fingerprint == load(mmlu_folder(tmp_path / "b")).fingerprint


def test_a_folder_above_and_the_environment(tmp_path, monkeypatch):
    whole = load(mmlu_folder(tmp_path / "mmlu"))
    assert load(tmp_path).test == whole.test
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert load().test == whole.test
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(CorpusError, match=f"no MMLU data.*{VARIABLE}"):
        load()


def test_draws_are_nested_ordered_marked_and_hang_on_seed_and_subject(tmp_path):
    folder = mmlu_folder(tmp_path, test=12)
    small, large = load(folder, per_subject=3), load(folder, per_subject=7)
    assert Counter(q.subject for q in small.test) == dict.fromkeys(SUBJECTS, 3)
    assert set(small.test) < set(large.test) < set(load(folder).test)
    whole = {q: n for n, q in enumerate(load(folder).test)}
    assert sorted(small.test, key=whole.get) == list(small.test)
    assert small.subset == "3 questions a subject, seed 0"
    assert load(folder, per_subject=3, seed=1).test != small.test
    two = load(folder, subjects=("virology", "anatomy"), per_subject=3)
    assert two.test == tuple(q for q in small.test if q.subject in ("virology", "anatomy"))
    assert two.subset.startswith("2 of 57 subjects") and set(two.dev) == {"anatomy", "virology"}


@pytest.mark.parametrize(
    "line, words",
    [
        ("q,a,b,c,d", "has 5 cell"),
        ("q,a,b,c,d,4", "the answer is '4'.*0 to 3, or A to D"),
        ("q,a,b,c,d,", "the answer is ''"),
        ("q,a,b,c,d,AB", "the answer is 'AB'"),
        (" ,a,b,c,d,1", "question is empty"),
        ("q,a,,c,d,1", "options is missing or empty"),
    ],
)
def test_a_bad_line_is_named_with_the_count_of_others(tmp_path, line, words):
    good = "q,a,b,c,d,1"
    path = tmp_path / "x_test.csv"
    path.write_text("\n".join([",".join(HEADER), good, '"two\nlines",a,b,c,d,2', line, good, line]) + "\n")
    with pytest.raises(CorpusError, match=words) as e:
        read_questions(path, "x")
    assert f"{path}, line 5:" in str(e.value) and "(and 1 more bad lines)" in str(e.value)


def test_files_that_are_no_csv(tmp_path):
    path = tmp_path / "x_test.csv"
    for content, words in ((b'q,"a,b,c,d,1\nq,a,b,c,d,2\n', "line 1: no CSV"), (b"\xff\xfe", "byte 0 is not UTF-8"), (b"", "has no lines")):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=words):
            read_questions(path, "x")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_questions(tmp_path / "absent.csv", "x")
    path.write_bytes(b"\xef\xbb\xbf" + ",".join(HEADER).encode() + b"\r\nq,a,b,c,d,3\r\n")
    assert [q.answer for q in read_questions(path, "x")] == [3]


def test_what_cannot_be_asked(tmp_path):
    folder = mmlu_folder(tmp_path / "m")
    for call, words in (
        (lambda: load(folder, subjects="virolgy"), "did you mean 'virology'"),
        (lambda: load(folder, subjects=()), "no MMLU subject"),
        (lambda: load(folder, per_subject=5), "has 4; ask for fewer"),
        (lambda: load(folder, per_subject=0), "at least 1"),
        (lambda: load(folder, per_subject=True), "at least 1"),
        (lambda: load(tmp_path), "holds no MMLU data.*cais/mmlu"),
        (lambda: load(tmp_path / "absent"), "neither a folder nor a hub id"),
        (lambda: load(str(folder / "dev" / "virology_dev.csv")), "neither a folder nor a hub id"),
    ):
        with pytest.raises(CorpusError, match=words):
            call()
    (folder / "test" / "virology_test.csv").unlink()
    with pytest.raises(CorpusError, match=r"virology_test.csv: no such file.*name the"):
        load(folder)
    assert len(load(folder, subjects=("anatomy",)).test) == 4


def fake_hub(monkeypatch, rows):
    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        if isinstance(rows, Exception):
            raise rows
        return rows(split)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def hub_rows(split):
    for subject in SUBJECTS:
        for n in range(5 if split == "dev" else 4):
            q, *choices, answer = record(f"{subject} {split}", n)
            yield {"subject": subject, "question": q, "choices": choices, "answer": int(answer)}


def test_the_hub_gives_the_same_as_a_folder(tmp_path, monkeypatch):
    asked = fake_hub(monkeypatch, hub_rows)
    assert load("cais/mmlu@main").fingerprint == load(mmlu_folder(tmp_path)).fingerprint
    assert asked == [("cais/mmlu", "all", "dev", "main"), ("cais/mmlu", "all", "test", "main")]


def test_a_hub_that_fails(monkeypatch):
    fake_hub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(CorpusError, match=r"could not be fetched.*ConnectionError: no route.*local folder"):
        load("cais/mmlu")
    fake_hub(monkeypatch, lambda split: [{"subject": "virology", "question": "q", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(CorpusError, match="dev split, row 1: one of the four options"):
        load("cais/mmlu")
    fake_hub(monkeypatch, lambda split: [])
    with pytest.raises(CorpusError, match=r"has no questions of .*is it MMLU"):
        load("cais/mmlu")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="needs the package datasets"):
        load("cais/mmlu")


def test_the_real_files():
    data = load(real_data())
    assert len(data.test) == 14042 and sum(map(len, data.dev.values())) == 285
    counts = Counter(q.subject for q in data.test)
    assert len(counts) == 57 and min(counts.values()) == 100 and counts["professional_law"] == 1534
    # a model that always says A scores what destroyed models have on the leaderboard
    assert Counter(q.answer for q in data.test)[0] / len(data.test) == pytest.approx(0.229, abs=5e-4)
    assert mmlu.load(real_data(), per_subject=2).test[0] in data.test
