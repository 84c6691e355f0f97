"""Greedy and sampled generation: batched, cached, finished rows dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import as_prompt
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.models.policy import Composed, causal_lm
from reprolib.seeds import derive

MAX_NEW_TOKENS = 256  # the organisers' limit


@device.inference
def generate(
    lm: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    *,
    begun: Sequence[Sequence[int]] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_tokens: int = 8192,
    progress: bool = False,
    title: str = "generate",
    temperature: float | None = None,
    seed: int = 0,
) -> list[str]:
    """Greedy continuations as text, special tokens skipped, as the organisers' script decodes.

    ``begun``: tokens of each continuation that are known already; they count towards ``max_new_tokens``.
    Sorted by length, left-padded, cached; rows that have ended leave the batch.

    With a ``temperature`` T > 0 tokens are drawn from softmax(logits / T) instead. The random numbers of a
    continuation hang on ``seed``, its prompt and how often the prompt stood in the list before, so that
    neither batches nor other prompts change it, and a prompt that is given n times is answered by n
    independent samples.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        raise SpecError(
            f"temperature is {temperature!r}; allowed: a finite number above 0, or None for greedy decoding."
        )
    from transformers import DynamicCache

    inner = causal_lm(lm)
    to = next(lm.parameters()).device
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
    new = [list(b)[:max_new_tokens] for b in begun] if begun is not None else [[] for _ in prompts]
    uniform = _uniform(prompts, max_new_tokens, seed) if temperature is not None else []
    ids = [p + n for p, n in zip(as_prompt(tokenizer, prompts), new, strict=True)]
    open_ = [i for i in range(len(ids)) if eos not in new[i] and len(new[i]) < max_new_tokens]
    batches: list[list[int]] = []
    more, batch_tokens = device.generation(inner.config, max_new_tokens, batch_tokens)
    for i in sorted(open_, key=lambda i: (len(ids[i]), i)):
        if batches and (len(batches[-1]) + 1) * (len(ids[i]) + more) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    for batch in tqdm(batches, desc=title, unit="batch", disable=not progress, mininterval=2):
        width = max(len(ids[i]) for i in batch)
        step = torch.full((len(batch), width), pad, device=to)
        mask = torch.zeros((len(batch), width), dtype=torch.long, device=to)
        for b, i in enumerate(batch):
            step[b, width - len(ids[i]) :] = torch.tensor(ids[i], device=to)
            mask[b, width - len(ids[i]) :] = 1
        alive = list(batch)
        cache = inner.new_cache() if isinstance(inner, Composed) else DynamicCache(config=inner.config)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        while True:
            out = inner(
                input_ids=step,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            if temperature is None:
                best = out.logits[:, -1].argmax(-1)
            else:
                best = _sample(out.logits[:, -1], temperature, [uniform[i][len(new[i])] for i in alive])
            for i, token in zip(alive, best.tolist(), strict=True):
                new[i].append(token)
            going = [b for b, i in enumerate(alive) if new[i][-1] != eos and len(new[i]) < max_new_tokens]
            if not going:
                break
            if len(going) < len(alive):
                keep = torch.tensor(going, device=to)
                alive, best, mask = [alive[b] for b in going], best[keep], mask[keep]
                cache.batch_select_indices(keep)
            step = best[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
            position = mask.sum(1, keepdim=True) - 1
    return [tokenizer.decode(n[: n.index(eos)] if eos in n else n, skip_special_tokens=True) for n in new]


def _uniform(prompts: Sequence[str], steps: int, seed: int) -> list[np.ndarray]:
    """For each prompt its own random numbers in [0, 1), one a token: [steps]."""
    before: Counter[str] = Counter()
    out = []
    for p in prompts:
        out.append(np.random.default_rng(derive(seed, "sample", before[p], p)).random(steps))
        before[p] += 1
    return out


def _sample(logits: torch.Tensor, temperature: float, uniform: Sequence[float]) -> torch.Tensor:
    """For each row the first token whose cumulative probability exceeds its random number: [B]."""
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    below = (
        cumulative
        <= torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
    )
    return below.sum(-1).clamp(max=logits.shape[-1] - 1)
