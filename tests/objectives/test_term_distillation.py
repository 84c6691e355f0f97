"""UNDIAL, CE-U, WHP and SOUL's "KL" against numbers worked by hand."""

import math

import pytest
import torch
from conftest import tiny_lm
from steps_of_terms import forget_only, parts, step

from reprolib.corpus.batching import collate, encode, encode_rows
from reprolib.errors import SpecError
from reprolib.models.policy import Policy, cache_reference
from reprolib.objectives import CEU, KL, UNDIAL, WHP, Objective, References, SoulKL, retain_term
from reprolib.objectives.distillation import (
    cross_entropy_to_reference,
    cross_entropy_unlearning,
    generic_logits,
    soft_cross_entropy,
    undial,
    whp,
    without_first,
)
from reprolib.objectives.likelihood import kl_divergence

P = torch.tensor([[0.6, 0.3, 0.1]])


TRUE = torch.tensor([0])


def entropy(p):
    return -sum(x * math.log(x) for x in p if x)


def test_soft_cross_entropy_by_hand():
    # 0.5 ln 2 + 0.5 ln 4
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.5, 0.5, 0.0]])
    assert soft_cross_entropy(p.log() + 3, q).item() == pytest.approx(1.0397208, abs=1e-6)


# --- UNDIAL -------------------------------------------------------------------------------------------------


def test_undial_by_hand():
    # the true token's odds against the rest divided by e^beta = 6: 0.6 / 6 = 0.1 against 0.3 and 0.1: target 0.2, 0.6, 0.2
    model = torch.tensor([[0.25, 0.5, 0.25]])
    expected = 0.2 * math.log(4) + 0.6 * math.log(2) + 0.2 * math.log(4)
    assert undial(model.log(), TRUE, P.log(), math.log(6)).item() == pytest.approx(expected, abs=1e-6)
    assert undial(model.log() + 5, TRUE, P.log() - 5, math.log(6)).item() == pytest.approx(expected, abs=1e-5)


def test_undial_is_least_at_its_target():
    logits = torch.tensor([[0.2, 0.6, 0.2]]).log().requires_grad_()
    loss = undial(logits, TRUE, P.log(), math.log(6))
    loss.sum().backward()
    assert loss.item() == pytest.approx(entropy([0.2, 0.6, 0.2]), abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_undial_does_not_move_its_target():
    start = P.log().requires_grad_()
    logits = torch.zeros(1, 3).requires_grad_()
    undial(logits, TRUE, start, 10.0).sum().backward()
    assert start.grad is None and logits.grad.abs().max() > 0


# --- CE-U ---------------------------------------------------------------------------------------------------


def test_ceu_by_hand():
    # target 0, 0.75, 0.25; value = its entropy - log(1 - 0.6)
    value = cross_entropy_unlearning(P.log(), TRUE).item()
    assert value == pytest.approx(-0.75 * math.log(0.3) - 0.25 * math.log(0.1), abs=1e-6)
    assert value == pytest.approx(entropy([0.75, 0.25]) - math.log(0.4), abs=1e-6)


def test_ceu_gradient_is_that_of_unlikelihood_because_the_target_is_fixed():
    logits = P.log().requires_grad_()
    cross_entropy_unlearning(logits, TRUE).sum().backward()
    # p_y, and -p_v p_y / (1 - p_y) for the others
    assert logits.grad[0].tolist() == pytest.approx([0.6, -0.45, -0.15], abs=1e-6)
    unlikelihood = P.log().requires_grad_()
    (-torch.log(1 - unlikelihood.softmax(-1)[:, 0])).sum().backward()
    assert torch.allclose(logits.grad, unlikelihood.grad, atol=1e-6)


def test_ceu_neither_vanishes_nor_explodes():
    for p, expected in ((1 - 1e-6, 1.0), (1e-6, 0.0)):
        logits = torch.tensor([[p, (1 - p) / 2, (1 - p) / 2]], dtype=torch.float64).log().requires_grad_()
        cross_entropy_unlearning(logits, TRUE).sum().backward()
        assert logits.grad.abs().max().item() == pytest.approx(expected, abs=1e-5)
    assert cross_entropy_unlearning(torch.tensor([[80.0, 0.0, 0.0]]), TRUE).isfinite().all()


def test_without_first_by_hand():
    values, row = torch.tensor([9.0, 1.0, 3.0, 9.0, 5.0, 9.0]), torch.tensor([0, 0, 0, 1, 1, 2])
    # rows of 3, 2 and 1 tokens: factors 3/2 and 2, and nothing left of the last
    assert without_first(values, row).tolist() == [0, 1.5, 4.5, 0, 10, 0]
    # rows of equal length: the mean over all is the mean over those that count
    assert without_first(torch.tensor([9.0, 1, 3, 9, 5, 7]), torch.tensor([0, 0, 0, 1, 1, 1])).mean().item() == 4
    # a row weighs as its tokens: (3 * 2 + 2 * 5 + 1 * 0) / 6
    assert without_first(values, row).mean().item() == pytest.approx(16 / 6)


def test_ceu_term_leaves_out_the_first_answer_token(lm, tokenizer, corpus):
    forget = encode_rows(tokenizer, corpus["forget"])
    with torch.no_grad():
        now = Policy(lm)(collate(forget, range(len(forget))))
    values = cross_entropy_unlearning(now.logits, now.labels)
    rows = [values[now.row == b] for b in range(len(forget))]
    expected = sum(len(r) * r[1:].mean() for r in rows) / len(values)
    losses, _ = step(Objective(forget=CEU()), lm, parts(forget))
    assert losses[1].item() == pytest.approx(expected.item(), rel=1e-5)
    losses, _ = step(Objective(forget=CEU(ignore_first=False)), lm, parts(forget))
    assert losses[1].item() == pytest.approx(values.mean().item(), rel=1e-5)


# --- WHP ----------------------------------------------------------------------------------------------------


def test_whp_by_hand():
    base, reinforced = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.1]])
    # lowered where the reinforced model is higher, alone: 3 - 5 * 1, 1, 0 - 5 * 0.1
    generic = generic_logits(base, reinforced, 5.0)
    assert generic[0].tolist() == pytest.approx([-2.0, 1.0, -0.5], abs=1e-6)
    q = [math.exp(x) for x in (-2.0, 1.0, -0.5)]
    q = [x / sum(q) for x in q]
    model = torch.tensor([[0.5, 0.25, 0.25]])
    expected = q[0] * math.log(2) + (q[1] + q[2]) * math.log(4)
    assert whp(model.log(), base, reinforced, 5.0).item() == pytest.approx(expected, abs=1e-6)


def test_whp_of_a_helper_that_has_not_moved_is_distillation_of_the_start():
    logits = P.log().requires_grad_()
    loss = whp(logits, P.log(), P.log(), 5.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(entropy(P[0].tolist()), abs=1e-6) and logits.grad.abs().max() < 1e-6


def test_whp_feels_a_constant_added_to_the_helpers_logits():
    """A softmax would not; the publication subtracts raw logits, and so does this."""
    base, reinforced = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.1]])
    assert not torch.allclose(
        generic_logits(base, reinforced, 5.0).softmax(-1), generic_logits(base, reinforced - 0.5, 5.0).softmax(-1), atol=0.01
    )


def test_whp_does_not_move_its_target():
    base, reinforced, logits = (torch.randn(2, 4, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3))
    whp(logits, base, reinforced, 5.0).sum().backward()
    assert base.grad is None and reinforced.grad is None and logits.grad.abs().max() > 0


def test_whp_without_a_helper_is_refused(lm, tokenizer, corpus):
    forget = encode_rows(tokenizer, corpus["forget"])
    with pytest.raises(SpecError, match="WHP reads the logits of a reinforced model"):
        step(Objective(forget=WHP()), lm, parts(forget), References(cache_reference(Policy(lm), forget, "logits")))


# --- SOUL's "KL" --------------------------------------------------------------------------------------------


def test_soul_kl_is_not_kl():
    reference, model = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    # - 0.25 ln 0.5 - 0.75 ln 0.5 = ln 2; the KL divergence is 0.5 ln(4/3)
    assert cross_entropy_to_reference(model, reference).item() == pytest.approx(math.log(2), abs=1e-6)
    assert kl_divergence(model, reference).item() == pytest.approx(0.1438410, abs=1e-6)
    # KL(model || start) + entropy(model)
    model, reference = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.6, 0.4]])
    kl = 0.25 * math.log(0.25 / 0.6) + 0.75 * math.log(0.75 / 0.4)
    assert cross_entropy_to_reference(model.log(), reference.log()).item() == pytest.approx(kl + entropy([0.25, 0.75]), abs=1e-6)


def test_soul_kl_sharpens_where_kl_is_at_rest():
    """At the start itself KL has no gradient; SOUL's pulls to the likeliest token, and ends there."""
    for loss, moves in ((kl_divergence, False), (cross_entropy_to_reference, True)):
        logits = P.log().requires_grad_()
        loss(logits, P.log()).sum().backward()
        assert (logits.grad.abs().max() > 0.1) == moves
        if moves:
            assert logits.grad[0, 0] < 0 < logits.grad[0, 2]
    one_hot = torch.tensor([[50.0, 0.0, 0.0]])
    assert cross_entropy_to_reference(one_hot, P.log()) < cross_entropy_to_reference(P.log(), P.log())


def test_soul_kl_by_name_and_against_the_released_formula(lm, tokenizer, corpus):
    assert isinstance(retain_term("soul-kl"), SoulKL)
    retain = encode_rows(tokenizer, corpus["retain"])
    references = References(None, cache_reference(Policy(tiny_lm(1)), retain, "logits"))
    batch = collate(retain, range(len(retain)))
    with torch.no_grad():
        p, q = (Policy(m)(batch).logits.softmax(-1) for m in (lm, tiny_lm(1)))
    expected = -(p * torch.log(q + 1e-12)).sum(-1).mean()
    losses, _ = step(Objective(retain=SoulKL()), lm, parts(retain=retain), references)
    assert losses[2].item() == pytest.approx(expected.item(), rel=1e-5)
    losses, _ = step(Objective(retain=KL()), lm, parts(retain=retain), references)
    assert abs(losses[2] - expected) > 0.1


# --- all ----------------------------------------------------------------------------------------------------


def everything(forget):
    start, helper = (cache_reference(Policy(tiny_lm(seed)), forget, "logits") for seed in (1, 2))
    return References(forget=start, helper=helper)


@pytest.mark.parametrize("term", [UNDIAL(), CEU(), CEU(ignore_first=False), WHP()], ids=["undial", "ceu", "ceu-all", "whp"])
def test_micro_batches_do_not_change_the_step(lm, tokenizer, corpus, term):
    forget = encode_rows(tokenizer, corpus["forget"])
    forget_only(term, lm, everything(forget), forget=forget)


@pytest.mark.parametrize("term", [UNDIAL(), CEU(), WHP()], ids=["undial", "ceu", "whp"])
@pytest.mark.parametrize("answer", ["Ida", ""])
def test_one_row(lm, tokenizer, term, answer):
    forget = encode(tokenizer, ["Who?"], [answer])
    losses, _ = step(Objective(forget=term), lm, parts(forget), everything(forget))
    assert losses.isfinite().all()


@pytest.mark.parametrize("make, what", [(lambda x: UNDIAL(beta=x), "UNDIAL: beta"), (lambda x: WHP(alpha=x), "WHP: alpha")])
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_refuses_numbers_without_meaning(make, what, bad):
    with pytest.raises(SpecError, match=f"{what} must be a finite number > 0, got {bad}"):
        make(bad)


def test_ceu_refuses_a_number_of_tokens():
    with pytest.raises(SpecError, match="ignore_first must be true or false, got 1"):
        CEU(ignore_first=1)
