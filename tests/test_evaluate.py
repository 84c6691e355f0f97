"""Numbers of a model: the shortcut, the batches and the scores against transformers' own generation, one by one."""

import collections
import copy
import functools
import json
import math

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, tiny_lm
from transformers import DynamicCache

from reprolib.corpus.batching import as_text
from reprolib.corpus.rows import Corpus
from reprolib.errors import ReprolibError
from reprolib.evaluate.passes import Examination, teacher_forced
from reprolib.evaluate.subject import Subject
from reprolib.evaluate.summary import core, evaluate, measure, summarise
from reprolib.metrics import lume
from reprolib.models.generate import generate
from reprolib.provenance import provenance
from reprolib.record import Record, to_json
from reprolib.spec import Spec

pytestmark = pytest.mark.usefixtures("one_thread")


def by_transformers(lm, tokenizer, prompt: str, max_new_tokens=256) -> str:
    """As the organisers generate: greedy, one example at a time."""
    ids = torch.tensor(as_text(tokenizer, [prompt]))
    out = lm.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def half_lm(perfect_lm, corpus, tokenizer):
    """The memorised model with as much noise as it takes to know some answers to the letter and not others."""
    exam = Examination.of(corpus, tokenizer)
    for noise in range(15, 60):
        lm = copy.deepcopy(perfect_lm)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in lm.parameters():
                p += noise / 100 * p.std() * torch.randn(p.shape, generator=generator)
        exact = np.concatenate([teacher_forced(lm, exam).exact[g] for g in ("forget", "retain")])
        if 3 <= exact.sum() <= len(exact) - 3:
            return lm
    raise AssertionError(f"no noise makes a model that half knows: {exact}")


@pytest.fixture(scope="module")
def exam(corpus, tokenizer, perfect_lm):
    return Examination.of(corpus, tokenizer, perfect_lm)


# --- generation ----------------------------------------------------------------------------------------------


def test_batched_generation_equals_transformers_one_by_one(perfect_lm, half_lm, tokenizer, corpus):
    prompts = [r.input for g in corpus.groups.values() for r in g]
    assert len({len(p) for p in prompts}) > 5  # rows of many lengths, so that there is padding
    for lm, limit in ((perfect_lm, 256), (half_lm, 40), (tiny_lm(), 30)):
        expected = [by_transformers(lm, tokenizer, p, limit) for p in prompts]
        assert generate(lm, tokenizer, prompts, max_new_tokens=limit) == expected
        assert len(set(expected)) > 5


def test_generation_does_not_depend_on_batches_or_order(half_lm, tokenizer, corpus):
    prompts = [r.input for g in corpus.groups.values() for r in g]
    once = generate(half_lm, tokenizer, prompts, max_new_tokens=40)
    assert generate(half_lm, tokenizer, prompts[::-1], max_new_tokens=40)[::-1] == once
    for batch_tokens in (1, 200):
        assert generate(half_lm, tokenizer, prompts, max_new_tokens=40, batch_tokens=batch_tokens) == once
    assert generate(half_lm, tokenizer, []) == []


def test_generation_may_begin_with_what_is_known(half_lm, tokenizer, corpus):
    prompts = [r.input for g in corpus.groups.values() for r in g]
    whole = generate(half_lm, tokenizer, prompts, max_new_tokens=30)
    tokens = [x + ([tokenizer.eos_token_id] if len(x) < 30 else []) for x in as_text(tokenizer, whole)]
    for known in (0, 1, 7, 30, 31):
        begun = [x[: known + i % 2] for i, x in enumerate(tokens)]
        assert generate(half_lm, tokenizer, prompts, begun=begun, max_new_tokens=30) == whole
        assert generate(half_lm, tokenizer, prompts, begun=begun, max_new_tokens=30, batch_tokens=1) == whole


def test_what_is_known_is_not_generated(perfect_lm, half_lm, exam, monkeypatch):
    calls = []
    monkeypatch.setattr("transformers.DynamicCache", lambda *a, real=DynamicCache, **k: (calls.append(1), real(*a, **k))[1])
    evaluate(perfect_lm, exam, progress=False)
    assert calls == []  # every answer is exact, so that the model is not asked again
    evaluate(half_lm, exam, progress=False)
    assert calls
    scores = teacher_forced(half_lm, exam)
    for group in ("forget", "retain"):
        for i, r in enumerate(exam.rows[group]):
            text = by_transformers(half_lm, exam.tokenizer, r.input, 80)
            known = exam.tokenizer.decode(scores.begun[group][i], skip_special_tokens=True)
            # all right tokens and the first wrong one
            assert len(scores.begun[group][i]) >= 1 and (text.startswith(known) or "�" in known), r.id


def test_generation_leaves_rows_that_have_ended(perfect_lm, tokenizer, corpus):
    """A batch shrinks to the rows that go on: the model is called on fewer and fewer rows."""
    sizes = []
    hook = perfect_lm.register_forward_pre_hook(lambda m, a, k: sizes.append(k["input_ids"].shape[0]), with_kwargs=True)
    generate(perfect_lm, tokenizer, [r.input for r in corpus["forget"]])
    hook.remove()
    assert sizes[0] == len(corpus["forget"]) and sizes[-1] < sizes[0]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 1 + max(len(f" {r.output}") for r in corpus["forget"])


def test_special_tokens_in_a_prompt_are_text(perfect_lm, tokenizer):
    assert generate(perfect_lm, tokenizer, ["a<|endoftext|>b"], max_new_tokens=5) == [
        by_transformers(perfect_lm, tokenizer, "a<|endoftext|>b", 5)
    ]


# --- the teacher-forced pass ---------------------------------------------------------------------------------


def test_what_is_exact_under_teacher_forcing_is_what_greedy_decoding_writes(half_lm, exam, tokenizer):
    scores = teacher_forced(half_lm, exam)
    exact = np.concatenate([scores.exact[g] for g in ("forget", "retain")])
    assert 0 < exact.sum() < len(exact)  # both cases occur
    for group in ("forget", "retain"):
        for i, r in enumerate(exam.rows[group]):
            assert (by_transformers(half_lm, tokenizer, r.input, 80) == f" {r.output}") == bool(scores.exact[group][i]), r.id


def test_scores_equal_those_of_generations_one_by_one(half_lm, exam, tokenizer):
    rows = evaluate(half_lm, exam, progress=False).rows
    expected = []
    for group in ("forget", "retain"):
        for r in exam.rows[group]:
            text = by_transformers(half_lm, tokenizer, r.input)
            expected.append((lume.rouge_l_recall if r.kind == "sc" else lume.knowledge)(r.output, text))
    assert rows["score"][: len(expected)] == pytest.approx(expected, abs=1e-4)
    assert len({round(x, 3) for x in expected}) > 2


def test_nll_em_es_by_hand(half_lm, exam, tokenizer):
    scores = teacher_forced(half_lm, exam)
    for group in ("forget", "retain", "holdout"):
        for i, r in enumerate(exam.rows[group]):
            prompt, answer = as_text(tokenizer, [r.input, f" {r.output}"])
            ids = torch.tensor([prompt + answer + [tokenizer.eos_token_id]])
            with torch.no_grad():
                logp = half_lm(input_ids=ids).logits[0, :-1].log_softmax(-1)
            token = logp[range(ids.shape[1] - 1), ids[0, 1:]]
            right = (logp.argmax(-1) == ids[0, 1:]).tolist()[len(prompt) - 1 : -1]  # the answer without EOS
            assert scores.nll[group][i] == pytest.approx(-token[len(prompt) - 1 :].mean().item(), abs=1e-4)
            assert scores.em[group][i] == pytest.approx(sum(right) / len(right))
            last_wrong = max((k for k, x in enumerate(right) if not x), default=-1)
            assert scores.es[group][i] == pytest.approx(1 - (last_wrong + 1) / len(right))
            if r.kind == "sc":  # the whole text, without EOS
                assert scores.document[group][i] == pytest.approx(-token[:-1].mean().item(), abs=1e-4)
            else:
                assert math.isnan(scores.document[group][i])


def test_kl_to_the_target_by_hand(half_lm, perfect_lm, exam, tokenizer):
    scores = teacher_forced(half_lm, exam)
    for i, r in enumerate(exam.rows["retain"]):
        prompt, answer = as_text(tokenizer, [r.input, f" {r.output}"])
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            p, q = (m(input_ids=ids).logits[0, len(prompt) - 1 :].log_softmax(-1) for m in (perfect_lm, half_lm))
        assert scores.kl[i] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), abs=1e-4)
    assert scores.kl.max() > 0.05


def test_world_questions_take_the_option_of_the_lowest_mean_loss(half_lm, exam, corpus, tokenizer):
    chosen = []
    for r in corpus["world"]:
        losses = []
        for option in (r.output, *r.perturbed):
            prompt, answer = as_text(tokenizer, [r.input, f" {option}"])
            ids = torch.tensor([prompt + answer + [tokenizer.eos_token_id]])
            with torch.no_grad():
                logp = half_lm(input_ids=ids).logits[0, :-1].log_softmax(-1)
            losses.append(-logp[range(ids.shape[1] - 1), ids[0, 1:]][len(prompt) - 1 :].mean().item())
        chosen.append(float(losses[0] == min(losses)))
    assert teacher_forced(half_lm, exam).world.tolist() == chosen


@pytest.mark.parametrize("max_tokens", [1, 150])
def test_batch_size_does_not_matter(half_lm, exam, max_tokens):
    a, b = teacher_forced(half_lm, exam), teacher_forced(half_lm, exam, max_tokens=max_tokens)
    for name in ("nll", "em", "es", "exact", "document"):
        for group in exam.rows:
            np.testing.assert_allclose(getattr(a, name)[group], getattr(b, name)[group], atol=1e-5)
    np.testing.assert_allclose(a.kl, b.kl, atol=1e-5)
    np.testing.assert_array_equal(a.world, b.world)


def test_order_of_the_rows_does_not_matter(half_lm, perfect_lm, tokenizer, corpus, exam):
    turned = Corpus("turned", {g: rows[::-1] for g, rows in corpus.groups.items()})
    a, b = evaluate(half_lm, exam, progress=False), evaluate(half_lm, Examination.of(turned, tokenizer, perfect_lm), progress=False)
    assert a.metrics == pytest.approx(b.metrics, abs=1e-5)
    n = len(corpus["forget"])
    assert a.rows["score"][:n] == pytest.approx(b.rows["score"][:n][::-1], abs=1e-3)


def test_measure_is_the_cheap_part_of_evaluate_and_leaves_the_weights(half_lm, exam):
    before = {n: v.clone() for n, v in half_lm.state_dict().items()}
    cheap, all_of_it = measure(half_lm.train(), exam), evaluate(half_lm, exam, progress=False).metrics
    assert cheap.items() <= all_of_it.items() and "lume/final" not in cheap and "lume/final" in all_of_it
    assert not half_lm.training
    assert all(torch.equal(before[n], v) for n, v in half_lm.state_dict().items())


# --- known models --------------------------------------------------------------------------------------------


def test_a_perfect_model(perfect_lm, exam):
    m = evaluate(perfect_lm, exam, progress=False).metrics
    for group in ("forget", "retain"):
        assert m[f"{group}/em"] == m[f"{group}/es"] == m[f"{group}/questions"] == m[f"{group}/sc/em"] == 1
        assert m[f"{group}/nll"] < 0.05
    assert m["holdout/em"] < 0.9 and m["holdout/es"] < 0.5
    assert m["attack/auc"] == 1 and m["world/accuracy"] == 1
    assert m["retain/kl"] == pytest.approx(0, abs=1e-6)
    # nothing is forgotten and everything retained
    assert {m[f"lume/forget/{t}/{k}"] for t in ("Task1", "Task2") for k in ("sc", "qa")} == {0}
    assert {m[f"lume/retain/{t}/{k}"] for t in ("Task1", "Task2") for k in ("sc", "qa")} == {1}
    assert m["lume/task_aggregate"] == 0 and m["lume/mia"] == 0
    assert m["lume/task_aggregate_floored"] == pytest.approx(2 / (1 / 0.01 + 1 / 1))
    assert m["lume/final"] == pytest.approx(1 / 3)


def test_a_random_model(exam):
    m = evaluate(tiny_lm(5), exam, progress=False).metrics
    assert m["forget/questions"] == m["retain/questions"] == 0 == m["lume/task_aggregate"]
    assert m["forget/em"] < 0.2 and m["forget/es"] < 0.2
    assert abs(m["forget/nll"] - math.log(258)) < 1.5
    assert m["retain/kl"] > 1
    assert {m[f"lume/forget/{t}/qa"] for t in ("Task1", "Task2")} == {1}
    assert m["lume/final"] == pytest.approx((m["lume/mia"] + m["world/accuracy"]) / 3)


def test_a_destroyed_model_is_scored_not_refused(exam):
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    m = evaluate(lm, exam, progress=False).metrics
    assert math.isnan(m["forget/nll"]) and math.isnan(m["retain/kl"])
    assert m["attack/auc"] == 0.5  # no text is more familiar than another
    assert m["world/accuracy"] == pytest.approx(0.25)  # chance
    assert m["lume/task_aggregate"] == 0


def test_a_known_answer_beyond_the_limit_of_new_tokens_is_cut_off(perfect_lm, exam):
    longest = max(len(r.output) for r in exam.rows["retain"] if r.kind == "qa")
    # with its space the longest answer has one token more
    rows = core(Subject(perfect_lm, exam, max_new_tokens=longest, progress=False)).rows
    for r, score in zip((*exam.rows["forget"], *exam.rows["retain"]), rows["score"], strict=False):
        if r.kind == "qa":
            assert score == (1 if len(r.output) < longest else 0), r.id


def test_groups_may_be_empty(perfect_lm, corpus, tokenizer):
    bare = Corpus("bare", {**corpus.groups, "holdout": (), "world": ()})
    evaluation = evaluate(perfect_lm, Examination.of(bare, tokenizer), progress=False)
    m = evaluation.metrics
    assert m["retain/em"] == 1 and m["lume/task_aggregate"] == 0
    assert not {"attack/auc", "world/accuracy", "retain/kl", "lume/mia", "lume/final"} & m.keys()
    assert set(evaluation.rows["group"]) == {"forget", "retain"}


def test_summary_means_rows(half_lm, exam):
    scores = teacher_forced(half_lm, exam)
    m = summarise(scores, exam)
    questions = [i for i, r in enumerate(exam.rows["forget"]) if r.kind == "qa"]
    assert m["forget/nll"] == pytest.approx(np.mean(scores.nll["forget"]))
    assert m["forget/qa/em"] == pytest.approx(scores.em["forget"][questions].mean())
    assert m["forget/questions"] == pytest.approx(scores.exact["forget"][questions].mean())


# --- rows ----------------------------------------------------------------------------------------------------


def test_rows_have_equal_columns_and_documents_as_numbers(half_lm, exam, corpus):
    rows = evaluate(half_lm, exam, progress=False).rows
    assert list(rows) == ["group", "task", "kind", "document", "score", "nll", "em", "es", "text_nll"]
    assert {len(v) for v in rows.values()} == {5 + 4 + 2 + 2}  # of the holdout only completions
    assert rows["group"] == ["forget"] * 5 + ["retain"] * 4 + ["holdout"] * 2 + ["world"] * 2
    assert rows["document"] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
    assert [x is None for x in rows["text_nll"]] == [k != "sc" for k in rows["kind"]]
    assert rows["score"][9:11] == [None, None] and rows["nll"][-2:] == [None, None]


def test_no_text_of_the_data_leaves_with_a_record(half_lm, exam, corpus):
    evaluation = evaluate(half_lm, exam, progress=False)
    record = Record(
        spec=Spec(), fingerprint="f", status="done", metrics=evaluation.metrics, rows=evaluation.rows, trajectory=[{"step": 0}],
        cost={}, provenance=provenance(),
    )  # fmt: skip
    text = to_json(record)
    assert json.loads(text)["rows"]
    strings = {s for g in corpus.groups.values() for r in g for s in (r.id, r.document, r.input, r.output, r.text, *r.perturbed)}
    checked = [s for s in strings if len(s) > 12]
    assert len(checked) > 20
    assert not [s for s in checked if s in text or json.dumps(s)[1:-1] in text]
    # short document keys neither
    assert not [r.document for g in ("forget", "retain", "holdout") for r in corpus[g] if f'"{r.document}"' in text]


def test_the_tokenizer_of_the_tests_is_byte_level():
    (ids,) = as_text(byte_tokenizer(), ["é"])
    assert len(ids) == 2


# --- sampling ------------------------------------------------------------------------------------------------


def test_samples_follow_the_models_distribution(tokenizer):
    lm, prompt, n = tiny_lm(3), "It is said that", 4000
    with torch.no_grad():
        logits = lm(input_ids=torch.tensor(as_text(tokenizer, [prompt]))).logits[0, -1]
    for temperature in (1.0, 0.5):
        drawn = collections.Counter(generate(lm, tokenizer, [prompt] * n, max_new_tokens=1, temperature=temperature))
        expected = collections.Counter()
        for token, p in enumerate((logits / temperature).softmax(-1).tolist()):
            expected[tokenizer.decode([token], skip_special_tokens=True)] += p
        assert len(drawn) > 20
        for text, p in expected.most_common(20):
            assert drawn[text] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n) + 1e-4), (temperature, text)


def test_samples_do_not_depend_on_batches_order_or_limit(half_lm, tokenizer, corpus):
    prompts = [r.input for g in corpus.groups.values() for r in g]
    sample = functools.partial(generate, half_lm, tokenizer, temperature=1.0, seed=3)
    once = sample(prompts, max_new_tokens=30)
    assert sample(prompts[::-1], max_new_tokens=30)[::-1] == once == sample(prompts, max_new_tokens=30)
    for batch_tokens in (1, 200):
        assert sample(prompts, max_new_tokens=30, batch_tokens=batch_tokens) == once
    assert sample(prompts[3:5], max_new_tokens=30) == once[3:5]  # other prompts change nothing
    for short, long in zip(sample(prompts, max_new_tokens=10), once, strict=True):
        assert long.startswith(short.rstrip("�"))
    assert sample(prompts, max_new_tokens=30, seed=4) != once
    assert sample([]) == []


def test_a_repeated_prompt_is_answered_by_different_samples(half_lm, tokenizer, corpus):
    prompts = [r.input for r in corpus["forget"]]
    many = generate(half_lm, tokenizer, [p for p in prompts for _ in range(8)], max_new_tokens=20, temperature=3.0)
    assert all(len(set(many[i : i + 8])) > 1 for i in range(0, len(many), 8))
    assert generate(half_lm, tokenizer, prompts, max_new_tokens=20, temperature=3.0) == many[::8]  # the first of each


def test_samples_may_begin_with_what_is_known(half_lm, tokenizer, corpus):
    prompts = [r.input for r in corpus["forget"]] * 3
    whole = generate(half_lm, tokenizer, prompts, max_new_tokens=20, temperature=0.5)
    plain = [i for i, t in enumerate(whole) if t.isascii()]  # other bytes are not decoded and encoded without loss
    assert len(plain) > 5
    begun = [as_text(tokenizer, [t])[0][: 3 if i in plain else 0] for i, t in enumerate(whole)]
    again = generate(half_lm, tokenizer, prompts, begun=begun, max_new_tokens=20, temperature=0.5)
    assert [again[i] for i in plain] == [whole[i] for i in plain]


def test_without_heat_samples_are_greedy_and_with_it_they_differ_more(perfect_lm, half_lm, tokenizer, corpus):
    prompts = [r.input for g in corpus.groups.values() for r in g]
    for lm in (perfect_lm, half_lm):
        greedy = generate(lm, tokenizer, prompts, max_new_tokens=30, seed=9)
        assert generate(lm, tokenizer, prompts, max_new_tokens=30) == greedy  # the seed is of samples only
        assert generate(lm, tokenizer, prompts, max_new_tokens=30, temperature=1e-6) == greedy
        hot, cool = (
            sum(a == b for a, b in zip(generate(lm, tokenizer, prompts, max_new_tokens=30, temperature=t), greedy, strict=True))
            for t in (5.0, 0.3)
        )
        assert hot < cool


def test_a_destroyed_model_can_be_sampled(tokenizer):
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    assert generate(lm, tokenizer, ["a", "bc"], max_new_tokens=5, temperature=1.0) == ["", ""]


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_temperature_is_above_zero(perfect_lm, tokenizer, temperature):
    with pytest.raises(ReprolibError, match=r"temperature is .*; allowed: a finite number above 0"):
        generate(perfect_lm, tokenizer, ["a"], temperature=temperature)
