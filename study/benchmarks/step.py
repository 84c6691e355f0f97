"""A training step as shipped against the plain organisation of the same maths, on a CPU in fp32.

    python study/benchmarks/step.py [--cases small share mixed large] [--rounds N] [--threads N] [--out FILE]

*shipped* is what ``reprolib.unlearn`` does in a step: output head on labelled positions only, no attention
mask, one backward pass per side, NPO's reference sequence log-probabilities looked up in a cache.
*plain* (contestants.py) is written for it: forget and retain forward through the transformers model with
attention mask, full [B, T, V] logits, fp32 log-softmax over a shifted copy of all positions, labels -100, one
backward pass; for NPO a deep copy of the model is the live reference in every step. *plain-hf* (GradDiff
only) takes the loss that transformers itself computes from ``labels``. All clip the gradient and make one
AdamW step.

Before each round all models get the same weights; losses and gradient norms must then agree.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import common
from contestants import CASES, OBJECTIVES, ROWS, Case, chosen, contestant, model, rows
from tqdm.auto import tqdm

os.environ["REPROLIB_DEVICE"] = "cpu"
EPOCHS = 10  # over which the one-off cost of the reference cache is spread (the recipes' default)
TOLERANCE = 1e-5  # relative, for losses and gradient norms


def timed(case: Case, objective: str, rounds: int, seed: int, bar) -> dict:
    """Seconds per step of each organisation, with the check that they compute the same."""
    forget, retain = rows(case, seed), rows(case, seed + 1)
    start = model(case, seed)
    runners = {
        n: contestant(n, copy.deepcopy(start), objective, forget, retain) for n in OBJECTIVES[objective]
    }
    del start
    apart = {"loss": 0.0, "gradient_norm": 0.0}

    def same_weights(_: int) -> None:
        source = runners["plain"].lm.state_dict()
        for name, r in runners.items():
            if name != "plain":
                r.lm.load_state_dict(source)

    def agree(number: int, results: dict) -> None:
        for name, (a, b, norm) in results.items():
            x, y, z = results["plain"]
            loss = max(abs(a - x) / abs(x), abs(b - y) / abs(y))
            gradient = abs(norm - z) / z
            if not (loss < TOLERANCE and gradient < TOLERANCE):
                raise AssertionError(
                    f"{objective}, step {number + 1}: {name} computes something else than plain: (forget,"
                    f" retain, norm) {(a, b, norm)} against {(x, y, z)}; allowed: {TOLERANCE:g} relative."
                )
            apart["loss"], apart["gradient_norm"] = (
                max(apart["loss"], loss),
                max(apart["gradient_norm"], gradient),
            )

    steps = {n: lambda number, r=r: r.step(chosen(case, number)) for n, r in runners.items()}
    common.interleave(steps, 2, before=same_weights, after=agree, tick=bar.update)  # warm-up
    seconds = common.interleave(steps, rounds, before=same_weights, after=agree, tick=bar.update)
    out = {
        "seconds": {n: common.median(s) for n, s in seconds.items()},
        "ratio": {n: common.ratio(seconds[n], seconds["shipped"]) for n in seconds if n != "shipped"},
        "largest_relative_difference": {k: float(f"{v:.1e}") for k, v in apart.items()},
    }
    if objective == "npo":
        # a step uses `batch` of the cached rows, and every row once per epoch
        share = runners["shipped"].cache_s / ROWS * case.batch / EPOCHS
        out["cache_seconds_per_step"] = round(share, 5)
        out["ratio_with_cache"] = common.ratio(seconds["plain"], [s + share for s in seconds["shipped"]])
    return out


def high_water() -> int:
    """Peak resident bytes of this process.

    ``ru_maxrss`` of a child starts at its parent's size on Linux, so that /proc is asked where it exists.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def child(case_name: str, objective: str, name: str, threads: int, seed: int) -> None:
    """Run three steps of one organisation and print what they needed over the imports."""
    import torch

    torch.set_num_threads(threads)
    minute = CASES["minute"]
    contestant(name, model(minute, 0), objective, rows(minute, 0), rows(minute, 1)).step(
        chosen(minute, 0)
    )  # imports
    gc.collect()
    baseline = high_water()
    case = CASES[case_name]
    runner = contestant(name, model(case, seed), objective, rows(case, seed), rows(case, seed + 1))
    for number in range(3):
        runner.step(chosen(case, number))
    print(json.dumps({"peak": high_water() - baseline}))


def memory(case_name: str, objective: str, threads: int, seed: int, bar) -> dict:
    peak = {}
    for name in OBJECTIVES[objective]:
        command = [sys.executable, __file__, "--child", case_name, objective, name]
        command += ["--threads", str(threads), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the memory child of {name} failed:\n{done.stderr[-2000:]}")
        peak[name] = json.loads(done.stdout.strip().splitlines()[-1])["peak"]
        bar.update()
    return {
        "peak_mib": {n: round(p / 2**20, 1) for n, p in peak.items()},
        "peak_ratio": {n: round(p / max(1, peak["shipped"]), 3) for n, p in peak.items() if n != "shipped"},
    }


def main() -> None:
    a = arguments()
    if a.child:
        return child(*a.child, a.threads, a.seed)
    names = list(dict.fromkeys(a.cases + ["large"] * a.large))
    result = {
        "benchmark": "step",
        "machine": common.machine(a.threads),
        "versions": common.versions(),
        "settings": {
            "seed": a.seed,
            "rows_per_side": ROWS,
            "warm_up_rounds": 2,
            "cache_spread_over_epochs": EPOCHS,
        },
        "cases": {},
    }
    import torch

    torch.set_num_threads(a.threads)
    extra = 2 if a.no_memory else 3  # warm-up rounds, and a memory child per organisation
    total = sum(((a.rounds or CASES[c].rounds) + extra) * len(o) for c in names for o in OBJECTIVES.values())
    with tqdm(total=total, unit="step", mininterval=2) as bar:
        for name in names:
            entry = about(CASES[name], a.rounds, a.seed)
            gc.collect()
            for objective in OBJECTIVES:
                bar.set_description(f"{name}: {objective}, memory")
                space = {} if a.no_memory else memory(name, objective, a.threads, a.seed, bar)
                bar.set_description(f"{name}: {objective}, time")
                entry[objective] = timed(CASES[name], objective, entry["rounds"], a.seed, bar) | space
            result["cases"][name] = entry
            common.write(a.out, result)
    lines = [
        x for name, entry in result["cases"].items() for o in OBJECTIVES for x in shown(name, o, entry[o])
    ]
    print(
        common.table(
            ("case", "objective", "shipped s", "against", "s", "ratio [95 %]", "peak MiB", "ratio"), lines
        )
    )
    print(
        f"\nLosses and gradient norms agree within {TOLERANCE:g} relative in every step. Peak: over the"
        " imports."
    )


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cases", nargs="+", choices=CASES, default=["small", "share"])
    p.add_argument("--large", action="store_true", help="add the case with a vocabulary of 100,352")
    p.add_argument(
        "--rounds", type=int, help="timed rounds per objective (default: the case's own, 10 or 15)"
    )
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=common.RESULTS / "step.json")
    p.add_argument(
        "--no-memory", action="store_true", help="leave out the child processes that measure peak memory"
    )
    p.add_argument("--child", nargs=3, metavar=("CASE", "OBJECTIVE", "NAME"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.rounds is not None and a.rounds < 1:
        p.error(f"--rounds must be >= 1, got {a.rounds}")
    return a


def about(case: Case, given: int | None, seed: int) -> dict:
    """The shape of a case in numbers."""
    lm = model(case, seed)
    head = lm.get_output_embeddings().weight.numel()
    blocks = sum(q.numel() for q in lm.model.layers.parameters())
    forget = rows(case, seed)
    labels = sum(forget.n_labels(i) for i in range(ROWS))
    return {
        **asdict(case),
        "rounds": given or case.rounds,
        "parameters": sum(q.numel() for q in lm.parameters()),
        "head_to_blocks": round(head / blocks, 3),
        "forget_rows_tokens": {"prompt_mean": sum(forget.prompt) / ROWS, "answer_mean": labels / ROWS},
    }


def shown(name: str, objective: str, e: dict) -> Iterator[tuple[str, ...]]:
    """Lines of the printed table."""
    seconds, mib = e["seconds"], e.get("peak_mib")
    for other, r in e["ratio"].items():
        times = f"{seconds['shipped']:.3f}", other, f"{seconds[other]:.3f}", common.shown(r)
        space = ("", "")
        if mib is not None:
            space = f"{mib['shipped']:.0f} / {mib[other]:.0f}", f"{e['peak_ratio'][other]:.2f}x"
        yield (name, objective, *times, *space)
    if "ratio_with_cache" in e:
        yield name, objective, "+ cache", "plain", "", common.shown(e["ratio_with_cache"]), "", ""


if __name__ == "__main__":
    main()
