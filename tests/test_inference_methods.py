"""Methods that change what is answered, not the weights: an assistant's logits taken away, and a classifier before the model."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import EOS, byte_tokenizer, tiny_lm

from reprolib import run
from reprolib.adapters.base import Data
from reprolib.corpus.batching import Tokens, as_text, encode, encode_rows
from reprolib.corpus.rows import Corpus, Row
from reprolib.edits import routing
from reprolib.edits.base import Past
from reprolib.edits.contrast import Contrast, Contrasted, Reinitialise
from reprolib.edits.routing import Route, Routed, Silent, cross_fit, fit, judged, prompt_features, quality
from reprolib.edits.weights import Noise
from reprolib.errors import SpecError
from reprolib.evaluate.passes import Examination, teacher_forced
from reprolib.evaluate.summary import evaluate, measure
from reprolib.models.generate import generate
from reprolib.models.policy import Policy, score
from reprolib.recipes import recipe
from reprolib.record import find
from reprolib.spec import Spec
from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import unlearn
from study import report

pytestmark = pytest.mark.usefixtures("one_thread", "brief")


def weights(lm) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in lm.named_parameters()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def start(lm) -> Past:
    return Past(weights(lm))


# --- the assistant: logits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha, base", [(0.7, "none"), (0.7, "target"), (0.0, "none"), (3.0, "target")])
def test_logits_are_those_of_the_two_models_apart(alpha, base, tokenizer, corpus):
    target, assistant = tiny_lm(0), tiny_lm(1)
    both = Contrasted(target, assistant, alpha, base)
    ids = torch.tensor(as_text(tokenizer, ["It is said that", "Where did Ida K"]))
    with torch.no_grad():
        z, a = target(ids).logits, assistant(ids).logits
        expected = z - alpha * (a - (z if base == "target" else 0))
        assert torch.allclose(both(ids).logits, expected, atol=1e-5)
        assert torch.allclose(both(ids, logits_to_keep=2).logits, expected[:, -2:], atol=1e-5)
    # the way in which everything is scored: the head on labelled positions only, rows of several lengths
    tokens = encode_rows(tokenizer, corpus["forget"])
    for rows, scored in score(Policy(both), tokens, range(len(tokens))):
        apart = []
        for i in rows:
            row = torch.tensor([tokens.ids[i]])
            with torch.no_grad():
                z, a = target(row).logits[0], assistant(row).logits[0]
            at = slice(len(row[0]) - 1 - tokens.n_labels(i), len(row[0]) - 1)
            apart.append((z - alpha * (a - (z if base == "target" else 0)))[at])
        assert torch.allclose(scored.logits, torch.cat(apart), atol=1e-4)


def greedy(models, weights, tokenizer, prompt: str, limit: int) -> str:
    """Without caches, one prompt at a time."""
    ids = as_text(tokenizer, [prompt])[0]
    new: list[int] = []
    while len(new) < limit and EOS not in new:
        with torch.no_grad():
            z = sum(w * m(torch.tensor([ids + new])).logits[0, -1] for m, w in zip(models, weights, strict=True))
        new.append(int(z.argmax()))
    return tokenizer.decode(new[: new.index(EOS)] if EOS in new else new, skip_special_tokens=True)


def test_cached_batches_generate_what_uncached_single_prompts_do(perfect_lm, tokenizer, corpus):
    prompts = [r.input for g in ("forget", "retain", "world") for r in corpus[g]]
    target, assistant = perfect_lm, tiny_lm(3)
    for alpha, base in ((1.0, "none"), (1.5, "target")):
        both = Contrasted(target, assistant, alpha, base)
        expected = [greedy((target, assistant), both.weights, tokenizer, p, 25) for p in prompts]
        assert len(set(expected)) > 5
        for batch_tokens in (8192, 150, 1):
            assert generate(both, tokenizer, prompts, max_new_tokens=25, batch_tokens=batch_tokens) == expected
    assert len({len(x) for x in expected}) > 1  # rows leave the batch at different times


def test_alpha_0_is_the_target_in_every_number(perfect_lm, tokenizer, corpus):
    exam = Examination.of(corpus, tokenizer, perfect_lm)
    both = Contrasted(perfect_lm, tiny_lm(1), 0.0)
    alone, together = evaluate(perfect_lm, exam, progress=False), evaluate(both, exam, progress=False)
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-6) and together.rows["score"] == alone.rows["score"]
    assert both.num_parameters() == 2 * perfect_lm.num_parameters()


def test_the_assistant_can_be_all_that_counts(perfect_lm, tokenizer, corpus):
    """Far above any sensible alpha, what is answered is what the assistant likes least: nothing is known any more."""
    exam = Examination.of(corpus, tokenizer)
    values = measure(Contrasted(perfect_lm, copy.deepcopy(perfect_lm), 2.0), exam)
    assert values["forget/questions"] == values["retain/questions"] == 0


# --- the assistant: edits and recipe --------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone():
    lm = tiny_lm(0)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights(Reinitialise().apply(tiny_lm(0), Past(), 5))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(first, weights(Reinitialise().apply(tiny_lm(4), Past(), 5)))  # nothing of the old weights is left
    assert not same(first, weights(Reinitialise().apply(tiny_lm(0), Past(), 6)))
    assert not same(first, weights(lm))
    fresh = Reinitialise().apply(lm, Past(), 5)
    assert fresh.get_input_embeddings().weight is fresh.get_output_embeddings().weight
    spread = {k: v.std() for k, v in first.items() if v.dim() > 1}
    assert all(0.08 < s < 0.12 for s in spread.values())  # the config's initializer_range of 0.1


def rows(tokenizer, corpus) -> Data:
    return Data(encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"]))


@pytest.mark.parametrize("options, base", [({"assistant": "fresh", "alpha": 1}, "none"), ({"assistant": "further", "alpha": 2}, "target")])
def test_the_target_stays_and_the_assistant_learns_the_forget_rows(options, base, perfect_lm, tokenizer, corpus):
    stages = recipe("assistant").build({"epochs": 30, "batch_size": 4, "lr": 5e-3, **options})
    lm = copy.deepcopy(perfect_lm) if base == "none" else tiny_lm()
    before = weights(lm)
    exam = Examination.of(corpus, tokenizer)
    both, outcome = unlearn(
        lm, stages, *rows(tokenizer, corpus), seed=0, measure=lambda m: measure(m, exam), points=4, progress=False
    )
    assert isinstance(both, Contrasted) and same(weights(both.target), before)
    assert not same(weights(both.assistant), before)
    alpha = stages[-1].alpha
    assert both.weights == ((1, -alpha) if base == "none" else (1 + alpha, -alpha))
    names = [p["stage"] for p in outcome.trajectory]
    assert names[-1] == "contrast" and names[0] == "" and "train assistant" in names
    assert measure(both.assistant, exam)["forget/nll"] < measure(tiny_lm(), exam)["forget/nll"] - 1
    assert outcome.trained_parameters == lm.num_parameters()


@pytest.mark.parametrize("kind", ["fresh", "further"])
def test_a_stopped_run_goes_on_to_the_same_bytes(kind, tokenizer, corpus, tmp_path):
    class Stop(Exception):
        pass

    stages = recipe("assistant").build({"assistant": kind, "epochs": 4, "batch_size": 3})
    data = rows(tokenizer, corpus)

    def go(stop: int | None = None, checkpoint: Checkpoint | None = None):
        seen = []

        def probe(lm):
            seen.append(1)
            if len(seen) == stop:
                raise Stop
            return {"nll": float(sum(p.detach().double().sum() for p in lm.parameters()))}

        return unlearn(tiny_lm(), stages, *data, seed=1, measure=probe, points=4, checkpoint=checkpoint, progress=False)

    whole, outcome = go()
    path = tmp_path / "checkpoint.safetensors"
    for stop in (2, 2, 3, 2):  # at the start, in the training, at the composite model
        with pytest.raises(Stop):
            go(stop, Checkpoint(path, "f00"))
    again, resumed = go(None, Checkpoint(path, "f00"))
    assert same(weights(again), weights(whole)) and resumed == outcome


def test_what_cannot_be_is_refused(perfect_lm):
    lm = tiny_lm()
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="alpha must be finite and >= 0"):
            Contrast(alpha=bad)
    with pytest.raises(SpecError, match="unknown base 'targt'; did you mean 'target'"):
        Contrast(base="targt")
    with pytest.raises(SpecError, match="unknown assistant 'frech'; did you mean 'fresh'"):
        recipe("assistant").build({"assistant": "frech"})
    with pytest.raises(SpecError, match="full-precision copy"):
        Contrast().apply(lm, Past(), 0)  # the loop hands over weights only if the base has full precision
    lm.quantization_method = "bitsandbytes"
    with pytest.raises(SpecError, match="base in 4 or 8 bits"):
        Contrast().apply(lm, start(lm), 0)
    with pytest.raises(SpecError, match="draws all weights anew"):
        Reinitialise().apply(lm, Past(), 0)
    for precision in ("nf4", "int8"):
        for kind in ("fresh", "further"):
            with pytest.raises(SpecError, match="freezes the base weights"):
                Spec(method="assistant", precision=precision, options={"assistant": kind})
    other = tiny_lm()
    other.config.vocab_size = 5
    with pytest.raises(SpecError, match="vocabularies have 258 and 5"):
        Contrasted(perfect_lm, other, 1.0)


@pytest.mark.parametrize("edit", [Contrast(), Route()], ids=lambda e: e.name)
def test_no_stage_can_follow_a_model_of_several(edit, tokenizer, corpus):
    with pytest.raises(SpecError, match="no stage can go on from; put it last"):
        unlearn(tiny_lm(), (edit, Noise()), *rows(tokenizer, corpus), seed=0, progress=False)


# --- routing: the classifier ----------------------------------------------------------------------------------


def drawn(documents: int, per: int, width: int, seed: int, spread: float = 0.3):
    """Rows of documents: each document a point, its rows near it; (features, document of each row)."""
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(documents, width, generator=g)
    x = points.repeat_interleave(per, 0) + spread * torch.randn(documents * per, width, generator=g)
    return x, tuple(f"d{i}" for i in range(documents) for _ in range(per))


def sides(documents: tuple[str, ...], seed: int) -> torch.Tensor:
    """Half of the documents at random are to be forgotten."""
    names = list(dict.fromkeys(documents))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[i] for i in order[: len(names) // 2]}
    return torch.tensor([float(d in chosen) for d in documents])


def held_out(x, y, keys, folds=5, seed=0):
    classifiers, fold = cross_fit(x, y, keys, folds, 1.0, seed)
    number = torch.tensor([fold[k] for k in keys])
    return quality(judged(x, classifiers, number), y, number)


def test_logistic_regression_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, documents = drawn(40, 2, 5, 0, 1.0)
    y = sides(documents, 1)
    x[:, 2] = 7.0  # says nothing, and has no spread to divide by
    for l2 in (0.1, 1.0, 30.0):
        ours = fit(x, y, l2)
        z = ((x.double() - ours.mean) / ours.scale).numpy()
        theirs = sklearn.LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10000).fit(z, y.numpy())
        np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_[0], atol=1e-4)
        np.testing.assert_allclose(float(ours.bias), theirs.intercept_[0], atol=1e-4)
        np.testing.assert_allclose(ours.score(x).numpy(), theirs.decision_function(z), atol=1e-3)


def test_separable_rows_are_told_apart():
    x, documents = drawn(20, 3, 4, 0)
    y = sides(documents, 0)
    x[:, 0] = 2 * y - 1 + 0.05 * x[:, 0]
    assert held_out(x, y, documents) == {"auc": 1.0, "accuracy": 1.0}


def test_sides_drawn_at_random_cannot_be_told_on_other_documents_but_leak_through_rows():
    aucs = {"documents": [], "rows": []}
    for seed in range(8):
        x, documents = drawn(80, 4, 60, seed)
        y = sides(documents, seed)
        aucs["documents"].append(held_out(x, y, documents, seed=seed)["auc"])
        aucs["rows"].append(held_out(x, y, tuple(enumerate(documents)), seed=seed)["auc"])
        whole = fit(x, y)
        assert quality(whole.score(x), y, torch.zeros(len(x)))["auc"] > 0.9  # seen
    assert abs(np.mean(aucs["documents"]) - 0.5) < 0.05 and max(aucs["documents"]) < 0.65
    assert min(aucs["rows"]) > 0.8


def test_shuffled_labels_say_nothing_even_row_by_row():
    x, documents = drawn(80, 4, 24, 0)
    aucs = []
    for seed in range(8):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        y = sides(documents, 0)[order]
        aucs.append(held_out(x, y, tuple(enumerate(documents)), seed=seed)["auc"])
    assert abs(np.mean(aucs) - 0.5) < 0.06


def test_cross_fitting_never_sees_the_document():
    x, documents = drawn(24, 3, 4, 0)
    y = sides(documents, 0)
    classifiers, fold = cross_fit(x, y, documents, 5, 1.0, 3)
    assert set(fold) == set(documents) and set(fold.values()) == set(range(5))
    for f, c in enumerate(classifiers):  # each is the fit of all documents but its own
        rest = torch.tensor([fold[d] != f for d in documents])
        expected = fit(x[rest], y[rest])
        assert all(torch.equal(getattr(c, k), getattr(expected, k)) for k in ("mean", "scale", "weight", "bias"))
    for name in ("d0", "d11", "d23"):  # whatever a document says, the classifier that judges it is the same
        other = x.clone()
        other[[d == name for d in documents]] = 1e3
        changed, again = cross_fit(other, y, documents, 5, 1.0, 3)
        assert again == fold
        for f, (a, b) in enumerate(zip(classifiers, changed, strict=True)):
            assert torch.equal(a.weight, b.weight) == (f == fold[name])


def test_folds_hold_the_same_mixture_of_both_sides():
    documents = tuple(f"{side}{i}" for side in "fr" for i in range(20))  # as in a corpus: task by task
    y = torch.tensor([float(d[0] == "f") for d in documents])
    for seed in range(3):
        fold = routing.deal(documents, y, 5, seed)
        for side in "fr":
            for task in range(4):
                assert sorted(fold[f"{side}{i}"] for i in range(5 * task, 5 * task + 5)) == [0, 1, 2, 3, 4]
        assert all(fold[f"f{i}"] == fold[f"r{i}"] for i in range(20))  # also where folds do not divide a task
    assert routing.deal(documents, y, 5, 0) != routing.deal(documents, y, 5, 1)
    with pytest.raises(SpecError, match="'f0' has rows among both"):
        routing.deal(("f0", "f0"), torch.tensor([1.0, 0.0]), 2, 0)
    with pytest.raises(SpecError, match="rows of both sides, got 2 forget rows of 2"):
        fit(torch.zeros(2, 3), torch.ones(2))


# --- routing: features ----------------------------------------------------------------------------------------


def test_hidden_features_are_means_over_the_prompt(tokenizer):
    lm = tiny_lm()
    prompts = as_text(tokenizer, ["a", "Where did Ida Kestrel live?", "When", "a", ""])
    for layer in (0, 1):
        x = prompt_features(lm, prompts, "hidden", layer)
        assert torch.equal(x, prompt_features(lm, prompts, "hidden", layer, max_tokens=1)) or torch.allclose(
            x, prompt_features(lm, prompts, "hidden", layer, max_tokens=1), atol=1e-5
        )
        found = []
        hook = lm.model.layers[layer].register_forward_hook(
            lambda m, i, o, found=found: found.append(o[0] if isinstance(o, tuple) else o)
        )
        for n, p in enumerate(prompts[:-1]):
            found.clear()
            with torch.no_grad():
                lm(torch.tensor([p]))
            assert torch.allclose(x[n], found[0].reshape(-1, 32)[: len(p)].mean(0), atol=1e-5)
        hook.remove()
        assert torch.equal(x[0], x[3]) and not x[4].any()
    with pytest.raises(SpecError, match=r"layer must lie in 0\.\.1"):
        prompt_features(lm, prompts, "hidden", 2)


def test_token_features_count(tokenizer):
    ids = as_text(tokenizer, ["abca"])[0]
    x = prompt_features(tiny_lm(), [ids, ()], "tokens")
    assert x.shape == (2, 258) and x.sum() == 4 and x[0, ids[0]] == 2 and x[0, ids[1]] == 1


def test_rows_know_their_documents(tokenizer, corpus):
    tokens = encode_rows(tokenizer, corpus["forget"])
    assert tokens.document == tuple(r.document for r in corpus["forget"])
    plain = encode(tokenizer, [r.input for r in corpus["forget"]], [r.output for r in corpus["forget"]])
    assert plain.document == () and dataclasses.replace(tokens, document=()) == plain
    exam = Examination.of(corpus, tokenizer)
    assert len(exam.tokens.document) == len(exam.tokens)
    assert exam.tokens.document[exam.parts["world"].start] == "France"
    assert exam.tokens.document[exam.parts["holdout"].start] == corpus["holdout"][0].document


# --- routing: the routed model --------------------------------------------------------------------------------


def toy(tell: bool = True) -> Corpus:
    """Eight documents a side; with ``tell``, every forget prompt (and every holdout prompt) has an exclamation mark."""
    groups = {}
    for g, group in enumerate(("forget", "retain", "holdout")):
        rows = []
        for d in range(8):
            key = f"{group[0]}{d}"
            mark = "!" if tell and group != "retain" else "."
            for kind, text in (("sc", f"Of {chr(97 + (5 * d + 3 * g) % 26)}{d}{mark}"), ("qa", f"Who is {chr(97 + d)}{mark}")):
                one = {"document": key, "task": "Task1", "kind": kind}
                rows.append(Row(id=f"{key}{kind}", input=text, output=f"no {d}", **one))
        groups[group] = tuple(rows)
    groups["world"] = (
        Row(id="wqa0", document="w", task="World", kind="qa", input="Which?", output="x", perturbed=("y", "z", "q")),
    )
    return Corpus("toy", groups)


def routed(lm, corpus, tokenizer, **options) -> Routed:
    data = rows(tokenizer, corpus)
    return Route(**{"features": "tokens", **options}).apply(lm, Past(data=data), 0)


@pytest.mark.parametrize("how", ["documents", "rows", "none"])
def test_a_separable_corpus_is_routed_rightly(how, lm, tokenizer):
    corpus = toy()
    exam = Examination.of(corpus, tokenizer, lm)
    model = routed(lm, corpus, tokenizer, held_out=how)
    for metrics in (measure(model, exam), evaluate(model, exam, progress=False).metrics):
        for kind in ("auc", "accuracy"):
            assert [metrics[f"routing/{kind}_{x}"] for x in ("documents", "rows", "seen")] == [1, 1, 1]
        assert [metrics[f"routing/sent_{g}"] for g in ("forget", "retain", "holdout", "world")] == [1, 0, 1, 0]
        assert metrics["attack/auc"] == 0.5  # silent on both: the same loss for every text
        assert metrics["retain/kl"] == pytest.approx(0, abs=1e-6)


def test_results_of_the_two_models_are_merged_row_by_row(perfect_lm, tokenizer, corpus, monkeypatch):
    """Wherever a row is sent, its numbers are those of that model alone."""
    exam = Examination.of(corpus, tokenizer, perfect_lm)
    away = {i for i in range(len(exam.tokens)) if i % 3 == 0 or i >= exam.parts["world"].start + 4}
    model = routed(perfect_lm, corpus, tokenizer, folds=2, held_out="none")
    monkeypatch.setattr(Routed, "sent", lambda self, tokens, rows: np.array([i in away for i in rows]))
    target, silent, both = (teacher_forced(m, exam) for m in (perfect_lm, Silent(perfect_lm.config), model))
    for name in ("nll", "em", "es", "exact", "document"):
        for g, part in list(exam.parts.items())[:3]:
            expected = [getattr(silent if i in away else target, name)[g][i - part.start] for i in part]
            np.testing.assert_allclose(getattr(both, name)[g], expected, rtol=1e-4, atol=1e-6, err_msg=f"{name} {g}")
    np.testing.assert_array_equal(both.world, [target.world[0], silent.world[1]])
    expected = [silent.kl[i] if i + exam.parts["retain"].start in away else target.kl[i] for i in range(len(both.kl))]
    np.testing.assert_allclose(both.kl, expected, rtol=1e-4, atol=1e-6)
    result = evaluate(model, exam, progress=False)
    n = sum(len(exam.rows[g]) for g in ("forget", "retain"))
    alone = evaluate(perfect_lm, exam, progress=False).rows["score"]
    assert result.rows["score"][:n] == [0.0 if i in away else alone[i] for i in range(n)]  # nothing is said
    assert result.metrics["routing/sent_forget"] == pytest.approx(np.mean([i in away for i in exam.parts["forget"]]))


def test_the_silent_model_says_nothing(perfect_lm, tokenizer, corpus):
    silent = Silent(perfect_lm.config)
    prompts = [r.input for r in corpus["forget"]]
    assert generate(silent, tokenizer, prompts) == [""] * len(prompts)
    perfect_lm = copy.deepcopy(perfect_lm)
    perfect_lm.config.eos_token_id = [0, 1]
    with pytest.raises(SpecError, match="one end-of-text token, got"):
        Silent(perfect_lm.config)


@pytest.mark.parametrize("how", ["documents", "rows", "none"])
def test_who_judges_a_prompt(how, lm, tokenizer, monkeypatch):
    """Given documents and rows by the classifier that did not see them; everything else by the one of all rows."""
    corpus = toy(tell=False)
    data = rows(tokenizer, corpus)
    x = torch.cat([prompt_features(lm, routing.prompts_of(t, range(len(t))), "tokens") for t in data])
    model = routed(lm, corpus, tokenizer, held_out=how)
    exam = Examination.of(corpus, tokenizer)
    used = []
    monkeypatch.setattr(routing, "judged", lambda x, c, number: used.append(number.tolist()) or judged(x, c, number))
    model.sent(exam.tokens, range(len(exam.tokens)))
    last = len(model.classifiers) - 1
    given, others = used[0][: len(x)], used[0][len(x) :]
    assert set(others) == {last} and last == (0 if how == "none" else 5)
    y = torch.tensor([1.0] * len(data.forget) + [0.0] * len(data.retain))
    whole = fit(x, y)
    assert torch.equal(model.classifiers[last].weight, whole.weight)
    if how == "none":
        assert set(given) == {last}
        return
    documents = (*data.forget.document, *data.retain.document)
    for i, number in enumerate(given):
        assert number != last
        unseen = [n for n, d in zip(given, documents, strict=True) if d == documents[i]]
        assert (len(set(unseen)) == 1) or how == "rows"
        rest = torch.tensor([n != number for n in given])
        assert torch.equal(model.classifiers[number].weight, fit(x[rest], y[rest]).weight)  # row i is not among them
    if how == "rows":
        assert any(given[i] != given[i + 1] for i in range(0, len(given), 2))  # documents are torn apart


def test_rows_of_given_documents_that_were_not_given_are_held_out_too(lm, tokenizer):
    corpus = toy(tell=False)
    half = Data(*(encode_rows(tokenizer, [r for r in corpus[g] if r.kind == "qa"]) for g in ("forget", "retain")))
    model = Route(features="tokens").apply(lm, Past(data=half), 0)
    assert set(model.judges) == {r.document for g in ("forget", "retain") for r in corpus[g]}
    whole = encode_rows(tokenizer, corpus["forget"])
    assert len(model.sent(whole, range(len(whole)))) == len(whole)


def test_rows_without_a_prompt_go_to_the_target(lm, tokenizer):
    model = routed(lm, toy(), tokenizer)
    bare = Tokens(((5, 6, 7, 0),), (0,), ("answer",), ("f0",))
    assert not model.sent(bare, [0]).any()
    assert model.sent(bare, []).shape == (0,)


@pytest.mark.parametrize("options, message", [
    ({"features": "hiden"}, "did you mean 'hidden'"),
    ({"held_out": "document"}, "did you mean 'documents'"),
    ({"layer": -1}, "layer must be a whole number >= 0"),
    ({"layer": 1.5}, "layer must be a whole number >= 0"),
    ({"folds": 1}, "folds must be a whole number >= 2"),
    ({"l2": 0.0}, "l2 must be finite and > 0"),
    ({"l2": float("nan")}, "l2 must be finite and > 0"),
])  # fmt: skip
def test_bad_settings_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        Route(**options)
    with pytest.raises(SpecError):
        recipe("prompt_routing").build(options)


def test_what_the_classifier_cannot_be_fitted_on_is_refused(lm, tokenizer, corpus):
    data = rows(tokenizer, toy())
    with pytest.raises(SpecError, match="on the rows of a run"):
        Route().apply(lm, Past(), 0)
    without = Data(*(dataclasses.replace(t, document=()) for t in data))
    with pytest.raises(SpecError, match="make them with encode_rows"):
        Route().apply(lm, Past(data=without), 0)
    with pytest.raises(SpecError, match=r"layer must lie in 0\.\.1"):
        Route(layer=7).apply(lm, Past(data=data), 0)
    single = Data(encode_rows(tokenizer, toy()["forget"][:2]), data.retain)
    with pytest.raises(SpecError, match="none of 1 forget and 8 retain documents can be held out"):
        Route(features="tokens").apply(lm, Past(data=single), 0)
    lookup = Route(features="tokens", held_out="none").apply(lm, Past(data=single), 0)  # a lookup needs no other document
    assert lookup.readings["routing/auc_seen"] == 1 and "routing/auc_documents" not in lookup.readings
    with pytest.raises(SpecError, match="where prompts end"):
        lookup(torch.zeros(1, 2, dtype=torch.long))


def test_the_target_is_untouched_and_the_seed_decides_the_folds(lm, tokenizer):
    before = weights(lm)
    stages = recipe("prompt_routing").build({"layer": 0})
    runs = [unlearn(lm, stages, *rows(tokenizer, toy(False)), seed=s, progress=False)[0] for s in (0, 0, 1)]
    assert all(same(weights(m.target), before) for m in runs)
    assert runs[0].judges == runs[1].judges and runs[0].readings == runs[1].readings
    assert runs[0].judges != runs[2].judges
    assert runs[0].num_parameters() == lm.num_parameters() + 32 + 1


def test_a_base_in_4_bits_can_be_routed(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    from reprolib.models.device import load_lm

    tiny_lm().save_pretrained(tmp_path)
    lm = load_lm(str(tmp_path), "nf4")
    corpus = toy()
    model, outcome = unlearn(lm, (Route(layer=0),), *rows(tokenizer, corpus), seed=0, progress=False)
    assert outcome.status == "done" and "forget/nll" in measure(model, Examination.of(corpus, tokenizer))
    assert Spec(method="prompt_routing", precision="nf4").fingerprint


# --- in the study ---------------------------------------------------------------------------------------------


def test_cards_and_costs():
    for name in ("assistant", "prompt_routing"):
        card = recipe(name).card
        assert card.family == "inference" and card.citation == "cyberforai2025" and card.published and card.trap and card.cost
    assert recipe("assistant").cost_class == "1 pass + 2 models at inference"
    assert recipe("prompt_routing").cost_class == "classifier"
    assert recipe("noise").cost_class == "weights only" and recipe("twin").cost_class == "none"


@pytest.mark.parametrize("method, options", [
    ("assistant", {"epochs": 1}), ("assistant", {"assistant": "further", "epochs": 1}),
    ("prompt_routing", {}), ("prompt_routing", {"features": "tokens", "held_out": "none"}),
])  # fmt: skip
def test_runs_leave_records(method, options, test_preset):
    record = run(testbed=test_preset, method=method, options=options, progress=False)
    assert record.status == "done" and find(record.spec) == record
    assert record.trajectory[-1]["stage"] == ("contrast" if method == "assistant" else "route")
    target = run(testbed=test_preset, method="target", progress=False)
    if method == "assistant":
        assert record.cost["parameters"] == 2 * target.cost["parameters"]
        assert not any(k.startswith("routing/") for k in record.metrics)
        return
    assert {f"routing/auc_{k}" for k in ("documents", "rows", "seen")} <= record.metrics.keys()
    assert record.trajectory[-1]["routing/auc_seen"] == record.metrics["routing/auc_seen"]
    html = report.routing({method: [record]}, method).data
    assert "no row of its document" in html and f"{record.metrics['routing/auc_documents']:.2f}" in html
    assert "–" in report.routing({method: [target]}, method).data  # a record without these numbers


def test_numbers_of_other_models_do_not_change(perfect_lm, tokenizer, corpus):
    exam = Examination.of(corpus, tokenizer)
    s = teacher_forced(perfect_lm, exam)
    assert [(m is perfect_lm, list(r)) for m, r in s.parts] == [(True, list(range(len(exam.tokens))))]
    assert not any(k.startswith("routing/") for k in measure(perfect_lm, exam))
    assert byte_tokenizer().eos_token_id == EOS
