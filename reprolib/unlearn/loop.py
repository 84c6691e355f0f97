"""The loop: every method of the study goes through it, stage by stage, in plain sight.

:func:`unlearn` calls :func:`train_stage` for each stage, which calls :func:`step` for each optimizer step.
Killed at any moment, the next call continues from the last checkpoint and ends with the same bytes: orders
and seeds derive from (seed, stage, epoch), so that weights, optimizer state and counters are all there is to
save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.adapters.base import Data
from reprolib.corpus.batching import Tokens
from reprolib.edits.base import Edit, Past
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.models.policy import Policy, causal_lm, quantised, shard
from reprolib.objectives import StepBatch
from reprolib.optim.base import Curved, Moment
from reprolib.recipes.base import Stage, check
from reprolib.seeds import derive
from reprolib.unlearn.checkpoint import Checkpoint, State
from reprolib.unlearn.order import Rows, measuring_points, micro_batches, n_steps, rate, steps
from reprolib.unlearn.references import attached, detach, helper_of, keep, make_references, start_weights
from reprolib.unlearn.run import Outcome, Run, Training


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

    ``others``: the forget questions with other answers, by kind (see :mod:`reprolib.unlearn.answers`), for
    the terms that read them. ``measure`` is called about ``points`` times in all, at equal distances in
    steps. Stops with status "diverged" as soon as a loss or gradient is not finite, with the last finite
    weights in place. Adapters are merged into the weights at the end of their stage where the base allows it.
    """
    others = others or {}
    check(stages)
    check_rows(forget, retain, others)
    accelerator = device.accelerator()
    check_sharding(stages)
    if checkpoint and (device.sharded() or not device.worth_saving(lm)):
        checkpoint.remove()
        checkpoint = None
    state = checkpoint.load() if checkpoint else None
    device.tidy()
    policy = Policy(lm).to(accelerator.device)
    device.recompute(causal_lm(policy.lm))
    with device.autocast():
        references = make_references(policy, stages, forget, retain, others)
    past = Past(start_weights(policy.lm, stages), data=Data(forget, retain))
    lengths = [n_steps(s.schedule, len(forget), len(retain)) if isinstance(s, Stage) else 1 for s in stages]
    run = Run(
        stages=stages,
        forget=forget,
        retain=retain,
        others=others,
        seed=seed,
        references=references,
        past=past,
        lengths=lengths,
        measure=measure,
        marks=measuring_points(sum(lengths), points),
        checkpoint=checkpoint,
        accelerator=accelerator,
    )
    if state:
        policy = resume(run, policy, state)
    else:
        run.log({"step": 0, "stage": ""}, policy.lm)
    first, begun = (state.meta["stage"], state.meta["step"]) if state else (0, 0)
    with tqdm(
        total=sum(lengths),
        initial=sum(lengths[:first]) + begun,
        desc=title,
        unit="step",
        disable=not progress,
        mininterval=2,
    ) as run.bar:
        for number, stage in islice(enumerate(stages), first, None):
            if isinstance(stage, Stage):
                policy = train_stage(run, policy, stage, number, state if number == first else None)
            else:
                policy = edit(run, policy, stage, number)
            if run.outcome.status == "diverged":
                break
            run.save_stage(number + 1, policy.lm)
    return policy.lm.eval(), run.outcome


def check_rows(forget: Tokens, retain: Tokens, others: Mapping[str, Tokens]) -> None:
    for side, tokens in (
        ("forget", forget),
        ("retain", retain),
        *((f"others[{k!r}]", t) for k, t in others.items()),
    ):
        if not len(tokens) or (side.startswith("others") and len(tokens) != len(forget)):
            raise SpecError(
                f"unlearn: {side} has {len(tokens)} rows; forget and retain need at least one, other"
                f" answers as many as forget ({len(forget)})."
            )


def check_sharding(stages: Sequence[Stage | Edit]) -> None:
    """Under FSDP a stage can have nothing but gradients of whole passes."""
    if not device.sharded():
        return
    only = stages[0] if len(stages) == 1 else None
    if (
        not isinstance(only, Stage)
        or only.optimizer.second_order
        or only.keep
        or any(t.layer is not None for t in only.terms)
    ):
        raise SpecError(
            "unlearn: under FSDP no process holds whole weights, so that recipes of several stages, edits,"
            " second-order optimizers and terms that read a block's outputs cannot run; use"
            " study/gpu/accelerate/data_parallel.yaml, or one stage of AdamW."
        )


def resume(run: Run, policy: Policy, state: State) -> Policy:
    """Take over what a checkpoint holds; returns the policy at the start of the stage that was being
    trained.
    """
    run.outcome = Outcome(**state.meta["outcome"])
    run.past.kept = state.kept
    if quantised(
        policy.lm
    ):  # there the adapter of earlier stages stands beside the weights: put one in place
        earlier = attached(policy.lm, run.stages[: state.meta["stage"]], run.past, run.seed)
        policy = Policy(earlier).to(run.accelerator.device)
    state.restore_base(policy.lm)  # what earlier stages changed
    return policy


def edit(run: Run, policy: Policy, change: Edit, number: int) -> Policy:
    """Apply a change that is no training; it counts as one step."""
    policy = Policy(change.apply(policy.lm, run.past, derive(run.seed, number))).to(run.accelerator.device)
    run.advance(run.outcome.steps + 1)
    run.log({"step": run.outcome.steps, "stage": change.name}, policy.lm)
    return policy


def train_stage(run: Run, policy: Policy, stage: Stage, number: int, state: State | None) -> Policy:
    """Train one stage from its beginning, or from where ``state`` left it; adapters are merged where they can
    be.
    """
    now = prepare(run, policy, stage, number, state)
    begun = state.meta["step"] if state else 0
    order = enumerate(steps(stage.schedule, run.forget, run.retain, run.seed, number))
    for at, rows in islice(order, begun, run.lengths[number]):
        if not step(run, now, at, rows):
            break
    if run.outcome.status != "diverged":
        keep(stage, now.policy, run.past, run.forget)
    return Policy(detach(now.policy.lm))


def prepare(run: Run, policy: Policy, stage: Stage, number: int, state: State | None) -> Training:
    """Let the stage's weights move and build its optimizer; restore both from ``state``."""
    if stage.restart:
        policy = Policy(run.past.restore(policy.lm))
    lm = stage.trainable.attach(
        policy.lm, derive(run.seed, number), Data(run.forget, run.retain), run.outcome.notes
    )
    policy = Policy(lm).to(run.accelerator.device)
    if device.sharded():
        shard(lm)
    movable = {n: p for n, p in policy.lm.named_parameters() if p.requires_grad}
    trained = sum(p.numel() for p in movable.values())
    run.outcome.trained_parameters = max(run.outcome.trained_parameters, trained)
    built = device.lean(stage.optimizer.build(movable.values()))
    scheduler = torch.optim.lr_scheduler.LambdaLR(built, rate(stage.schedule, run.lengths[number]))
    if state:
        state.restore(movable, built, scheduler)
    # several processes average their gradients in `step`, or hold shards: neither is for `accelerate` to wrap
    prepared, optimizer = (
        run.accelerator.prepare(policy, built) if device.processes() == 1 else (policy, built)
    )
    prepared.train()
    control, term = stage.objective.control, stage.objective.forget
    if state is None or state.meta["step"] == 0:
        run.outcome.control = control.start() if control else {}
    reads_helper = term is not None and term.helper
    return Training(
        stage=stage,
        number=number,
        policy=policy,
        prepared=prepared,
        movable=movable,
        built=built,
        optimizer=optimizer,
        scheduler=scheduler,
        other=run.others.get(term.other) if term is not None and term.other else None,
        references=replace(run.references, helper=helper_of(run.past)) if reads_helper else run.references,
        most=device.micro_tokens(stage.schedule.micro_tokens),
        per_epoch=max(1, round(run.lengths[number] / stage.schedule.epochs)),
    )


def step(run: Run, now: Training, at: int, rows: Rows) -> bool:
    """Step number ``at`` (from 0) of a stage on these rows; False if the run diverged before it moved any
    weight.
    """
    torch.manual_seed(derive(run.seed, "dropout", now.number, at))
    now.optimizer.zero_grad(set_to_none=True)
    control = now.stage.objective.control
    weight = control.weight(run.outcome.control) if control else None
    micros = list(micro_batches(rows, run.forget, run.retain, now.most, run.accelerator.device, now.other))
    losses = backward(run, now, micros, weight)
    device.average_gradients(now.movable.values())
    norm = global_norm(now.movable.values(), now.stage.schedule.clip)
    here = f"stage {now.stage.name!r}, step {at + 1}"
    if not (torch.isfinite(losses).all() and math.isfinite(norm)):
        return run.outcome.diverge(f"{here}: loss {losses[0]:.4g}, gradient norm {norm:.4g}")
    if now.stage.optimizer.second_order and not look(run, now, at, micros, weight):
        return run.outcome.diverge(f"{here}: the curvature estimate is not finite")
    move(run.outcome, now)
    if control:
        forget, retain = float(losses[1]), float(losses[2])
        run.outcome.control = control.update(run.outcome.control, forget, retain, at, now.per_epoch)
    done = sum(run.lengths[: now.number]) + at + 1
    run.advance(done)
    if done in run.marks:
        point = {"step": done, "stage": now.stage.name, "gradient_norm": norm}
        point |= dict(zip(("loss", "loss_forget", "loss_retain"), losses.tolist(), strict=True))
        note(run, now, point if weight is None else point | {"retain_weight": weight})
        if run.checkpoint and device.first():
            run.checkpoint.save(now.number, at + 1, run.outcome, now.movable, now.optimizer, now.scheduler)
    return True


def backward(run: Run, now: Training, micros: list[StepBatch], weight: float | None) -> torch.Tensor:
    """Gradients of the whole step, a part after the other; returns its losses (total, forget, retain) on the
    CPU.
    """
    losses = torch.zeros(
        3, device=run.accelerator.device
    )  # there until the step is over: no pass waits for another
    for micro, factor in device.own_share(micros):
        with run.accelerator.autocast():
            loss = now.stage.objective(now.prepared, now.references, micro, weight)
        if not loss.total.requires_grad:
            raise SpecError(
                f"stage {now.stage.name!r}: the loss does not depend on any weight that"
                f" {now.stage.trainable} lets move (a term that reads a block sees nothing above it); use"
                " trainable='full' or a deeper layer."
            )
        run.accelerator.backward(loss.total if factor == 1 else factor * loss.total)
        if factor:
            losses += torch.stack([x.detach().float() for x in loss])
        del loss  # its graph too: 8-bit layers keep their inputs in it, which would be there in the next pass
    return device.summed(losses).cpu()


def look(run: Run, now: Training, at: int, micros: list[StepBatch], weight: float | None) -> bool:
    """Let a second-order optimizer look at the curvature; False if what it sees is not finite."""
    moment = Moment(
        policy=now.prepared,
        objective=now.stage.objective,
        references=now.references,
        batches=micros,
        forget=run.forget,
        retain=run.retain,
        parameters=list(now.movable.values()),
        step=at,
        per_epoch=now.per_epoch,
        seed=derive(run.seed, now.number),
        retain_weight=weight,
    )
    now.estimates = now.stage.optimizer.estimate(moment)
    if now.estimates is None:  # none is due
        return True
    if not all(torch.isfinite(x).all() for x in now.estimates):
        return False
    assert isinstance(now.built, Curved), (
        "a second-order description builds an optimizer that takes estimates"
    )
    now.built.curve(now.estimates)
    return True


def move(outcome: Outcome, now: Training) -> None:
    """The optimizer's step and the learning rate's; of the run's first step, which share of the weights it
    left alone.
    """
    before = device.copies(now.movable.values()) if outcome.unchanged_after_first_step is None else None
    now.optimizer.step()
    now.scheduler.step()
    if before:
        outcome.unchanged_after_first_step = share_unchanged(before, now.movable.values())
    if device.on_gpu():
        now.optimizer.zero_grad(
            set_to_none=True
        )  # memory that evaluations, or the next step's activations, can use


def note(run: Run, now: Training, point: dict[str, Any]) -> None:
    """Measure the model and log it beside the step's losses and what the optimizer says of itself."""
    if not run.measure:
        return
    if isinstance(now.built, Curved):
        point |= {f"optimizer/{k}": v for k, v in now.built.diagnostics().items()}
    run.log(point, now.policy.lm)
    now.prepared.train()
    if run.bar is not None:
        run.bar.set_postfix({k: f"{v:.2f}" for k, v in point.items() if k.startswith("loss")}, refresh=False)


def global_norm(parameters: Iterable[nn.Parameter], clip: float | None) -> float:
    """Global gradient norm, after which gradients are scaled to at most ``clip``."""
    grads = [p for p in parameters if p.grad is not None]
    return device.whole_number(torch.nn.utils.clip_grad_norm_(grads, clip if clip else float("inf")))


def share_unchanged(before: Iterable[torch.Tensor], after: Iterable[torch.Tensor]) -> float:
    """Share of weights that a step left bit-identical (lost updates where the precision is too low)."""
    pairs = [(device.held(b), device.held(a.detach())) for b, a in zip(before, after, strict=True)]
    same = sum(int((b.to(a.device) == a).sum()) for b, a in pairs)
    counts = torch.tensor([same, sum(b.numel() for b, _ in pairs)], dtype=torch.float64)
    same, total = (device.summed(counts) if device.sharded() else counts).tolist()
    return same / max(1.0, total)
