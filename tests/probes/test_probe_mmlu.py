"""MMLU: the metric on hand-worked vectors, the prompt to the letter, and batches against one question at a time."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import EOS, PAD, byte_tokenizer, tiny_lm

from reprolib.corpus.mmlu import LETTERS, MMLU, Question
from reprolib.edits.contrast import Contrasted
from reprolib.errors import SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.subject import Subject
from reprolib.metrics import lume
from reprolib.metrics import mmlu as metrics
from reprolib.metrics.checks import MetricError
from reprolib.probes import mmlu as probe

pytestmark = pytest.mark.usefixtures("one_thread")


WORDS = ("mill", "a river of stones", "Tarnsby", "no", "an owl in the old barn", "salt", "Quellin and Morvale", "rye", "wool")


def question(subject, n):
    pick = [WORDS[(n * 5 + i * (2 + n % 3)) % len(WORDS)] for i in range(4)]
    asked = f"What {'is said to be ' * (n % 4)}in {WORDS[n % 9]}{' or near it' * (n % 3)}?"
    return Question(subject, asked, tuple(pick), n % 4)


@pytest.fixture(scope="module")
def data():
    dev = {s: tuple(question(s, n) for n in range(3)) for s in ("world_religions", "virology")}
    return MMLU(dev, tuple(question(s, n) for s in dev for n in range(10, 17)))


def one_by_one(lm, tokenizer, data, shots, context=2048):
    """[n, 4], as Open-Instruct does it: the whole model on one prompt, softmax over all tokens at the last position."""
    lead, candidates = probe.letters(tokenizer)
    out = []
    for q in data.test:
        ids = probe.encode(tokenizer, [q], data.dev[q.subject][:shots], context, lead).ids
        with torch.no_grad():
            logits = lm(input_ids=torch.tensor(ids)).logits[0, -1]
        out.append(logits.double().softmax(-1)[candidates].tolist())
    return np.array(out)


# --- the metric ----------------------------------------------------------------------------------------------


def test_hits_by_hand():
    p = [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.3, 0.3, 0.2, 0.2], [0.2, 0.3, 0.3, 0.2], [math.nan] * 4, [0.1, math.nan, 0, 0.05]]
    assert metrics.hits(p, [3, 0, 0, 2, 0, 0]).tolist() == [1, 1, 1, 0, 1, 1]  # ties and lost numbers go to the earlier letter
    assert metrics.hits(p, [0, 1, 1, 1, 1, 1]).tolist() == [0, 0, 0, 1, 0, 0]


def test_both_averages_by_hand():
    hits, subjects = [1, 1, 0, 1, 0], ["a", "a", "a", "a", "b"]
    assert metrics.by_subject(hits, subjects) == {"a": 0.75, "b": 0.0}
    assert metrics.accuracy_questions(hits) == 0.6
    assert metrics.accuracy_subjects(hits, subjects) == 0.375
    order = [4, 2, 0, 3, 1]
    moved = np.array(hits)[order], np.array(subjects)[order]
    assert metrics.accuracy_questions(moved[0]) == 0.6 and metrics.accuracy_subjects(*moved) == 0.375


def test_eligibility_is_the_organisers():
    assert metrics.ELIGIBLE_MMLU == lume.ELIGIBLE_MMLU == 0.371
    assert metrics.eligible(0.371) and metrics.eligible(1) and not metrics.eligible(0.3709)


def test_intervals_draw_questions_within_subjects():
    rng = np.random.default_rng(0)
    hits, subjects = (rng.random(400) < 0.6).astype(float), np.repeat(["a", "b"], [100, 300])
    first, second = metrics.intervals(hits, subjects)
    assert first.estimate == hits.mean() and second.estimate == metrics.accuracy_subjects(hits, subjects)
    assert first.n_documents == 400
    width = 2 * 1.96 * math.sqrt(hits.var() / 400)  # normal approximation
    assert first.high - first.low == pytest.approx(width, rel=0.2)
    assert second.high - second.low > first.high - first.low  # the small subject counts as much
    sure = metrics.intervals(np.ones(6), ["a", "a", "b", "b", "c", "c"])
    assert all(i.low == i.high == 1 for i in sure)
    assert math.isnan(metrics.intervals([1.0, 0.0], ["a", "b"])[0].low)  # one question a subject: no spread to be seen


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.hits([[0.1, 0.2]], [0]), r"\(questions, 4\)"),
        (lambda: metrics.hits(np.zeros((0, 4)), []), r"\(questions, 4\)"),
        (lambda: metrics.hits(np.zeros((2, 4)), [0, 4]), "integers from 0 to 3"),
        (lambda: metrics.hits(np.zeros((2, 4)), [0.0, 1.0]), "integers from 0 to 3"),
        (lambda: metrics.accuracy_questions([2.0]), "allowed: 0 to 1"),
        (lambda: metrics.accuracy_questions([]), "at least one value"),
        (lambda: metrics.by_subject([1.0], ["a", "b"]), "one subject a question"),
        (lambda: metrics.eligible(50), "Divide percentages by 100"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(MetricError, match=words):
        call()


# --- prompt and tokens ---------------------------------------------------------------------------------------


def test_the_prompt_is_open_instructs_to_the_letter():
    shot = Question("high_school_physics", "One?", ("a", "b", "c", "d"), 2)
    asked = Question("high_school_physics", "Two?", ("e", "f", "g", "h"), 0)
    assert probe.prompt(asked, [shot]) == (
        "The following are multiple choice questions (with answers) about  high school physics.\n\n"
        "One?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nTwo?\nA. e\nB. f\nC. g\nD. h\nAnswer:"
    )
    assert probe.prompt(asked).endswith("physics.\n\nTwo?\nA. e\nB. f\nC. g\nD. h\nAnswer:")


def bpe(merges, pieces):
    """A byte-level tokenizer with more pieces than bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<|endoftext|>", "<|padding|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(alphabet[:2])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|padding|>")


def test_letters_are_those_of_open_instruct_where_a_letter_is_a_token():
    tokenizer = bpe([("Ġ", x) for x in LETTERS], [f"Ġ{x}" for x in LETTERS])
    expected = [tokenizer.encode(f" {x}", add_special_tokens=False)[-1] for x in LETTERS]
    assert probe.letters(tokenizer) == ([], expected)
    assert tokenizer.convert_ids_to_tokens(expected) == [f"Ġ{x}" for x in LETTERS]


def test_a_space_that_is_a_token_ends_the_prompt(tokenizer):
    lead, following = probe.letters(tokenizer)
    assert tokenizer.decode(lead) == " " and tokenizer.decode(following) == "ABCD"


def test_a_tokenizer_without_letters_is_refused():
    tokenizer = bpe([("Ġ", "A")], ["ĠA"])  # " A" in one token, " B" in two
    with pytest.raises(SpecError, match=r"one token each.*harness"):
        probe.letters(tokenizer)


def test_examples_are_dropped_from_the_front_and_counted(tokenizer, data):
    shots = data.dev["virology"]
    questions = [q for q in data.test if q.subject == "virology"]
    whole = probe.encode(tokenizer, questions, shots, 10_000)
    assert set(whole.dropped) == {0} and not any(whole.cut)
    limit = min(map(len, whole.ids)) + 5
    some = probe.encode(tokenizer, questions, shots, limit)
    assert {0, 1} <= set(some.dropped) and max(map(len, some.ids)) <= limit
    for q, ids, n in zip(questions, some.ids, some.dropped, strict=True):
        assert tokenizer.decode(ids) == probe.prompt(q, shots[n:])
    short = probe.encode(tokenizer, questions, shots, 60)
    assert all(short.cut) and set(short.dropped) == {len(shots)} and {len(x) for x in short.ids} == {60}
    assert tokenizer.decode(short.ids[0]) == probe.prompt(questions[0])[-60:]


# --- the model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_lm():
    lm = tiny_lm()
    lm.config.max_position_embeddings = 2048
    return lm


def test_batches_and_shared_examples_change_nothing(long_lm, tokenizer, data):
    expected = one_by_one(long_lm, tokenizer, data, 2)
    answers = [q.answer for q in data.test]
    for batch_tokens in (1, 1500, 100_000):
        found = probe.score(long_lm, tokenizer, data, shots=2, batch_tokens=batch_tokens, progress=False)
        assert found.rows["p_right"] == pytest.approx(expected[range(14), answers], abs=6e-5)
        assert found.rows["hit"] == metrics.hits(expected, answers).tolist()
    moved = MMLU(data.dev, data.test[::-1])
    again = probe.score(long_lm, tokenizer, moved, shots=2, progress=False)
    assert again.rows["hit"] == found.rows["hit"][::-1]
    assert again.metrics == pytest.approx(found.metrics, abs=1e-6)


def test_shared_examples_are_read_once(long_lm, tokenizer, data):
    read = []
    hook = long_lm.get_input_embeddings().register_forward_hook(lambda m, a, out: read.append(out.shape[:2].numel()))
    probe.score(long_lm, tokenizer, data, shots=3, progress=False)
    hook.remove()
    lead, _ = probe.letters(tokenizer)
    alone = sum(len(x) for q in data.test for x in probe.encode(tokenizer, [q], data.dev[q.subject], 2048, lead).ids)
    assert sum(read) < alone / 2


def test_grouped_query_attention_and_an_adapter(tokenizer, data):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    lm = get_peft_model(AutoModelForCausalLM.from_config(config).eval(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    found = probe.score(lm.eval(), tokenizer, data, shots=1, progress=False)
    expected = one_by_one(lm, tokenizer, data, 1)
    assert found.rows["p_right"] == pytest.approx(expected[range(14), [q.answer for q in data.test]], abs=6e-5)


def test_two_models_that_answer_as_one(long_lm, tokenizer, data):
    both = Contrasted(long_lm, tiny_lm(1), 1.0).eval()
    found = probe.score(both, tokenizer, data, shots=1, progress=False)
    expected = one_by_one(both, tokenizer, data, 1)
    assert found.rows["p_right"] == pytest.approx(expected[range(14), [q.answer for q in data.test]], abs=6e-5)


def says(letter):
    """A model that always answers ``letter``, or spreads over all tokens alike if it is None."""
    lm = tiny_lm()
    lm.config.max_position_embeddings = 2048
    head = torch.nn.Linear(32, 258)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    if letter is not None:
        with torch.no_grad():
            head.bias[byte_tokenizer().convert_tokens_to_ids(letter)] = 9.0
    lm.set_output_embeddings(head)
    return lm


def test_a_model_of_one_letter_an_indifferent_one_and_a_lost_one(tokenizer, data):
    right = [q.answer for q in data.test]
    for letter in LETTERS:
        found = probe.score(says(letter), tokenizer, data, shots=0, progress=False).metrics
        assert found["mmlu/accuracy_questions"] == np.mean([r == LETTERS.index(letter) for r in right])
        assert found["mmlu/answer_mass"] > 0.95
    found = probe.score(says(None), tokenizer, data, shots=0, progress=False).metrics
    assert found["mmlu/answer_mass"] == pytest.approx(4 / 258, abs=1e-6)
    assert found["mmlu/accuracy_questions"] == np.mean([r == 0 for r in right])  # all alike: argmax says A
    lost = says(None)
    with torch.no_grad():
        lost.get_output_embeddings().bias.fill_(math.nan)
    found = probe.score(lost, tokenizer, data, shots=0, progress=False)
    assert found.metrics["mmlu/answer_mass"] == 0 and set(found.rows["p_right"]) == {0.0}


def test_a_model_that_has_learnt_the_answers_is_perfect(tokenizer, data):
    from reprolib.corpus.batching import Tokens, collate
    from reprolib.models.policy import Policy

    lead, candidates = probe.letters(tokenizer)
    small = MMLU(data.dev, tuple(q for q in data.test if q.subject == "virology")[:4])
    ids = [[*x, candidates[q.answer]] for q in small.test for x in probe.encode(tokenizer, [q], (), 2048, lead).ids]
    tokens = Tokens(tuple(map(tuple, ids)), tuple(len(x) - 1 for x in ids), ("answer",) * len(ids))
    lm = copy.deepcopy(tiny_lm()).train()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -Policy(lm)(collate(tokens, range(len(ids)))).token_logp.mean()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    found = probe.score(lm, tokenizer, small, shots=0, progress=False).metrics
    assert found["mmlu/accuracy_questions"] == found["mmlu/subject/virology"] == 1 and found["mmlu/eligible"] == 1
    assert lm.training is False


def test_what_is_reported(long_lm, tokenizer, data, corpus):
    subject = Subject(long_lm, Examination.of(corpus, tokenizer), seed=3, progress=False)
    asked = probe.probe(data, shots=3, context=300)
    found = asked.ask(subject)
    assert asked.suite == "data" and asked.name == "mmlu" and "3-shot" in asked.title
    assert all(k.startswith("mmlu/") for k in found.metrics)
    m = found.metrics
    assert m["mmlu/accuracy_questions_low"] <= m["mmlu/accuracy_questions"] <= m["mmlu/accuracy_questions_high"]
    assert m["mmlu/scored"] == 14 and m["mmlu/chance"] == 0.25
    assert m["mmlu/shortened"] > 0 and m["mmlu/shots_dropped"] == sum(found.rows["shots_dropped"])
    assert {len(c) for c in found.rows.values()} == {14}
    texts = {w for q in data.test for w in (q.question, *q.choices)}
    assert not texts & {v for c in found.rows.values() for v in c if isinstance(v, str)}
    for name, card in metrics.CARDS.items():
        assert card.name == name and card.trap and card.source
        assert any(k == name or k.startswith(f"{name}/") for k in m), name
    for key in m:
        assert any(key == c or key.startswith((f"{c}/", f"{c}_")) for c in metrics.CARDS), key


@pytest.mark.parametrize("shots", [-1, 4, 1.0, True])
def test_shots_out_of_range(long_lm, tokenizer, data, shots):
    with pytest.raises(SpecError, match="0 to 3"):
        probe.score(long_lm, tokenizer, data, shots=shots, progress=False)
