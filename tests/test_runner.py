"""The papermill runner: strict parameters, kept failures, equal bytes, and the plain papermill command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from study import runner
from study.runner import PageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))

    def make(*code: str) -> Path:
        cells = [{"cell_type": "code", "id": f"c{n}", "metadata": {"tags": ["parameters"]} if n == 0 else {}, "source": text,
                  "execution_count": None, "outputs": []} for n, text in enumerate(code)]  # fmt: skip
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path = tmp_path / "page.ipynb"
        path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
        return path

    return make


def test_unknown_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    source = notebook("testbed = 'smoke/synthetic'", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(PageError, match="unknown parameter 'testbad'; did you mean 'testbed'"):
        runner.execute(source, tmp_path / "out.ipynb", {"testbad": 1}, progress=False)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.ipynb").exists()


def test_failed_page_is_kept_and_the_old_one_survives(notebook, tmp_path):
    out = tmp_path / "out.ipynb"
    out.write_text("the page of yesterday")
    source = notebook("x = 1", "print('so far'); raise RuntimeError('boom')")
    with pytest.raises(PageError, match="boom") as e:
        runner.execute(source, out, {"x": 2}, progress=False)
    kept = tmp_path / "results" / "logs" / "page.failed.ipynb"
    assert str(kept) in str(e.value) and "so far" in kept.read_text()
    assert out.read_text() == "the page of yesterday"


def test_equal_inputs_give_equal_bytes(notebook, tmp_path):
    source = notebook("x = 1", "print(x)")
    pages = [runner.execute(source, tmp_path / f"{n}.ipynb", {"x": 5}, progress=False).read_bytes() for n in "ab"]
    assert pages[0] == pages[1] and b"5" in pages[0]


def test_missing_notebook(tmp_path):
    with pytest.raises(PageError, match="not found"):
        runner.execute(tmp_path / "none.ipynb", tmp_path / "out.ipynb", progress=False)


@pytest.mark.slow
def test_plain_papermill_command(tmp_path):
    """The command of the README, at smoke size."""
    environment = os.environ | {"REPROLIB_RESULTS": str(tmp_path / "r"), "REPROLIB_CACHE": str(tmp_path / "c")}
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/methods/npo.ipynb", str(tmp_path / "out.ipynb"),
         "-p", "testbed", "smoke/synthetic", "-p", "seed", "1"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "In short" in (tmp_path / "out.ipynb").read_text()
    assert len(list((tmp_path / "r" / "records").rglob("*.json"))) == 5  # the ladder and NPO


def test_the_stamp_of_the_code_is_written_anew_only_when_code_changes(monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "runner.py").write_text("a = 1\n")
    monkeypatch.setattr(runner, "CODE", (package,))
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))
    stamp = runner.code_stamp()
    first, time = stamp.read_text(), stamp.stat().st_mtime_ns
    (package / "runner.py").touch()
    assert runner.code_stamp() == stamp and stamp.stat().st_mtime_ns == time, "a checkout that changes no content runs no page"
    (package / "more.py").write_text("")
    runner.code_stamp()
    second = stamp.read_text()
    (package / "runner.py").write_text("a = 2\n")
    runner.code_stamp()
    assert len({first, second, stamp.read_text()}) == 3


def test_one_page_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))
    seen = []
    monkeypatch.setattr(runner, "execute", lambda *a: seen.append(a))
    assert runner.main(["notebooks/methods/npo.ipynb", str(tmp_path / "out.ipynb"), '{"seed": 0}']) == 0
    assert seen == [("notebooks/methods/npo.ipynb", str(tmp_path / "out.ipynb"), {"seed": 0})]
    assert "page methods/npo" in capsys.readouterr().err
    monkeypatch.undo()
    assert runner.main([str(tmp_path / "none.ipynb"), str(tmp_path / "out.ipynb"), "{}"]) == 1
    assert "error:" in capsys.readouterr().err
