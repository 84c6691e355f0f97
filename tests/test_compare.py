"""A rerun beside the committed records: the same, within the interval, outside of it."""

import dataclasses

import pytest
from test_report import made

from reprolib import record
from reprolib.errors import RecordError
from study import compare
from study.__main__ import main


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
    settings, new, bad = compare.compare(folders[1])
    assert [(a.made[0].spec.method, len(a.made), a.differ, a.findings) for a in settings] == [("npo", 3, 0, ([], [])), ("twin", 3, 0, ([], []))]
    assert new == 0 and not bad and main(["compare", str(folders[1])]) == 0
    assert "6 runs made again" in (out := capsys.readouterr().out) and ": 6 with the same scores" in out


def test_other_scores_within_the_interval_are_no_failure(folders, monkeypatch, capsys):
    """Of three seeds that leave 0, 1/4 and 1/2 of the questions, one that leaves 1/2 instead of 1/4 is within; all of them is not."""
    replace(folders[1], monkeypatch, made("npo", 1, forget=0.5, retain=1.0))
    assert main(["compare", str(folders[1])]) == 0
    assert "npo on smoke/synthetic, seeds 0, 1, 2: 1 of 3 differ, all readings within" in capsys.readouterr().out
    for seed in range(3):
        replace(folders[1], monkeypatch, made("npo", seed, forget=1.0, retain=1.0))
    (outside, _), *_ = (a.findings for a in compare.compare(folders[1])[0])
    assert any(line.startswith("forget_questions   1.0000, committed 0.2500") for line in outside)
    assert not any(line.startswith("retain_questions") for line in outside)
    assert main(["compare", str(folders[1])]) == 1
    assert "3 with the same scores to the last digit, 3 with others" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["diverged", "lost", "extra", "null"])
def test_what_cannot_be_within_is_not_said_to_be(change, folders, monkeypatch, capsys):
    """A run that diverged, or lost a reading, is outside; a number without an interval is not judged."""
    r = made("npo", 1, forget=0.25, retain=1.0)
    new = {
        "diverged": dataclasses.replace(r, status="diverged"),
        "lost": dataclasses.replace(r, metrics={k: v for k, v in r.metrics.items() if k != "retain/kl"}),
        "extra": dataclasses.replace(r, metrics=r.metrics | {"retain/kl": 99.0}),
        "null": dataclasses.replace(r, rows={k: [None] * len(v) if k == "score" else v for k, v in r.rows.items()}),
    }[change]
    for seed in (0, 2):  # one seed: a Student's t interval there is none
        for path in (folders[1] / "records").rglob(f"npo/s{seed}*.json"):
            path.unlink()
    replace(folders[1], monkeypatch, new)
    assert main(["compare", str(folders[1])]) == (0 if change == "extra" else 1)
    out = capsys.readouterr().out
    assert ("not judged  retain_kl" if change == "extra" else "outside     ") in out and "all readings within" not in out


def test_a_record_made_before_a_default_moved_is_compared_by_its_own_fingerprint(folders, monkeypatch):
    """Every committed record is equal to its own copy, also those whose spec would have another fingerprint today."""
    old = dataclasses.replace(made("npo", 4, forget=0.5, retain=1.0), fingerprint="0123456789ab")
    for folder in folders:
        path = folder / "records" / "smoke/synthetic" / "npo" / "s4-0123456789ab.json"
        record.write(old, path)
    settings, new, bad = compare.compare(folders[1])
    assert sum(len(a.made) for a in settings) == 7 and not any(a.differ for a in settings) and not new and not bad


def test_other_suites_and_unreadable_files_are_not_passed_over(folders, monkeypatch, capsys):
    for folder, value in zip(folders, (0.5, 0.6), strict=True):
        r = made("npo", 0, forget=0.0, retain=1.0, suite="wide")
        monkeypatch.setenv("REPROLIB_RESULTS", str(folder))
        record.write(dataclasses.replace(r, metrics={"tofu/x": value}))
    monkeypatch.setenv("REPROLIB_RESULTS", str(folders[0]))
    assert main(["compare", str(folders[1])]) == 0
    out = capsys.readouterr().out
    assert "suite wide" in out and "1 metrics without an interval: tofu/x" in out and "7 runs made again" in out
    next((folders[1] / "records").rglob("*.json")).write_text("{")
    assert main(["compare", str(folders[1])]) == 1 and "unreadable: 1" in capsys.readouterr().out


def test_runs_that_are_not_committed_are_counted(folders, monkeypatch, capsys):
    replace(folders[1], monkeypatch, made("npo", 3, forget=0.5, retain=1.0))
    assert compare.compare(folders[1])[1:] == (1, [])
    for path in (folders[0] / "records").rglob("*.json"):
        path.unlink()
    assert main(["compare", str(folders[1])]) == 2 and "none of the 7 runs" in capsys.readouterr().err


def test_folders_that_cannot_be_compared(folders, tmp_path):
    (tmp_path / "file").write_text("")
    for name, what in (("file", "is no folder"), ("none", "is not there"), (".", "holds none of records, wide, stress")):
        with pytest.raises(RecordError, match=what):
            compare.compare(tmp_path / name)
    with pytest.raises(RecordError, match="is the folder that it would be compared with"):
        compare.compare(folders[0])
