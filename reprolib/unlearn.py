"""The loop: every method of the study goes through it, stage by stage, in plain sight.

Killed at any moment, the next call continues from the last checkpoint and ends with the same bytes:
orders and seeds derive from (seed, stage, epoch), so that weights, optimizer state and counters are all
there is to save.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.checkpoint import Checkpoint
from reprolib.corpus.batching import Tokens, buckets, collate
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.models.adapters import Data
from reprolib.models.edits import Edit, Past
from reprolib.models.policy import Cached, Live, Policy, cache_reference, causal_lm, quantised, shard
from reprolib.objectives import References, StepBatch
from reprolib.optim.base import Moment
from reprolib.recipes.base import Schedule, Stage, check
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
    control: dict[str, float] = field(default_factory=dict)  # state of the present stage's rule for the retain weight
    notes: dict[str, float] = field(default_factory=dict)  # costs that a trainable reports (e.g. of an importance pass)


def unlearn(
    lm: nn.Module,
    stages: Sequence[Stage | Edit],
    forget: Tokens,
    retain: Tokens,
    *,
    seed: int,
    others: Mapping[str, Tokens] | None = None,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
    points: int = 10,
    checkpoint: Checkpoint | None = None,
    title: str = "unlearn",
    progress: bool = True,
) -> tuple[nn.Module, Outcome]:
    """Run the stages one after another, each with a fresh optimizer, from the weights of ``lm``.

    ``others``: the forget questions with other answers, by kind (see :mod:`reprolib.corpus.answers`), for the terms that
    read them. ``measure`` is called about ``points`` times in all, at equal distances in steps. Stops with status
    "diverged" as soon as a loss or gradient is not finite, with the last finite weights in place.
    Adapters are merged into the weights at the end of their stage where the base allows it.
    """
    outcome = Outcome()
    others = others or {}
    check(stages)
    for side, tokens in (("forget", forget), ("retain", retain), *((f"others[{k!r}]", t) for k, t in others.items())):
        if not len(tokens) or (side.startswith("others") and len(tokens) != len(forget)):
            raise SpecError(
                f"unlearn: {side} has {len(tokens)} rows; forget and retain need at least one, other answers as many as forget "
                f"({len(forget)})."
            )
    accelerator = device.accelerator()
    lengths = [n_steps(s.schedule, len(forget), len(retain)) if isinstance(s, Stage) else 1 for s in stages]
    marks = measuring_points(sum(lengths), points)
    if device.sharded() and not (len(stages) == 1 and isinstance(stages[0], Stage) and plain_step(stages[0])):
        raise SpecError(
            "unlearn: under FSDP no process holds whole weights, so that recipes of several stages, edits, second-order optimizers "
            "and terms that read a block's outputs cannot run; use gpu/accelerate/data_parallel.yaml, or one stage of AdamW."
        )
    if checkpoint and (device.sharded() or not device.worth_saving(lm)):
        checkpoint.remove()
        checkpoint = None
    state = checkpoint.load() if checkpoint else None
    device.tidy()
    policy = Policy(lm).to(accelerator.device)
    device.recompute(causal_lm(policy.lm))
    with device.autocast():
        references = make_references(policy, stages, forget, retain, others)  # of the weights before unlearning
    past = Past(start_weights(policy.lm, stages), data=Data(forget, retain))
    first_stage, first_step = 0, 0
    if state:
        first_stage, first_step = state.meta["stage"], state.meta["step"]
        outcome = Outcome(**state.meta["outcome"])
        past.kept = state.kept
        if quantised(policy.lm):  # there the adapter of earlier stages stands beside the weights: put one in place
            policy = Policy(attached(policy.lm, stages[:first_stage], past, seed)).to(accelerator.device)
        state.restore_base(policy.lm)  # what earlier stages changed
    elif measure:
        outcome.trajectory.append({"step": 0, "stage": "", **measure(policy.lm)})

    with tqdm(total=sum(lengths), initial=sum(lengths[:first_stage]) + first_step, desc=title, unit="step",
              disable=not progress, mininterval=2) as bar:  # fmt: skip
        for number, stage in enumerate(stages):
            if number < first_stage:
                continue
            if not isinstance(stage, Stage):
                policy = Policy(stage.apply(policy.lm, past, derive(seed, number))).to(accelerator.device)
                outcome.steps += 1
                bar.update()
                if measure:
                    outcome.trajectory.append({"step": outcome.steps, "stage": stage.name, **measure(policy.lm)})
                if checkpoint and number + 1 < len(stages) and device.first():
                    checkpoint.save_stage(number + 1, outcome, policy.lm, past.kept)
                continue
            if stage.restart:
                policy = Policy(past.restore(policy.lm))
            lm = stage.trainable.attach(policy.lm, derive(seed, number), Data(forget, retain), outcome.notes)
            policy = Policy(lm).to(accelerator.device)
            if device.sharded():
                shard(lm)
            movable = {n: p for n, p in policy.lm.named_parameters() if p.requires_grad}
            outcome.trained_parameters = max(outcome.trained_parameters, sum(p.numel() for p in movable.values()))
            built = device.lean(stage.optimizer.build(movable.values()))
            most = device.micro_tokens(stage.schedule.micro_tokens)
            scheduler = torch.optim.lr_scheduler.LambdaLR(built, rate(stage.schedule, lengths[number]))
            begin = first_step if number == first_stage else 0
            if state and number == first_stage:
                state.restore(movable, built, scheduler)
            # several processes average their gradients below, or hold shards: neither is for `accelerate` to wrap
            prepared, optimizer = accelerator.prepare(policy, built) if device.processes() == 1 else (policy, built)
            prepared.train()
            objective, control = stage.objective, stage.objective.control
            if begin == 0:
                outcome.control = control.start() if control else {}
            now = (
                replace(references, helper=helper_of(past))
                if objective.forget is not None and objective.forget.helper
                else references
            )
            other = others.get(objective.forget.other) if objective.forget is not None else None
            per_epoch = max(1, round(lengths[number] / stage.schedule.epochs))

            for step, rows in enumerate(steps(stage.schedule, forget, retain, seed, number)):
                if step < begin:
                    continue
                if step == lengths[number]:
                    break
                done = sum(lengths[:number]) + step
                torch.manual_seed(derive(seed, "dropout", number, step))
                optimizer.zero_grad(set_to_none=True)
                losses = torch.zeros(3, device=accelerator.device)  # there until the step is over: no pass waits for another
                weight = control.weight(outcome.control) if control else None
                micros = list(micro_batches(rows, forget, retain, most, accelerator.device, other))
                for micro, factor in device.own_share(micros):
                    with accelerator.autocast():
                        loss = objective(prepared, now, micro, weight)
                    if not loss.total.requires_grad:
                        raise SpecError(
                            f"stage {stage.name!r}: the loss does not depend on any weight that {stage.trainable} lets move (a "
                            "term that reads a block sees nothing above it); use trainable='full' or a deeper layer."
                        )
                    accelerator.backward(loss.total if factor == 1 else factor * loss.total)
                    if factor:
                        losses += torch.stack([x.detach().float() for x in loss])
                    del loss  # its graph too: 8-bit layers keep their inputs in it, which would be there in the next pass
                losses = device.summed(losses).cpu()
                device.average_gradients(movable.values())
                norm = global_norm(movable.values(), stage.schedule.clip)
                if not (torch.isfinite(losses).all() and math.isfinite(norm)):
                    outcome.status = "diverged"
                    outcome.reason = f"stage {stage.name!r}, step {step + 1}: loss {losses[0]:.4g}, gradient norm {norm:.4g}"
                    break
                if hasattr(stage.optimizer, "estimate"):  # second-order optimizers look at more than the gradient
                    moment = Moment(
                        policy=prepared, objective=objective, references=now, batches=micros, forget=forget, retain=retain,
                        parameters=list(movable.values()), step=step, per_epoch=per_epoch, seed=derive(seed, number),
                        retain_weight=weight,
                    )  # fmt: skip
                    estimates = stage.optimizer.estimate(moment)
                    if estimates is not None and not all(torch.isfinite(x).all() for x in estimates):
                        outcome.status = "diverged"
                        outcome.reason = f"stage {stage.name!r}, step {step + 1}: the curvature estimate is not finite"
                        break
                    if estimates is not None:
                        built.curve(estimates)
                before = device.copies(movable.values()) if outcome.unchanged_after_first_step is None else None
                optimizer.step()
                scheduler.step()
                if control:
                    outcome.control = control.update(outcome.control, float(losses[1]), float(losses[2]), step, per_epoch)
                if before:
                    outcome.unchanged_after_first_step = share_unchanged(before, movable.values())
                before = None  # memory that evaluations, or the next step's activations, can use
                if device.on_gpu():
                    optimizer.zero_grad(set_to_none=True)
                outcome.steps = done + 1
                bar.update()
                if measure and done + 1 in marks:
                    point = {"step": done + 1, "stage": stage.name, "gradient_norm": norm}
                    point |= dict(zip(("loss", "loss_forget", "loss_retain"), losses.tolist(), strict=True))
                    if weight is not None:
                        point["retain_weight"] = weight
                    if hasattr(built, "diagnostics"):
                        point |= {f"optimizer/{k}": v for k, v in built.diagnostics().items()}
                    outcome.trajectory.append(point | measure(policy.lm))
                    prepared.train()
                    bar.set_postfix({k: f"{v:.2f}" for k, v in point.items() if k.startswith("loss")}, refresh=False)
                if checkpoint and done + 1 in marks and device.first():
                    checkpoint.save(number, step + 1, outcome, movable, optimizer, scheduler)
            if outcome.status != "diverged":
                keep(stage, policy, past, forget)
            policy = Policy(detach(policy.lm))
            if outcome.status == "diverged":
                break
            if checkpoint and number + 1 < len(stages) and device.first():
                checkpoint.save_stage(number + 1, outcome, policy.lm, past.kept)
    return policy.lm.eval(), outcome


def plain_step(stage: Stage) -> bool:
    """Whether a stage needs nothing but gradients of whole passes, as FSDP gives them."""
    terms = [t for t in (stage.objective.forget, stage.objective.retain) if t is not None]
    return not hasattr(stage.optimizer, "estimate") and all(t.layer is None for t in terms) and not stage.keep


def start_weights(lm: nn.Module, stages: Sequence[Stage | Edit]) -> dict[str, torch.Tensor]:
    """Copies of the full-precision weights, if a stage starts again from them or an edit needs them."""
    wanted = any(s.restart if isinstance(s, Stage) else s.needs_start for s in stages)
    if not wanted or quantised(lm):
        return {}
    return {k: v.detach().clone() for k, v in lm.named_parameters() if v.is_floating_point()}


def attached(lm: nn.Module, stages: Sequence[Stage | Edit], past: Past, seed: int) -> nn.Module:
    """A quantised model with the adapter that these stages put beside its weights (values come from a checkpoint)."""
    for number, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            lm = stage.apply(lm, past, derive(seed, number))
        else:
            lm = stage.trainable.attach(past.restore(lm) if stage.restart else lm, derive(seed, number))
    return lm


def keep(stage: Stage, policy: Policy, past: Past, forget: Tokens) -> None:
    """Put aside what later stages need of this one."""
    if stage.keep == "helper":
        with device.autocast():
            cached = cache_reference(policy, forget, "logits")
        past.kept |= {f"helper/{i}": x for i, x in enumerate(cached.logits or ())}
    elif stage.keep:
        from peft.utils import get_peft_model_state_dict

        name = stage.keep.removeprefix("adapter:")
        tensors = get_peft_model_state_dict(policy.lm, save_embedding_layers=False)
        past.kept |= {f"{name}/{k}": v.detach().cpu().clone() for k, v in tensors.items()}


def helper_of(past: Past) -> Cached:
    """The logits that a stage with keep="helper" left on the forget rows."""
    logits = [v for _, v in sorted((int(k.removeprefix("helper/")), v) for k, v in past.kept.items() if k.startswith("helper/"))]
    if not logits:
        raise SpecError("a term reads a helper model, but no stage before it has keep='helper'.")
    return Cached(logits=tuple(logits))


def n_steps(schedule: Schedule, n_forget: int, n_retain: int) -> int:
    """Optimizer steps of a stage; an epoch is a pass over the forget rows (retain rows if only those are used)."""
    if schedule.pairing in ("interleaved", "alternating"):
        return sum(sum(chunk_steps(schedule, len(c), n_retain)) for c in chunks(list(range(n_forget)), schedule.chunk))
    rows = n_retain if schedule.pairing == "retain" else n_forget
    return max(1, round(schedule.epochs * math.ceil(rows / schedule.batch_size)))


def chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def chunk_steps(schedule: Schedule, n_chunk: int, n_retain: int) -> tuple[int, int]:
    """Forget steps and retain steps for one chunk of an interleaved or alternating stage."""
    own = max(1, round(schedule.epochs * math.ceil(n_chunk / schedule.batch_size)))
    if schedule.pairing == "interleaved":
        return own, own * schedule.ratio
    shared = max(1, round(schedule.share * n_retain))
    return own, max(1, round(schedule.epochs * math.ceil(shared / schedule.batch_size)))


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
    if schedule.pairing in ("interleaved", "alternating"):
        yield from _chunked(schedule, len(forget), len(retain), shuffled, endless)
        return
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


def _chunked(schedule: Schedule, n_forget: int, n_retain: int, shuffled, endless):
    size = schedule.batch_size
    for number, chunk in enumerate(chunks(shuffled("forget", n_forget, 0), schedule.chunk)):
        own, kept = chunk_steps(schedule, len(chunk), n_retain)

        def passes(rows: list[int], side: str, count: int, number: int = number):
            epoch = 0
            while True:  # each pass in an order of its own
                order = shuffled(f"{side}-{number}", len(rows), epoch)
                for part in chunks([rows[i] for i in order], size):
                    if count == 0:
                        return
                    count -= 1
                    yield part
                epoch += 1

        if schedule.pairing == "interleaved":
            for part in passes(chunk, "chunk", own):
                yield part, None
                for _ in range(schedule.ratio):
                    yield None, [next(endless) for _ in range(min(size, n_retain))]
        else:
            drawn = shuffled(f"share-{number}", n_retain, 0)[: max(1, round(schedule.share * n_retain))]
            yield from ((part, None) for part in passes(chunk, "chunk", own))
            yield from ((None, part) for part in passes(drawn, "anneal", kept))


def micro_batches(rows, forget: Tokens, retain: Tokens, max_tokens: int, to, other: Tokens | None = None) -> Iterator[StepBatch]:
    """Length-sorted parts of a step; every part knows the units of the whole step, so that the mean is the step's."""
    sides = {"forget": (forget, rows[0] or []), "retain": (retain, rows[1] or [])}
    units = {}
    for side, (tokens, chosen) in sides.items():
        units[f"{side}/row"] = len(chosen)
        units[f"{side}/token"] = sum(tokens.n_labels(i) for i in chosen)
    if other is not None:
        units["forget/other"] = sum(other.n_labels(i) for i in sides["forget"][1])
    for side, (tokens, chosen) in sides.items():
        for chunk in buckets(tokens, chosen, max_tokens):
            batch = collate(tokens, chunk)
            if side == "forget" and other is not None:
                batch = replace(batch, other=collate(other, chunk))
            batch = batch.to(to)
            yield StepBatch(batch if side == "forget" else None, batch if side == "retain" else None, units)


CACHE_BYTES = 2 << 30  # reference logits beyond this are computed in every step instead of kept


def make_references(
    policy: Policy, stages: Sequence[Stage | Edit], forget: Tokens, retain: Tokens, others: Mapping[str, Tokens] | None = None
) -> References:
    """What the stages' terms need of the weights before unlearning, as cheaply as it can be had.

    Sequence log-probabilities and hidden states are always computed once and kept. Logits are kept if they fit into
    CACHE_BYTES; else the adapter is switched off (a single LoRA stage) or a frozen copy is run.
    """
    kept: dict[str, Cached | Live] = {}
    vocabulary = causal_lm(policy.lm).config.vocab_size
    training = [s for s in stages if isinstance(s, Stage)]
    for side, tokens in (("forget", forget), ("retain", retain)):
        terms = [t for t in (getattr(s.objective, side) for s in training) if t is not None]
        needs = {t.needs for t in terms if t.needs}
        layers = {t.layer for t in terms if t.needs == "hidden"}
        if len(layers) > 1:
            raise SpecError(f"the {side} terms read the starting model at different layers ({sorted(layers)}); use one layer.")
        size = 4 * vocabulary * sum(tokens.n_labels(i) for i in range(len(tokens)))
        if "logits" in needs and size > CACHE_BYTES:
            if "hidden" in needs:
                raise SpecError(
                    f"the {side} terms read logits too large to keep, and hidden states as well; give them stages of one kind."
                )
            # (a trainable that takes its adapter out of the base, as PiSSA does, has another model there when it is off)
            init = getattr(training[0].trainable, "init", "") if training else ""
            adapter_off = len(stages) == 1 and training[0].trainable.adapter and init == "default"
            kept[side] = Live(None if adapter_off else copy.deepcopy(policy).eval().requires_grad_(False))
        elif needs:
            kept[side] = cache_reference(policy, tokens, needs, next(iter(layers), None))
    compared = {t.other for t in (s.objective.forget for s in training) if t is not None and t.other and t.needs}
    if len(compared) > 1:
        raise SpecError(f"the forget terms compare several kinds of other answers with the start ({sorted(compared)}); use one.")
    for term in (s.objective.forget for s in training):
        if term is not None and term.other and term.other not in (others or {}):
            raise SpecError(f"{type(term).__name__} reads other answers of kind {term.other!r}; hand them in as others={{...}}.")
        if term is not None and term.other and term.needs:
            kept["other"] = cache_reference(policy, others[term.other], "sequence")
    return References(**kept)


def global_norm(parameters, clip: float | None) -> float:
    """Global gradient norm, after which gradients are scaled to at most ``clip``."""
    grads = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(grads, clip if clip else float("inf"))
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # under FSDP: over all shards


def share_unchanged(before, after) -> float:
    """Share of weights that a step left bit-identical (lost updates where the precision is too low)."""
    pairs = [(device.held(b), device.held(a.detach())) for b, a in zip(before, after, strict=True)]
    same = sum(int((b.to(a.device) == a).sum()) for b, a in pairs)
    counts = torch.tensor([same, sum(b.numel() for b, _ in pairs)], dtype=torch.float64)
    same, total = (device.summed(counts) if device.sharded() else counts).tolist()
    return same / max(1.0, total)


def detach(lm: nn.Module) -> nn.Module:
    """Merge a LoRA adapter into a full-precision base; on a quantised or sharded base it stays beside the weights."""
    if hasattr(lm, "peft_config"):
        return lm if quantised(lm) or device.sharded() else lm.merge_and_unload()
    return lm
