"""The tree keeps its order: layers, imports at the top of files, and private names that stay where they are."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from reprolib import recipes

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(p for folder in ("reprolib", "study") for p in (ROOT / folder).rglob("*.py"))
SCRIPTS = [p for p in FILES if p.name == "__main__.py" or {"gpu", "benchmarks"} & set(p.relative_to(ROOT).parts)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def own(name: str | None) -> bool:
    return name is not None and name.split(".")[0] in ("reprolib", "study")


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of every import of own modules at or below a node."""
    for n in ast.walk(node):
        if isinstance(n, ast.ImportFrom) and (n.level or own(n.module)):
            yield from ((n.lineno, f"{n.module}.{a.name}") for a in n.names)
        elif isinstance(n, ast.Import):
            yield from ((n.lineno, a.name) for a in n.names if own(a.name))


def private(name: str) -> bool:
    """So by its underscore; `__init__` and `_repr_html_` (of Jupyter) are protocols, not private names."""
    return name.startswith("_") and not name.endswith("_")


@cache
def defined(path: Path) -> set[str]:
    """Private names of a file: functions, classes, variables and attributes that it sets."""
    out = set()
    for n in ast.walk(tree(path)):
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            out.add(n.name)
        elif isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            out.add(n.id)
        elif isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store):
            out.add(n.attr)
    return {name for name in out if private(name)}


def test_contracts_of_pyproject_are_kept():
    """In a process of its own, since the command takes its streams with it."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and " 0 broken" in done.stdout, done.stdout + done.stderr


def test_every_recipe_of_the_folder_is_registered_by_its_cards_name():
    """METHODS is written out, as a table of contents; whoever adds a recipe's file learns here that it lacks a line."""
    modules = [importlib.import_module(f"reprolib.recipes.{m.name}") for m in pkgutil.iter_modules(recipes.__path__)]
    found = {id(v): v.card.name for m in modules for v in vars(m).values() if isinstance(v, recipes.Recipe)}
    known = recipes.BASELINES | recipes.METHODS
    assert sorted(found.values()) == sorted(known) and all(found[id(r)] == name for name, r in known.items())
    families = [r.card.family for r in recipes.METHODS.values()]
    assert families == sorted(families, key=recipes.FAMILIES.index)


@pytest.mark.parametrize("path", [p for p in FILES if p not in SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_own_modules_are_imported_at_the_top(path):
    """Imports inside functions hide cycles. Scripts may make them: `--help` need not load torch."""
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not sorted({found for f in functions for found in imports(f)})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_names_of_other_files_are_left_alone(path):
    wrong = [(line, name) for line, name in imports(tree(path)) if private(name.split(".")[-1])]
    elsewhere = set().union(*map(defined, (p for p in FILES if p != path))) - defined(path)
    for n in ast.walk(tree(path)):
        if isinstance(n, ast.Attribute) and n.attr in elsewhere:
            wrong.append((n.lineno, n.attr))
    assert not wrong
