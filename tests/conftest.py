"""What every test shares: an OLMo of 30,000 random weights, a byte-level tokenizer, a corpus of six documents."""

import functools
import gc
import itertools
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
    from reprolib.testbeds.presets import Preset

    presets["test"] = Preset(
        hidden=32, layers=2, heads=2, vocabulary=400, epochs=3, lr=4e-3, batch_size=16, documents={"synthetic": 3}, world=4
    )


@functools.cache
def processes():
    """Children forked from a fresh process that has imported torch but computed nothing with it: quick and safe to kill."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([
        "pytest", "reprolib.unlearn", "reprolib.experiment", "peft", "accelerate", "transformers.models.olmo.modeling_olmo",
        "rouge_score.rouge_scorer",
    ])  # fmt: skip
    return context


class Ended(NamedTuple):
    """What a process left: as of subprocess.CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """``work(*arguments)`` in a process of its own, a child of :func:`processes`: imports, seconds of CPU, are there already.

    ``environment`` is all of its environment (by default that of the test). What it prints is kept in ``folder``, which is also
    its working directory unless ``cwd`` names another one.
    """

    number = itertools.count()

    def __init__(self, work, *arguments: Any, folder: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None):
        n = next(self.number)
        self.out, self.err = (str(folder / f"child-{n}.{name}") for name in ("out", "err"))
        own = dict(os.environ if environment is None else environment)
        given = (self.out, self.err, own, str(cwd or folder), work, arguments)
        self.process = processes().Process(target=_in_child, args=given)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def said(self) -> str:
        return Path(self.out).read_text() if Path(self.out).exists() else ""

    def wait(self, timeout: float = 250) -> Ended:
        self.process.join(timeout)
        late = self.process.exitcode is None
        if late:
            self.kill()
        error = Path(self.err).read_text() if Path(self.err).exists() else ""
        assert not late, f"not over after {timeout} s: {self.said()[-2000:]}{error[-2000:]}"
        return Ended(self.process.exitcode, self.said(), error)


def _in_child(out: str, err: str, environment: dict[str, str], cwd: str, work, arguments) -> None:
    for number, path in ((1, out), (2, err)):  # of the process: what libraries print from C is there too
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    gc.freeze()  # what was imported stays; looking through it takes half a second each time
    work(*arguments)


def script(path: str, *words: str) -> None:
    """In a child: ``python path words``."""
    sys.argv = [path, *words]
    sys.path.insert(0, os.path.dirname(path))
    runpy.run_path(path, run_name="__main__")


def module(name: str, *words: str) -> None:
    """In a child: ``python -m name words``."""
    sys.argv = [name, *words]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def write_less() -> None:
    """In a child: what a model writes ends after 12 tokens, where a model that knows nothing would go on to the limit of 256."""
    from reprolib.evaluate import Subject

    Subject.__init__ = functools.partialmethod(Subject.__init__, max_new_tokens=12)


def run_code(text: str) -> None:
    """In a child: ``python -c text``."""
    sys.argv = ["-c"]
    sys.path.insert(0, os.getcwd())
    exec(compile(text, "<test>", "exec"), {"__name__": "__main__"})


def pytest_collection_finish(session) -> None:
    gc.freeze()  # half a million objects of imported modules, which no collection need look through


@pytest.fixture(scope="session")
def cache_of_session(tmp_path_factory) -> Path:
    """A worker of pytest-xdist keeps its checkpoints to itself, and shares the trained models, which are locked, with the others."""
    own = tmp_path_factory.getbasetemp()
    cache = own / "cache"
    cache.mkdir()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = own.parent / "models"
        shared.mkdir(exist_ok=True)
        (cache / "models").symlink_to(shared)
    return cache


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path, cache_of_session):
    """No test touches the project's results or cache, and none needs a GPU. Models stay cached over a session."""
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("REPROLIB_CACHE", str(cache_of_session))
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
    from reprolib.testbeds.presets import PRESETS

    monkeypatch.setitem(PRESETS, "test", None)  # so that it is gone afterwards
    add_test_preset(PRESETS)
    return "test/synthetic"


@pytest.fixture
def brief(monkeypatch):
    """What a model writes ends after 40 tokens, where one that knows nothing would go on to the limit of 256.

    That limit is the default of an examination, which tests/test_evaluate.py holds.
    """
    from reprolib import evaluate

    monkeypatch.setattr(evaluate.Subject, "__init__", functools.partialmethod(evaluate.Subject.__init__, max_new_tokens=40))


@pytest.fixture
def fingerprints_kept(monkeypatch):
    """Fingerprints of specs are computed once an object: pages ask for the same ones again and again, at milliseconds each."""
    from reprolib.spec import Spec

    compute, kept = Spec.fingerprint.fget, {}

    def once(spec):
        if id(spec) not in kept:
            kept[id(spec)] = spec, compute(spec)
        return kept[id(spec)][1]

    monkeypatch.setattr(Spec, "fingerprint", property(once))


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
