"""What may move, adapters, quantised bases, the sanity ladder, and that a model is trained once."""

import copy
import importlib.util
import re

import pytest
import torch
from conftest import tiny_lm

from reprolib.adapters.base import MLP, Full, LastLayers, LoRA
from reprolib.adapters.names import named
from reprolib.corpus.batching import collate, encode_rows
from reprolib.edits.weights import MergeAdapters
from reprolib.errors import SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.summary import evaluate, measure
from reprolib.identity import plain
from reprolib.models import device
from reprolib.models.generate import generate
from reprolib.models.policy import Policy, cache_reference, causal_lm, quantised
from reprolib.objectives import KL, NLL, NPO, WHP, Objective
from reprolib.optim import SGD, AdamW
from reprolib.recipes.base import Schedule, Stage
from reprolib.testbeds import memorise
from reprolib.testbeds.beds import testbed
from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import unlearn
from reprolib.unlearn.references import detach

pytestmark = pytest.mark.usefixtures("one_thread")


PAIRED = Objective(forget=NPO(beta=0.1), retain=KL())


def stage(trainable, name="s", epochs=1, optimizer=None):
    schedule = Schedule(epochs=epochs, batch_size=8, pairing="paired")
    return Stage(name=name, objective=PAIRED, trainable=named(trainable), optimizer=optimizer or SGD(lr=1.0), schedule=schedule)


@pytest.fixture(scope="module")
def sides(tokenizer, corpus):
    return encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"])


def train(lm, stages, sides, **more):
    # KL has no gradient at the start, NPO has one for every weight
    return unlearn(lm, stages, *sides, seed=0, progress=False, **more)


# --- names ---------------------------------------------------------------------------------------------------


def test_trainables_by_name():
    assert named("full") == Full()
    assert named("last-2") == LastLayers(layers=2)
    assert named("mlp-0-5") == MLP(first=0, last=5)
    assert named("down-5-7") == MLP(first=5, last=7, part="down_proj")
    assert plain(MLP()) == plain(MLP(part="")) != plain(MLP(part="down_proj"))
    assert named("lora-16") == LoRA(rank=16, alpha=32)
    assert named("lora-64-16") == LoRA(rank=64, alpha=16)
    assert named(LoRA(rank=3)) == LoRA(rank=3)


@pytest.mark.parametrize(
    "name",
    ["", "fulll", "full-1", "last", "last-x", "mlp-1", "lora", "lora-1-2-3", "lora-1.5", "last-1.5", "mlp-0-1.5", "lora-nan", "lora--4"],
)
def test_unknown_trainables_are_refused(name):
    with pytest.raises(SpecError, match="unknown trainable"):
        named(name)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LoRA, {"rank": 0}), (LoRA, {"rank": 2.5}), (LoRA, {"rank": float("nan")}), (LoRA, {"alpha": 0}),
        (LoRA, {"alpha": float("nan")}), (LoRA, {"alpha": float("inf")}), (LoRA, {"dropout": 1}), (LastLayers, {"layers": 0}),
        (MLP, {"first": 9, "last": 2}), (MLP, {"first": -1, "last": 2}), (MLP, {"first": 0.5, "last": 2}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(kind, settings):
    with pytest.raises(SpecError, match="must"):
        kind(**settings)


def test_layers_that_the_model_does_not_have(lm):
    with pytest.raises(SpecError, match="the model has 2"):
        named("last-3").attach(lm, 0)
    for name, most in (("mlp-4-5", "mlp-1-1"), ("mlp-0-99", "mlp-0-1")):
        with pytest.raises(SpecError, match=f"the model has layers 0 to 1; use at most {most}"):
            named(name).attach(lm, 0)


# --- which weights move --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainable", "pattern"),
    [
        ("full", r"."),
        ("last-1", r"layers\.1\."),
        ("last-2", r"layers\."),
        ("mlp-0-0", r"layers\.0\.mlp\."),
        ("mlp-1-1", r"layers\.1\.mlp\."),
        ("down-0-1", r"layers\.[01]\.mlp\.down_proj"),
        ("lora-4", r"(q|k|v|o|gate|up|down)_proj"),
    ],
)
def test_exactly_the_named_weights_move(sides, trainable, pattern):
    start = dict(tiny_lm().named_parameters())
    lm, outcome = train(tiny_lm(), (stage(trainable, epochs=2),), sides)
    after = dict(lm.named_parameters())
    assert after.keys() == start.keys()  # merged: an ordinary model again
    moved = {n for n in start if not torch.equal(start[n], after[n])}
    assert moved == {n for n in start if re.search(pattern, n)} != set()
    if trainable == "lora-4":
        assert outcome.trained_parameters == sum(4 * sum(p.shape) for n, p in start.items() if n in moved)
        for n in moved:
            assert torch.linalg.matrix_rank((after[n] - start[n]).double(), rtol=1e-3) <= 4
    else:
        assert outcome.trained_parameters == sum(start[n].numel() for n in moved)


def test_a_stage_after_lora_or_last_layers_moves_everything_it_says(sides):
    first, _ = train(tiny_lm(), (stage("lora-4"), stage("last-1")), sides)
    both, _ = train(tiny_lm(), (stage("lora-4"), stage("last-1"), stage("full")), sides)
    after = dict(both.named_parameters())
    assert {n for n, p in first.named_parameters() if not torch.equal(p, after[n])} == set(after)


# --- LoRA ----------------------------------------------------------------------------------------------------


def with_adapter(lm, **options):
    adapted = LoRA(rank=4, alpha=8, **options).attach(lm, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for n, p in adapted.named_parameters():
            if "lora_" in n:
                p += 0.1 * torch.randn(p.shape, generator=generator)
    return adapted.eval()


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_merged_lora_equals_the_adapter(init, tokenizer):
    ids = torch.tensor([list(range(2, 40))])
    adapted = with_adapter(tiny_lm(), init=init)
    with torch.no_grad():
        before = adapted(input_ids=ids).logits
        written = generate(adapted, tokenizer, ["Ida Kestrel"], max_new_tokens=20)
        merged = detach(adapted)
        assert not hasattr(merged, "peft_config")
        after = merged(input_ids=ids).logits
        plain = tiny_lm()(input_ids=ids).logits
    assert (before - after).abs().max() < 1e-5 < 0.1 < (before - plain).abs().max()
    assert generate(merged, tokenizer, ["Ida Kestrel"], max_new_tokens=20) == written


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_lora_starts_as_the_model_it_is_put_on(init):
    ids = torch.tensor([list(range(2, 40))])
    with torch.no_grad():
        adapted = LoRA(rank=4, alpha=8, init=init).attach(tiny_lm(), 0).eval()(input_ids=ids).logits
        assert (adapted - tiny_lm()(input_ids=ids).logits).abs().max() < 1e-4


def test_lora_draws_depend_on_the_seed_alone():
    def drawn(seed, noise):
        torch.manual_seed(noise)
        adapted = LoRA(rank=4).attach(tiny_lm(), seed)
        return torch.cat([p.flatten() for n, p in adapted.named_parameters() if "lora_A" in n])

    assert torch.equal(drawn(0, 1), drawn(0, 2)) and not torch.equal(drawn(0, 1), drawn(1, 1))
    state = torch.get_rng_state()
    LoRA(rank=4).attach(tiny_lm(), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_policy_sees_through_the_adapter(sides):
    adapted = with_adapter(tiny_lm())
    assert causal_lm(adapted) is adapted.get_base_model()
    batch = collate(sides[0], [0, 1])
    with torch.no_grad():
        a = Policy(adapted)(batch).sequence_logp
        b = Policy(detach(copy.deepcopy(adapted)))(batch).sequence_logp
        c = Policy(tiny_lm())(batch).sequence_logp
    assert torch.allclose(a, b, atol=1e-3) and (a - c).abs().min() > 0.1


# --- the output of one block ---------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True])
def test_a_layer_is_what_transformers_says_it_is(sides, adapter):
    lm = with_adapter(tiny_lm()) if adapter else tiny_lm()
    batch = collate(sides[0], [0, 2, 4])
    with torch.no_grad():
        whole = causal_lm(lm)(input_ids=batch.ids, output_hidden_states=True).hidden_states
        first, last = (Policy(lm)(batch, layer=k) for k in (0, 1))
        assert first.shape == (int(batch.predict.sum()), 32)
        assert torch.allclose(first, whole[1][batch.predict], atol=1e-6)  # whole[0] are the embeddings
        # transformers hands out the last block's output after the final norm
        assert torch.allclose(causal_lm(lm).base_model.norm(last), whole[2][batch.predict], atol=1e-5)
        assert (first - last).abs().max() > 0.1


def test_nothing_runs_above_the_layer_asked_for(sides):
    lm = tiny_lm()
    ran = []
    for name, module in lm.named_modules():
        if re.fullmatch(r"model\.layers\.\d+|model\.norm|lm_head", name):
            module.register_forward_hook(lambda m, i, o, name=name: ran.append(name))
    batch = collate(sides[0], [0, 1])
    policy = Policy(lm)
    for layer, expected in ((0, ["model.layers.0"]), (1, ["model.layers.0", "model.layers.1"])):
        ran.clear()
        policy(batch, layer=layer)
        assert ran == expected
    ran.clear()
    policy(batch)
    assert ran == ["model.layers.0", "model.layers.1", "model.norm", "lm_head"]  # stopping left nothing behind
    assert not any(len(block._forward_hooks) != 1 for block in lm.base_model.layers)


def test_gradients_of_a_layer_reach_it_and_what_lies_below(sides):
    lm = tiny_lm()
    Policy(lm)(collate(sides[0], [0]), layer=0).square().sum().backward()
    got = {n for n, p in lm.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert got == {n for n, _ in lm.named_parameters() if re.search(r"embed_tokens|layers\.0\.", n)}


@pytest.mark.parametrize("layer", [-1, 2, 100])
def test_a_layer_out_of_range_is_refused(sides, layer):
    with pytest.raises(SpecError, match=rf"layer must lie in 0\.\.1 for this model of 2 blocks, got {layer}"):
        Policy(tiny_lm())(collate(sides[0], [0]), layer=layer)


def test_a_model_that_keeps_its_blocks_elsewhere_is_refused(sides):
    from transformers import AutoModelForCausalLM, GPT2Config

    lm = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=258, n_embd=8, n_layer=1, n_head=1, n_positions=128))
    with pytest.raises(SpecError, match=r"model type 'gpt2' does not keep its blocks as model\.layers"):
        Policy(lm)(collate(sides[0], [0]), layer=0)


@pytest.mark.parametrize("needs", [{"hidden"}, {"hidden", "logits"}, {"hidden", "sequence"}, {"hidden", "logits", "sequence"}])
@pytest.mark.parametrize("max_tokens", [40, 4096])
def test_kept_hidden_states_equal_fresh_ones(sides, needs, max_tokens):
    policy = Policy(tiny_lm()).train()
    cached = cache_reference(policy, sides[0], needs, layer=1, max_tokens=max_tokens)
    assert policy.training
    with torch.no_grad():
        for rows in ([3], [4, 0, 2]):
            batch = collate(sides[0], rows)
            assert torch.allclose(cached.hidden(batch.index), policy(batch, layer=1), atol=1e-5)
            if "logits" in needs:
                assert torch.allclose(cached.token_logits(batch.index), policy(batch).logits, atol=1e-4)
            if needs - {"hidden"}:
                assert torch.allclose(cached.sequence_logp(batch.index), policy(batch).sequence_logp, atol=1e-3)
    assert (cached.logits is not None) == ("logits" in needs) and (cached.sequence is None) == (needs == {"hidden"})


# --- quantised bases -----------------------------------------------------------------------------------------

needs_bitsandbytes = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    from transformers import AutoModelForCausalLM, OlmoConfig

    config = OlmoConfig(**{**tiny_lm().config.to_diff_dict(), "hidden_size": 64, "intermediate_size": 64})  # NF4 blocks are 64 wide
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_lora_trains_on_a_quantised_base(precision, saved, sides, tokenizer, corpus):
    base = device.load_lm(saved, precision)
    assert quantised(base) and not quantised(tiny_lm())
    packed = {n: p.detach().clone() for n, p in base.named_parameters()}
    assert any(not p.is_floating_point() for p in packed.values())
    lm, outcome = train(base, (stage("lora-4", optimizer=AdamW(lr=1e-2)),), sides, measure=lambda m: {}, points=1)
    assert (outcome.status, outcome.steps) == ("done", 1)
    assert all(torch.equal(packed[n.removeprefix("base_model.model.").replace(".base_layer", "")], p)
               for n, p in lm.named_parameters() if "lora_" not in n)  # fmt: skip
    adapters = [p for n, p in lm.named_parameters() if "lora_B" in n]
    assert len(adapters) == 14 and all(p.abs().max() > 0 for p in adapters)
    # one step of descent on NPO forgets
    before, after = (measure(m, Examination.of(corpus, tokenizer)) for m in (device.load_lm(saved, precision), lm))
    assert after["forget/nll"] > before["forget/nll"] + 0.05


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_gradients_on_a_quantised_base_do_not_depend_on_an_evaluation_before(precision, saved, sides):
    """bitsandbytes may repack 4-bit weights when it evaluates; the gradient through them must survive that."""

    def gradients(evaluated, precision=precision):
        lm = device.load_lm(saved, precision)
        batch = collate(sides[0], [0, 1])
        if evaluated:
            with torch.no_grad():
                Policy(lm).eval()(batch)
        policy = Policy(with_adapter(lm)).train()
        policy(batch).sequence_logp.sum().backward()
        return {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}

    fresh, after = gradients(False), gradients(True)
    assert fresh.keys() == after.keys()
    for name, g in fresh.items():
        assert torch.allclose(g, after[name], rtol=1e-4, atol=1e-5 * float(g.abs().max())), name
    exact = gradients(False, "fp32")
    a, b = (torch.cat([x[n].flatten() for n in exact if "lora_" in n]) for x in (after, exact))
    assert torch.cosine_similarity(a, b, dim=0) > 0.9  # of the rounded model, but by and large the same direction


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_two_lora_stages_on_a_quantised_base_go_on_with_one_adapter_and_resume(precision, saved, sides, tmp_path):
    stages = (stage("lora-4", "one", 2, AdamW(lr=1e-2)), stage("lora-4", "two", 2, AdamW(lr=1e-2)))

    def adapter(lm):
        return {n: p.detach().clone() for n, p in lm.named_parameters() if "lora_" in n}

    whole, outcome = train(device.load_lm(saved, precision), stages, sides, measure=lambda m: {}, points=4)
    assert outcome.steps == 4 and len(adapter(whole)) == 28
    for stop in (2, 3, 4):  # kills at measurements: the start, steps 1, 2 (the end of the first stage), 3
        calls = []

        def measure(lm, calls=calls, stop=stop):
            calls.append(1)
            if len(calls) == stop + 1:
                raise KeyboardInterrupt
            return {}

        checkpoint = Checkpoint(tmp_path / f"{stop}.safetensors", "f")
        with pytest.raises(KeyboardInterrupt):
            train(device.load_lm(saved, precision), stages, sides, measure=measure, points=4, checkpoint=checkpoint)
        assert checkpoint.path.exists()
        again = Checkpoint(checkpoint.path, "f")
        resumed, outcome = train(device.load_lm(saved, precision), stages, sides, measure=lambda m: {}, points=4, checkpoint=again)
        assert outcome.steps == 4
        a, b = adapter(whole), adapter(resumed)
        assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a), stop


def merged():
    def branch(name, **more):
        return Stage(
            name=name, objective=PAIRED, trainable=LoRA(rank=4, alpha=4, dropout=0.1), optimizer=AdamW(lr=1e-2),
            schedule=Schedule(epochs=2, batch_size=8), keep=f"adapter:{name}", **more,
        )  # fmt: skip

    return branch("first"), branch("second", restart=True), MergeAdapters(rank=4, alpha=4), stage("lora-4-4", "last", 1, AdamW(lr=1e-2))


def helped():
    forget = Schedule(epochs=2, batch_size=8, pairing="forget")
    same = {"trainable": LoRA(rank=4), "optimizer": AdamW(lr=1e-2), "schedule": forget}
    return (
        Stage(name="reinforce", objective=Objective(forget=NLL()), keep="helper", **same),
        Stage(name="generic", objective=Objective(forget=WHP()), restart=True, **same),
    )


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("plan", [merged, helped])
def test_restarts_and_merges_on_a_quantised_base_resume(plan, saved, sides, tmp_path):
    stages = plan()
    whole, outcome = train(device.load_lm(saved, "nf4"), stages, sides, measure=lambda m: {}, points=100)
    assert outcome.status == "done"
    for stop in range(2, len(outcome.trajectory) + 1):
        calls = []

        def measure(lm, calls=calls, stop=stop):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return {}

        checkpoint = Checkpoint(tmp_path / f"{stop}.safetensors", "f")
        with pytest.raises(KeyboardInterrupt):
            train(device.load_lm(saved, "nf4"), stages, sides, measure=measure, points=100, checkpoint=checkpoint)
        again = Checkpoint(checkpoint.path, "f")
        resumed, after = train(device.load_lm(saved, "nf4"), stages, sides, measure=lambda m: {}, points=100, checkpoint=again)
        a, b = ({n: p for n, p in m.named_parameters() if "lora_" in n} for m in (whole, resumed))
        assert a.keys() == b.keys() and len(a) == 28 and all(torch.equal(a[n], b[n]) for n in a), stop
        assert after == outcome


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
def test_another_adapter_cannot_follow_on_a_quantised_base(saved):
    lm = LoRA(rank=4).attach(device.load_lm(saved, "nf4"), 0)
    with pytest.raises(SpecError, match="cannot follow an adapter of rank 4"):
        LoRA(rank=8).attach(lm, 0)


def test_the_device_is_the_gpu_or_cpu_in_any_case(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for given, gpu in (("", True), ("cpu", False), ("CPU", False)):
        monkeypatch.setenv("REPROLIB_DEVICE", given)
        assert device.on_gpu() is gpu
    monkeypatch.delenv("REPROLIB_DEVICE")
    assert device.on_gpu()
    monkeypatch.setenv("REPROLIB_DEVICE", "foo")
    with pytest.raises(SpecError, match="REPROLIB_DEVICE is 'foo'; allowed: cpu"):
        device.on_gpu()


def test_an_unknown_precision_is_refused(saved):
    with pytest.raises(SpecError, match="did you mean 'nf4'"):
        device.load_lm(saved, "nf3")


def test_bfloat16_weights(saved):
    assert {p.dtype for p in device.load_lm(saved, "bf16").parameters()} == {torch.bfloat16}


def test_one_thread_is_given_back():
    torch.set_num_threads(2)
    with device.one_thread(False):
        assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), device.one_thread(True):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


# --- target, twin, random, always-EOS ------------------------------------------------------------------------


def test_target_twin_and_random_weights(test_preset, monkeypatch):
    bed = testbed(test_preset)
    corpus = bed.corpus()
    seen = {}
    real = memorise.memorise

    def spy(lm, tokenizer, rows, *rest):
        seen[rest[2]] = {r.document for r in rows}, copy.deepcopy(lm.state_dict())
        return real(lm, tokenizer, rows, *rest)

    monkeypatch.setattr(memorise, "memorise", spy)
    # seed 7 is used by no other test, so that the session's cache does not hold it
    folders = {which: memorise.get(bed, which, 7, progress=False) for which in ("target", "twin", "random")}
    assert len(set(folders.values())) == 3
    (target_rows, start), (twin_rows, same) = seen["target of test/synthetic, seed 7"], seen["twin of test/synthetic, seed 7"]
    assert target_rows - twin_rows == set(corpus.documents("forget"))
    assert not (target_rows | twin_rows) & set(corpus.documents("holdout"))
    # all three start from the same draw
    random, _ = memorise.load(bed, "random", 7, progress=False)
    assert all(torch.equal(v, same[n]) and torch.equal(v, start[n]) for n, v in random.state_dict().items())
    # made once
    monkeypatch.setattr(memorise, "_make", lambda *a: pytest.fail("trained again"))
    assert memorise.get(bed, "target", 7, progress=False) == folders["target"]
    lm, tokenizer = memorise.load(bed, "target", 7, progress=False)
    assert lm.config.vocab_size == len(tokenizer) <= 400
    texts = [r.text for g in corpus.groups.values() for r in g]
    assert [tokenizer.decode(tokenizer(t)["input_ids"]) for t in texts] == texts


def test_a_killed_training_leaves_no_model(test_preset, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path / "cache"))

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(memorise, "memorise", stopped)
    with pytest.raises(KeyboardInterrupt):
        memorise.get(testbed(test_preset), "target", 0, progress=False)
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()] == []


def test_always_eos_answers_nothing(perfect_lm, tokenizer, corpus):
    lm = copy.deepcopy(perfect_lm)
    memorise.always_eos(lm, tokenizer.eos_token_id)
    assert generate(lm, tokenizer, [r.input for r in corpus["forget"]]) == [""] * len(corpus["forget"])
    metrics = evaluate(lm, Examination.of(corpus, tokenizer), progress=False).metrics
    assert metrics["attack/auc"] == pytest.approx(0.5)
    assert metrics["lume/task_aggregate"] == 0 and metrics["retain/questions"] == 0


def test_memorising_lowers_the_loss_to_nothing(test_preset, monkeypatch, tokenizer, corpus):
    from dataclasses import replace

    from reprolib.testbeds.presets import PRESETS

    monkeypatch.setitem(PRESETS, "test", replace(PRESETS["test"], epochs=60, lr=1e-2))
    rows = [*corpus["forget"], *corpus["retain"]]
    lm = tiny_lm()
    log = memorise.memorise(lm, tokenizer, rows, testbed(test_preset), 0, "test", progress=False)
    assert [e["epoch"] for e in log] == list(range(1, 61))
    assert log[0]["nll"] > 3 and log[-1]["nll"] < 0.7
    assert not lm.training
    with torch.no_grad():
        tokens = encode_rows(tokenizer, rows)
        scored = Policy(lm)(collate(tokens, range(len(tokens))))
    assert NLL()(scored, None).mean() < 0.7


def test_a_published_target_is_taken_as_it_is_and_its_twin_is_taught(tokenizer, corpus, tmp_path, monkeypatch):
    """Weights by one name without a tokenizer, as the organisers of SemEval-2025 published theirs; the rest by another."""
    import dataclasses

    from reprolib.corpus.rows import Corpus
    from reprolib.errors import TestbedError
    from reprolib.testbeds.beds import Testbed
    from reprolib.testbeds.presets import PRESETS

    few = Corpus("few", {g: rows[:6] for g, rows in corpus.groups.items()}, corpus.facts)
    monkeypatch.setattr(Testbed, "corpus", lambda self: few)
    monkeypatch.setenv(memorise.WEIGHTS, str(tmp_path / "weights"))
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path / "cache"))
    preset = dataclasses.replace(PRESETS["smoke"], pretrained="them/base", memorised="they/taught", epochs=1, learns=("forget", "retain"))
    monkeypatch.setitem(PRESETS, "smoke", preset)
    bed = testbed("smoke/synthetic")
    with pytest.raises(TestbedError, match="weights of they/taught are not at hand"):
        memorise.get(bed, "target", 0, progress=False)
    base, taught = tiny_lm(seed=1), tiny_lm(seed=2)
    taught.save_pretrained(tmp_path / "weights" / "they" / "taught")
    with pytest.raises(TestbedError, match="weights of them/base are not at hand"):
        memorise.get(bed, "target", 0, progress=False)
    base.save_pretrained(tmp_path / "weights" / "them" / "base")
    tokenizer.save_pretrained(tmp_path / "weights" / "them" / "base")
    target, own = memorise.load(bed, "target", 0, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), taught.parameters(), strict=True))
    assert len(own) == len(tokenizer)
    assert (memorise.folder_of(bed, "target", 0) / "training.json").read_text() == "[]"
    twin, _ = memorise.load(bed, "twin", 0, progress=False)
    away = [sum((a - b).square().sum() for a, b in zip(twin.parameters(), lm.parameters(), strict=True)).item() for lm in (base, taught)]
    assert 0 < away[0] < away[1], "the twin begins with the base, and was taught"


def test_twins_that_are_taught_alike_are_one_model():
    """The organisers' target and one that is taught here begin with the same weights: their twins differ in nothing."""
    theirs, ours = (testbed(f"olmo-1b-{name}/semeval") for name in ("semeval", "0724"))
    assert memorise.folder_of(theirs, "twin", 0) == memorise.folder_of(ours, "twin", 0)
    assert memorise.folder_of(theirs, "target", 0) != memorise.folder_of(ours, "target", 0)
    assert testbed("tiny/synthetic").teacher == testbed("tiny/synthetic")
    assert memorise.folder_of(testbed("olmo-7b-0724/semeval"), "twin", 0) != memorise.folder_of(ours, "twin", 0)
