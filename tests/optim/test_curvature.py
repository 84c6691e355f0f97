"""Curvature estimators against exact matrices, finite differences and loops written here."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from conftest import byte_tokenizer, small_corpus, tiny_lm

from reprolib.adapters.base import LoRA
from reprolib.corpus.batching import Batch, Tokens, buckets, collate, encode_rows
from reprolib.errors import SpecError
from reprolib.models.policy import Policy, Scored
from reprolib.objectives import NLL, Ascent, Loss, Objective, References, StepBatch
from reprolib.optim.base import Moment
from reprolib.optim.curvature import diagonal_fisher, empirical, gauss_newton_bartlett, hutchinson, sample

pytestmark = pytest.mark.usefixtures("one_thread")


OBJECTIVE = Objective(forget=Ascent(), retain=NLL(), forget_weight=0.5, retain_weight=2.0)


@functools.cache
def data() -> tuple[Tokens, Tokens]:
    tokenizer, corpus = byte_tokenizer(), small_corpus()
    return encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"])


def micro(forget: Tokens, retain: Tokens, max_tokens: int, rows=((0, 1, 2), (0, 1, 2))) -> list[StepBatch]:
    sides = (("forget", forget, rows[0]), ("retain", retain, rows[1]))
    units = {f"{s}/row": len(chosen) for s, _, chosen in sides}
    units |= {f"{s}/token": sum(t.n_labels(i) for i in chosen) for s, t, chosen in sides}
    made = [(s, collate(t, chunk)) for s, t, chosen in sides for chunk in buckets(t, chosen, max_tokens)]
    return [StepBatch(b if s == "forget" else None, b if s == "retain" else None, units) for s, b in made]


def moment(policy, batches, *, objective=OBJECTIVE, step=0, seed=0, per_epoch=4, retain_weight=None) -> Moment:
    return Moment(
        policy=policy, objective=objective, references=References(), batches=batches, forget=data()[0], retain=data()[1],
        parameters=[p for p in policy.parameters() if p.requires_grad], step=step, per_epoch=per_epoch, seed=seed,
        retain_weight=retain_weight,
    )  # fmt: skip


def backward(m: Moment) -> None:
    for p in m.parameters:
        p.grad = None
    for batch in m.batches:
        m.objective(m.policy, m.references, batch, m.retain_weight).total.backward()


def close(a, b, rtol=1e-4, atol=1e-7) -> bool:
    return all(torch.allclose(x.double(), y.double(), rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True))


class Softmax(torch.nn.Module):
    """logits = W x with a fixed x for every input token; its Gauss-Newton matrix is its Hessian."""

    def __init__(self, vocabulary=4, width=3, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("features", torch.randn(vocabulary, width, generator=generator, dtype=torch.float64))
        self.weight = torch.nn.Parameter(torch.randn(vocabulary, width, generator=generator, dtype=torch.float64))
        self.device = self.weight.device

    def forward(self, batch: Batch) -> Scored:
        logits = self.features[batch.ids[batch.predict]] @ self.weight.T
        return Scored(logits, batch.labels, batch.row, batch.index)


SMALL = Tokens(((0, 1, 2, 3), (3, 1, 0), (2, 2, 1, 0, 3)), (1, 1, 2), ("answer",) * 3)


def gauss_newton_of_softmax(model: Softmax, rows: Batch) -> torch.Tensor:
    """Mean over positions of p_v (1 - p_v) x_d^2."""
    x = model.features[rows.ids[rows.predict]]
    p = torch.softmax(x @ model.weight.detach().T, -1)
    return torch.einsum("nv,nd->vd", p * (1 - p), x**2) / len(x)


# --- Gauss-Newton-Bartlett -----------------------------------------------------------------------------------


def test_gauss_newton_bartlett_expects_the_exact_diagonal():
    model = Softmax()
    exact = gauss_newton_of_softmax(model, collate(SMALL, [0, 1, 2]))
    batches = micro(SMALL, SMALL, 6, ((0, 1, 2), ()))
    draws = torch.stack([gauss_newton_bartlett(moment(model, batches, step=k))[0] for k in range(1000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < 5 * error).all()
    assert (error < 0.1 * exact).all()  # standard errors are 3 to 7 % of the exact values: the band is narrow enough to mean something
    assert (draws >= 0).all()
    # on whichever side a row stands: the same draws
    both = micro(SMALL, SMALL, 6, ((0, 1), (2,)))
    assert all(close([draws[k]], gauss_newton_bartlett(moment(model, both, step=k))) for k in range(20))


def test_the_factor_is_the_number_of_labelled_tokens():
    model = Softmax()
    m = moment(model, micro(SMALL, SMALL, 6, ((0, 1), (2,))))
    tokens = sum(SMALL.n_labels(i) for i in range(3))
    [actual], [fixed], [one] = gauss_newton_bartlett(m), gauss_newton_bartlett(m, 5120), gauss_newton_bartlett(m, 1)
    assert tokens == 8 and torch.allclose(actual, tokens * one) and torch.allclose(fixed, 5120 * one)


def test_rows_of_other_answers_count_too():
    model = Softmax()
    own, other = collate(SMALL, [0]), collate(SMALL, [1, 2])
    with_other = [StepBatch(Batch(own.ids, own.predict, own.index, other), None, {})]
    apart = [StepBatch(own, None, {}), StepBatch(other, None, {})]
    assert close(gauss_newton_bartlett(moment(model, with_other)), gauss_newton_bartlett(moment(model, apart)))


def test_labels_are_drawn_from_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -1.0, float("-inf")], [5.0, 0.0, 0.0, 0.0]])
    n = 20000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    for row in logits:
        drawn = sample(row.expand(n, -1), uniform)
        share = torch.bincount(drawn, minlength=4) / n
        assert ((share - row.softmax(-1)).abs() < 0.015).all()
    edge = sample(logits[:1].expand(2, -1), torch.tensor([0.0, 1 - 2**-24]))
    assert edge.tolist() == [0, 2]  # never the impossible one


# --- Hutchinson ----------------------------------------------------------------------------------------------


def drawn(policy, parameters, step: int) -> list[torch.Tensor]:
    """The estimator's own u, but for one sign of all of it, which u * (H u) does not see: of objectives whose Hessians are known."""
    one = [torch.ones_like(p) for p in parameters]
    # h = u * (H u) with H = 1 is u^2
    quadratic = lambda *_: Loss(sum((p**2).sum() for p in parameters) / 2, torch.zeros(()), torch.zeros(()))  # noqa: E731
    squares = hutchinson(moment(policy, [None], objective=quadratic, step=step))
    # of (sum p)^2 / 2 the product is u * sum(u): its sign is that of u up to one sign for all
    signs = hutchinson(moment(policy, [None], objective=lambda *_: Loss(_product(parameters, one), None, None), step=step))
    assert all((s >= 0).all() for s in squares)
    return [s.sqrt() * g.sign() for s, g in zip(squares, signs, strict=True)]


def flat(tensors) -> torch.Tensor:
    return torch.cat([x.detach().flatten() for x in tensors])


def hessian(m: Moment) -> torch.Tensor:
    """The whole matrix of the step's objective, a row at a time."""
    total = sum(m.objective(m.policy, m.references, b, m.retain_weight).total for b in m.batches)
    first = torch.autograd.grad(total, m.parameters, create_graph=True)
    each = torch.cat([g.flatten() for g in first])
    return torch.stack([flat(torch.autograd.grad(x, m.parameters, retain_graph=True)) for x in each])


def test_hutchinson_s_directions_have_no_mean_length_one_and_nothing_in_common():
    """E[u u'] = 1, so that u * (H u) expects the diagonal of any H; a standard error is at most sqrt(2 / 800) = 0.05."""
    model = Softmax(vocabulary=3, width=2)
    u = torch.stack([flat(drawn(model, [model.weight], k)) for k in range(800)])
    assert (u.T @ u / len(u) - torch.eye(6)).abs().max() < 5 * (2 / len(u)) ** 0.5


def test_hutchinson_expects_the_exact_diagonal_of_the_objective():
    model = Softmax(seed=1)
    batches = micro(SMALL, SMALL, 6, ((0, 1), (1, 2)))
    forget, retain = (gauss_newton_of_softmax(model, collate(SMALL, rows)) for rows in ([0, 1], [1, 2]))
    for weight, exact in ((None, 2.0 * retain - 0.5 * forget), (0.1, 0.1 * retain - 0.5 * forget)):
        whole = hessian(moment(model, batches, retain_weight=weight))
        assert close([whole.diag()], [exact.flatten()])
        for k in range(10):  # every draw is u * (H u), not only their mean
            u = flat(drawn(model, [model.weight], k))
            assert close([u * (whole @ u)], [flat(hutchinson(moment(model, batches, step=k, retain_weight=weight)))], rtol=1e-6)
    draws = torch.stack([hutchinson(moment(model, batches, step=k))[0] for k in range(400)])
    exact, error = 2.0 * retain - 0.5 * forget, draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < 5 * error).all()
    assert error.max() < 0.1 * exact.abs().max()  # at most 8 % of the largest: narrow enough to mean something


def test_hutchinson_against_autograd_on_a_curved_objective():
    """A quartic of two tensors: u * (H u) with the full Hessian, for the very u of the estimator."""
    a, b = torch.randn(3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)

    def value(x, y):
        return (x.sum() * y).pow(2).sum() + (x**4).sum() + (y[0] * x[:2]).sum()

    class Fake(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())

    def objective(policy, references, batch, weight):
        return Loss(value(policy.a, policy.b) / 2, torch.zeros(()), torch.zeros(()))

    m = moment(Fake(), [None, None], objective=objective)  # two micro-batches, each half
    whole = torch.autograd.functional.hessian(lambda v: value(v[:3], v[3:].view(2, 2)), torch.cat([a, b.flatten()]))
    assert close([whole], [hessian(m)])
    for k in range(50):
        u = flat(drawn(m.policy, m.parameters, k))
        assert close([u * (whole @ u)], [flat(hutchinson(moment(m.policy, m.batches, objective=objective, step=k)))], rtol=1e-6)


def test_hutchinson_on_a_language_model_agrees_with_finite_differences():
    policy = Policy(tiny_lm())
    m = moment(policy, micro(*data(), 4096))
    found = hutchinson(m)

    def gradient():
        backward(m)
        return [p.grad.clone() for p in m.parameters]

    u = drawn(policy, m.parameters, 0)
    assert 0.9 < float((flat(u) ** 2).mean()) < 1.1
    step = 3e-4  # the model computes in fp32
    with torch.no_grad():
        for p, d in zip(m.parameters, u, strict=True):
            p.add_(d, alpha=step)
    up = gradient()
    with torch.no_grad():
        for p, d in zip(m.parameters, u, strict=True):
            p.add_(d, alpha=-2 * step)
    down = gradient()
    expected = [d * (a - b) / (2 * step) for d, a, b in zip(u, up, down, strict=True)]
    a, b = (torch.cat([x.flatten() for x in y]).double() for y in (found, expected))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.999 and float(a.norm() / b.norm()) == pytest.approx(1, abs=0.01)


def _product(parameters, directions):
    return sum((p * d).sum() for p, d in zip(parameters, directions, strict=True)) ** 2 / 2


def test_an_objective_linear_in_the_weights_has_no_curvature():
    model = Softmax()
    linear = lambda *_: Loss(model.weight.sum(), None, None)  # noqa: E731
    assert not hutchinson(moment(model, [None], objective=linear))[0].any()


# --- the step's own gradient ---------------------------------------------------------------------------------


def test_empirical_is_the_squared_gradient_times_tokens():
    model = Softmax()
    m = moment(model, micro(SMALL, SMALL, 6, ((0, 1), (2,))))
    backward(m)
    [actual], [fixed] = empirical(m), empirical(m, 5120)
    assert torch.allclose(actual, 8 * model.weight.grad**2) and torch.allclose(fixed, 5120 * model.weight.grad**2)
    model.weight.grad = None
    assert not empirical(m)[0].any()


def test_state_about_bf16_weights_is_fp32():
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    p.grad = torch.tensor([1.0, 3.0], dtype=torch.bfloat16)
    m = Moment(policy=None, objective=None, references=None, batches=[], forget=None, retain=None, parameters=[p], step=0,
               per_epoch=1, seed=0)  # fmt: skip
    [h] = empirical(m, 0.1)
    assert h.dtype == torch.float32 and torch.allclose(h, torch.tensor([0.1, 0.9]))


# --- what all of them promise --------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [gauss_newton_bartlett, hutchinson])
def test_micro_batches_do_not_matter_and_nothing_is_left_behind(estimator):
    policy = Policy(tiny_lm())
    whole, parts = (moment(policy, micro(*data(), n)) for n in (4096, 64))
    assert len(parts.batches) > len(whole.batches)
    backward(whole)
    grads, weights = ([x.clone() for x in y] for y in ([p.grad for p in whole.parameters], whole.parameters))
    state = torch.get_rng_state()
    a, b = estimator(whole), estimator(parts)
    top = max(float(x.abs().max()) for x in a)
    assert top > 0 and close(a, b, rtol=1e-3, atol=1e-5 * top)
    assert all(torch.equal(p.grad, g) for p, g in zip(whole.parameters, grads, strict=True))
    assert all(torch.equal(p, w) for p, w in zip(whole.parameters, weights, strict=True))
    assert torch.equal(state, torch.get_rng_state()) and not any(x.requires_grad for x in a)


@pytest.mark.parametrize("estimator", [gauss_newton_bartlett, hutchinson])
def test_draws_depend_on_seed_and_step_only(estimator):
    model, batches = Softmax(), micro(SMALL, SMALL, 6)
    draw = lambda **more: estimator(moment(model, batches, **more))[0]  # noqa: E731
    first = draw(seed=3, step=5)
    torch.manual_seed(7)
    assert torch.equal(first, draw(seed=3, step=5))
    assert not torch.equal(first, draw(seed=3, step=6)) and not torch.equal(first, draw(seed=4, step=5))


@pytest.mark.parametrize("estimator", [gauss_newton_bartlett, hutchinson])
def test_a_fresh_adapter_gives_zeros_not_nans(estimator):
    policy = Policy(LoRA(rank=2, alpha=4).attach(tiny_lm(), 0))
    m = moment(policy, micro(*data(), 4096))
    found = dict(zip([n for n, p in policy.named_parameters() if p.requires_grad], estimator(m), strict=True))
    assert all(torch.isfinite(h).all() for h in found.values())
    assert any(h.any() for n, h in found.items() if "lora_B" in n)
    if estimator is gauss_newton_bartlett:
        assert not any(h.any() for n, h in found.items() if "lora_A" in n)


# --- Fisher --------------------------------------------------------------------------------------------------


def test_per_sample_fisher_equals_a_loop_over_rows():
    _, retain = data()
    lm = tiny_lm()
    policy = Policy(lm).train()
    parameters = list(policy.parameters())
    found = diagonal_fisher(policy, retain, parameters)
    assert policy.training and all(p.grad is None for p in parameters)
    expected = [torch.zeros_like(p) for p in parameters]
    for i in range(len(retain)):
        ids = torch.tensor([retain.ids[i]])
        logits = copy.deepcopy(lm).eval() and lm(input_ids=ids).logits[0, :-1]
        loss = F.cross_entropy(logits[retain.prompt[i] - 1 :], ids[0, retain.prompt[i] :])
        for e, g in zip(expected, torch.autograd.grad(loss, parameters), strict=True):
            e += g**2 / len(retain)
    top = max(float(e.max()) for e in expected)
    assert top > 0 and close(found, expected, rtol=1e-3, atol=1e-6 * top)


def test_batches_of_rows_shrink_the_fisher():
    """Rows of independent labels: a batch of n has about 1/n of the per-sample value; batches of one are the same."""
    generator = torch.Generator().manual_seed(0)
    model = Softmax()
    with torch.no_grad():
        model.weight.zero_()  # the model's own labels are uniform: those of the rows then have mean gradient zero
    ids = torch.randint(4, (512, 2), generator=generator).tolist()
    rows = Tokens(tuple(map(tuple, ids)), (1,) * 512, ("answer",) * 512)
    fisher = lambda *a, **k: diagonal_fisher(model, rows, [model.weight], *a, **k)[0].mean().item()  # noqa: E731
    single = fisher()
    assert fisher("minibatch", batch_size=1) == pytest.approx(single)
    assert fisher("minibatch", batch_size=4) == pytest.approx(single / 4, rel=0.2)
    assert fisher("minibatch", batch_size=16) == pytest.approx(single / 16, rel=0.35)


def test_a_short_last_batch_counts_by_its_rows():
    model = Softmax()
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    assert sorted(order) == [0, 1, 2]
    [found] = diagonal_fisher(model, SMALL, [model.weight], "minibatch", batch_size=2, seed=5)

    def gradient(rows):
        loss = 0
        for i in rows:
            scored = model(collate(SMALL, [i]))
            loss = loss - scored.token_logp.mean() / len(rows)
        return torch.autograd.grad(loss, model.weight)[0]

    candidates = []
    for last in range(3):
        pair = [i for i in range(3) if i != last]
        candidates.append(2 / 3 * gradient(pair) ** 2 + 1 / 3 * gradient([last]) ** 2)
    assert sum(torch.allclose(found, c) for c in candidates) == 1


def test_a_subset_of_rows_is_drawn_by_the_seed():
    model = Softmax()
    fisher = lambda **k: diagonal_fisher(model, SMALL, [model.weight], **k)[0]  # noqa: E731
    singles = [
        diagonal_fisher(model, Tokens(*([x[i]] for x in (SMALL.ids, SMALL.prompt, SMALL.labels))), [model.weight])[0]
        for i in range(3)
    ]
    drawn = {next(i for i in range(3) if torch.allclose(singles[i], fisher(rows=1, seed=s))) for s in range(12)}
    assert drawn == {0, 1, 2}
    assert torch.allclose(fisher(rows=3), fisher()) and torch.equal(fisher(rows=99), fisher())
    assert torch.allclose(fisher(), torch.stack(singles).mean(0))


def test_fisher_refuses_what_it_cannot_do():
    model = Softmax()
    with pytest.raises(SpecError, match="unknown Fisher batching 'per_smaple'; did you mean 'per_sample'"):
        diagonal_fisher(model, SMALL, [model.weight], "per_smaple")
    for more in ({"rows": 0}, {"batch_size": 1.5}, {"rows": True}, {"rows": float("nan")}):
        with pytest.raises(SpecError, match="must be a whole number >= 1"):
            diagonal_fisher(model, SMALL, [model.weight], **more)
    with pytest.raises(SpecError, match="no rows"):
        diagonal_fisher(model, Tokens((), (), ()), [model.weight])
