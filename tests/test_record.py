"""Records: written whole or not at all, read back as they were, and refused with a remedy where they are damaged."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from reprolib import record
from reprolib.errors import RecordError
from reprolib.places import results_dir
from reprolib.provenance import PACKAGES, provenance
from reprolib.record import (
    Record,
    all_records,
    by_status,
    check_writable,
    find,
    path_of,
    read,
    to_json,
    write,
)
from reprolib.spec import Spec


@pytest.fixture(autouse=True)
def _preset(test_preset):
    pass


def make(**fields) -> Record:
    spec = fields.pop("spec", Spec(testbed="test/synthetic", options={"epochs": 2}))
    rows = {"group": ["forget", "forget", "retain"], "score": [0.25, None, 1.0], "document": [0, 0, 1]}
    given = dict(
        spec=spec, fingerprint=spec.fingerprint, status="done", metrics={"a": 0.1, "b": 1e-9}, rows=rows,
        trajectory=[{"step": 0, "stage": "", "loss": 1.5}, {"step": 4, "stage": "npo", "loss": -2.0}],
        cost={"steps": 4}, provenance={"commit": None}, stages=[{"is": "Stage", "name": "npo"}],
    )  # fmt: skip
    return Record(**given | fields)


# --- there and back ------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was():
    record = make(reason="Zeichen: ü, \"quoted\", new\nline")
    path = write(record)
    assert path == path_of(record.spec) and path.parent == results_dir() / "records" / "test" / "synthetic" / "npo"
    assert read(path) == record == find(record.spec)
    assert to_json(read(path)) == path.read_text(encoding="utf-8")
    assert record.series("loss") == [1.5, -2.0] and record.label == "NPO"


def test_empty_rows_and_trajectory_come_back():
    record = make(rows={}, trajectory=[], status="failed", reason="boom")
    assert read(write(record)) == record


def test_what_is_not_finite_is_null_in_the_file():
    record = make(metrics={"nll": math.nan, "x": 1.0}, rows={"score": [math.inf, 1.0]}, trajectory=[{"step": 1, "loss": -math.inf}])
    text = to_json(record)
    json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    back = read(write(record))
    assert back.metrics == {"nll": None, "x": 1.0} and back.rows == {"score": [None, 1.0]}
    assert back.trajectory == [{"step": 1, "loss": None}]


def test_equal_neighbours_are_packed():
    group = ["forget"] * 500 + ["retain"] * 500 + ["forget"]
    record = make(rows={"group": group, "score": [1.0] * 1001, "mixed": ["a", None] * 500 + ["a"]})
    text = to_json(record)
    assert '"group": {"runs":[["forget",500],["retain",500],["forget",1]]}' in text
    assert '"mixed": ["a",null,' in text  # only whole columns of words are packed
    assert read(write(record)).rows == record.rows


def test_one_line_a_key_and_a_column():
    lines = to_json(make()).splitlines()
    assert sum(x.strip().startswith(('"group"', '"score"', '"document"', '"metrics"', '"spec"')) for x in lines) == 5
    assert sum('"step":' in x for x in lines) == 2


def test_all_records_filters_and_orders():
    npo, other = make(), make(spec=Spec(testbed="test/synthetic", method="gradient_ascent"))
    elsewhere = make(spec=Spec(testbed="smoke/synthetic"), status="diverged")
    for r in (npo, other, elsewhere):
        write(r)
    assert list(all_records()) == [elsewhere, other, npo]  # in the order of their paths
    assert list(all_records("test/synthetic")) == [other, npo]
    assert list(all_records(method="npo")) == [elsewhere, npo]
    assert list(all_records("tiny/synthetic")) == []
    assert by_status(all_records()) == {"done": 2, "diverged": 1, "failed": 0}


# --- found by what it is, not by how it was asked for --------------------------------------------------------


def test_a_record_is_found_however_its_spec_is_written():
    record = make()
    path = write(record)
    defaults = {"epochs": 2.0, "beta": 0.1, "trainable": "full"}
    again = Spec(testbed="test/synthetic", options=defaults)
    assert again.slug != record.spec.slug
    assert path_of(again) == path and find(again) == record
    assert find(Spec(testbed="test/synthetic", options={"epochs": 3})) is None


def test_a_file_under_the_name_of_another_run_is_refused():
    path = write(make())
    other = Spec(testbed="test/synthetic", seed=5)
    os.rename(path, path_of(other))
    with pytest.raises(RecordError, match="not that of its name"):
        find(other)


# --- damaged files -------------------------------------------------------------------------------------------


def damaged(change) -> str:
    path = write(make())
    text = change(path.read_text(encoding="utf-8"))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecordError) as e:
        find(make().spec)
    assert str(path) in str(e.value) and "git checkout" in str(e.value)
    return str(e.value)


def edited(**values):
    return lambda text: json.dumps(json.loads(text) | values)


def without(*keys):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k not in keys})


def test_damaged_json_names_file_and_line():
    lines = to_json(make()).splitlines()
    at = next(n for n, x in enumerate(lines, start=1) if '"fingerprint"' in x)
    assert f"line {at}:" in damaged(lambda t: t.replace('"fingerprint": "', '"fingerprint": ', 1))
    assert "line" in damaged(lambda t: t[: len(t) // 2])
    assert "line 1" in damaged(lambda t: "")
    assert "cannot be read" in damaged(lambda t: b"\xff\xfe\x00")


def test_merge_conflict_markers_are_named():
    lines = to_json(make()).splitlines()
    assert "line 4:" in damaged(lambda t: "\n".join([*lines[:3], "<<<<<<< HEAD", *lines[3:]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("metrics", "spec"), r"lacks \['metrics', 'spec'\]"),
        (without("schema"), r"lacks \['schema'\]"),
        (lambda t: "[1, 2]", "lacks"),
        (edited(schema=0), "has schema 0, this version reads"),
        (edited(status="finished"), "status 'finished' is none of"),
        (edited(rows={"a": [1, 2], "b": [1]}), "differ in length"),
        (edited(rows=[1]), r"\['rows'\] have the wrong type"),
        (edited(spec="npo"), r"\['spec'\] have the wrong type"),
        (edited(spec={"method": "npo2"}), "its spec is none of this version .*did you mean 'npo'"),
        (edited(spec={"metod": "npo"}), "unknown key 'metod'"),
    ],
)  # fmt: skip
def test_files_that_are_no_records_are_refused(change, message):
    import re

    assert re.search(message, damaged(change), re.S)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(RecordError, match=r"none\.json cannot be read"):
        read(tmp_path / "none.json")


# --- atomic, and never lost ----------------------------------------------------------------------------------


def leftovers() -> list[str]:
    return [p.name for p in results_dir().rglob("*") if p.is_file()]


def test_an_error_while_writing_leaves_the_old_file_and_no_part(monkeypatch):
    old = make()
    path = write(old)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        write(replace(old, metrics={"a": 2.0}))
    assert path.read_bytes() == before and leftovers() == [path.name]


def test_a_kill_while_writing_leaves_no_record(monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(record.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write(make())
    assert leftovers() == [] and find(make().spec) is None


def test_a_half_written_part_is_not_taken_for_a_record():
    path = write(make())
    path.rename(path.with_name(f".{path.name}.1.part"))
    assert find(make().spec) is None and list(all_records()) == []


def test_a_record_that_cannot_be_stored_is_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path / "cache"))
    results = results_dir()
    results.mkdir()
    (results / "records").write_text("a file where the folder should be")
    record = make()
    with pytest.raises(RecordError, match="Nothing is lost") as e:
        write(record)
    rescue = tmp_path / "cache" / "unsaved" / path_of(record.spec).name
    assert str(rescue) in str(e.value) and str(path_of(record.spec)) in str(e.value)
    assert read(rescue) == record
    # what the message asks for works
    (results / "records").unlink()
    path_of(record.spec).parent.mkdir(parents=True)
    rescue.rename(path_of(record.spec))
    assert find(record.spec) == record


def test_nowhere_to_write_at_all(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "cache"))
    with pytest.raises(RecordError, match="neither can"):
        write(make())


def test_a_read_only_results_folder_is_noticed_before_computing(monkeypatch):
    check_writable()
    assert leftovers() == []  # the probe is gone

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(RecordError, match="REPROLIB_RESULTS"):
        check_writable()
    monkeypatch.undo()
    monkeypatch.setenv("REPROLIB_RESULTS", __file__)
    with pytest.raises(RecordError, match="cannot be written"):
        check_writable()


# --- where it was made ---------------------------------------------------------------------------------------


def test_provenance_says_versions_machine_and_time():
    p = provenance()
    import torch

    assert p["versions"]["torch"] == torch.__version__ and set(p["versions"]) == set(PACKAGES)
    assert p["time"].endswith("+00:00") and p["machine"]["cpu"] and p["machine"]["python"]
    assert "commit" in p and p["dirty"] in (True, False, None)
    home = str(Path.home())
    assert home not in json.dumps(p) and str(Path(__file__).parent) not in json.dumps(p)


def test_results_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "x"))
    assert results_dir() == tmp_path / "x"
    monkeypatch.delenv("REPROLIB_RESULTS")
    (tmp_path / "study.yml").touch()
    (tmp_path / "notebooks" / "methods").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "methods")
    assert results_dir() == tmp_path / "results"
