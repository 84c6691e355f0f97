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
