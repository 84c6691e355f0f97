"""The main argument as one PDF: the book without its catalogues, on one page, printed by an installed
browser.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from reprolib.errors import ReprolibError
from reprolib.places import project_root
from study.runner import scripts_first

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
VARIABLE = "REPROLIB_BROWSER"
KEPT = {"Use it": ("book/references",)}  # of this part nothing else
LOST = re.compile(r'<span class="xref std std-doc">/([^<]+)</span>')  # a link to a page that is left out
CATALOGUES = tuple(f"results/notebooks/synthesis/{name}" for name in ("methods", "metrics", "learning_rates"))


def main(output: str | os.PathLike | None = None) -> Path:
    """Write the PDF (``_build/book.pdf`` unless told otherwise) from executed pages, and return its path."""
    root = project_root()
    target = Path(output) if output else root / "_build" / "book.pdf"
    browser = find_browser()
    with tempfile.TemporaryDirectory() as scratch:
        toc = Path(scratch) / "toc.yml"
        toc.write_text(contents(root / "_toc.yml"), encoding="utf-8")
        # no -W: links to the pages that are left out lead nowhere here
        command = [
            "jupyter-book",
            "build",
            str(root),
            "--toc",
            str(toc),
            "--builder",
            "singlehtml",
            "--path-output",
            scratch,
        ]
        done = subprocess.run([*command, "--quiet"], env=scripts_first(), capture_output=True, text=True)
        built = Path(scratch) / "_build" / "singlehtml"
        page = next(
            (p for p in (built / "results" / "notebooks" / "index.html", built / "index.html") if p.exists()),
            None,
        )
        if done.returncode or page is None:
            raise ReprolibError(
                f"the book could not be put on one page; run make book first. It said:\n{done.stderr[-1500:]}"
            )
        text = LOST.sub(lambda m: title(root, m[1]), page.read_text(encoding="utf-8"))
        page = built / "book.html"  # where its links to styles begin
        page.write_text(text, encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        options = [
            "--headless=new",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={scratch}/browser",
        ]
        options += (
            ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        )  # which Chromium has none for root
        part = Path(scratch) / "book.pdf"
        printed = subprocess.run(
            [browser, *options, f"--print-to-pdf={part}", page.as_uri()], capture_output=True, text=True
        )
        if not part.exists() or not part.stat().st_size:
            raise ReprolibError(
                f"{browser} printed nothing (it ended with {printed.returncode}): {printed.stderr[-800:]}"
            )
        shutil.move(part, target)
    return target


def contents(toc: Path) -> str:
    """The table of contents without catalogues, single methods and the pages for users."""
    import yaml

    book = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = []
    for part in book["parts"]:
        kept = KEPT.get(part["caption"])
        files = [
            c["file"]
            for c in part["chapters"]
            if (kept is None or c["file"] in kept) and c["file"] not in CATALOGUES
        ]
        parts.append(
            {"caption": part["caption"], "chapters": [{"file": f} for f in files]}
        )  # without the pages below one
    return yaml.safe_dump(book | {"parts": parts}, sort_keys=False)


def title(root: Path, name: str) -> str:
    """What a page is called that is left out, for the places that point to it."""
    for path in (root / f"{name}.md", root / f"{name}.ipynb"):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                text = "".join(json.loads(text)["cells"][0]["source"])
            if found := re.search(r"^# (.+)$", text, re.MULTILINE):
                return html.escape(found[1])
    return html.escape(name)


def find_browser() -> str:
    """Chromium or Chrome: REPROLIB_BROWSER, or the first on the path."""
    given = os.environ.get(VARIABLE)
    found = shutil.which(given) if given else next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        what = (
            f"{VARIABLE} is {given!r}, which is no program"
            if given
            else f"none of {', '.join(BROWSERS)} is on the path"
        )
        raise ReprolibError(
            f"a PDF is printed by Chromium or Chrome, but {what}. Install one, or set {VARIABLE} to one;"
            " without it, print the pages of _build/html from any browser."
        )
    return found
