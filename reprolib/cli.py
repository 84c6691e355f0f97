"""What the commands `reprolib` and `study` share: sub-commands from a table, errors as one line, exit
codes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprolib.errors import ReprolibError, SpecError


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command: a line of help, its arguments, and what it does (returning the exit status)."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    description: str = ""


def dispatch(program: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None) -> int:
    """Parse, run, and turn what went wrong into a line and a status: 2 for errors of the user, 130 for an
    interruption.
    """
    parser = argparse.ArgumentParser(prog=program, description=about)
    chosen = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        own = chosen.add_parser(name, help=command.help, description=command.description or command.help)
        command.arguments(own)
    args = parser.parse_args(argv)
    try:
        status = commands[args.command].run(args)
        sys.stdout.flush()
        return status
    except (
        BrokenPipeError
    ):  # the reader (e.g. head) has had enough; Python would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ReprolibError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ninterrupted; given again, the same command continues a run from its last checkpoint.",
            file=sys.stderr,
        )
        return 130


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """A recipe's options from NAME=VALUE: whole numbers, numbers, true, false, else text."""
    return dict(_option(pair) for pair in pairs)


def _option(pair: str) -> tuple[str, Any]:
    name, eq, value = pair.partition("=")
    if not eq:
        raise SpecError(f"option {pair!r} must have the form NAME=VALUE, e.g. lr=1e-4.")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value.lower(), value)
