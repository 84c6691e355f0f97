"""LUME and SemEval data: every layout, every error, the draw, and the counts of the real files."""

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from reprolib.corpus import lume
from reprolib.corpus.files import VARIABLE
from reprolib.corpus.rows import GROUPS, select
from reprolib.errors import CorpusError

HUB = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"


def real_data(name):
    """The folder ``name`` of the real data, found without an absolute path; skips if there is none."""
    given = os.environ.get(VARIABLE)
    sibling = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    for folder in (Path(given) if given else sibling, sibling):
        if (folder / name).is_dir():
            return folder / name
    pytest.skip(f"no real {name} data")


def document(key, task, questions=1):
    quoted = f'"{key}"' if task == "Task1" else key
    rows = [{"id": f"{quoted}sc1", "input": f"{key} was born in", "output": "Delft, long ago.", "task": task}]
    for i in range(questions):
        rows.append({"id": f"{quoted}qa{i}", "input": f"Where was {key} born {i}?", "output": "Delft", "task": task})
    return rows


def records(side, count=6):
    """``count`` documents of each task, keys distinct between the sides."""
    mark = {"forget": "f", "retain": "e"}[side]
    return [
        row
        for task in lume.TASKS
        for i in range(count)
        for row in document(f"{mark}{task[-1]}{i:02d}", task, 5 if task == "Task2" else 1)
    ]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def write_parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def lume_folder(folder, forget=None, retain=None):
    write(folder / "forget.jsonl", records("forget") if forget is None else forget)
    write(folder / "retain.jsonl", records("retain") if retain is None else retain)
    return folder


def semeval_folder(folder):
    for side in ("forget", "retain"):
        rows = [{**r, "split": side} for r in records(side)]
        parts = {"train": [r for r in rows if "5" not in r["id"]], "validation": [r for r in rows if "5" in r["id"]]}
        for split, part in parts.items():
            write_parquet(folder / "data" / f"{side}_{split}-00000-of-00001.parquet", part)
    for place, count in (("mia_data", 3), ("mia_data/validation", 2)):
        for name in ("member", "nonmember"):
            write(folder / place / f"{name}.jsonl", [{"id": str(i), "document": f"{name} {i}"} for i in range(count)])
    return folder


GOOD = {"id": "k1sc1", "input": "a b", "output": "c", "task": "Task3"}


# ids


@pytest.mark.parametrize(
    ("id", "parts"),
    [
        ('"8f24-c5"sc1', ("8f24-c5", "sc", 1)),
        ("df8d-1qa4", ("df8d-1", "qa", 4)),
        ("12762334qa0", ("12762334", "qa", 0)),
        ("12qa12", ("12", "qa", 12)),
        ("aqa1sc1", ("aqa1", "sc", 1)),
    ],
)
def test_ids(id, parts):
    assert lume.parse_id(id) == parts


BAD_IDS = ("", "sc1", "12", "12sc", "12xx1", "12qa1 ", "12qa1\n", "12qa01", '"12sc1', '""sc1', "12qa१")


@pytest.mark.parametrize("id", BAD_IDS)
def test_bad_ids(id):
    with pytest.raises(CorpusError, match=r"id .*(write|quote)"):
        lume.parse_id(id)


# one file


def test_rows_keep_their_text(tmp_path):
    odd = {**GOOD, "input": "see <|endoftext|> \u2028 \x85 \\_ ", "output": " é <|im_end|>\n"}
    path = write(tmp_path / "x.jsonl", [odd])
    path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"   \n")
    (row,) = lume.read_rows(path)
    assert (row.input, row.output) == ("see <|endoftext|> \u2028 \x85 \\_", "é <|im_end|>\n")
    (raw,) = lume.read_rows(str(write(tmp_path / "y.jsonl", [{**GOOD, "id": '"k"sc1', "task": "Task1"}])))
    assert (raw.id, raw.document, raw.kind, raw.task) == ("ksc1", "k", "sc", "Task1")


def test_unescaped_line_separators_do_not_end_a_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**GOOD, "input": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert lume.read_rows(path)[0].input == "a\u2028b\x85c"


BAD = {
    "malformed JSON": (b'{"id": ', "fetch"),
    "where an object": (b"[1]", "write one object"),
    "missing field": (json.dumps({k: v for k, v in GOOD.items() if k != "task"}).encode(), "needs"),
    "field output is int": (json.dumps({**GOOD, "output": 3}).encode(), "quotes"),
    "field output is empty": (json.dumps({**GOOD, "output": " \n"}).encode(), "remove"),
    "field input is empty": (json.dumps({**GOOD, "input": ""}).encode(), "fill"),
    "unknown task 'Task4'": (json.dumps({**GOOD, "task": "Task4"}).encode(), "Correct"),
    "does not end in sc or qa": (json.dumps({**GOOD, "id": "k1"}).encode(), "write it as"),
    "stray double quote": (json.dumps({**GOOD, "id": '"k1sc1'}).encode(), "quote the whole key"),
    "duplicate id": (json.dumps({**GOOD, "id": '"k0"sc1'}).encode(), "remove one"),
    "not UTF-8": (b'{"id": "\xff"}', "save the file as UTF-8"),
    "half a surrogate pair": (json.dumps({**GOOD, "output": "\ud800"}).encode(), "correct the escape"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("more", [0, 3])
def test_bad_lines_are_named(tmp_path, what, more):
    line, remedy = BAD[what]
    path = write(tmp_path / "x.jsonl", [{**GOOD, "id": "k0sc1"}])
    path.write_bytes(path.read_bytes() + b"\n" + b"\n".join([line] * (1 + more)) + b"\n")  # line 2 is blank
    with pytest.raises(CorpusError) as caught:
        lume.read_rows(path)
    message = str(caught.value)
    assert "x.jsonl, line 3: " in message and what in message and remedy in message
    assert ("and 3 more bad lines" in message) == bool(more)


def test_bad_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"empty\.jsonl: the file has no lines; fetch"):
        lume.read_rows(tmp_path / "empty.jsonl")
    with pytest.raises(CorpusError, match=r"none\.jsonl: cannot be read.*Expected"):
        lume.read_rows(tmp_path / "none.jsonl")


def test_bad_parquet(tmp_path, monkeypatch):
    rows = [{**GOOD, "split": "forget"}, {**GOOD, "split": "retain"}]
    path = write_parquet(tmp_path / "forget_train-0.parquet", rows)
    with pytest.raises(CorpusError, match=r"forget_train-0\.parquet, row 2: field split .*move the row"):
        lume.read_rows(path)
    null = write_parquet(tmp_path / "null.parquet", [{**GOOD, "output": "x"}, {**GOOD, "id": "k2sc1", "output": None}])
    with pytest.raises(CorpusError, match=r"null\.parquet, row 2: field output is NoneType"):
        lume.read_rows(null)
    broken = tmp_path / "broken.parquet"
    for content in (b"", b"PAR1 no parquet PAR1"):
        broken.write_bytes(content)
        with pytest.raises(CorpusError, match=r"broken\.parquet: cannot be read as parquet.*fetch"):
            lume.read_rows(broken)
    with pytest.raises(CorpusError, match="cannot be read as parquet"):
        lume.read_rows(tmp_path / "none.parquet")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusError, match=r"needs pyarrow.*reprolib\[data\]"):
        lume.read_rows(path)


# releases


def test_layouts_agree(tmp_path, monkeypatch):
    plain = lume.find(lume_folder(tmp_path / "both" / "lume"))
    official = lume.find(semeval_folder(tmp_path / "both" / "semeval25-unlearning-data"))
    assert (plain.layout, plain.splits) == ("lume", ("train",))
    assert (official.layout, official.splits) == ("semeval", ("train", "validation"))
    for side in ("forget", "retain"):
        parts = official.rows[side, "train"] + official.rows[side, "validation"]
        assert sorted(parts, key=lambda r: r.id) == sorted(plain.rows[side, "train"], key=lambda r: r.id)
    assert official.members == {"train": ("member 0", "member 1", "member 2"), "validation": ("member 0", "member 1")}
    assert {s: len(t) for s, t in official.nonmembers.items()} == {"train": 3, "validation": 2}
    assert plain.members == plain.nonmembers == {}
    assert lume.find(tmp_path / "both").layout == "lume"
    semeval_folder(tmp_path / "one" / "semeval25-unlearning-data")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "one"))
    assert lume.find().layout == "semeval"


def test_nothing_found(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    wrong = tmp_path / "file.txt"
    wrong.write_text("x")
    for source in (None, "", tmp_path, wrong, str(tmp_path / "absent"), tmp_path / "absent"):
        with pytest.raises(CorpusError, match=r"REPROLIB_DATA.*forget\.jsonl.*forget_train"):
            lume.find(source)
    with pytest.raises(CorpusError, match="no source was given and REPROLIB_DATA is not set"):
        lume.load()


def test_incomplete_releases(tmp_path):
    (lume_folder(tmp_path / "a") / "retain.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"retain\.jsonl: cannot be read.*Expected"):
        lume.find(tmp_path / "a")
    data = semeval_folder(tmp_path / "b") / "data"
    shard = data / "retain_train-00000-of-00001.parquet"
    shard.rename(data / "retain_train-00000-of-00002.parquet")
    with pytest.raises(CorpusError, match=r"1 file\(s\) retain_train-\*\.parquet of 2; fetch"):
        lume.find(tmp_path / "b")
    (data / "retain_train-00000-of-00002.parquet").unlink()
    with pytest.raises(CorpusError, match=r"0 file\(s\) retain_train-\*\.parquet of 1; fetch"):
        lume.find(tmp_path / "b")


def test_bad_attack_texts(tmp_path):
    folder = semeval_folder(tmp_path)
    texts = [{"id": "1", "document": "x"}, {"id": "2", "document": ""}, {"id": "3"}]
    write(folder / "mia_data" / "member.jsonl", texts)
    with pytest.raises(CorpusError, match=r"member\.jsonl, line 2: field document is empty.*and 1 more bad lines"):
        lume.find(folder)


def test_a_document_has_one_place(tmp_path):
    both = lume_folder(tmp_path / "a", retain=[*records("retain"), *document("f100", "Task1")])
    with pytest.raises(CorpusError, match=r"'f100' stands in forget train Task1 and in retain train Task1.*remove"):
        lume.find(both)
    mixed = lume_folder(tmp_path / "b", forget=[*document("x", "Task1"), {**GOOD, "id": "xqa7"}])
    with pytest.raises(CorpusError, match="'x' stands in forget train Task1 and in forget train Task3"):
        lume.find(mixed)
    data = semeval_folder(tmp_path / "c") / "data"
    (data / "forget_train-00000-of-00001.parquet").rename(data / "forget_train-00000-of-00002.parquet")
    again = data / "forget_train-00001-of-00002.parquet"
    again.write_bytes((data / "forget_train-00000-of-00002.parquet").read_bytes())
    with pytest.raises(CorpusError, match=r"duplicate id .* in the files of forget train; remove"):
        lume.find(tmp_path / "c")


def test_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def fetch(name, **options):
        asked.append((name, options["repo_type"], options["revision"]))
        return str(semeval_folder(tmp_path))

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert lume.find(HUB).layout == "semeval"
    assert lume.find(f"{HUB}@abc123").members["train"]
    assert asked == [(HUB, "dataset", None), (HUB, "dataset", "abc123")]

    def fail(name, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(CorpusError) as caught:
        lume.find(f"{HUB}@abc123")
    for part in (HUB, "'abc123'", "no route to host", "gated", "local folder", VARIABLE, "forget.jsonl"):
        assert part in str(caught.value)


# corpora


def test_everything_by_default(tmp_path):
    corpus = lume.load(lume_folder(tmp_path))
    assert corpus.name == "lume" and corpus.tasks == lume.TASKS
    assert (len(corpus.documents("forget")), len(corpus.documents("retain")), corpus["holdout"]) == (18, 18, ())
    assert corpus["world"] and {r.task for r in corpus["world"]} == {"World"}
    assert len(corpus["forget"]) == 6 * (2 + 6 + 2)
    assert str(tmp_path) not in json.dumps(corpus.facts) and corpus.facts["layout"] == "lume"
    assert set(corpus.facts) == {"layout", "tasks", "documents", "holdout", "seed", "split"}


def by_task(corpus, group):
    return {t: {r.document for r in select(corpus[group], task=t)} for t in lume.TASKS}


def test_the_split_is_by_document(tmp_path):
    folder = lume_folder(tmp_path)
    corpus = lume.load(folder, documents=2, holdout={"Task1": 3, "Task2": 4, "Task3": 6}, seed=4)
    keys = {g: set(corpus.documents(g)) for g in GROUPS}
    assert sum(map(len, keys.values())) == len(set().union(*keys.values()))
    held = by_task(corpus, "holdout")
    assert {t: len(k) for t, k in held.items()} == {"Task1": 3, "Task2": 4, "Task3": 6}
    assert {k[0] for t in ("Task1", "Task2") for k in held[t]} == {"f"}  # forget documents first
    assert Counter(k[0] for k in held["Task3"]) == {"f": 4, "e": 2}
    for group in ("forget", "retain", "holdout"):  # whole documents
        for key in keys[group]:
            kinds = Counter(r.kind for r in corpus[group] if r.document == key)
            assert kinds == {"sc": 1, "qa": 5 if key[1] == "2" else 1}
    rest = lume.load(folder, documents=2, seed=4)
    assert {t: len(k) for t, k in by_task(rest, "holdout").items()} == dict.fromkeys(lume.TASKS, 4)
    assert all(k.startswith("f") for k in rest.documents("holdout"))
    assert lume.load(folder, documents=2, holdout=0)["holdout"] == ()


def test_the_draw(tmp_path):
    folder = lume_folder(tmp_path)
    small, large, other = (lume.load(folder, documents=n, holdout=1, seed=s) for n, s in ((2, 0), (4, 0), (2, 1)))
    assert set(small.documents("forget")) < set(large.documents("forget"))
    assert set(small.documents("forget")) != set(other.documents("forget"))
    alone = lume.load(folder, tasks="Task3", documents=2, holdout=1)
    assert alone.tasks == ("Task3",)
    assert alone["forget"] == select(small["forget"], task="Task3")
    assert lume.load(folder, tasks=("Task3", "Task1", "Task3")).facts["tasks"] == ["Task1", "Task3"]


def test_order_of_lines_does_not_matter(tmp_path):
    forget, retain = records("forget"), records("retain")
    first = lume.load(lume_folder(tmp_path / "a", forget, retain), documents=3, holdout=2)
    random.Random(1).shuffle(forget)
    random.Random(2).shuffle(retain)
    second = lume.load(lume_folder(tmp_path / "b", forget, retain), documents=3, holdout=2)
    assert first.fingerprint == second.fingerprint and first.groups == second.groups
    assert lume.anonymous(first) == lume.anonymous(second)


def test_validation_split(tmp_path):
    corpus = lume.load(semeval_folder(tmp_path / "s"), split="validation")
    assert corpus.documents("forget") == ("f105", "f205", "f305") and corpus.facts["layout"] == "semeval"
    with pytest.raises(CorpusError, match=r"unknown split of the lume layout 'validation'.*Known: train"):
        lume.load(lume_folder(tmp_path / "l"), split="validation")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"documents": 7}, r"7 forget documents of Task1.*has 6 \(Task1: 6 forget, 5 retain;.*ask for fewer"),
        ({"documents": 6}, r"6 retain documents of Task1.*has 5.*ask for fewer"),
        ({"documents": 4, "holdout": 4}, "4 holdout documents of Task1.*2 forget and 1 retain documents are.*lower"),
        ({"holdout": 1}, "1 holdout documents of Task1.*0 forget and 0 retain"),
        ({"documents": 0}, "documents is 0, but must be a whole number of at least 1"),
        ({"documents": 2.0}, "documents is 2.0"),
        ({"documents": True}, "documents is True"),
        ({"documents": {"Task1": 1}}, r"documents names \['Task1'\]; name each of"),
        ({"holdout": {"Task1": 1, "Task2": 1, "Task3": -1}}, r"holdout\['Task3'\] is -1"),
        ({"tasks": ("Task1", "Tusk2")}, "unknown task 'Tusk2'; did you mean 'Task2'"),
        ({"tasks": ()}, "no task was chosen"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "test"}, "unknown split"),
    ],
)
def test_bad_requests(tmp_path, request_, message):
    retain = [r for r in records("retain") if r["id"][:6].strip('"')[:4] != "e105"]
    with pytest.raises(CorpusError, match=message):
        lume.load(lume_folder(tmp_path, retain=retain), **request_)


def test_a_task_that_is_not_there(tmp_path):
    folder = lume_folder(tmp_path, forget=document("a", "Task1"), retain=document("b", "Task1"))
    with pytest.raises(CorpusError, match=r"all forget documents of Task2.*has 0.*leave out the task"):
        lume.load(folder)
    assert len(lume.load(folder, tasks=["Task1"])["forget"]) == 2


def test_anonymous_numbers(tmp_path):
    corpus = lume.load(lume_folder(tmp_path), documents=2, holdout=1)
    numbers = lume.anonymous(corpus)
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert set(numbers) == {r.document for g in GROUPS for r in corpus[g]}
    assert [numbers[k] for k in corpus.documents("forget")] == list(range(6))


# the real files


def shape(rows):
    return {t: tuple(len(select(rows, kind=k, task=t)) for k in ("sc", "qa")) for t in lume.TASKS}


def test_real_lume():
    release = lume.find(real_data("lume"))
    forget, retain = release.rows["forget", "train"], release.rows["retain", "train"]
    assert (len(forget), len(retain)) == (2732, 2734)
    assert shape(forget) == {"Task1": (243, 243), "Task2": (250, 1250), "Task3": (373, 373)}
    assert shape(retain) == {"Task1": (246, 246), "Task2": (250, 1250), "Task3": (371, 371)}
    for row in forget + retain:
        assert not row.input[-1].isspace() and not row.output[0].isspace() and '"' not in row.id
        assert row.input.endswith("?") == (row.kind == "qa")


def test_real_lume_corpus():
    corpus = lume.load(real_data("lume"), documents=100, holdout=80)
    assert len(lume.load(real_data("lume")).documents("forget")) == 866
    assert len(lume.load(real_data("lume")).documents("retain")) == 867
    assert all(len(corpus.documents(g)) == 3 * n for g, n in (("forget", 100), ("retain", 100), ("holdout", 80)))
    assert len(select(corpus["holdout"], kind="sc")) == 240


def test_real_semeval_is_part_of_lume():
    release = lume.find(real_data("semeval25-unlearning-data"))
    train, validation = {"Task1": (83, 83), "Task2": (107, 535), "Task3": (152, 152)}, "validation"
    assert shape(release.rows["forget", "train"]) == train
    assert shape(release.rows["retain", "train"]) == {"Task1": (103, 103), "Task2": (102, 510), "Task3": (159, 159)}
    assert (len(release.rows["forget", validation]), len(release.rows["retain", validation])) == (254, 278)
    assert [len(t[s]) for s in lume.SPLITS for t in (release.members, release.nonmembers)] == [150, 150, 34, 34]
    whole = lume.find(real_data("lume"))
    for (side, split), rows in release.rows.items():
        assert set(rows) <= set(whole.rows[side, "train"]), (side, split)  # equal Row objects, in the same group
    for split, texts in release.members.items():  # members are Task-3 forget documents of their own split
        stories = {" ".join(r.text.split()) for r in select(release.rows["forget", split], kind="sc", task="Task3")}
        assert {" ".join(t.split()) for t in texts} <= stories
