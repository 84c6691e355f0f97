"""A recipe: a named tuple of stages with a card. Every method of the study is one."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reprolib.adapters.base import LoRA, Trainable
from reprolib.edits import Edit
from reprolib.edits.weights import MergeAdapters
from reprolib.errors import SpecError, unknown
from reprolib.objectives import Objective, Term
from reprolib.optim import Optimizer

Pairing = Literal["forget", "retain", "paired", "interleaved", "alternating"]

PAIRINGS: dict[str, tuple[str, ...]] = {  # which rows the steps of a stage see
    "forget": ("forget",),
    "retain": ("retain",),
    "paired": ("forget", "retain"),
    "interleaved": ("forget", "retain"),
    "alternating": ("forget", "retain"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """In which order and for how long rows are seen.

    ``pairing``: "paired": every step has as many retain as forget rows, drawn in shuffled cycles; "forget",
    "retain": rows of one side only; "interleaved": the forget rows in chunks of ``chunk``, ``epochs`` passes
    over each chunk before the next, every forget step followed by ``ratio`` steps of retain rows (AILS-NTUA's
    SUGD); "alternating": in chunks too, ``epochs`` passes of forget steps and then as many over a random
    ``share`` of the retain rows (their AGAD).
    """

    epochs: float = (
        5  # passes over the forget rows (over the retain rows if pairing is "retain"); may be fractional
    )
    batch_size: int = 16  # rows per side and optimizer step
    micro_tokens: int = (
        4096  # padded tokens per forward pass; smaller needs less memory, the maths stays the same
    )
    pairing: Pairing = "paired"
    warmup: float = 0.0  # share of the steps over which the learning rate rises linearly
    decay: Literal["constant", "linear"] = "constant"
    clip: float | None = 1.0  # global gradient norm
    chunk: int = field(default=32, metadata={"later": True})
    ratio: int = field(default=7, metadata={"later": True})
    share: float = field(default=0.25, metadata={"later": True})

    def __post_init__(self) -> None:
        if not (_number(self.epochs) and 0 < self.epochs < math.inf):
            raise SpecError(
                f"schedule: epochs must be > 0 and finite, got {self.epochs!r}; 0.5 is half a pass."
            )
        counts = (
            ("batch_size", "rows", 1),
            ("chunk", "rows", 1),
            ("ratio", "steps", 0),
            ("micro_tokens", "tokens", 1),
        )
        for name, unit, least in counts:
            value = getattr(self, name)
            if not (_number(value) and least <= value < math.inf and value % 1 == 0):
                raise SpecError(
                    f"schedule: {name} must be a whole number of {unit} >= {least}, got {value!r}."
                )
            object.__setattr__(self, name, int(value))
        if not (_number(self.warmup) and 0 <= self.warmup <= 1):
            raise SpecError(f"schedule: warmup is a share of the steps in [0, 1], got {self.warmup!r}.")
        if not (_number(self.share) and 0 < self.share <= 1):
            raise SpecError(
                f"schedule: share is a part of the retain rows in (0, 1], got {self.share!r}; 0.25 is a"
                " quarter."
            )
        if self.clip is not None and not (_number(self.clip) and 0 < self.clip < math.inf):
            raise SpecError(
                "schedule: clip, a gradient norm, must be > 0 and finite, or None for no clipping; got"
                f" {self.clip!r}."
            )
        if self.pairing not in PAIRINGS:
            raise SpecError(unknown("pairing", self.pairing, PAIRINGS))
        if self.decay not in ("constant", "linear"):
            raise SpecError(unknown("decay", self.decay, ("constant", "linear")))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """objective x trainable x optimizer x schedule.

    ``restart``: begin from the weights before unlearning instead of those of the stage before. ``keep``: what
    later stages need of this one: "adapter:NAME" (a LoRA adapter, for merging) or "helper" (its logits on the
    forget rows).
    """

    name: str
    objective: Objective
    trainable: Trainable
    optimizer: Optimizer
    schedule: Schedule
    restart: bool = field(default=False, metadata={"later": True})
    keep: str = field(default="", metadata={"later": True})

    def __post_init__(self) -> None:
        if not isinstance(self.trainable, Trainable):
            raise SpecError(
                f"stage {self.name!r}: trainable must be one of reprolib.adapters, e.g. named('lora-16'),"
                f" got {self.trainable!r}."
            )
        if self.keep not in ("", "helper"):
            if not re.fullmatch(r"adapter:[A-Za-z_]\w*", str(self.keep)) or self.keep in (
                "adapter:helper",
                "adapter:default",
            ):
                raise SpecError(
                    f"stage {self.name!r}: keep must be '', 'helper', or 'adapter:NAME' with a NAME of"
                    f" letters and digits that is neither 'helper' nor 'default'; got {self.keep!r}."
                )
            if not (self.trainable.adapter and self.trainable.blank):
                raise SpecError(
                    f"stage {self.name!r}: keep={self.keep!r} puts aside a LoRA adapter that means"
                    f" something on the weights before unlearning, and {self.trainable} leaves none; use"
                    " trainable LoRA(init='default')."
                )
        if self.objective.control is not None and (
            self.schedule.pairing != "paired" or self.objective.retain is None
        ):
            raise SpecError(
                f"stage {self.name!r}: {type(self.objective.control).__name__} steers the retain weight by"
                " the retain loss of each step; it needs a retain term and pairing='paired', got"
                f" {self.schedule.pairing!r}."
            )
        has = {"forget": self.objective.forget is not None, "retain": self.objective.retain is not None}
        needs = PAIRINGS[self.schedule.pairing]
        missing = [s for s in needs if not has[s]]
        extra = [s for s in has if has[s] and s not in needs]
        if missing or extra:
            raise SpecError(
                f"stage {self.name!r}: pairing={self.schedule.pairing!r} uses {list(needs)} rows, "
                f"but the objective has terms for {[s for s in has if has[s]]}."
            )

    @property
    def quantisable(self) -> bool:
        """Whether it can train on a base in 4 or 8 bits."""
        return (
            self.trainable.adapter and self.trainable.blank
        )  # other adapters replace the base weights as well

    @property
    def terms(self) -> tuple[Term, ...]:
        """The forget and the retain term, as far as there are any."""
        return tuple(t for t in (self.objective.forget, self.objective.retain) if t is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a reader must know about a method before using it."""

    name: str
    label: str
    paper: str
    citation: str  # key in references.bib
    idea: str  # one sentence
    published: str  # settings and scores as published, and where from
    cost: str  # forward and backward passes per step
    trap: str
    family: str = ""  # one of FAMILIES

    def __post_init__(self) -> None:
        if self.family and self.family not in FAMILIES:
            raise SpecError(f"card of {self.name!r}: " + unknown("family", self.family, FAMILIES))


FAMILIES = (
    "likelihood",
    "chains",
    "preference",
    "weighting",
    "distillation",
    "representation",
    "second order",
    "localised",
    "weights",
    "competition",
    "inference",
    "baseline",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A card, and a function from options to stages. Raise ``version`` when the meaning of a run changes."""

    card: Card
    stages: Callable[..., tuple[Stage | Edit, ...]]
    version: int = 1
    start: Literal["target", "twin", "random", "always-eos"] = (
        "target"  # the weights that the stages begin with
    )
    defaults: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.stages).parameters
        object.__setattr__(self, "defaults", {k: p.default for k, p in parameters.items()})

    @property
    def cost_class(self) -> str:
        """Most forward + backward passes of a step by default (forget, other answers, retain), and what comes
        on top.
        """
        stages = self.build({})
        training = [s for s in stages if isinstance(s, Stage)]
        added = [
            s.extra for s in stages if isinstance(s, Edit) and s.extra
        ]  # what an edit costs beside training
        if not training:
            return " + ".join(added) or ("weights only" if stages else "none")
        sides = [s.terms for s in training]
        passes = [sum(t.passes for t in terms) for terms in sides]
        chunked = [s.schedule.pairing in ("interleaved", "alternating") for s in training]
        most = max(1 if c else n for n, c in zip(passes, chunked, strict=True))  # there a step sees one side
        extra = [
            "reference" if any(t.needs for terms in sides for t in terms) else "",
            "curvature" if any(s.optimizer.second_order for s in training) else "",
            "importance" if any(s.trainable.measures_rows for s in training) else "",
        ]
        return " + ".join([f"{most} pass{'es' if most > 1 else ''}", *(e for e in extra if e), *added])

    def build(self, options: Mapping[str, Any]) -> tuple[Stage | Edit, ...]:
        """The stages for these options. Unknown names and wrong types raise :class:`SpecError`."""
        options = dict(options)
        whole = {
            k for k, p in inspect.signature(self.stages).parameters.items() if p.annotation in (int, "int")
        }
        for key, value in options.items():
            if key not in self.defaults:
                raise SpecError(f"method {self.card.name!r}: " + unknown("option", key, self.defaults))
            default = self.defaults[key]
            number = isinstance(default, int | float) and not isinstance(default, bool)
            if number and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise SpecError(f"method {self.card.name!r}: option {key!r} must be a number, got {value!r}.")
            if isinstance(default, str) and not isinstance(value, str):
                raise SpecError(
                    f"method {self.card.name!r}: option {key!r} must be a string like {default!r}, got"
                    f" {value!r}."
                )
            if isinstance(default, bool) and not isinstance(value, bool):
                raise SpecError(
                    f"method {self.card.name!r}: option {key!r} must be true or false, got {value!r}."
                )
            if key in whole and isinstance(value, float):
                if not math.isfinite(value):
                    raise SpecError(
                        f"method {self.card.name!r}: option {key!r} takes finite numbers only, got {value}."
                    )
                if value.is_integer():
                    options[key] = int(value)  # 16.0, as YAML and papermill may give it
        stages = self.stages(**{**self.defaults, **options})
        for key, value in options.items():  # after the parts have said what they allow
            if _number(value) and not math.isfinite(value):
                raise SpecError(
                    f"method {self.card.name!r}: option {key!r} takes finite numbers only, got {value}."
                )
            if key in whole and isinstance(value, float):
                raise SpecError(
                    f"method {self.card.name!r}: option {key!r} must be a whole number, got {value}."
                )
        check(stages)
        return stages


def check(stages: Sequence[Stage | Edit]) -> None:
    """Raise :class:`SpecError` where a stage or an edit needs what no stage before it leaves."""
    if not isinstance(stages, tuple | list):
        raise SpecError(
            f"a recipe's stages must be a tuple of stages and edits, got {type(stages).__name__}; write"
            " (stage,)."
        )
    kept: dict[str, Stage] = {}
    for s in stages[:-1]:
        if isinstance(s, Edit) and s.last:
            raise SpecError(
                f"{s.name!r} puts several models in the place of one, which no stage can go on from; put"
                " it last."
            )
    for number, s in enumerate(stages):
        if isinstance(s, Stage):
            if s.objective.forget is not None and s.objective.forget.helper and "helper" not in kept:
                raise SpecError(
                    f"stage {s.name!r}: {type(s.objective.forget).__name__} reads a helper model, but no"
                    " stage before it has keep='helper'; put one there."
                )
            if s.keep:
                kept[s.keep] = s
        elif isinstance(s, MergeAdapters):
            missing = [a for a in s.adapters if f"adapter:{a}" not in kept]
            if missing:
                raise SpecError(
                    f"MergeAdapters {s.name!r}: no stage before it keeps the adapter(s) {missing}; kept"
                    f" are {sorted(k.removeprefix('adapter:') for k in kept if k != 'helper')}. Give the"
                    " stages keep='adapter:NAME'."
                )
            for a in s.adapters:
                lora = kept[f"adapter:{a}"].trainable
                if isinstance(lora, LoRA) and (lora.rank, lora.alpha) != (s.rank, s.alpha):
                    raise SpecError(
                        f"MergeAdapters {s.name!r}: adapter {a!r} has rank {lora.rank} and alpha"
                        f" {lora.alpha}, the merge rank {s.rank} and alpha {s.alpha}; give all of them the"
                        " same."
                    )
        elif not isinstance(s, Edit):
            raise SpecError(
                f"part {number} of a recipe must be a Stage or an edit (reprolib.edits), got {s!r}."
            )
