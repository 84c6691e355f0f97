"""Bring your own method: what book/own_method.md shows is what is run here, from a package outside the tree."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_s_method_is_found_through_its_entry_point_and_runs(tmp_path):
    page = (ROOT / "book" / "own_method.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    entry = re.search(r'margin = "([^"]+)"', page).group(1)
    module = entry.split(":")[0]
    assert len([x for x in code.splitlines() if x.strip() and not x.startswith("#")]) <= 30, "the page promises a short file"
    site = tmp_path / "site"
    path = site / Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    (path.parent / "__init__.py").touch()
    path.write_text(code)
    # what pip writes for the [project.entry-points] table of the page
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[reprolib.recipes]\nmargin = {entry}\n")
    environment = os.environ | {
        "PYTHONPATH": str(site), "REPROLIB_RESULTS": str(tmp_path / "r"),
        "REPROLIB_CACHE": os.environ.get("REPROLIB_TEST_CACHE", str(tmp_path / "c")),
    }  # fmt: skip

    def reprolib(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "reprolib", *words], env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "margin" in reprolib("methods")
    out = reprolib("run", "margin", "--testbed", "smoke/synthetic", "-o", "epochs=1")
    assert '"status": "done"' in out


def test_the_page_s_metric_is_found_through_its_entry_point_and_asked(tmp_path):
    page = (ROOT / "book" / "own_method.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[1]
    entry = re.search(r'answer_length = "([^"]+)"', page).group(1)
    module = entry.split(":")[0]
    site = tmp_path / "site"
    path = site / Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    (path.parent / "__init__.py").touch()
    path.write_text(code)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[reprolib.metrics]\nanswer_length = {entry}\n")
    ask = (
        "from conftest import byte_tokenizer, small_corpus, tiny_lm\n"
        "from reprolib.evaluate import Examination, Subject\n"
        "from reprolib.experiment import ask\n"
        "from reprolib.probes import probes, suite\n"
        "subject = Subject(tiny_lm(), Examination.of(small_corpus(), byte_tokenizer()), max_new_tokens=8, progress=False)\n"
        "found, seconds = ask(subject, [probes()['answer_length']])\n"
        "assert len(found.rows['words']) == len(subject.rows) and seconds['answer_length_s'] >= 0\n"
        "assert 'answer_length' not in [p.name for p in suite('wide')]\n"
        "print(sorted(found.metrics))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "tests"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "['answer_length/forget', 'answer_length/retain']"


def test_the_page_s_ablation_is_compared(monkeypatch):
    """What the page shows, on records that are made up: an adapter that keeps less."""
    from test_report_arms import falling

    from reprolib.report import arms

    def run(testbed, seed, method, options=None):
        return falling(method, seed, kept=1.0 if method == "twin" else 0.5 + 0.01 * seed if "trainable" in (options or {}) else 0.9, options=options)

    monkeypatch.setattr(arms, "run", run)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "own_method.md").read_text(), re.S)[2]
    scope: dict = {}
    exec(code, scope)
    assert "*NPO, all weights* is better than *NPO, an adapter* by what is kept" in scope["answer"].data
    assert len(scope["table"].rows) == 4 and "NPO, an adapter" in scope["figure"].data
