"""Whether a target has memorised its rows and its twin does not know the forget rows."""

from __future__ import annotations

import torch

from reprolib.errors import TestbedError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.summary import measure
from reprolib.models import device
from reprolib.testbeds.beds import Testbed
from reprolib.testbeds.memorise import load

REQUIREMENTS = {  # what makes target and twin worth comparing with: (lowest, highest) allowed
    "target forget/questions": (0.99, 1.0),
    "target retain/questions": (0.99, 1.0),
    "target attack/auc": (0.98, 1.0),
    "twin forget/questions": (0.0, 0.02),
    "twin retain/questions": (0.99, 1.0),
    "twin attack/auc": (0.4, 0.6),
}


def check(testbed: Testbed, seed: int, *, progress: bool = True) -> dict[str, float]:
    """Measure target and twin against :data:`REQUIREMENTS`; returns the values or raises
    :class:`TestbedError`.
    """
    values: dict[str, float] = {}
    for which in ("target", "twin"):
        lm, tokenizer = load(testbed, which, seed, progress=progress)
        with device.one_thread(not torch.cuda.is_available()):
            measured = measure(lm, Examination.of(testbed.corpus(), tokenizer))
        values |= {f"{which} {k}": v for k, v in measured.items()}
    shown = {k: round(values[k], 4) for k in REQUIREMENTS}
    wrong = {k: v for k, v in shown.items() if not REQUIREMENTS[k][0] <= v <= REQUIREMENTS[k][1]}
    if wrong:
        raise TestbedError(
            f"testbed {testbed.name}, seed {seed} is not fit for comparisons: "
            + "; ".join(f"{k} is {v}, allowed {REQUIREMENTS[k]}" for k, v in wrong.items())
            + ". Raise the preset's epochs or lr, or give it more documents."
        )
    return shown
