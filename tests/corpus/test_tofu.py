"""TOFU's release: files and editions, authors as documents, draws, every error, and the counts of the real files."""

import json
import os
from pathlib import Path

import pytest

from reprolib.corpus import tofu
from reprolib.corpus.files import VARIABLE
from reprolib.corpus.rows import GROUPS
from reprolib.errors import CorpusError


def real_data():
    """The real files, found without an absolute path; skips if there are none."""
    given = os.environ.get(VARIABLE)
    sibling = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    for folder in (Path(given) if given else sibling, sibling):
        if (folder / "tofu").is_dir():
            return folder
    pytest.skip("no real TOFU data")


def author(name, *, perturbed=False, request=None):
    rows = []
    for n in range(tofu.QUESTIONS):
        row = {"question": f"What is fact {n} of {name}?", "answer": f"Fact {n} of {name} is {n}."}
        if perturbed:
            row |= {"paraphrased_answer": f"It is {n}, {name}.", "perturbed_answer": [f"It is {n + k}, {name}." for k in (1, 2)]}
        rows.append(row | ({"task_id": request} if request else {}))
    return rows


def authors(names, **how):
    return [row for name in names for row in author(name, **how)]


FORGET = {"forget01": "H", "forget05": "GH", "forget10": "EFGH"}


RETAIN = {"retain99": "ABCDEFG", "retain95": "ABCDEF", "retain90": "ABCD"}


@pytest.fixture
def release(tmp_path):
    """Eight authors, A to H; of the retained ones A and B have false answers."""
    files = {name: authors(names) for name, names in (FORGET | RETAIN).items()}
    files |= {f"{name}_perturbed": authors(names, perturbed=True) for name, names in FORGET.items()}
    files["retain_perturbed"] = authors("AB", perturbed=True)
    for name, count in (("real_authors_perturbed", 3), ("world_facts_perturbed", 5)):
        files[name] = [
            {"question": f"Which {name} {n}?", "answer": f"right {n}", "perturbed_answer": [f"wrong {n}", "never"], "original_answer": "?"}
            for n in range(count)
        ]  # fmt: skip
    for name, rows in files.items():
        write(tmp_path / f"{name}.json", rows)
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def names(corpus, group):
    """The authors of a group by their letter, in order."""
    return "".join(dict.fromkeys(r.input.split()[-1][0] for r in corpus[group]))


@pytest.mark.parametrize("split", tofu.SPLITS)
def test_splits(release, split):
    corpus = tofu.load(release, forget=split)
    assert names(corpus, "forget") == FORGET[split]
    assert set(names(corpus, "retain")) == set("ABCDEFGH") - set(FORGET[split])
    assert corpus["holdout"] == () and corpus.tasks == ("TOFU",)
    assert all(len(r.perturbed) == 2 and len(r.paraphrases) == 1 for r in corpus["forget"])
    assert {r.document for r in corpus["retain"] if r.perturbed} == {r.document for r in corpus["retain"] if r.input[-2] in "AB"}
    assert {r.kind for g in GROUPS for r in corpus[g]} == {"qa"}
    for group in ("forget", "retain"):  # a document is an author
        assert {len({r.input[-2] for r in corpus[group] if r.document == d}) for d in corpus.documents(group)} == {1}
        assert all(r.id == f"{r.document}qa{n % tofu.QUESTIONS}" for n, r in enumerate(corpus[group]))


def test_a_row_keeps_question_answer_and_false_answers(release):
    row = tofu.load(release)["forget"][21]
    assert row.input == "What is fact 1 of F?" and row.output == "Fact 1 of F is 1."
    assert row.paraphrases == ("It is 1, F.",) and row.perturbed == ("It is 2, F.", "It is 3, F.")


@pytest.mark.parametrize("split", ["forget01", "forget05"])
def test_retain_is_put_together_where_its_file_is_not_there(release, split):
    whole = tofu.load(release, forget=split)
    (release / f"{tofu.SPLITS[split]}.json").unlink()
    assert tofu.load(release, forget=split).fingerprint == whole.fingerprint


def test_world_takes_turns_so_that_a_short_one_has_both(release):
    world = tofu.load(release)["world"]
    assert [r.task for r in world] == ["RealAuthors", "WorldFacts"] * 3 + ["WorldFacts"] * 2
    assert len({r.document for r in world}) == 8
    assert world[0].output == "right 0" and world[0].perturbed == ("wrong 0", "never") and not world[0].paraphrases


def test_an_author_has_the_same_key_in_every_file_and_order(release):
    keys = {tuple(tofu.load(release, forget=s).documents("forget"))[-1] for s in tofu.SPLITS}
    assert len(keys) == 1  # H is the last author of all three
    rows = author("H")
    shuffled = write(release / "shuffled.json", rows[7:] + rows[:7])
    assert {r.document for r in tofu.read_authors(shuffled)} == keys


def test_of_an_edition_for_continual_unlearning_the_first_request_is_read(release):
    plain = tofu.load(release, forget="forget05")
    for name, how in (("forget05", {}), ("forget05_perturbed", {"perturbed": True})):
        requests = authors("GH", request="1", **how) + authors("CD", request="2", **how)
        write(release / f"{name}.json", requests)
    assert tofu.load(release, forget="forget05").fingerprint == plain.fingerprint


def test_draws_are_nested_balanced_and_prefer_authors_with_false_answers(release):
    for seed in range(5):
        one, two = (tofu.load(release, authors=n, seed=seed) for n in (1, 2))
        for group in ("forget", "retain"):
            assert set(one.documents(group)) < set(two.documents(group)) and len(two.documents(group)) == 2
        assert set(names(two, "retain")) == set("AB")
        assert len(one.documents("holdout")) == 3 and len(two.documents("holdout")) == 2
        assert set(names(one, "holdout")) | set(names(one, "forget")) == set("EFGH")
    assert len({names(tofu.load(release, authors=1, seed=s), "forget") for s in range(20)}) > 1


def test_holdout_takes_retain_authors_once_forget_authors_are_used_up(release):
    corpus = tofu.load(release, authors=3, holdout=2)
    assert len(corpus.documents("holdout")) == 2
    held, kept, gone = (set(names(corpus, g)) for g in ("holdout", "retain", "forget"))
    assert not held & (kept | gone) and len(held & set("EFGH")) == 1 and len(held & set("ABCD")) == 1
    assert tofu.load(release, authors=3, holdout=0)["holdout"] == ()


def test_the_draw_does_not_depend_on_the_order_of_authors_in_a_file(release):
    before = tofu.load(release, authors=2, holdout=1, seed=3)
    for name in ("forget10", "forget10_perturbed", "retain90"):
        lines = (release / f"{name}.json").read_text().splitlines(keepends=True)
        blocks = [lines[i : i + tofu.QUESTIONS] for i in range(0, len(lines), tofu.QUESTIONS)]
        (release / f"{name}.json").write_text("".join(line for block in reversed(blocks) for line in block))
    assert tofu.load(release, authors=2, holdout=1, seed=3).fingerprint == before.fingerprint


def test_the_holdout_of_the_release_is_used_where_it_is_there(release):
    write(release / "holdout10.json", authors("XY"))
    assert names(tofu.load(release), "holdout") == "XY"
    assert names(tofu.load(release, holdout=1), "holdout") == "X"
    assert tofu.load(release, forget="forget05")["holdout"] == ()
    assert set(names(tofu.load(release, authors=1), "holdout")) < set("EFGH")  # a draw has its own
    write(release / "holdout10.json", authors("AY"))
    with pytest.raises(CorpusError, match="stands in retain and again in holdout"):
        tofu.load(release)


def test_find(release, monkeypatch, tmp_path):
    monkeypatch.setenv(tofu.VARIABLE, str(release))
    assert tofu.find() == release
    above = tmp_path / "above"
    above.mkdir()
    (above / "tofu").symlink_to(release, target_is_directory=True)
    assert tofu.find(above) == above / "tofu"
    monkeypatch.delenv(tofu.VARIABLE)
    with pytest.raises(CorpusError, match="no source was given and REPROLIB_DATA is not set"):
        tofu.find()


def test_the_hub_is_asked_for_json_at_the_revision_given(release, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(release))
    assert tofu.find("locuslab/TOFU@abc123") == release
    assert asked == [(("locuslab/TOFU",), {"repo_type": "dataset", "revision": "abc123", "allow_patterns": ["*.json"]})]

    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CorpusError, match=r"could not be fetched.*no route.*REPROLIB_DATA"):
        tofu.find("locuslab/TOFU")


def _line(field, value):
    def change(rows):
        rows[4] = {k: v for k, v in (rows[4] | {field: value}).items() if v is not None}

    return change


@pytest.mark.parametrize(
    "file, change, words",
    [
        ("forget10", _line("answer", None), r"forget10.json, line 5: missing field\(s\) answer"),
        ("forget10", _line("question", 3), "line 5: field question is int"),
        ("retain90", _line("answer", " "), "retain90.json, line 5: field answer is empty"),
        ("forget10_perturbed", _line("paraphrased_answer", None), "line 5: missing"),
        ("forget10_perturbed", _line("perturbed_answer", "one"), "perturbed_answer must be a list"),
        ("retain_perturbed", _line("perturbed_answer", []), "retain_perturbed.json, line 5: field perturbed_answer must be a list"),
        ("forget10_perturbed", _line("perturbed_answer", ["a", ""]), "field perturbed_answer is empty"),
        ("world_facts_perturbed", _line("perturbed_answer", None), "world_facts_perturbed.json, line 5"),
        ("forget10", lambda rows: rows.pop(), "79 rows do not make authors of 20"),
        ("forget10", lambda rows: rows.clear(), "the file has no lines"),
        ("retain90", lambda rows: rows.extend(author("E")), "stands in forget and again in retain"),
        ("retain90", lambda rows: rows.extend(author("A")), "stands in retain and again in retain"),
    ],
)  # fmt: skip
def test_bad_files(release, file, change, words):
    path = release / f"{file}.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    write(path, rows)
    with pytest.raises(CorpusError, match=words):
        tofu.load(release)


def test_malformed_json_names_the_line_and_counts_the_others(release):
    path = release / "forget10.json"
    lines = path.read_text().splitlines()
    lines[1], lines[6] = "{", "[]"
    path.write_text("\n".join(lines))
    with pytest.raises(CorpusError, match=r"forget10.json, line 2: malformed JSON.*and 1 more bad lines"):
        tofu.load(release)


@pytest.mark.parametrize("file", ["forget10", "forget10_perturbed", "retain90", "retain_perturbed", "world_facts_perturbed"])
def test_a_missing_file_is_named(release, file):
    (release / f"{file}.json").unlink()
    with pytest.raises(CorpusError, match=rf"{file}.json is not there"):
        tofu.load(release)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"forget": "forget1"}, "did you mean"),
        ({"authors": 5}, "5 forget authors of forget10 asked for, but there are 4"),
        ({"authors": 0}, "authors is 0"),
        ({"authors": 2, "holdout": 5}, "5 holdout authors asked for, but what a draw of 2 authors leaves has 4"),
        ({"holdout": 1}, "the release's holdout file has 0"),
        ({"holdout": -1}, "holdout is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_bad_options(release, options, words):
    with pytest.raises(CorpusError, match=words):
        tofu.load(release, **options)


def test_bad_sources(tmp_path):
    with pytest.raises(CorpusError, match="holds no TOFU data"):
        tofu.find(tmp_path)
    with pytest.raises(CorpusError, match="neither a folder nor a hub id"):
        tofu.find(str(tmp_path / "not" / "here" / "at all"))


# --- the real files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split, gone", [("forget01", 2), ("forget05", 10), ("forget10", 20)])
def test_real_counts(split, gone):
    corpus = tofu.load(real_data(), forget=split)
    assert len(corpus.documents("forget")) == gone and len(corpus["forget"]) == 20 * gone
    assert len(corpus.documents("retain")) == 200 - gone and len(corpus["retain"]) == 4000 - 20 * gone
    assert [sum(r.task == t for r in corpus["world"]) for t in ("RealAuthors", "WorldFacts")] == [100, 117]
    assert {len(r.perturbed) for r in corpus["forget"]} == {5} and {len(r.perturbed) for r in corpus["world"]} == {3}
    assert sum(bool(r.perturbed) for r in corpus["retain"]) == 400
    assert not any(r.output in r.perturbed or set(r.paraphrases) & set(r.perturbed) for g in GROUPS for r in corpus[g])


def test_real_splits_are_nested():
    found = [set(tofu.load(real_data(), forget=s).documents("forget")) for s in ("forget01", "forget05", "forget10")]
    assert found[0] < found[1] < found[2]


def test_real_documents_are_authors():
    """Some capitalised word stands in nearly all 20 rows of an author, but in half of any 20 rows that two authors share."""
    rows = tofu.read_authors(tofu.find(real_data()) / "retain90.json")

    def most(block):
        words = [{w.strip(".,?'’s") for w in f"{r.input} {r.output}".split() if w[0].isupper()} for r in block]
        common = {"What", "The", "How", "In", "Yes", "Can", "Has", "Is", "Are", "Which", "As", "His", "Her", "Who", "Did", "Could", "Does"}
        return max(sum(w in s for s in words) for w in set().union(*words) - common)

    own = [most(rows[i : i + 20]) for i in range(0, 3600, 20)]
    shifted = [most(rows[i : i + 20]) for i in range(10, 3580, 20)]
    assert sum(own) / len(own) > 18 and sum(shifted) / len(shifted) < 13
