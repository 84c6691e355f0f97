"""DPO and refusal training: by hand, and the pairing of rows with their other answers."""

import math

import pytest
import torch
from conftest import tiny_lm
from steps_of_terms import ONE, forget_only, parts, step

from reprolib.corpus.batching import collate, encode, encode_rows
from reprolib.errors import SpecError
from reprolib.models.policy import Policy, cache_reference
from reprolib.objectives import DPO, Objective, Other, References
from reprolib.objectives.npo import npo
from reprolib.objectives.preference import KINDS, dpo


@pytest.fixture
def sides(tokenizer, corpus):
    """Forget rows, and other answers of lengths that order the rows differently."""
    rows = corpus["forget"]
    return encode_rows(tokenizer, rows), encode(
        tokenizer, [r.input for r in rows], ["No idea." * (1 + i % 3) for i in range(len(rows))]
    )


@pytest.fixture
def references(sides):
    other = Policy(tiny_lm(1))
    own, others = (cache_reference(other, t, "sequence") for t in sides)
    return References(forget=own, other=others)


def test_by_hand():
    # winner has risen by 3, loser fallen by 1, beta 0.5: (2 / 0.5) log(1 + e^-2) = 4 * 0.1269280
    assert dpo(-2 * ONE, -5 * ONE, -4 * ONE, -3 * ONE, 0.5).item() == pytest.approx(0.5077120, abs=1e-6)
    assert dpo(-2 * ONE, -2 * ONE, -9 * ONE, -9 * ONE, 0.1).item() == pytest.approx(13.8629436, abs=1e-6)  # at the start


def test_is_npo_where_the_winner_stays_as_likely_as_it_was():
    loser = torch.tensor([-30.0, -5.0, -1.0])
    assert torch.allclose(dpo(-7 * ONE, -7 * ONE, loser, -4 * ONE, 0.1), npo(loser, -4 * ONE, 0.1))


def test_gradient_lifts_the_winner_as_much_as_it_lowers_the_loser():
    winner, loser = (-5 * ONE).requires_grad_(), (-3 * ONE).requires_grad_()
    dpo(winner, -5 * ONE, loser, -3 * ONE, 0.1).backward()
    assert winner.grad.item() == pytest.approx(-1) and loser.grad.item() == pytest.approx(1)
    winner, loser = (60 * ONE).requires_grad_(), (-60 * ONE).requires_grad_()
    dpo(winner, 0 * ONE, loser, 0 * ONE, 0.1).backward()
    assert loser.grad.item() == pytest.approx(2 / (1 + math.exp(12)))  # faded


def test_the_term_pairs_every_row_with_its_own_other_answer(lm, sides, references):
    own, other = sides
    expected = []
    with torch.no_grad():
        for i in range(len(own)):
            now = [Policy(lm)(collate(t, [i])).sequence_logp for t in (other, own)]
            start = [Policy(tiny_lm(1))(collate(t, [i])).sequence_logp for t in (other, own)]
            expected.append(dpo(now[0], start[0], now[1], start[1], 0.1).item())
    losses, _ = step(Objective(forget=DPO()), lm, parts(own, other=other), references)
    assert losses[1].item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_dpo_starts_at_two_ln_two_over_beta(lm, sides):
    own, other = sides
    references = References(
        forget=cache_reference(Policy(lm), own, "sequence"), other=cache_reference(Policy(lm), other, "sequence")
    )
    losses, _ = step(Objective(forget=DPO(beta=0.1)), lm, parts(own, other=other), references)
    assert losses[1].item() == pytest.approx(13.8629436, abs=1e-3)


def test_other_is_the_mean_nll_of_the_other_answers_tokens(lm, sides):
    own, other = sides
    with torch.no_grad():
        expected = -Policy(lm)(collate(other, range(len(other)))).token_logp.mean()
    losses, _ = step(Objective(forget=Other()), lm, parts(own, other=other))
    assert losses[1].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("term", [DPO(beta=0.1), Other()], ids=["dpo", "other"])
def test_micro_batches_do_not_change_the_step(lm, sides, references, term):
    own, other = sides
    forget_only(term, lm, references, forget=own, other=other)


@pytest.mark.parametrize("term", [DPO(), Other()], ids=["dpo", "other"])
def test_one_row(lm, tokenizer, term):
    own, other = encode(tokenizer, ["Who?"], ["Ida"]), encode(tokenizer, ["Who?"], ["I don't know."])
    references = References(
        forget=cache_reference(Policy(lm), own, "sequence"), other=cache_reference(Policy(lm), other, "sequence")
    )
    losses, gradients = step(Objective(forget=term), lm, parts(own, other=other), references)
    assert losses.isfinite().all() and any(g.abs().max() > 0 for g in gradients.values())


@pytest.mark.parametrize("term", [DPO(), Other()], ids=["dpo", "other"])
def test_a_batch_without_other_answers_is_refused(lm, sides, references, term):
    with pytest.raises(SpecError, match="reads other answers"):
        step(Objective(forget=term), lm, parts(sides[0]), references)


@pytest.mark.parametrize("beta", [0, -0.1, math.nan, math.inf])
def test_refuses_a_beta_without_meaning(beta):
    with pytest.raises(SpecError, match="DPO: beta must be a finite number > 0"):
        DPO(beta=beta)


@pytest.mark.parametrize("kind", [DPO, Other])
def test_refuses_unknown_other_answers(kind):
    with pytest.raises(SpecError, match="unknown kind of other answers 'ikd'; did you mean 'idk'"):
        kind(other="ikd")
    assert {kind(other=k).other for k in KINDS} == set(KINDS)
