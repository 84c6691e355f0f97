"""What notebooks call: gather records, show source code and computed sentences. Pages hold no numbers of their own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from reprolib.experiment import run
from reprolib.record import Record

LADDER = ("target", "twin", "random", "always_eos")


def seeds(seed: int | None) -> tuple[int, ...]:
    """The seed of a page's parameter, or all seeds of the study."""
    from reprolib.grid import Grid

    return Grid.load().seeds if seed is None else (seed,)


def gather(
    methods: Iterable[str], testbed: str, seed: int | None = None, *, ladder: bool = True, **fields: Any
) -> dict[str, list[Record]]:
    """Records by method: read where ``results/`` holds them, computed where not. The sanity ladder comes first."""
    out = {}
    for name in (*LADDER, *methods) if ladder else tuple(methods):
        own = fields if name not in LADDER else {}
        out[name] = [run(testbed=testbed, method=name, seed=s, **own) for s in seeds(seed)]
    return out


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spec fields of a method page's ``options`` parameter."""
    return {"options": dict(options)} if options else {}


def source(*functions: Any) -> Any:
    """The code of functions or classes as it runs, with its docstring: the other half of the equation above it."""
    from IPython.display import Markdown

    return Markdown("\n".join(f"```python\n{inspect.getsource(f)}```" for f in functions))


def say(text: str) -> Any:
    """A sentence with computed numbers, as Markdown."""
    from IPython.display import Markdown

    return Markdown(text)


def card(method: str) -> Any:
    """The facts of a method: paper, published settings, cost, trap."""
    from reprolib.recipes import recipe

    c = recipe(method).card
    lines = [("Idea", c.idea), ("Source", c.paper), ("Published", c.published), ("Cost of a step", c.cost), ("Trap", c.trap)]
    return say("\n".join(f"- **{k}.** {v}" for k, v in lines if v))
