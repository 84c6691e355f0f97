"""The errors of the package: each says what was wrong, what was got, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReprolibError(ValueError):
    """Base of every error that a user of this package can cause and mend."""


class SpecError(ReprolibError):
    """A run was described in a way that cannot be carried out."""


class CorpusError(ReprolibError):
    """A data file or a corpus breaks the form that the study relies on."""


class RecordError(ReprolibError):
    """A record, a checkpoint or the results folder cannot be used."""


class TestbedError(ReprolibError):
    """A target or twin could not be made, or does not do what it must."""

    __test__ = False  # the name starts with "Test"; pytest must not collect it


def unknown(what: str, got: str, allowed: Iterable[str]) -> str:
    """Message for a name that is not in a registry; offers the nearest known one.

    >>> unknown("method", "npp", ["npo", "grad_diff"])
    "unknown method 'npp'; did you mean 'npo'? Known: grad_diff, npo."
    """
    names = sorted(str(a) for a in allowed)
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {got!r}{hint} Known: {', '.join(names)}."
