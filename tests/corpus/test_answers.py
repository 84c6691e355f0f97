"""Other answers to the forget questions: of every kind what it promises, and the same for the same seed."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.batching import encode_rows
from reprolib.corpus.rows import Row
from reprolib.errors import CorpusError, SpecError
from reprolib.objectives.preference import KINDS
from reprolib.unlearn import answers
from reprolib.unlearn.answers import REFUSALS, other_answers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows(corpus):
    """The forget rows, each with two false answers."""
    return tuple(replace(r, perturbed=(f"not {r.output}", f"never {r.output}")) for r in corpus["forget"])


def texts(tokens, tokenizer):
    return [tokenizer.decode(ids[prompt:-1]) for ids, prompt in zip(tokens.ids, tokens.prompt, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_the_same_questions(kind, rows, tokenizer):
    own, made = encode_rows(tokenizer, rows), other_answers(kind, rows, tokenizer, 0, tiny_lm())
    assert len(made) == len(rows) and made.prompt == own.prompt and set(made.labels) == {"answer"}
    for a, b, prompt in zip(own.ids, made.ids, own.prompt, strict=True):
        assert a[:prompt] == b[:prompt] and a != b and b[-1] == tokenizer.eos_token_id
        assert len(b) > prompt + 1  # never an empty answer
        assert tokenizer.eos_token_id not in b[:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(kind, rows, tokenizer):
    def made(seed, noise):
        torch.manual_seed(noise)
        return other_answers(kind, rows * 3, tokenizer, seed, tiny_lm())

    state = made(0, 1)
    assert state == made(0, 2) != made(1, 1)


def test_sampling_leaves_the_model_and_the_random_state_alone(rows, tokenizer):
    lm = tiny_lm().train()
    before, state = {n: p.clone() for n, p in lm.named_parameters()}, torch.get_rng_state()
    other_answers("sampled", rows, tokenizer, 0, lm)
    assert lm.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, before[n]) for n, p in lm.named_parameters())


def test_refusals_come_from_the_list_and_are_never_the_truth(rows, tokenizer):
    drawn = texts(other_answers("idk", rows * 20, tokenizer, 0), tokenizer)
    assert set(drawn) == {f" {r}" for r in REFUSALS}
    honest = tuple(replace(r, output=REFUSALS[k % len(REFUSALS)]) for k, r in enumerate(rows * 20))
    drawn = texts(other_answers("idk", honest, tokenizer, 0), tokenizer)
    assert all(d in {f" {r}" for r in REFUSALS} and d != f" {r.output}" for d, r in zip(drawn, honest, strict=True))


def test_perturbed_answers_are_those_of_the_row(rows, tokenizer):
    for d, r in zip(texts(other_answers("perturbed", rows * 5, tokenizer, 0), tokenizer), rows * 5, strict=True):
        assert d.removeprefix(" ") in r.perturbed
    partly = tuple(replace(r, perturbed=(r.output, "other")) for r in rows)  # a corpus that lists the truth among them
    assert set(texts(other_answers("perturbed", partly, tokenizer, 0), tokenizer)) == {" other"}


def test_rows_without_perturbed_answers_are_named(rows, tokenizer):
    mixed = (rows[0], replace(rows[1], perturbed=()), replace(rows[2], perturbed=(rows[2].output,)))
    with pytest.raises(CorpusError, match=rf"2 of 3 forget rows \(e\.g\. '{rows[1].id}'\) have no perturbed .*'sampled' or 'idk'"):
        other_answers("perturbed", mixed, tokenizer, 0)


def test_shuffled_answers_are_other_rows_of_the_same_task_and_kind(tokenizer):
    same = {"document": "d", "input": "q?"}
    made = [Row(id=f"{t}{k}{n}", task=t, kind=k, output=f"{t} {k} {n}", **same) for t in ("A", "B") for k in ("sc", "qa") for n in "123"]
    for d, r in zip(texts(other_answers("shuffled", made, tokenizer, 0), tokenizer), made, strict=True):
        assert d.removeprefix(" ") != r.output and d.removeprefix(" ")[:4] == r.output[:4]
    lonely = (made[0], made[6])  # no other of its task: then of any
    assert texts(other_answers("shuffled", lonely, tokenizer, 0), tokenizer) == [" B sc 1", " A sc 1"]
    with pytest.raises(CorpusError, match="all 1 forget rows have the same answer as 'Asc1'"):
        other_answers("shuffled", made[:1], tokenizer, 0)


def test_random_answers_are_as_long_as_the_true_ones_and_of_ordinary_tokens(rows, tokenizer):
    own, made = encode_rows(tokenizer, rows * 20), other_answers("random", rows * 20, tokenizer, 0)
    assert [len(i) for i in made.ids] == [len(i) for i in own.ids]
    drawn = {t for ids, prompt in zip(made.ids, made.prompt, strict=True) for t in ids[prompt:-1]}
    assert not drawn & set(tokenizer.all_special_ids) and len(drawn) > 240  # of 256 bytes
    assert max(drawn) < len(tokenizer)


def test_sampled_answers_begin_with_another_token_than_the_true_one(rows, tokenizer, monkeypatch):

    begun = []
    real = answers.generate
    monkeypatch.setattr(answers, "generate", lambda *a, **k: (begun.append(k["begun"]), real(*a, **k))[1])
    many = rows * 10
    own = encode_rows(tokenizer, many)
    other_answers("sampled", many, tokenizer, 0, tiny_lm())
    (first,) = begun
    for (token,), ids, prompt in zip(first, own.ids, own.prompt, strict=True):
        assert token not in (ids[prompt], tokenizer.eos_token_id)
    assert len({token for (token,) in first}) > 10  # drawn, not the second best


def test_sampled_answers_follow_the_model_s_distribution(rows, tokenizer, monkeypatch):
    """Shares of the first tokens over many draws, against the softmax without the true token and without EOS."""

    begun = []
    monkeypatch.setattr(answers, "generate", lambda lm, tok, prompts, **k: (begun.extend(k["begun"]), ["x"] * len(prompts))[1])
    lm, row, n = tiny_lm(), rows[0], 400
    with torch.no_grad():
        lm.get_output_embeddings().weight *= 3  # a distribution with a few large parts
    other_answers("sampled", [row] * n, tokenizer, 0, lm)
    own = encode_rows(tokenizer, [row])
    with torch.no_grad():
        p = lm(input_ids=torch.tensor([own.ids[0][: own.prompt[0]]])).logits[0, -1].softmax(-1)
    p[[own.ids[0][own.prompt[0]], tokenizer.eos_token_id]] = 0
    p /= p.sum()
    for token in p.topk(3).indices.tolist():
        share = sum(b == [token] for b in begun) / n
        assert share == pytest.approx(p[token].item(), abs=4 * (p[token] * (1 - p[token]) / n).sqrt().item())


def test_a_model_that_is_wholly_sure_still_gives_an_alternative(rows, tokenizer):
    from reprolib.corpus.batching import collate
    from reprolib.models.policy import Policy

    row = rows[0]
    own = encode_rows(tokenizer, [row])
    true = own.ids[0][own.prompt[0]]
    lm = tiny_lm()
    head = torch.nn.Linear(32, len(tokenizer))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[true] = 1e4  # everything else underflows to a probability of 0
        lm.config.tie_word_embeddings = False
        lm.set_output_embeddings(head)
        assert Policy(lm)(collate(own, [0])).logits[0].softmax(-1)[true] == 1
    (ids,) = other_answers("sampled", [row], tokenizer, 0, lm).ids
    assert ids != own.ids[0]


def test_nothing_but_space_becomes_a_refusal(rows, tokenizer, monkeypatch):

    monkeypatch.setattr(answers, "generate", lambda lm, tok, prompts, **k: [" \n"] * len(prompts))
    assert set(texts(other_answers("sampled", rows, tokenizer, 0, tiny_lm()), tokenizer)) == {f" {REFUSALS[0]}"}


def test_unknown_kinds_and_a_missing_model_are_refused(rows, tokenizer):
    with pytest.raises(SpecError, match="unknown kind of other answers 'samples'; did you mean 'sampled'"):
        other_answers("samples", rows, tokenizer, 0)
    with pytest.raises(SpecError, match="drawn from the model; give lm="):
        other_answers("sampled", rows, tokenizer, 0)
    for kind in (None, True, ["idk"]):
        with pytest.raises(SpecError, match="unknown kind"):
            other_answers(kind, rows, tokenizer, 0)


def test_the_table_of_kinds_is_the_list():
    assert all(f"``{kind}``" in answers.__doc__ for kind in KINDS)
