"""Bring your own method: what book/own_method.md shows is what is run here, from a package outside the tree."""

import re
import sys
from pathlib import Path

from conftest import Started, add_test_preset, run_code

ROOT = Path(__file__).resolve().parent.parent


def installed(site: Path, code: str, group: str, name: str, entry: str) -> None:
    """A package outside the tree: the page's code, and what pip writes for the [project.entry-points] table of the page."""
    path = site / Path(*entry.split(":")[0].split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    (path.parent / "__init__.py").touch()
    path.write_text(code)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {entry}\n")


def commands(site: str, *words: list[str]) -> None:
    """In a child: command lines of the package, one after another, with ``site`` among the installed packages."""
    from reprolib.__main__ import main
    from reprolib.testbeds.presets import PRESETS

    sys.path.insert(0, site)
    add_test_preset(PRESETS)
    codes = [main(w) for w in words]
    sys.exit(any(codes))


def asks(site: str, code: str) -> None:
    sys.path.insert(0, site)
    run_code(code)


def test_the_page_s_method_is_found_through_its_entry_point_and_runs(tmp_path):
    page = (ROOT / "book" / "own_method.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S).group(1)
    entry = re.search(r'margin = "([^"]+)"', page).group(1)
    assert len([x for x in code.splitlines() if x.strip() and not x.startswith("#")]) <= 30, "the page promises a short file"
    site = tmp_path / "site"
    installed(site, code, "reprolib.recipes", "margin", entry)
    run = ["run", "margin", "--testbed", "test/synthetic", "-o", "epochs=1"]
    done = Started(commands, str(site), ["methods"], run, folder=tmp_path).wait()
    assert done.returncode == 0, done.stderr[-2000:]
    methods, out = done.stdout.split("{", 1)  # the record begins there
    assert "margin" in methods
    assert '"status": "done"' in out


def test_the_page_s_metric_is_found_through_its_entry_point_and_asked(tmp_path):
    page = (ROOT / "book" / "own_method.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[1]
    entry = re.search(r'answer_length = "([^"]+)"', page).group(1)
    site = tmp_path / "site"
    installed(site, code, "reprolib.metrics", "answer_length", entry)
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
    done = Started(asks, str(site), ask, folder=tmp_path).wait(120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "['answer_length/forget', 'answer_length/retain']"


def test_the_page_s_ablation_is_compared(monkeypatch):
    """What the page shows, on records that are made up: an adapter that keeps less."""
    from test_report_arms import falling

    from study.readings import gate

    def run(testbed, seed, method, options=None):
        return falling(method, seed, kept=1.0 if method == "twin" else 0.5 + 0.01 * seed if "trainable" in (options or {}) else 0.9, options=options)

    monkeypatch.setattr(gate, "record", run)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "own_method.md").read_text(), re.S)[2]
    scope: dict = {}
    exec(code, scope)
    assert "*NPO, all weights* is better than *NPO, an adapter* by what is kept" in scope["answer"].data
    assert len(scope["table"].rows) == 4 and "NPO, an adapter" in scope["figure"].data
