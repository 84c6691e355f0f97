"""papermill with strict parameters: what a page takes is checked before anything runs, and failed pages are
kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import reprolib
import study
from reprolib.errors import ReprolibError, unknown
from reprolib.places import project_root, results_dir

CODE = tuple(
    Path(p.__file__).parent for p in (reprolib, study)
)  # whose code pages show, and say what it says


class PageError(ReprolibError):
    """A notebook could not be executed."""


def execute(
    notebook: Path | str,
    output: Path | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: bool = True,
) -> Path:
    """Execute ``notebook`` into ``output`` (written only when every cell has run).

    A name that the notebook's ``parameters`` cell does not define raises (papermill itself would only
    print a warning). A page that fails is kept under ``results/logs`` with its traceback.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook, output = Path(notebook), Path(output)
    if not notebook.exists():
        raise PageError(f"notebook {notebook} not found; `python -m study pages` lists those of the study.")
    known = papermill.inspect_notebook(str(notebook))
    if not known and parameters:
        raise PageError(
            f"{notebook} has no cell tagged 'parameters', so it takes none; got {sorted(parameters)}."
        )
    for name in parameters or {}:
        if name not in known:
            raise PageError(f"{notebook}: " + unknown("parameter", name, known))
    kept = results_dir() / "logs" / f"{notebook.stem}.failed.ipynb"
    part = output.with_name(f".{output.name}.{os.getpid()}.part.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(part),
            dict(parameters or {}),
            cwd=str(project_root()),
            kernel_name="python3",
            progress_bar=progress,
            log_output=False,
            extra_arguments=[
                "--IPKernelApp.log_level=40"
            ],  # else every page warns of its loopback connection
        )
    except PapermillExecutionError as e:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(part, kept)
        raise PageError(
            f"{notebook}, cell {e.exec_count}: {e.ename}: {e.evalue}\nThe page as far as it came is kept"
            f" as {kept}."
        ) from None
    else:
        _forget_times(part)
        os.replace(part, output)
        kept.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)
    return output


def _forget_times(path: Path) -> None:
    """Remove clock times and machine paths that papermill adds, so that equal results are equal bytes."""
    import nbformat

    page = nbformat.read(path, as_version=4)
    page.metadata.pop("papermill", None)
    for n, cell in enumerate(page.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        cell["id"] = f"cell-{n}"
    nbformat.write(page, path)


def code_stamp() -> Path:
    """A file that is written anew only when the package's code has changed: what pages are older than is out
    of date.
    """
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted(folder.rglob("*.py")):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    stamp = results_dir() / "notebooks" / ".code"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest.hexdigest():
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest.hexdigest(), encoding="utf-8")
    return stamp


def scripts_first() -> dict[str, str]:
    """The environment with this Python's scripts first, so that the right jupyter-book is found without
    activation.
    """
    return os.environ | {"PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")}


def main(argv: Sequence[str]) -> int:
    """``python -m study.runner NOTEBOOK OUTPUT PARAMETERS`` (as JSON): one page, without a look at the
    grid.
    """
    notebook, output, parameters = argv
    # nbformat imports jsonschema, and that, where this is installed, compiles a grammar of addresses for
    # nearly a second, for a check that notebooks do not have
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    print(f"page {Path(notebook).parent.name}/{Path(notebook).stem}", file=sys.stderr)
    try:
        execute(notebook, output, json.loads(parameters))
    except ReprolibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
