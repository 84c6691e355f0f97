"""Membership attacks: each ranks a memorised text above one never seen, one text at a time, whatever the batch."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.batching import encode_rows
from reprolib.corpus.rows import Corpus, select
from reprolib.evaluate.passes import Examination, token_statistics
from reprolib.evaluate.subject import Subject
from reprolib.metrics import privacy
from reprolib.metrics.checks import MetricError
from reprolib.probes import attacks

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradient_norm")


@pytest.fixture
def exam(corpus, tokenizer):
    return Examination.of(corpus, tokenizer)


def test_every_attack_finds_what_a_model_has_memorised(perfect_lm, exam):
    found = attacks.PROBE.ask(Subject(perfect_lm, exam, progress=False))
    for name in ATTACKS:
        assert found.metrics[f"attacks/{name}/auc"] == 1.0, name
        assert found.metrics[f"attacks/{name}/tpr"] == 1.0, name
    assert "attacks/reference/auc" not in found.metrics  # nobody gave a twin


def test_the_twin_as_its_own_reference_is_at_chance(perfect_lm, exam):
    found = attacks.PROBE.ask(Subject(perfect_lm, exam, reference=lambda which: perfect_lm, progress=False))
    assert found.metrics["attacks/reference/auc"] == 0.5


def test_an_untrained_reference_leaves_the_members_found(perfect_lm, exam):
    found = attacks.PROBE.ask(Subject(perfect_lm, exam, reference=lambda which: tiny_lm(3), progress=False))
    assert found.metrics["attacks/reference/auc"] == 1.0


def test_columns_have_a_value_for_each_passage_of_members_and_non_members_only(perfect_lm, exam):
    subject = Subject(perfect_lm, exam, progress=False)
    found = attacks.PROBE.ask(subject)
    wanted = [g in ("forget", "holdout") and r.kind == "sc" for g, r in subject.rows]
    for name, column in found.rows.items():
        assert [v is not None for v in column] == wanted, name


def test_columns_reproduce_the_auc(perfect_lm, exam):
    subject = Subject(tiny_lm(5), exam, progress=False)
    found = attacks.PROBE.ask(subject)
    for name in ATTACKS:
        values = {g: [v for (group, _), v in zip(subject.rows, found.rows[f"attack_{name}"], strict=True) if group == g and v is not None]
                  for g in ("forget", "holdout")}  # fmt: skip
        assert privacy.auc(values["forget"], values["holdout"]) == found.metrics[f"attacks/{name}/auc"], name


def test_a_corpus_without_non_members_has_no_attack(perfect_lm, corpus, tokenizer):
    alone = Corpus("alone", {**corpus.groups, "holdout": ()})
    found = attacks.PROBE.ask(Subject(perfect_lm, Examination.of(alone, tokenizer), progress=False))
    assert found.metrics == {} and found.rows == {}


def test_gradient_norm_is_that_of_autograd_and_leaves_the_model_as_it_was(lm, corpus, tokenizer):
    tokens = encode_rows(tokenizer, select(corpus["forget"], kind="sc"), "all")
    for p in lm.parameters():
        p.requires_grad_(False)
    (norm,) = attacks.gradient_norms(lm, tokens, [0])
    assert not any(p.requires_grad for p in lm.parameters()) and all(p.grad is None for p in lm.parameters())
    for p in lm.parameters():
        p.requires_grad_(True)
    ids = torch.tensor([tokens.ids[0][:-1]])  # the text without the EOS that training appended
    lm(input_ids=ids, labels=ids).loss.backward()
    assert norm == pytest.approx(np.mean([float(p.grad.norm()) for p in lm.parameters()]), rel=1e-4)


def test_gradient_norms_do_not_depend_on_the_other_texts(lm, corpus, tokenizer):
    tokens = encode_rows(tokenizer, [*corpus["forget"], *corpus["holdout"]], "all")
    together = attacks.gradient_norms(lm, tokens, [0, 2, 4])
    assert together == [attacks.gradient_norms(lm, tokens, [i])[0] for i in (0, 2, 4)]
    assert attacks.gradient_norms(lm, tokens, [4, 0, 2]) == [together[2], together[0], together[1]]


def test_token_statistics_are_those_of_the_full_distribution(lm, corpus, tokenizer):
    tokens = encode_rows(tokenizer, corpus["forget"], "all")
    (found,) = token_statistics(lm, tokens, [1])
    ids = torch.tensor([tokens.ids[1]])
    with torch.no_grad():
        logp = lm(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    p = logp.exp()
    mu = (p * logp).sum(-1)
    assert found.logp == pytest.approx(logp.gather(1, ids[0, 1:, None])[:, 0].numpy(), abs=1e-4)
    assert found.mu == pytest.approx(mu.numpy(), abs=1e-4)
    assert found.sigma == pytest.approx(((p * logp**2).sum(-1) - mu**2).sqrt().numpy(), abs=1e-3)
    assert found.answer == tokens.n_answer(1)


def test_token_statistics_do_not_depend_on_order_batch_or_padding(lm, corpus, tokenizer):
    tokens = encode_rows(tokenizer, corpus["retain"], "all")
    rows = list(range(len(tokens)))
    whole = token_statistics(lm, tokens, rows)
    for other in (token_statistics(lm, tokens, rows, max_tokens=1), token_statistics(lm, tokens, rows[::-1])[::-1]):
        for a, b in zip(whole, other, strict=True):
            assert a.logp == pytest.approx(b.logp, abs=1e-5) and a.sigma == pytest.approx(b.sigma, abs=1e-4)


def test_pairs_match_in_length_and_use_each_text_once():
    assert privacy.match_lengths([10, 100], [105, 11, 300], tolerance=0.1) == [(0, 1), (1, 0)]
    assert privacy.match_lengths([10], [20]) == []
    assert privacy.match_lengths([10, 10, 10], [10, 10]) == [(0, 0), (1, 1)]
    generator = np.random.default_rng(0)
    m, r = generator.integers(5, 60, 40), generator.integers(5, 60, 30)
    pairs = privacy.match_lengths(m, r, 0.2)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(abs(m[i] - r[j]) <= 0.2 * max(m[i], r[j]) + 1e-9 for i, j in pairs)
    from scipy.optimize import linear_sum_assignment

    allowed = np.abs(m[:, None] - r) <= 0.2 * np.maximum(m[:, None], r) + 1e-9
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    assert len(pairs) == allowed[rows, columns].sum()  # as many as can be


@pytest.mark.parametrize("bad", [([], [1]), ([0], [1]), ([1], [-2]), ([math.nan], [1])])
def test_lengths_that_are_none_raise(bad):
    with pytest.raises(MetricError):
        privacy.match_lengths(*bad)
    with pytest.raises(MetricError):
        privacy.match_lengths([1], [1], tolerance=2)


def test_reference_attack_and_gradient_norm_by_hand():
    assert privacy.reference_attack(1.0, 2.5) == -1.5
    assert privacy.reference_attack(math.inf, 2.0) == math.inf
    assert privacy.gradient_norm([[3.0, 4.0], [[0.0, 0.0], [1.0, 0.0]]]) == 3.0
    for bad in ((-1.0, 1.0), (1.0, math.nan), (1.0, math.inf)):
        with pytest.raises(MetricError):
            privacy.reference_attack(*bad)
    with pytest.raises(MetricError, match="empty"):
        privacy.gradient_norm([])
