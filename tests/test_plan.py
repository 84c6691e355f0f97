"""The planner against reality: bytes of real tensors, of real graphs and of real steps, and operations that torch counts."""

import dataclasses
import json
import weakref

import pytest
import torch
from conftest import tiny_lm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from reprolib.adapters.base import Data, Full, LoRA
from reprolib.adapters.fisher_lora import FisherLoRA
from reprolib.adapters.names import named
from reprolib.corpus.batching import Batch, Tokens, encode_rows
from reprolib.errors import RecordError, SpecError
from reprolib.models import device
from reprolib.models.architectures import SHAPES
from reprolib.models.policy import Cached, Live, Policy, score
from reprolib.objectives import DPO, KL, NLL, NPO, Anchor, Ascent, Objective, References, StepBatch
from reprolib.optim import SGD, AdamW, Influence, Moment, Sophia
from reprolib.plan import memory, prediction
from reprolib.plan import prediction as planner
from reprolib.plan.arithmetic import (
    base_bytes,
    graph_bytes,
    importance_bytes,
    loss_bytes,
    moving_width,
    optimizer_state_bytes,
    optimizer_step_bytes,
    pass_flops,
    weight_copies_bytes,
    widths,
)
from reprolib.plan.memory import model_parts, reference_of, stage_parts
from reprolib.plan.prediction import Comparison, plan, remedies
from reprolib.plan.setting import UTILISATION, Setting
from reprolib.plan.shapes import FAMILIES, anatomy, anatomy_of, config_of
from reprolib.recipes import METHODS
from reprolib.unlearn.loop import unlearn

pytestmark = pytest.mark.usefixtures("one_thread")


ROWS, TOKENS, LABELS = 4, 48, 10


PUBLISHED = {  # parameters, as the models' safetensors headers and cards have them
    "olmo-1b": 1_279_787_008,
    "olmo-7b": 6_888_095_744,
    "smollm2-135m": 134_515_008,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "qwen2.5-32b": 32_763_876_352,
}


def config(kind="olmo", **more):
    shape = {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
        "tie_word_embeddings": False, "pad_token_id": 1, "eos_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    grouped = {} if kind == "olmo" else {"num_key_value_heads": 2}
    return AutoConfig.for_model(kind, **{**shape, **grouped, **more})


def model(of, trainable, dtype=torch.float32, checkpointing=False):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(of, dtype=dtype)
    lm = named(trainable).attach(lm, 0).train()
    if checkpointing:
        lm.gradient_checkpointing_enable()
    return lm


def batch(vocabulary):
    predict = torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    predict[:, TOKENS - 1 - LABELS : TOKENS - 1] = True
    return Batch(torch.randint(2, vocabulary, (ROWS, TOKENS)), predict, torch.arange(ROWS))


def nbytes(tensors):
    return sum(t.nbytes for t in tensors)


class Alive(TorchDispatchMode):
    """Bytes of all tensors alive at once, beyond those that are there at first."""

    def __init__(self, there=()):
        super().__init__()
        self.now = self.peak = 0
        self.storages = {}
        for t in there:
            self.see(t)
        self.base = self.now

    def see(self, t):
        storage = t.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.storages:
            return
        self.now += size
        self.peak = max(self.peak, self.now)
        self.storages[key] = weakref.ref(storage, lambda _: self.gone(key, size))

    def gone(self, key, size):
        self.now -= size
        self.storages.pop(key, None)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                self.see(t)
        return out

    @property
    def extra(self):
        return self.peak - self.base


# --- shapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_the_published_ones(name):
    assert anatomy(name, Full()).parameters == PUBLISHED[name]
    assert config_of(SHAPES[name][1]).to_dict() == config_of(name).to_dict()  # also by its repository


def test_models_by_preset_and_by_folder(tmp_path):
    assert config_of("tiny/synthetic").hidden_size == config_of("tiny").hidden_size == 128
    config(hidden_size=128).save_pretrained(tmp_path)
    found = plan(str(tmp_path), "npo", tokens=64)
    assert found.parameters == sum(p.numel() for p in AutoModelForCausalLM.from_config(config(hidden_size=128)).parameters())


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("trainable", ["full", "lora-4", "last-2", "mlp-1-2"])
def test_what_moves_is_what_attach_lets_move(kind, trainable):
    lm = model(config(kind), trainable)
    a = anatomy_of(config(kind), named(trainable))
    moving = [p.numel() for p in lm.parameters() if p.requires_grad]
    assert a.moving == sum(moving)
    assert sorted(a.tensors) == sorted(moving)
    assert a.parameters + a.adapter == sum(p.numel() for p in lm.parameters())


# --- weights, gradients, optimizer state: to the byte ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", [AdamW(), Sophia(hessian="empirical"), Influence(), SGD(), SGD(momentum=0.9)], ids=str)
@pytest.mark.parametrize("trainable", ["full", "lora-16", "last-2"])
def test_bytes_after_a_step(trainable, optimizer, dtype):
    of = config()
    lm = model(of, trainable, torch.bfloat16 if dtype == "bf16" else torch.float32)
    movable = [p for p in lm.parameters() if p.requires_grad]
    built = optimizer.build(movable)
    (-Policy(lm)(batch(512)).token_logp.mean()).backward()
    if hasattr(built, "curve"):
        built.curve([torch.ones_like(p, dtype=torch.float32) for p in movable])
    built.step()
    a = anatomy_of(of, named(trainable))
    counters = isinstance(optimizer, AdamW)  # AdamW's steps are on the host
    state = [v for s in built.state.values() for k, v in s.items() if torch.is_tensor(v) and not (counters and k == "step")]
    assert nbytes(lm.parameters()) == base_bytes(a, dtype) + 4 * a.adapter
    assert nbytes(p.grad for p in movable) == moving_width(a, dtype) * a.moving
    assert nbytes(state) == optimizer_state_bytes(optimizer, a, dtype)


def test_an_optimizer_that_it_does_not_know_is_refused():
    with pytest.raises(SpecError, match="AdamW, SGD, Sophia, Influence"):
        optimizer_state_bytes(object(), anatomy_of(config(), Full()), "fp32")


@pytest.mark.parametrize("kind", ["olmo", "qwen2"])  # qwen2 has biases
@pytest.mark.parametrize("precision", ["nf4", "int8"])
@pytest.mark.parametrize("half", [False, True])
def test_bytes_of_a_quantised_model(kind, precision, half, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    AutoModelForCausalLM.from_config(config(kind), dtype=torch.float32).save_pretrained(tmp_path)
    monkeypatch.setattr(device, "has_bf16", lambda: half)  # as on a GPU
    lm = device.load_lm(str(tmp_path), precision)
    real = nbytes(lm.parameters())
    for p in lm.parameters():
        constants = getattr(p, "quant_state", None)
        real += nbytes([constants.absmax, constants.code] if constants else [p.SCB] if getattr(p, "SCB", None) is not None else [])
    assert real == base_bytes(anatomy_of(config(kind), LoRA(rank=4)), precision, half)


# --- activations -----------------------------------------------------------------------------------------------


def saved(lm, autocast):
    """Bytes that the graph of a mean NLL keeps, parameters left out."""
    own = {t.untyped_storage()._cdata for t in (*lm.parameters(), *lm.buffers())}
    kept = {}

    def pack(t):
        if t.untyped_storage()._cdata not in own:
            kept[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    rows = batch(lm.config.vocab_size)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = -Policy(lm)(rows).token_logp.mean()
    assert loss.requires_grad
    return sum(s.nbytes() for s in kept.values())


def predicted_saved(of, trainable, precision, autocast):
    a, w = anatomy_of(of, trainable), widths(precision, autocast)
    g = graph_bytes(a, ROWS, TOKENS, LABELS, w, precision, a.blocks, getattr(trainable, "dropout", 0) > 0)
    logits = 4 * ROWS * LABELS * a.vocabulary  # of their logarithms
    return g.blocks + g.head + weight_copies_bytes(a, w, precision, a.blocks)[0] + logits


GRAPHS = [("fp32", False), ("fp32", True), ("bf16", True)]  # on a CPU; as on a GPU, from fp32 and from bf16 weights


@pytest.mark.parametrize("precision, autocast", GRAPHS, ids=str)
@pytest.mark.parametrize("trainable", ["full", "lora-16", "last-2", "mlp-1-2"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_saved_activations(kind, trainable, precision, autocast):
    of = config(kind)
    lm = model(of, trainable, torch.bfloat16 if precision == "bf16" else torch.float32)
    assert predicted_saved(of, named(trainable), precision, autocast) == pytest.approx(saved(lm, autocast), rel=0.004)


@pytest.mark.parametrize("more", [{"clip_qkv": 8.0}, {"tie_word_embeddings": True}], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_saved_activations_of_olmos_variants(more, autocast):
    of = config(**more)
    assert predicted_saved(of, Full(), "fp32", autocast) == pytest.approx(saved(model(of, "full"), autocast), rel=0.004)


def test_saved_activations_with_dropout():
    trainable = LoRA(rank=8, alpha=16, dropout=0.1)
    assert predicted_saved(config(), trainable, "fp32", False) == pytest.approx(saved(model(config(), trainable), False), rel=0.004)


def quantised(precision, of, folder, monkeypatch, autocast):
    """An adapter on a base as it is loaded and run on a GPU with bf16 if ``autocast``, else as on a CPU."""
    pytest.importorskip("bitsandbytes")
    AutoModelForCausalLM.from_config(of, dtype=torch.float32).save_pretrained(folder)
    if autocast:
        monkeypatch.setattr(device, "has_bf16", lambda: True)
        usual = torch.is_autocast_enabled
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: usual(*kind) if kind else True)  # peft asks for CUDA's
    return named("lora-16").attach(device.load_lm(str(folder), precision), 0).train()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_saved_activations_on_a_quantised_base(precision, autocast, tmp_path, monkeypatch):
    lm = quantised(precision, config(), tmp_path, monkeypatch, autocast)
    assert predicted_saved(config(), named("lora-16"), precision, autocast) == pytest.approx(saved(lm, autocast), rel=0.004)


@pytest.mark.parametrize("vocabulary", [256, 4096])
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_peak_of_a_micro_batch_on_a_quantised_base(precision, vocabulary, tmp_path, monkeypatch):
    of = config(vocab_size=vocabulary)
    lm = quantised(precision, of, tmp_path, monkeypatch, True)
    rows, policy = batch(vocabulary), Policy(lm).train()
    for _ in range(2):
        with Alive([*lm.parameters(), *(p.grad for p in lm.parameters() if p.grad is not None)]) as alive:
            with torch.autocast("cpu", torch.bfloat16):
                loss = -policy(rows).token_logp.mean()
            loss.backward()
            del loss
    parts = parts_of(monkeypatch, of, "gradient_ascent", trainable="lora-16", autocast=True, precision=precision)
    moment = {p: sum(x.bytes for x in parts if p in x.phases and x.name not in HELD) for p in ("loss", "blocks")}
    assert 0.99 < max(moment.values()) / alive.extra < 1.12


def test_a_coarser_base_takes_less():
    """Weights and activations: beside a quantised base nothing is wider than on one in bf16."""
    sizes = [plan("olmo-7b", "npo", trainable="lora-64-16", precision=p).phases["loss"] for p in ("fp32", "bf16", "int8", "nf4")]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("half, most", [(False, 3), (True, 3)])
def test_what_a_loss_holds_of_its_logits(half, most):
    """An NLL: the logarithms, the gradient in them and that in the logits; 16-bit logits are gone by then."""
    assert loss_bytes(NLL(), half) == pytest.approx(4 * most, rel=0.03)
    assert loss_bytes(DPO(), half) > loss_bytes(NPO(), half) > 4 * most  # two answers, one
    assert loss_bytes(KL(), half) > loss_bytes(Ascent(), half)
    assert loss_bytes(Anchor(layer=1), half) < loss_bytes(KL(), half)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("trainable", ["full", "lora-16", "last-2"])
@pytest.mark.parametrize("vocabulary", [256, 4096])  # blocks, and the head, are most of it
def test_peak_of_a_micro_batch(vocabulary, trainable, autocast, checkpointing, monkeypatch):
    of = config(vocab_size=vocabulary)
    lm = model(of, trainable, checkpointing=checkpointing)
    rows, policy = batch(vocabulary), Policy(lm).train()
    for _ in range(2):  # gradients of the first are there in the second, as in the loop
        alive = Alive([*lm.parameters(), *(p.grad for p in lm.parameters() if p.grad is not None)])
        with alive:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = -policy(rows).token_logp.mean()
            loss.backward()
            del loss
    parts = parts_of(monkeypatch, of, "gradient_ascent", trainable=trainable, autocast=autocast, checkpointing=checkpointing)
    moment = {p: sum(x.bytes for x in parts if p in x.phases and x.name not in HELD) for p in ("loss", "blocks")}
    assert 0.99 < max(moment.values()) / alive.extra < (1.25 if checkpointing else 1.08)


HELD = ("weights", "LoRA adapters", "gradients", "gradients in the place of activations", "optimizer state")


def parts_of(monkeypatch, of, method, **setting):
    """Parts of a method's first stage on a config, at the sizes of :func:`batch`."""
    monkeypatch.setattr(planner.shapes, "config_of", lambda name: of)
    anatomy.cache_clear()
    trainable = setting.pop("trainable", None)
    options = {"batch_size": ROWS} | ({"trainable": trainable} if trainable else {}) | setting.pop("options", {})
    s = Setting(
        model="x", method=method, options=tuple(options.items()), tokens=TOKENS, labels=LABELS, **{"autocast": False, **setting}
    )
    parts = stage_parts(s.training[0], s)
    anatomy.cache_clear()
    return parts


METHODS_SEEN = {
    "npo": {},
    "kl_minimisation": {},
    "idk_dpo": {},
    "undial": {},
    "ce_u": {},
    "pdu": {},
    "satimp": {},
    "rmu": {"layer": 2},
}


@pytest.mark.parametrize("method", METHODS_SEEN)
def test_peak_of_a_micro_batch_of_a_method(method, monkeypatch):
    of = config(vocab_size=2048)
    options = METHODS_SEEN[method] | {"batch_size": ROWS}
    stage = METHODS[method].build(options)[0]
    lm = model(of, stage.trainable)
    rows = batch(2048)
    rows = dataclasses.replace(rows, other=batch(2048))
    cached = Cached(torch.zeros(ROWS), (torch.zeros(LABELS, 2048),) * ROWS, (torch.zeros(LABELS, 64),) * ROWS)
    policy, references = Policy(lm).train(), References(cached, cached, cached)
    units = {f"{side}/{unit}": ROWS for side in ("forget", "retain") for unit in ("row", "token", "other")}
    peaks = []
    for _ in range(2):
        sides = [StepBatch(rows, None, units), StepBatch(None, rows, units)][: 2 if stage.objective.retain else 1]
        for step in sides:
            there = [*lm.parameters(), *(p.grad for p in lm.parameters() if p.grad is not None)]
            with Alive(there) as alive:
                stage.objective(policy, references, step).total.backward()
            peaks.append(alive.extra)
    parts = parts_of(monkeypatch, of, method, options=options)
    moment = {p: sum(x.bytes for x in parts if p in x.phases and x.name not in HELD) for p in ("loss", "blocks")}
    assert 0.99 < max(moment.values()) / max(peaks[len(sides) :]) < 1.05


@pytest.mark.parametrize("trainable", ["full", "lora-16"])
@pytest.mark.parametrize("method", ["npo", "kl_minimisation", "so_gradient_difference"])
def test_peak_of_a_run(method, trainable, monkeypatch):
    """The whole loop, from its references to its last step, against the largest of the phases that a CPU has alike."""
    of, rows = config(vocab_size=1024), 8
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(of, dtype=torch.float32)
    sides = [
        Tokens(tuple(map(tuple, torch.randint(2, 1024, (rows, TOKENS)).tolist())), (TOKENS - LABELS,) * rows, ("answer",) * rows)
        for _ in range(2)
    ]
    epochs = 6 if method == "so_gradient_difference" else 1  # the second estimate, in step 11, is beside the optimizer's state
    stages = METHODS[method].build({"batch_size": ROWS, "epochs": epochs, "trainable": trainable})
    with Alive(lm.parameters()) as alive:
        unlearn(lm, stages, *sides, seed=0, progress=False)
    monkeypatch.setattr(planner.shapes, "config_of", lambda name: of)
    found = plan(
        "x", method, {"epochs": epochs}, trainable=trainable, batch_size=ROWS, tokens=TOKENS, labels=LABELS, autocast=False,
        forget_rows=rows, retain_rows=rows,
    )  # fmt: skip
    here = max(size for phase, size in found.phases.items() if phase in ("loss", "blocks", "curvature"))
    # a CPU has both in one memory; activations of a curvature estimate are let go while its gradients come, which is counted as a sum
    assert 0.99 < (here + found.host_bytes) / alive.peak < (1.06 if epochs == 1 else 1.13)
    assert found.steps == 2 * epochs


@pytest.mark.parametrize("trainable", ["full", "lora-4", "last-1"])
def test_checkpointing_leaves_the_result_as_it_is(trainable, tokenizer, corpus):
    """What the remedy says, through the loop and by the call that it names."""
    results = []
    for checkpointing in (False, True):
        lm = tiny_lm()
        if checkpointing:
            lm.gradient_checkpointing_enable()
        sides = [encode_rows(tokenizer, corpus[g]) for g in ("forget", "retain")]
        stages = METHODS["npo"].build({"epochs": 1, "trainable": trainable})
        results.append(unlearn(lm, stages, *sides, seed=0, progress=False)[0].state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in results), strict=True))
    assert not torch.equal(results[0]["model.layers.1.mlp.up_proj.weight"], tiny_lm().model.layers[1].mlp.up_proj.weight)


# --- other phases ----------------------------------------------------------------------------------------------


def named_parts(parts):
    return {p.name: p.bytes for p in parts}


@pytest.mark.parametrize(
    "optimizer", [Sophia(hessian="gnb"), Sophia(hessian="hutchinson"), Sophia(hessian="empirical"), Influence()], ids=str
)
@pytest.mark.parametrize("trainable", ["full", "lora-16"])
def test_memory_of_a_curvature_estimate(trainable, optimizer, monkeypatch):
    of = config(vocab_size=258, hidden_size=128, intermediate_size=320)
    lm = model(of, trainable)
    policy, movable = Policy(lm), [p for p in lm.parameters() if p.requires_grad]
    objective, rows = Objective(forget=Ascent()), batch(258)
    step = StepBatch(rows, None, {"forget/row": ROWS, "forget/token": ROWS * LABELS})
    retain = Tokens((tuple(range(2, 2 + TOKENS)),) * 3, (TOKENS - LABELS,) * 3, ("answer",) * 3)
    for p in movable:
        p.grad = torch.ones_like(p)
    moment = Moment(
        policy=policy, objective=objective, references=References(), batches=[step], forget=retain, retain=retain,
        parameters=movable, step=0, per_epoch=10, seed=1,
    )  # fmt: skip
    with Alive([*lm.parameters(), *(p.grad for p in movable)]) as alive:
        optimizer.estimate(moment)
    stage = dataclasses.replace(
        METHODS["gradient_ascent"].build({"batch_size": ROWS, "trainable": trainable})[0], optimizer=optimizer
    )
    monkeypatch.setattr(Setting, "training", property(lambda s: [stage]))
    parts = named_parts(parts_of(monkeypatch, of, "gradient_ascent", trainable=trainable))
    predicted = parts["curvature estimate"] + parts.get("gradients for it, or activations", 0)
    assert 0.99 < predicted / alive.extra < 1.3


@pytest.mark.parametrize("space, draws", [("full", 1), ("lora", 1), ("lora", 2)])
@pytest.mark.parametrize("centred", [False, True])
def test_importance_maps_are_those_that_attach_reports(space, draws, centred):
    trainable = FisherLoRA(rank=4, alpha=8, space=space, draws=draws, centred=centred, batch_size=1)
    of, notes = tiny_lm().config, {}
    sides = [Tokens(((3, k, 5, 0), (k, 9, 4, 7)), (2, 2), ("answer",) * 2) for k in (4, 8)]
    trainable.attach(tiny_lm(), 0, Data(*sides), notes)
    assert importance_bytes(trainable, anatomy_of(of, trainable)) == notes["importance_values_bytes"]


def test_first_step_holds_the_weights_before_it():
    a = anatomy_of(config(), Full())
    weights = [torch.nn.Parameter(torch.ones(x)) for x in a.tensors]
    for p in weights:
        p.grad = torch.ones_like(p)
    built = torch.optim.AdamW(weights, fused=True, foreach=False)  # as device.lean has it on a GPU
    with Alive([*weights, *(p.grad for p in weights)]) as alive:
        before = [p.detach().clone() for p in weights]
        built.step()
    del before
    own = optimizer_state_bytes(AdamW(), a, "fp32") + optimizer_step_bytes(AdamW(), a, "fp32") + 4 * a.moving
    assert own == pytest.approx(alive.extra, rel=0.001)


def test_memory_of_evaluations(monkeypatch, tokenizer):
    from reprolib.models.generate import generate

    monkeypatch.setattr("reprolib.plan.memory.MAX_NEW_TOKENS", 64)  # what the planner reads; 256 take long
    of = config(vocab_size=258, intermediate_size=256, num_hidden_layers=2)
    lm = model(of, "full").eval()
    with torch.no_grad():
        lm.get_output_embeddings().weight[0] = 0  # of end-of-text: nothing ends
    s = Setting(model="x", method="npo", tokens=512, labels=12)
    parts = named_parts(model_parts(anatomy_of(of, Full()), s))
    documents = Tokens(((7,) * 512,) * 16, (0,) * 16, ("all",) * 16)
    with Alive(lm.parameters()) as alive:
        for _, scored in score(Policy(lm), documents, range(16)):
            assert len(scored.token_logp)
    assert 0.97 < parts["scoring"] / alive.extra < 1.1
    with Alive(lm.parameters()) as alive:
        texts = generate(lm, tokenizer, ["a" * 500] * 15, max_new_tokens=64)
    assert len(texts) == 15
    assert 0.97 < parts["keys and values"] / alive.extra < 1.1


@pytest.mark.parametrize("limit, trainable, kind", [(2 << 30, "full", Cached), (1, "full", Live), (1, "lora-4", Live)])
def test_reference_is_cached_or_live_as_in_the_loop(limit, trainable, kind, monkeypatch, tokenizer, corpus):
    from reprolib.unlearn import references as loop

    monkeypatch.setattr(loop, "CACHE_BYTES", limit)
    monkeypatch.setattr(memory, "CACHE_BYTES", limit)
    stages = METHODS["kl_minimisation"].build({"trainable": trainable})
    forget, retain = (encode_rows(tokenizer, corpus[g]) for g in ("forget", "retain"))
    lm = stages[0].trainable.attach(tiny_lm(), 0)
    made = loop.make_references(Policy(lm), stages, forget, retain).retain
    monkeypatch.setattr(planner.shapes, "config_of", lambda name: tiny_lm().config)
    anatomy.cache_clear()
    labels = retain.n_labels(0)
    s = Setting(
        model="y", method="kl_minimisation", options=(("trainable", trainable),), labels=labels, retain_rows=len(retain)
    )
    host, live, copied = reference_of(s.training[0], s, s.anatomy(stages[0].trainable))
    anatomy.cache_clear()
    assert isinstance(made, kind)
    assert bool(live) == (kind is Live)
    assert copied == (kind is Live and made.frozen is not None)
    if kind is Cached:
        assert host == 4 * 258 * labels * len(retain)


# --- operations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("trainable", ["full", "lora-16", "last-2", "mlp-1-2"])
@pytest.mark.parametrize("kind", ["olmo", "llama"])
def test_operations_are_those_that_torch_counts(kind, trainable, checkpointing):
    lm = model(config(kind), trainable, checkpointing=checkpointing)
    with FlopCounterMode(display=False) as counter:
        (-Policy(lm).train()(batch(512)).token_logp.mean()).backward()
    a = anatomy_of(config(kind), named(trainable))
    a = dataclasses.replace(a, inputs_reached=True) if checkpointing else a
    counted = pass_flops(a, ROWS, TOKENS, LABELS, a.blocks, True, checkpointing)
    bare = dataclasses.replace(a, heads=0)  # torch counts no attention on a CPU
    attention = counted - pass_flops(bare, ROWS, TOKENS, LABELS, a.blocks, True, checkpointing)
    assert counted - attention == counter.get_total_flops()
    assert attention > 0


def test_six_operations_a_weight_and_token_and_four_for_an_adapter():
    rows = 2
    for trainable, least, most in ((Full(), 5.9, 6.1), (LoRA(rank=1), 3.9, 4.1), (None, 2.0, 2.0)):
        a = anatomy("olmo-7b", trainable or Full())
        inner = sum(x.weights for x in a.inner)
        bare = dataclasses.replace(a, heads=0)
        total = pass_flops(bare, rows, 512, 1, a.blocks, trainable is not None)
        head = pass_flops(dataclasses.replace(bare, linears=(a.head,)), rows, 512, 1, a.blocks, trainable is not None)
        assert least <= (total - head) / (inner * rows * 512) <= most


def test_time_grows_with_what_is_run():
    base = plan("olmo-1b", "npo", gpu_memory_gib=80)
    assert base.steps == 10 * -(-1112 // 16)
    assert base.seconds("A100 80GB") == pytest.approx(base.flops / (312e12 * UTILISATION))
    assert plan("olmo-1b", "npo", gpu_memory_gib=80, gpus=2).seconds("H200") == pytest.approx(base.seconds("H200") / 2)
    assert plan("olmo-1b", "npo", gpu_memory_gib=80, checkpointing=True).flops > 1.2 * base.flops
    assert plan("olmo-1b", "gradient_difference", gpu_memory_gib=80).flops < base.flops  # no reference
    assert plan("olmo-1b", "so_npo", {"epochs": 10}, gpu_memory_gib=80).flops > 1.05 * base.flops  # curvature every 10 steps
    assert plan("olmo-1b", "npo", trainable="lora-16", gpu_memory_gib=80).flops < 0.75 * base.flops
    with pytest.raises(SpecError, match="did you mean 'H200'"):
        base.seconds("H20")


# --- the plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_planned(method):
    found = plan("smoke", method)
    assert found.fits and not found.remedies
    assert found.peak_bytes == max(found.phases.values()) > 0
    assert "generate" in found.report() and found.report().count("fits") == 1
    json.dumps(found.to_dict())


def test_phases_hold_what_they_should():
    found = plan("olmo-1b", "vila_ihl", gpu_memory_gib=80)
    assert list(found.phases) == ["importance", "loss", "blocks", "step", "measure", "generate"]
    assert list(plan("smoke", "so_npo").phases) == ["start", "loss", "blocks", "curvature", "step", "measure", "generate"]
    assert list(plan("smoke", "target").phases) == ["start", "generate"]
    for phase, size in found.phases.items():
        assert size == sum(p.bytes for p in found.parts if phase in p.phases)
    beside = plan("olmo-1b", "vila_ihl", gpu_memory_gib=80, target_beside=True)
    assert beside.phases["start"] > 2 * 4 * beside.parameters
    kept = named_parts(plan("olmo-1b", "zjuklab", gpu_memory_gib=80).parts)
    assert kept["copy of the starting weights"] == 4 * found.parameters


def test_sharing_out_divides_all_but_activations():
    one, four = (named_parts(plan("olmo-1b", "npo", gpu_memory_gib=80, gpus=n).parts) for n in (1, 4))
    for name in ("weights", "gradients", "optimizer state"):
        assert four[name] == pytest.approx(one[name] / 4, abs=1)
    for name in ("activations", "head, logits and loss"):
        assert four[name] == one[name]


def test_remedies_are_ordered_tried_and_true():
    found = plan("olmo-7b", "npo", precision="nf4", trainable="lora-64-16", gpu_memory_gib=24)
    assert not found.fits and "does not fit" in found.report()
    kinds = [r.name for r in found.remedies]
    assert kinds == ["micro-batches of 8 rows", "gradient checkpointing", "16 GPUs"]
    assert [r.fits for r in found.remedies] == [True, True, False]
    for r in found.remedies:
        again = prediction.predict(r.setting)
        assert (again.peak_bytes, again.fits) == (r.peak_bytes, r.fits)
        assert again.peak_bytes < found.peak_bytes


def test_remedies_that_keep_the_result_come_before_those_that_change_it():
    found = plan("llama-3.1-8b", "npo", gpu_memory_gib=24)
    kinds = [r.name.split()[-1] for r in found.remedies]
    assert kinds == ["rows", "checkpointing", "GPUs", "LoRA", "LoRA", "GPUs"]
    assert not any(r.fits for r in found.remedies[:-1])
    together = found.remedies[-1]
    assert together.setting.precision == "nf4" and together.setting.checkpointing and together.setting.gpus == 1
    assert together.fits


def test_no_remedy_takes_more_than_there_is(monkeypatch):
    s = plan("olmo-7b", "npo", precision="bf16", trainable="lora-64-16", gpu_memory_gib=24).setting
    assert "NF4 base" in [r.name for r in remedies(s)]
    real = prediction.predict

    def dearer(setting):
        found = real(setting)
        return dataclasses.replace(found, phases={"loss": 1 << 60}) if setting.precision == "nf4" else found

    monkeypatch.setattr(prediction, "predict", dearer)
    kept = remedies(s)
    assert kept and all(r.setting.precision == "bf16" and r.peak_bytes < real(s).peak_bytes for r in kept)


def test_adapters_and_quantised_bases_save_what_they_claim():
    full = plan("olmo-7b", "npo", gpu_memory_gib=1000)
    lora = plan("olmo-7b", "npo", trainable="lora-16", gpu_memory_gib=1000)
    nf4 = plan("olmo-7b", "npo", trainable="lora-16", precision="nf4", gpu_memory_gib=1000)
    assert full.phases["step"] == pytest.approx(20 * 6_888_095_744, rel=0.001)  # weights, gradients, 2 moments, a copy
    assert lora.phases["step"] < 4.3 * full.parameters
    assert named_parts(nf4.parts)["weights"] < 0.2 * named_parts(lora.parts)["weights"]


@pytest.mark.parametrize("call, message", [
    (lambda: plan("olmo-8b", "npo"), "did you mean 'olmo-"),
    (lambda: plan("olmo-1b", "npp"), "did you mean 'npo'"),
    (lambda: plan("olmo-1b", "npo", token=3), "did you mean 'tokens'"),
    (lambda: plan("olmo-1b", "npo", precision="fp4"), "did you mean 'fp32'|did you mean 'nf4'"),
    (lambda: plan("olmo-1b", "npo", precision="nf4"), "trainable='lora-16'"),
    (lambda: plan("olmo-1b", "loku", precision="int8"), "freezes the base .*of 'loku' moves; use precision='fp32' or 'bf16'"),
    (lambda: plan("olmo-1b", "sha256", trainable="mlp-3-99"), "the model has layers 0 to 15; use at most mlp-3-15"),
    (lambda: plan("olmo-1b", "loku", trainable="full"), "no option 'trainable'"),
    (lambda: plan("olmo-1b", "npo", trainable="last-99"), "the model has 16"),
    (lambda: plan("olmo-1b", "npo", gpus=0), "gpus must be a whole number >= 1, got 0"),
    (lambda: plan("olmo-1b", "npo", tokens=2.5), "tokens must be a whole number"),
    (lambda: plan("olmo-1b", "npo", tokens=16, labels=16), "fewer than the 16 tokens"),
    (lambda: plan("olmo-1b", "npo", gpu_memory_gib=0), "must be finite and > 0"),
])  # fmt: skip
def test_errors_say_what_to_do(call, message):
    with pytest.raises(SpecError, match=message):
        call()


def test_other_architectures_are_refused(tmp_path):
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(SpecError, match="unknown model type 'gpt2'"):
        plan(str(tmp_path), "npo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"), ("{", "cannot be read"), ("{}", "names no model_type, got None"), ("[]", "names no model_type"),
        ('{"model_type": "foo"}', "unknown model type 'foo'"),
        ('{"model_type": "olmo", "hidden_size": 0}', "hidden_size must be a whole number >= 1, got 0"),
        ('{"model_type": "olmo", "clip_qkv": "x"}', "is no configuration of 'olmo': .*clip_qkv"),
    ],
)  # fmt: skip
def test_a_folder_with_a_broken_config_is_refused(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SpecError, match=message):
        plan(str(tmp_path), "npo")


def test_compare_with_a_record(test_preset):
    from reprolib.record import Record
    from reprolib.spec import Spec

    def record(gpu, **more):
        spec = Spec(testbed=test_preset, method="npo", **more)
        return Record(
            spec=spec, fingerprint="0" * 12, status="done", metrics={}, rows={}, trajectory=[], cost={"peak_bytes": 50_000_000},
            provenance={"machine": {"gpu": gpu}},
        )  # fmt: skip

    found = plan(test_preset, "npo")
    got = found.compare(record("NVIDIA H200"))
    assert got == Comparison(found.peak_bytes, 50_000_000)
    assert got.ratio == found.peak_bytes / 50_000_000
    with pytest.raises(RecordError, match="without a GPU"):
        found.compare(record(None))
    with pytest.raises(RecordError, match="plan what was run"):
        found.compare(record("NVIDIA H200", options={"lr": 1e-4}))


def test_command_line(capsys):
    from reprolib.__main__ import main

    words = ["plan", "--model", "olmo-1b", "--recipe", "npo", "--trainable", "lora-16", "--gpu-memory", "24", "-o", "beta=0.2"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "of 24 GiB on each of 1 GPU(s): fits" in text and "RTX 4090" in text
    assert main([*words, "--json", "--tokens", "128", "--batch-size", "8", "--checkpointing", "--micro-tokens", "512"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["setting"]["options"] == {"batch_size": 8, "beta": 0.2, "trainable": "lora-16"}
    assert found["fits"] and found["setting"]["checkpointing"] and found["setting"]["labels"] == 26
    assert main(["plan", "--model", "olmo-1b", "--recipe", "npo", "--precision", "nf4"]) == 2
    assert "trainable='lora-16'" in capsys.readouterr().err
