"""The PDF: what it leaves out, what it says without a browser, and (where there is a browser and a built book) that it is one."""

import shutil
from pathlib import Path

import pytest
import yaml

from reprolib.errors import ReprolibError
from study import pdf

ROOT = Path(__file__).resolve().parent.parent


def test_the_argument_is_the_book_without_catalogues_methods_and_pages_for_users():
    book = yaml.safe_load((ROOT / "_toc.yml").read_text())
    own = yaml.safe_load(pdf.contents(ROOT / "_toc.yml"))
    every = {c["file"] for p in book["parts"] for c in p["chapters"]}
    kept = [c["file"] for p in own["parts"] for c in p["chapters"]]
    assert own["root"] == book["root"] and set(kept) <= every and len(kept) == len(set(kept))
    left = every - set(kept)
    assert set(pdf.CATALOGUES) <= left, "a catalogue that the book does not have is left out of nothing"
    assert {"book/rerun", "book/api", "results/notebooks/synthesis/status"} <= left and "book/references" in kept
    assert {"book/setting", "results/notebooks/synthesis/leaderboard", "results/notebooks/synthesis/claims", "book/limitations"} <= set(kept)
    assert not [f for f in kept if "/methods/" in f]


def test_pages_that_are_left_out_are_named_by_their_titles(tmp_path):
    (tmp_path / "a.md").write_text("(label)=\n# Rerun & more\n\ntext\n")
    (tmp_path / "b.ipynb").write_text('{"cells": [{"source": ["# NPO\\n", "text"]}]}')
    assert pdf.title(tmp_path, "a") == "Rerun &amp; more" and pdf.title(tmp_path, "b") == "NPO" and pdf.title(tmp_path, "c/d") == "c/d"


@pytest.mark.parametrize("given", ["", "no-such-browser"])
def test_without_a_browser_it_says_what_to_install(monkeypatch, tmp_path, given):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(pdf.VARIABLE, given)
    with pytest.raises(ReprolibError, match=r"Chromium or Chrome.*Install one"):
        pdf.main(tmp_path / "out.pdf")


def test_a_book_that_was_not_executed_says_so(monkeypatch, tmp_path):
    """No pages, no book: what jupyter-book says is passed on, and nothing is written."""
    (tmp_path / "study.yml").write_text("")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: nothing\nparts: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pdf, "find_browser", lambda: "true")
    with pytest.raises(ReprolibError, match="run make book first"):
        pdf.main(tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="no Chromium or Chrome")
@pytest.mark.skipif(not (ROOT / "results" / "notebooks" / "index.ipynb").exists(), reason="no executed pages; make book")
def test_it_is_a_pdf(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    out = pdf.main(tmp_path / "book.pdf")
    assert out.read_bytes()[:5] == b"%PDF-" and out.stat().st_size > 1_000_000
