"""The fluency probe: numbers against one-by-one scoring, known models, invariances, what is empty."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_lm

from reprolib.corpus.batching import as_text
from reprolib.corpus.rows import Corpus
from reprolib.errors import SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.subject import Subject
from reprolib.metrics import fluency
from reprolib.models import policy as policies
from reprolib.probes.fluency import PROBE, ask, generation_nll
from reprolib.testbeds import memorise

pytestmark = pytest.mark.usefixtures("one_thread")


def subject(lm, corpus, tokenizer, target, texts=None) -> Subject:
    out = Subject(lm, Examination.of(corpus, tokenizer), 0, lambda which: {"target": target}.get(which), progress=False)
    if texts is not None:
        out.kept("generations", lambda: texts)
    return out


def test_nll_is_that_of_each_text_alone(lm, tokenizer):
    prompts, texts = ["Where?", "It is said that", "", "Who?", "x"], [" In Delft.", " he", "ab", " \n", ""]
    nll, size = generation_nll(lm, tokenizer, prompts, texts)
    assert size.tolist() == [10, 3, 1, 0, 0] and np.isnan(nll).tolist() == [False, False, False, True, True]
    for i in range(3):
        before, after = as_text(tokenizer, [prompts[i], texts[i]])
        with torch.no_grad():
            logp = lm(input_ids=torch.tensor([before + after])).logits[0, :-1].log_softmax(-1)
        token = logp[range(len(logp)), (before + after)[1:]][max(0, len(before) - 1) :]
        assert nll[i] == pytest.approx(-token.mean().item(), abs=1e-4)
    one = generation_nll(lm, tokenizer, [""], ["a"])  # its only token is not predicted
    assert math.isnan(one[0][0]) and one[1][0] == 0


def test_batches_and_padding_do_not_matter(lm, tokenizer, monkeypatch):
    prompts, texts = ["Where?", "It is said that he", "a"] * 3, [" In Delft.", " b", " long " * 9] * 3
    expected = generation_nll(lm, tokenizer, prompts, texts)[0]
    assert generation_nll(lm, tokenizer, prompts[::-1], texts[::-1])[0][::-1] == pytest.approx(expected, abs=1e-5)
    alone = [generation_nll(lm, tokenizer, [p], [t])[0][0] for p, t in zip(prompts, texts, strict=True)]
    assert alone == pytest.approx(expected, abs=1e-5)
    collate = policies.collate
    monkeypatch.setattr(policies, "collate", lambda tokens, indices: collate(tokens, indices, pad=7))
    assert generation_nll(lm, tokenizer, prompts, texts)[0] == pytest.approx(expected, abs=1e-5)


def test_a_perfect_model_recites(perfect_lm, corpus, tokenizer):
    s = subject(perfect_lm, corpus, tokenizer, perfect_lm)
    got = ask(s)
    m = got.metrics
    for group in ("forget", "retain"):
        assert m[f"fluency/{group}/length_ratio"] == 1 and m[f"fluency/{group}/empty"] == m[f"fluency/{group}/loop"] == 0
        assert 1 <= m[f"fluency/{group}/perplexity"] < 1.1
        assert m[f"fluency/{group}/scored"] == len(corpus[group])
        answers = [r.output for r in corpus[group]]
        assert m[f"fluency/{group}/distinct_2"] == pytest.approx(fluency.distinct_n(answers, 2))
    assert m["fluency/collapsed"] == 0
    assert PROBE.suite == "wide" and PROBE.needs == ("target",) and PROBE.ask is ask
    assert {len(v) for v in got.rows.values()} == {len(s.rows)}
    assert list(got.rows) == ["repetition", "loop", "generation_nll"]
    written = [x is not None for x in got.rows["generation_nll"]]
    assert written == [g in ("forget", "retain") for g, _ in s.rows]


def test_perplexity_is_of_tokens_not_of_texts(corpus, tokenizer, lm):
    texts = {g: [" a" * (i + 1) for i in range(len(corpus[g]))] for g in ("forget", "retain")}
    texts["forget"][1] = ""
    s = subject(tiny_lm(5), corpus, tokenizer, lm, texts)
    m = ask(s).metrics
    nll, size = generation_nll(lm, tokenizer, [r.input for r in corpus["forget"]], texts["forget"])
    right = size > 0
    assert m["fluency/forget/perplexity"] == pytest.approx(math.exp((nll[right] * size[right]).sum() / size.sum()))
    assert m["fluency/forget/perplexity"] != pytest.approx(math.exp(nll[right].mean()), rel=1e-4)
    assert m["fluency/forget/scored"] == len(texts["forget"]) - 1 and m["fluency/forget/empty"] == 1 / len(texts["forget"])


def test_a_model_that_says_nothing_has_collapsed(corpus, tokenizer, perfect_lm):
    silent = tiny_lm()
    memorise.always_eos(silent, tokenizer.eos_token_id)
    m = ask(subject(silent, corpus, tokenizer, perfect_lm)).metrics
    assert m["fluency/collapsed"] == m["fluency/retain/empty"] == 1
    assert m["fluency/retain/distinct_1"] == m["fluency/retain/length_ratio"] == m["fluency/retain/scored"] == 0
    assert "fluency/retain/perplexity" not in m and all(math.isfinite(v) for v in m.values())


@pytest.mark.parametrize("text, verdict", [(" no" * 40, 1), (" qxzjvkwq%&", 1), ("", 1), (None, 0)])
def test_collapse_is_told_by_retain_rows_only(corpus, tokenizer, perfect_lm, text, verdict):
    """Loops, gibberish to the target and silence; what is written for forget prompts does not count."""
    fine = {g: [f" {r.output}" for r in corpus[g]] for g in ("forget", "retain")}
    broken = {g: [t if text is None else text for t in fine[g]] for g in fine}
    assert ask(subject(perfect_lm, corpus, tokenizer, perfect_lm, broken)).metrics["fluency/collapsed"] == verdict
    assert ask(subject(perfect_lm, corpus, tokenizer, perfect_lm, fine | {"forget": broken["forget"]})).metrics["fluency/collapsed"] == 0


def test_order_of_the_rows_does_not_matter(corpus, tokenizer, perfect_lm):
    turned = Corpus("turned", {g: rows[::-1] for g, rows in corpus.groups.items()})
    lm = tiny_lm(5)
    a, b = (ask(subject(lm, c, tokenizer, perfect_lm)) for c in (corpus, turned))
    assert a.metrics == pytest.approx(b.metrics, rel=1e-5)
    n = len(corpus["forget"])
    for name in a.rows:
        assert a.rows[name][:n] == pytest.approx(b.rows[name][:n][::-1], abs=1e-3)


def test_without_a_target_it_cannot_be_asked(corpus, tokenizer, lm):
    with pytest.raises(SpecError, match="model before unlearning; got none"):
        ask(subject(lm, corpus, tokenizer, None))
