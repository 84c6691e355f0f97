"""Sophia against its published update and SOUL's, both written out here, and on problems whose curvature is known."""

import json

import pytest
import torch
from conftest import tiny_lm
from safetensors.torch import load, save
from test_curvature import SMALL, Softmax, backward, data, micro, moment

from reprolib.adapters.base import LoRA
from reprolib.corpus.batching import collate
from reprolib.errors import SpecError
from reprolib.identity import plain
from reprolib.models.policy import Policy
from reprolib.objectives import NLL, Ascent, Loss, Objective
from reprolib.optim import Moment, Sophia
from reprolib.optim.curvature import gauss_newton_bartlett

pytestmark = pytest.mark.usefixtures("one_thread")


SOUL = Sophia(
    hessian="empirical", interval=1, double_momentum=True, batch_tokens=5120, beta1=0.9, beta2=0.95, weight_decay=0.1, lr=1e-2
)


def alone(parameters, step=0) -> Moment:
    """A moment without a model: enough for the squared gradient with a fixed factor."""
    return Moment(policy=None, objective=None, references=None, batches=[], forget=None, retain=None,
                  parameters=list(parameters), step=step, per_epoch=10, seed=0)  # fmt: skip


def saved(optimizer) -> dict:
    """Through bytes, as checkpoint.py writes them: safetensors and JSON."""
    state = optimizer.state_dict()
    tensors = load(
        save({f"{i}/{k}": torch.as_tensor(v).contiguous().clone() for i, s in state["state"].items() for k, v in s.items()})
    )
    entries: dict = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        entries.setdefault(int(number), {})[name] = tensor
    return {"state": entries, "param_groups": json.loads(json.dumps(state["param_groups"]))}


# --- hand vectors --------------------------------------------------------------------------------------------


def test_without_curvature_a_step_is_the_sign_of_the_momentum():
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimizer = Sophia(lr=0.1).build([p])
    p.grad = torch.tensor([3.0, -1e-6, 0.0])
    optimizer.step()
    assert torch.allclose(p.detach(), torch.tensor([0.9, 1.1, 1.0]))
    assert optimizer.diagnostics()["clipped_share"] == 1.0  # of the two that moved


def test_double_momentum_by_hand():
    for double, expected in ((True, 0.19), (False, 0.1)):
        p = torch.nn.Parameter(torch.zeros(1))
        optimizer = Sophia(beta1=0.9, double_momentum=double).build([p])
        p.grad = torch.ones(1)
        optimizer.step()
        assert optimizer.state[p]["momentum"].item() == pytest.approx(expected)


def test_one_step_by_hand():
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = Sophia(lr=0.1, beta1=0.5, beta2=0.9, rho=0.5, weight_decay=0.2).build([p])
    p.grad = torch.tensor([0.4, 4.0])
    optimizer.curve([torch.tensor([10.0, 10.0])])  # h = 1, rho h = 0.5; m = 0.2 and 2; ratios 0.4 and 1
    optimizer.step()
    assert torch.allclose(p.detach(), torch.tensor([0.98 - 0.04, 0.98 - 0.1]))
    d = optimizer.diagnostics()
    assert (d["clipped_share"], d["unclipped_share"]) == (0.5, 0.5) and d["curvature_p50"] == pytest.approx(1.0)


def test_unclipped_and_negative_curvature():
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = Sophia(lr=1.0, beta1=0.0, beta2=0.0, rho=1.0, eps=0.5, clip=False).build([p])
    p.grad = torch.tensor([3.0, 3.0])
    optimizer.curve([torch.tensor([2.0, -7.0])])
    optimizer.step()
    assert torch.allclose(p.detach(), torch.tensor([-1.5, -6.0]))  # m / h, and m / eps


# --- references ----------------------------------------------------------------------------------------------


def published_sophia(theta, gradients, estimates, *, lr, beta1, beta2, rho, bs, decay):
    """The published code's arithmetic: the running mean holds squares, bs stands in the denominator, 1e-15 is added."""
    m, h = torch.zeros_like(theta), torch.zeros_like(theta)
    for g, squared in zip(gradients, estimates, strict=True):
        if squared is not None:
            h = beta2 * h + (1 - beta2) * squared
        m = beta1 * m + (1 - beta1) * g
        ratio = torch.minimum(m.abs() / (rho * bs * h + 1e-15), torch.ones_like(m))
        theta = theta * (1 - lr * decay) - lr * m.sign() * ratio
    return theta


def soul(theta, gradients, *, lr, beta1, beta2, rho, decay):
    """SOUL's released step: squares of this step's gradient, every step; momentum before and again inside; bs = 5120."""
    m, h = torch.zeros_like(theta), torch.zeros_like(theta)
    for g in gradients:
        h = beta2 * h + (1 - beta2) * g * g
        m = beta1 * m + (1 - beta1) * g
        theta = theta * (1 - lr * decay)
        m = beta1 * m + (1 - beta1) * g
        theta = theta - lr * m.sign() * (m.abs() / (rho * 5120 * h + 1e-15)).clamp(max=1)
    return theta


def some_gradients(scale=1e-3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = 10 ** torch.linspace(-2, 2, 50, dtype=torch.float64)
    return [scale * spread * torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(25)]


def test_published_update():
    gradients, squares = some_gradients(), [g**2 for g in some_gradients(2e-3, seed=1)]
    start = torch.linspace(-1, 1, 50, dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    optimizer = Sophia(lr=0.01, weight_decay=0.1, rho=0.04).build([p])
    shares = []
    for k, (g, s) in enumerate(zip(gradients, squares, strict=True)):
        if k % 10 == 0:
            optimizer.curve([480 * s])  # B = 480 in the estimate
        p.grad = g.clone()
        optimizer.step()
        shares.append(optimizer.diagnostics()["clipped_share"])
    due = [s if k % 10 == 0 else None for k, s in enumerate(squares)]
    expected = published_sophia(start, gradients, due, lr=0.01, beta1=0.965, beta2=0.99, rho=0.04, bs=480, decay=0.1)
    assert torch.allclose(p.detach(), expected, atol=1e-12)
    assert min(shares) > 0.05 and max(shares) < 0.95  # both branches were walked


def test_soul_update():
    start, gradients = torch.linspace(-1, 1, 50, dtype=torch.float64), some_gradients()
    p = torch.nn.Parameter(start.clone())
    optimizer = SOUL.build([p])
    shares = []
    for k, g in enumerate(gradients):
        p.grad = g.clone()
        optimizer.curve(SOUL.estimate(alone([p], k)))
        optimizer.step()
        shares.append(optimizer.diagnostics()["clipped_share"])
    expected = soul(start, gradients, lr=1e-2, beta1=0.9, beta2=0.95, rho=0.04, decay=0.1)
    assert torch.allclose(p.detach(), expected, atol=1e-12)
    assert min(shares) > 0.05 and max(shares) < 0.95


def test_sophia_g_is_the_published_one_when_every_step_has_as_many_tokens():
    model = Softmax()
    description = Sophia(lr=0.05, hessian="gnb", interval=3)
    optimizer = description.build([model.weight])
    batches = micro(SMALL, SMALL, 6, ((0, 1), (2,)))
    start, gradients, squares = model.weight.detach().clone(), [], []
    for step in range(8):
        m = moment(model, batches, objective=Objective(forget=NLL(), retain=NLL()), step=step)
        backward(m)
        squares.append(gauss_newton_bartlett(m, 1)[0] if step % 3 == 0 else None)
        gradients.append(model.weight.grad.clone())
        estimates = description.estimate(m)
        assert (estimates is None) == (step % 3 != 0)
        if estimates:
            optimizer.curve(estimates)
        optimizer.step()
    expected = published_sophia(start, gradients, squares, lr=0.05, beta1=0.965, beta2=0.99, rho=0.04, bs=8, decay=0)
    assert torch.allclose(model.weight.detach(), expected, atol=1e-12)


def test_every_estimate_has_the_tokens_of_its_own_step():
    """Rows of 3 and of 2 labelled tokens in turn: the running mean must weigh each square with its own count."""
    model = Softmax()
    description = Sophia(hessian="gnb", interval=1, beta2=0.5)
    optimizer = description.build([model.weight])
    expected = torch.zeros_like(model.weight)
    for step, rows in enumerate(((0,), (1,), (0,))):
        m = moment(model, micro(SMALL, SMALL, 99, (rows, ())), step=step)
        optimizer.curve(description.estimate(m))
        tokens = int(collate(SMALL, rows).predict.sum())
        assert tokens == (3, 2, 3)[step]
        expected = 0.5 * expected + 0.5 * tokens * gauss_newton_bartlett(m, 1)[0]
    assert torch.allclose(optimizer.state[model.weight]["curvature"], expected)


# --- known curvature -----------------------------------------------------------------------------------------


def test_with_the_true_hessian_a_step_is_newtons_where_it_is_short_enough():
    a = torch.tensor([1e-2, 1.0, 1e4], dtype=torch.float64)
    c = torch.tensor([0.5, -0.3, 40.0], dtype=torch.float64)
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = Sophia(lr=1.0, beta1=0.0, beta2=0.0, rho=1.0).build([p])
    p.grad = a * (p.detach() - c)
    optimizer.curve([a])
    optimizer.step()
    assert torch.allclose(p.detach(), torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64))  # two at the minimum, one clipped


def test_estimated_hessian_descends_a_badly_scaled_quadratic_where_one_step_length_cannot():
    a = 10 ** torch.linspace(-2, 3, 6, dtype=torch.float64)
    model = torch.nn.Module()
    model.p = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    objective = lambda policy, *_: Loss((a * policy.p**2).sum() / 2, None, None)  # noqa: E731
    description = Sophia(hessian="hutchinson", interval=1, lr=0.05, beta1=0.5, beta2=0.9, rho=1.0)
    optimizer = description.build([model.p])
    for step in range(200):
        m = moment(model, [None], objective=objective, step=step)
        model.p.grad = a * model.p.detach()
        optimizer.curve(description.estimate(m))
        optimizer.step()
    assert (model.p.abs() < 0.05).all()  # every coordinate, over five orders of magnitude of curvature
    h = optimizer.state[model.p]["curvature"]
    assert ((h / a - 1).abs() < 1.5).all()


# --- in the loop's hands -------------------------------------------------------------------------------------


def train(policy, description, optimizer, first, last, objective):
    for step in range(first, last):
        rows = (((0, 1), (2, 0)), ((2,), (1, 2)))[step % 2]
        m = moment(policy, micro(*data(), 4096, rows), objective=objective, step=step, per_epoch=2)
        backward(m)
        torch.nn.utils.clip_grad_norm_(m.parameters, 1.0)
        estimates = description.estimate(m)
        if estimates is not None:
            optimizer.curve(estimates)
        optimizer.step()


VARIANTS = {
    "gnb": Sophia(lr=1e-2, interval=3),
    "hutchinson": Sophia(lr=1e-2, hessian="hutchinson", interval=3),
    "soul": SOUL,
}


@pytest.mark.parametrize(
    "name, dtype", [*((name, torch.float32) for name in VARIANTS), ("gnb", torch.bfloat16), ("soul", torch.bfloat16)]
)
def test_state_through_bytes_continues_bit_by_bit(name, dtype):
    objective, description = Objective(forget=Ascent(), retain=NLL()), VARIANTS[name]

    def start():
        policy = Policy(LoRA(rank=2, alpha=4).attach(tiny_lm(), 0)).to(dtype)
        return policy, description.build([p for p in policy.parameters() if p.requires_grad])

    (whole, one), (broken, two) = start(), start()
    train(whole, description, one, 0, 7, objective)
    train(broken, description, two, 0, 4, objective)
    three = description.build([p for p in broken.parameters() if p.requires_grad])
    three.load_state_dict(saved(two))
    assert all(v.dtype == torch.float32 for s in three.state.values() for v in s.values())
    train(broken, description, three, 4, 7, objective)
    for a, b in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.diagnostics() == three.diagnostics()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fresh_adapter_takes_finite_steps(name):
    description = VARIANTS[name]
    policy = Policy(LoRA(rank=2, alpha=4).attach(tiny_lm(), 0))
    trainable = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    optimizer = description.build(trainable.values())
    before = {n: p.detach().clone() for n, p in trainable.items()}
    train(policy, description, optimizer, 0, 1, Objective(forget=Ascent(), retain=NLL()))
    for n, p in trainable.items():
        change = (p.detach() - before[n]).abs()
        if "lora_A" in n and not description.weight_decay:
            assert not change.any()  # no gradient, no step
        assert change.max() <= description.lr * (1 + description.weight_decay) + 1e-7
    train(policy, description, optimizer, 1, 5, Objective(forget=Ascent(), retain=NLL()))
    assert all(torch.isfinite(p).all() for p in trainable.values())
    json.dumps(optimizer.diagnostics(), allow_nan=False)


def test_accelerate_and_a_schedule_wrap_it():
    from accelerate import Accelerator

    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = Sophia(lr=0.1).build([p])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    wrapped = Accelerator(cpu=True).prepare(optimizer)
    wrapped.optimizer.curve([torch.ones(2)])
    p.grad = torch.tensor([5.0, -5.0])
    wrapped.step()
    scheduler.step()
    assert torch.allclose(p.detach(), torch.tensor([-0.05, 0.05]))
    assert set(wrapped.optimizer.state[p]) == {"momentum", "curvature"}


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lr": -1.0}, r"Sophia: lr must be >= 0, got -1.0"),
        ({"lr": float("nan")}, r"lr must be >= 0, got nan"),
        ({"weight_decay": -0.1}, r"weight_decay must be >= 0"),
        ({"rho": -1}, r"rho must be >= 0, got -1"),
        ({"eps": 0.0}, r"eps must be > 0, got 0.0"),
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.1}, r"beta2 must lie in \[0, 1\), got -0.1"),
        ({"interval": 0}, r"interval must be a whole number >= 1, got 0"),
        ({"interval": 2.5}, r"interval must be a whole number >= 1, got 2.5"),
        ({"hessian": "gnbb"}, r"Sophia: unknown hessian 'gnbb'; did you mean 'gnb'\? Known: empirical, gnb, hutchinson"),
        ({"batch_tokens": "5120"}, r"batch_tokens must be 'actual' or a number > 0 \(SOUL: 5120\), got '5120'"),
        ({"batch_tokens": 0}, r"batch_tokens must be 'actual' or a number > 0"),
        ({"batch_tokens": True}, r"batch_tokens must be 'actual' or a number > 0"),
        ({"batch_tokens": 5120, "hessian": "hutchinson"}, r"batch_tokens=5120 has no place with hessian='hutchinson'"),
    ],
)
def test_bad_settings(values, message):
    with pytest.raises(SpecError, match=message):
        Sophia(**values)


def test_estimates_must_fit():
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = Sophia().build([p])
    for estimates in ([], [torch.zeros(3)], [torch.zeros(2)] * 2):
        with pytest.raises(ValueError, match="one tensor a parameter"):
            optimizer.curve(estimates)


def test_a_description_is_plain_values():
    assert plain(SOUL)["batch_tokens"] == 5120 and plain(Sophia())["batch_tokens"] == "actual"
