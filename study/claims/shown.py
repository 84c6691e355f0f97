"""What pages show of the claims: all of them with their numbers, or those named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from study.claims.evidence import CLAIMS, ClaimError, Evidence, Finding
from study.report.words import say


def examine(evidence: Evidence, names: Iterable[str] | None = None) -> dict[str, Finding]:
    """Every claim's finding; raises if the records no longer support one of them."""
    found = {n: CLAIMS[n].check(evidence) for n in names or CLAIMS}
    broken = [f"{n} ({CLAIMS[n].text} Now: {f.numbers})" for n, f in found.items() if not f.holds]
    if broken:
        raise ClaimError(
            f"{len(broken)} of {len(found)} claims do not hold any more: {'; '.join(broken)}. Correct the"
            " claim in its module of study/claims and every sentence that rests on it, or find out what"
            " happened to the records."
        )
    return found


def _title(of: str) -> str:
    return f"{{doc}}`/results/notebooks/{of}`"


def listing(evidence: Evidence) -> Any:
    """Every claim with its numbers, the page of its evidence and its name, in the order of the argument."""
    found = examine(evidence)
    lines = [
        f"{n}. **{CLAIMS[k].text}** {f.numbers[0].upper()}{f.numbers[1:]}. *Evidence:*"
        f" {_title(CLAIMS[k].page)}. *Check:* `{k}`."
        for n, (k, f) in enumerate(found.items(), 1)
    ]
    return say("\n".join(lines))


def abstract(evidence: Evidence, names: Iterable[str]) -> Any:
    """The claims named, each checked, with the page of its evidence: for the first page."""
    return say("\n".join(f"- {CLAIMS[k].text} → {_title(CLAIMS[k].page)}" for k in examine(evidence, names)))
