"""A rerun beside the committed records: the same, within the interval, outside of it."""

import dataclasses

import pytest
from test_report import made

from reprolib import compare, record
from reprolib.__main__ import main
from reprolib.errors import RecordError


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(committed, rerun): three seeds of two methods in each, alike."""
    committed, rerun = tmp_path / "results", tmp_path / "again"
    for folder in (rerun, committed):
        monkeypatch.setenv("REPROLIB_RESULTS", str(folder))
        for seed in range(3):
            record.write(made("npo", seed, forget=0.25 * seed, retain=1.0))
            record.write(made("twin", seed, forget=0.0, retain=1.0))
    return committed, rerun


def replace(folder, monkeypatch, new):
    monkeypatch.setenv("REPROLIB_RESULTS", str(folder))
    path = record.write(new)
    monkeypatch.setenv("REPROLIB_RESULTS", str(folder.parent / "results"))
    return path


def test_equal_scores_are_called_equal_whatever_they_cost(folders, monkeypatch, capsys):
    other = made("npo", 1, forget=0.25, retain=1.0)
    replace(folders[1], monkeypatch, dataclasses.replace(other, cost=other.cost | {"wall_s": 9e9}))
    settings, new = compare.compare(folders[1])
    assert [(a.made[0].spec.method, len(a.made), a.identical, a.outside()) for a in settings] == [("npo", 3, 3, {}), ("twin", 3, 3, {})]
    assert new == 0 and main(["compare", str(folders[1])]) == 0
    assert capsys.readouterr().out.startswith("6 runs made again: 6 with the same scores")


def test_other_scores_within_the_interval_are_no_failure(folders, monkeypatch, capsys):
    """Of three seeds that leave 0, 1/4 and 1/2 of the questions, one that leaves 1/2 instead of 1/4 is within; all of them is not."""
    replace(folders[1], monkeypatch, made("npo", 1, forget=0.5, retain=1.0))
    assert main(["compare", str(folders[1])]) == 0
    assert "npo on smoke/synthetic, seeds 0, 1, 2: 1 of 3 differ, all within" in capsys.readouterr().out
    for seed in range(3):
        replace(folders[1], monkeypatch, made("npo", seed, forget=1.0, retain=1.0))
    settings, _ = compare.compare(folders[1])
    interval, value = settings[0].outside()["forget_questions"]
    assert value == 1.0 and interval.high < 1.0 and "retain_questions" not in settings[0].outside()
    assert main(["compare", str(folders[1])]) == 1
    out = capsys.readouterr().out
    assert "forget_questions" in out and "3 runs made again" not in out and "6 runs made again: 3 with the same" in out


def test_runs_that_are_not_committed_are_counted(folders, monkeypatch, capsys):
    replace(folders[1], monkeypatch, made("npo", 3, forget=0.5, retain=1.0))
    assert compare.compare(folders[1])[1] == 1
    for path in (folders[0] / "records").rglob("*.json"):
        path.unlink()
    assert main(["compare", str(folders[1])]) == 2 and "none of the 7 runs" in capsys.readouterr().err


def test_folders_that_cannot_be_compared(folders, tmp_path):
    with pytest.raises(RecordError, match="holds no folder records/"):
        compare.compare(tmp_path)
    with pytest.raises(RecordError, match="is the folder that it would be compared with"):
        compare.compare(folders[0])
