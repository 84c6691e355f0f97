"""Importance maps against loops written here, FILA's factors, VILA's lifting, and the adapter that begins with them."""

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import Started, script, tiny_lm

from reprolib.adapters import fila, importance, vila
from reprolib.adapters.base import Data, LoRA
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.adapters.importance import linears, moments, paired_rows, ratio, row_importance
from reprolib.adapters.names import named
from reprolib.corpus.batching import Tokens, collate, encode_rows
from reprolib.errors import SpecError
from reprolib.identity import canonical, digest
from reprolib.models.policy import Policy
from reprolib.objectives import KL, NPO, Objective
from reprolib.optim import AdamW
from reprolib.recipes import recipe
from reprolib.recipes.base import Schedule, Stage
from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import unlearn
from reprolib.unlearn.references import detach

pytestmark = pytest.mark.usefixtures("one_thread")


IDS = torch.tensor([list(range(2, 40))])


NAME = "model.layers.1.mlp.up_proj"  # [64, 32]


@pytest.fixture(scope="module")
def data(tokenizer, corpus):
    return Data(encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"]))


def batches(tokens, rows, size):
    return [collate(tokens, rows[i : i + size]) for i in range(0, len(rows), size)]


def nll(lm, batch):
    """Mean NLL of the labelled tokens, from the whole model with its own mask and head."""
    mask = torch.ones_like(batch.ids)  # right padding
    logp = lm(input_ids=batch.ids, attention_mask=mask).logits.log_softmax(-1)
    return -logp[batch.predict].gather(1, batch.labels[:, None]).mean()


def by_loop(gradients, sizes, centred):
    """The formulas as printed, in float64, from lists of gradients."""
    total = sum(sizes)
    square = sum(n * g.double() ** 2 for n, g in zip(sizes, gradients, strict=True)) / total
    mean = sum(n * g.double() for n, g in zip(sizes, gradients, strict=True)) / total
    return (square - mean**2).clamp(min=0) if centred else square


def same(a, b, rtol=1e-4):
    return torch.allclose(a.double(), b.double(), rtol=rtol, atol=1e-6 * float(b.abs().max()))


# --- maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [False, True])
def test_full_maps_against_a_loop(lm, data, centred):
    rows = [4, 0, 2, 1, 3]
    weights = [m.weight for m in linears(lm).values()]
    lists, sizes = [], []
    for batch in batches(data.forget, rows, 2):
        lists.append(torch.autograd.grad(nll(lm, batch), weights))
        sizes.append(int(batch.predict.sum()))
    assert len(set(sizes)) > 1  # the weighting by tokens is seen
    maps = fila.importance(lm, data.forget, rows, batch_size=2, centred=centred)
    assert maps.tokens == sum(sizes) and len(maps.values) == len(weights) == 14
    for i, (name, value) in enumerate(maps.values.items()):
        assert value.shape == weights[i].shape and value.min() >= 0
        assert same(value, by_loop([g[i] for g in lists], sizes, centred)), name


def test_the_centred_map_is_smaller_by_the_squared_mean(lm, data):
    rows = range(len(data.retain))
    uncentred, centred = (fila.importance(lm, data.retain, rows, batch_size=1, centred=c).values[NAME] for c in (False, True))
    assert (centred <= uncentred * (1 + 1e-5)).all() and centred.sum() < 0.9 * uncentred.sum()


def test_identical_gradients_have_no_variance(lm, data):
    one = Tokens(data.forget.ids[:1] * 6, data.forget.prompt[:1] * 6, data.forget.labels[:1] * 6)
    factors = vila.draw(lm, 4)
    for maps in (
        fila.importance(lm, one, range(6), batch_size=2, centred=True),
        vila.importance(lm, one, range(6), factors, batch_size=2, centred=True),
    ):
        assert all(v.max() == 0 for v in maps.values.values())
    assert all(v.max() > 0 for v in fila.importance(lm, one, range(6), batch_size=2).values.values())


def test_measuring_leaves_no_trace(lm, data):
    lm.train()
    lm.model.layers[0].eval().requires_grad_(False)
    before = copy.deepcopy(lm.state_dict())
    flags = {n: p.requires_grad for n, p in lm.named_parameters()}
    modes = [m.training for m in lm.modules()]
    state = torch.get_rng_state()
    fila.importance(lm, data.forget, range(5))
    vila.importance(lm, data.forget, range(5), vila.draw(lm, 2))
    assert all(torch.equal(v, before[n]) for n, v in lm.state_dict().items())
    assert flags == {n: p.requires_grad for n, p in lm.named_parameters()} and modes == [m.training for m in lm.modules()]
    assert all(p.grad is None for p in lm.parameters()) and torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks for m in linears(lm).values())


def test_rows_are_paired_as_in_the_papers():
    forget, retain = paired_rows(5, 9, 0)
    assert sorted(forget) == list(range(5)) and len(set(retain)) == 5 and set(retain) <= set(range(9))
    assert len(paired_rows(5, 3, 0)[1]) == 3
    assert paired_rows(50, 50, 1) == paired_rows(50, 50, 1) != paired_rows(50, 50, 2)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("perturb", [False, True])
def test_lora_maps_against_a_loop(lm, data, centred, perturb):
    """Against the definition: W + s (B A - [B0 A0]) put into the weights, and its gradients with respect to A and B."""
    rows, s = [4, 0, 2, 1, 3], 2.0
    factors = vila.draw(lm, 4, 0.05, seed=3)
    maps = vila.importance(lm, data.forget, rows, factors, scaling=s, batch_size=2, centred=centred, perturb=perturb)
    lists, sizes = [], []
    leaves = {n: vila.Factors(*(t.clone().requires_grad_() for t in f)) for n, f in factors.items()}
    weights = {}
    for n, f in leaves.items():
        start = 0 if perturb else factors[n].b @ factors[n].a
        weights[f"{n}.weight"] = linears(lm)[n].weight.detach() + s * (f.b @ f.a - start)

    def loss(batch):
        logits = torch.func.functional_call(lm, weights, (batch.ids,), tie_weights=False).logits
        return -logits.log_softmax(-1)[batch.predict].gather(1, batch.labels[:, None]).mean()

    flat = [t for f in leaves.values() for t in f]
    parts = batches(data.forget, rows, 2)
    for batch in parts:
        lists.append(torch.autograd.grad(loss(batch), flat, retain_graph=True))
        sizes.append(int(batch.predict.sum()))
    keys = [f"{n}.{k}" for n in factors for k in "ab"]
    for i, key in enumerate(keys):
        assert maps.values[key].shape == flat[i].shape
        assert same(maps.values[key], by_loop([g[i] for g in lists], sizes, centred), rtol=1e-3), key
    own = sum(n * nll(lm, b).item() for n, b in zip(sizes, parts, strict=True)) / sum(sizes)
    assert (abs(maps.nll - own) < 1e-5) == (not perturb)


def test_lora_gradients_are_those_of_peft(data):
    factors = vila.draw(tiny_lm(), 4, seed=3)
    maps = vila.importance(tiny_lm(), data.forget, [0, 1], factors, scaling=2.0, batch_size=2, centred=False)
    adapted = LoRA(rank=4, alpha=8).attach(tiny_lm(), 0).eval()
    with torch.no_grad():
        for n, f in factors.items():
            layer = adapted.get_submodule(f"base_model.model.{n}")
            layer.lora_A["default"].weight.copy_(f.a)
            layer.lora_B["default"].weight.copy_(f.b)
    (-Policy(adapted)(collate(data.forget, [0, 1])).token_logp.mean()).backward()
    layer = adapted.get_submodule(f"base_model.model.{NAME}")
    assert same(maps.values[f"{NAME}.a"], layer.lora_A["default"].weight.grad ** 2)
    assert same(maps.values[f"{NAME}.b"], layer.lora_B["default"].weight.grad ** 2)


def test_lifting_is_the_matrix_product_averaged_over_draws(lm, data):
    draws = [vila.importance(lm, data.forget, range(5), vila.draw(lm, 4, seed=d), batch_size=2) for d in (0, 1)]
    lifted = vila.lift(draws, NAME)
    assert lifted.shape == linears(lm)[NAME].weight.shape
    expected = torch.zeros(lifted.shape, dtype=torch.float64)
    for m in draws:
        for k in range(4):
            expected += torch.outer(m.values[f"{NAME}.b"][:, k].double(), m.values[f"{NAME}.a"][k].double()) / 2
    assert same(lifted, expected)
    assert not same(draws[0].values[f"{NAME}.a"], draws[1].values[f"{NAME}.a"], rtol=0.1)


def test_draws_have_the_given_spread(lm):
    flat = torch.cat([t.flatten() for f in vila.draw(lm, 16, sigma=0.2).values() for t in f])
    assert abs(flat.std() - 0.2) < 0.005 and abs(flat.mean()) < 0.005


# --- ratio, rows, factors ------------------------------------------------------------------------------------


def test_ratio_by_hand():
    f, r = torch.tensor([[4.0, 0.0], [1.0, 9.0]]), torch.tensor([[1.0, 3.0], [0.0, 4.0]])  # mean(r) = 2
    assert torch.allclose(ratio(f, r), f / (r + 0.02))
    assert torch.allclose(ratio(f, r, eps_value=0.5), f / (r + 1.0))
    assert torch.allclose(ratio(f, r, "absolute"), f / (r + 1e-5))
    assert torch.allclose(ratio(f, r, "absolute", 1.0), f / (r + 1))
    rho = row_importance(torch.tensor([[4.0, 5.0], [0.0, 0.0]]))
    assert rho.tolist() == [3.0, 0.0] and rho.dtype == torch.float64


def test_an_absolute_eps_forgets_the_retain_side_where_gradients_are_small():
    f, r = (torch.rand(8, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))

    def shape(x):  # up to a factor
        return x / x.sum()

    small = 1e-10
    assert torch.allclose(shape(ratio(f * small, r * small, "absolute")), shape(f), rtol=1e-3)
    assert torch.allclose(shape(ratio(f * small, r * small)), shape(ratio(f, r)), rtol=1e-3)
    assert not torch.allclose(shape(ratio(f, r)), shape(f), rtol=0.1)


@pytest.mark.parametrize("empty", ["none", "rows", "all but one", "all"])
def test_factors_leave_the_weight_as_it_was(empty):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(48, 32, generator=generator) * 0.2
    r = torch.rand(48, 32, generator=generator) ** 8 * 1e4  # orders of magnitude apart
    if empty != "none":
        r[{"rows": slice(0, 20), "all but one": slice(1, None), "all": slice(None)}[empty]] = 0
    s = 2.0
    a, b = (x.float() for x in fila.row_weighted_factors(w, row_importance(r), 8, s))
    assert a.shape == (8, 32) and b.shape == (48, 8) and torch.isfinite(a).all() and torch.isfinite(b).all()
    residual = (w.double() - s * b.double() @ a.double()).float()
    assert (residual + s * b @ a - w).abs().max() <= 1e-6
    if empty == "none":  # the best rank-8 approximation of diag(rho) W, and A, B that share its norm
        rho = row_importance(r)[:, None]
        left = torch.linalg.svdvals(rho * (w.double() - s * b.double() @ a.double()))
        assert left[0] == pytest.approx(torch.linalg.svdvals(rho * w.double())[8].item(), rel=1e-2)
        assert torch.allclose(((rho + fila.ROW_EPS) * b.double()).norm(dim=0), a.double().norm(dim=1), rtol=1e-5)


def test_uniform_rows_are_pissa(lm):
    ours = FisherLoRA(rank=4, alpha=8, rows="uniform").attach(lm, 0)
    theirs = LoRA(rank=4, alpha=8, init="pissa").attach(tiny_lm(), 0)
    for (n, p), (m, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert n == m
        if "base_layer" in n:
            assert torch.allclose(p, q, atol=1e-4)  # 1 / (1 + 1e-5)


def test_the_randomised_svd_finds_the_same_and_keeps_the_generator():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(60, 5, generator=generator) @ torch.randn(5, 40, generator=generator)
    w += 1e-3 * torch.randn(60, 40, generator=generator)
    rho = torch.rand(60, generator=generator) + 0.1
    a, b = fila.row_weighted_factors(w, rho, 5, 2.0)
    state = torch.get_rng_state()
    a2, b2 = fila.row_weighted_factors(w, rho, 5, 2.0, seed=1, exact_up_to=8)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(b @ a, b2 @ a2, atol=1e-5)
    assert torch.equal(a2, fila.row_weighted_factors(w, rho, 5, 2.0, seed=1, exact_up_to=8)[0])


def test_how_the_svd_is_made_is_part_of_the_fingerprint_unless_it_is_the_default():
    plain, randomised = (recipe("vila_ihl").build(o) for o in ({}, {"exact_up_to": 8}))
    assert digest(list(plain)) == "ebaf8f66d2a1"  # of before there was a choice
    assert recipe("vila_ihl").build({"exact_up_to": 2048}) == plain
    assert "exact_up_to" not in canonical(plain) and digest(list(randomised)) != digest(list(plain))
    assert randomised[0].trainable.exact_up_to == 8
    factors = [
        dict(FisherLoRA(rank=4, rows="uniform", **o).attach(tiny_lm(), 0).named_parameters())
        for o in ({}, {"exact_up_to": 2048}, {"exact_up_to": 8})
    ]
    name = next(n for n in factors[0] if "lora_A" in n)
    assert torch.equal(factors[0][name], factors[1][name]) and not torch.equal(factors[0][name], factors[2][name])


# --- the adapter ---------------------------------------------------------------------------------------------

KINDS = {
    "fila": {},
    "fila centred": {"centred": True, "batch_size": 1},
    "fila published": {"eps": "absolute"},
    "vila": {"space": "lora", "centred": True, "batch_size": 2},
    "vila published": {"space": "lora", "centred": True, "batch_size": 2, "eps": "absolute", "tokens_twice": True, "draws": 1},
    "vila undisturbed": {"space": "lora", "centred": True, "batch_size": 2, "perturb": False},
    "permuted": {"rows": "permuted"},
    "uniform": {"rows": "uniform"},
    "normalised": {"normalise": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_is_unchanged_at_the_start_and_only_factors_move(kind, data):
    adapted = FisherLoRA(rank=4, alpha=8, **KINDS[kind]).attach(tiny_lm(), 0, data).eval()
    plain = tiny_lm()
    for name, m in linears(plain).items():
        layer = adapted.get_submodule(f"base_model.model.{name}")
        a, b, base = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.get_base_layer().weight
        assert (base + 2.0 * b @ a - m.weight).abs().max() <= 1e-6
        assert a.requires_grad and b.requires_grad and not base.requires_grad
        assert a.abs().max() > 0 and b.abs().max() > 0 and not torch.allclose(base, m.weight, atol=1e-3)
    assert {n for n, p in adapted.named_parameters() if p.requires_grad} == {
        n for n, _ in adapted.named_parameters() if "lora_" in n
    }
    with torch.no_grad():
        assert (adapted(input_ids=IDS).logits - plain(input_ids=IDS).logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["fila-4-8", "vila-4"])
def test_it_trains_and_merges_exactly(name, data):
    adapted = named(name, batch_size=2).attach(tiny_lm(), 0, data)
    base = {n: p.detach().clone() for n, p in adapted.named_parameters() if "lora_" not in n}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        Policy(adapted)(collate(data.forget, [0, 1])).token_logp.mean().backward()
        optimizer.step()
    assert all(torch.equal(p, base[n]) for n, p in adapted.named_parameters() if "lora_" not in n)
    with torch.no_grad():
        before, start = adapted.eval()(input_ids=IDS).logits, tiny_lm()(input_ids=IDS).logits
        merged = detach(adapted)
        after = merged(input_ids=IDS).logits
    assert (before - after).abs().max() < 1e-4 < 0.01 < (before - start).abs().max()
    assert dict(merged.named_parameters()).keys() == dict(tiny_lm().named_parameters()).keys()


def test_the_loop_resumes_it_with_the_same_bytes(data, tmp_path):
    schedule = Schedule(epochs=3, batch_size=4, pairing="paired")
    objective = Objective(forget=NPO(beta=0.1), retain=KL())
    stages = [
        Stage(name=n, objective=objective, trainable=named(n, batch_size=2), optimizer=AdamW(lr=1e-2), schedule=schedule)
        for n in ("fila-4", "vila-4")
    ]

    def run(measure, checkpoint=None):
        return unlearn(tiny_lm(), stages, *data, seed=0, points=12, measure=measure, checkpoint=checkpoint, progress=False)

    whole, outcome = run(lambda m: {})
    assert (outcome.status, outcome.steps) == ("done", 12) and not hasattr(whole, "peft_config")
    for stop in (4, 9):  # in each of the stages
        calls = []

        def measure(lm, calls=calls, stop=stop):
            calls.append(1)
            if len(calls) == stop + 1:
                raise KeyboardInterrupt
            return {}

        path = tmp_path / f"{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            run(measure, Checkpoint(path, "f"))
        assert path.exists()
        resumed, outcome = run(lambda m: {}, Checkpoint(path, "f"))
        assert outcome.steps == 12
        assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True)), stop


@pytest.mark.parametrize("kind", KINDS)
def test_attaching_again_gives_the_same(kind, data):
    def attached(seed, noise):
        torch.manual_seed(noise)
        return dict(FisherLoRA(rank=4, **KINDS[kind]).attach(tiny_lm(), seed, data).named_parameters())

    a, b, other = attached(0, 1), attached(0, 2), attached(1, 1)
    assert all(torch.equal(p, b[n]) for n, p in a.items())
    if KINDS[kind].get("rows") != "uniform":
        assert not all(torch.equal(p, other[n]) for n, p in a.items())


def test_permuted_rows_are_the_same_values_elsewhere(lm, data):
    own = FisherLoRA(rank=4).row_importance(lm, 0, data)
    permuted = FisherLoRA(rank=4, rows="permuted").row_importance(lm, 0, data)
    for n, rho in own.items():
        assert torch.equal(rho.sort().values, permuted[n].sort().values) and not torch.equal(rho, permuted[n])
    normal = FisherLoRA(rank=4, normalise=True).row_importance(lm, 0, data)
    for n, rho in own.items():
        assert normal[n].square().mean() == pytest.approx(1) and torch.allclose(normal[n] / normal[n][0], rho / rho[0])


def test_dividing_by_the_token_count_twice(lm, data):
    """The published quirk drives the retain side under an absolute eps; beside a relative one it is a mere factor."""

    def shape(**options):
        rho = FisherLoRA(rank=4, space="lora", centred=True, batch_size=2, **options).row_importance(lm, 0, data)[NAME]
        return rho / rho.norm()

    draws = FisherLoRA(rank=4, space="lora", centred=True, batch_size=2)._maps(lm, 0, data.forget, paired_rows(5, 4, 0)[0])
    forget_only = row_importance(vila.lift(draws, NAME))
    forget_only /= forget_only.norm()
    assert torch.allclose(shape(), shape(tokens_twice=True), rtol=1e-4)
    once, twice = (float((shape(eps="absolute", eps_value=1e-4, tokens_twice=t) - forget_only).norm()) for t in (False, True))
    assert twice < 0.5 * once


def test_notes_say_what_it_cost(lm, data):
    notes = {}
    FisherLoRA(rank=4, batch_size=2).attach(tiny_lm(), 0, data, notes)
    weights = sum(m.weight.numel() for m in linears(lm).values())
    assert notes["importance_parameters"] == weights and notes["importance_values_bytes"] == 4 * 3 * weights
    assert notes["importance_s"] > 0 and notes["initialisation_s"] > 0
    own = fila.importance(lm, data.forget, range(5)).nll
    assert notes["importance_nll_forget"] == pytest.approx(own, rel=1e-5)
    named("vila-4", batch_size=2).attach(tiny_lm(), 0, data, notes)
    factors = sum(4 * sum(m.weight.shape) for m in linears(lm).values())
    assert notes["importance_parameters"] == factors and notes["importance_values_bytes"] == 4 * 6 * factors
    assert notes["importance_nll_forget"] != pytest.approx(own, rel=1e-5)
    assert all(isinstance(v, float) for v in notes.values())
    FisherLoRA(rank=4, rows="uniform").attach(tiny_lm(), 0, None, notes)
    assert notes["importance_s"] == notes["importance_parameters"] == 0


def test_names():
    assert named("fila-16") == FisherLoRA() == FisherLoRA(rank=16, alpha=32, space="full", centred=False, eps="relative")
    assert named("fila-16-32") == named("fila-16")
    assert named("vila-8-4") == FisherLoRA(rank=8, alpha=4, space="lora", centred=True)
    assert named("vila-8", eps="absolute", centred=False) == FisherLoRA(rank=8, alpha=16, space="lora", eps="absolute")


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be >= 1"),
        ({"space": "ful"}, "did you mean 'full'"),
        ({"eps": "relativ"}, "did you mean 'relative'"),
        ({"rows": "random"}, "unknown rows"),
        ({"eps_value": 0}, "eps_value must be > 0"),
        ({"draws": 0}, "draws must be a whole number >= 1"),
        ({"draws": 1.5}, "draws must be a whole number >= 1"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"exact_up_to": 0}, "exact_up_to must be a whole number >= 1"),
        ({"exact_up_to": 8.5}, "exact_up_to must be a whole number >= 1"),
        ({"sigma": 0}, "sigma must be > 0"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(SpecError, match=message):
        FisherLoRA(**options)


def test_what_cannot_be_attached(lm, data, monkeypatch):
    with pytest.raises(SpecError, match=r"Data\(forget, retain\)"):
        FisherLoRA(rank=4).attach(lm, 0)
    with pytest.raises(SpecError, match="use a rank of at most 32"):
        FisherLoRA(rank=33).attach(lm, 0, data)
    with pytest.raises(SpecError, match="variance between batches"):
        FisherLoRA(rank=4, centred=True, batch_size=5).attach(lm, 0, data)
    with pytest.raises(SpecError, match="at least one row"):
        FisherLoRA(rank=4).attach(lm, 0, Data(data.forget, Tokens((), (), ())))
    with torch.no_grad():
        lm.model.layers[0].mlp.gate_proj.weight[0, 0] = float("nan")
    with pytest.raises(SpecError, match="not finite"):
        FisherLoRA(rank=4).attach(lm, 0, data)


def test_a_quantised_base_is_refused(lm, data):
    lm.quantization_method = "bitsandbytes"
    with pytest.raises(SpecError, match=r"W - sBA, which 4 or 8 bits cannot represent.*precision='fp32'"):
        FisherLoRA(rank=4).attach(lm, 0, data)


def test_an_adapter_that_could_not_learn_is_refused(lm, data):
    with torch.no_grad():
        lm.model.layers[1].mlp.down_proj.weight.zero_()  # no gradient reaches up_proj and gate_proj of this layer
    with pytest.raises(SpecError, match="must be > 0"):
        FisherLoRA(rank=4).attach(lm, 0, data)
    with pytest.raises(SpecError, match=r"layers\.1\.mlp.* is 0 or not finite"):
        FisherLoRA(rank=4, eps="absolute").attach(lm, 0, data)


def test_bad_shapes():
    w = torch.ones(4, 3)
    with pytest.raises(SpecError, match="has 4 rows"):
        fila.row_weighted_factors(w, torch.ones(3), 2, 1.0)
    with pytest.raises(SpecError, match=r"rank must lie in 1\.\.3"):
        fila.row_weighted_factors(w, torch.ones(4), 4, 1.0)
    with pytest.raises(SpecError, match="finite and >= 0"):
        fila.row_weighted_factors(w, -torch.ones(4), 2, 1.0)
    with pytest.raises(SpecError, match="sigma"):
        vila.draw(tiny_lm(), 4, sigma=0)
    with pytest.raises(SpecError, match="did you mean 'absolute'"):
        ratio(w, w, "absolut")
    with pytest.raises(SpecError, match="at least one row"):
        moments(tiny_lm(), {}, Tokens((), (), ()), [], batch_size=1, centred=False)
    assert importance.EPS == {"absolute": 1e-5, "relative": 1e-2}


# --- its cost ------------------------------------------------------------------------------------------------


def test_the_benchmark_runs_and_counts_right(tmp_path):
    benchmark = Path(__file__).resolve().parents[2] / "study" / "benchmarks" / "importance.py"
    options = ("--cases", "minute", "--rounds", "2", "--rows", "6", "--no-memory", "--out", str(tmp_path / "importance.json"))
    done = Started(script, str(benchmark), *options, folder=tmp_path).wait()
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "importance.json").read_text())
    case = content["cases"]["minute"]
    assert (
        case["ratio"]["vila"]["rounds"] == 2
        and case["parameters_with_gradients"]["vila"] < case["parameters_with_gradients"]["fila"]
    )
    assert content["shapes"]["Llama-2-7B"]["ratio"] > 100
