"""The three ways to have a reference give the same losses: kept, adapter switched off, frozen copy."""

import pytest
import torch

from reprolib.corpus.batching import encode_rows
from reprolib.recipes import recipe
from reprolib.testbeds import memorise
from reprolib.testbeds.beds import testbed
from reprolib.unlearn import loop, references
from reprolib.unlearn.references import make_references


@pytest.fixture(scope="module")
def rows():
    bed = testbed("smoke/synthetic")
    corpus = bed.corpus()
    tokenizer = memorise.train_tokenizer(corpus, 512)
    return len(tokenizer), encode_rows(tokenizer, corpus["forget"][:6]), encode_rows(tokenizer, corpus["retain"][:6])


def fresh(vocabulary):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = testbed("smoke/synthetic").preset.config
    config.vocab_size = vocabulary
    return AutoModelForCausalLM.from_config(config)


def final_weights(rows, monkeypatch, budget, **options):
    vocabulary, forget, retain = rows
    monkeypatch.setattr(references, "CACHE_BYTES", budget)
    stages = recipe("npo").build({"retain": "kl", "epochs": 3, "batch_size": 3, "lr": 1e-3, **options})
    lm, _ = loop.unlearn(fresh(vocabulary), stages, forget, retain, seed=0, progress=False)
    return lm.state_dict()


@pytest.mark.parametrize("trainable", ["full", "lora-4"])
def test_kept_and_live_references_train_alike(rows, monkeypatch, trainable):
    kept = final_weights(rows, monkeypatch, 1 << 40, trainable=trainable)
    live = final_weights(rows, monkeypatch, 0, trainable=trainable)
    start = fresh(rows[0]).state_dict()
    assert any(not torch.equal(kept[k], start[k]) for k in start), "nothing was trained"
    for name in kept:
        # equal but for the order of sums in batches of other widths; Adam divides by tiny gradients' own size
        torch.testing.assert_close(kept[name], live[name], atol=2e-4, rtol=0)


def test_the_kind_of_reference_follows_size_and_adapter(rows, monkeypatch):
    from reprolib.models.policy import Cached, Live, Policy

    vocabulary, forget, retain = rows
    policy = Policy(fresh(vocabulary))
    build = recipe("npo").build

    def kind(budget, **options):
        monkeypatch.setattr(references, "CACHE_BYTES", budget)
        return make_references(policy, build(options), forget, retain)

    assert isinstance(kind(1 << 40, retain="kl").retain, Cached)
    assert kind(1 << 40).retain is None, "plain NLL needs no reference"
    assert isinstance(kind(0, retain="kl").forget, Cached), "sequence log-probs are always kept: they are one number a row"
    full, lora = kind(0, retain="kl").retain, kind(0, retain="kl", trainable="lora-4").retain
    assert isinstance(full, Live) and full.frozen is not None
    assert isinstance(lora, Live) and lora.frozen is None
