"""What makes two descriptions the same: canonical JSON and its hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from reprolib.errors import SpecError


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces; dataclasses carry their type's name.

    A field added after records were made says ``metadata={"later": True}`` and is left out while it has its
    default, so that old fingerprints stay valid. Never change the default of such a field.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def plain(value: Any) -> Any:
    """JSON values of a spec, a stage or any dataclass of plain fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: (f, getattr(value, f.name)) for f in dataclasses.fields(value)}
        kept = {k: v for k, (f, v) in fields.items() if not (f.metadata.get("later") and v == f.default)}
        return {"is": type(value).__name__, **{k: plain(v) for k, v in kept.items()}}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 5 and 5.0 are the same setting
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"a spec holds finite numbers only, got {value!r}.")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SpecError(f"a spec holds plain values only, got {type(value).__name__}: {value!r}.")


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 12 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]
