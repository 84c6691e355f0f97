"""Run what the README prints, as it stands there, in this checkout: commands that take seconds, and the
Python example.

Long ones (`make book`, `make test`, `make smoke`) are run by `.ci/run` itself; `make pdf` needs a browser,
and must say so where there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG = {"make book", "make test", "make smoke", "make pdf", "make setup"}
ASIDE = ROOT / ".cache" / "readme"  # what commands make goes there, not among the committed records


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )


def start(command: str, **more: str) -> subprocess.CompletedProcess:
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    print(f"$ {command}", flush=True)
    environment = os.environ | {"PATH": path} | more
    return subprocess.run(["bash", "-ec", command], cwd=ROOT, env=environment, capture_output=True, text=True)


def must(command: str, **more: str) -> str:
    done = start(command, **more)
    if done.returncode:
        sys.exit(f"`{command}` ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def filled(line: str) -> str:
    """The README's DIR as folders that are here: a model that the smoke testbed made, rows of a benchmark."""
    if "DIR" not in line:
        return line
    model = next((ASIDE / "cache").glob("models/**/model.safetensors")).parent
    words = line.replace("--model DIR", f"--model '{model}'").replace(
        "--data DIR", f"--data '{os.environ['REPROLIB_DATA']}/tofu'"
    )
    return f"{words} --documents 2 --only core --max-new-tokens 8 --output '{ASIDE / 'evaluation'}'"


def main() -> None:
    lines = [line.partition("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    aside = {"REPROLIB_RESULTS": str(ASIDE / "results"), "REPROLIB_CACHE": str(ASIDE / "cache")}
    for line in (x for x in lines if x and x not in LONG):
        if "DIR" in line and not os.environ.get("REPROLIB_DATA"):
            print(f"not run, REPROLIB_DATA is not set: {line}")
            continue
        must(
            filled(line), **({} if line.startswith("papermill") else aside)
        )  # a page reads the committed records
    for block in blocks("python"):
        code = ASIDE / "example.py"
        code.write_text(block, encoding="utf-8")
        must(f"python '{code}'", **aside)
    must("make help")
    must("make status")
    must("make -n study")
    done = start("make pdf")
    browsers = (
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
        "msedge",
    )
    if any(map(shutil.which, browsers)) != (done.returncode == 0) or (
        done.returncode and "Chromium" not in done.stderr
    ):
        sys.exit(f"`make pdf` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    (ROOT / "out.ipynb").unlink(missing_ok=True)
    left = must("git status --porcelain").strip()
    if left:
        sys.exit(f"the README's commands and the builds left behind, or changed:\n{left}")
    print("readme: every command ran")


if __name__ == "__main__":
    main()
