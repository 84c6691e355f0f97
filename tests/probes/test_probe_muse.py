"""MUSE's probe: what is asked and how long the answer may be, perfect and hopeless models, leakage in all its forms."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.batching import as_text
from reprolib.corpus.rows import Corpus, Row
from reprolib.edits.routing import Silent
from reprolib.errors import SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.subject import Subject
from reprolib.metrics import muse as metrics
from reprolib.metrics import privacy
from reprolib.models.generate import generate
from reprolib.models.policy import Composed
from reprolib.probes import muse
from reprolib.testbeds.memorise import always_eos

pytestmark = pytest.mark.usefixtures("one_thread")


def subject(lm, corpus, tokenizer, twin=None):
    return Subject(lm, Examination.of(corpus, tokenizer), reference={"twin": twin}.get, progress=False)


def mute(tokenizer):
    lm = tiny_lm()
    always_eos(lm, tokenizer.eos_token_id)
    return lm


# --- VerbMem -------------------------------------------------------------------------------------------------


def test_halves_of_a_passage():
    assert muse.halves("one two three four") == ("one two", "three four")
    assert muse.halves("one  two\nthree\n\nfour five") == ("one  two", "three\n\nfour five")  # white space within a half stays
    assert muse.halves("one two three") == ("one", "two three")
    long = " ".join(map(str, range(1000)))
    prompt, rest = muse.halves(long)
    assert len(prompt.split()) == muse.PROMPT_WORDS and f"{prompt} {rest}" == long


def test_the_first_tokens_of_a_text(tokenizer):
    assert muse.first(tokenizer, "abcdef", 4) == "abcd"
    assert muse.first(tokenizer, "abc", 9) == "abc" and muse.first(tokenizer, "", 3) == ""


def test_verbmem_is_the_overlap_of_continuations_of_equal_length(corpus, tokenizer, lm):
    s = subject(lm, corpus, tokenizer)
    found = muse.verbatim(s)
    passages = [i for i, (g, r) in enumerate(s.rows) if g == "forget" and r.kind == "sc"]
    assert list(found) == passages and len(passages) == 2
    for i in passages:
        prompt, rest = muse.halves(s.rows[i][1].text)
        length = len(as_text(tokenizer, [f" {rest}"])[0])
        output = generate(lm, tokenizer, [prompt], max_new_tokens=length)[0]
        assert found[i] == metrics.verbmem(rest, output)


def test_long_passages_are_continued_for_128_tokens(tokenizer, corpus, lm, monkeypatch):
    limits = []
    monkeypatch.setattr(muse, "generate", lambda lm, tok, prompts, **how: limits.append(how["max_new_tokens"]) or ["a"] * len(prompts))
    muse.verbatim(subject(lm, corpus, tokenizer))
    words = " ".join(["word"] * 80)
    text = Row(id="longsc1", document="long", task="Task1", kind="sc", input=words, output=words)
    longer = Corpus("long", {**corpus.groups, "forget": (text, *corpus["forget"])})
    muse.verbatim(subject(lm, longer, tokenizer))
    assert limits[0] < muse.CONTINUATION == limits[1]


def test_a_passage_of_one_word_is_left_out(tokenizer, corpus, lm):
    single = Row(id="onesc1", document="one", task="Task1", kind="sc", input="", output="Word")
    s = subject(lm, Corpus("one", {**corpus.groups, "forget": (*corpus["forget"], single)}), tokenizer)
    assert len(muse.verbatim(s)) == 2


# --- KnowMem -------------------------------------------------------------------------------------------------


def test_knowmem_reads_the_answers_of_the_core_evaluation(corpus, tokenizer, lm):
    s = subject(lm, corpus, tokenizer)
    s._kept["generations"] = {
        g: [r.output + ("\n\nQuestion: why?" if n % 2 else "") for n, r in enumerate(corpus[g])] for g in ("forget", "retain")
    }
    found = muse.knowledge(s)
    assert found == {i: 1.0 for i, (g, r) in enumerate(s.rows) if g in ("forget", "retain") and r.kind == "qa"}


def test_an_answer_is_cut_after_32_tokens_or_its_true_length(corpus, tokenizer, lm):
    long = "Morvale " * 10 + "end"  # of more than 32 bytes
    asked = Row(id="longqa0", document="long", task="Task1", kind="qa", input="Where?", output=long)
    mixed = Corpus("long", {**corpus.groups, "forget": (asked, *corpus["forget"])})
    s = subject(lm, mixed, tokenizer)
    tail = " and so on" * 20
    s._kept["generations"] = {g: [r.output + tail for r in mixed[g]] for g in ("forget", "retain")}
    found = muse.knowledge(s)
    assert found[0] == metrics.rouge_l_f1(long, long + " ") == 1.0
    i, row = next((i, r) for i, (g, r) in enumerate(s.rows) if g == "retain" and r.kind == "qa")
    assert found[i] == metrics.rouge_l_f1(row.output, (row.output + tail)[: muse.ANSWER]) < 1.0


def test_shots_stand_before_the_question_in_the_form_of_muse(corpus, tokenizer, lm, monkeypatch):
    prompts = []
    monkeypatch.setattr(muse, "generate", lambda lm, tok, asked, **how: prompts.extend(asked) or ["a"] * len(asked))
    s = subject(lm, corpus, tokenizer)
    assert set(muse.knowledge(s, shots=2)) == set(muse.knowledge(s))
    one, two = corpus["world"][:2]
    before = f"Question: {one.input}\nAnswer: {one.output}\n\nQuestion: {two.input}\nAnswer: {two.output}\n\n"
    rows = [r for g in ("forget", "retain") for r in corpus[g] if r.kind == "qa"]
    assert prompts == [f"{before}Question: {r.input}\nAnswer:" for r in rows]
    with pytest.raises(SpecError, match="3 shots are asked for, but the corpus has 2"):
        muse.knowledge(s, shots=3)


# --- PrivLeak ------------------------------------------------------------------------------------------------


def test_min_k_of_the_text_without_eos(corpus, tokenizer, lm):
    s = subject(lm, corpus, tokenizer)
    _, scores = muse.leakage(s)
    assert {s.rows[i][0] for i in scores} == {"forget", "holdout"} and {s.rows[i][1].kind for i in scores} == {"sc"}
    for i, value in scores.items():
        ids = torch.tensor(as_text(tokenizer, [s.rows[i][1].text]))
        with torch.no_grad():
            logp = lm(input_ids=ids).logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()
        lowest = np.sort(logp)[: math.floor(0.4 * len(logp))]
        assert value == pytest.approx(-lowest.mean(), rel=1e-4)


def test_leakage_of_a_model_that_recites(corpus, tokenizer, perfect_lm, lm):
    alone = muse.leakage(subject(perfect_lm, corpus, tokenizer))[0]
    assert alone == {"muse/auc": 1.0, "muse/privleak_difference": -0.5, "muse/privleak": -100.0}
    twin = muse.leakage(subject(perfect_lm, corpus, tokenizer, twin=lm))[0]
    reference = muse.leakage(subject(lm, corpus, tokenizer))[0]["muse/auc"]
    assert twin["muse/auc_twin"] == reference < 1
    assert twin["muse/privleak_difference"] == reference - 1
    assert twin["muse/privleak"] == privacy.privleak(1.0, reference)


def test_leakage_of_the_twin_itself_is_none(corpus, tokenizer, lm):
    found = muse.leakage(subject(lm, corpus, tokenizer, twin=copy.deepcopy(lm)))[0]
    assert found["muse/privleak"] == found["muse/privleak_difference"] == 0.0


def test_where_the_twin_recognises_all_only_the_difference_exists(corpus, tokenizer, lm, perfect_lm):
    found = muse.leakage(subject(lm, corpus, tokenizer, twin=perfect_lm))[0]
    assert found["muse/auc_twin"] == 1.0 and "muse/privleak" not in found
    assert found["muse/privleak_difference"] == 1.0 - found["muse/auc"]


def test_answers_stand_in_where_there_are_no_passages(corpus, tokenizer, perfect_lm, monkeypatch):
    questions = Corpus("questions", {g: tuple(r for r in rows if r.kind == "qa") for g, rows in corpus.groups.items()})
    # an examination that keeps the questions of holdout documents
    monkeypatch.setattr("reprolib.evaluate.passes.select", lambda rows, **kind: tuple(rows))
    s = subject(perfect_lm, questions, tokenizer)
    metrics_, scores = muse.leakage(s)
    assert metrics_["muse/auc"] == 1.0 and {s.rows[i][1].kind for i in scores} == {"qa"} and len(scores) == 5
    i = next(iter(scores))
    assert scores[i] == pytest.approx(privacy.min_k(s.texts[i].logp[:-1], 0.4))


def test_without_holdout_there_is_no_leakage(corpus, tokenizer, lm):
    found = muse.ask(subject(lm, Corpus("open", {**corpus.groups, "holdout": ()}), tokenizer))
    assert set(found.metrics) == {"muse/verbmem", "muse/knowmem_forget", "muse/knowmem_retain"}
    assert not any(v is not None for v in found.rows["muse_min_k"])


def test_a_corpus_of_questions_has_knowledge_only(corpus, tokenizer, lm):
    groups = {g: tuple(r for r in rows if r.kind == "qa") if g != "holdout" else () for g, rows in corpus.groups.items()}
    assert set(muse.ask(subject(lm, Corpus("questions", groups), tokenizer)).metrics) == {"muse/knowmem_forget", "muse/knowmem_retain"}


# --- the whole -----------------------------------------------------------------------------------------------


def test_perfect_and_hopeless_models(corpus, tokenizer, perfect_lm):
    perfect = muse.ask(subject(perfect_lm, corpus, tokenizer)).metrics
    assert perfect["muse/knowmem_forget"] == perfect["muse/knowmem_retain"] == perfect["muse/verbmem"] == 1.0
    hopeless = muse.ask(subject(mute(tokenizer), corpus, tokenizer)).metrics
    assert hopeless["muse/knowmem_forget"] == hopeless["muse/knowmem_retain"] == hopeless["muse/verbmem"] == 0.0


def test_a_destroyed_model_has_numbers_all_the_same(corpus, tokenizer, lm):
    broken = tiny_lm()
    with torch.no_grad():
        for p in broken.parameters():
            p.fill_(float("nan"))
    found = muse.ask(subject(broken, corpus, tokenizer, twin=lm))
    assert all(math.isfinite(v) for v in found.metrics.values())
    assert found.metrics["muse/auc"] == 0.5 and found.metrics["muse/verbmem"] == 0.0


def test_metrics_are_means_of_the_rows_in_their_range(corpus, tokenizer, lm, perfect_lm):
    noisy = copy.deepcopy(perfect_lm)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in noisy.parameters():
            p += 0.3 * p.std() * torch.randn(p.shape, generator=generator)
    s = subject(noisy, corpus, tokenizer, twin=lm)
    found = muse.ask(s)
    groups = [g for g, _ in s.rows]

    def mean(column, group):
        return np.mean([v for g, v in zip(groups, found.rows[column], strict=True) if g == group and v is not None])

    assert found.metrics["muse/verbmem"] == pytest.approx(mean("muse_verbmem", "forget"), abs=1e-4)
    for group in ("forget", "retain"):
        assert found.metrics[f"muse/knowmem_{group}"] == pytest.approx(mean("muse_knowmem", group), abs=1e-4)
    low = {"muse/privleak_difference": -1.0, "muse/privleak": -math.inf}
    assert all(low.get(k, 0.0) <= v <= (100.0 if k == "muse/privleak" else 1.0) for k, v in found.metrics.items())


def test_the_order_of_rows_does_not_matter(corpus, tokenizer, lm):
    turned = Corpus("small", {g: rows[::-1] for g, rows in corpus.groups.items()})
    one, two = (subject(lm, c, tokenizer, twin=tiny_lm(1)) for c in (corpus, turned))
    found, other = muse.ask(one), muse.ask(two)
    assert other.metrics == pytest.approx(found.metrics, rel=1e-4)
    for name, column in found.rows.items():
        by_id = {r.id: v for (_, r), v in zip(two.rows, other.rows[name], strict=True)}
        assert [by_id[r.id] for _, r in one.rows] == pytest.approx(column, abs=2e-4)


def test_batches_and_padding_do_not_matter(corpus, tokenizer, perfect_lm, monkeypatch):
    prompts, documents = zip(*[(r.input, r.document) for g in corpus.groups.values() for r in g], strict=True)
    s = subject(perfect_lm, corpus, tokenizer)
    once = muse.continued(s, prompts, documents, 20)
    assert once == [generate(perfect_lm, tokenizer, [p], max_new_tokens=20)[0] for p in prompts]
    monkeypatch.setattr(muse, "generate", lambda *a, **how: generate(*a, batch_tokens=1, **how))
    assert muse.continued(s, prompts, documents, 20) == once
    assert muse.continued(s, (), (), 20) == []


class Sent(Composed):
    """The rows of some documents are answered by a model that says nothing."""

    def __init__(self, target, documents):
        super().__init__()
        self.target, self.silent, self.documents, self.config = target, Silent(target.config), documents, target.config

    def parts(self, tokens, rows):
        away = {i for i in rows if tokens.document[i] in self.documents}
        return [(self.target, [i for i in rows if i not in away]), (self.silent, [i for i in rows if i in away])]


def test_a_routed_model_is_asked_part_by_part(corpus, tokenizer, perfect_lm):
    gone = corpus.documents("forget")[0]
    s = subject(Sent(perfect_lm, {gone}), corpus, tokenizer)
    found = muse.ask(s).rows
    for i, (group, row) in enumerate(s.rows):
        if group == "forget":
            assert found["muse_verbmem" if row.kind == "sc" else "muse_knowmem"][i] == (0.0 if row.document == gone else 1.0)
    few = muse.continued(s, ["a", "b"], [gone, "other"], 5)
    assert few[0] == "" and few[1] == generate(perfect_lm, tokenizer, ["b"], max_new_tokens=5)[0]


def test_the_probe_is_complete():
    assert muse.PROBE.name == "muse" and muse.PROBE.suite == "wide" and muse.PROBE.ask is muse.ask and muse.PROBE.needs == ()
