"""The repository keeps its promises: pins agree, notebooks are clean, the README's tree exists, the grid is sound."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {name.lower().replace("_", "-"): version for name, version in (x.split("==") for x in lines if "==" in x)}


def test_lock_pins_everything_exactly_and_names_no_place():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), line  # no hosts, no paths, no local versions


def test_pyproject_and_lock_agree():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += [r for r in extra if not r.startswith("reprolib")]
    pins = lock()
    for text in wanted:
        r = Requirement(text)
        name = r.name.lower().replace("_", "-")
        assert name in pins, f"{text} is not in requirements.lock"
        assert r.specifier.contains(pins[name], prereleases=True), f"{text}, but the lock has {pins[name]}"


def test_conda_environment_installs_the_lock_and_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip[0] == "-r requirements.lock"
    assert pip[1:] == ["-e ."], "conda hands these lines to pip as a requirements file, where options beside -e are refused"
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert python == "python=3.11"


def test_pip_takes_what_conda_hands_it(tmp_path):
    """conda and Binder write the pip section of environment.yml into a requirements file beside it."""
    pip = next(d["pip"] for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(d, dict))
    for name in ("requirements.lock", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "reprolib").mkdir()
    (tmp_path / "reprolib" / "__init__.py").touch()
    (tmp_path / "condaenv.requirements.txt").write_text("\n".join(pip))
    # against what is installed here, since this is about the lines and not about what an index holds
    options = ("--dry-run", "--no-index", "--no-deps", "--no-build-isolation", "-r", "condaenv.requirements.txt")
    done = subprocess.run([sys.executable, "-m", "pip", "install", *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Would install reprolib" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_committed_clean(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code)
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for c in code:
        assert "def " not in "".join(c["source"]), "notebooks are essays; functions belong into study/report"


def test_every_notebook_is_a_page_and_every_page_is_in_the_book():
    study = yaml.safe_load((ROOT / "study.yml").read_text())
    assert {ROOT / p["notebook"] for p in study["pages"].values()} == set(NOTEBOOKS)
    toc = (ROOT / "_toc.yml").read_text()
    for name in study["pages"]:
        assert f"results/notebooks/{name}" in toc


def test_every_method_has_a_page():
    from reprolib.recipes import METHODS

    assert {p.stem for p in NOTEBOOKS if p.parent.name == "methods"} == set(METHODS)


def test_readme_tree_names_files_that_exist():
    tree = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    folder = ""
    named = 0
    for line in tree.splitlines():
        deep, left = line.startswith("  "), line.split("   ")[0] if not line.startswith("  ") else line[2:].split("   ")[0]
        if not deep and left:
            folder = left.strip() if left.strip().endswith("/") else ""
            for name in left.split():
                assert (ROOT / name).exists(), name
                named += 1
        elif deep and line[2] != " ":
            for name in left.split():
                assert (ROOT / folder / name).exists(), left
                named += 1
        for name in re.findall(r"\b[\w/]+\.py\b", line):
            assert [*(ROOT / "reprolib").rglob(Path(name).name), *(ROOT / "study").rglob(Path(name).name)], name
    assert named > 20


def test_readme_commands_are_make_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in ("README.md", "book/rerun.md", "CONTRIBUTING.md"):
        for word in re.findall(r"\bmake ([a-z]+)\b", (ROOT / page).read_text()):
            if word in ("a", "it"):
                continue
            assert word in targets, f"{page}: make {word}"


def test_command_line_examples_parse():
    """Every `reprolib ...` line of the README and the book is accepted by the parser (runs are not started)."""
    text = "".join((ROOT / p).read_text() for p in ("README.md", "book/rerun.md"))
    lines = re.findall(r"^reprolib ([^#\n]+)", text, re.M)
    assert lines
    for line in lines:
        done = subprocess.run([sys.executable, "-m", "reprolib", *line.split()[:1], "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for option in re.findall(r"--[a-z-]+", line):
            assert option in done.stdout, f"{option} of `reprolib {line}`"


def test_grid_and_its_smoke_twin():
    from study.grid import Grid

    study, smoke = Grid.load(), Grid.load("smoke")
    assert len(study.seeds) >= 3
    assert {s.testbed.split("/")[0] for s in smoke.specs} == {"smoke"}
    assert not {s.fingerprint for s in study.specs} & {s.fingerprint for s in smoke.specs}
    assert "index" in smoke.pages and "synthesis/real_data" not in smoke.pages  # LUME is not at hand everywhere


def test_study_records_that_exist_belong_to_the_grid():
    """A committed record that no run of the grid asks for is a leftover of an older setting."""
    from study.grid import Grid

    wanted = {s.fingerprint for s in Grid.load().specs}  # the readable part of a name may differ
    there = [p for p in (ROOT / "results" / "records").rglob("*.json") if p.stem.rsplit("-", 1)[1] not in wanted]
    assert not [str(p.relative_to(ROOT)) for p in there]


@pytest.mark.parametrize("kind", ["records", "wide", "stress"])
def test_every_committed_record_is_found_by_its_fingerprint(kind, monkeypatch):
    """Whatever is moved or renamed in the code: the grid still asks for every record, and finds it."""
    from reprolib.record import find
    from study.grid import Grid

    monkeypatch.setenv("REPROLIB_RESULTS", str(ROOT / "results"))
    wanted = {s.fingerprint: s for s in Grid.load().specs}
    paths = sorted((ROOT / "results" / kind).rglob("*.json"))
    assert len(paths) >= {"records": 980, "wide": 50, "stress": 40}[kind]
    for path in paths:
        record = find(wanted[path.stem.rsplit("-", 1)[1]])
        assert record.fingerprint == path.stem.rsplit("-", 1)[1], path


@pytest.mark.parametrize("bad, message", [
    ({"sedes": [0]}, "did you mean 'seeds'"),
    ({"seeds": [0], "blocks": {"b": {"testbed": "tiny/synthetic", "metod": "npo"}}, "pages": {}}, "did you mean 'method'"),
    ({"seeds": [0], "blocks": {"b": {"testbed": "tiny/synthetic", "method": "npp"}}, "pages": {}}, "did you mean 'npo'"),
    ({"seeds": [0], "blocks": {}, "pages": {"p": {"notebook": "x.ipynb", "blocks": ["c"]}}}, "unknown block 'c'"),
    ({"seeds": [0], "blocks": {}, "pages": {"p": {"notebook": "x.ipynb", "blocks": [], "only": ["npp"]}}}, "did you mean 'npo'"),
])  # fmt: skip
def test_grid_errors_name_the_mistake(tmp_path, bad, message):
    from reprolib.errors import SpecError
    from study.grid import Grid

    path = tmp_path / "study.yml"
    path.write_text(yaml.safe_dump(bad))
    with pytest.raises(SpecError, match=message):
        Grid.load(path=path)


@pytest.mark.parametrize("grid", ["study", "smoke"])
def test_snakemake_dry_run_plans_exactly_the_missing_runs(grid, tmp_path):
    from study.grid import Grid

    environment = os.environ | {"REPROLIB_RESULTS": str(tmp_path / "results"), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--profile", "profiles/default", "--config", f"grid={grid}", "--nolock"],
        cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    planned = set(re.findall(r"\brun_([0-9a-f]{12})\b", done.stdout + done.stderr))
    assert planned == {s.fingerprint for s in Grid.load(grid).specs}


def test_slurm_profile_plans(tmp_path):
    environment = os.environ | {"REPROLIB_RESULTS": str(tmp_path / "results"), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--profile", "profiles/slurm", "--config", "grid=smoke", "--nolock", "records"],
        cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_jobs_start_below_a_folder_with_a_space_and_an_accent(tmp_path):
    """Snakemake hands the interpreter and the paths over whole. `.ci/run` does all that it does, really, in such a folder."""
    place = tmp_path / "my study é {x}"
    shutil.copytree(ROOT / "profiles", place / "profiles")
    shutil.copy(ROOT / "Snakefile", place)
    grid = yaml.safe_load((ROOT / "study.yml").read_text())
    page = {"notebook": "note book.ipynb", "blocks": []}
    (place / "note book.ipynb").touch()
    blocks = {"ladder": grid["blocks"]["ladder"] | {"method": "random"}}
    small = {"seeds": [0], "testbeds": {"tiny/synthetic": "smoke/synthetic"}, "blocks_left_out": [], "shares": {}}
    (place / "study.yml").write_text(yaml.safe_dump({"seeds": [0], "blocks": blocks, "pages": {"one": page}, "smoke": small}))
    python = place / "bin" / "python"  # stands where that of a virtual environment would, and writes down how it was called
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" >> called; echo >> called\n[ "$2" = study.runner ] && touch "$4" || touch "$RECORD"\n')
    python.chmod(0o755)
    from reprolib.record import path_of
    from study.grid import Grid

    spec = Grid.load("smoke", place / "study.yml").specs[0]
    record = Path("results") / path_of(spec).relative_to(os.environ["REPROLIB_RESULTS"])
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HERE": str(python), "RECORD": str(record)}
    del environment["REPROLIB_RESULTS"], environment["REPROLIB_CACHE"]
    code = "import os, sys; sys.executable = os.environ['HERE']; from snakemake.cli import main; main()"
    command = [sys.executable, "-c", code, "--profile", "profiles/default", "--config", "grid=smoke"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    calls = sorted((place / "called").read_text().splitlines())
    assert calls == [
        "-m|study.runner|note book.ipynb|results/notebooks/one.ipynb|{}|",
        f"-m|study|run|--grid|smoke|--fingerprint|{spec.fingerprint}|",
    ]


def test_make_quotes_the_folder_it_runs_in():
    text = (ROOT / "Makefile").read_text()
    for line in (x for x in text.splitlines() if "$(CURDIR)" in x):
        assert re.search(r'"[^"]*\$\(CURDIR\)[^"]*"', line), line


def test_pages_can_be_made_at_smoke_size_or_say_why_not():
    from study.grid import Grid

    left_out = {name for name, page in Grid.load().pages.items() if page.small is None}
    assert left_out == {"synthesis/pretrained", "synthesis/claims"}, "say why in study.yml, and here"


def test_no_link_leads_to_a_repository_that_is_not_set():
    """``repository.url`` of _config.yml is the one place; no page names an address of its own."""
    for path in (*NOTEBOOKS, *(ROOT / "book").rglob("*.md"), ROOT / "README.md"):
        assert "mybinder.org" not in (text := path.read_text(encoding="utf-8")), path
        assert not re.search(r"github\.com/[\w-]+/unlearning-study", text), path


@pytest.mark.parametrize("url", ["", "https://github.com/somebody/study"])
def test_links_to_the_repository_follow_the_setting(url, tmp_path):
    from sphinx.application import Sphinx

    (tmp_path / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": url, "branch": "main"}}))
    (tmp_path / "index.rst").write_text("Page\n====\n\nsee :source:`reprolib/spec.py` :binder:`notebooks/a.ipynb` end\n")
    settings = {"extensions": ["repository"], "html_theme": "basic"}
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        app = Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "doctrees", "html", settings, status=None, warning=None)
        app.build()
    finally:
        sys.path.pop(0)
    html = (tmp_path / "out" / "index.html").read_text()
    assert "reprolib/spec.py" in html
    assert ("https://github.com/somebody/study/blob/main/reprolib/spec.py" in html) == bool(url)
    assert ("https://mybinder.org/v2/gh/somebody/study/main?labpath=notebooks/a.ipynb" in html) == bool(url)
    assert ("use_repository_button" in app.config.html_theme_options) == bool(url)


def test_no_benchmark_text_in_records():
    """Records hold numbers and running document numbers; LUME's ids and texts must not leak into them."""
    for path in (ROOT / "results" / "records").rglob("*.json"):
        raw = json.loads(path.read_text())
        assert all(v is None or isinstance(v, int) for v in raw["rows"]["document"])
        for name, column in raw["rows"].items():
            strings = [k for k, _ in column["runs"]] if isinstance(column, dict) else [v for v in column if isinstance(v, str)]
            assert set(strings) <= {"forget", "retain", "holdout", "world", "Task1", "Task2", "Task3", "World", "sc", "qa"}, (path, name)


def test_a_run_that_is_named_twice_has_one_path(tmp_path):
    from study.grid import Grid

    path = tmp_path / "study.yml"
    blocks = {"plain": {"testbed": "tiny/synthetic", "method": "npo"}, "spelt": {"testbed": "tiny/synthetic", "method": "npo", "options": {"lr": 0.0005}}}
    path.write_text(yaml.safe_dump({"seeds": [0], "blocks": blocks, "pages": {}}))
    grid = Grid.load(path=path)
    assert grid.blocks["plain"] == grid.blocks["spelt"] == grid.specs and grid.specs[0].options == {}
