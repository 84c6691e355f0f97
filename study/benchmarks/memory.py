"""Memory of a training step at true size, counted without a GPU, beside what the planner predicts.

    python study/benchmarks/memory.py [--cases NAME ...] [--list] [--out FILE]

The cases of study/gpu/cases.py (the shapes of OLMo-1B, OLMo-7B and SmolLM2; methods in full, by LoRA, on
quantised bases) go through the loop itself, on a pretended GPU (study/gpu/pretend.py) whose large tensors
have a size and a type but no numbers. Every tensor that the loop, transformers, peft and bitsandbytes make is
counted while it lives, as ``torch.cuda.max_memory_allocated`` would; the planner (reprolib.plan) computes the
same peak from shapes alone. Cases of organisations compare the shipped step with the plain ones.

Not in it: workspaces of CUDA's kernels (the output of cuBLAS and flash attention counts, their scratch memory
does not), what the allocator holds without using it, and the CUDA context, about half a GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import common
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
ROWS = 16  # a side: one step an epoch, and the peak is there in the second
CURVED = ("so_npo",)  # at the second estimate of the curvature, ten steps later, when all state is there


def hollow_weights(model: str, folder: Path) -> Path:
    """A target as it is saved, for bases that are quantised while they are read: bf16, a file with a header
    and a hole.
    """
    from transformers import AutoModelForCausalLM

    from reprolib.testbeds.presets import PRESETS

    folder = folder / model
    if not folder.exists():
        import torch

        config, at, header = PRESETS[model].config, 0, {}
        with torch.device("meta"):
            weights = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).state_dict()
        for name, w in weights.items():
            if not (config.tie_word_embeddings and name == "lm_head.weight"):
                header[name] = {
                    "dtype": "BF16",
                    "shape": list(w.shape),
                    "data_offsets": [at, at := at + 2 * w.numel()],
                }
        written = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        folder.mkdir(parents=True)
        with open(folder / "model.safetensors", "wb") as f:
            f.write(len(written).to_bytes(8, "little") + written)
            f.truncate(8 + len(written) + at)
        config.save_pretrained(folder)
    return folder


def counted(name: str) -> dict:
    """A case as it goes through study/gpu/cost.py, without what only a real GPU can say."""
    from study.gpu import contests, cost
    from study.gpu.cases import cases

    case = cases()[name]
    cost.ROWS = 64 if case.method in CURVED else ROWS
    if case.method == "organisations":
        peaks = contests.organisations(case)["peak_bytes"]
        share = {
            o: {n: round(own["shipped"] / b, 3) for n, b in own.items() if n != "shipped"}
            for o, own in peaks.items()
        }
        return {"model": case.model, "peak_bytes": peaks, "shipped_of_it": share}
    found = cost.steps(case)
    if found["status"] != "done":
        raise RuntimeError(f"{name}: {found['status']}")
    own = {k: found[k] for k in ("peak_bytes", "predicted_peak_bytes", "trained_parameters")}
    settings = {
        "model": case.model,
        "method": case.method,
        "options": case.options,
        "precision": case.precision,
        "micro_tokens": case.micro_tokens,
        "checkpointing": case.checkpointing,
    }
    return (
        settings | own | {"predicted_of_counted": round(own["predicted_peak_bytes"] / own["peak_bytes"], 4)}
    )


def kept(path: Path, result: dict) -> dict:
    """The cases of an earlier call in the same settings and with the same versions, which this one goes on
    with.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        same = all(before[k] == result[k] for k in ("settings", "versions"))
        return before["cases"] if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main() -> None:
    os.environ.pop("REPROLIB_DEVICE", None)
    sys.path.insert(0, str(ROOT))
    from study.gpu import contests, cost, pretend, subjects
    from study.gpu.cases import cases

    names = [n for n, c in cases().items() if c.method not in ("ceilings", "importance")]
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = "of study/gpu/cases.py; --list names them; others that FILE has are kept"
    p.add_argument("--cases", nargs="+", choices=names, default=names, metavar="NAME", help=which)
    p.add_argument("--list", action="store_true", help="name the cases and stop")
    p.add_argument("--out", type=Path, default=common.RESULTS / "memory.json")
    a = p.parse_args()
    if a.list:
        return print("\n".join(names))
    pretend.install(without_numbers=True)
    contests.ROUNDS = 1
    result = {
        "benchmark": "memory",
        "machine": common.machine(1),
        "versions": common.versions(),
        "settings": {
            "tokens": cost.TOKENS,
            "labels": cost.LABELS,
            "rows_per_side": ROWS,
            "autocast": "bf16",
        },
        "cases": {},
    }
    result["cases"] = kept(a.out, result)
    lines = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(names := list(dict.fromkeys(a.cases)), unit="case") as bar,
    ):
        subjects.saved = lambda model: hollow_weights(model, Path(folder)) if needed else None
        for name in bar:
            bar.set_description(name)
            needed = cases()[name].precision in ("nf4", "int8")
            began = time.perf_counter()
            own = result["cases"][name] = counted(name)
            tqdm.write(f"{name}: {time.perf_counter() - began:.0f} s")
            common.write(a.out, result)
            if "predicted_peak_bytes" in own:
                sizes = (f"{own[k] / GIB:.2f}" for k in ("peak_bytes", "predicted_peak_bytes"))
                lines.append((name, *sizes, f"{own['predicted_of_counted']:.3f}"))
    print(common.table(("case", "counted GiB", "predicted GiB", "predicted / counted"), lines))
    for name in names:
        for objective, shares in result["cases"][name].get("shipped_of_it", {}).items():
            print(
                f"{name}, {objective}: shipped holds "
                + ", ".join(f"{s:.0%} of {n}" for n, s in shares.items())
            )


if __name__ == "__main__":
    main()
