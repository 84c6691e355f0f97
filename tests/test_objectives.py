"""Losses against numbers worked by hand, and the model call against transformers' own."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import EOS, tiny_lm

from reprolib.corpus.batching import Tokens, as_text, buckets, collate, encode, encode_rows
from reprolib.errors import SpecError
from reprolib.models.policy import Policy, cache_reference
from reprolib.objectives import KL, NLL, NPO, Ascent, Objective, References, retain_term
from reprolib.objectives.likelihood import ascent, kl_divergence, nll
from reprolib.objectives.npo import npo
from reprolib.unlearn.order import micro_batches

ONE = torch.ones(1, dtype=torch.float64)


def gradients(lm, loss):
    lm.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in lm.named_parameters() if p.grad is not None}


@pytest.fixture
def sides(tokenizer, corpus):
    return encode_rows(tokenizer, corpus["forget"]), encode_rows(tokenizer, corpus["retain"])


# --- pure functions -----------------------------------------------------------------------------------------


def test_npo_at_the_start_is_two_ln_two_over_beta():
    assert npo(-7 * ONE, -7 * ONE, 0.1).item() == pytest.approx(13.8629436, abs=1e-6)
    assert npo(-7 * ONE, -7 * ONE, 0.5).item() == pytest.approx(4 * math.log(2))


def test_npo_by_hand():
    # d = -6, beta = 0.5: -(2 / 0.5) * log sigmoid(3) = 4 * log(1 + e^-3) = 4 * 0.04858735
    assert npo(-10 * ONE, -4 * ONE, 0.5).item() == pytest.approx(0.1943494, abs=1e-6)
    # the other way round it has not been forgotten: 4 * log(1 + e^3) = 4 * 3.04858735
    assert npo(-4 * ONE, -10 * ONE, 0.5).item() == pytest.approx(12.1943494, abs=1e-6)


def test_npo_gradient_by_hand():
    # d loss / d logp = 2 sigmoid(beta d): 1 at the start, fading as the answer becomes unlikely
    for d, expected in ((0.0, 1.0), (-20.0, 2 / (1 + math.exp(2))), (20.0, 2 / (1 + math.exp(-2)))):
        logp = (d * ONE).requires_grad_()
        npo(logp, 0 * ONE, 0.1).backward()
        assert logp.grad.item() == pytest.approx(expected)


def test_npo_tends_to_gradient_ascent_for_small_beta():
    logp, reference = torch.tensor([-31.0, -3.0], dtype=torch.float64), torch.tensor([-9.0, -8.0], dtype=torch.float64)
    for beta, within in ((1e-2, 2.0), (1e-4, 2e-2), (1e-6, 2e-4)):
        excess = npo(logp, reference, beta) - 2 * math.log(2) / beta
        assert excess.tolist() == pytest.approx((logp - reference).tolist(), abs=within)


def test_npo_does_not_overflow():
    values = npo(torch.tensor([-5000.0, 5000.0]), torch.zeros(2), 0.1)
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1] == pytest.approx(10000, rel=1e-5)


@pytest.mark.parametrize("beta", [0, -0.1, float("nan")])
def test_npo_refuses_a_beta_without_meaning(beta):
    with pytest.raises(SpecError, match="beta must be > 0"):
        NPO(beta=beta)


def test_kl_by_hand():
    reference, model = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.25, 0.75]]))
    # 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.5 ln(4/3)
    assert kl_divergence(model, reference).item() == pytest.approx(0.1438410, abs=1e-6)
    # the other direction is another number: 0.25 ln 0.5 + 0.75 ln 1.5
    assert kl_divergence(reference, model).item() == pytest.approx(0.1308120, abs=1e-6)
    # logits shifted by a constant are the same distribution
    assert kl_divergence(model + 5, reference - 3).item() == pytest.approx(0.1438410, abs=1e-6)


def test_kl_of_a_distribution_to_itself_is_zero():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    assert kl_divergence(logits, logits).abs().max() < 1e-6


def test_nll_and_ascent_by_hand():
    logp = torch.log(torch.tensor([0.5, 0.25]))
    assert nll(logp).tolist() == pytest.approx([0.6931472, 1.3862944])
    assert ascent(logp).tolist() == pytest.approx([-0.6931472, -1.3862944])


# --- terms on a model ---------------------------------------------------------------------------------------


def whole_step(objective, lm, forget, retain, max_tokens=10**6, references=None):
    rows = (list(range(len(forget))) if objective.forget else None, list(range(len(retain))) if objective.retain else None)
    policy = Policy(lm)
    references = references or References(
        cache_reference(policy, forget, "logits"), cache_reference(policy, retain, "logits")
    )
    parts = [objective(policy, references, m) for m in micro_batches(rows, forget, retain, max_tokens, "cpu")]
    return sum(p.total for p in parts), sum(p.forget for p in parts), sum(p.retain for p in parts), len(parts)


def test_npo_gradient_at_the_start_is_that_of_ascent_on_the_summed_log_probability(lm, sides):
    forget, retain = sides
    total, f, _, _ = whole_step(Objective(forget=NPO(beta=0.1)), lm, forget, retain)
    assert f.item() == pytest.approx(13.8629436, abs=1e-4)
    mine = gradients(lm, total)
    theirs = gradients(lm, Policy(lm)(collate(forget, range(len(forget)))).sequence_logp.mean())
    assert mine.keys() == theirs.keys()
    scale = max(g.abs().max() for g in theirs.values())
    assert scale > 1
    for name, g in theirs.items():
        assert (mine[name] - g).abs().max() < 1e-5 * scale, name


def test_kl_term_is_zero_at_the_start_and_positive_elsewhere(lm, sides):
    forget, retain = sides
    references = References(None, cache_reference(Policy(lm), retain, "logits"))
    objective = Objective(retain=KL())
    assert whole_step(objective, lm, forget, retain, references=references)[2] < 1e-6
    assert whole_step(objective, tiny_lm(1), forget, retain, references=references)[2] > 0.1


def test_means_are_over_tokens_for_likelihoods_and_over_rows_for_npo(lm, sides):
    forget, retain = sides
    logp = {s: Policy(lm)(collate(t, range(len(t)))) for s, t in (("forget", forget), ("retain", retain))}
    _, f, r, _ = whole_step(Objective(forget=Ascent(), retain=NLL()), lm, forget, retain)
    assert f.item() == pytest.approx(logp["forget"].token_logp.mean().item(), abs=1e-5)
    assert r.item() == pytest.approx(-logp["retain"].token_logp.mean().item(), abs=1e-5)
    other = Policy(tiny_lm(1))
    references = References(cache_reference(other, forget, "sequence"), None)
    _, f, _, _ = whole_step(Objective(forget=NPO(beta=0.1)), lm, forget, retain, references=references)
    live = other(collate(forget, range(len(forget)))).sequence_logp
    assert f.item() == pytest.approx(npo(logp["forget"].sequence_logp, live, 0.1).mean().item(), abs=1e-4)


def test_weights_multiply_their_terms(lm, sides):
    objective = Objective(forget=Ascent(), retain=NLL(), forget_weight=0.5, retain_weight=3)
    total, f, r, _ = whole_step(objective, lm, *sides)
    assert total.item() == pytest.approx(0.5 * f.item() + 3 * r.item(), rel=1e-5)
    assert f < -1 and r > 1


def test_weight_zero_drops_the_term_and_its_forward_pass(lm, sides):
    objective = Objective(forget=Ascent(), retain=KL(), retain_weight=0)
    assert objective.retain is None
    calls = []
    policy = Policy(lm)
    policy.register_forward_hook(lambda *_: calls.append(1))
    forget, retain = sides
    (micro,) = micro_batches(([0, 1], None), forget, retain, 10**6, "cpu")
    loss = objective(policy, References(), micro)
    assert len(calls) == 1 and loss.retain == 0
    with pytest.raises(SpecError, match="both are absent"):
        Objective(forget=Ascent(), forget_weight=0)


def test_a_negative_weight_is_refused():
    with pytest.raises(SpecError, match="forget_weight must be >= 0"):
        Objective(forget=Ascent(), forget_weight=-1)


def test_retain_terms_by_name():
    assert isinstance(retain_term("kl"), KL) and isinstance(retain_term("nll"), NLL)
    with pytest.raises(SpecError, match="did you mean 'nll'"):
        retain_term("nl")


@pytest.mark.parametrize(
    "objective",
    [Objective(forget=Ascent(), retain=NLL()), Objective(forget=NPO(beta=0.1), retain=KL(), retain_weight=0.7)],
    ids=["difference", "npo-kl"],
)
def test_accumulation_does_not_change_the_gradient(lm, sides, objective):
    forget, retain = sides
    other = Policy(tiny_lm(1))
    references = References(cache_reference(other, forget, "logits"), cache_reference(other, retain, "logits"))
    large = whole_step(objective, lm, forget, retain, 10**6, references)
    one = gradients(lm, large[0])
    small = whole_step(objective, lm, forget, retain, 1, references)
    many = gradients(lm, small[0])
    assert small[3] == len(forget) + len(retain) > large[3]
    scale = max(g.abs().max() for g in one.values())
    for name, g in one.items():
        assert (many[name] - g).abs().max() < 1e-6 * max(1, scale), name
    for a, b in zip(large[:3], small[:3], strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-6, abs=1e-6)


# --- the model call -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["answer", "all"])
def test_labelled_positions_equal_the_full_forward_with_an_attention_mask(lm, tokenizer, corpus, labels):
    rows = corpus["forget"]
    tokens = encode_rows(tokenizer, rows, labels)
    batch = collate(tokens, range(len(tokens)))
    lengths = torch.tensor([len(x) for x in tokens.ids])
    mask = (torch.arange(batch.ids.shape[1])[None] < lengths[:, None]).long()
    assert mask.min() == 0  # some row is padded
    target = batch.ids.clone()
    target[mask == 0] = -100
    if labels == "answer":
        for b, prompt in enumerate(tokens.prompt):
            target[b, :prompt] = -100
    with torch.no_grad():
        full = lm(input_ids=batch.ids, attention_mask=mask, labels=target)
        scored = Policy(lm)(batch)
    at = (target[:, 1:] != -100).nonzero()
    assert len(at) == len(scored.labels) == sum(tokens.n_labels(i) for i in range(len(tokens)))
    assert torch.equal(scored.labels, target[:, 1:][at[:, 0], at[:, 1]])
    assert torch.equal(scored.row, at[:, 0])
    assert (scored.logits - full.logits[at[:, 0], at[:, 1]]).abs().max() < 1e-5
    assert -scored.token_logp.mean().item() == pytest.approx(full.loss.item(), abs=1e-5)
    by_row = torch.stack([scored.token_logp[scored.row == b].sum() for b in range(len(rows))])
    assert torch.allclose(scored.sequence_logp, by_row, atol=1e-4)


def test_padding_is_invisible(lm, sides):
    forget, _ = sides
    short, long = (f(range(len(forget)), key=lambda i: len(forget.ids[i])) for f in (min, max))
    assert len(forget.ids[long]) > len(forget.ids[short]) + 5
    with torch.no_grad():
        alone = Policy(lm)(collate(forget, [short])).token_logp
        for pad in (0, 1, 77):
            padded = Policy(lm)(collate(forget, [short, long], pad=pad))
            assert torch.allclose(padded.token_logp[padded.row == 0], alone, atol=1e-5)


def test_the_pad_id_inside_a_text_counts_like_any_other_token(lm):
    # 0 is the id that collate pads with, and EOS too; 1 is the tokenizer's pad id
    tokens = Tokens(((5, 0, 9, 0, 1, 7, EOS), (8, 9, 3)), (2, 1), ("answer", "answer"))
    assert tokens.n_labels(0) == 5
    batch = collate(tokens, [0, 1])
    assert batch.labels.tolist() == [9, 0, 1, 7, EOS, 9, 3]
    with torch.no_grad():
        scored = Policy(lm)(batch)
        logits = lm(input_ids=torch.tensor([tokens.ids[0]]), attention_mask=torch.ones(1, 7, dtype=torch.long)).logits[0]
    by_hand = F.log_softmax(logits[1:6], -1)[range(5), [9, 0, 1, 7, EOS]]
    assert torch.allclose(scored.token_logp[:5], by_hand, atol=1e-5)


def test_special_token_text_in_data_is_text(tokenizer):
    text = "stop <|endoftext|> and <|padding|>"
    (ids,) = as_text(tokenizer, [text])
    assert EOS not in ids and 1 not in ids
    assert tokenizer.decode(ids) == text
    tokens = encode(tokenizer, [text], [text])
    assert tokens.ids[0].count(EOS) == 1 and tokens.ids[0][-1] == EOS


def test_prompt_and_answer_are_joined_by_one_space_and_ended(tokenizer):
    tokens = encode(tokenizer, ["Who?"], ["Ida"])
    assert tokenizer.decode(tokens.ids[0]) == "Who? Ida<|endoftext|>"
    assert (tokens.prompt[0], tokens.n_labels(0)) == (4, 5)


def test_a_text_without_prompt_is_predicted_from_its_second_token_on(lm, tokenizer):
    tokens = encode(tokenizer, [""], ["Ida"])
    batch = collate(tokens, [0])
    assert len(batch.labels) == tokens.n_labels(0) == 4
    assert batch.labels.tolist() == list(tokens.ids[0][1:])


def test_buckets_hold_every_row_once_and_keep_the_budget(sides):
    forget, _ = sides
    for budget in (1, 60, 150, 10**6):
        made = buckets(forget, range(len(forget)), budget)
        assert sorted(i for b in made for i in b) == list(range(len(forget)))
        assert all(len(b) == 1 or len(b) * max(len(forget.ids[i]) for i in b) <= budget for b in made)


def test_cached_reference_equals_the_live_one(lm, sides):
    forget, _ = sides
    policy = Policy(lm).train()
    cached = cache_reference(policy, forget, "logits", max_tokens=100)
    assert policy.training  # left as it was
    index = [3, 0, 2]
    with torch.no_grad():
        live = policy(collate(forget, index))
    at = torch.tensor(index)
    assert torch.allclose(cached.sequence_logp(at), live.sequence_logp, atol=1e-4)
    assert torch.allclose(cached.token_logits(at), live.logits, atol=1e-5)
    assert cache_reference(policy, forget, "sequence").logits is None


def test_references_are_free_of_dropout(lm, sides):
    forget, _ = sides
    lm.config.attention_dropout = 0.5
    for layer in lm.model.layers:
        layer.self_attn.attention_dropout = 0.5
    policy = Policy(lm).train()
    batch = collate(forget, [0])
    with torch.no_grad():
        assert not torch.equal(policy(batch).token_logp, policy(batch).token_logp)  # it does drop something
    cached = cache_reference(policy, forget, "sequence")
    with torch.no_grad():
        assert torch.allclose(cached.sequence, policy.eval()(collate(forget, range(len(forget)))).sequence_logp, atol=1e-4)


def test_a_model_that_reshapes_its_logits_is_refused(lm):
    lm.config.final_logit_softcapping = 30.0
    with pytest.raises(SpecError, match="final_logit_softcapping"):
        Policy(lm)


def test_pairing_follows_from_the_terms_that_are_left():
    assert Objective(forget=Ascent(), retain=NLL()).pairing == "paired"
    assert Objective(forget=Ascent(), retain=NLL(), retain_weight=0).pairing == "forget"
    assert Objective(forget=Ascent(), forget_weight=0, retain=NLL()).pairing == Objective(retain=NLL()).pairing == "retain"
