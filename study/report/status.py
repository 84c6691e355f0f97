"""What the study holds: counts by block, every method in every block, every run."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from IPython.display import HTML

from reprolib.places import project_root, results_dir
from reprolib.record import path_of, state
from reprolib.spec import Spec
from study.grid import Grid
from study.readings.quantities import LADDER
from study.report import style
from study.report.words import say

STATES = ("done", "diverged", "failed", "missing")


def counts(grid: Grid | None = None) -> Any:
    """A line a block: how many runs there are, in which state, and what they took."""
    grid = grid or Grid.load()
    lines = [
        "| block | runs | " + " | ".join(STATES) + " | hours |",
        "| --- |" + " ---: |" * (len(STATES) + 2),
    ]
    took: dict[str, float] = {}  # a run of two blocks once
    for name, specs in grid.blocks.items():
        found = [state(s) for s in specs]
        own = {
            s.fingerprint: r.cost.get("wall_s", 0) / 3600 for s, (_, r) in zip(specs, found, strict=True) if r
        }
        states = [s for s, _ in found]
        lines.append(
            f"| {name} | {len(specs)} | "
            + " | ".join(str(states.count(x)) for x in STATES)
            + f" | {sum(own.values()):.1f} |"
        )
        took |= own
    return say(
        "\n".join(lines)
        + "\n\nHours are those of one core as the records have them, with other runs beside them, and"
        f" without the training of targets and twins: {sum(took.values()):.0f} in all; runs can go side"
        " by side. `make book` computes what is missing; `make study` computes everything from nothing,"
        " can be interrupted, and goes on."
    )


def command(spec: Spec) -> str:
    """What makes a run's record, or finds it made.

    >>> command(Spec(testbed="tiny/synthetic", method="npo", seed=0, options={"lr": 0.001}))
    'python -m reprolib run npo --testbed tiny/synthetic --seed 0 -o lr=0.001'
    """
    words = [
        "python",
        "-m",
        "reprolib",
        "run",
        spec.method,
        "--testbed",
        spec.testbed,
        "--seed",
        str(spec.seed),
    ]
    plain = {"forget_documents": 1, "forget_rows": 1, "precision": "fp32", "suite": "core", "requests": 1}
    for name, usual in plain.items():
        value = getattr(spec, name)
        if value != usual:
            words += [
                "--" + name.replace("_", "-"),
                f"{value:g}" if isinstance(value, float) else str(value),
            ]
    for name, value in spec.options.items():
        words += ["-o", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _folder(path: str) -> str:
    """A folder of the repository, with a link to it where ``_config.yml`` says where the repository is."""
    config = project_root() / "_config.yml"
    found = (
        (yaml.safe_load(config.read_text(encoding="utf-8")).get("repository") or {})
        if config.exists()
        else {}
    )
    name = html.escape(path)
    if not found.get("url"):
        return f"<code>{name}</code>"
    address = f"{found['url'].rstrip('/')}/tree/{found.get('branch') or 'main'}/{path}"
    return f'<a href="{html.escape(address, quote=True)}">{name}</a>'


def _page(name: str) -> str:
    """A link from the status page to another executed one, with its title."""
    notebook = json.loads(Grid.load().pages[name].notebook.read_text(encoding="utf-8"))
    title = "".join(notebook["cells"][0]["source"]).partition("\n")[0].lstrip("# ")
    return f'<a href="../{name}.html">{html.escape(title)}</a>'


def matrix(grid: Grid | None = None) -> Any:
    """Every method in every block; a cell opens to its pages, its records and a command."""
    grid = grid or Grid.load()
    shown = {
        b: specs for b, specs in grid.blocks.items() if specs and any(s.method not in LADDER for s in specs)
    }
    methods = list(
        dict.fromkeys(s.method for specs in shown.values() for s in specs if s.method not in LADDER)
    )
    pages = {p.name: {s.fingerprint for s in p.specs} for p in grid.pages.values()}
    titles = {name: _page(name) for name in pages}
    head = "".join(f'<th scope="col">{html.escape(b)}</th>' for b in shown)
    rows = []
    for m in methods:
        cells = "".join(
            f"<td>{_cell([s for s in specs if s.method == m], pages, titles)}</td>"
            for specs in shown.values()
        )
        rows.append(f'<tr><th scope="row">{html.escape(style.label(m))}</th>{cells}</tr>')
    return HTML(
        '<figure class="result-table"><div class="scrolls" tabindex="0"><table class="result matrix"><thead>'
        f'<tr><th scope="col">method</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<figcaption>Numbers of runs that have a record, by method and block of <code>study.yml</code>. A"
        " cell opens to the pages that show them, the folder of the records and the command that makes the"
        " first of them.</figcaption></figure>"
    )


def _cell(specs: Sequence[Spec], pages: Mapping[str, set[str]], titles: Mapping[str, str]) -> str:
    if not specs:
        return ""
    there = [s for s in specs if path_of(s).exists()]
    own = {s.fingerprint for s in specs}
    where = [titles[p] for p, held in pages.items() if own & held and p not in ("index", "synthesis/claims")]
    folders = sorted({path_of(s).parent.relative_to(results_dir()).as_posix() for s in specs})
    links = [_folder(f"results/{f}") for f in folders]
    text = f"{len(there)}" + (f" of {len(specs)}" if len(there) < len(specs) else "")
    lines = "<br>".join(
        [
            *where,
            *links,
            (
                f"{'the run' if len(specs) == 1 else f'the first of {len(specs)} runs'}:"
                f" <code>{html.escape(command(specs[0]))}</code>"
            ),
        ]
    )
    return f"<details><summary>{text}</summary>{lines}</details>"


def runs(grid: Grid | None = None) -> Any:
    """A line a run."""
    grid = grid or Grid.load()
    lines = [
        "| run | seed | fingerprint | status | train s | made with |",
        "| --- | ---: | --- | --- | ---: | --- |",
    ]
    for specs in grid.blocks.values():
        for s in specs:
            found, r = state(s)
            made = (
                f"{r.provenance['machine']['gpu'] or r.provenance['machine']['cpu']},"
                f" {(r.provenance['commit'] or '?')[:8]}"
                if r
                else ""
            )
            cost = f"{r.cost.get('train_s', 0):.0f}" if r else ""
            slug = "_".join(s.slug.split("_")[1:]).replace("_", ", ")
            lines.append(
                f"| {s.method} on {s.testbed}{', ' + slug if slug else ''} | {s.seed} | `{s.fingerprint}`"
                f" | {found} | {cost} | {made} |"
            )
    return say("\n".join(lines))
