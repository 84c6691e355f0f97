"""From a model to numbers: one teacher-forced pass, one generation pass, per-row scores kept.

The teacher-forced pass feeds NLL, exact memorisation, extraction strength, the loss attack, the choice
questions and KL. It also begins the generation pass: as long as the argmax under teacher forcing equals the
label, greedy decoding must produce exactly these tokens, and the first other argmax is its next one. Only what
comes after that is generated; nothing, where all labels are right, EOS included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import Tokens, as_prompt, encode, encode_rows
from reprolib.corpus.rows import Corpus, Row, select
from reprolib.errors import SpecError
from reprolib.metrics import lume, memorisation, privacy, utility
from reprolib.models.policy import Cached, Policy, cache_reference, causal_lm, score
from reprolib.seeds import derive

MAX_NEW_TOKENS = 256  # the organisers' limit


@dataclass(frozen=True, slots=True)
class Examination:
    """A corpus, tokenised once for all evaluations with one tokenizer."""

    corpus: Corpus
    tokenizer: object
    rows: dict[str, tuple[Row, ...]]
    tokens: Tokens  # all of them: the rows group by group, then the true answer and the wrong options of each world question
    parts: dict[str, range]  # where each group stands in ``tokens``; "world" is the last
    target: Cached | None = None  # the target's logits on the retain rows, for KL

    @property
    def attacked(self) -> str:
        """The kind of rows that the loss attack reads: passages ("sc"), or answers ("qa") where there are no passages."""
        return "sc" if any(r.kind == "sc" for r in self.rows["forget"]) else "qa"

    @classmethod
    def of(cls, corpus: Corpus, tokenizer, target: nn.Module | None = None) -> Examination:
        rows = {
            "forget": corpus["forget"],
            "retain": corpus["retain"],
            # non-members of the loss attack: passages, or answers where a corpus has questions only
            "holdout": select(corpus["holdout"], kind="sc") or corpus["holdout"],
        }
        # whole documents are scored for the attack; the answer's part of them for everything else
        prompts = [r.input for g in rows.values() for r in g]
        answers = [r.output for g in rows.values() for r in g]
        labels = ["all" if r.kind == "sc" else "answer" for g in rows.values() for r in g]
        options = [(r.input, o) for r in corpus["world"] for o in (r.output, *r.perturbed)]
        parts, at = {}, 0
        for group, size in [*((g, len(r)) for g, r in rows.items()), ("world", len(options))]:
            parts[group] = range(at, at + size)
            at += size
        tokens = encode(
            tokenizer,
            [*prompts, *(p for p, _ in options)],
            [*answers, *(o for _, o in options)],
            [*labels, *["answer"] * len(options)],
        )
        documents = [r.document for g in rows.values() for r in g]
        documents += [r.document for r in corpus["world"] for _ in (r.output, *r.perturbed)]
        tokens = replace(tokens, document=tuple(documents))
        cached = None
        if target is not None:
            answers = encode_rows(tokenizer, rows["retain"])
            cached = cache_reference(Policy(target), answers, "logits")
        return cls(corpus, tokenizer, rows, tokens, parts, cached)


@dataclass(slots=True)
class Scores:
    """Per-row results of the teacher-forced pass (nats; shares)."""

    nll: dict[str, np.ndarray] = field(default_factory=dict)  # mean over the answer's tokens
    em: dict[str, np.ndarray] = field(default_factory=dict)  # exact memorisation
    es: dict[str, np.ndarray] = field(default_factory=dict)  # extraction strength
    exact: dict[str, np.ndarray] = field(default_factory=dict)  # all argmaxes right, EOS included: greedy output = answer
    begun: dict[str, list[list[int]]] = field(default_factory=dict)  # tokens that greedy decoding must begin with
    document: dict[str, np.ndarray] = field(default_factory=dict)  # mean NLL of the whole text (completion rows; else NaN)
    world: np.ndarray | None = None  # 1 where the true option is the likeliest
    kl: np.ndarray | None = None  # to the target, per retain row
    parts: list[tuple[nn.Module, Sequence[int]]] = field(default_factory=list)  # which model answered which rows


def parts(lm: nn.Module, tokens: Tokens, rows: Sequence[int]) -> list[tuple[nn.Module, Sequence[int]]]:
    """Which model answers which rows: one model all of them, unless it is routed (:mod:`reprolib.models.routing`)."""
    return lm.parts(tokens, rows) if hasattr(lm, "parts") else [(lm, rows)]


@torch.no_grad()
def teacher_forced(lm: nn.Module, exam: Examination, max_tokens: int = 4096) -> Scores:
    """One pass over all rows. Leaves the model in evaluation mode."""
    Policy(lm).eval()
    out = Scores()
    n = len(exam.tokens)
    columns = {k: np.full(n, np.nan) for k in ("nll", "em", "es", "exact", "document")}
    begun: list[list[int]] = [[] for _ in range(n)]
    kl = np.full(n, np.nan)
    tokens, world, retain = exam.tokens, exam.parts["world"], exam.parts["retain"]
    out.parts = parts(lm, tokens, range(n))
    for indices, scored in chain.from_iterable(score(Policy(m), tokens, chosen, max_tokens) for m, chosen in out.parts):
        logp = scored.token_logp.double().cpu().numpy()
        labels, guesses = scored.labels.cpu().numpy(), scored.logits.argmax(-1).cpu().numpy()
        at = 0
        for i in indices:
            size, answer = tokens.n_labels(i), tokens.n_answer(i)
            here = slice(at + size - answer, at + size)
            columns["nll"][i] = -logp[here].mean()
            if i not in world:
                right = guesses[here] == labels[here]
                columns["em"][i] = memorisation.exact_memorisation(guesses[here], labels[here], drop_last=True)
                columns["es"][i] = memorisation.extraction_strength(guesses[here], labels[here], drop_last=True)
                columns["exact"][i] = float(right.all())
                if tokens.prompt[i]:
                    leading = int(np.argmin(np.append(right, False)))
                    begun[i] = labels[here][:leading].tolist() + guesses[here][leading : leading + 1].tolist()
                if tokens.labels[i] == "all" or exam.attacked == "qa":
                    # the attack reads the text alone, without the EOS that training appended
                    loss = -logp[at : at + size - 1].mean()
                    columns["document"][i] = np.inf if np.isnan(loss) else loss  # a destroyed model knows no text
                if exam.target is not None and i in retain:
                    kl[i] = _kl(scored.logits[here], exam.target, i - retain.start)
            at += size
    for group in exam.rows:
        part = slice(exam.parts[group].start, exam.parts[group].stop)
        for name, values in columns.items():
            getattr(out, name)[group] = values[part]
        out.begun[group] = begun[part]
    if exam.target is not None:
        out.kl = kl[retain.start : retain.stop]
    if len(world):
        nll = columns["nll"][world.start :]
        nll = np.nan_to_num(nll, nan=np.finfo(float).max, posinf=np.finfo(float).max)  # a destroyed model has no choice
        out.world = utility.choice_accuracy(nll.reshape(len(exam.corpus["world"]), -1))
    return out


def _kl(logits: torch.Tensor, target: Cached, row: int) -> float:
    """Mean KL(target || model) over the answer tokens of a retain row, in nats."""
    from reprolib.objectives.likelihood import kl_divergence

    return float(kl_divergence(logits, target.logits[row].to(logits.device)).mean())


def measure(lm: nn.Module, exam: Examination) -> dict[str, float]:
    """Cheap measures for the trajectory: everything the teacher-forced pass knows, as means."""
    return summarise(teacher_forced(lm, exam), exam) | getattr(lm, "readings", {})


def summarise(s: Scores, exam: Examination) -> dict[str, float]:
    out: dict[str, float] = {}
    for group in exam.rows:
        kinds = np.array([r.kind for r in exam.rows[group]])
        for name in ("nll", "em", "es"):
            if len(kinds):
                out[f"{group}/{name}"] = float(getattr(s, name)[group].mean())
        for kind in ("sc", "qa"):
            at = kinds == kind
            if at.any():
                out[f"{group}/{kind}/em"] = float(s.em[group][at].mean())
                if kind == "qa":
                    out[f"{group}/questions"] = float(s.exact[group][at].mean())
    member, non = (-s.document[g][~np.isnan(s.document[g])] for g in ("forget", "holdout"))
    if len(member) and len(non):
        out["attack/auc"] = privacy.auc(member, non)
    if s.world is not None:
        out["world/accuracy"] = float(s.world.mean())
    if s.kl is not None:
        out["retain/kl"] = float(s.kl.mean())
    if len(s.parts) > 1:  # the first model is the target
        away = np.isin(np.arange(len(exam.tokens)), [i for _, chosen in s.parts[1:] for i in chosen])
        out |= {f"routing/sent_{g}": float(away[p.start : p.stop].mean()) for g, p in exam.parts.items() if len(p)}
    return out


@torch.no_grad()
def generate(
    lm: nn.Module, tokenizer, prompts: Sequence[str], *, begun: Sequence[Sequence[int]] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS, batch_tokens: int = 8192, progress: bool = False, title: str = "generate",
    temperature: float | None = None, seed: int = 0,
) -> list[str]:  # fmt: skip
    """Greedy continuations as text, special tokens skipped, as the organisers' script decodes.

    ``begun``: tokens of each continuation that are known already; they count towards ``max_new_tokens``.
    Sorted by length, left-padded, cached; rows that have ended leave the batch.

    With a ``temperature`` T > 0 tokens are drawn from softmax(logits / T) instead. The random numbers of a continuation hang on
    ``seed``, its prompt and how often the prompt stood in the list before, so that neither batches nor other prompts change it,
    and a prompt that is given n times is answered by n independent samples.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        raise SpecError(f"temperature is {temperature!r}; allowed: a finite number above 0, or None for greedy decoding.")
    from transformers import DynamicCache

    inner = causal_lm(lm)
    to = next(lm.parameters()).device
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
    new = [list(b)[:max_new_tokens] for b in begun] if begun is not None else [[] for _ in prompts]
    uniform = _uniform(prompts, max_new_tokens, seed) if temperature is not None else None
    ids = [p + n for p, n in zip(as_prompt(tokenizer, prompts), new, strict=True)]
    open_ = [i for i in range(len(ids)) if eos not in new[i] and len(new[i]) < max_new_tokens]
    batches: list[list[int]] = []
    for i in sorted(open_, key=lambda i: (len(ids[i]), i)):
        if batches and (len(batches[-1]) + 1) * (len(ids[i]) + 32) <= batch_tokens:
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
        cache = inner.new_cache() if hasattr(inner, "new_cache") else DynamicCache(config=inner.config)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        while True:
            out = inner(
                input_ids=step, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
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
    below = cumulative <= torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
    return below.sum(-1).clamp(max=logits.shape[-1] - 1)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Numbers of one model: ``metrics`` by name, and ``rows``: columns of per-row scores (no text)."""

    metrics: dict[str, float]
    rows: dict[str, list]


def evaluate(lm: nn.Module, exam: Examination, *, progress: bool = True, title: str = "evaluate") -> Evaluation:
    """All metrics of the study for one model (SemEval/LUME score, memorisation, attack, utility, KL).

    ``rows`` has one entry per forget and retain row, in corpus order, then holdout documents and world
    questions; documents are running numbers, so that no text of the data leaves with a record.
    """
    s = teacher_forced(lm, exam)
    metrics = summarise(s, exam) | getattr(lm, "readings", {})
    rows: dict[str, list] = {k: [] for k in ("group", "task", "kind", "document", "score", "nll", "em", "es", "text_nll")}
    number = {d: n for n, d in enumerate(dict.fromkeys(r.document for g in exam.corpus.groups.values() for r in g))}
    twelve: dict[str, list] = {k: [] for k in ("group", "task", "kind", "score")}
    both = [(g, i, r) for g in ("forget", "retain") for i, r in enumerate(exam.rows[g])]
    begun = [s.begun[g][i] for g, i, _ in both]
    texts = [""] * len(both)  # rows of both groups are the first of the exam's tokens
    for model, own in s.parts:
        chosen = [i for i in own if i < len(both)]
        prompts = [both[i][2].input for i in chosen]
        known = [begun[i] for i in chosen]
        written = generate(model, exam.tokenizer, prompts, begun=known, progress=progress, title=title)
        for i, text in zip(chosen, written, strict=True):
            texts[i] = text
    for (group, i, r), text in zip(both, texts, strict=True):
        value = (lume.rouge_l_recall if r.kind == "sc" else lume.knowledge)(r.output, text)
        for key, v in zip(twelve, (group, r.task, r.kind, value), strict=True):
            twelve[key].append(v)
        _append(rows, group, r, number, value, s, i)
    for i, r in enumerate(exam.rows["holdout"]):
        _append(rows, "holdout", r, number, None, s, i)
    for i, r in enumerate(exam.corpus["world"]):
        entry = ("world", r.task, r.kind, number[r.document], float(s.world[i]), None, None, None, None)
        for key, v in zip(rows, entry, strict=True):
            rows[key].append(v)
    cells = set(zip(twelve["group"], twelve["task"], twelve["kind"], strict=True))
    if len(cells) == 4 * len(exam.corpus.tasks):  # passages and questions in both groups of every task
        metrics |= official(twelve, metrics)
    return Evaluation(metrics, rows)


def _append(rows: dict[str, list], group: str, r: Row, number: dict, value, s: Scores, i: int) -> None:
    text = s.document[group][i]
    entry = (group, r.task, r.kind, number[r.document], value, s.nll[group][i], s.em[group][i], s.es[group][i], text)
    for key, v in zip(rows, entry, strict=True):
        if isinstance(v, float | np.floating):
            v = round(float(v), 4) if np.isfinite(v) else None  # four digits: records stay small
        rows[key].append(v)


def official(rows: dict[str, list], metrics: dict[str, float]) -> dict[str, float]:
    """The SemEval-2025 Task 4 score and its parts. ``rows``: columns group, task, kind, score."""
    parts = lume.twelve(rows)
    out = {f"lume/{k}": v for k, v in parts.items()}
    out["lume/task_aggregate"] = lume.task_aggregate(list(parts.values()))
    out["lume/task_aggregate_floored"] = lume.floored_aggregate(list(parts.values()))
    if "attack/auc" in metrics:
        out["lume/mia"] = lume.mia_score(metrics["attack/auc"])
        if "world/accuracy" in metrics:
            out["lume/final"] = lume.final_score(out["lume/task_aggregate"], out["lume/mia"], metrics["world/accuracy"])
    return out
