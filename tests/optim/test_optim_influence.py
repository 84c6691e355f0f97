"""LIBU's first phase: its arithmetic by hand, when the Fisher matrix is measured, and what a run can be asked about it."""

import dataclasses
import json

import pytest
import torch
from conftest import tiny_lm
from test_curvature import SMALL, Softmax, backward, data, micro, moment
from test_optim_sophia import saved

from reprolib.adapters.base import LoRA
from reprolib.corpus.batching import Tokens
from reprolib.errors import SpecError
from reprolib.models.policy import Policy
from reprolib.objectives import Ascent, Objective
from reprolib.optim import SGD, Influence
from reprolib.optim.curvature import diagonal_fisher
from reprolib.seeds import derive

pytestmark = pytest.mark.usefixtures("one_thread")


ASCENT = Objective(forget=Ascent())


def built(*tensors, **settings):
    parameters = [torch.nn.Parameter(torch.zeros_like(t)) for t in tensors]
    for p in parameters:
        p.grad = torch.ones_like(p)
    return parameters, Influence(**settings).build(parameters)


def step_of(fishers, **settings):
    parameters, optimizer = built(*fishers, **settings)
    optimizer.curve(fishers)
    optimizer.step()
    return [-p.detach() for p in parameters], optimizer


# --- by hand -------------------------------------------------------------------------------------------------


def test_absolute_damping_is_the_published_formula():
    [step], _ = step_of([torch.tensor([0.0, 1e-3, 1.0])], damping="absolute", value=1e-3, lr=2e-5)
    assert torch.allclose(step, 2e-5 * torch.tensor([1000.0, 500.0, 1 / 1.001]))


def test_relative_damping_by_hand():
    """Mean over all weights together: (0 + 2 + 4 + 10) / 4 = 4; w = 4 / (F + 0.5 * 4)."""
    (a, b), optimizer = step_of([torch.tensor([0.0, 2.0]), torch.tensor([4.0, 10.0])], value=0.5, lr=1.0)
    assert torch.allclose(a, torch.tensor([2.0, 1.0])) and torch.allclose(b, torch.tensor([4 / 6, 4 / 12]))
    assert optimizer.diagnostics()["weight_mean"] == pytest.approx((2 + 1 + 4 / 6 + 4 / 12) / 4)


def test_relative_damping_does_not_see_the_scale_of_the_fisher():
    f = torch.tensor([0.1, 3.0, 0.0, 7.0], dtype=torch.float64)
    first, _ = step_of([f], value=1e-2, lr=1.0)
    for scale in (1e-20, 1e-9, 1e9):
        again, _ = step_of([scale * f], value=1e-2, lr=1.0)
        assert torch.allclose(first[0], again[0])


def test_absolute_damping_beside_a_small_fisher_is_sgd_with_a_thousand_times_the_rate():
    f = 1e-7 * torch.rand(100, generator=torch.Generator().manual_seed(0))
    [step], optimizer = step_of([f], damping="absolute", value=1e-3, lr=2e-5)
    assert torch.allclose(step, torch.full((100,), 2e-2), rtol=1e-3)
    assert optimizer.diagnostics()["weight_spread"] < 1.01
    _, relative = step_of([f])
    assert relative.diagnostics()["weight_spread"] > 2


def test_a_tensor_that_nothing_was_measured_of():
    """Relative: weight 1, and it does not dilute the mean. Absolute, as published: the largest weight."""
    zero, known = torch.zeros(3), torch.tensor([1.0, 3.0])
    (a, b), _ = step_of([zero, known], value=0.5, lr=1.0)
    assert torch.allclose(a, torch.ones(3)) and torch.allclose(b, torch.tensor([2 / 2, 2 / 4]))
    (a, _), _ = step_of([zero, known], damping="absolute", value=0.5, lr=1.0)
    assert torch.allclose(a, torch.full((3,), 2.0))
    (a,), _ = step_of([zero], lr=1.0)  # nothing known at all
    assert torch.allclose(a, torch.ones(3))


def test_identity_is_sgd_and_leaves_the_gradient():
    p, q = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    description = Influence(preconditioner="identity", lr=0.1)
    for parameter, optimizer in ((p, description.build([p])), (q, SGD(lr=0.1).build([q]))):
        parameter.grad = torch.tensor([1.0, -3.0])
        optimizer.step()
        assert torch.equal(parameter.grad, torch.tensor([1.0, -3.0]))
    assert torch.allclose(p, q)
    model = Softmax()
    assert description.estimate(moment(model, micro(SMALL, SMALL, 99))) is None


def test_clipping_bounds_the_preconditioned_step_of_all_weights():
    fishers = [torch.tensor([0.0, 2.0]), torch.tensor([4.0, 10.0])]
    free, one = step_of(fishers, value=0.5, lr=0.1)
    bound, two = step_of(fishers, value=0.5, lr=0.1, clip_step=0.5)
    loose, _ = step_of(fishers, value=0.5, lr=0.1, clip_step=1e6)
    length = torch.cat(bound).norm().item()
    assert length == pytest.approx(0.1 * 0.5) and two.diagnostics()["step_norm"] == pytest.approx(length)
    assert one.diagnostics()["step_norm"] == pytest.approx(torch.cat(free).norm().item())
    assert torch.allclose(torch.cat(bound) / length, torch.cat(free) / torch.cat(free).norm())
    assert torch.equal(torch.cat(free), torch.cat(loose))


def test_a_parameter_without_gradient_stays():
    parameters, optimizer = built(torch.ones(2), torch.ones(2))
    parameters[0].grad = None
    optimizer.curve([torch.ones(2), torch.ones(2)])
    optimizer.step()
    assert not parameters[0].any() and parameters[1].all()


def test_diagnostics():
    f = 10 ** torch.linspace(-8, -2, 101)
    _, optimizer = step_of([f], damping="absolute", value=1e-5)
    d = optimizer.diagnostics()
    assert [d[f"fisher_log10_{q}"] for q in ("p5", "p50", "p95")] == pytest.approx([-7.7, -5.0, -2.3], abs=1e-4)
    assert d["weight_spread"] == pytest.approx((10**-2.3 + 1e-5) / (10**-7.7 + 1e-5), rel=1e-3)
    _, empty = step_of([torch.zeros(3)])
    assert empty.diagnostics()["fisher_log10_p50"] == pytest.approx(-38)
    json.dumps(empty.diagnostics(), allow_nan=False)


def test_quantiles_of_very_many_weights_are_of_a_part_of_them():
    from reprolib.optim.base import quantiles

    tensors = [torch.linspace(0, 1, 4096).repeat(9), torch.linspace(0, 1, 64), torch.tensor(0.5), torch.linspace(0, 1, 30000)]
    count = sum(t.numel() for t in tensors)
    shares = (0.05, 0.5, 0.95)
    assert quantiles(tensors, count, shares) == pytest.approx(
        torch.cat([t.flatten() for t in tensors]).quantile(torch.tensor(shares)).tolist()
    )
    assert quantiles(tensors, count, shares, most=2000) == pytest.approx(shares, abs=0.01)


# --- the Fisher matrix in a run ------------------------------------------------------------------------------


def test_fisher_is_of_the_retain_rows_at_the_starts_of_epochs():
    model = Softmax()

    few = Tokens(SMALL.ids[:2], SMALL.prompt[:2], SMALL.labels[:2])

    def with_retain(step, **settings):
        m = moment(model, micro(SMALL, SMALL, 6, ((0, 1), ())), objective=ASCENT, step=step, per_epoch=3, seed=9)
        m = dataclasses.replace(m, retain=few)
        return Influence(**settings).estimate(m)

    assert [with_retain(k) is not None for k in range(7)] == [True, False, False, True, False, False, True]
    assert [with_retain(k, refresh="stage") is not None for k in range(7)] == [True] + [False] * 6
    assert torch.allclose(with_retain(0)[0], diagonal_fisher(model, few, [model.weight])[0])
    pair = diagonal_fisher(model, few, [model.weight], "minibatch", batch_size=2)[0]  # as many rows as the step has
    assert torch.allclose(with_retain(0, fisher="minibatch")[0], pair)
    for step in (0, 3):
        one = diagonal_fisher(model, few, [model.weight], rows=1, seed=derive(9, "fisher", step))[0]
        assert torch.equal(with_retain(step, fisher_rows=1)[0], one)


def train(policy, description, optimizer, first, last):
    norms = []
    for step in range(first, last):
        rows = (((0, 1), ()), ((2,), ()))[step % 2]
        m = moment(policy, micro(*data(), 4096, rows), objective=ASCENT, step=step, per_epoch=2)
        backward(m)
        torch.nn.utils.clip_grad_norm_(m.parameters, 1.0)
        estimates = description.estimate(m)
        if estimates is not None:
            optimizer.curve(estimates)
        optimizer.step()
        norms.append(optimizer.diagnostics()["step_norm"])
    return norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("damping, lr", [("relative", 1e-2), ("absolute", 2e-5)])
def test_state_through_bytes_continues_bit_by_bit(damping, lr, dtype):
    description = Influence(damping=damping, lr=lr, value=1e-2, fisher_rows=2, clip_step=5.0)

    def start():
        policy = Policy(LoRA(rank=2, alpha=4).attach(tiny_lm(), 0)).to(dtype)
        return policy, description.build([p for p in policy.parameters() if p.requires_grad])

    (whole, one), (broken, two) = start(), start()
    train(whole, description, one, 0, 5)
    train(broken, description, two, 0, 3)  # in the middle of an epoch: the Fisher matrix must come from the state
    three = description.build([p for p in broken.parameters() if p.requires_grad])
    three.load_state_dict(saved(two))
    assert all(v.dtype == torch.float32 for s in three.state.values() for v in s.values())
    train(broken, description, three, 3, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), broken.parameters(), strict=True))
    assert one.diagnostics() == three.diagnostics()


@pytest.mark.parametrize("damping, lr", [("relative", 1e-2), ("absolute", 2e-5)])
def test_a_fresh_adapter_takes_finite_steps(damping, lr):
    description = Influence(damping=damping, lr=lr)
    policy = Policy(LoRA(rank=2, alpha=4).attach(tiny_lm(), 0))
    trainable = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trainable.items()}
    optimizer = description.build(trainable.values())
    norms = train(policy, description, optimizer, 0, 1)
    for n, p in trainable.items():
        assert torch.isfinite(p).all()
        assert torch.equal(p, before[n]) == ("lora_A" in n)
        assert bool(optimizer.state[p]["fisher"].any()) == ("lora_B" in n)
    norms += train(policy, description, optimizer, 1, 3)
    assert all(torch.isfinite(p).all() for p in trainable.values()) and all(n < 1e3 for n in norms)
    assert all(optimizer.state[p]["fisher"].any() for p in trainable.values())  # measured again in the second epoch
    json.dumps(optimizer.diagnostics(), allow_nan=False)


def test_it_forgets_with_less_harm_than_plain_ascent():
    """At an equal rise of the forget loss the retain loss rises less than with SGD, on an adapter-free softmax model
    whose retain rows use only some of the weights.
    """
    generator = torch.Generator().manual_seed(0)
    draw = lambda choices: tuple(choices[i] for i in torch.randint(len(choices), (6,), generator=generator).tolist())  # noqa: E731
    forget, retain = (Tokens(tuple(draw(c) for _ in range(20)), (1,) * 20, ("answer",) * 20) for c in ((0, 1, 2), (2, 3)))

    def run(description):
        model = Softmax()
        optimizer = description.build([model.weight])
        batches = micro(forget, retain, 4096, (range(20), ()))
        nll = lambda t: -model(micro(t, t, 4096, (range(20), ()))[0].forget).token_logp.mean().item()  # noqa: E731
        first = nll(forget), nll(retain)
        for step in range(5000):
            m = moment(model, batches, objective=ASCENT, step=step, per_epoch=10**6)
            m = dataclasses.replace(m, retain=retain)
            backward(m)
            estimates = description.estimate(m)
            if estimates is not None:
                optimizer.curve(estimates)
            optimizer.step()
            if nll(forget) > first[0] + 1:
                return nll(retain) - first[1]
        raise AssertionError("the forget loss did not rise by a nat")

    influence = run(Influence(lr=2e-3, value=1e-2))
    sgd = run(Influence(lr=2e-2, preconditioner="identity"))
    assert influence < sgd


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lr": -2e-5}, r"Influence: lr must be >= 0, got -2e-05"),
        ({"value": 0.0}, r"Influence: value must be > 0, got 0.0"),
        ({"value": float("nan")}, r"value must be > 0, got nan"),
        ({"clip_step": 0}, r"clip_step must be > 0, got 0"),
        ({"fisher_rows": 0}, r"fisher_rows must be a whole number >= 1, got 0"),
        ({"fisher_rows": 2.5}, r"fisher_rows must be a whole number >= 1, got 2.5"),
        ({"damping": "relativ"}, r"unknown damping 'relativ'; did you mean 'relative'\? Known: absolute, relative"),
        ({"fisher": "batch"}, r"unknown fisher 'batch'.* Known: minibatch, per_sample"),
        ({"refresh": "step"}, r"unknown refresh 'step'.* Known: epoch, stage"),
        ({"preconditioner": "none"}, r"unknown preconditioner 'none'.* Known: fisher, identity"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(SpecError, match=message):
        Influence(**values)


def test_a_step_without_fisher_says_what_is_missing():
    _, optimizer = built(torch.ones(2))
    with pytest.raises(RuntimeError, match="never given"):
        optimizer.step()


def test_no_retain_rows():
    model = Softmax()
    m = moment(model, micro(SMALL, SMALL, 6, ((0,), ())), objective=ASCENT)
    m = dataclasses.replace(m, retain=Tokens((), (), ()))
    with pytest.raises(SpecError, match="retain rows"):
        Influence().estimate(m)
