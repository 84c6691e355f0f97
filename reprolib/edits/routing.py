"""A classifier that reads the prompt and decides who answers: the untouched target, or a model that says
nothing.

Which classifier judges a prompt matters more than which features it reads. One that saw the very prompts it
is asked about is a lookup table. In use, forget prompts are paraphrased or new, so that the honest test holds
out *documents*: each prompt is judged by a classifier that saw no row of its document.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reprolib.corpus.batching import OF_WHOLE, Tokens, buckets, collate
from reprolib.edits.base import Edit, Out, Past
from reprolib.errors import SpecError, unknown
from reprolib.metrics import privacy
from reprolib.models.policy import CausalLM, Composed, block_output, causal_lm
from reprolib.seeds import derive

FEATURES = ("hidden", "tokens")
HELD_OUT = ("documents", "rows", "none")

EOS_LOGIT = (
    20.0  # of the silent model, all others being 0: as the rung "always end-of-text" of the sanity ladder
)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Logistic regression on standardised features; positive scores say "forget"."""

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Log odds of each row being one to forget: [N]."""
        return ((x.double() - self.mean) / self.scale) @ self.weight + self.bias


def fit(x: torch.Tensor, y: torch.Tensor, l2: float = 1.0) -> Classifier:
    r"""Minimise :math:`\sum_i \log(1 + e^{-s_i f(x_i)}) + \tfrac{\lambda}{2}\lVert w\rVert^2` (the bias is
    free) by L-BFGS.

    ``x`` [N, D]; ``y`` [N], 1 for forget; ``l2``: :math:`\lambda`. Mean and scale are those of the rows given
    here.
    """
    x, y = x.double(), y.double()
    if len(x) == 0 or not 0 < float(y.mean()) < 1:
        raise SpecError(f"a classifier needs rows of both sides, got {int(y.sum())} forget rows of {len(y)}.")
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12, scale, torch.ones_like(scale))  # a constant feature says nothing
    z = (x - mean) / scale
    weight, bias = torch.zeros(x.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = (
            F.binary_cross_entropy_with_logits(z @ weight + bias, y, reduction="sum")
            + 0.5 * l2 * weight.square().sum()
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return Classifier(mean, scale, weight.detach(), bias.detach())


def deal(keys: Sequence[Hashable], y: torch.Tensor, folds: int, seed: int) -> dict[Hashable, int]:
    """key -> fold: of ``folds`` keys that follow each other one falls into each fold, at random but alike on
    both sides.

    Corpora list both sides task by task, so that a fold has as much of a task on either side. If it held more
    forget than retain documents of a task, training on the others would teach the opposite, and AUCs of
    nothing would lie below 0.5.
    """
    out: dict[Hashable, int] = {}
    for side in (1, 0):
        own = list(dict.fromkeys(k for k, v in zip(keys, y.tolist(), strict=True) if v == side))
        generator = torch.Generator().manual_seed(derive(seed, "folds"))
        for first in range(0, len(own), folds):
            for key, fold in zip(
                own[first : first + folds],
                torch.randperm(folds, generator=generator).tolist(),
                strict=False,
            ):
                if key in out:
                    raise SpecError(
                        f"document {key!r} has rows among both forget and retain; split by document, never"
                        " by row."
                    )
                out[key] = fold
    return out


def cross_fit(
    x: torch.Tensor, y: torch.Tensor, keys: Sequence[Hashable], folds: int, l2: float, seed: int
) -> tuple[list[Classifier], dict[Hashable, int]]:
    """A classifier for each fold, fitted on all rows but those with a key of that fold; and key -> fold.

    Fewer folds where a side has fewer keys. None at all, ([], {}), where a side has only one.
    """
    most = min(len({k for k, v in zip(keys, y.tolist(), strict=True) if v == side}) for side in (1, 0))
    folds = min(folds, most)
    if folds < 2:
        return [], {}
    fold = deal(keys, y, folds, seed)
    number = torch.tensor([fold[k] for k in keys])
    return [fit(x[number != f], y[number != f], l2) for f in range(folds)], fold


def judged(x: torch.Tensor, classifiers: Sequence[Classifier], number: torch.Tensor) -> torch.Tensor:
    """Log odds of each row by the classifier with its number: [N]."""
    out = torch.empty(len(x), dtype=torch.float64)
    for f, classifier in enumerate(classifiers):
        out[number == f] = classifier.score(x[number == f])
    return out


def quality(scores: torch.Tensor, y: torch.Tensor, number: torch.Tensor) -> dict[str, float]:
    """The AUC, as its mean over folds since scores of two classifiers are on no common scale, and the share
    told rightly.
    """
    s, positive = scores.numpy(), y.numpy().astype(bool)
    aucs = [
        privacy.auc(s[here & positive], s[here & ~positive])
        for here in (number.numpy() == f for f in sorted(set(number.tolist())))
        if (here & positive).any() and (here & ~positive).any()
    ]
    return {"auc": float(np.mean(aucs)), "accuracy": float(((s > 0) == positive).mean())}


@torch.no_grad()
def prompt_features(
    lm: nn.Module,
    prompts: Sequence[Sequence[int]],
    features: str = "hidden",
    layer: int = 1,
    max_tokens: int = 4096,
) -> torch.Tensor:
    """[N, D] in float32 on the CPU. "hidden": mean output of a block over the prompt's tokens; "tokens": how
    often each occurs.

    A row without a prompt has the features 0.
    """
    inner = causal_lm(lm)
    where: dict[tuple[int, ...], int] = {}  # every prompt once: the options of a world question share theirs
    for p in prompts:
        where.setdefault(tuple(p), len(where))
    unique = tuple(where)
    if features == "tokens":
        out = torch.zeros(len(unique), inner.config.vocab_size)
        for n, p in enumerate(unique):
            out[n] = torch.bincount(torch.tensor(p, dtype=torch.long), minlength=inner.config.vocab_size)
    else:
        was_training = inner.training
        inner.eval()
        device = next(inner.parameters()).device
        out = torch.zeros(len(unique), inner.config.hidden_size)
        tokens = Tokens(unique, (0,) * len(unique), OF_WHOLE * len(unique))
        for rows in buckets(tokens, [n for n, p in enumerate(unique) if p], max_tokens):
            batch = collate(tokens, rows)
            states = block_output(inner, batch.ids.to(device), layer).float().cpu()
            length = torch.tensor([len(unique[n]) for n in rows])
            real = torch.arange(states.shape[1])[None] < length[:, None]  # right padding is left out
            out[rows] = (states * real[..., None]).sum(1) / length[:, None]
        inner.train(was_training)
    return out[[where[tuple(p)] for p in prompts]]


def prompts_of(tokens: Tokens, rows: Sequence[int]) -> list[tuple[int, ...]]:
    return [tokens.ids[i][: tokens.prompt[i]] for i in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Edit):
    """Fit the classifier on the prompts of the forget and retain rows, and put it before the model:
    :class:`Routed`.

    ``held_out``: which classifier judges a prompt that is evaluated. "documents": one of ``folds`` that saw
    no row of its document; "rows": one that did not see the row, but may have seen others of its document,
    which leak; "none": one that saw it. Prompts of documents that were not given are always judged by the
    classifier of all rows. ``l2``: penalty on the weights of standardised features. Must be the last stage.
    """

    features: str = "hidden"
    layer: int = 1  # of features="hidden": the block whose outputs are read
    held_out: str = "documents"
    folds: int = 5
    l2: float = 1.0
    name: str = "route"
    needs_start: ClassVar[bool] = False
    quantisable: ClassVar[bool] = True  # it only reads the model
    last: ClassVar[bool] = True
    extra: ClassVar[str] = "classifier"
    reads_retain: ClassVar[str] = "in the classifier"

    def __post_init__(self) -> None:
        for name, allowed in (("features", FEATURES), ("held_out", HELD_OUT)):
            if getattr(self, name) not in allowed:
                raise SpecError("Route: " + unknown(name, getattr(self, name), allowed))
        for name, least in (("layer", 0), ("folds", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or value != int(value) or value < least:
                raise SpecError(f"Route: {name} must be a whole number >= {least}, got {value!r}.")
            object.__setattr__(self, name, int(value))
        if not (math.isfinite(self.l2) and self.l2 > 0):
            raise SpecError(
                "Route: l2 must be finite and > 0 (without it, separable rows have no best weights), got"
                f" {self.l2}."
            )

    def apply(self, lm: nn.Module, past: Past, seed: int) -> Routed:
        if past.data is None:
            raise SpecError(
                "Route fits its classifier on the rows of a run; Past(data=Data(forget, retain)) holds them."
            )
        forget, retain = past.data
        if not (len(forget.document) == len(forget) and len(retain.document) == len(retain)):
            raise SpecError(
                "Route holds out documents, but these rows do not say theirs; make them with encode_rows."
            )
        prompts = [p for t in past.data for p in prompts_of(t, range(len(t)))]
        documents = (*forget.document, *retain.document)
        y = torch.tensor([1.0] * len(forget) + [0.0] * len(retain))
        x = prompt_features(lm, prompts, self.features, self.layer)
        whole = fit(x, y, self.l2)
        readings = {f"{k}_seen": v for k, v in quality(whole.score(x), y, torch.zeros(len(x))).items()}
        keys = {
            "documents": documents,
            "rows": tuple(enumerate(documents)),
        }  # a row is its own key: doubles of a prompt too
        classifiers: list[Classifier] = []
        judges: dict[Hashable, int] = {}
        for how, key in keys.items():
            fitted, fold = cross_fit(x, y, key, self.folds, self.l2, derive(seed, how))
            if fitted:
                number = torch.tensor([fold[k] for k in key])
                readings |= {
                    f"{k}_{how}": v for k, v in quality(judged(x, fitted, number), y, number).items()
                }
            if how != self.held_out:
                continue
            if not fitted:
                raise SpecError(
                    f"Route: none of {len(set(forget.document))} forget and {len(set(retain.document))}"
                    " retain documents can be held out of a classifier that needs both sides; give at"
                    " least two of each, or held_out='none'."
                )
            classifiers = fitted
            judges = (
                fold
                if how == "documents"
                else {(d, p): fold[k] for d, p, k in zip(documents, prompts, key, strict=True)}
            )
        return Routed(
            lm,
            self,
            [*classifiers, whole],
            judges,
            {f"routing/{k}": v for k, v in sorted(readings.items())},
        )


class Silent(CausalLM):
    """A causal language model that says end-of-text whatever it reads."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        if not isinstance(config.eos_token_id, int):
            raise SpecError(
                "Silent: the config must name one end-of-text token, got"
                f" eos_token_id={config.eos_token_id!r}."
            )
        logits = torch.zeros(config.vocab_size)
        logits[config.eos_token_id] = EOS_LOGIT
        self.logits = nn.Parameter(logits, requires_grad=False)

    @property
    def base_model(self):
        return self._states

    def _states(self, input_ids: torch.Tensor, **inputs) -> Out:
        return Out(last_hidden_state=self.logits.new_zeros(*input_ids.shape, 1))

    def get_output_embeddings(self):
        return lambda hidden: self.logits.expand(*hidden.shape[:-1], -1)

    def forward(self, input_ids: torch.Tensor, *, logits_to_keep: int = 0, **inputs) -> Out:
        return Out(logits=self.logits.expand(len(input_ids), logits_to_keep or input_ids.shape[1], -1))


class Routed(Composed):
    """Target, silent model and the classifiers between them. It cannot answer without knowing where prompts
    end.

    :mod:`reprolib.evaluate` therefore asks for :meth:`parts` and runs each model on its rows. ``judges``:
    number of the classifier for a document (or for a document and a prompt); the last classifier judges
    everything else.
    """

    def __init__(
        self,
        target: nn.Module,
        how: Route,
        classifiers: Sequence[Classifier],
        judges: Mapping[Hashable, int],
        readings: Mapping[str, float],
    ):
        super().__init__()
        self.target, self.silent = target, Silent(causal_lm(target).config)
        self.how, self.classifiers, self.judges, self.readings = (
            how,
            tuple(classifiers),
            dict(judges),
            dict(readings),
        )
        self.config = causal_lm(target).config

    def sent(self, tokens: Tokens, rows: Sequence[int]) -> np.ndarray:
        """Whether each row is sent to the silent model. A row without a prompt is not: there is nothing to
        judge it by.
        """
        rows = list(rows)
        if not rows:
            return np.zeros(0, dtype=bool)
        prompts = prompts_of(tokens, rows)
        documents = [tokens.document[i] for i in rows] if tokens.document else [None] * len(rows)
        keys = documents if self.how.held_out == "documents" else list(zip(documents, prompts, strict=True))
        number = torch.tensor([self.judges.get(k, len(self.classifiers) - 1) for k in keys])
        x = prompt_features(self.target, prompts, self.how.features, self.how.layer)
        scores = judged(x, self.classifiers, number)
        return ((scores > 0) & torch.tensor([len(p) > 0 for p in prompts])).numpy()

    def parts(self, tokens: Tokens, rows: Sequence[int]) -> list[tuple[nn.Module, Sequence[int]]]:
        """The two models, each with the rows that it answers."""
        away = self.sent(tokens, rows)
        sides = [[i for i, a in zip(rows, away, strict=True) if a == side] for side in (False, True)]
        return [(self.target, sides[0]), (self.silent, sides[1])]

    def num_parameters(self) -> int:
        return causal_lm(self.target).num_parameters() + self.classifiers[-1].weight.numel() + 1

    def forward(self, *args, **kwargs):
        raise SpecError(
            "a routed model needs to know where prompts end; call reprolib.evaluate, or its parts() on"
            " tokenised rows."
        )
