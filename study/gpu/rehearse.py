"""The whole of it at toy size: tiny models under the names of the large ones, invented rows in the layouts of
the releases.

What runs is the code that runs at true size; only presets, shapes and data are swapped, and everything lies
in one folder.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

SMALL = {
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 1024,
}

OLMO = {"vocab_size": 304, "clip_qkv": 8.0, "tie_word_embeddings": False}
LLAMA = {"vocab_size": 258, "num_key_value_heads": 1, "tie_word_embeddings": True}
DOCUMENTS = {"synthetic": 3, "lume": {"Task1": 1, "Task2": 1, "Task3": 1}, "semeval": None}


def install(folder: Path) -> None:
    """Swap presets, shapes and data in this process; make the data and the tiny pretrained model if they are
    not there yet.
    """
    from filelock import FileLock

    from reprolib.models import architectures
    from reprolib.testbeds import beds, memorise, presets
    from study.gpu import cases, cost

    for shape, (kind, name, _) in list(architectures.SHAPES.items()):
        own = LLAMA if kind == "llama" else OLMO
        architectures.SHAPES[shape] = (
            kind,
            name,
            {**SMALL, **own, "hidden_size": 96 if shape == "olmo-7b" else 64},
        )
    for name, preset in list(presets.PRESETS.items()):
        if preset.shape:
            source = "rehearsal/small" if preset.pretrained else ""
            documents = {c: DOCUMENTS[c] for c in preset.documents}
            presets.PRESETS[name] = replace(
                preset, epochs=2, vocabulary=300, world=4, documents=documents, pretrained=source,
                memorised=source if preset.memorised else "", mmlu=1 if preset.mmlu else 0,
                shape="smollm2-135m" if source else preset.shape,
            )  # fmt: skip
    beds.PINNED.clear()
    cost.TOKENS, cost.LABELS, cost.ROWS = 32, 8, 32
    cases.LAST["trainable"] = "last-1"
    os.environ["REPROLIB_DATA"], os.environ[memorise.WEIGHTS] = str(folder / "data"), str(folder / "weights")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "ready").exists():
            data(folder / "data")
            weights(folder / "weights" / "rehearsal" / "small")
            (folder / "ready").touch()


def data(folder: Path) -> None:
    """LUME, SemEval-2025's release and MMLU, as they lie on disk, of invented rows."""
    import pyarrow
    from pyarrow import parquet

    from reprolib.corpus import synthetic
    from reprolib.corpus.mmlu import HEADER, SUBJECTS

    corpus = synthetic.make(documents=9)
    rows = {
        g: [{"id": r.id, "input": r.input, "output": r.output, "task": r.task} for r in corpus[g]]
        for g in ("forget", "retain")
    }
    for place in (
        "lume",
        "semeval25-unlearning-data/data",
        "semeval25-unlearning-data/mia_data",
        "mmlu/dev",
        "mmlu/test",
    ):
        (folder / place).mkdir(parents=True, exist_ok=True)
    release = folder / "semeval25-unlearning-data"
    for side, own in rows.items():
        (folder / "lume" / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in own))
        documents = list(dict.fromkeys(r.document for r in corpus[side]))[::3]  # one of each task
        few = [
            {**r, "split": side}
            for r, row in zip(own, corpus[side], strict=True)
            if row.document in documents
        ]
        parquet.write_table(
            pyarrow.Table.from_pylist(few), release / "data" / f"{side}_train-00000-of-00001.parquet"
        )
    members = [r for r in corpus["forget"] if r.kind == "sc" and r.task == "Task3"]
    others = [r for r in corpus["holdout"] if r.kind == "sc" and r.task == "Task3"]
    for name, texts in (("member", members), ("nonmember", others)):
        lines = (
            json.dumps({"id": str(n), "document": f"{r.input} {r.output}"}) + "\n"
            for n, r in enumerate(texts)
        )
        (release / "mia_data" / f"{name}.jsonl").write_text("".join(lines))
    for subject in SUBJECTS:
        for split, count in (("dev", 5), ("test", 2)):
            with open(
                folder / "mmlu" / split / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8"
            ) as f:
                csv.writer(f).writerows(
                    [HEADER, *((f"What is {n}?", "a", "b", "c", "d", n % 4) for n in range(count))]
                )


def weights(folder: Path) -> None:
    """A random model with a tokenizer of bytes, as a snapshot of the hub lies on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    from reprolib.corpus import synthetic
    from reprolib.testbeds.memorise import train_tokenizer
    from reprolib.testbeds.presets import PRESETS

    tokenizer = train_tokenizer(synthetic.make(documents=3), LLAMA["vocab_size"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(PRESETS["smollm2"].config, dtype=torch.float32)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
