"""Models that costs are measured on: memorised ones of the cache, or random weights where it holds none."""

from __future__ import annotations

import os
from pathlib import Path

from study.gpu.cases import Case


def load(case: Case):
    import torch
    from transformers import AutoModelForCausalLM

    from reprolib.errors import SpecError
    from reprolib.models import device
    from reprolib.testbeds.presets import PRESETS

    folder = saved(case.model)
    if folder is not None:
        return device.load_lm(str(folder), case.precision).to(device.accelerator().device)
    if case.precision in ("nf4", "int8"):
        raise SpecError(
            f"{case.precision} is made from saved weights, and the cache has no target of {case.model};"
            " make it first."
        )
    with device.place():
        torch.manual_seed(0)
        dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
        return AutoModelForCausalLM.from_config(PRESETS[case.model].config, dtype=dtype).eval()


def saved(model: str) -> Path | None:
    """Where the cache has a target of this preset."""
    from reprolib.testbeds import memorise
    from reprolib.testbeds.beds import testbed
    from reprolib.testbeds.presets import PRESETS

    for corpus in PRESETS[model].documents:
        if has_data(model, corpus):
            folder = memorise.folder_of(testbed(f"{model}/{corpus}"), "target", 0)
            if (folder / "config.json").exists():
                return folder
    return None


def has_data(model: str, corpus: str) -> bool:
    from reprolib.testbeds.beds import PINNED

    return corpus == "synthetic" or (model, corpus) in PINNED or bool(os.environ.get("REPROLIB_DATA"))
