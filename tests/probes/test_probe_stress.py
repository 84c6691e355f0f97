"""Relearning and rounding: the model under examination stays as it was, and what comes back is really asked."""

import copy

import pytest
import torch
from conftest import EOS, tiny_lm

from reprolib.corpus.batching import encode_rows
from reprolib.corpus.rows import Corpus
from reprolib.edits.contrast import Contrasted
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.subject import Subject
from reprolib.evaluate.summary import evaluate
from reprolib.models.policy import quantised
from reprolib.probes import quantization, relearning
from reprolib.testbeds.memorise import always_eos

pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def exam(corpus, tokenizer):
    return Examination.of(corpus, tokenizer)


def state(lm):
    return {k: v.clone() for k, v in lm.state_dict().items()}


def test_relearning_moves_a_copy_only(lm, exam, one_thread):
    before = state(lm)
    found = relearning.PROBE.ask(Subject(lm, exam, progress=False))
    assert all(torch.equal(before[k], v) for k, v in lm.state_dict().items())
    steps = (0, *relearning.STEPS)
    assert {f"relearning/{c}/{s}/questions" for c in ("part", "benign") for s in steps} <= set(found.metrics)
    assert all(0 <= v <= 1 for v in found.metrics.values())


def test_what_is_asked_after_relearning_a_part_was_not_in_it(lm, exam, one_thread):
    """One of two forget documents is taught; the other one's questions are asked."""
    subject = Subject(lm, exam, progress=False)
    found = relearning.PROBE.ask(subject)
    asked = {r.document for (g, r), v in zip(subject.rows, found.rows["relearnt_part"], strict=True) if v is not None}
    assert len(asked) == 1
    taught = {r.document for r in exam.corpus["forget"]} - asked
    chosen = tuple(r for r in exam.corpus["forget"] if r.document in taught)
    assert chosen and taught.isdisjoint(asked)


def test_relearning_teaches_what_it_is_given(lm, corpus, tokenizer, one_thread, monkeypatch):
    monkeypatch.setattr(relearning, "LR", 1e-2)
    tokens = encode_rows(tokenizer, corpus["forget"][:2])
    reached = []
    relearning.relearn(lm, tokens, 0, lambda step, m: reached.append(step))
    assert tuple(reached) == relearning.STEPS
    exam = Examination.of(corpus, tokenizer)
    assert Subject(lm, exam).scores.em["forget"][:2].mean() > 0.9


def test_relearning_is_decided_by_its_seed(exam, one_thread):
    a, b = (relearning.PROBE.ask(Subject(tiny_lm(), exam, seed=4, progress=False)).metrics for _ in range(2))
    assert a == b


def test_without_holdout_documents_there_is_one_curve(lm, corpus, tokenizer, one_thread):
    alone = Corpus("alone", {**corpus.groups, "holdout": ()})
    found = relearning.PROBE.ask(Subject(lm, Examination.of(alone, tokenizer), progress=False))
    assert {k.split("/")[1] for k in found.metrics} == {"part"}
    assert not any(k.endswith("auc") for k in found.metrics)


def test_relearning_follows_an_adapter_on_a_rounded_base(lm, exam, tmp_path, one_thread):
    pytest.importorskip("bitsandbytes")
    from reprolib.adapters.base import LoRA

    base = quantization.rounded(lm, "nf4")
    adapted = LoRA(rank=2).attach(base, 0)
    frozen = {n: p.detach().clone() for n, p in adapted.named_parameters() if "lora_" not in n}
    relearning.relearn(adapted, encode_rows(exam.tokenizer, exam.corpus["forget"]), 0, lambda step, m: None)
    assert all(torch.equal(frozen[n], p) for n, p in adapted.named_parameters() if n in frozen)
    assert any(p.abs().sum() > 0 for n, p in adapted.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize("precision", quantization.PRECISIONS)
def test_rounding_changes_weights_a_little_and_leaves_the_model_alone(precision, perfect_lm, exam):
    pytest.importorskip("bitsandbytes")
    before = state(perfect_lm)
    again = quantization.rounded(perfect_lm, precision)
    assert quantised(again) and not quantised(perfect_lm)
    assert all(torch.equal(before[k], v) for k, v in perfect_lm.state_dict().items())
    ids = torch.tensor([exam.tokens.ids[0]])
    with torch.no_grad():
        a, b = perfect_lm(input_ids=ids).logits, again(input_ids=ids).logits
    change = float((a - b).norm() / a.norm())
    assert 0 < change < 0.5


def test_a_head_that_no_config_names_survives_rounding(tokenizer):
    pytest.importorskip("bitsandbytes")
    lm = tiny_lm()
    always_eos(lm, EOS)
    again = quantization.rounded(lm, "nf4")
    with torch.no_grad():
        assert (again(input_ids=torch.tensor([[5, 6, 7]])).logits.argmax(-1) == EOS).all()


def test_two_models_behind_one_face_are_both_rounded(exam):
    pytest.importorskip("bitsandbytes")
    both = Contrasted(tiny_lm(0), tiny_lm(1), alpha=0.5, base="target")
    again = quantization.rounded(both, "int8")
    assert quantised(again.target) and quantised(again.assistant) and again.weights == both.weights
    assert not quantised(both.target)
    assert evaluate(again, exam, progress=False).metrics["forget/questions"] >= 0


def test_the_probe_reports_the_core_evaluation_of_both_precisions(perfect_lm, exam, one_thread):
    pytest.importorskip("bitsandbytes")
    subject = Subject(copy.deepcopy(perfect_lm), exam, progress=False)
    found = quantization.PROBE.ask(subject)
    for precision in quantization.PRECISIONS:
        assert 0 <= found.metrics[f"quantization/{precision}/forget/questions"] <= 1
        scored = [v is not None for v in found.rows[f"score_{precision}"]]
        assert scored == [g != "holdout" for g, _ in subject.rows]


def test_a_model_that_is_rounded_already_is_left_out(lm, exam):
    pytest.importorskip("bitsandbytes")
    rounded = quantization.rounded(lm, "nf4")
    assert quantization.PROBE.ask(Subject(rounded, exam, progress=False)).metrics == {}
