"""What step.py times: shapes, rows, and a step as shipped and as plainly organised."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from random import Random

ROWS = 16  # rows per side that the steps cycle through


@dataclass(frozen=True)
class Case:
    about: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    tied: bool
    batch: int  # rows per side
    lengths: str = "even"  # "even": prompts of 88 to 108 tokens, answers of 20 to 28; "lume": LUME's mixture
    rounds: int = 10


CASES = {
    "small": Case("about 20 M parameters, large head", 256, 4, 4, 32_000, False, 4, rounds=15),
    "share": Case("output head / blocks = 0.1, as in OLMo-1B", 384, 6, 6, 4_096, True, 4),
    "mixed": Case(
        "as small, but rows as unequal as LUME's", 256, 4, 4, 32_000, False, 4, lengths="lume", rounds=15
    ),
    "large": Case("about 55 M parameters, very large head", 256, 4, 4, 100_352, False, 2),
    "minute": Case("for the test", 16, 1, 2, 64, False, 2, rounds=2),
}

OBJECTIVES = {"graddiff": ("shipped", "plain", "plain-hf"), "npo": ("shipped", "plain")}


def model(case: Case, seed: int):
    import torch
    from transformers import AutoModelForCausalLM, OlmoConfig

    torch.manual_seed(seed)
    config = OlmoConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=4 * case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=case.tied,
        attention_dropout=0.0,
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def rows(case: Case, seed: int):
    """Random token rows of LUME-like lengths, as the library's own tokenised data set."""
    from reprolib.corpus.batching import Tokens

    random = Random(seed)
    ids, prompts = [], []
    for _ in range(ROWS):
        if case.lengths == "even":
            prompt, answer = random.randint(88, 108), random.randint(20, 28)
        else:
            # kinds of LUME's rows in their proportions, at 4 characters a token: completions of stories and
            # biographies (23 %), of personal data (9 %), and questions (68 %)
            kind = random.choices(("passage", "personal", "question"), (0.23, 0.09, 0.68))[0]
            prompt, answer = {"passage": (195, 48), "personal": (28, 39), "question": (13, 4)}[kind]
            prompt, answer = (max(2, round(n * random.uniform(0.8, 1.2))) for n in (prompt, answer))
        ids.append(tuple(random.randrange(2, case.vocabulary) for _ in range(prompt + answer)))
        prompts.append(prompt)
    return Tokens(tuple(ids), tuple(prompts), ("answer",) * ROWS)


def stage(objective: str):
    from reprolib.recipes import recipe

    name = {"graddiff": "gradient_difference", "npo": "npo"}[objective]
    return recipe(name).build({"lr": 1e-4})[0]


class Shipped:
    """The inside of the loop of ``reprolib.unlearn.loop.unlearn``, one step at a time."""

    def __init__(self, lm, objective: str, forget, retain):
        from reprolib.models import device
        from reprolib.models.policy import Policy
        from reprolib.unlearn.references import make_references

        self.lm, self.stage, self.forget, self.retain = lm, stage(objective), forget, retain
        self.accelerator = device.accelerator()
        began = time.perf_counter()
        self.references = make_references(Policy(lm), [self.stage], forget, retain)
        self.cache_s = time.perf_counter() - began
        self.parameters = list(lm.parameters())
        self.policy, self.optimizer = self.accelerator.prepare(
            Policy(lm), self.stage.optimizer.build(self.parameters)
        )
        self.policy.train()

    def step(self, chosen: tuple[list[int], list[int]]) -> tuple[float, float, float]:
        import torch

        from reprolib.unlearn.loop import global_norm
        from reprolib.unlearn.order import micro_batches

        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(3)
        size = self.stage.schedule.micro_tokens
        for micro in micro_batches(chosen, self.forget, self.retain, size, self.accelerator.device):
            with self.accelerator.autocast():
                loss = self.stage.objective(self.policy, self.references, micro)
            self.accelerator.backward(loss.total)
            losses += torch.stack([x.detach().float().cpu() for x in loss])
        norm = global_norm(self.parameters, self.stage.schedule.clip)
        self.optimizer.step()
        return losses[1].item(), losses[2].item(), norm


class Plain:
    """The same maths as most released code organises it."""

    def __init__(self, lm, objective: str, forget, retain, hf: bool = False):
        self.lm, self.objective, self.forget, self.retain, self.hf = lm, objective, forget, retain, hf
        s = stage(objective)
        self.clip, self.beta = s.schedule.clip, getattr(s.objective.forget, "beta", None)
        self.reference = copy.deepcopy(lm).eval().requires_grad_(False) if objective == "npo" else None
        self.parameters = list(lm.parameters())
        self.optimizer = s.optimizer.build(self.parameters)  # the same AdamW: no part of the comparison

    @staticmethod
    def batch(tokens, chosen):
        import torch

        width = max(len(tokens.ids[i]) for i in chosen)
        ids = torch.ones(len(chosen), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for b, i in enumerate(chosen):
            row, prompt = torch.tensor(tokens.ids[i]), tokens.prompt[i]
            ids[b, : len(row)], mask[b, : len(row)], labels[b, prompt : len(row)] = row, 1, row[prompt:]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    @staticmethod
    def token_nll(lm, batch):
        """-log p at all positions, 0 where the label is -100: [B, T - 1]."""
        import torch.nn.functional as F

        logits = lm(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        logits, labels = logits.float()[:, :-1].contiguous(), batch["labels"][:, 1:].contiguous()
        flat = F.cross_entropy(
            logits.view(-1, logits.shape[-1]), labels.view(-1), ignore_index=-100, reduction="none"
        )
        return flat.view(labels.shape)

    def mean_nll(self, batch):
        if self.hf:
            return self.lm(**batch, use_cache=False).loss
        return self.token_nll(self.lm, batch).sum() / (batch["labels"][:, 1:] != -100).sum()

    def step(self, chosen: tuple[list[int], list[int]]) -> tuple[float, float, float]:
        import torch
        import torch.nn.functional as F

        self.optimizer.zero_grad(set_to_none=True)
        forget, retain = self.batch(self.forget, chosen[0]), self.batch(self.retain, chosen[1])
        if self.objective == "graddiff":
            loss_forget = -self.mean_nll(forget)
        else:
            logp = -self.token_nll(self.lm, forget).sum(-1)
            with torch.no_grad():
                logp_reference = -self.token_nll(self.reference, forget).sum(-1)
            loss_forget = -(2 / self.beta) * F.logsigmoid(-self.beta * (logp - logp_reference)).mean()
        loss_retain = self.mean_nll(retain)
        (loss_forget + loss_retain).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip))
        self.optimizer.step()
        return loss_forget.item(), loss_retain.item(), norm


def contestant(name: str, lm, objective: str, forget, retain):
    if name == "shipped":
        return Shipped(lm, objective, forget, retain)
    return Plain(lm, objective, forget, retain, hf=name == "plain-hf")


def chosen(case: Case, number: int) -> tuple[list[int], list[int]]:
    picked = [(number * case.batch + k) % ROWS for k in range(case.batch)]
    return picked, picked
