"""The whole flow at smoke size, in a folder of its own and with nothing reused: runs, pages, book."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import yaml

from reprolib import experiment
from reprolib.corpus.files import VARIABLE
from reprolib.errors import ReprolibError
from reprolib.places import project_root
from study import runner
from study.grid import Grid, Page

BOOK = ("_config.yml", "_toc.yml", "references.bib", "book", "notebooks", "study.yml")


def main(every_page: bool = False) -> int:
    """Runs of the smoke grid, its pages (all pages of the study with ``every_page``), and the book of
    them.
    """
    folder = _folder()
    began = time.perf_counter()
    grid = Grid.load("smoke")
    for n, spec in enumerate(grid.specs, 1):
        print(f"run {n}/{len(grid.specs)}: {spec.method} ({spec.slug})", flush=True)
        record = experiment.run(spec, progress=sys.stderr.isatty())
        if record.status != "done":
            raise ReprolibError(
                f"smoke run {spec.method} ({spec.slug}) ended as {record.status}: {record.reason}"
            )
    pages = _twins(Grid.load()) if every_page else tuple(grid.pages.values())
    # two at a time: most of a page is the start of its kernel, which leaves a core idle
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = {pool.submit(_page, page): page.name for page in pages}
        for future in as_completed(made):
            future.result()
            print(f"page {made[future]}", flush=True)
    _trim(folder, [page.name for page in pages])
    done = subprocess.run(["jupyter-book", "build", str(folder), "--quiet"], env=runner.scripts_first())
    if done.returncode:
        raise ReprolibError("the book of the smoke pages could not be built; see the messages above.")
    print(
        f"smoke: {len(grid.specs)} runs, {len(pages)} pages and a book in"
        f" {time.perf_counter() - began:.0f} s: {folder / '_build' / 'html' / 'index.html'}"
    )
    return 0


def _folder() -> Path:
    """An empty copy of what a book is made of, which the environment then names for results and cache."""
    root = project_root()
    folder = root / ".cache" / "smoke"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in BOOK:
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, folder / name)
    os.environ["REPROLIB_RESULTS"] = str(folder / "results")
    os.environ["REPROLIB_CACHE"] = str(folder / "cache")
    return folder


def _twins(study: Grid) -> tuple[Page, ...]:
    """Every page that can be made at smoke size, those that compute most first."""
    left_out = {name: "study.yml says why" for name, page in study.pages.items() if page.small is None}
    if not os.environ.get(VARIABLE):
        needs = {n for n, p in study.pages.items() if str((p.small or {}).get("testbed")).endswith("/lume")}
        left_out |= {name: f"{VARIABLE} is not set" for name in needs}
    for name, why in left_out.items():
        print(f"left out: page {name} ({why})", flush=True)
    pages = [Page(n, p.notebook, p.small or {}, ()) for n, p in study.pages.items() if n not in left_out]
    # methods before the pages that show all of them, which then find records instead of waiting for each
    # other's
    order = {"ablations": 0, "methods": 1}
    return tuple(sorted(pages, key=lambda page: order.get(page.name.split("/")[0], 2)))


def _page(page: Page) -> None:
    runner.execute(page.notebook, page.output, page.parameters, progress=False)


def _trim(folder: Path, names: Iterable[str]) -> None:
    """Leave out the pages that were not made, and the warnings about links that lead to them."""
    toc = yaml.safe_load((folder / "_toc.yml").read_text(encoding="utf-8"))
    made = {f"results/notebooks/{name}" for name in names}
    for part in toc["parts"]:
        part["chapters"] = [
            c for c in part["chapters"] if not c["file"].startswith("results/") or c["file"] in made
        ]
        for chapter in part["chapters"]:
            if "sections" in chapter:
                chapter["sections"] = [c for c in chapter["sections"] if c["file"] in made]
                if not chapter["sections"]:
                    del chapter["sections"]
    toc["parts"] = [p for p in toc["parts"] if p["chapters"]]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    config = yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8"))
    settings = config.setdefault("sphinx", {}).setdefault("config", {})
    settings["suppress_warnings"] = [*settings.get("suppress_warnings", []), "etoc.ref", "ref.doc"]
    (folder / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
