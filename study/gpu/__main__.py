"""``python -m study.gpu``: see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from study.gpu.places import DEFAULTS, PRETEND, REHEARSAL
from study.gpu.prepare import prepare


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m study.gpu",
        description="Records at true size on one GPU; study/gpu/README.md says how.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser(
        "fetch", help="put together what a machine without a network needs, in study/gpu/carried/"
    )
    p.add_argument("--cuda", default="130", help="of that machine's torch, without the point (default: 130)")
    p.add_argument("--no-weights", action="store_true", help="without SmolLM2")
    commands.add_parser("check", help="what this machine has and lacks")
    p = commands.add_parser("list", help="steps, what is done of them, expected time and memory")
    p = commands.add_parser(
        "run", help="do steps, one after another, until they are done or the time is over"
    )
    p.add_argument("steps", nargs="+", metavar="STEP", help="as `python -m study.gpu list` names them")
    p.add_argument("--minutes", type=minutes, default=9.0, help="that this call may take (default: 9)")
    p.add_argument(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="processes on the GPU (default: as `list` says; 0: this one)",
    )
    p.add_argument("--jobs", type=at_least(1), metavar="N", help="at most so many jobs of each phase")
    p.add_argument("--pack", type=Path, metavar="FILE", help="keep all results in this archive too (.tar.gz)")
    p = commands.add_parser("unpack", help="results of an archive into results/gpu")
    p.add_argument("archive", type=Path)
    for command in commands.choices.values():
        command.add_argument(
            "--rehearse",
            nargs="?",
            const=Path(DEFAULTS["REPROLIB_CACHE"]) / "rehearsal",
            type=Path,
            metavar="DIR",
            help="at toy size, in this folder (default: .cache/rehearsal)",
        )
        command.add_argument(
            "--pretend",
            action="store_true",
            help="with --rehearse: as if the CPU were a GPU (study/gpu/pretend.py)",
        )
    args = parser.parse_args(argv)
    if args.pretend and not args.rehearse:
        parser.error(
            "--pretend goes with --rehearse: a pretended GPU computes on the CPU, which is too slow for"
            " true size."
        )
    args.began = time.monotonic()  # imports count too
    if args.rehearse:
        os.environ[REHEARSAL] = str(args.rehearse.absolute()) + ("-pretended" if args.pretend else "")
    if args.pretend:
        os.environ[PRETEND] = "1"
    from reprolib.errors import ReprolibError

    try:
        prepare()
        return globals()[f"_{args.command}"](args)
    except ReprolibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def minutes(given: str) -> float:
    if not 0 < float(given) < float("inf"):
        raise argparse.ArgumentTypeError(f"{given} is not a time; allowed: a number above 0.")
    return float(given)


def at_least(least: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        if int(given) < least:
            raise argparse.ArgumentTypeError(f"{given} is too small; allowed: a whole number >= {least}.")
        return int(given)

    return number


def _fetch(args) -> int:
    from study.gpu import carry

    carry.fetch(args.cuda, not args.no_weights)
    return 0


def _check(args) -> int:
    from study.gpu.check import check

    return 1 if check() else 0


def _steps():
    from study.gpu import steps as study

    steps = study.steps()
    return study.thinned(steps) if os.environ.get(REHEARSAL) else steps


def _list(args) -> int:
    from study.gpu.listing import listing

    print(listing(_steps()))
    return 0


def _run(args) -> int:
    from dataclasses import replace

    from reprolib.errors import SpecError, unknown
    from study.gpu.run import Runner
    from study.gpu.steps import Step

    steps = _steps()
    for name in args.steps:
        if name not in steps:
            raise SpecError(unknown("step", name, steps))
    runner = Runner(args.minutes, args.workers, args.pack, args.began)
    for name in args.steps:
        step = Step(
            steps[name].about, tuple(replace(p, jobs=p.jobs[: args.jobs]) for p in steps[name].phases)
        )
        if runner.time_left > 0:
            runner.step(name, step)
        else:
            runner.left += [j.name for j in step.jobs if not j.done()]
    runner.report()
    return 1 if runner.failed else 0


def _unpack(args) -> int:
    from study.gpu import carry

    count = carry.unpack(args.archive, Path(os.environ["REPROLIB_RESULTS"]))
    print(f"{count} files into {os.environ['REPROLIB_RESULTS']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
