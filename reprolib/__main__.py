"""The command line: ``reprolib`` or ``python -m reprolib``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from reprolib.errors import ReprolibError, SpecError, unknown


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="reprolib", description="Unlearning methods and metrics, and the study built on them.")
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("run", help="compute one run (or find its record)", description="Compute one run, or all missing ones.")
    p.add_argument("method", nargs="?", help="see `reprolib methods`")
    p.add_argument("--testbed", default="tiny/synthetic")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--forget-documents", type=float, default=1.0, metavar="SHARE", help="share of the forget documents given")
    p.add_argument("--forget-rows", type=float, default=1.0, metavar="SHARE", help="share of each document's rows given")
    p.add_argument("--requests", type=int, default=1, metavar="N", help="portions of the forget documents, one after another")
    p.add_argument("--precision", default="fp32", help="of the base: fp32, bf16, nf4, int8")
    p.add_argument("--suite", default="core", help="what is measured: core, wide or stress")
    p.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="a recipe's option, e.g. lr=1e-4")
    p.add_argument("--fingerprint", help="a run of the grid by its fingerprint (what Snakemake uses)")
    p.add_argument("--all", action="store_true", help="every run of the grid that has no record yet")
    p.add_argument("--grid", help="of --all or --fingerprint: study (default), smoke or a file")

    p = commands.add_parser(
        "search", help="try a method's options and see which the rule picks",
        description="Compute missing trials of study.yml, section search; show which one the rule of reprolib/search.py picks.",
    )  # fmt: skip
    p.add_argument("methods", nargs="*", metavar="METHOD", help="with trials in study.yml")
    p.add_argument("--all", action="store_true", help="every method that has trials")
    p.add_argument("--dry-run", action="store_true", help="compute nothing; show what records hold")

    p = commands.add_parser("page", help="execute a page of the book through papermill")
    p.add_argument("name", nargs="?", help="as `reprolib pages` lists them; all of them by default")
    p.add_argument("--grid", default="study", help="study or smoke")

    p = commands.add_parser("pages", help="list the pages of the book")
    p.add_argument("--grid", default="study")
    p = commands.add_parser("methods", help="list all methods with paper and cost")
    p = commands.add_parser("status", help="what exists, what is missing, what failed")
    p.add_argument("--grid", default="study")
    p = commands.add_parser(
        "compare", help="a rerun beside the committed records",
        description="Which runs of another results folder hold the scores that results/ holds for them, and which readings are "
        "outside their 95 % intervals (over the seeds made again). Exit status 1 if any is, or a record cannot be read.",
    )  # fmt: skip
    p.add_argument("folder", metavar="DIR", help="what REPROLIB_RESULTS named in the rerun, e.g. .cache/study/results")
    p = commands.add_parser("testbed", help="train and check a target and its twin")
    p.add_argument("name", nargs="?", default="tiny/synthetic")
    p.add_argument("--seed", type=int, default=0)

    p = commands.add_parser(
        "evaluate", help="score any checkpoint on LUME, SemEval or TOFU data",
        description="Score a transformers checkpoint. What is finished is kept: the same command continues a killed evaluation.",
    )  # fmt: skip
    p.add_argument("--model", required=True, metavar="DIR_OR_HUB_ID", help="the checkpoint: a folder, or owner/name[@revision]")
    p.add_argument("--data", required=True, metavar="DIR_OR_HUB_ID", help="forget and retain rows")
    p.add_argument("--format", default="auto", help="lume, semeval, tofu or auto")
    p.add_argument("--split", help="train (default) or validation of SemEval; forget01, forget05, forget10 (default) of TOFU")
    p.add_argument("--target", metavar="DIR", help="the model before unlearning; scored too")
    p.add_argument("--twin", metavar="DIR", help="the model retrained without the forget rows; scored too, for the gap closed")
    p.add_argument("--adapter", metavar="DIR", help="a peft adapter on the model")
    p.add_argument("--suites", help="core,wide,stress,data (default: core,wide, and data with --mmlu or --harness)")
    p.add_argument("--only", metavar="PARTS", help="single parts by name instead, e.g. core,mmlu")
    p.add_argument("--mmlu", metavar="DIR", help="MMLU: a folder with dev/ and test/, or a hub id")
    p.add_argument("--mmlu-per-subject", type=int, metavar="N", help="so many questions of each subject (default: all)")
    p.add_argument("--harness", metavar="TASKS", help="tasks of lm-evaluation-harness, e.g. wmdp_bio")
    p.add_argument("--precision", default="fp32", help="of all models: fp32, bf16, nf4, int8")
    p.add_argument("--documents", type=int, metavar="N", help="so many documents of each task and side (default: all)")
    p.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of a generated answer")
    p.add_argument("--batch-tokens", type=int, default=8192, metavar="N", help="in a batch; lower it if memory runs out")
    p.add_argument("--seed", type=int, default=0, help="of every choice and sample")
    p.add_argument("--output", metavar="DIR", help="default: evaluations/<name of the model>")
    p.add_argument("--overwrite", action="store_true", help="replace the results of another model or other data in the folder")

    p = commands.add_parser(
        "plan", help="predict memory and time of a run",
        description="Predict memory and time from a model's configuration: no GPU, no weights, nothing downloaded.",
    )  # fmt: skip
    p.add_argument("--model", required=True, help="e.g. olmo-7b, smollm2-135m, a preset, or a folder with config.json")
    p.add_argument("--recipe", required=True, help="see `reprolib methods`")
    p.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="a recipe's option, e.g. lr=1e-4")
    p.add_argument("--trainable", help="short for -o trainable=...: full, last-2, mlp-0-5, lora-16 or lora-64-16")
    p.add_argument("--batch-size", type=int, help="short for -o batch_size=...: rows a side and step")
    p.add_argument("--gpu-memory", type=float, default=24, metavar="GIB", help="of one GPU (default: 24)")
    p.add_argument("--gpus", type=int, default=1, help="that share the model (FSDP)")
    p.add_argument("--precision", default="fp32", help="of the base: fp32, bf16, nf4, int8")
    p.add_argument("--tokens", type=int, default=256, help="of a row (default: 256)")
    p.add_argument("--labels", type=int, help="predicted tokens of a row (default: a fifth)")
    p.add_argument("--micro-tokens", type=int, help="padded tokens of a forward pass (default: the recipe's)")
    p.add_argument("--checkpointing", action="store_true", help="compute blocks again in the backward pass")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")

    p = commands.add_parser("smoke", help="the whole flow at toy size, nothing reused")
    p.add_argument("--every-page", action="store_true", help="of the book, each computing what it shows (about 15 minutes)")

    p = commands.add_parser("pdf", help="the main argument as one PDF, printed by an installed Chromium or Chrome")
    p.add_argument("-o", "--output", help="default: _build/book.pdf")

    args = parser.parse_args(argv)
    try:
        status = globals()[f"_{args.command}"](args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader (e.g. head) has had enough; Python would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ReprolibError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; given again, the same command continues a run from its last checkpoint.", file=sys.stderr)
        return 130


def _run(args) -> int:
    from reprolib import experiment
    from reprolib.grid import Grid
    from reprolib.models import device
    from reprolib.record import path_of
    from reprolib.spec import Spec

    if args.grid and not (args.all or args.fingerprint):
        raise SpecError(
            f"run: --grid {args.grid} says where runs are listed, but the command describes one of its own; leave --grid out, or "
            "give --all or --fingerprint."
        )
    if args.all and (args.method or args.fingerprint):
        named = args.method or args.fingerprint
        raise SpecError(f"run: --all makes every run of the grid, but {named!r} names one; leave out either.")
    grid = args.grid or "study"
    if args.all:
        missing = Grid.load(grid).missing()
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
    if args.fingerprint:
        by_name = {s.fingerprint: s for s in Grid.load(grid).specs}
        if args.fingerprint not in by_name:
            raise SpecError(f"no run of the {grid} grid has fingerprint {args.fingerprint}; see `reprolib status`.")
        spec = by_name[args.fingerprint]
    else:
        if not args.method:
            raise SpecError("run: name a method (see `reprolib methods`), or give --all.")
        spec = Spec(
            testbed=args.testbed, method=args.method, seed=args.seed, precision=args.precision,
            forget_documents=args.forget_documents, forget_rows=args.forget_rows, options=_options(args.option), suite=args.suite,
            requests=args.requests,
        )  # fmt: skip
    record = experiment.run(spec)
    if device.first():
        print(json.dumps({"record": str(path_of(spec)), "status": record.status, **record.metrics}, indent=1))
    return 0


def _search(args) -> int:
    from reprolib import search

    return search.main(args.methods, every=args.all, dry_run=args.dry_run)


def _evaluate(args) -> int:
    from reprolib import assess

    return assess.main(args)


def _plan(args) -> int:
    from reprolib.plan import plan

    found = plan(
        args.model, args.recipe, _options(args.option), trainable=args.trainable, batch_size=args.batch_size, labels=args.labels,
        gpu_memory_gib=args.gpu_memory, gpus=args.gpus, precision=args.precision, tokens=args.tokens,
        micro_tokens=args.micro_tokens, checkpointing=args.checkpointing,
    )  # fmt: skip
    print(json.dumps(found.to_dict(), indent=1) if args.json else found.report())
    return 0


def _smoke(args) -> int:
    from reprolib import smoke

    return smoke.main(args.every_page)


def _pdf(args) -> int:
    from reprolib import pdf

    print(f"the main argument: {pdf.main(args.output)}")
    return 0


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for pair in pairs:
        name, eq, value = pair.partition("=")
        if not eq:
            raise SpecError(f"option {pair!r} must have the form NAME=VALUE, e.g. lr=1e-4.")
        try:
            out[name] = int(value)
        except ValueError:
            try:
                out[name] = float(value)
            except ValueError:
                out[name] = {"true": True, "false": False}.get(value.lower(), value)
    return out


def _page(args) -> int:
    from reprolib import runner
    from reprolib.grid import Grid

    pages = Grid.load(args.grid).pages
    if args.name and args.name not in pages:
        raise SpecError(unknown("page", args.name, pages))
    for page in [pages[args.name]] if args.name else pages.values():
        print(f"page {page.name}", file=sys.stderr)
        runner.execute(page.notebook, page.output, page.parameters)
    return 0


def _pages(args) -> int:
    from reprolib.grid import Grid

    for page in Grid.load(args.grid).pages.values():
        print(f"{page.name:36} {len(page.specs):4} runs   {page.notebook.name}")
    return 0


def _methods(args) -> int:
    from reprolib.recipes import BASELINES, FAMILIES, recipes

    known = {n: r for n, r in recipes().items() if n not in BASELINES}
    for family in (*FAMILIES, ""):
        members = {n: r for n, r in known.items() if r.card.family == family}
        if members:
            print(f"{family or 'other'}:")
        for name, r in members.items():
            stages = r.build({})
            print(f"  {name:24} {r.cost_class:34} {r.card.paper}")
            print(f"  {'':24} {' > '.join(s.name for s in stages)}: {r.card.idea}")
    return 0


def _status(args) -> int:
    from reprolib.grid import Grid
    from reprolib.record import state

    grid = Grid.load(args.grid)
    for name, specs in grid.blocks.items():
        counts = {"done": 0, "diverged": 0, "missing": 0, "failed": 0}
        for s in specs:
            counts[state(s)[0]] += 1
        print(f"{name:18} {len(specs):4} runs   " + "   ".join(f"{v} {k}" for k, v in counts.items() if v))
    print("`make book` computes what is missing.")
    return 0


def _compare(args) -> int:
    from reprolib import compare

    settings, new, bad = compare.compare(args.folder)
    if not settings and not bad:
        raise ReprolibError(f"none of the {new} runs in {args.folder} is among the committed ones; there is nothing to compare.")
    for line in compare.report(settings, new, bad):
        print(line, flush=True)
    return 1 if bad or any(a.findings[0] for a in settings) else 0


def _testbed(args) -> int:
    from reprolib.models import memorise
    from reprolib.models.testbeds import testbed

    bed = testbed(args.name)
    for name, value in memorise.check(bed, args.seed).items():
        print(f"{name:28} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
