"""What tests/test_processes.py starts once by itself and once in two processes: stages of all kinds on a tiny model, results as JSON."""

import json
import os
import sys

import torch
from conftest import tiny_lm
from test_unlearn import ASCENT, MORE, PAIRED, PLANS, data, stage

from reprolib.adapters.base import LoRA
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.models.policy import Policy, causal_lm
from reprolib.objectives import NLL, NPO, Objective
from reprolib.unlearn.answers import other_answers
from reprolib.unlearn.loop import unlearn


def others(seed):
    from conftest import byte_tokenizer, small_corpus

    return {k: other_answers(k, small_corpus()["forget"], byte_tokenizer(), seed) for k in ("idk", "random")}


# without dropout: a process draws it for its own rows
EVERYWHERE = {
    "full": lambda: (stage("npo", Objective(forget=NPO(), retain=NLL()), epochs=3),),
    "lora": lambda: (stage("difference", PAIRED, LoRA(rank=4, alpha=8), epochs=3),),
}


COPIES = {
    **{k: PLANS[k] for k in ("ascent-descent", "lora-full", "full-last")},
    **{k: MORE[k] for k in ("curvature", "controls", "chunks", "helper", "answers", "fisher")},
}


def scores(lm):
    """Read by a forward pass, which works on shards as well."""
    forget, retain = data()
    with torch.no_grad():
        from reprolib.corpus.batching import collate

        own = [Policy(lm)(collate(t, list(range(len(t))))).token_logp.sum() for t in (forget, retain)]
    return {"forget": float(own[0]), "retain": float(own[1])}


def main():
    out = {"processes": device.processes(), "sharded": device.sharded()}
    for name, stages in (EVERYWHERE if device.sharded() else EVERYWHERE | COPIES).items():
        lm, outcome = unlearn(tiny_lm(), stages(), *data(), seed=0, others=others(0), measure=scores, points=4, progress=False)
        out[name] = {"trajectory": outcome.trajectory, "status": outcome.status, "unchanged": outcome.unchanged_after_first_step, **scores(lm)}
        if device.sharded():
            causal_lm(lm).reshard()  # the outermost weights stay together between a forward and a backward pass
            out[name]["held"] = sum(device.held(p).numel() for p in lm.parameters()) / sum(p.numel() for p in lm.parameters())
            out[name]["copied"] = sum(t.numel() for t in device.copies(lm.parameters())) / sum(p.numel() for p in lm.parameters())
    if device.sharded():
        try:
            unlearn(tiny_lm(), (stage("a", ASCENT), stage("b", PAIRED)), *data(), seed=0, progress=False)
        except SpecError as e:
            out["refused"] = str(e)
    if device.first():
        with open(sys.argv[1], "w", encoding="utf-8") as f:
            json.dump(out, f)
    device.together()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["REPROLIB_MICRO_TOKENS"] = "96"  # several parts a step, of uneven number
    main()
