"""The whole flow at smoke size, in a folder of its own and with nothing reused: runs, pages, book."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from reprolib.errors import ReprolibError
from reprolib.record import project_root
from reprolib.runner import scripts_first

BOOK = ("_config.yml", "_toc.yml", "references.bib", "book", "notebooks", "study.yml")


def main() -> int:
    root = project_root()
    folder = root / ".cache" / "smoke"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in BOOK:
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, folder / name)
    os.environ["REPROLIB_RESULTS"] = str(folder / "results")
    os.environ["REPROLIB_CACHE"] = str(folder / "cache")
    began = time.perf_counter()

    from reprolib import experiment
    from reprolib.grid import Grid

    grid = Grid.load("smoke")
    specs = grid.specs
    for n, spec in enumerate(specs, 1):
        print(f"run {n}/{len(specs)}: {spec.method} ({spec.slug})", flush=True)
        record = experiment.run(spec, progress=sys.stderr.isatty())
        if record.status != "done":
            raise ReprolibError(f"smoke run {spec.method} ({spec.slug}) ended as {record.status}: {record.reason}")
    # two at a time: most of a page is the start of its kernel, which leaves a core idle
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = {pool.submit(_page, page): name for name, page in grid.pages.items()}
        for future in as_completed(made):
            future.result()
            print(f"page {made[future]}", flush=True)
    _trim(folder, grid)
    done = subprocess.run(["jupyter-book", "build", str(folder), "--quiet"], env=scripts_first())
    if done.returncode:
        raise ReprolibError("the book of the smoke pages could not be built; see the messages above.")
    print(f"smoke: {len(specs)} runs, {len(grid.pages)} pages and a book in {time.perf_counter() - began:.0f} s: "
          f"{folder / '_build' / 'html' / 'index.html'}")  # fmt: skip
    return 0


def _page(page) -> None:
    from reprolib import runner

    runner.execute(page.notebook, page.output, page.parameters, progress=False)


def _trim(folder, grid) -> None:
    """Leave out the pages that need other data, and the warnings about links that lead to them."""
    import yaml

    toc = yaml.safe_load((folder / "_toc.yml").read_text(encoding="utf-8"))
    made = {f"results/notebooks/{name}" for name in grid.pages}
    for part in toc["parts"]:
        part["chapters"] = [c for c in part["chapters"] if not c["file"].startswith("results/") or c["file"] in made]
    toc["parts"] = [p for p in toc["parts"] if p["chapters"]]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    config = yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8"))
    settings = config.setdefault("sphinx", {}).setdefault("config", {})
    settings["suppress_warnings"] = [*settings.get("suppress_warnings", []), "etoc.ref", "ref.doc"]
    (folder / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
