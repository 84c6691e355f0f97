"""From a model to numbers: one teacher-forced pass, one generation pass, per-row scores kept.

The teacher-forced pass feeds NLL, exact memorisation, extraction strength, the loss attack, the choice
questions and KL. It also begins the generation pass: as long as the argmax under teacher forcing equals the
label, greedy decoding must produce exactly these tokens, and the first other argmax is its next one. Only what
comes after that is generated; nothing, where all labels are right, EOS included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from reprolib.corpus.batching import Tokens, as_prompt, collate, encode, encode_rows
from reprolib.corpus.rows import Corpus, Row, select
from reprolib.errors import SpecError
from reprolib.metrics import lume, memorisation, privacy, utility
from reprolib.models import device
from reprolib.models.policy import Cached, Policy, cache_reference, causal_lm, score
from reprolib.seeds import derive

MAX_NEW_TOKENS = 256  # the organisers' limit
WRITTEN = ("forget", "retain")  # groups whose prompts are answered by generation


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
            with device.autocast():
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


@device.inference
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
                    kl[i] = _divergence(scored.logits[here], exam.target.logits[i - retain.start])
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


def _divergence(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Mean KL(target || model) over the answer tokens of a row, in nats."""
    from reprolib.objectives.likelihood import kl_divergence

    return float(kl_divergence(logits, target.to(logits.device)).mean())


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


@device.inference
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
class TokenStatistics:
    """Of the T labelled positions of one text: log p(label), and mean and standard deviation of log p over the vocabulary.

    All in nats, [T]; ``answer``: how many of the last positions belong to the answer (EOS included).
    """

    logp: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray
    answer: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Numbers of one model: ``metrics`` by name, and ``rows``: columns of per-row scores (no text)."""

    metrics: dict[str, float]
    rows: dict[str, list]


@device.inference
def token_statistics(lm: nn.Module, tokens: Tokens, rows: Iterable[int], max_tokens: int = 4096) -> list[TokenStatistics]:
    """One teacher-forced pass over the chosen rows; results in their order."""
    rows = list(rows)
    found: dict[int, TokenStatistics] = {}
    Policy(lm).eval()
    for model, own in parts(lm, tokens, rows):
        for indices, scored in score(Policy(model), tokens, own, max_tokens):
            logp_all = scored.logits.float().log_softmax(-1)
            p = logp_all.exp()
            mu = (p * logp_all).sum(-1)
            variance = (p * logp_all.square()).sum(-1) - mu.square()
            columns = [x.double().cpu().numpy() for x in (scored.token_logp, mu, variance.clamp(min=0).sqrt())]
            at = 0
            for i in indices:
                size = tokens.n_labels(i)
                logp, mean, sigma = (c[at : at + size] for c in columns)
                found[i] = TokenStatistics(logp, mean, sigma, tokens.n_answer(i))
                at += size
    return [found[i] for i in rows]


@dataclass
class Subject:
    """One model under examination. What several probes need is computed once and kept here.

    ``reference``: gives the "target" (the model before unlearning) or the "twin" (retrained without the forget rows), or None
    where there is no such model. ``seed`` decides every choice and every sample; ``max_new_tokens`` and ``batch_tokens`` are
    limits of the shared passes.
    """

    lm: nn.Module
    exam: Examination
    seed: int = 0
    reference: Callable[[str], nn.Module | None] = lambda which: None
    progress: bool = True
    title: str = "evaluate"
    max_new_tokens: int = MAX_NEW_TOKENS
    batch_tokens: int = 8192  # padded tokens in a batch of generation; half as many in a teacher-forced one
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """(group, row) in the order of all per-row columns: forget, retain, holdout completions, world."""
        groups = {**self.exam.rows, "world": self.exam.corpus["world"]}
        return [(g, r) for g, rows in groups.items() for r in rows]

    @property
    def keys(self) -> dict[str, list]:
        """The columns that say what a row is. Documents are running numbers, so that no text of the data leaves with a record."""
        number = {d: n for n, d in enumerate(dict.fromkeys(r.document for g in self.exam.corpus.groups.values() for r in g))}
        return {
            "group": [g for g, _ in self.rows],
            "task": [r.task for _, r in self.rows],
            "kind": [r.kind for _, r in self.rows],
            "document": [number[r.document] for _, r in self.rows],
        }

    def column(self, values: Mapping[int, float] | Mapping[str, Iterable[float]]) -> list[float | None]:
        """A per-row column of a record. ``values``: by position in :attr:`rows`, or one array for each of some groups."""
        out: list[float | None] = [None] * len(self.rows)
        if values and isinstance(next(iter(values)), str):
            groups = [g for g, _ in self.rows]
            values = {groups.index(g) + i: v for g, column in values.items() for i, v in enumerate(column)}  # type: ignore
        for i, v in values.items():
            if v is not None and np.isfinite(v):
                out[i] = round(float(v), 4)
        return out

    @property
    def _forward(self) -> int:
        return max(1, self.batch_tokens // 2)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def scores(self) -> Scores:
        """The core teacher-forced pass."""
        return self.kept("scores", lambda: teacher_forced(self.lm, self.exam, self._forward))

    @property
    def texts(self) -> list[TokenStatistics]:
        """Token statistics of the forget, retain and holdout rows: completion rows whole, question rows by their answers."""
        n = sum(len(r) for r in self.exam.rows.values())
        return self.kept("texts", lambda: token_statistics(self.lm, self.exam.tokens, range(n), self._forward))

    @property
    def generations(self) -> dict[str, list[str]]:
        """Greedy continuations of the forget and retain prompts."""
        return self.kept("generations", self._generate)

    def _generate(self) -> dict[str, list[str]]:
        rows = [(g, i) for g in WRITTEN for i in range(len(self.exam.rows[g]))]
        out = {g: [""] * len(self.exam.rows[g]) for g in WRITTEN}
        for model, own in self.scores.parts:
            chosen = [rows[i] for i in own if i < len(rows)]  # rows of both groups are the first of the exam's tokens
            prompts = [self.exam.rows[g][i].input for g, i in chosen]
            begun = [self.scores.begun[g][i] for g, i in chosen]
            texts = generate(
                model, self.exam.tokenizer, prompts, begun=begun, max_new_tokens=self.max_new_tokens,
                batch_tokens=self.batch_tokens, progress=self.progress, title=self.title,
            )  # fmt: skip
            for (g, i), text in zip(chosen, texts, strict=True):
                out[g][i] = text
        return out

    def of(self, lm: nn.Module) -> Subject:
        """The same examination of another model (quantized, trained further)."""
        return replace(self, lm=lm, _kept={})


def evaluate(lm: nn.Module, exam: Examination, *, progress: bool = True, title: str = "evaluate") -> Evaluation:
    """All metrics of the study for one model (SemEval/LUME score, memorisation, attack, utility, KL): see :func:`core`."""
    return core(Subject(lm, exam, progress=progress, title=title))


def core(subject: Subject) -> Evaluation:
    """The core evaluation, from the passes that the subject shares with the probes.

    ``rows`` has one entry per forget and retain row, in corpus order, then holdout documents and world questions.
    """
    s, exam = subject.scores, subject.exam
    metrics = summarise(s, exam) | getattr(subject.lm, "readings", {})
    written = subject.generations
    measured = {"sc": lume.rouge_l_recall, "qa": lume.knowledge}
    score = {
        g: [measured[r.kind](r.output, text) for r, text in zip(exam.rows[g], texts, strict=True)] for g, texts in written.items()
    }
    world = {"world": s.world} if s.world is not None else {}
    rows = subject.keys | {
        "score": subject.column(score | world),
        "nll": subject.column(s.nll),
        "em": subject.column(s.em),
        "es": subject.column(s.es),
        "text_nll": subject.column(s.document),
    }
    both = [(g, r, v) for g in written for r, v in zip(exam.rows[g], score[g], strict=True)]
    if len({(g, r.task, r.kind) for g, r, _ in both}) == 4 * len(exam.corpus.tasks):  # passages and questions everywhere
        twelve = {
            "group": [g for g, _, _ in both], "task": [r.task for _, r, _ in both], "kind": [r.kind for _, r, _ in both],
            "score": [v for _, _, v in both],
        }  # fmt: skip
        metrics |= official(twelve, metrics) | listed_attack(s, exam)
    return Evaluation(metrics, rows)


@device.inference
def kl_to(target: nn.Module, lm: nn.Module, exam: Examination, max_tokens: int = 4096) -> np.ndarray:
    """Mean KL(target || model) over each retain row's answer, in nats: [rows]. Both models run side by side, for a target whose
    logits on all rows would not fit into memory.
    """
    retain, tokens = exam.parts["retain"], exam.tokens
    out = np.full(len(retain), np.nan)
    reference = Policy(target).eval()
    for model, own in parts(lm, tokens, list(retain)):
        for indices, scored in score(Policy(model).eval(), tokens, own, max_tokens):
            logits = reference(collate(tokens, indices).to(reference.device)).logits
            at = 0
            for i in indices:
                size, answer = tokens.n_labels(i), tokens.n_answer(i)
                here = slice(at + size - answer, at + size)
                out[i - retain.start] = _divergence(scored.logits[here], logits[here])
                at += size
    return out


def listed_attack(s: Scores, exam: Examination) -> dict[str, float]:
    """The organisers' attack, if the release has their lists of members ("attack/auc" has the passages of all tasks)."""
    listed = set(exam.corpus.facts.get("members", ()))  # type: ignore[call-overload]
    members = [-v for r, v in zip(exam.rows["forget"], s.document["forget"], strict=True) if r.id in listed]
    if not members or not exam.corpus["holdout"]:
        return {}
    auc = privacy.auc(members, -s.document["holdout"])
    return {"official/mia_auc": auc, "official/mia": lume.mia_score(auc)}


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
