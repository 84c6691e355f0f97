"""Does rounding the weights bring forgotten facts back? The core evaluation again, with the weights in 8 and
in 4 bits.

An unlearned model may differ from the one it came from by less than the rounding of a 4-bit grid (Zhang et
al. 2025, "Catastrophic failure of LLM unlearning via quantization"). The weights are written, and read again
as bitsandbytes holds them (LLM.int8, NF4).
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.evaluate.summary import evaluate
from reprolib.models import device
from reprolib.models.policy import quantised
from reprolib.probes.base import Probe

PRECISIONS: tuple[device.Precision, ...] = ("int8", "nf4")

SHOWN = (
    "forget/questions",
    "retain/questions",
    "forget/em",
    "retain/em",
    "forget/es",
    "forget/nll",
    "retain/nll",
    "attack/auc",
    "world/accuracy",
    "retain/kl",
    "lume/task_aggregate",
    "lume/mia",
    "lume/final",
)


def rounded(lm: nn.Module, precision: device.Precision) -> nn.Module:
    """A copy of ``lm`` with its linear layers (not the output head) in 8 or 4 bits; a wrapper of several
    models has each in them.

    Raises SpecError if bitsandbytes is missing.
    """
    from transformers import PreTrainedModel

    if not isinstance(
        lm, PreTrainedModel
    ):  # routed or contrasted models: the wrapper, with other models inside
        if not any(isinstance(m, PreTrainedModel) for m in lm.children()):
            return lm
        memo = {id(m): rounded(m, precision) for m in lm.children() if isinstance(m, PreTrainedModel)}
        return copy.deepcopy(lm, memo)
    with tempfile.TemporaryDirectory() as folder:
        lm.save_pretrained(Path(folder))
        again = device.load_lm(folder, precision)
    if not getattr(lm.config, "tie_word_embeddings", False):  # a head of a kind that its config does not name
        again.set_output_embeddings(copy.deepcopy(lm.get_output_embeddings()))
    to = next(lm.parameters()).device
    out: nn.Module = again
    return out if to.type == "cpu" or precision != "int8" else out.to(to)


@torch.no_grad()
def ask(subject: Subject) -> Evaluation:
    metrics: dict[str, float] = {}
    rows: dict[str, list] = {}
    if quantised(subject.lm):
        return Evaluation(metrics, rows)  # it is rounded already
    for precision in PRECISIONS:
        title = f"{subject.title}, {precision}"
        found = evaluate(rounded(subject.lm, precision), subject.exam, progress=subject.progress, title=title)
        metrics |= {f"quantization/{precision}/{k}": found.metrics[k] for k in SHOWN if k in found.metrics}
        rows[f"score_{precision}"] = found.rows["score"]
    return Evaluation(metrics, rows)


PROBE = Probe(
    name="quantization",
    title="After rounding to 8 and 4 bits",
    suite="stress",
    cost="the core evaluation twice",
    ask=ask,
)
