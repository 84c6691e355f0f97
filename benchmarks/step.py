"""A training step as shipped against the plain organisation of the same maths, on a CPU in fp32.

    python benchmarks/step.py [--cases small share mixed large] [--rounds N] [--threads N] [--out FILE]

*shipped* is what ``reprolib.unlearn`` does in a step: output head on labelled positions only, no attention
mask, one backward pass per side, NPO's reference sequence log-probabilities looked up in a cache.
*plain* is written here: forget and retain forward through the transformers model with attention mask, full
[B, T, V] logits, fp32 log-softmax over a shifted copy of all positions, labels -100, one backward pass; for
NPO a deep copy of the model is the live reference in every step. *plain-hf* (GradDiff only) takes the loss
that transformers itself computes from ``labels``. All clip the gradient and make one AdamW step.

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
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import common
from tqdm.auto import tqdm

os.environ["REPROLIB_DEVICE"] = "cpu"

ROWS = 16  # rows per side that the steps cycle through
EPOCHS = 10  # over which the one-off cost of the reference cache is spread (the recipes' default)
TOLERANCE = 1e-5  # relative, for losses and gradient norms


@dataclass(frozen=True)
class Case:
    about: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    tied: bool
    batch: int  # rows per side
    lengths: str = "even"  # "even": prompts of 88 to 108 tokens, answers of 20 to 28; "lume": LUME's mixture
    rounds: int = 10


CASES = {
    "small": Case("about 20 M parameters, large head", 256, 4, 4, 32_000, False, 4, rounds=15),
    "share": Case("output head / blocks = 0.1, as in OLMo-1B", 384, 6, 6, 4_096, True, 4),
    "mixed": Case("as small, but rows as unequal as LUME's", 256, 4, 4, 32_000, False, 4, lengths="lume", rounds=15),
    "large": Case("about 55 M parameters, very large head", 256, 4, 4, 100_352, False, 2),
    "minute": Case("for the test", 16, 1, 2, 64, False, 2, rounds=2),
}
OBJECTIVES = {"graddiff": ("shipped", "plain", "plain-hf"), "npo": ("shipped", "plain")}


def model(case: Case, seed: int):
    import torch
    from transformers import AutoModelForCausalLM, OlmoConfig

    torch.manual_seed(seed)
    config = OlmoConfig(
        vocab_size=case.vocabulary, hidden_size=case.hidden, intermediate_size=4 * case.hidden,
        num_hidden_layers=case.layers, num_attention_heads=case.heads, max_position_embeddings=1024,
        tie_word_embeddings=case.tied, attention_dropout=0.0, pad_token_id=1, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def rows(case: Case, seed: int):
    """Random token rows of LUME-like lengths, as the library's own tokenised data set."""
    from reprolib.corpus.batching import Tokens

    random = Random(seed)
    ids, prompts = [], []
    for _ in range(ROWS):
        if case.lengths == "even":
            prompt, answer = random.randint(88, 108), random.randint(20, 28)
        else:
            # kinds of LUME's rows in their proportions, at 4 characters a token: completions of stories and
            # biographies (23 %), of personal data (9 %), and questions (68 %)
            kind = random.choices(("passage", "personal", "question"), (0.23, 0.09, 0.68))[0]
            prompt, answer = {"passage": (195, 48), "personal": (28, 39), "question": (13, 4)}[kind]
            prompt, answer = (max(2, round(n * random.uniform(0.8, 1.2))) for n in (prompt, answer))
        ids.append(tuple(random.randrange(2, case.vocabulary) for _ in range(prompt + answer)))
        prompts.append(prompt)
    return Tokens(tuple(ids), tuple(prompts), ("answer",) * ROWS)


def stage(objective: str):
    from reprolib.recipes import recipe

    name = {"graddiff": "gradient_difference", "npo": "npo"}[objective]
    return recipe(name).build({"lr": 1e-4})[0]


class Shipped:
    """The inside of the loop of ``reprolib.unlearn.unlearn``, one step at a time."""

    def __init__(self, lm, objective: str, forget, retain):
        from reprolib.models import device
        from reprolib.models.policy import Policy
        from reprolib.unlearn import make_references

        self.lm, self.stage, self.forget, self.retain = lm, stage(objective), forget, retain
        self.accelerator = device.accelerator()
        began = time.perf_counter()
        self.references = make_references(Policy(lm), [self.stage], forget, retain)
        self.cache_s = time.perf_counter() - began
        self.parameters = list(lm.parameters())
        self.policy, self.optimizer = self.accelerator.prepare(Policy(lm), self.stage.optimizer.build(self.parameters))
        self.policy.train()

    def step(self, chosen: tuple[list[int], list[int]]) -> tuple[float, float, float]:
        import torch

        from reprolib.unlearn import global_norm, micro_batches

        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(3)
        size = self.stage.schedule.micro_tokens
        for micro in micro_batches(chosen, self.forget, self.retain, size, self.accelerator.device):
            with self.accelerator.autocast():
                loss = self.stage.objective(self.policy, self.references, micro)
            self.accelerator.backward(loss.total)
            losses += torch.stack([x.detach().float().cpu() for x in loss])
        norm = global_norm(self.parameters, self.stage.schedule.clip)
        self.optimizer.step()
        return losses[1].item(), losses[2].item(), norm


class Plain:
    """The same maths as most released code organises it."""

    def __init__(self, lm, objective: str, forget, retain, hf: bool = False):
        self.lm, self.objective, self.forget, self.retain, self.hf = lm, objective, forget, retain, hf
        s = stage(objective)
        self.clip, self.beta = s.schedule.clip, getattr(s.objective.forget, "beta", None)
        self.reference = copy.deepcopy(lm).eval().requires_grad_(False) if objective == "npo" else None
        self.parameters = list(lm.parameters())
        self.optimizer = s.optimizer.build(self.parameters)  # the same AdamW: no part of the comparison

    @staticmethod
    def batch(tokens, chosen):
        import torch

        width = max(len(tokens.ids[i]) for i in chosen)
        ids = torch.ones(len(chosen), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for b, i in enumerate(chosen):
            row, prompt = torch.tensor(tokens.ids[i]), tokens.prompt[i]
            ids[b, : len(row)], mask[b, : len(row)], labels[b, prompt : len(row)] = row, 1, row[prompt:]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    @staticmethod
    def token_nll(lm, batch):
        """-log p at all positions, 0 where the label is -100: [B, T - 1]."""
        import torch.nn.functional as F

        logits = lm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        logits, labels = logits.float()[:, :-1].contiguous(), batch["labels"][:, 1:].contiguous()
        flat = F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1), ignore_index=-100, reduction="none")
        return flat.view(labels.shape)

    def mean_nll(self, batch):
        if self.hf:
            return self.lm(**batch, use_cache=False).loss
        return self.token_nll(self.lm, batch).sum() / (batch["labels"][:, 1:] != -100).sum()

    def step(self, chosen: tuple[list[int], list[int]]) -> tuple[float, float, float]:
        import torch
        import torch.nn.functional as F

        self.optimizer.zero_grad(set_to_none=True)
        forget, retain = self.batch(self.forget, chosen[0]), self.batch(self.retain, chosen[1])
        if self.objective == "graddiff":
            loss_forget = -self.mean_nll(forget)
        else:
            logp = -self.token_nll(self.lm, forget).sum(-1)
            with torch.no_grad():
                logp_reference = -self.token_nll(self.reference, forget).sum(-1)
            loss_forget = -(2 / self.beta) * F.logsigmoid(-self.beta * (logp - logp_reference)).mean()
        loss_retain = self.mean_nll(retain)
        (loss_forget + loss_retain).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip))
        self.optimizer.step()
        return loss_forget.item(), loss_retain.item(), norm


def contestant(name: str, lm, objective: str, forget, retain):
    if name == "shipped":
        return Shipped(lm, objective, forget, retain)
    return Plain(lm, objective, forget, retain, hf=name == "plain-hf")


def chosen(case: Case, number: int) -> tuple[list[int], list[int]]:
    picked = [(number * case.batch + k) % ROWS for k in range(case.batch)]
    return picked, picked


def timed(case: Case, objective: str, rounds: int, seed: int, bar) -> dict:
    """Seconds per step of each organisation, with the check that they compute the same."""
    forget, retain = rows(case, seed), rows(case, seed + 1)
    start = model(case, seed)
    runners = {n: contestant(n, copy.deepcopy(start), objective, forget, retain) for n in OBJECTIVES[objective]}
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
                    f"{objective}, step {number + 1}: {name} computes something else than plain: "
                    f"(forget, retain, norm) {(a, b, norm)} against {(x, y, z)}; allowed: {TOLERANCE:g} relative."
                )
            apart["loss"], apart["gradient_norm"] = max(apart["loss"], loss), max(apart["gradient_norm"], gradient)

    steps = {n: (lambda number, r=r: r.step(chosen(case, number))) for n, r in runners.items()}
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
    contestant(name, model(minute, 0), objective, rows(minute, 0), rows(minute, 1)).step(chosen(minute, 0))  # imports
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
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cases", nargs="+", choices=CASES, default=["small", "share"])
    p.add_argument("--large", action="store_true", help="add the case with a vocabulary of 100,352")
    p.add_argument("--rounds", type=int, help="timed rounds per objective (default: the case's own, 10 or 15)")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=common.RESULTS / "step.json")
    p.add_argument("--no-memory", action="store_true", help="leave out the child processes that measure peak memory")
    p.add_argument("--child", nargs=3, metavar=("CASE", "OBJECTIVE", "NAME"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.rounds is not None and a.rounds < 1:
        p.error(f"--rounds must be >= 1, got {a.rounds}")
    if a.child:
        return child(*a.child, a.threads, a.seed)
    names = list(dict.fromkeys(a.cases + ["large"] * a.large))
    result = {
        "benchmark": "step",
        "machine": common.machine(a.threads),
        "versions": common.versions(),
        "settings": {"seed": a.seed, "rows_per_side": ROWS, "warm_up_rounds": 2, "cache_spread_over_epochs": EPOCHS},
        "cases": {},
    }
    import torch

    torch.set_num_threads(a.threads)
    extra = 2 if a.no_memory else 3  # warm-up rounds, and a memory child per organisation
    total = sum(((a.rounds or CASES[c].rounds) + extra) * len(o) for c in names for o in OBJECTIVES.values())
    with tqdm(total=total, unit="step", mininterval=2) as bar:
        for name in names:
            case = CASES[name]
            lm = model(case, a.seed)
            head = lm.get_output_embeddings().weight.numel()
            blocks = sum(q.numel() for q in lm.model.layers.parameters())
            forget = rows(case, a.seed)
            labels = sum(forget.n_labels(i) for i in range(ROWS))
            entry = {**asdict(case), "rounds": a.rounds or case.rounds}
            entry |= {"parameters": sum(q.numel() for q in lm.parameters()), "head_to_blocks": round(head / blocks, 3)}
            entry["forget_rows_tokens"] = {"prompt_mean": sum(forget.prompt) / ROWS, "answer_mean": labels / ROWS}
            del lm
            gc.collect()
            for objective in OBJECTIVES:
                bar.set_description(f"{name}: {objective}, memory")
                space = {} if a.no_memory else memory(name, objective, a.threads, a.seed, bar)
                bar.set_description(f"{name}: {objective}, time")
                entry[objective] = timed(case, objective, entry["rounds"], a.seed, bar) | space
            result["cases"][name] = entry
            common.write(a.out, result)
    lines = []
    for name, entry in result["cases"].items():
        for objective in OBJECTIVES:
            e = entry[objective]
            seconds, mib = e["seconds"], e.get("peak_mib")
            for other, r in e["ratio"].items():
                times = f"{seconds['shipped']:.3f}", other, f"{seconds[other]:.3f}", common.shown(r)
                space = ("", "") if mib is None else (f"{mib['shipped']:.0f} / {mib[other]:.0f}", f"{e['peak_ratio'][other]:.2f}x")
                lines.append((name, objective, *times, *space))
            if "ratio_with_cache" in e:
                lines.append((name, objective, "+ cache", "plain", "", common.shown(e["ratio_with_cache"]), "", ""))
    print(common.table(("case", "objective", "shipped s", "against", "s", "ratio [95 %]", "peak MiB", "ratio"), lines))
    print(f"\nLosses and gradient norms agree within {TOLERANCE:g} relative in every step. Peak: over the imports.")


if __name__ == "__main__":
    main()
