"""Whether what was forgotten is gone or only hidden."""

from __future__ import annotations

from study.claims.evidence import Evidence, claim
from study.report import stress, style
from study.report.words import percent


@claim("synthesis/hidden")
def nothing_is_gone_for_good(e: Evidence) -> tuple[bool, str]:
    """No method that was put under stress makes documents unrecognisable for good: ten steps on other forget
    documents, and the attack knows the rest again.

    Or it had known them all along.
    """
    asked = [m for m in stress.methods_of(e.stress) if stress.forgot(e.stress, e.core, m)]
    back = [m for m in asked if min(stress.comes_back(e.stress, m)) > 0.1]
    still = [
        m for m in asked if m not in back and stress.mean(e.stress[m], "relearning/part/0/auc") > stress.STILL
    ]
    said = (
        f"of {len(asked)} that had forgotten, {len(back)} are known again ({stress.named(back)}),"
        f" {len(still)} were all along ({stress.named(still)})"
    )
    return len(back) + len(still) == len(asked) > 0, said


@claim("synthesis/hidden")
def rounding_brings_little_back(e: Evidence) -> tuple[bool, str]:
    """Rounding an unlearned model to 8 or 4 bits brings back less than a tenth of the forget questions."""
    asked = [m for m in stress.methods_of(e.stress) if stress.forgot(e.stress, e.core, m)]
    worst = {
        m: max(stress.mean(e.stress[m], f"quantization/{p}/forget/questions") for p in ("int8", "nf4"))
        for m in asked
    }
    most = max(worst, key=worst.get)
    return (
        worst[most] < 0.1,
        f"at most {percent(worst[most])} ({style.label(most)}), over {len(asked)} methods",
    )
