"""Every method of the study: its card, its defaults, that it runs where it says it runs, and what it refuses."""

import importlib.util
import math
import re
from functools import cache
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.batching import encode_rows
from reprolib.errors import CorpusError, SpecError
from reprolib.identity import digest
from reprolib.models import device
from reprolib.objectives import NLL, RETAIN_TERMS, Ascent, Ramp
from reprolib.optim import Influence, Sophia
from reprolib.recipes import FAMILIES, METHODS, Card, Recipe, Stage, recipe, recipes
from reprolib.recipes.gradient_ascent import stages as ascent_stages
from reprolib.spec import Spec
from reprolib.unlearn.answers import other_answers
from reprolib.unlearn.loop import unlearn

pytestmark = pytest.mark.usefixtures("one_thread")


ROOT = Path(__file__).resolve().parent.parent


NAMES = sorted(METHODS)


WITH_TRAINABLE = [n for n in NAMES if "trainable" in METHODS[n].defaults]


COMPOSITE = [n for n in NAMES if any(getattr(s, "last", False) for s in METHODS[n].build({}))]  # end as several models in one


# VILA's importance is a variance between batches of rows; the tiny corpus has rows for batches of one only
CENTRED = [n for n in NAMES if METHODS[n].defaults.get("centred")]


needs_bitsandbytes = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed")


def quick(method, **options):
    """Options that make a method short: at most half a pass of anything."""
    defaults = METHODS[method].defaults
    short = {k: min(v, 0.5) for k, v in defaults.items() if re.fullmatch(r"(\w+_)?epochs", k)}
    if method in CENTRED:
        short["importance_batch"] = 1
    return short | {k: v for k, v in options.items() if k in defaults}


def go(method, tokenizer, corpus, lm, rows=None, **options):
    """Run a method on the tiny corpus; whatever its stages minimise must stay finite."""
    stages = METHODS[method].build(quick(method, **options))
    given = corpus["forget"][:rows]
    kinds = {s.objective.forget.other for s in stages if isinstance(s, Stage) and s.objective.forget is not None} - {None}
    others = {k: other_answers(k, given, tokenizer, 0, lm) for k in kinds}
    forget, retain = encode_rows(tokenizer, given), encode_rows(tokenizer, corpus["retain"])
    lm, outcome = unlearn(lm, stages, forget, retain, seed=0, others=others, measure=lambda m: {}, points=100, progress=False)
    assert (outcome.status, outcome.reason) == ("done", "")
    assert outcome.steps >= len(stages)
    for point in outcome.trajectory[1:]:
        assert all(math.isfinite(v) for v in point.values() if isinstance(v, float)), point
    return lm, outcome


def changed(lm, start) -> set[str]:
    before, after = dict(start.named_parameters()), dict(lm.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    if any(n.startswith("target.") for n in after.keys() - before.keys()):  # the target is in it as it was, and something else
        assert all(torch.equal(p, after[f"target.{n}"]) for n, p in before.items())
        return {n for n in after if not n.startswith("target.")}
    assert after.keys() == before.keys()  # adapters are merged: an ordinary model again
    return {n for n, p in before.items() if not torch.equal(p, after[n])}


# --- cards ----------------------------------------------------------------------------------------------------


@cache
def citations() -> set[str]:
    return set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "references.bib").read_text(), re.M))


@pytest.mark.parametrize("method", NAMES)
def test_the_card_says_what_a_reader_must_know(method):
    card = METHODS[method].card
    assert card.name == method and card.family in FAMILIES
    for name in ("label", "paper", "idea", "cost", "trap"):
        assert getattr(card, name).strip(), name
    if card.family != "baseline":
        assert card.published.strip() and card.citation
    for name in ("idea", "trap"):
        assert getattr(card, name).endswith((".", "?")), name
    if card.citation:
        assert card.citation in citations(), f"references.bib lacks {card.citation}"


def test_labels_and_names_are_unique():
    known = recipes()
    assert len({r.card.label for r in known.values()}) == len(known)
    assert all(r.card.name == name for name, r in known.items())


def test_a_family_that_is_none_is_refused():
    texts = dict.fromkeys(("name", "label", "paper", "citation", "idea", "published", "cost", "trap"), "x")
    with pytest.raises(SpecError, match="unknown family 'prefrence'; did you mean 'preference'"):
        Card(**texts, family="prefrence")


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NAMES)
def test_defaults_build_and_are_the_same_given_explicitly(method):
    r = METHODS[method]
    assert Spec(method=method).stages == r.build(dict(r.defaults)) == r.build({})
    assert r.cost_class
    names = [s.name for s in r.build({})]
    assert all(names) and len(set(names)) == len(names)  # the trajectory tells stages apart by name


@pytest.mark.parametrize("method", NAMES)
def test_unknown_options_are_refused_by_name(method):
    with pytest.raises(SpecError, match=f"method '{method}': unknown option 'learning_rate'"):
        Spec(method=method, options={"learning_rate": 1})
    name = next(iter(METHODS[method].defaults))
    with pytest.raises(SpecError, match=f"unknown option '{name}x'; did you mean '{name}'"):
        Spec(method=method, options={f"{name}x": 1})


NEVER = (None, [], [1], {}, float("nan"), float("inf"), -float("inf"))  # no option takes these


ODD = (True, "", "nan", "x", 0, -1, 1, 2.5, 16.0, 10**6)


@pytest.mark.parametrize("method", NAMES)
def test_options_of_a_wrong_kind_are_refused_and_never_crash(method):
    r = METHODS[method]
    for name, default in r.defaults.items():
        for value in NEVER:
            with pytest.raises(SpecError):
                digest(r.build({name: value}))
        for value in ODD:
            try:
                digest(r.build({name: value}))
            except SpecError as e:
                assert str(e)[-1] in ".)" and len(str(e)) > 30, e
            else:
                assert not isinstance(value, str) or not isinstance(default, int | float), (name, value)
                assert isinstance(value, bool) == isinstance(default, bool), (name, value)


@pytest.mark.parametrize("method", NAMES)
def test_numbers_without_meaning_are_refused(method):
    r = METHODS[method]
    for name in r.defaults:
        wrong = []
        if re.fullmatch(r"(\w+_)?lr|\w+_weight|weight_decay|rho|scale|ratio", name) and r.defaults[name] not in ("sequence",):
            wrong = [-1e-9]
        elif re.fullmatch(r"(\w+_)?epochs", name) and name != "warmup_epochs":
            wrong = [0, -1]
        elif re.fullmatch(r"(\w+_)?batch_size|chunk|rank|draws|interval|importance_batch", name):
            wrong = [0, -1, 2.5]
        elif name in ("share", "density"):
            wrong = [0, 1.1]
        elif name in ("sigma", "divisor") or (name == "eps" and r.defaults[name] != "relative"):
            wrong = [0, -1]
        elif name in ("fisher_rows", "clip_step", "batch_tokens", "eps_value", "beta1", "beta2", "low"):  # 0 has a meaning
            wrong = [-1]
        elif name == "dropout":
            wrong = [-0.1, 1]
        for value in wrong:
            with pytest.raises(SpecError, match="got"):
                r.build({name: value})


def test_whole_numbers_may_be_written_as_floats():
    for method, name in (("zjuklab", "rank"), ("fila", "draws"), ("sugd", "chunk"), ("sugd", "ratio"), ("rmu", "layer")):
        value = METHODS[method].defaults[name]
        assert METHODS[method].build({name: float(value)}) == METHODS[method].build({})
        assert "2.0" not in str(METHODS[method].build({name: 2.0}))
    with pytest.raises(SpecError, match="rank must be >= 1 and whole"):
        recipe("zjuklab").build({"rank": 2.5})


@pytest.mark.parametrize("method", [n for n in NAMES if "retain_weight" in METHODS[n].defaults])
def test_without_a_retain_term_no_retain_row_is_read_or_the_stage_says_why_not(method):
    try:
        stages = METHODS[method].build({"retain_weight": 0})
    except SpecError as e:
        assert "objective has terms for ['forget']" in str(e)
        assert method in ("sugd", "chain_difference_ga")
    else:
        assert all(s.objective.retain is None and s.schedule.pairing == "forget" for s in stages if isinstance(s, Stage))


def test_a_recipe_whose_stages_are_no_tuple_is_refused():
    one = Recipe(card=METHODS["gradient_ascent"].card, stages=lambda: ascent_stages()[0])
    with pytest.raises(SpecError, match=r"must be a tuple of stages and edits, got Stage; write \(stage,\)"):
        one.build({})


# --- runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NAMES)
def test_runs_with_one_forget_row(method, tokenizer, corpus):
    if method in CENTRED:
        with pytest.raises(SpecError, match=r"variance between batches and needs two; 1 rows .* importance_batch"):
            go(method, tokenizer, corpus, tiny_lm(), rows=1)
    possible = {"centred": False} if method in CENTRED else {"held_out": "none"}  # of one document nothing can be held out
    lm, _ = go(method, tokenizer, corpus, tiny_lm(), rows=1, **possible)
    assert changed(lm, tiny_lm())


@pytest.mark.parametrize("method", NAMES)
def test_runs_with_batches_larger_than_the_set_and_the_same_each_time(method, tokenizer, corpus):
    sizes = {k: 100 for k in ("batch_size", "second_batch_size", "chunk")}
    (a, first), (b, second) = (go(method, tokenizer, corpus, tiny_lm(), **sizes) for _ in range(2))
    assert changed(a, tiny_lm()) and not changed(a, b)
    assert first.trajectory == second.trajectory and first.control == second.control


@pytest.mark.parametrize("method", NAMES)
def test_runs_in_bfloat16(method, tokenizer, corpus):
    lm, _ = go(method, tokenizer, corpus, tiny_lm().to(torch.bfloat16))
    assert {p.dtype for n, p in lm.named_parameters() if method not in COMPOSITE or "target" in n} == {torch.bfloat16}
    assert changed(lm, tiny_lm().to(torch.bfloat16))


@pytest.mark.parametrize("trainable", ["lora-4", "last-1", "full"])
@pytest.mark.parametrize("method", WITH_TRAINABLE)
def test_runs_with_every_trainable(method, trainable, tokenizer, corpus):
    lm, outcome = go(method, tokenizer, corpus, tiny_lm(), trainable=trainable)
    pattern = {"lora-4": r"_proj", "last-1": r"layers\.1\.", "full": r"."}[trainable]
    allowed = {n for n, _ in lm.named_parameters() if re.search(pattern, n)}
    moved = changed(lm, tiny_lm())
    assert moved <= allowed and outcome.trained_parameters > 0
    # all of them move, but for those that RMU's loss does not see: nothing above its block
    assert moved == allowed or "rmu" in method


@pytest.fixture(scope="module")
def nf4(tmp_path_factory):
    from transformers import AutoModelForCausalLM, OlmoConfig

    folder = tmp_path_factory.mktemp("lm")
    config = OlmoConfig(**{**tiny_lm().config.to_diff_dict(), "hidden_size": 64, "intermediate_size": 64})  # NF4 blocks are 64 wide
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return lambda: device.load_lm(str(folder), "nf4")


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", NAMES)
def test_runs_on_a_quantised_base_or_says_why_not(method, nf4, tokenizer, corpus):
    options = {"trainable": "lora-4"} if method in WITH_TRAINABLE else {}
    stages = METHODS[method].build(options)
    if not all(s.quantisable for s in stages):
        stuck = next(s.name for s in stages if not s.quantisable)
        with pytest.raises(SpecError, match=rf"precision='nf4' freezes the base weights: .* stage '{re.escape(stuck)}' of '{method}'"):
            Spec(method=method, options=options, precision="nf4")
        assert method not in WITH_TRAINABLE
        return
    Spec(method=method, options=options, precision="nf4")
    base = nf4()
    before = {n: p.detach().clone() for n, p in base.named_parameters()}
    lm, _ = go(method, tokenizer, corpus, base, **options)
    if method in COMPOSITE:
        return
    after = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in lm.named_parameters()}
    assert all(torch.equal(before[n], after[n]) for n in before)  # the base stays as it was
    adapters = [p for n, p in lm.named_parameters() if "lora_B" in n]
    assert len(adapters) == 14 and all(torch.isfinite(p).all() for p in adapters) and any(p.abs().max() > 0 for p in adapters)


def test_methods_that_train_all_weights_by_default_say_so_on_a_quantised_base():
    for method in WITH_TRAINABLE:
        if not all(s.quantisable for s in METHODS[method].build({})):
            with pytest.raises(SpecError, match="set the option trainable='lora-16', or use"):
                Spec(method=method, precision="int8")
    for trainable in ("fila-4", "vila-4"):
        with pytest.raises(SpecError, match="only LoRA adapters that leave them as they are"):
            Spec(method="npo", options={"trainable": trainable}, precision="nf4")
        assert Spec(method="npo", options={"trainable": trainable}, precision="bf16").stages


# --- switches that a name promises ----------------------------------------------------------------------------


def nll(lm, tokenizer, rows):
    from reprolib.corpus.batching import collate
    from reprolib.models.policy import Policy

    tokens = encode_rows(tokenizer, rows)
    with torch.no_grad():
        return float(-Policy(lm.eval())(collate(tokens, range(len(tokens)))).token_logp.mean())


# what papers, their code or peers set, and where in a method's last stage it must arrive; further options let a short run show it
SETTINGS = [
    ("fila", "eps_value", 1e-3, "trainable.eps_value", {}),
    ("loku", "dropout", 0.5, "trainable.dropout", {}),
    ("vila_difference", "tokens_twice", True, "trainable.tokens_twice", {}),
    ("vila_ihl", "sigma", 0.5, "trainable.sigma", {}),
    ("vila_npo", "ratio", "mean", "objective.forget.ratio", {}),
    ("npo", "ratio", "mean", "objective.forget.ratio", {}),
    ("libu_influence", "fisher_rows", 2, "optimizer.fisher_rows", {}),
    ("libu_influence", "refresh", "stage", "optimizer.refresh", {"epochs": 3}),
    ("libu_influence", "clip_step", 1e-3, "optimizer.clip_step", {}),
    ("libu", "beta1", 0, "optimizer.beta1", {"phase2_epochs": 2}),
    ("libu", "beta2", 0, "optimizer.beta2", {}),
    ("libu", "eps", 1e-2, "optimizer.eps", {}),
    ("libu", "batch_tokens", 5120, "optimizer.batch_tokens", {"beta2": 0}),
    ("libu_sophia", "clip", False, "optimizer.clip", {"eps": 1e-4}),
    ("so_gradient_difference", "hessian", "hutchinson", "optimizer.hessian", {"retain": "soul-kl"}),
    ("so_npo", "hessian", "empirical", "optimizer.hessian", {"retain": "kl"}),
    ("so_po", "retain", "soul-kl", "objective.retain", {}),
    ("sha256", "low", 0.5, "objective.control.low", {}),
    ("sha256", "high", 4, "objective.control.high", {"divisor": 100, "epochs": 3}),
    ("sha256", "divisor", 100, "objective.control.divisor", {"epochs": 3}),
    ("pdu", "every", "epoch", "objective.control.every", {"epochs": 3, "warmup_epochs": 0, "batch_size": 2}),
    ("gradient_ascent", "weight_decay", 0.5, "optimizer.weight_decay", {}),
    ("satimp", "forget_weight", 0.1, "objective.forget_weight", {}),
]


@pytest.mark.parametrize("method, option, value, at, same", SETTINGS, ids=[f"{m}-{o}" for m, o, *_ in SETTINGS])
def test_a_setting_reaches_its_stage_and_makes_another_run(method, option, value, at, same, tokenizer, corpus):
    build = METHODS[method].build
    default, other = (build({**same, **o})[-1] for o in ({}, {option: value}))
    found = attrgetter(at)(other)
    assert found == RETAIN_TERMS.get(value, value) != attrgetter(at)(default)
    assert digest(default) != digest(other)
    # the option is no part of a run that does not use it
    assert list((ROOT / "results" / "records" / "tiny" / "synthetic" / method).glob(f"s0-{Spec(method=method).fingerprint}.json"))
    (a, _), (b, _) = (go(method, tokenizer, corpus, tiny_lm(), **same, **o) for o in ({}, {option: value}))
    assert changed(a, b)


def test_sophia_as_printed_for_libu_is_the_gradient_over_its_square():
    printed = {"clip": False, "beta1": 0, "beta2": 0, "hessian": "empirical", "interval": 1, "batch_tokens": 1, "eps": 0.5}
    (stage,) = recipe("libu_sophia").build({**printed, "phase2_lr": 1.0, "rho": 2.0})
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = stage.optimizer.build([p])
    p.grad = torch.tensor([3.0, 0.1])
    optimizer.curve([p.grad**2])
    optimizer.step()
    assert p.tolist() == pytest.approx([-3 / 18, -0.1 / 0.5])  # lr g / max(rho g^2, eps)


@pytest.mark.parametrize("method", ["so_gradient_difference", "so_po", "so_npo"])
def test_soul_s_released_code_is_its_optimizer(method):
    (published,), (released,) = (recipe(method).build({"code": c, "lr": 1e-4}) for c in ("sophia", "released"))
    assert published.optimizer == Sophia(lr=1e-4, beta1=0.9, beta2=0.95, rho=0.04, weight_decay=0.1, hessian="gnb", interval=10)
    assert released.optimizer == Sophia(
        lr=1e-4, beta1=0.9, beta2=0.95, rho=0.04, weight_decay=0.1, hessian="empirical", interval=1, batch_tokens=5120,
        double_momentum=True,
    )  # fmt: skip
    with pytest.raises(SpecError, match="unknown code 'sophie'; did you mean 'sophia'"):
        recipe(method).build({"code": "sophie"})
    assert recipe(method).build({"code": "released", "hessian": "empirical", "lr": 1e-4}) == (released,)
    with pytest.raises(SpecError, match="code='released' has the hessian 'empirical' and allows no other, got 'hutchinson'"):
        recipe(method).build({"code": "released", "hessian": "hutchinson"})


@pytest.mark.parametrize("method", ["so_gradient_difference", "so_po", "so_npo"])
def test_soul_s_ramp_is_a_switch(method, tokenizer, corpus):
    (plain,), (ramp,) = (recipe(method).build({"ramp": r, "retain_weight": 2, "epochs": 4}) for r in (False, True))
    assert plain.objective.control is None and ramp.objective.control == Ramp(full=2, epochs=4)
    (a, _), (b, outcome) = (go(method, tokenizer, corpus, tiny_lm(), ramp=r, epochs=4) for r in (False, True))
    assert changed(a, b)
    weights = [p["retain_weight"] for p in outcome.trajectory[1:]]
    assert weights[0] == 0 and weights == sorted(weights) and weights[-1] > 0


def test_soul_s_released_code_runs_and_is_another_run(tokenizer, corpus):
    (a, _), (b, _) = (go("so_npo", tokenizer, corpus, tiny_lm(), code=c, epochs=2) for c in ("sophia", "released"))
    assert changed(a, b)


@pytest.mark.parametrize("phases", ["influence", "sophia"])
def test_libu_ascends_or_learns_by_its_direction(phases, tokenizer, corpus):
    start = nll(tiny_lm(), tokenizer, corpus["forget"])
    same = {"phases": phases, "phase2_data": "forget", "trainable": "full", "lr": 0.05, "phase2_lr": 1e-3}
    up, down = (
        nll(go("libu", tokenizer, corpus, tiny_lm(), forget_direction=d, epochs=2, phase2_epochs=2, **same)[0], tokenizer, corpus["forget"])
        for d in ("ascent", "descent")
    )
    assert down < start - 0.01 < start + 0.01 < up


def test_libu_s_phases_switch_off_separately(tokenizer, corpus):
    build = recipe("libu").build
    both = build({})
    assert [type(s.optimizer) for s in both] == [Influence, Sophia]
    same = {k: recipe("libu").defaults[k] for k in ("lr", "phase2_lr")}
    assert build({"phases": "influence"}) == both[:1] == recipe("libu_influence").build(same)
    assert build({"phases": "sophia"}) == both[1:] == recipe("libu_sophia").build(same)
    for data, forget, retain in (("forget", Ascent(), None), ("retain", None, NLL()), ("both", Ascent(), NLL())):
        objective = build({"phase2_data": data})[1].objective
        assert (objective.forget, objective.retain) == (forget, retain)
    for name, wrong in (("phases", "none"), ("phase2_data", "all"), ("forget_direction", "up")):
        with pytest.raises(SpecError, match=f"libu: unknown {name} '{wrong}'"):
            build({name: wrong})
    (a, one), (b, two) = (go("libu", tokenizer, corpus, tiny_lm(), phases=p) for p in ("influence", "both"))
    assert one.steps < two.steps and changed(a, b)


def test_a_task_vector_forgets_what_learning_its_way_would_learn(tokenizer, corpus):
    start = nll(tiny_lm(), tokenizer, corpus["forget"])
    values = {a: nll(go("task_vector", tokenizer, corpus, tiny_lm(), alpha=a, epochs=3)[0], tokenizer, corpus["forget"]) for a in (0, 1)}
    assert values[0] == pytest.approx(start, abs=1e-6) and values[1] > start + 0.05
    with pytest.raises(SpecError, match="alpha must be >= 0, got -1"):
        recipe("task_vector").build({"alpha": -1})


def test_perturbed_alternatives_need_rows_that_have_them(tokenizer, corpus):
    assert not any(r.perturbed for r in corpus["forget"])
    with pytest.raises(CorpusError, match=r"5 of 5 forget rows .* have no perturbed answers"):
        go("alt_po", tokenizer, corpus, tiny_lm(), answers="perturbed")
    with pytest.raises(SpecError, match="DPO: unknown kind of other answers 'perturbd'; did you mean 'perturbed'"):
        recipe("alt_po").build({"answers": "perturbd"})


def test_sugd_reads_seven_retain_steps_for_one_of_the_forget_rows(tokenizer, corpus):
    _, outcome = go("sugd", tokenizer, corpus, tiny_lm(), epochs=1, chunk=2, batch_size=2, trainable="last-1")
    kinds = ["f" if p["loss_forget"] else "r" for p in outcome.trajectory[1:]]
    assert "".join(kinds) == "frrrrrrr" * 3  # chunks of 2, 2 and 1 rows
