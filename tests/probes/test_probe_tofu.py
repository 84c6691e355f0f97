"""TOFU's probe: forms of answers, values against a plain forward pass, perfect and hopeless models, what changes nothing."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.rows import Corpus
from reprolib.edits.routing import Silent
from reprolib.evaluate.passes import Examination, token_statistics
from reprolib.evaluate.subject import Subject
from reprolib.metrics import tofu as metrics
from reprolib.models.policy import Composed
from reprolib.probes import tofu
from reprolib.testbeds.memorise import always_eos

pytestmark = pytest.mark.usefixtures("one_thread", "brief")
TOWNS = ("Sorrel", "Candle", "Windrush")


def with_answers(corpus: Corpus, framed: bool = True, tasks: bool = False) -> Corpus:
    """The small corpus with paraphrases that repeat the answer and bare false answers, or with whole sentences, as TOFU has them.

    ``tasks``: the two world questions become a real author and a world fact.
    """

    def add(row):
        if row.kind == "sc":
            return row
        if framed:
            return replace(row, paraphrases=(f"It was {row.output}.", "Nobody knows."), perturbed=TOWNS)
        return replace(row, paraphrases=(f"A town: {row.output[::-1]}.",), perturbed=tuple(f"A town: {t}." for t in TOWNS))

    groups = {g: tuple(map(add, corpus[g])) if g != "world" else corpus[g] for g in corpus.groups}
    if tasks:
        groups["world"] = tuple(replace(r, task=t) for r, t in zip(corpus["world"], tofu.WORLD, strict=True))
    return Corpus("small", groups)


@pytest.fixture(scope="module")
def answered(corpus):
    return with_answers(corpus)


def subject(lm, corpus, tokenizer, twin=None):
    return Subject(lm, Examination.of(corpus, tokenizer), reference={"twin": twin}.get, progress=False)


def by_transformers(lm, tokenizer, prompt: str, answer: str) -> float:
    """Mean loss of an answer and its EOS, by a plain forward pass of one text."""
    p, a = (tokenizer(x, add_special_tokens=False)["input_ids"] for x in (prompt, f" {answer}"))
    ids = torch.tensor([p + a + [tokenizer.eos_token_id]])
    with torch.no_grad():
        logp = lm(input_ids=ids).logits[0].double().log_softmax(-1)
    return float(-logp[range(len(p) - 1, ids.shape[1] - 1), ids[0, len(p) :]].mean())


# --- which answers are compared ------------------------------------------------------------------------------


def test_bare_false_answers_are_put_into_the_paraphrase(answered):
    row = next(r for r in answered["forget"] if r.kind == "qa")
    true, false = tofu.forms(answered)[row.id]
    assert true == (f"It was {row.output}.",)  # "Nobody knows." does not repeat the answer
    assert false == tuple(f"It was {t}." for t in TOWNS)


def test_whole_sentences_are_taken_as_they_are(corpus):
    known = tofu.forms(with_answers(corpus, framed=False))
    row = next(r for r in with_answers(corpus, framed=False)["retain"] if r.kind == "qa")
    assert known[row.id] == (row.paraphrases, row.perturbed)


def test_a_question_without_frame_has_no_truth_ratio_where_others_have_one(answered):
    rows = answered["forget"]
    lost = next(r for r in rows if r.kind == "qa")
    changed = tuple(replace(r, paraphrases=("Nobody knows.",)) if r is lost else r for r in rows)
    known = tofu.forms(Corpus("small", {**answered.groups, "forget": changed}))
    assert lost.id not in known and set(known) | {lost.id} == set(tofu.forms(answered))


def test_world_questions_compare_the_answer_itself_with_the_options(corpus):
    known = tofu.forms(corpus)
    assert known == {r.id: ((r.output,), r.perturbed) for r in corpus["world"]}


def test_the_synthetic_corpus_has_frames_for_all_but_the_dates():
    from reprolib.corpus import synthetic

    made = synthetic.make(documents=9, holdout=0)
    known = tofu.forms(made)
    questions = [r for g in ("forget", "retain") for r in made[g] if r.kind == "qa"]
    without = [r for r in questions if r.id not in known]
    assert 0 < len(without) < len(questions) / 5 and all("birth date" in r.input for r in without)
    for row in questions:
        if row.id in known:
            true, false = known[row.id]
            assert len(false) == len(true) * len(row.perturbed)
            assert all(row.output in t for t in true) and not any(row.output in f for f in false)


# --- values --------------------------------------------------------------------------------------------------


def test_values_equal_a_plain_forward_pass_text_by_text(answered, tokenizer, lm):
    s = subject(lm, answered, tokenizer)
    columns = tofu.ask(s).rows
    seen = 0
    for i, (group, row) in enumerate(s.rows):
        if row.kind == "sc" or group == "holdout":
            assert columns["truth_ratio"][i] is columns["tofu_probability"][i] is columns["tofu_rouge"][i] is None
            continue
        true, false = tofu.forms(answered)[row.id]
        nll = {a: by_transformers(lm, tokenizer, row.input, a) for a in (row.output, *true, *false)}
        ratio = math.exp(np.mean([nll[a] for a in true]) - np.mean([nll[a] for a in false]))
        own = math.exp(-nll[row.output])
        if group == "world":
            own /= sum(math.exp(-nll[a]) for a in (*true, *false))
        assert columns["truth_ratio"][i] == pytest.approx(ratio, rel=1e-4, abs=1e-4)
        assert columns["tofu_probability"][i] == pytest.approx(own, abs=1e-4)
        seen += 1
    assert seen == 7  # questions of forget (3) and retain (2), world (2)


def test_metrics_are_means_of_the_rows(answered, tokenizer, perfect_lm):
    s = subject(perfect_lm, answered, tokenizer)
    found = tofu.ask(s)
    groups = [g for g, _ in s.rows]
    for group in ("forget", "retain", "world"):
        likely = "option_probability" if group == "world" else "probability"
        for name, column in ((likely, "tofu_probability"), ("rouge_l_recall", "tofu_rouge")):
            values = [v for g, v in zip(groups, found.rows[column], strict=True) if g == group and v is not None]
            assert found.metrics[f"tofu/{group}/{name}"] == pytest.approx(np.mean(values), abs=1e-4)
        ratios = [v for g, v in zip(groups, found.rows["truth_ratio"], strict=True) if g == group and v is not None]
        score = metrics.parity_score if group == "forget" else metrics.truth_score
        assert found.metrics[f"tofu/{group}/{score.__name__}"] == pytest.approx(score(ratios).mean(), abs=1e-3)


def test_all_numbers_are_in_their_range(answered, tokenizer, lm):
    found = tofu.ask(subject(lm, answered, tokenizer, twin=tiny_lm(1))).metrics
    for name, value in found.items():
        if name == "tofu/log10_p":
            assert math.isfinite(value) and value <= 0
        elif not name.endswith(("_parts", "_rows", "_rows_twin")):
            assert 0 <= value <= 1, name
    assert found["tofu/utility_parts"] == 6
    assert found["tofu/forget_rows"] == found["tofu/forget_rows_twin"] == 3


def test_a_perfect_model(corpus, tokenizer, perfect_lm):
    """Paraphrases that are the answer itself: the model is as sure of them as it is of the answer."""
    groups = {
        g: tuple(replace(r, paraphrases=(r.output,), perturbed=TOWNS) if r.kind == "qa" and g != "world" else r for r in corpus[g])
        for g in corpus.groups
    }
    found = tofu.ask(subject(perfect_lm, Corpus("small", groups), tokenizer)).metrics
    for group, likely in (("forget", "probability"), ("retain", "probability"), ("world", "option_probability")):
        assert found[f"tofu/{group}/{likely}"] > 0.9 and found[f"tofu/{group}/rouge_l_recall"] == 1.0
    assert found["tofu/forget/parity_score"] < 0.2 and found["tofu/forget/truth_ratio_new"] > 0.8
    assert found["tofu/retain/truth_score"] > 0.8 and found["tofu/partial_utility"] > 0.9


def test_a_hopeless_model(answered, tokenizer):
    lm = tiny_lm()
    always_eos(lm, tokenizer.eos_token_id)
    found = tofu.ask(subject(lm, answered, tokenizer)).metrics
    for group in ("forget", "retain", "world"):
        assert found[f"tofu/{group}/rouge_l_recall"] == 0.0
    assert found["tofu/retain/probability"] < 0.01
    assert found["tofu/partial_utility"] == 0.0


def test_a_destroyed_model_has_numbers_all_the_same(answered, tokenizer):
    lm = tiny_lm()
    with torch.no_grad():
        for p in lm.parameters():
            p.fill_(float("nan"))
    found = tofu.ask(subject(lm, answered, tokenizer, twin=tiny_lm()))
    assert all(math.isfinite(v) for v in found.metrics.values())
    assert found.metrics["tofu/forget/probability"] == 0.0 and found.metrics["tofu/partial_utility"] == 0.0
    assert found.metrics["tofu/world/option_probability"] == 0.25  # nothing to choose by: chance among four options
    assert found.metrics["tofu/forget/truth_ratio_new"] == 0.5


# --- model utility and forget quality ------------------------------------------------------------------------


def _utility_parts(found):
    """Probability, ROUGE and truth ratio of all groups but forget, under TOFU's names."""
    own = {"probability": "probability", "option_probability": "probability", "rouge_l_recall": "rouge", "truth_score": "truth_ratio"}
    keys = [k.split("/") for k in found if k.count("/") == 2 and not k.startswith("tofu/forget/")]
    return {f"{g}/{own[n]}": found[f"tofu/{g}/{n}"] for _, g, n in keys if n in own}


def test_utility_has_its_published_name_only_with_the_nine_parts(corpus, tokenizer, perfect_lm):
    found = tofu.ask(subject(perfect_lm, with_answers(corpus), tokenizer)).metrics
    assert "tofu/model_utility" not in found and found["tofu/utility_parts"] == 6
    nine = tofu.ask(subject(perfect_lm, with_answers(corpus, tasks=True), tokenizer)).metrics
    assert found["tofu/partial_utility"] == pytest.approx(metrics.partial_utility(_utility_parts(found)))
    parts = _utility_parts(nine)
    assert nine["tofu/model_utility"] == pytest.approx(metrics.model_utility(parts))
    assert "tofu/partial_utility" not in nine and not any(k.startswith("tofu/world/") for k in nine)


def test_forget_quality_of_the_twin_itself_is_perfect(answered, tokenizer, lm):
    found = tofu.ask(subject(lm, answered, tokenizer, twin=copy.deepcopy(lm))).metrics
    assert found["tofu/forget_quality"] == 1.0 and found["tofu/ks_distance"] == 0.0
    assert found["tofu/log10_p"] == 0.0


def test_forget_quality_is_the_test_of_both_columns(answered, tokenizer, lm, perfect_lm):
    s = subject(perfect_lm, answered, tokenizer, twin=lm)
    found = tofu.ask(s).metrics
    ratios = []
    for model in (perfect_lm, lm):
        column = tofu.ask(subject(model, answered, tokenizer)).rows["truth_ratio"]
        ratios.append([v for (g, _), v in zip(s.rows, column, strict=True) if g == "forget" and v is not None])
    expected = metrics.forget_quality(*ratios)
    assert found["tofu/forget_quality"] == pytest.approx(expected.p_value)
    assert found["tofu/ks_distance"] == pytest.approx(expected.ks) and expected.ks > 0.5


def test_without_a_twin_or_truth_ratios_there_is_no_forget_quality(corpus, answered, tokenizer, lm):
    assert not any("quality" in k for k in tofu.ask(subject(lm, answered, tokenizer)).metrics)
    plain = tofu.ask(subject(lm, corpus, tokenizer, twin=tiny_lm(1)))
    assert not any("quality" in k or k.startswith(("tofu/forget/truth", "tofu/forget/parity")) for k in plain.metrics)
    assert "tofu/forget/probability" in plain.metrics and plain.metrics["tofu/utility_parts"] == 5
    assert sum(v is not None for v in plain.rows["truth_ratio"]) == len(corpus["world"])


# --- what must not change anything ---------------------------------------------------------------------------


def test_the_order_of_rows_does_not_matter(answered, tokenizer, lm):
    turned = Corpus("small", {g: rows[::-1] for g, rows in answered.groups.items()})
    one, two = (subject(lm, c, tokenizer, twin=tiny_lm(1)) for c in (answered, turned))
    found, other = tofu.ask(one), tofu.ask(two)
    assert other.metrics == pytest.approx(found.metrics, rel=1e-4)
    for name, column in found.rows.items():
        by_id = {r.id: v for (_, r), v in zip(two.rows, other.rows[name], strict=True)}
        assert [by_id[r.id] for _, r in one.rows] == pytest.approx(column, abs=2e-4)


def test_batches_and_padding_do_not_matter(answered, tokenizer, lm, monkeypatch):
    found = tofu.ask(subject(lm, answered, tokenizer)).metrics
    whole = token_statistics
    for size in (1, 100, 100_000):
        monkeypatch.setattr(tofu, "token_statistics", lambda lm, tokens, rows, size=size: whole(lm, tokens, rows, max_tokens=size))
        assert tofu.ask(subject(lm, answered, tokenizer)).metrics == pytest.approx(found, rel=1e-4)


class Sent(Composed):
    """The rows of some documents are answered by a model that says nothing."""

    def __init__(self, target, documents):
        super().__init__()
        self.target, self.silent, self.documents, self.config = target, Silent(target.config), documents, target.config

    def parts(self, tokens, rows):
        away = {i for i in rows if tokens.document[i] in self.documents}
        return [(self.target, [i for i in rows if i not in away]), (self.silent, [i for i in rows if i in away])]


def test_a_routed_model_is_asked_part_by_part(answered, tokenizer, perfect_lm):
    away = {*answered.documents("forget"), answered["world"][0].document}
    s = subject(Sent(perfect_lm, away), answered, tokenizer)
    found = tofu.ask(s).rows
    expected = {m: tofu.ask(subject(m, answered, tokenizer)).rows for m in (perfect_lm, Silent(perfect_lm.config))}
    for name, column in found.items():
        here, silent = (expected[m][name] for m in expected)
        wanted = [n if r.document in away else h for (_, r), h, n in zip(s.rows, here, silent, strict=True)]
        assert column == pytest.approx(wanted, abs=2e-4)
    assert found["tofu_rouge"] != expected[perfect_lm]["tofu_rouge"]


def test_a_corpus_without_passages_and_holdout(answered, tokenizer, lm):
    """As TOFU is: questions only."""
    groups = {g: tuple(r for r in rows if r.kind == "qa") if g != "holdout" else () for g, rows in answered.groups.items()}
    s = subject(lm, Corpus("questions", groups), tokenizer, twin=tiny_lm(1))
    found = tofu.ask(s)
    whole = tofu.ask(subject(lm, answered, tokenizer, twin=tiny_lm(1)))
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-4)
    assert all(len(c) == len(s.rows) for c in found.rows.values())


def test_the_probe_is_complete():
    assert tofu.PROBE.name == "tofu" and tofu.PROBE.suite == "wide" and tofu.PROBE.ask is tofu.ask and tofu.PROBE.needs == ()
