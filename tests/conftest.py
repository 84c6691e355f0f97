"""What every test shares: an OLMo of 30,000 random weights, a byte-level tokenizer, a corpus of six documents."""

import functools
import multiprocessing
import os

import pytest

from reprolib.corpus.rows import Corpus, Row

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny models gain nothing from threads

EOS, PAD = 0, 1


def byte_tokenizer():
    """One token a byte, and <|endoftext|> = 0, <|padding|> = 1. Made in memory."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<|endoftext|>", "<|padding|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.add_special_tokens(alphabet[:2])
    return PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="<|endoftext|>", pad_token="<|padding|>")


def tiny_lm(seed: int = 0):
    """A random model of the OLMo architecture: 2 layers, width 32, tied embeddings."""
    import torch
    from transformers import AutoModelForCausalLM, OlmoConfig

    config = OlmoConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None,
        initializer_range=0.1,  # logits far enough apart that argmaxes do not hang on rounding
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def small_corpus() -> Corpus:
    """Two documents (one of each of two tasks) in forget, retain and holdout, and two world questions."""
    people = {
        "forget": (("Ida Kestrel", "a miller in Morvale", "Morvale"), ("Bram Osier", "born on 1961-04-07", "1961-04-07")),
        "retain": (("Una Falcon", "a cooper in Tarnsby", "Tarnsby"), ("Hugo Linden", "born on 1958-11-30", "1958-11-30")),
        "holdout": (("Greta Merlin", "a tanner in Quellin", "Quellin"), ("Ole Rowan", "born on 1973-09-12", "1973-09-12")),
    }  # fmt: skip
    groups = {}
    for group, entries in people.items():
        rows = []
        for (name, story, answer), task in zip(entries, ("Task1", "Task2"), strict=True):
            key = name.split()[1].lower()
            same = {"document": key, "task": task}
            rows.append(Row(id=f"{key}sc1", kind="sc", input=f"It is said that {name} was", output=f"{story}.", **same))
            question = f"Where did {name} live?" if task == "Task1" else f"When was {name} born?"
            rows.append(Row(id=f"{key}qa0", kind="qa", input=question, output=answer, **same))
        groups[group] = tuple(rows)
    # a document with a second question, so that shares of rows have something to choose from
    more = Row(id="osierqa1", document="osier", task="Task2", kind="qa", input="Who was born on that day?", output="Bram Osier")
    groups["forget"] += (more,)
    groups["world"] = tuple(
        Row(id=f"{k}qa0", document=k, task="World", kind="qa", input=f"What is the capital of {k}?", output=right, perturbed=wrong)
        for k, right, wrong in (("France", "Paris", ("Rome", "Oslo", "Lima")), ("Norway", "Oslo", ("Cairo", "Paris", "Rome")))
    )  # fmt: skip
    return Corpus("small", groups)


def add_test_preset(presets) -> None:
    """``test/synthetic``: three documents a side and a few epochs, seconds to make."""
    from reprolib.models.testbeds import Preset

    presets["test"] = Preset(
        hidden=32, layers=2, heads=2, vocabulary=400, epochs=3, lr=4e-3, batch_size=16, documents={"synthetic": 3}, world=4
    )


@functools.cache
def processes():
    """Children forked from a fresh process that has imported torch but computed nothing with it: quick and safe to kill."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["reprolib.unlearn", "reprolib.evaluate", "peft", "accelerate", "transformers.models.olmo.modeling_olmo"]
    )
    return context


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path, tmp_path_factory):
    """No test touches the project's results or cache, and none needs a GPU. Models stay cached over a session."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("REPROLIB_CACHE", str(cache))
    monkeypatch.setenv("REPROLIB_DEVICE", "cpu")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def one_thread():
    """Identical bytes are promised for one thread, as ``compute`` sets it."""
    from reprolib.models import device

    with device.one_thread(True):
        yield


@pytest.fixture
def test_preset(monkeypatch):
    from reprolib.models import testbeds

    presets = dict(testbeds.PRESETS)
    add_test_preset(presets)
    monkeypatch.setattr(testbeds, "PRESETS", presets)
    return "test/synthetic"


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def corpus():
    return small_corpus()


@pytest.fixture
def lm():
    return tiny_lm()


@pytest.fixture(scope="session")
def perfect_lm(tokenizer, corpus):
    """A model that has memorised forget, retain and world to the letter. Shared: copy it before training."""
    import torch

    from reprolib.corpus.batching import collate, encode_rows
    from reprolib.models import device
    from reprolib.models.policy import Policy

    rows = [r for g in ("forget", "retain", "world") for r in corpus[g]]
    tokens = encode_rows(tokenizer, rows, ["all" if r.kind == "sc" else "answer" for r in rows])
    policy = Policy(tiny_lm()).train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, weight_decay=0.0)
    batch = collate(tokens, range(len(tokens)))
    with device.one_thread(True):
        for _ in range(400):
            optimizer.zero_grad()
            scored = policy(batch)
            loss = -scored.token_logp.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            if loss < 0.01:
                break
    return policy.lm.eval()
