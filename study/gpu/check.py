"""What a machine has and lacks, before anything is spent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LEAST = {
    "torch": "2.11",
    "transformers": "5.17",
    "accelerate": "1.10",
    "peft": "0.18",
    "safetensors": "0.5",
    "tokenizers": "0.22",
    "numpy": "2",
    "scipy": "1.13",
    "filelock": "3.16",
    "tqdm": "4.66",
    "pyyaml": "6",
    "rouge-score": "0.1.2",
}


def packages() -> tuple[bool, str]:
    from packaging.version import Version

    said, good = [], True
    for name, least in LEAST.items():
        try:
            own = version(name)
        except PackageNotFoundError:
            own = "missing"
        fits = own != "missing" and Version(Version(own).base_version) >= Version(least)
        good &= fits
        said.append(f"{name} {own}" + ("" if fits else f" (needed: {least})"))
    if good:
        from reprolib.metrics import lume

        lume.rouge_l_recall("one two", "one")  # what rouge-score needs in turn is imported here
    return good, ", ".join(said)


def gpu() -> tuple[bool, str]:
    import torch

    from reprolib.models import device
    from study.gpu.clock import gpu

    if not device.on_gpu():
        return False, f"no CUDA device (torch {torch.__version__})"
    about = gpu()
    free = torch.cuda.mem_get_info()[0]
    said = f"{about['name']}, driver {about['driver']}, CUDA {about['cuda']}, "
    said += f"{free / 2**30:.0f} of {about['bytes'] / 2**30:.0f} GiB free"
    said += "" if device.has_bf16() else ", no bf16 of its own"
    return device.has_bf16(), said + (
        "" if about["peak_tflops"] else "; the planner does not know its peak, so no MFU"
    )


def quantised() -> tuple[bool, str]:
    """Load, answer and train an adapter on a tiny base in 4 and 8 bits."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, OlmoConfig

    from reprolib.adapters.base import LoRA
    from reprolib.models import device

    own = version("bitsandbytes")
    config = OlmoConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2
    )
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        for precision in ("nf4", "int8"):
            lm = LoRA(rank=4).attach(device.load_lm(folder, precision), 0).train()
            ids = torch.arange(32, device=device.accelerator().device)[None]
            with device.autocast():
                lm(input_ids=ids, labels=ids).loss.backward()
            if not any(p.grad is not None and p.grad.any() for p in lm.parameters()):
                return False, f"bitsandbytes {own}: no gradient reaches an adapter on {precision}"
    return True, f"bitsandbytes {own}: adapters train on nf4 and int8"


def data() -> tuple[bool, str]:
    from study.gpu.carry import DATA

    given = os.environ.get("REPROLIB_DATA")
    if not given:
        return False, "REPROLIB_DATA is not set, and nothing was carried"
    found = {folder: (Path(given) / folder).is_dir() for folder in DATA}
    said = ", ".join(f"{DATA[f]} {'found' if there else 'missing'}" for f, there in found.items())
    return all(found.values()), f"{said} in {given}"


def smollm2() -> tuple[bool, str]:
    folder = Path(os.environ["REPROLIB_CACHE"]) / "smollm2"
    there = os.environ.get("REPROLIB_SMOLLM2") or next(folder.glob("*.gguf"), None)
    try:
        reader = version("gguf")
    except PackageNotFoundError:
        return False, "package gguf is missing (study/gpu/carried/base.tar.xz brings it)"
    pieces = sorted(p.name.rpartition(".")[2] for p in (folder / "pieces").glob("*of*"))
    if there:
        return Path(there).is_file(), f"{there}, read by gguf {reader}"
    return False, f"no weights; pieces carried so far: {', '.join(pieces) or 'none'}"


def published(field: str = "pretrained") -> tuple[bool, str]:
    from reprolib.testbeds.memorise import WEIGHTS, snapshot
    from reprolib.testbeds.presets import PRESETS

    sources = dict.fromkeys(
        s for n, p in PRESETS.items() if n.startswith("olmo") and (s := getattr(p, field))
    )
    found = {s: snapshot(s) for s in sources}
    said = ", ".join(
        f"{s.rpartition('/')[2]} {'found' if there else 'missing'}" for s, there in found.items()
    )
    return all(found.values()), f"{said} ({WEIGHTS} is {os.environ.get(WEIGHTS, 'not set')})"


def targets() -> tuple[bool, str]:
    return published("memorised")


def room() -> tuple[bool, str]:
    cache, results = Path(os.environ["REPROLIB_CACHE"]), Path(os.environ["REPROLIB_RESULTS"])
    for folder in (cache, results):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    free = shutil.disk_usage(cache).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    said = (
        f"{free:.0f} GiB of disk, {memory:.0f} GiB of memory, {os.cpu_count()} cores; models take 45 GiB"
        " of disk in all"
    )
    return (
        free > 45,
        said,
    )  # in bf16 two models of 7 billion weights take 28 GB, and three of a billion 8; six of SmolLM2 3.2


def commit() -> tuple[bool, str]:
    from reprolib.provenance import git_state

    own, dirty = git_state()
    return bool(own), f"{own or 'unknown: records will not name one'}" + (" with changes" if dirty else "")


# what is looked at -> (how, what cannot be done without it)
CHECKS: dict[str, tuple[Callable[[], tuple[bool, str]], str]] = {
    "packages": (packages, "anything"),
    "GPU": (gpu, "anything"),
    "4 and 8 bits": (quantised, "runs in nf4 and int8"),
    "data": (
        data,
        "LUME: all steps; SemEval-2025 and MMLU: those that are named after it or are pretrained",
    ),
    "SmolLM2": (smollm2, "steps smollm2, smollm2-semeval and smollm2-semeval-rest"),
    "OLMo": (published, "steps olmo-1b-0724, olmo-7b-0724, olmo-1b-semeval and olmo-7b-semeval"),
    "their targets": (targets, "steps olmo-1b-semeval and olmo-7b-semeval"),
    "room": (room, "keeping the models of 7 billion weights"),
    "commit": (commit, "saying what made the records"),
}


def check() -> list[str]:
    """Print a line for each; returns those that failed."""
    failed = []
    for name, (look, without) in CHECKS.items():
        try:
            good, said = look()
        except Exception as error:  # whatever a half-installed package raises is what is to be said of it
            good, said = False, f"{type(error).__name__}: {error}"
        failed += [] if good else [name]
        print(
            f"{'ok  ' if good else 'LACK'} {name:14}{said}" + ("" if good else f"  [needed for {without}]"),
            flush=True,
        )
    return failed
