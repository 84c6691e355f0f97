"""The loop: its maths against a loop written out by hand, and what it promises about bytes, orders and failures."""

import copy
import json
import math
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from conftest import byte_tokenizer, processes, small_corpus, tiny_lm
from safetensors.torch import save_file

from reprolib.adapters.base import LoRA
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.adapters.names import named
from reprolib.corpus.batching import Tokens, encode_rows
from reprolib.edits.weights import Extrapolate, MergeAdapters, Noise
from reprolib.errors import RecordError, SpecError
from reprolib.objectives import (
    DPO,
    KL,
    NLL,
    NPO,
    PDU,
    WHP,
    Anchor,
    Ascent,
    DualAscent,
    Feedback,
    KLAndNLL,
    Misdirect,
    Objective,
    Other,
    Term,
)
from reprolib.optim import SGD, AdamW, Influence, Sophia
from reprolib.recipes.base import Schedule, Stage
from reprolib.unlearn.answers import other_answers
from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import share_unchanged, unlearn
from reprolib.unlearn.order import measuring_points, n_steps, rate, steps
from reprolib.unlearn.run import Outcome

pytestmark = pytest.mark.usefixtures("one_thread")


def stage(name="ascent", objective=None, trainable="full", optimizer=None, restart=False, keep="", **schedule):
    objective = objective or Objective(forget=Ascent())
    pairing = "forget" if objective.retain is None else "retain" if objective.forget is None else "paired"
    schedule = Schedule(**{"epochs": 2, "batch_size": 3, "pairing": pairing} | schedule)
    optimizer = optimizer or AdamW(lr=1e-3)
    return Stage(
        name=name, objective=objective, trainable=named(trainable), optimizer=optimizer, schedule=schedule, restart=restart, keep=keep,
    )  # fmt: skip


ASCENT, DESCENT = Objective(forget=Ascent()), Objective(retain=NLL())


PAIRED = Objective(forget=NPO(beta=0.1), retain=KL())


# Two stages each, so that a kill can fall into the first, into the second, and between them.
PLANS = {
    "ascent-descent": lambda: (
        stage("ascent", ASCENT, epochs=2, warmup=0.5, decay="linear"),
        stage("descent", DESCENT, epochs=2, optimizer=SGD(lr=1e-2, momentum=0.9)),
    ),
    "lora-full": lambda: (stage("lora", PAIRED, "lora-4", epochs=2), stage("full", PAIRED, epochs=2)),
    "full-lora": lambda: (
        stage("full", ASCENT, epochs=2, optimizer=SGD(lr=1e-2)),  # plain SGD keeps no state
        stage("lora", PAIRED, LoRA(rank=4, alpha=8, dropout=0.2), epochs=2),
    ),
    "full-last": lambda: (stage("full", ASCENT, epochs=2), stage("last", DESCENT, "last-1", epochs=2)),
}


BOTH = Objective(forget=Ascent(), retain=NLL())


def adapter(name, npo, **more):
    objective = Objective(forget=NPO(), retain=KLAndNLL(), forget_weight=npo)
    return stage(name, objective, LoRA(rank=4, alpha=4, dropout=0.1), keep=f"adapter:{name}", **more)


# All else that a checkpoint has to carry.
MORE = {
    "curvature": lambda: (
        stage("sophia", PAIRED, optimizer=Sophia(lr=1e-3, hessian="gnb", interval=3)),
        stage("influence", ASCENT, "lora-4", optimizer=Influence(lr=0.1, value=0.1)),
    ),
    "controls": lambda: (
        stage("dual", Objective(forget=PDU(), retain=NLL(), control=DualAscent(epsilon=0.1, initial=2, warmup_epochs=1)), epochs=3),
        stage("feedback", Objective(forget=Ascent(), retain=NLL(), control=Feedback()), epochs=3),
    ),
    "chunks": lambda: (
        stage("interleaved", BOTH, pairing="interleaved", chunk=2, ratio=2, epochs=1),
        stage("alternating", BOTH, pairing="alternating", chunk=3, share=0.5, epochs=2),
    ),
    "merged": lambda: (
        adapter("first", 0.4), adapter("second", 0.3, restart=True), MergeAdapters(rank=4, alpha=4), stage("last", DESCENT, "last-1"),
    ),
    "dare": lambda: (
        adapter("first", 0.4), adapter("second", 0.3, restart=True),
        MergeAdapters(rank=4, alpha=4, combination="dare_ties", density=0.5),
    ),
    "helper": lambda: (
        stage("reinforce", Objective(forget=NLL()), keep="helper"), stage("generic", Objective(forget=WHP()), restart=True),
        Extrapolate(factor=0.5), Noise(scale=0.01), Extrapolate(factor=-1.0, name="again"),
    ),
    "answers": lambda: (
        stage("dpo", Objective(forget=DPO(other="idk"), retain=KL())), stage("labels", Objective(forget=Other(other="random"))),
        stage("rmu", Objective(forget=Misdirect(layer=0, adaptive=True), retain=Anchor(layer=0)), "mlp-0-0"),
    ),
    "fisher": lambda: (
        stage("fila", PAIRED, FisherLoRA(rank=4, alpha=8)),
        stage("vila", PAIRED, FisherLoRA(rank=4, alpha=8, space="lora", centred=True, batch_size=1)),
    ),
}  # fmt: skip


def data():
    tokenizer, corpus = byte_tokenizer(), small_corpus()
    return encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"])


def probe(lm) -> dict[str, float]:
    return {"sum": float(sum(p.detach().double().abs().sum() for p in lm.parameters()))}


def run(stages, *, seed=0, lm=None, **more):
    forget, retain = data()
    more["others"] = {k: other_answers(k, small_corpus()["forget"], byte_tokenizer(), seed) for k in ("idk", "random")}
    more = {"measure": probe, "progress": False, "points": 8} | more
    return unlearn(lm or tiny_lm(), stages, forget, retain, seed=seed, **more)


def weights(lm):
    return {n: p.detach().clone() for n, p in lm.named_parameters()}


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# --- the same maths as a loop written out by hand ------------------------------------------------------------


def test_the_loop_equals_one_written_out_with_transformers_alone():
    forget, retain = data()
    beta, weight, lr = 0.1, 0.7, 2e-3
    objective = Objective(forget=NPO(beta=beta), retain=NLL(), retain_weight=weight)
    adamw = AdamW(lr=lr, weight_decay=0.1)
    the_stage = stage("npo", objective, epochs=3, optimizer=adamw, warmup=0.5, decay="linear", micro_tokens=64)
    mine, outcome = run((the_stage,))

    lm, start = tiny_lm(), tiny_lm()
    total = 6  # 5 rows in batches of 3 are 2 steps an epoch
    factors = [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]  # up over 3 steps, then (6 - step) / 3
    optimizer = torch.optim.AdamW(lm.parameters(), lr=lr, weight_decay=0.1)

    def sequence_logp(model, tokens, i):
        row = torch.tensor([tokens.ids[i]])
        logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, :-1]
        return F.log_softmax(logits, -1)[range(len(row[0]) - 1), row[0, 1:]][tokens.prompt[i] - 1 :].sum()

    orders = steps(the_stage.schedule, forget, retain, 0, 0)
    for step in range(total):
        f, r = next(orders)
        d = torch.stack([sequence_logp(lm, forget, i) - sequence_logp(start, forget, i).detach() for i in f])
        loss = (-2 / beta * torch.log(torch.sigmoid(-beta * d))).mean()
        loss = loss - weight * sum(sequence_logp(lm, retain, i) for i in r) / sum(retain.n_labels(i) for i in r)
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in lm.parameters()))
        for p in lm.parameters():
            p.grad *= min(1, 1 / norm)
        optimizer.param_groups[0]["lr"] = lr * factors[step]
        optimizer.step()
        if outcome.trajectory[1:][step]["step"] == step + 1:
            assert outcome.trajectory[1:][step]["loss"] == pytest.approx(loss.item(), abs=2e-4)
            assert outcome.trajectory[1:][step]["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert outcome.steps == total and [p["step"] for p in outcome.trajectory] == list(range(total + 1))
    for (name, a), (_, b), (_, c) in zip(mine.named_parameters(), lm.named_parameters(), start.named_parameters(), strict=True):
        assert (a - b).abs().max() < 1e-4 and (b - c).abs().max() > 2e-3, name


def test_adamw_equals_its_equations():
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p <- p - lr wd p - lr m^ / (sqrt(v^) + eps), on (p - c)^2 a / 2."""
    a, c = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = AdamW(lr=0.05, weight_decay=0.02, beta1=0.8, beta2=0.95, eps=1e-6).build([p])
    q, m, v = torch.zeros(3, dtype=torch.float64), 0, 0
    for t in range(1, 31):
        optimizer.zero_grad()
        (0.5 * a * (p - c) ** 2).sum().backward()
        optimizer.step()
        g = a * (q - c)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        q = q - 0.05 * 0.02 * q - 0.05 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-6)
    assert torch.allclose(p.detach(), q, atol=1e-12)
    assert (q.abs() > 0.5).all()


def test_sgd_by_hand():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = SGD(lr=0.1, momentum=0.5).build([p])
    for _ in range(2):
        optimizer.zero_grad()
        (p**2).sum().backward()  # gradients 2 and 1.6; velocities 2 and 0.5 * 2 + 1.6 = 2.6
        optimizer.step()
    assert p.item() == pytest.approx(1 - 0.2 - 0.26)


@pytest.mark.parametrize("make", [lambda: AdamW(lr=-1), lambda: AdamW(lr=float("nan")), lambda: SGD(momentum=-0.1)])
def test_optimizers_refuse_negative_settings(make):
    with pytest.raises(SpecError, match="must be >= 0"):
        make()


def test_warm_up_and_decay_factors():
    def factors(total, **schedule):
        factor = rate(Schedule(**schedule), total)
        return [round(factor(k), 6) for k in range(total)]

    assert factors(4) == [1, 1, 1, 1]
    assert factors(4, decay="linear") == [1, 0.75, 0.5, 0.25]
    assert factors(5, warmup=0.4) == [0.5, 1, 1, 1, 1]
    assert factors(10, warmup=0.4, decay="linear") == [0.25, 0.5, 0.75, 1, 1, 0.833333, 0.666667, 0.5, 0.333333, 0.166667]
    assert factors(3, warmup=1.0, decay="linear") == [0.333333, 0.666667, 1]
    assert factors(1, warmup=0.1) == [1]


def test_clipping_bounds_the_step():
    big, small = (run((stage(optimizer=SGD(lr=1.0), epochs=0.5, clip=clip),))[0] for clip in (None, 1e-3))
    start = weights(tiny_lm())

    def moved(lm):
        return math.sqrt(sum(float(((p - start[n]).double() ** 2).sum()) for n, p in weights(lm).items()))

    assert moved(small) == pytest.approx(1e-3, rel=1e-3)
    assert moved(big) > 0.1


# --- how many steps, on which rows ---------------------------------------------------------------------------


def test_number_of_steps():
    def n(forget, retain, **schedule):
        return n_steps(Schedule(**schedule), forget, retain)

    assert n(10, 99, epochs=3, batch_size=4) == 9
    assert n(10, 4, epochs=3, batch_size=4, pairing="retain") == 3
    assert n(10, 4, epochs=0.5, batch_size=2) == 2  # half of 5 steps, to the even one
    assert n(10, 4, epochs=1.5, batch_size=5) == 3
    assert n(10, 4, epochs=0.01, batch_size=4) == 1  # at least one step
    assert n(1, 50, epochs=4, batch_size=16) == 4
    assert n(3, 50, epochs=2, batch_size=100) == 2


def test_measuring_points():
    assert sorted(measuring_points(100, 10)) == list(range(10, 101, 10))
    assert sorted(measuring_points(3, 10)) == [1, 2, 3]
    assert sorted(measuring_points(7, 2)) == [4, 7]
    assert measuring_points(1, 10) == {1}
    assert measuring_points(0, 10) == measuring_points(5, 0) == set()
    for total in range(1, 60):
        points = measuring_points(total, 10)
        assert max(points) == total and min(points) >= 1 and len(points) <= 10


def rows_of(n):
    return Tokens(((1, 2, 3),) * n, (1,) * n, ("answer",) * n)


def take(count, n_forget=5, n_retain=7, seed=0, number=0, **schedule):
    iterator = steps(Schedule(**schedule), rows_of(n_forget), rows_of(n_retain), seed, number)
    return [next(iterator) for _ in range(count)]


def test_paired_rows_cover_both_sets_before_they_repeat():
    made = take(7, batch_size=2)  # 3 steps an epoch of 5 forget rows; 7 steps draw the 7 retain rows twice
    assert [len(f) for f, _ in made] == [2, 2, 1, 2, 2, 1, 2]
    assert {len(r) for _, r in made} == {2}  # as many retain rows also beside a short batch
    for epoch in (made[:3], made[3:6]):
        assert sorted(i for f, _ in epoch for i in f) == list(range(5))
    drawn = [i for _, r in made for i in r]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == list(range(7))
    assert drawn[:7] != drawn[7:] and [f for f, _ in made[:3]] != [f for f, _ in made[3:6]]  # reshuffled


def test_one_sided_orders_cover_their_set_once_an_epoch():
    made = take(6, batch_size=2, pairing="forget")
    assert all(r is None for _, r in made)
    for epoch in (made[:3], made[3:]):
        assert sorted(i for f, _ in epoch for i in f) == list(range(5))
    made = take(8, batch_size=2, pairing="retain")
    assert all(f is None for f, _ in made)
    for epoch in (made[:4], made[4:]):
        assert sorted(i for _, r in epoch for i in r) == list(range(7))


def test_one_forget_row_and_batches_larger_than_the_sets():
    assert [f for f, _ in take(3, n_forget=1, batch_size=16)] == [[0]] * 3
    for f, r in take(3, batch_size=100):
        assert sorted(f) == list(range(5)) and sorted(r) == list(range(7))


def test_orders_depend_on_seed_and_stage_only():
    assert take(9, batch_size=2) == take(9, batch_size=2)
    assert len({json.dumps(take(9, batch_size=2, seed=s, number=k)) for s in (0, 1) for k in (0, 1)}) == 4


def chunked(n_forget=5, n_retain=7, seed=0, number=0, **schedule):
    schedule = Schedule(**schedule)
    made = list(steps(schedule, rows_of(n_forget), rows_of(n_retain), seed, number))
    assert len(made) == n_steps(schedule, n_forget, n_retain)  # these orders end by themselves
    assert all((f is None) != (r is None) for f, r in made)  # a step sees one side
    return made


def test_interleaved_rows_by_hand():
    made = chunked(pairing="interleaved", chunk=2, ratio=3, batch_size=1, epochs=2)
    assert ["f" if r is None else "r" for _, r in made] == ["f", "r", "r", "r"] * 10
    forget, retain = [f for f, _ in made if f], [r for _, r in made if r]
    first, second, third = forget[:4], forget[4:8], forget[8:]  # two rows, two rows, one row, twice each
    for chunk in (first, second):
        assert sorted(chunk[:2]) == sorted(chunk[2:]) and chunk[0] != chunk[1]  # one pass, then another
    assert third[0] == third[1]
    assert sorted(f[0] for f in forget) == sorted([*range(5)] * 2)
    drawn = [i for r in retain for i in r]
    for cycle in range(4):  # 30 steps: the 7 retain rows four times over before any comes a fifth time
        assert sorted(drawn[7 * cycle : 7 * cycle + 7]) == list(range(7))
    assert chunked(pairing="interleaved", chunk=2, ratio=3, batch_size=1, epochs=2) == made
    assert chunked(pairing="interleaved", chunk=2, ratio=3, batch_size=1, epochs=2, seed=1) != made


def test_alternating_rows_by_hand():
    made = chunked(pairing="alternating", chunk=3, share=0.5, batch_size=2, epochs=2)
    # chunks of 3 and 2 rows: 2 x 2 and 2 x 1 forget steps; then twice 2 steps over 4 of the 7 retain rows
    assert "".join("f" if r is None else "r" for _, r in made) == "ffffrrrr" + "ffrrrr"
    forget, retain = [f for f, _ in made if f], [r for _, r in made if r]
    assert [len(f) for f in forget] == [2, 1, 2, 1, 2, 2] and {len(r) for r in retain} == {2}
    one, two = {i for f in forget[:4] for i in f}, {i for f in forget[4:] for i in f}
    assert len(one) == 3 and len(two) == 2 and one | two == set(range(5))
    for passes in (forget[:4], forget[4:]):
        half = len(passes) // 2
        assert sorted(i for f in passes[:half] for i in f) == sorted(i for f in passes[half:] for i in f)
    shares = []
    for passes in (retain[:4], retain[4:]):
        assert sorted(i for r in passes[:2] for i in r) == sorted(i for r in passes[2:] for i in r)
        shares.append({i for r in passes for i in r})
        assert len(shares[-1]) == 4
    assert shares[0] != shares[1]  # drawn anew for each chunk


@pytest.mark.parametrize("pairing", ["interleaved", "alternating"])
def test_chunks_at_the_edges(pairing):
    for n, chunk, size, epochs in ((1, 32, 16, 3), (1, 1, 1, 0.5), (5, 100, 2, 1), (5, 2, 100, 1.5), (5, 1, 1, 0.1), (6, 3, 2, 2)):
        made = chunked(n, pairing=pairing, chunk=chunk, batch_size=size, epochs=epochs, ratio=2, share=1.0)
        seen = [i for f, _ in made for i in f or ()]
        assert set(seen) <= set(range(n)) and (epochs < 1 or set(seen) == set(range(n)))
        if epochs == int(epochs):
            assert sorted(seen) == sorted([*range(n)] * int(epochs))
        else:  # every chunk has its steps rounded, and at least one
            own = [min(chunk, n - i) for i in range(0, n, chunk)]
            assert sum(f is not None for f, _ in made) == sum(max(1, round(epochs * math.ceil(c / size))) for c in own)
    assert all(r is None for _, r in chunked(pairing="interleaved", ratio=0))
    small = chunked(n_retain=2, pairing=pairing, chunk=5, batch_size=4, share=0.01)
    assert {len(r) for _, r in small if r} == {2 if pairing == "interleaved" else 1}  # never a retain row twice in a step


def test_a_chunked_stage_makes_the_steps_that_it_promises():
    for pairing, expected in (("interleaved", 3 * 2 * 8), ("alternating", 3 * 2 + 3 * 2)):
        chunky = stage("chunks", BOTH, pairing=pairing, chunk=2, batch_size=2, epochs=2, share=0.5)
        _, outcome = run((chunky,), points=1000)
        assert outcome.steps == expected and [p["step"] for p in outcome.trajectory] == list(range(expected + 1))
        for p in outcome.trajectory[1:]:
            assert (p["loss_forget"] == 0) != (p["loss_retain"] == 0)


def test_one_row_half_an_epoch_and_too_large_a_batch_run():
    forget, retain = data()
    one = Tokens(forget.ids[:1], forget.prompt[:1], forget.labels[:1])
    for epochs, expected in ((0.5, 1), (3, 3)):
        lm, outcome = unlearn(tiny_lm(), (stage("npo", PAIRED, epochs=epochs, batch_size=64),), one, retain, seed=0, progress=False)
        assert (outcome.status, outcome.steps) == ("done", expected)
        assert not equal(weights(lm), weights(tiny_lm()))


# --- determinism and records of the loop ---------------------------------------------------------------------


def test_same_seed_same_bytes_another_seed_other_bytes():
    plan = PLANS["lora-full"]
    (a, first), (b, second), (c, third) = run(plan()), run(plan()), run(plan(), seed=1)
    assert equal(weights(a), weights(b)) and first == second
    assert not equal(weights(a), weights(c)) and first.trajectory != third.trajectory
    assert first.trajectory[0] == {"step": 0, "stage": "", **probe(tiny_lm())}


def test_global_random_state_does_not_matter():
    torch.manual_seed(1)
    a, _ = run(PLANS["lora-full"]())
    torch.manual_seed(2)
    torch.rand(10)
    b, _ = run(PLANS["lora-full"]())
    assert equal(weights(a), weights(b))


def test_trajectory_and_counts():
    _, outcome = run(PLANS["lora-full"](), points=4)
    assert [(p["step"], p["stage"]) for p in outcome.trajectory] == [(0, ""), (2, "lora"), (4, "lora"), (6, "full"), (8, "full")]
    assert outcome.steps == 8 and outcome.status == "done" and outcome.reason == ""
    assert outcome.trained_parameters == sum(p.numel() for p in tiny_lm().parameters())
    assert all(p["loss"] == pytest.approx(p["loss_forget"] + p["loss_retain"], abs=1e-4) for p in outcome.trajectory[1:])
    _, silent = run(PLANS["lora-full"](), measure=None)
    assert silent.trajectory == [] and silent.steps == 8


def test_measuring_does_not_change_the_result():
    def measure(lm):  # as the real one: it leaves the model in evaluation mode, without dropout, and draws numbers
        torch.rand(3)
        return probe(lm.eval())

    plan = PLANS["full-lora"]()
    assert equal(weights(run(plan, points=8, measure=measure)[0]), weights(run(plan, measure=None)[0]))
    without = (plan[0], stage("lora", PAIRED, "lora-4", epochs=2))
    assert not equal(weights(run(plan)[0]), weights(run(without)[0]))  # the plan does drop something


def test_share_of_weights_that_the_first_step_left():
    assert share_unchanged([torch.zeros(3), torch.ones(1)], [torch.tensor([0.0, 1.0, 0.0]), torch.ones(1)]) == 0.75
    _, moved = run((stage(optimizer=SGD(lr=1.0)),))
    assert moved.unchanged_after_first_step < 0.9
    _, lost = run((stage(optimizer=SGD(lr=1e-20)),))  # far below the spacing of floats
    assert lost.unchanged_after_first_step > 0.99
    start = tiny_lm()
    lm, outcome = run((stage(optimizer=SGD(lr=1.0), epochs=0.5),), lm=copy.deepcopy(start))
    same = sum(int((a == b).sum()) for a, b in zip(lm.parameters(), start.parameters(), strict=True))
    assert outcome.unchanged_after_first_step == same / sum(p.numel() for p in start.parameters())


def test_a_live_reference_trains_like_a_kept_one(monkeypatch):
    def trained(stages):
        lm, outcome = run(stages, points=2)
        return lm, outcome.trajectory

    for plan in (
        (stage("lora", PAIRED, "lora-4", optimizer=SGD(lr=0.1)),),  # the adapter switched off
        (stage("full", PAIRED, optimizer=SGD(lr=0.1)), stage("again", PAIRED, optimizer=SGD(lr=0.1))),  # a frozen copy
        (stage("pissa", PAIRED, LoRA(rank=4, alpha=8, init="pissa"), optimizer=SGD(lr=0.1)),),
    ):
        monkeypatch.setattr("reprolib.unlearn.references.CACHE_BYTES", 2**40)
        kept, expected = trained(plan)
        monkeypatch.setattr("reprolib.unlearn.references.CACHE_BYTES", 0)
        live, found = trained(plan)
        for a, b in zip(kept.parameters(), live.parameters(), strict=True):
            assert (a - b).abs().max() < 1e-5
        assert found[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=1e-4)
        assert found[-1]["loss_retain"] > 1e-4  # the KL has something to compare


# --- divergence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explodes(Term):
    """Ascent until the ``at``-th call, then NaN."""

    calls: list
    at: int
    unit: ClassVar[str] = "token"
    needs: ClassVar[None] = None

    def __call__(self, scored, reference):
        self.calls.append(1)
        return scored.token_logp * (float("nan") if len(self.calls) >= self.at else 1.0)


@pytest.mark.parametrize("at", [1, 4])
def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_weights(at):
    objective = Objective(forget=Explodes([], at))
    lm, outcome = run((stage("bad", objective, epochs=4, batch_size=8), stage("never", DESCENT)))
    assert outcome.status == "diverged" and outcome.steps == at - 1
    assert f"stage 'bad', step {at}: loss nan" in outcome.reason
    assert {p["stage"] for p in outcome.trajectory} <= {"", "bad"}
    expected = tiny_lm() if at == 1 else run((stage("good", epochs=at - 1, batch_size=8),))[0]
    assert equal(weights(lm), weights(expected))


@dataclass(frozen=True, kw_only=True)
class Wild(Sophia):
    """Sophia whose third estimate is infinite in one place."""

    def estimate(self, moment):
        found = Sophia.estimate(self, moment)
        if moment.step == 2:
            found[-1].view(-1)[0] = float("inf")
        return found


def test_a_curvature_estimate_that_is_not_finite_stops_the_run_at_the_last_weights():
    lm, outcome = run((stage("wild", PAIRED, optimizer=Wild(lr=1e-3, interval=1)), stage("never", DESCENT)))
    assert (outcome.status, outcome.steps) == ("diverged", 2)
    assert outcome.reason == "stage 'wild', step 3: the curvature estimate is not finite"
    expected, _ = run((stage("tame", PAIRED, optimizer=Sophia(lr=1e-3, interval=1), epochs=1),))
    assert equal(weights(lm), weights(expected))


# --- what stages leave to one another -------------------------------------------------------------------------


def test_restart_begins_from_the_weights_before_unlearning():
    again = run((stage("first", optimizer=AdamW(lr=1e-2)), stage("second", PAIRED, restart=True)))[0]
    alone = run((Noise(scale=0.0), stage("second", PAIRED)))[0]  # the same stage number, hence the same orders
    assert equal(weights(again), weights(alone))
    on = run((stage("first", optimizer=AdamW(lr=1e-2)), stage("second", PAIRED)))[0]
    assert not equal(weights(again), weights(on))


def test_the_helper_is_the_model_as_its_stage_left_it(monkeypatch):
    from reprolib.corpus.batching import collate
    from reprolib.models.policy import Policy
    from reprolib.unlearn import loop

    seen = []
    real = loop.helper_of
    monkeypatch.setattr(loop, "helper_of", lambda past: (seen.append(real(past)), seen[-1])[1])
    reinforced, _ = run((stage("reinforce", Objective(forget=NLL())),))
    run(MORE["helper"]()[:2])
    forget, _ = data()
    assert len(seen) == 1 and len(seen[0].logits) == len(forget)
    with torch.no_grad():
        for i in range(len(forget)):
            assert torch.allclose(seen[0].logits[i], Policy(reinforced)(collate(forget, [i])).logits, atol=1e-5)


def test_the_state_of_a_control_is_that_of_its_equations():
    dual = DualAscent(epsilon=0.1, initial=2.0, warmup_epochs=1)
    _, outcome = run((stage("dual", Objective(forget=PDU(), retain=NLL(), control=dual), epochs=3),), points=100)
    points = outcome.trajectory[1:]
    expected = 2.0
    for number, p in enumerate(points):  # two steps an epoch
        assert p["retain_weight"] == pytest.approx(expected)
        assert p["loss"] == pytest.approx(p["loss_forget"] + expected * p["loss_retain"], rel=1e-5)
        if number >= 2:
            expected = max(0.0, expected + p["loss_retain"] - 0.1)
    assert outcome.control["lambda"] == pytest.approx(expected) and expected > 3


# --- refused --------------------------------------------------------------------------------------------------


def cut(tokens, n):
    return Tokens(tokens.ids[:n], tokens.prompt[:n], tokens.labels[:n])


def test_other_answers_that_are_missing_too_few_or_of_two_kinds():
    forget, retain = data()
    idk = Objective(forget=DPO(other="idk"))
    go = {"seed": 0, "progress": False}
    with pytest.raises(SpecError, match="DPO reads other answers of kind 'idk'; hand them in"):
        unlearn(tiny_lm(), (stage("dpo", idk),), forget, retain, **go)
    with pytest.raises(SpecError, match=r"others\['idk'\] has 2 rows"):
        unlearn(tiny_lm(), (stage("dpo", idk),), forget, retain, others={"idk": cut(forget, 2)}, **go)
    two = (stage("a", idk), stage("b", Objective(forget=DPO(other="random"))))
    with pytest.raises(SpecError, match=r"several kinds of other answers .*\['idk', 'random'\]"):
        run(two)
    with pytest.raises(SpecError, match="forget has 0 rows"):
        unlearn(tiny_lm(), (stage(),), cut(forget, 0), retain, **go)


def test_two_kinds_of_other_answers_train_where_nothing_is_compared_with_the_start():
    stages = (stage("a", Objective(forget=DPO(other="idk"))), stage("b", Objective(forget=Other(other="random"))))
    assert run(stages)[1].status == "done"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (lambda: (stage("whp", Objective(forget=WHP())),), "WHP reads a helper model, but no stage before it"),
        (lambda: (stage("whp", Objective(forget=WHP()), keep="helper"),), "no stage before it"),
        (lambda: (MergeAdapters(rank=4, alpha=4), adapter("first", 1.0)), r"no stage before it keeps .*\['first', 'second'\]"),
        (lambda: (adapter("first", 1.0), MergeAdapters(rank=4, alpha=4)), r"adapter\(s\) \['second'\]; kept are \['first'\]"),
        (lambda: (adapter("first", 1.0), adapter("second", 1.0), MergeAdapters(rank=8, alpha=4)), "rank 4 and alpha 4, the merge rank 8"),
        (lambda: stage(), "must be a tuple of stages and edits, got Stage"),
        (lambda: (stage(), "noise"), "part 1 of a recipe must be a Stage or an edit .* got 'noise'"),
    ],
)
def test_plans_that_cannot_work_are_refused_before_the_first_step(stages, message):
    with pytest.raises(SpecError, match=message):
        run(stages(), measure=lambda lm: pytest.fail("began"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": "adapter:a"}, r"leaves none; use trainable LoRA"),
        ({"keep": "adapter:a", "trainable": LoRA(rank=4, init="pissa")}, "leaves none"),
        ({"keep": "adapter:a", "trainable": FisherLoRA(rank=4)}, "leaves none"),
        ({"keep": "adapter:", "trainable": "lora-4"}, "keep must be"),
        ({"keep": "adapter:a.b", "trainable": "lora-4"}, "keep must be"),
        ({"keep": "adapter:helper", "trainable": "lora-4"}, "neither 'helper' nor 'default'"),
        ({"keep": "adapter:default", "trainable": "lora-4"}, "neither 'helper' nor 'default'"),
        ({"keep": "weights"}, "keep must be"),
        ({"keep": None}, "keep must be"),
        ({"pairing": "interleaved"}, "uses .* rows, but the objective has terms for"),
        ({"objective": Objective(forget=Ascent(), retain=NLL(), control=Feedback()), "pairing": "alternating"}, "needs a retain term and"),
        ({"objective": Objective(forget=Ascent(), control=Feedback())}, "Feedback steers the retain weight"),
        ({"trainable": None}, "trainable must be one of"),
        ({"trainable": ["full"]}, "trainable must be one of"),
    ],
)  # fmt: skip
def test_stages_that_make_no_sense_are_refused(change, message):
    with pytest.raises(SpecError, match=message):
        stage(**change)


@pytest.mark.parametrize("bad", [None, True, "3", [3], float("nan"), float("inf"), -1, 0, 2.5])
@pytest.mark.parametrize("name", ["epochs", "batch_size", "chunk", "ratio", "share", "micro_tokens", "warmup", "clip"])
def test_schedules_refuse_what_is_no_number_of_theirs(name, bad):
    fine = {("epochs", 2.5), ("clip", 2.5), ("clip", None), ("ratio", 0), ("warmup", 0)}
    if (name, bad) in [(n, b) for n, b in fine if type(b) is type(bad)]:
        Schedule(**{name: bad})
        return
    with pytest.raises(SpecError, match=f"schedule: {name}.*got"):
        Schedule(**{name: bad})


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["forget", "retain"])
def test_weights_of_terms_are_finite_and_not_negative(side, weight):
    with pytest.raises(SpecError, match=f"{side}_weight must be >= 0 and finite, got"):
        Objective(forget=Ascent(), retain=NLL(), **{f"{side}_weight": weight})


def test_whole_numbers_may_come_as_floats():
    schedule = Schedule(batch_size=4.0, chunk=8.0, ratio=2.0, pairing="interleaved")
    assert (schedule.batch_size, schedule.chunk, schedule.ratio) == (4, 8, 2)
    assert {type(x) for x in (schedule.batch_size, schedule.chunk, schedule.ratio)} == {int}


def test_a_loss_that_no_trainable_weight_changes_is_refused():
    rmu = Objective(forget=Misdirect(layer=0), retain=Anchor(layer=0))
    with pytest.raises(SpecError, match="does not depend on any weight that LastLayers"):
        run((stage("rmu", rmu, "last-1"),))


@pytest.mark.parametrize("trainable", ["full", "lora-4"])
def test_an_absurd_learning_rate_ends_as_diverged_with_finite_weights(trainable):
    lm, outcome = run((stage(trainable=trainable, epochs=20, optimizer=AdamW(lr=1e9)),))
    assert outcome.status == "diverged" and "loss" in outcome.reason
    assert outcome.steps < 40
    assert all(torch.isfinite(p).all() for p in lm.parameters())


# --- killed and continued ------------------------------------------------------------------------------------


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def job(folder: str, plan: str, kill: tuple[str, int] | None) -> None:
    """One attempt in a process of its own. ``kill``: at the n-th measurement, or before or after the n-th rename."""
    torch.set_num_threads(1)
    os.environ["REPROLIB_DEVICE"] = "cpu"
    seen = {"measure": 0, "rename": 0}
    rename = os.replace

    def replace(a, b):
        seen["rename"] += 1
        if kill == ("before", seen["rename"]):
            die()
        rename(a, b)
        if kill == ("after", seen["rename"]):
            die()

    def measure(lm):
        seen["measure"] += 1
        if kill == ("measure", seen["measure"]):
            die()
        return probe(lm)

    os.replace = replace
    checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", "f00")
    lm, outcome = run((PLANS | MORE)[plan](), points=4, measure=measure, checkpoint=checkpoint)
    os.replace = rename
    save(folder, lm, outcome)


def save(folder, lm, outcome):
    save_file(weights(lm), Path(folder) / "weights.safetensors")
    notes = {k: v for k, v in outcome.notes.items() if not k.endswith("_s")}  # seconds differ
    (Path(folder) / "outcome.json").write_text(json.dumps(vars(outcome) | {"notes": notes}))


# Every attempt goes on where the one before was killed. Renames of an uninterrupted run: the checkpoints of
# steps 2 and 4, the start of the second stage, the checkpoints of steps 6 and 8.
KILLS = (
    ("measure", 1),  # before anything is saved
    ("before", 2),  # has step 2; the file of step 4 is written but not in place
    ("after", 1),  # has step 4: between the stages
    ("before", 1),  # the second stage's start is written but not in place
    ("after", 1),  # has the second stage's start
    ("after", 1),  # has step 6
    ("measure", 1),  # in the measurement of step 8, so with a checkpoint that only the attempt before could make
    ("after", 1),  # has step 8: the end
)


@pytest.mark.parametrize("plan", PLANS)
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, plan):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    save(whole, *run(PLANS[plan](), points=4))
    for kill in (*KILLS, None):
        attempt = processes().Process(target=job, args=(str(broken), plan, kill))
        attempt.start()
        attempt.join(120)
        assert attempt.exitcode == (-signal.SIGKILL if kill else 0), kill
    for name in ("weights.safetensors", "outcome.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert json.loads((whole / "outcome.json").read_text())["steps"] == 8


@pytest.mark.parametrize("plan", MORE)
def test_killed_after_every_save_it_ends_with_the_same_bytes(tmp_path, plan):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    save(whole, *run(MORE[plan](), points=4))
    codes = []
    while 0 not in codes and len(codes) < 15:
        attempt = processes().Process(target=job, args=(str(broken), plan, ("after", 1)))
        attempt.start()
        attempt.join(120)
        codes.append(attempt.exitcode)
    assert len(codes) >= 5 and codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    for name in ("weights.safetensors", "outcome.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert not equal(weights(run(MORE[plan]()[:1])[0]), weights(run(MORE[plan]())[0]))


def interrupted(folder, plan="full-lora"):
    """A checkpoint in the middle of the second stage, and what it belongs to."""

    class Stop(Exception):
        pass

    seen = []

    def measure(lm):
        seen.append(1)
        if len(seen) == 5:  # the start, then steps 2, 4, 6, 8
            raise Stop
        return probe(lm)

    checkpoint = Checkpoint(folder / "checkpoint.safetensors", "f00")
    with pytest.raises(Stop):
        run(PLANS[plan](), points=4, measure=measure, checkpoint=checkpoint)
    return checkpoint.path


def test_an_unreadable_checkpoint_is_put_aside_and_the_run_begins_again(tmp_path, capsys):
    path = interrupted(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    lm, outcome = run(PLANS["full-lora"](), points=4, checkpoint=Checkpoint(path, "f00"))
    expected, whole = run(PLANS["full-lora"](), points=4)
    assert equal(weights(lm), weights(expected)) and outcome == whole
    assert path.with_suffix(".corrupt").exists() and "cannot be read" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = interrupted(tmp_path)
    with pytest.raises(RecordError, match="belongs to run f00, not abc"):
        Checkpoint(path, "abc").load()


def test_a_checkpoint_is_used_and_removed_with_the_leftovers_of_killed_saves(tmp_path):
    path = interrupted(tmp_path / "run")
    checkpoint = Checkpoint(path, "f00")
    state = checkpoint.load()
    assert (state.meta["stage"], state.meta["step"]) == (1, 2)
    assert Outcome(**state.meta["outcome"]).steps == 6
    path.with_suffix(".123.part").write_bytes(b"half a file")
    checkpoint.remove()
    assert not path.parent.exists()


def test_checkpoints_are_written_also_without_a_measure(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", "f00")
    run(PLANS["full-last"](), points=4, measure=None, checkpoint=checkpoint)
    state = checkpoint.load()
    assert (state.meta["stage"], state.meta["step"]) == (1, 4)
