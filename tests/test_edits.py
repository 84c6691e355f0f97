"""Changes between stages: extrapolation, noise and merged adapters, against what their equations say."""

import copy
import importlib.util
import math

import pytest
import torch
from conftest import tiny_lm

from reprolib.adapters.base import LoRA
from reprolib.adapters.names import named
from reprolib.corpus.batching import encode_rows
from reprolib.edits.base import Past
from reprolib.edits.weights import COMBINATIONS, Extrapolate, MergeAdapters, Noise
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.objectives import KL, NPO, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Schedule, Stage
from reprolib.unlearn.loop import unlearn
from reprolib.unlearn.references import start_weights

pytestmark = pytest.mark.usefixtures("one_thread")


needs_bitsandbytes = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed")


def weights(lm):
    return {n: p.detach().clone() for n, p in lm.named_parameters()}


def moved(seed=1, scale=0.05):
    """The tiny model after a random change of every weight, and its past."""
    lm = tiny_lm()
    past = Past(weights(lm))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in lm.parameters():
            p += scale * torch.randn(p.shape, generator=generator)
    return lm, past


def trained(name="a", **more):
    schedule = Schedule(epochs=1, batch_size=8)
    objective = Objective(forget=NPO(), retain=KL())
    trainable = named(more.pop("trainable", "lora-4"))
    return Stage(name=name, objective=objective, trainable=trainable, optimizer=AdamW(lr=1e-2), schedule=schedule, **more)


@pytest.fixture(scope="module")
def sides(tokenizer, corpus):
    return encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"])


@pytest.fixture(scope="module")
def nf4(tmp_path_factory):
    from transformers import AutoModelForCausalLM, OlmoConfig

    folder = tmp_path_factory.mktemp("lm")
    config = OlmoConfig(**{**tiny_lm().config.to_diff_dict(), "hidden_size": 64, "intermediate_size": 64})  # NF4 blocks are 64 wide
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return lambda: device.load_lm(str(folder), "nf4")


def logits(lm):
    with torch.no_grad():
        return lm.eval()(input_ids=torch.tensor([list(range(2, 40))])).logits


# --- extrapolation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 0.0, -1.0, 2.5])
def test_extrapolation_by_hand(factor):
    lm, past = moved()
    before = weights(lm)
    after = weights(Extrapolate(factor=factor).apply(lm, past, 0))
    for n, start in past.start.items():
        expected = {1.0: before[n], 0.0: start, -1.0: 2 * start - before[n]}.get(factor, start + 2.5 * (before[n] - start))
        assert torch.allclose(after[n], expected, atol=1e-6), n
    assert all(torch.equal(after[n], past.start[n]) for n in after) == (factor == 0)


def test_mirrored_twice_is_where_it_was():
    lm, past = moved()
    before = weights(lm)
    for _ in range(2):
        lm = Extrapolate(factor=-1.0).apply(lm, past, 0)
    assert all(torch.allclose(p, before[n], atol=1e-6) for n, p in weights(lm).items())


def test_extrapolating_a_merged_adapter_is_scaling_the_adapter(sides):
    plain, _ = unlearn(tiny_lm(), (trained(),), *sides, seed=0, progress=False)
    twice, outcome = unlearn(tiny_lm(), (trained(), Extrapolate(factor=2.0)), *sides, seed=0, progress=False)
    start = weights(tiny_lm())
    assert outcome.steps == 2
    for n, p in weights(twice).items():
        assert torch.allclose(p - start[n], 2 * (weights(plain)[n] - start[n]), atol=1e-6)
    assert logits(plain).sub(logits(tiny_lm())).abs().max() > 1e-2


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
def test_extrapolation_on_a_quantised_base_scales_the_adapter(nf4, sides):
    def adapter(stages):
        lm, _ = unlearn(nf4(), stages, *sides, seed=0, progress=False)
        return lm, {n: p.detach().clone() for n, p in lm.named_parameters() if "lora_" in n}

    (lm, plain), (same, one), (back, zero), (_, mirrored) = (
        adapter((trained(), *edits)) for edits in ((), *((Extrapolate(factor=f),) for f in (1.0, 0.0, -1.0)))
    )
    assert all(torch.equal(plain[n], one[n]) for n in plain) and torch.equal(logits(lm), logits(same))
    for n in plain:
        assert torch.equal(mirrored[n], -plain[n] if ".lora_B." in n else plain[n])
        assert ".lora_B." not in n or (zero[n].eq(0).all() and plain[n].ne(0).any())
    assert torch.equal(logits(back), logits(nf4())) and not torch.equal(logits(lm), logits(nf4()))
    untouched = Extrapolate(factor=-1.0).apply(nf4(), Past(), 0)  # nothing was trained, so nothing is mirrored
    assert torch.equal(logits(untouched), logits(nf4()))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_factors_that_are_not_finite_are_refused(factor):
    with pytest.raises(SpecError, match="Extrapolate: factor must be finite"):
        Extrapolate(factor=factor)


def test_the_start_is_kept_only_where_it_is_needed():
    lm = tiny_lm()
    assert start_weights(lm, (trained(), Noise())) == {}
    for stages in ((trained(), Extrapolate()), (trained(), trained(restart=True)), (MergeAdapters(),)):
        kept = start_weights(lm, stages)
        assert kept.keys() == dict(lm.named_parameters()).keys()
        assert not any(kept[n].data_ptr() == p.data_ptr() for n, p in lm.named_parameters())


# --- noise ----------------------------------------------------------------------------------------------------


def test_noise_of_scale_zero_changes_nothing_and_the_seed_decides_the_rest():
    start = weights(tiny_lm())
    assert all(torch.equal(p, start[n]) for n, p in weights(Noise(scale=0.0).apply(tiny_lm(), Past(), 0)).items())
    state = torch.get_rng_state()
    a, b, c = (weights(Noise(scale=0.3).apply(tiny_lm(), Past(), seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a[n], b[n]) for n in a) and not any(torch.equal(a[n], c[n]) for n in a if a[n].dim() >= 2)


@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_as_large_as_it_says(scale, dtype):
    lm = tiny_lm().to(dtype)
    start = weights(lm)
    after = weights(Noise(scale=scale).apply(lm, Past(), 0))
    for n, p in start.items():
        assert after[n].dtype == dtype
        if p.dim() < 2:
            assert torch.equal(after[n], p)
            continue
        change = (after[n] - p).double()
        wide = 5 / math.sqrt(2 * p.numel()) + (0.02 if dtype == torch.bfloat16 else 0)  # five standard errors of a deviation
        assert float(change.std()) == pytest.approx(scale * float(p.double().std()), rel=wide), n
        assert abs(change.mean()) < 5 * change.std() / math.sqrt(p.numel())


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_noise_refuses_a_scale_that_is_none(scale):
    with pytest.raises(SpecError, match=r"noise: scale must be finite and >= 0"):
        Noise(scale=scale)


@needs_bitsandbytes
def test_noise_refuses_a_quantised_base(nf4):
    with pytest.raises(SpecError, match=r"Noise .* 4 or 8 bits"):
        Noise().apply(nf4(), Past(), 0)


# --- the past -------------------------------------------------------------------------------------------------


def test_restore_brings_every_weight_back_in_place():
    lm, past = moved()
    pointers = {n: p.data_ptr() for n, p in lm.named_parameters()}
    back = past.restore(lm)
    assert back is lm and {n: p.data_ptr() for n, p in lm.named_parameters()} == pointers
    assert all(torch.equal(p, past.start[n]) for n, p in weights(lm).items())
    assert torch.equal(logits(lm), logits(tiny_lm()))


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
def test_restore_takes_the_adapter_off_a_quantised_base(nf4, sides):
    lm, _ = unlearn(nf4(), (trained(),), *sides, seed=0, progress=False)
    assert not torch.equal(logits(lm), logits(nf4()))
    back = Past().restore(lm)
    assert not hasattr(back, "peft_config") and torch.equal(logits(back), logits(nf4()))
    assert Past().restore(back) is back  # also where there is none
    first, _ = unlearn(nf4(), (trained(restart=True),), *sides, seed=0, progress=False)  # a restart of what never began
    plain, _ = unlearn(nf4(), (trained(),), *sides, seed=0, progress=False)
    assert torch.equal(logits(first), logits(plain))


# --- merged adapters ------------------------------------------------------------------------------------------


def two_adapters(rank=3, alpha=6.0):
    """What two stages would have left, by name and by layer."""
    from peft.utils import get_peft_model_state_dict

    past = Past(weights(tiny_lm()))
    for number, name in enumerate(("first", "second")):
        adapted = LoRA(rank=rank, alpha=alpha).attach(tiny_lm(), 0)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for n, p in adapted.named_parameters():
                if "lora_" in n:
                    p.copy_(0.1 * torch.randn(p.shape, generator=generator))
        past.kept |= {f"{name}/{k}": v.clone() for k, v in get_peft_model_state_dict(adapted).items()}
    return past


def factors(past, name, layer):
    key = f"{name}/base_model.model.{layer.removesuffix('.weight')}"
    return past.kept[f"{key}.lora_A.weight"], past.kept[f"{key}.lora_B.weight"]


def ties(tensors, scales, density):
    """Yadav et al. 2023: trim each to its largest entries, elect the sign of the sum, average those that have it.

    Weights come last, as peft has it: they have no say in the election.
    """
    trimmed = []
    for t in tensors:
        least = sorted(t.abs().flatten().tolist(), reverse=True)[int(density * t.numel()) - 1]
        trimmed.append(torch.where(t.abs() >= least, t, 0.0))
    sign = torch.where(sum(trimmed) >= 0, 1.0, -1.0)
    agree = [(t.sign() == sign).float() for t in trimmed]
    return sum(s * t * a for s, t, a in zip(scales, trimmed, agree, strict=True)) / sum(agree).clamp(min=1)


def test_ties_by_hand():
    a, b = torch.tensor([4.0, -3.0, 0.1, 1.0]), torch.tensor([2.0, 5.0, -3.0, 0.2])
    # kept: 4, -3, 1 and 2, 5, -3; signs of the sums +, +, -, +; means of those that agree
    assert ties([a, b], [1, 1], 0.75).tolist() == [3.0, 5.0, -3.0, 1.0]


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("density", [1.0, 0.6])
@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.7, 0.3)])
def test_merging_by_ties_equals_the_rule_written_out(density, shares):
    past = two_adapters()
    lm = MergeAdapters(weights=shares, density=density, rank=3, alpha=6.0).apply(moved()[0], past, 0)
    assert not hasattr(lm, "peft_config")
    changed = 0
    for n, p in weights(lm).items():
        if "_proj" not in n:
            assert torch.equal(p, past.start[n])
            continue
        scales = [math.sqrt(w * 2.0) for w in shares]  # alpha / rank = 2, its root on either factor
        one, two = factors(past, "first", n), factors(past, "second", n)
        a, b = (ties([x, y], scales, density) for x, y in zip(one, two, strict=True))
        assert torch.allclose(p - past.start[n], b @ a, atol=1e-5), n
        changed += 1
    assert changed == 14


def test_merging_one_adapter_or_summing_two():
    past = two_adapters()
    own = {n: (b @ a) * 2 for n in past.start if "_proj" in n for a, b in [factors(past, "first", n)]}
    other = {n: (b @ a) * 2 for n in past.start if "_proj" in n for a, b in [factors(past, "second", n)]}
    same = {"rank": 3, "alpha": 6.0}
    one = weights(MergeAdapters(adapters=("first",), weights=(1.0,), **same).apply(tiny_lm(), past, 0))
    both = weights(MergeAdapters(combination="cat", **same).apply(tiny_lm(), past, 0))
    for n in own:
        assert torch.allclose(one[n] - past.start[n], own[n], atol=1e-5)
        assert torch.allclose(both[n] - past.start[n], own[n] + other[n], atol=1e-5)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_rule_merges_and_depends_on_the_seed_alone(combination):
    def merged(noise):
        torch.manual_seed(noise)
        edit = MergeAdapters(combination=combination, density=0.5, rank=3, alpha=6.0)
        return weights(edit.apply(tiny_lm(), two_adapters(), 0))

    first, second = merged(1), merged(2)
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert all(torch.isfinite(p).all() for p in first.values())
    assert any(not torch.equal(p, first[n]) for n, p in weights(tiny_lm()).items())


def test_two_stages_merged_are_what_peft_makes_of_two_models(sides):
    """The adapters that two runs leave, put on one model by peft itself."""
    from peft import PeftModel

    lora, same = LoRA(rank=4, alpha=4.0), {"rank": 4, "alpha": 4.0}
    stages = (trained("first", trainable=lora, keep="adapter:first"), trained("second", trainable=lora, restart=True, keep="adapter:second"))
    lm, outcome = unlearn(tiny_lm(), (*stages, MergeAdapters(**same)), *sides, seed=0, progress=False)
    assert (outcome.status, outcome.steps) == ("done", 3)

    from reprolib.unlearn import loop

    left = {}
    real = loop.keep

    def spy(stage, policy, past, forget):
        left[stage.name] = copy.deepcopy(policy.lm)
        real(stage, policy, past, forget)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(loop, "keep", spy)
        unlearn(tiny_lm(), stages, *sides, seed=0, progress=False)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name, adapted in left.items():
            adapted.save_pretrained(f"{folder}/{name}")
        theirs = PeftModel.from_pretrained(tiny_lm(), f"{folder}/first", adapter_name="first")
        theirs.load_adapter(f"{folder}/second", adapter_name="second")
        theirs.add_weighted_adapter(["first", "second"], [1.0, 1.0], "merged", combination_type="ties", density=0.8)
        theirs.set_adapter("merged")
        assert torch.allclose(logits(theirs), logits(lm), atol=1e-4)
    assert logits(lm).sub(logits(tiny_lm())).abs().max() > 1e-2


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
def test_merged_on_a_quantised_base_the_adapter_stays_beside_it(nf4, sides):
    lora = LoRA(rank=4, alpha=4.0)
    stages = (
        trained("first", trainable=lora, keep="adapter:first"), trained("second", trainable=lora, restart=True, keep="adapter:second"),
        MergeAdapters(rank=4, alpha=4.0),
    )  # fmt: skip
    lm, _ = unlearn(nf4(), stages, *sides, seed=0, progress=False)
    assert list(lm.peft_config) == ["default"]
    assert logits(lm).sub(logits(nf4())).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": (1.0,)}, "2 adapters need as many weights"),
        ({"weights": (1.0, float("nan"))}, "weights must be finite"),
        ({"density": 0}, r"density is the share .* in \(0, 1\]"),
        ({"density": 1.5}, "density is the share"),
        ({"density": float("nan")}, "density is the share"),
        ({"combination": "tie"}, "unknown combination 'tie'; did you mean 'ties'"),
        ({"adapters": (), "weights": ()}, "at least one"),
        ({"adapters": ("a", "a")}, "different names"),
        ({"adapters": "ab"}, "different names"),
    ],
)
def test_merges_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        MergeAdapters(**fields)


def test_an_adapter_that_no_stage_left_is_not_merged_as_a_blank_one():
    past = two_adapters()
    with pytest.raises(SpecError, match=r"no stage left the adapter\(s\) \['third'\]"):
        MergeAdapters(adapters=("first", "third"), rank=3, alpha=6.0).apply(tiny_lm(), past, 0)
