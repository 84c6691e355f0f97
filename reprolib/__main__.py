"""The command line of the library: ``reprolib`` or ``python -m reprolib``. That of the grid and the book is
``study``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from reprolib.cli import Command, dispatch, options

# Each command imports what it needs when it is called: `reprolib --help` does not wait for torch.


def _run_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("method", help="see `reprolib methods`")
    p.add_argument("--testbed", default="tiny/synthetic")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--forget-documents",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the forget documents given",
    )
    p.add_argument(
        "--forget-rows",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of each document's rows given",
    )
    p.add_argument(
        "--requests",
        type=int,
        default=1,
        metavar="N",
        help="portions of the forget documents, one after another",
    )
    p.add_argument("--precision", default="fp32", help="of the base: fp32, bf16, nf4, int8")
    p.add_argument("--suite", default="core", help="what is measured: core, wide or stress")
    p.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a recipe's option, e.g. lr=1e-4",
    )


def _run(args: argparse.Namespace) -> int:
    from reprolib import experiment
    from reprolib.models import device
    from reprolib.record import path_of
    from reprolib.spec import Spec

    spec = Spec(
        testbed=args.testbed,
        method=args.method,
        seed=args.seed,
        precision=args.precision,
        forget_documents=args.forget_documents,
        forget_rows=args.forget_rows,
        options=options(args.option),
        suite=args.suite,
        requests=args.requests,
    )
    record = experiment.run(spec)
    if device.first():
        print(json.dumps({"record": str(path_of(spec)), "status": record.status, **record.metrics}, indent=1))
    return 0


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        required=True,
        metavar="DIR_OR_HUB_ID",
        help="the checkpoint: a folder, or owner/name[@revision]",
    )
    p.add_argument("--data", required=True, metavar="DIR_OR_HUB_ID", help="forget and retain rows")
    p.add_argument("--format", default="auto", help="lume, semeval, tofu or auto")
    p.add_argument(
        "--split",
        help="train (default) or validation of SemEval; forget01, forget05, forget10 (default) of TOFU",
    )
    p.add_argument("--target", metavar="DIR", help="the model before unlearning; scored too")
    p.add_argument(
        "--twin",
        metavar="DIR",
        help="the model retrained without the forget rows; scored too, for the gap closed",
    )
    p.add_argument("--adapter", metavar="DIR", help="a peft adapter on the model")
    p.add_argument(
        "--suites", help="core,wide,stress,data (default: core,wide, and data with --mmlu or --harness)"
    )
    p.add_argument("--only", metavar="PARTS", help="single parts by name instead, e.g. core,mmlu")
    p.add_argument("--mmlu", metavar="DIR", help="MMLU: a folder with dev/ and test/, or a hub id")
    p.add_argument(
        "--mmlu-per-subject",
        type=int,
        metavar="N",
        help="so many questions of each subject (default: all)",
    )
    p.add_argument("--harness", metavar="TASKS", help="tasks of lm-evaluation-harness, e.g. wmdp_bio")
    p.add_argument("--precision", default="fp32", help="of all models: fp32, bf16, nf4, int8")
    p.add_argument(
        "--documents", type=int, metavar="N", help="so many documents of each task and side (default: all)"
    )
    p.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of a generated answer")
    p.add_argument(
        "--batch-tokens",
        type=int,
        default=8192,
        metavar="N",
        help="in a batch; lower it if memory runs out",
    )
    p.add_argument("--seed", type=int, default=0, help="of every choice and sample")
    p.add_argument("--output", metavar="DIR", help="default: evaluations/<name of the model>")
    p.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the results of another model or other data in the folder",
    )


def _evaluate(args: argparse.Namespace) -> int:
    from reprolib.assess import run

    return run.main(args)


def _plan_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model", required=True, help="e.g. olmo-7b, smollm2-135m, a preset, or a folder with config.json"
    )
    p.add_argument("--recipe", required=True, help="see `reprolib methods`")
    p.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a recipe's option, e.g. lr=1e-4",
    )
    p.add_argument(
        "--trainable", help="short for -o trainable=...: full, last-2, mlp-0-5, lora-16 or lora-64-16"
    )
    p.add_argument("--batch-size", type=int, help="short for -o batch_size=...: rows a side and step")
    p.add_argument("--gpu-memory", type=float, default=24, metavar="GIB", help="of one GPU (default: 24)")
    p.add_argument("--gpus", type=int, default=1, help="that share the model (FSDP)")
    p.add_argument("--precision", default="fp32", help="of the base: fp32, bf16, nf4, int8")
    p.add_argument("--tokens", type=int, default=256, help="of a row (default: 256)")
    p.add_argument("--labels", type=int, help="predicted tokens of a row (default: a fifth)")
    p.add_argument("--micro-tokens", type=int, help="padded tokens of a forward pass (default: the recipe's)")
    p.add_argument("--checkpointing", action="store_true", help="compute blocks again in the backward pass")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _plan(args: argparse.Namespace) -> int:
    from reprolib.plan import plan

    found = plan(
        args.model,
        args.recipe,
        options(args.option),
        trainable=args.trainable,
        batch_size=args.batch_size,
        labels=args.labels,
        gpu_memory_gib=args.gpu_memory,
        gpus=args.gpus,
        precision=args.precision,
        tokens=args.tokens,
        micro_tokens=args.micro_tokens,
        checkpointing=args.checkpointing,
    )
    print(json.dumps(found.to_dict(), indent=1) if args.json else found.report())
    return 0


def _methods(args: argparse.Namespace) -> int:
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


def _testbed_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", nargs="?", default="tiny/synthetic")
    p.add_argument("--seed", type=int, default=0)


def _testbed(args: argparse.Namespace) -> int:
    from reprolib.testbeds import checks, testbed

    for name, value in checks.check(testbed(args.name), args.seed).items():
        print(f"{name:28} {value}")
    return 0


COMMANDS = {
    "run": Command("compute one run (or find its record)", _run_arguments, _run),
    "evaluate": Command(
        "score any checkpoint on LUME, SemEval or TOFU data",
        _evaluate_arguments,
        _evaluate,
        "Score a transformers checkpoint. What is finished is kept: the same command continues a killed"
        " evaluation.",
    ),
    "methods": Command("list all methods with paper and cost", lambda p: None, _methods),
    "plan": Command(
        "predict memory and time of a run",
        _plan_arguments,
        _plan,
        "Predict memory and time from a model's configuration: no GPU, no weights, nothing downloaded.",
    ),
    "testbed": Command("train and check a target and its twin", _testbed_arguments, _testbed),
}
MOVED = (
    "search",
    "page",
    "pages",
    "status",
    "compare",
    "smoke",
    "pdf",
)  # to `study`; as here until version 0.2
OF_THE_GRID = ("--all", "--grid", "--fingerprint")  # of `run`, likewise


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    moved = words[:1] == ["run"] and any(w.partition("=")[0] in OF_THE_GRID for w in words)
    if moved or (words and words[0] in MOVED):
        return _study(words)
    return dispatch("reprolib", "Unlearning methods and metrics for language models.", COMMANDS, words)


def _study(words: Sequence[str]) -> int:
    """Hand a command of the grid on to the installed `study`."""
    found = [
        e for e in entry_points(group="console_scripts") if e.name == "study" and e.value.startswith("study.")
    ]
    if not found:
        print(
            f"error: `reprolib {words[0]}` is now `study {words[0]}`, which is not installed here.",
            file=sys.stderr,
        )
        return 2
    print(
        f"note: `reprolib {words[0]}` is now `study {words[0]}`; the old name goes with version 0.2.",
        file=sys.stderr,
    )
    return found[0].load()(words)


if __name__ == "__main__":
    raise SystemExit(main())
