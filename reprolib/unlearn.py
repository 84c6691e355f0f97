"""The loop: every method of the study goes through it, stage by stage, in plain sight.

Killed at any moment, the next call continues from the last checkpoint and ends with the same bytes:
orders and seeds derive from (seed, stage, epoch), so that weights, optimizer state and counters are all
there is to save.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.checkpoint import Checkpoint
from reprolib.corpus.batching import Tokens, buckets, collate
from reprolib.models import device
from reprolib.models.policy import Cached, Live, Policy, cache_reference, causal_lm
from reprolib.objectives import References, StepBatch
from reprolib.recipes.base import Schedule, Stage
from reprolib.seeds import derive


@dataclass
class Outcome:
    """What the loop leaves besides the model's new weights."""

    status: str = "done"  # or "diverged"
    reason: str = ""
    trajectory: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    trained_parameters: int = 0
    unchanged_after_first_step: float | None = None  # share of trainable weights that the first step did not move


def unlearn(
    lm: nn.Module,
    stages: Sequence[Stage],
    forget: Tokens,
    retain: Tokens,
    *,
    seed: int,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
    points: int = 10,
    checkpoint: Checkpoint | None = None,
    title: str = "unlearn",
    progress: bool = True,
) -> tuple[nn.Module, Outcome]:
    """Run the stages one after another, each with a fresh optimizer, from the weights of ``lm``.

    ``measure`` is called about ``points`` times in all, at equal distances in steps. Stops with status
    "diverged" as soon as a loss or gradient is not finite, with the last finite weights in place.
    Adapters are merged into the weights at the end of their stage where the base allows it.
    """
    outcome = Outcome()
    accelerator = device.accelerator()
    lengths = [n_steps(stage.schedule, len(forget), len(retain)) for stage in stages]
    marks = measuring_points(sum(lengths), points)
    state = checkpoint.load() if checkpoint else None
    policy = Policy(lm).to(accelerator.device)
    references = make_references(policy, stages, forget, retain)  # of the weights before unlearning
    first_stage, first_step = 0, 0
    if state:
        first_stage, first_step = state.meta["stage"], state.meta["step"]
        outcome = Outcome(**state.meta["outcome"])
        if quantised(policy.lm):  # there the adapter of earlier stages stands beside the weights: put one in place
            for number, stage in enumerate(stages[:first_stage]):
                policy = Policy(stage.trainable.attach(policy.lm, derive(seed, number))).to(accelerator.device)
        state.restore_base(policy.lm)  # what earlier stages changed
    elif measure:
        outcome.trajectory.append({"step": 0, "stage": "", **measure(policy.lm)})

    with tqdm(total=sum(lengths), initial=sum(lengths[:first_stage]) + first_step, desc=title, unit="step",
              disable=not progress, mininterval=2) as bar:  # fmt: skip
        for number, stage in enumerate(stages):
            if number < first_stage:
                continue
            policy = Policy(stage.trainable.attach(policy.lm, derive(seed, number))).to(accelerator.device)
            movable = {n: p for n, p in policy.lm.named_parameters() if p.requires_grad}
            outcome.trained_parameters = max(outcome.trained_parameters, sum(p.numel() for p in movable.values()))
            optimizer = stage.optimizer.build(movable.values())
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate(stage.schedule, lengths[number]))
            begin = first_step if number == first_stage else 0
            if state and number == first_stage:
                state.restore(movable, optimizer, scheduler)
            prepared, optimizer = accelerator.prepare(policy, optimizer)
            prepared.train()

            for step, rows in enumerate(steps(stage.schedule, forget, retain, seed, number)):
                if step < begin:
                    continue
                if step == lengths[number]:
                    break
                done = sum(lengths[:number]) + step
                torch.manual_seed(derive(seed, "dropout", number, step))
                optimizer.zero_grad(set_to_none=True)
                losses = torch.zeros(3)
                for micro in micro_batches(rows, forget, retain, stage.schedule.micro_tokens, accelerator.device):
                    with accelerator.autocast():
                        loss = stage.objective(prepared, references, micro)
                    accelerator.backward(loss.total)
                    losses += torch.stack([x.detach().float().cpu() for x in loss])
                norm = global_norm(movable.values(), stage.schedule.clip)
                if not (torch.isfinite(losses).all() and math.isfinite(norm)):
                    outcome.status = "diverged"
                    outcome.reason = f"stage {stage.name!r}, step {step + 1}: loss {losses[0]:.4g}, gradient norm {norm:.4g}"
                    break
                before = [p.detach().clone() for p in movable.values()] if done == 0 else None
                optimizer.step()
                scheduler.step()
                if before:
                    outcome.unchanged_after_first_step = share_unchanged(before, movable.values())
                outcome.steps = done + 1
                bar.update()
                if measure and done + 1 in marks:
                    point = {"step": done + 1, "stage": stage.name, "gradient_norm": norm}
                    point |= dict(zip(("loss", "loss_forget", "loss_retain"), losses.tolist(), strict=True))
                    outcome.trajectory.append(point | measure(policy.lm))
                    prepared.train()
                    bar.set_postfix({k: f"{v:.2f}" for k, v in point.items() if k.startswith("loss")}, refresh=False)
                if checkpoint and done + 1 in marks:
                    checkpoint.save(number, step + 1, outcome, movable, optimizer, scheduler)
            policy = Policy(detach(policy.lm))
            if outcome.status == "diverged":
                break
            if checkpoint and number + 1 < len(stages):
                checkpoint.save_stage(number + 1, outcome, policy.lm)
    return policy.lm.eval(), outcome


def n_steps(schedule: Schedule, n_forget: int, n_retain: int) -> int:
    """Optimizer steps of a stage; an epoch is a pass over the forget rows (retain rows if only those are used)."""
    rows = n_retain if schedule.pairing == "retain" else n_forget
    return max(1, round(schedule.epochs * math.ceil(rows / schedule.batch_size)))


def measuring_points(total: int, points: int) -> set[int]:
    """At most ``points`` step numbers in 1..total at equal distances, the last one always among them."""
    if total == 0 or points == 0:
        return set()
    return {max(1, round(total * (k + 1) / points)) for k in range(points)}


def rate(schedule: Schedule, total: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step (counted from 0)."""
    warm = schedule.warmup * total

    def factor(step: int) -> float:
        up = min(1.0, (step + 1) / warm) if warm else 1.0
        down = 1.0 if schedule.decay == "constant" else max(0.0, (total - step) / max(1.0, total - warm))
        return min(up, down)

    return factor


def steps(
    schedule: Schedule, forget: Tokens, retain: Tokens, seed: int, stage: int
) -> Iterator[tuple[list[int] | None, list[int] | None]]:
    """Row numbers (forget, retain) of each step, without end. Every epoch reshuffles; retain cycles through all its rows."""
    size = schedule.batch_size
    both = schedule.pairing == "paired"

    def shuffled(side: str, n: int, epoch: int) -> list[int]:
        return torch.randperm(n, generator=torch.Generator().manual_seed(derive(seed, stage, "order", side, epoch))).tolist()

    def cycle(side: str, n: int) -> Iterator[int]:
        epoch = 0
        while True:
            yield from shuffled(side, n, epoch)
            epoch += 1

    endless = cycle("retain", len(retain))
    main, n = ("retain", len(retain)) if schedule.pairing == "retain" else ("forget", len(forget))
    epoch = 0
    while True:
        order = shuffled(main, n, epoch) if both or main == "forget" else [next(endless) for _ in range(n)]
        for first in range(0, n, size):
            rows = order[first : first + size]
            if main == "retain":
                yield None, rows
            else:
                # as many retain rows in every step, also where the last forget batch is short
                yield rows, ([next(endless) for _ in range(min(size, len(retain)))] if both else None)
        epoch += 1


def micro_batches(rows, forget: Tokens, retain: Tokens, max_tokens: int, to) -> Iterator[StepBatch]:
    """Length-sorted parts of a step; every part knows the units of the whole step, so that the mean is the step's."""
    sides = {"forget": (forget, rows[0] or []), "retain": (retain, rows[1] or [])}
    units = {}
    for side, (tokens, chosen) in sides.items():
        units[f"{side}/row"] = len(chosen)
        units[f"{side}/token"] = sum(tokens.n_labels(i) for i in chosen)
    for side, (tokens, chosen) in sides.items():
        for chunk in buckets(tokens, chosen, max_tokens):
            batch = collate(tokens, chunk).to(to)
            yield StepBatch(batch if side == "forget" else None, batch if side == "retain" else None, units)


CACHE_BYTES = 2 << 30  # reference logits beyond this are computed in every step instead of kept


def make_references(policy: Policy, stages: Sequence[Stage], forget: Tokens, retain: Tokens) -> References:
    """What the stages' terms need of the weights before unlearning, as cheaply as it can be had.

    Sequence log-probabilities are always computed once and kept. Logits are kept if they fit into
    CACHE_BYTES; else the adapter is switched off (a single LoRA stage) or a frozen copy is run.
    """
    kept: dict[str, Cached | Live] = {}
    vocabulary = causal_lm(policy.lm).config.vocab_size
    for side, tokens in (("forget", forget), ("retain", retain)):
        terms = [getattr(s.objective, side) for s in stages]
        needs = {t.needs for t in terms if t is not None and t.needs}
        size = 4 * vocabulary * sum(tokens.n_labels(i) for i in range(len(tokens)))
        if "logits" in needs and size > CACHE_BYTES:
            # (PiSSA takes its adapter out of the base, which alone is then not the model before unlearning)
            adapter_off = len(stages) == 1 and stages[0].trainable.adapter and stages[0].trainable.init == "default"
            kept[side] = Live(None if adapter_off else copy.deepcopy(policy).eval().requires_grad_(False))
        elif needs:
            kept[side] = cache_reference(policy, tokens, "logits" if "logits" in needs else "sequence")
    return References(**kept)


def global_norm(parameters, clip: float | None) -> float:
    """Global gradient norm, after which gradients are scaled to at most ``clip``."""
    grads = [p for p in parameters if p.grad is not None]
    return float(torch.nn.utils.clip_grad_norm_(grads, clip if clip else float("inf")))


def share_unchanged(before, after) -> float:
    """Share of weights that a step left bit-identical (lost updates where the precision is too low)."""
    same = sum(int((b == a.detach()).sum()) for b, a in zip(before, after, strict=True))
    return same / max(1, sum(b.numel() for b in before))


def detach(lm: nn.Module) -> nn.Module:
    """Merge a LoRA adapter into a full-precision base; on a quantised base it stays beside the weights."""
    if hasattr(lm, "peft_config"):
        return lm if quantised(lm) else lm.merge_and_unload()
    return lm


def quantised(lm: nn.Module) -> bool:
    """Whether the base weights are in 4 or 8 bits, so that nothing can be merged into them."""
    return getattr(causal_lm(lm), "quantization_method", None) is not None
