"""The command line of the study: ``study`` or ``python -m study``. Runs of the grid, pages, and the book of
them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from reprolib.cli import Command, dispatch
from reprolib.errors import ReprolibError, SpecError, unknown

# Each command imports what it needs when it is called: `study --help` does not wait for torch.


def _run_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--fingerprint", help="one run of the grid (what Snakemake uses)")
    p.add_argument("--all", action="store_true", help="every run of the grid that has no record yet")
    p.add_argument("--grid", default="study", help="study (default) or smoke")


def _run(args: argparse.Namespace) -> int:
    from reprolib import experiment
    from reprolib.record import path_of
    from study.grid import Grid

    if args.all == bool(args.fingerprint):
        raise SpecError(
            "run: give --fingerprint for one run of the grid, or --all; `reprolib run METHOD` makes any"
            " other."
        )
    if args.all:
        return _run_missing(Grid.load(args.grid).missing())
    by_name = {s.fingerprint: s for s in Grid.load(args.grid).specs}
    if args.fingerprint not in by_name:
        raise SpecError(
            f"no run of the {args.grid} grid has fingerprint {args.fingerprint}; see `study status`."
        )
    spec = by_name[args.fingerprint]
    record = experiment.run(spec)
    print(json.dumps({"record": str(path_of(spec)), "status": record.status, **record.metrics}, indent=1))
    return 0


def _run_missing(missing: Sequence) -> int:
    from reprolib import experiment

    failures = 0
    for n, spec in enumerate(missing, 1):
        print(f"[{n}/{len(missing)}] {spec.method} on {spec.testbed}: {spec.slug}", file=sys.stderr)
        try:
            experiment.run(spec)
        except ReprolibError:
            raise
        except Exception as e:  # one broken run must not keep the others from being made
            failures += 1
            print(f"  failed: {type(e).__name__}: {e} (kept in results/failed)", file=sys.stderr)
    return 1 if failures else 0


def _search_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("methods", nargs="*", metavar="METHOD", help="with trials in study.yml")
    p.add_argument("--all", action="store_true", help="every method that has trials")
    p.add_argument("--dry-run", action="store_true", help="compute nothing; show what records hold")


def _search(args: argparse.Namespace) -> int:
    from study import search

    return search.main(args.methods, every=args.all, dry_run=args.dry_run)


def _page_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", nargs="?", help="as `study pages` lists them; all of them by default")
    p.add_argument("--grid", default="study", help="study or smoke")


def _page(args: argparse.Namespace) -> int:
    from study import runner
    from study.grid import Grid

    pages = Grid.load(args.grid).pages
    if args.name and args.name not in pages:
        raise SpecError(unknown("page", args.name, pages))
    for page in [pages[args.name]] if args.name else pages.values():
        print(f"page {page.name}", file=sys.stderr)
        runner.execute(page.notebook, page.output, page.parameters)
    return 0


def _grid_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--grid", default="study", help="study or smoke")


def _pages(args: argparse.Namespace) -> int:
    from study.grid import Grid

    for page in Grid.load(args.grid).pages.values():
        print(f"{page.name:36} {len(page.specs):4} runs   {page.notebook.name}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from reprolib.record import state
    from study.grid import Grid

    for name, specs in Grid.load(args.grid).blocks.items():
        counts = {"done": 0, "diverged": 0, "missing": 0, "failed": 0}
        for s in specs:
            counts[state(s)[0]] += 1
        print(f"{name:18} {len(specs):4} runs   " + "   ".join(f"{v} {k}" for k, v in counts.items() if v))
    print("`make book` computes what is missing.")
    return 0


def _compare_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folder", metavar="DIR", help="what REPROLIB_RESULTS named in the rerun, e.g. .cache/study/results"
    )


def _compare(args: argparse.Namespace) -> int:
    from study import compare

    settings, new, bad = compare.compare(args.folder)
    if not settings and not bad:
        raise ReprolibError(
            f"none of the {new} runs in {args.folder} is among the committed ones; there is nothing to"
            " compare."
        )
    for line in compare.report(settings, new, bad):
        print(line, flush=True)
    return 1 if bad or any(a.findings[0] for a in settings) else 0


def _smoke_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--every-page",
        action="store_true",
        help="of the book, each computing what it shows (about 15 minutes)",
    )


def _smoke(args: argparse.Namespace) -> int:
    from study import smoke

    return smoke.main(args.every_page)


def _pdf_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-o", "--output", help="default: _build/book.pdf")


def _pdf(args: argparse.Namespace) -> int:
    from study import pdf

    print(f"the main argument: {pdf.main(args.output)}")
    return 0


COMMANDS = {
    "run": Command("compute runs of the grid that have no record yet", _run_arguments, _run),
    "search": Command(
        "try a method's options and see which the rule picks",
        _search_arguments,
        _search,
        "Compute missing trials of study.yml, section search; show which one the rule of study/search.py"
        " picks.",
    ),
    "page": Command("execute a page of the book through papermill", _page_arguments, _page),
    "pages": Command("list the pages of the book", _grid_arguments, _pages),
    "status": Command("what exists, what is missing, what failed", _grid_arguments, _status),
    "compare": Command(
        "a rerun beside the committed records",
        _compare_arguments,
        _compare,
        "Which runs of another results folder hold the scores that results/ holds for them, and which"
        " readings are outside their 95 % intervals (over the seeds made again). Exit status 1 if any is,"
        " or a record cannot be read.",
    ),
    "smoke": Command("the whole flow at toy size, nothing reused", _smoke_arguments, _smoke),
    "pdf": Command(
        "the main argument as one PDF, printed by an installed Chromium or Chrome", _pdf_arguments, _pdf
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    return dispatch("study", "The grid, its pages and the book.", COMMANDS, argv)


if __name__ == "__main__":
    raise SystemExit(main())
