"""FILA's importance pass against VILA's on the same rows, on a CPU in fp32.

    python study/benchmarks/importance.py [--cases tiny wide] [--rounds N] [--rows N] [--rank N] [--threads N]
    [--out FILE]

*fila* takes gradients of every weight of every linear layer but the head, and squares them. *vila* takes them
of random LoRA factors beside frozen weights, centres them, and multiplies them to weight shape; one draw, as
published.
*vila, 2 draws* is what the library does by default. *vila, all weights* is centred like VILA but over all
weights, so that the two changes can be told apart. Each goes from a model and rows to the importance of every
row of every weight, over the same rows once; what follows (SVD, training) is the same for all.

VILA's abstract says "up to 100x higher parameter efficiency and 40x faster training speed compared to FILA".
Parameters are a matter of shapes, and are also given for published models that are not run here. The speed is
the question of this benchmark. Nothing is compared by value: the contestants measure different things.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import common
import step
from step import Case
from tqdm.auto import tqdm

CASES = {
    "tiny": Case("the shape of tiny/synthetic", 128, 4, 4, 2_048, True, 4, rounds=15),
    "wide": Case("width 1024, 67 M parameters in linear layers", 1_024, 4, 16, 2_048, True, 4, rounds=5),
    "minute": replace(step.CASES["minute"], hidden=32),
}

ROWS = {"tiny": 16, "wide": 8, "minute": 6}  # per side

CONTESTANTS = {
    "fila": {},
    "vila, all weights": {"centred": True},
    "vila": {"space": "lora", "centred": True, "draws": 1},
    "vila, 2 draws": {"space": "lora", "centred": True, "draws": 2},
}

# (hidden, width of the MLP, width of keys and values, layers) of published models; q, k, v, o, gate, up, down
# each
SHAPES = {
    "OLMo-1B": (2_048, 8_192, 2_048, 16),
    "OLMo-7B": (4_096, 11_008, 4_096, 32),
    "Llama-2-7B": (4_096, 11_008, 4_096, 32),
}

CLAIM = {"parameters": 100, "speed": 40}


def data(case: Case, rows: int, seed: int):
    from reprolib.adapters.base import Data
    from reprolib.corpus.batching import Tokens

    def cut(t: Tokens) -> Tokens:
        return Tokens(t.ids[:rows], t.prompt[:rows], t.labels[:rows])

    return Data(cut(step.rows(case, seed)), cut(step.rows(case, seed + 1)))


def trainable(name: str, case: Case, rank: int):
    from reprolib.adapters.fisher_lora import FisherLoRA

    return FisherLoRA(rank=rank, alpha=2.0 * rank, batch_size=case.batch, **CONTESTANTS[name])


def measure(name: str, case: Case, rank: int, lm, rows, seed: int) -> dict[str, float]:
    """Everything from a model and rows to row importance; returns the costs that the library notes."""
    notes: dict[str, float] = {}
    trainable(name, case, rank).row_importance(lm, seed, rows, notes)
    return notes


def timed(case: Case, rounds: int, n_rows: int, rank: int, seed: int, bar) -> dict:
    lm, rows = step.model(case, seed).eval(), data(case, n_rows, seed)
    runs = {n: lambda number, n=n: measure(n, case, rank, lm, rows, seed + number) for n in CONTESTANTS}
    noted: dict[str, dict[str, float]] = {}
    common.interleave(runs, 1, after=lambda _, results: noted.update(results), tick=bar.update)  # warm-up
    seconds = common.interleave(runs, rounds, tick=bar.update)
    parameters = {n: int(v["importance_parameters"]) for n, v in noted.items()}
    return {
        "seconds": {n: common.median(s) for n, s in seconds.items()},
        "ratio": {n: common.ratio(seconds["fila"], seconds[n]) for n in seconds if n != "fila"},
        "parameters_with_gradients": parameters,
        "parameters_ratio": {
            n: round(parameters["fila"] / v, 2) for n, v in parameters.items() if n != "fila"
        },
        "values_mib": {n: round(v["importance_values_bytes"] / 2**20, 2) for n, v in noted.items()},
        "nll_during_pass": {n: round(v["importance_nll_forget"], 4) for n, v in noted.items()},
    }


def child(case_name: str, name: str, n_rows: int, rank: int, threads: int, seed: int) -> None:
    """One pass of one contestant; prints its peak memory over a process that holds the model and the rows."""
    import torch

    torch.set_num_threads(threads)
    small = CASES["minute"]
    measure(name, small, 2, step.model(small, 0).eval(), data(small, 6, 0), 0)  # imports
    case = CASES[case_name]
    lm, rows = step.model(case, seed).eval(), data(case, n_rows, seed)
    gc.collect()
    weights = sum(p.numel() * p.element_size() for p in lm.parameters())
    baseline = step.high_water()
    measure(name, case, rank, lm, rows, seed)
    print(json.dumps({"peak": step.high_water() - baseline, "weights": weights}))


def memory(case_name: str, n_rows: int, rank: int, threads: int, seed: int, bar) -> dict:
    peak, weights = {}, 0
    for name in CONTESTANTS:
        command = [
            sys.executable,
            __file__,
            "--child",
            case_name,
            name,
            "--rows",
            str(n_rows),
            "--rank",
            str(rank),
        ]
        done = subprocess.run(
            [*command, "--threads", str(threads), "--seed", str(seed)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"the memory child of {name} failed:\n{done.stderr[-2000:]}")
        read = json.loads(done.stdout.strip().splitlines()[-1])
        peak[name], weights = read["peak"], read["weights"]
        bar.update()
    return {
        "peak_over_model_mib": {n: round(p / 2**20, 1) for n, p in peak.items()},
        "peak_ratio": {n: round(peak["fila"] / max(1, p), 2) for n, p in peak.items() if n != "fila"},
        "peak_ratio_with_weights": {
            n: round((peak["fila"] + weights) / (p + weights), 2) for n, p in peak.items() if n != "fila"
        },
    }


def counts(hidden: int, mlp: int, kv: int, layers: int, rank: int) -> tuple[int, int]:
    """Weights of all linear layers but the head, and of their LoRA factors of a rank."""
    shapes = [(hidden, hidden)] * 2 + [(kv, hidden)] * 2 + [(mlp, hidden)] * 3
    return layers * sum(a * b for a, b in shapes), layers * sum(rank * (a + b) for a, b in shapes)


def shapes(ranks: Sequence[int]) -> dict:
    out = {}
    for name, shape in SHAPES.items():
        for rank in ranks:
            full, factors = counts(*shape, rank)
            key = name if rank == ranks[0] else f"{name}, rank {rank}"
            out[key] = {
                "rank": rank,
                "all_weights": full,
                "factors": factors,
                "ratio": round(full / factors, 1),
            }
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cases", nargs="+", choices=CASES, default=["tiny", "wide"])
    p.add_argument("--rounds", type=int, help="timed rounds (default: the case's own, 15 or 5)")
    p.add_argument("--rows", type=int, help="rows per side, at most 16 (default: the case's own, 16 or 8)")
    p.add_argument("--rank", type=int, default=8, help="of the factors; VILA's runs use 8")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=common.RESULTS / "importance.json")
    p.add_argument(
        "--no-memory", action="store_true", help="leave out the child processes that measure peak memory"
    )
    p.add_argument("--child", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.rounds is not None and a.rounds < 1:
        p.error(f"--rounds must be >= 1, got {a.rounds}")
    smallest = 1 + max(CASES[c].batch for c in a.cases)
    if a.rows is not None and not smallest <= a.rows <= step.ROWS:
        p.error(f"--rows must lie in {smallest}..{step.ROWS} (a variance needs two batches), got {a.rows}")
    if a.child:
        return child(*a.child, a.rows, a.rank, a.threads, a.seed)
    result = {
        "benchmark": "importance",
        "machine": common.machine(a.threads),
        "versions": common.versions(),
        "settings": {"seed": a.seed, "rank": a.rank, "warm_up_rounds": 1, "passes_over_the_rows": 1},
        "claimed": CLAIM,
        "shapes": shapes([a.rank, 16 if a.rank != 16 else 8]),
        "cases": {},
    }
    import torch

    torch.set_num_threads(a.threads)
    total = sum(
        ((a.rounds or CASES[c].rounds) + (1 if a.no_memory else 2)) * len(CONTESTANTS) for c in a.cases
    )
    with tqdm(total=total, unit="pass", mininterval=2) as bar:
        for name in dict.fromkeys(a.cases):
            case, n_rows = CASES[name], a.rows or ROWS[name]
            rounds = a.rounds or case.rounds
            tokens = {s: sum(map(len, t.ids)) for s, t in data(case, n_rows, a.seed)._asdict().items()}
            entry = {**asdict(case), "rounds": rounds, "rows_per_side": n_rows, "tokens": tokens}
            bar.set_description(f"{name}: memory")
            space = {} if a.no_memory else memory(name, n_rows, a.rank, a.threads, a.seed, bar)
            bar.set_description(f"{name}: time")
            entry |= timed(case, rounds, n_rows, a.rank, a.seed, bar) | space
            expected = counts(case.hidden, 4 * case.hidden, case.hidden, case.layers, a.rank)
            assert expected == tuple(entry["parameters_with_gradients"][n] for n in ("fila", "vila")), (
                expected
            )
            result["cases"][name] = entry
            common.write(a.out, result)
    lines = []
    for name, e in result["cases"].items():
        for other, r in e["ratio"].items():
            mib = e.get("peak_over_model_mib")
            space = (
                ("", "")
                if mib is None
                else (f"{mib['fila']:.0f} / {mib[other]:.0f}", f"{e['peak_ratio'][other]:.2f}x")
            )
            times = f"{e['seconds']['fila']:.3f}", other, f"{e['seconds'][other]:.3f}", common.shown(r)
            lines.append((name, *times, f"{e['parameters_ratio'][other]:.1f}x", *space))
    header = ("case", "fila s", "against", "s", "fila / it [95 %]", "parameters", "peak MiB", "ratio")
    print(common.table(header, lines))
    print("\nParameters with gradients, by shape alone (not run):")
    rows = [
        (n, str(s["rank"]), f"{s['all_weights']:,}", f"{s['factors']:,}", f"{s['ratio']:.0f}x")
        for n, s in result["shapes"].items()
    ]
    print(common.table(("model", "rank", "all linear weights", "factors", "ratio"), rows))
    print(
        f"\nVILA's abstract: up to {CLAIM['parameters']}x and {CLAIM['speed']}x. Here: the same rows, once"
        " each."
    )
    print("Peak: of a fresh process, over one that holds the model.")


if __name__ == "__main__":
    main()
