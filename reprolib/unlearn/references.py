"""What a stage compares with or goes back to: reference log-probabilities, start weights, kept adapters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from reprolib.corpus.batching import Tokens
from reprolib.edits import Edit
from reprolib.edits.base import Past
from reprolib.errors import SpecError
from reprolib.models import device
from reprolib.models.policy import Cached, Live, Policy, adapted, cache_reference, causal_lm, quantised
from reprolib.objectives import References
from reprolib.recipes.base import Stage
from reprolib.seeds import derive


def start_weights(lm: nn.Module, stages: Sequence[Stage | Edit]) -> dict[str, torch.Tensor]:
    """Copies of the full-precision weights, if a stage starts again from them or an edit needs them."""
    wanted = any(s.restart if isinstance(s, Stage) else s.needs_start for s in stages)
    if not wanted or quantised(lm):
        return {}
    return {k: v.detach().clone() for k, v in lm.named_parameters() if v.is_floating_point()}


def attached(lm: nn.Module, stages: Sequence[Stage | Edit], past: Past, seed: int) -> nn.Module:
    """A quantised model with the adapter that these stages put beside its weights (values come from a
    checkpoint).
    """
    for number, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            lm = stage.apply(lm, past, derive(seed, number))
        else:
            lm = stage.trainable.attach(past.restore(lm) if stage.restart else lm, derive(seed, number))
    return lm


def keep(stage: Stage, policy: Policy, past: Past, forget: Tokens) -> None:
    """Put aside what later stages need of this one."""
    if stage.keep == "helper":
        with device.autocast():
            cached = cache_reference(policy, forget, "logits")
        past.kept |= {f"helper/{i}": x for i, x in enumerate(cached.logits or ())}
    elif stage.keep:
        from peft.utils import get_peft_model_state_dict

        name = stage.keep.removeprefix("adapter:")
        tensors = get_peft_model_state_dict(policy.lm, save_embedding_layers=False)
        past.kept |= {f"{name}/{k}": v.detach().cpu().clone() for k, v in tensors.items()}


def helper_of(past: Past) -> Cached:
    """The logits that a stage with keep="helper" left on the forget rows."""
    logits = [
        v
        for _, v in sorted(
            (int(k.removeprefix("helper/")), v) for k, v in past.kept.items() if k.startswith("helper/")
        )
    ]
    if not logits:
        raise SpecError("a term reads a helper model, but no stage before it has keep='helper'.")
    return Cached(logits=tuple(logits))


CACHE_BYTES = 2 << 30  # reference logits beyond this are computed in every step instead of kept


def make_references(
    policy: Policy,
    stages: Sequence[Stage | Edit],
    forget: Tokens,
    retain: Tokens,
    others: Mapping[str, Tokens] | None = None,
) -> References:
    """What the stages' terms need of the weights before unlearning, as cheaply as it can be had.

    Sequence log-probabilities and hidden states are always computed once and kept. Logits are kept if they
    fit into CACHE_BYTES; else the adapter is switched off (a single LoRA stage) or a frozen copy is run.
    """
    kept: dict[str, Cached | Live] = {}
    others = others or {}
    vocabulary = causal_lm(policy.lm).config.vocab_size
    training = [s for s in stages if isinstance(s, Stage)]
    for side, tokens in (("forget", forget), ("retain", retain)):
        terms = [t for t in (getattr(s.objective, side) for s in training) if t is not None]
        needs = {t.needs for t in terms if t.needs}
        layers = {t.layer for t in terms if t.needs == "hidden"}
        if len(layers) > 1:
            raise SpecError(
                f"the {side} terms read the starting model at different layers ({sorted(layers)}); use one"
                " layer."
            )
        size = 4 * vocabulary * sum(tokens.n_labels(i) for i in range(len(tokens)))
        if "logits" in needs and size > CACHE_BYTES:
            if "hidden" in needs:
                raise SpecError(
                    f"the {side} terms read logits too large to keep, and hidden states as well; give them"
                    " stages of one kind."
                )
            # (a trainable that takes its adapter out of the base, as PiSSA does, has another model there when
            # it is off)
            adapter_off = len(stages) == 1 and training[0].trainable.adapter and training[0].trainable.blank
            kept[side] = Live(None if adapter_off else copy.deepcopy(policy).eval().requires_grad_(False))
        elif needs:
            kept[side] = cache_reference(policy, tokens, needs, next(iter(layers), None))
    compared = {
        t.other for t in (s.objective.forget for s in training) if t is not None and t.other and t.needs
    }
    if len(compared) > 1:
        raise SpecError(
            f"the forget terms compare several kinds of other answers with the start ({sorted(compared)});"
            " use one."
        )
    for term in (s.objective.forget for s in training):
        if term is not None and term.other and term.other not in others:
            raise SpecError(
                f"{type(term).__name__} reads other answers of kind {term.other!r}; hand them in as"
                " others={...}."
            )
        if term is not None and term.other and term.needs:
            kept["other"] = cache_reference(policy, others[term.other], "sequence")
    return References(**kept)


def detach(lm: nn.Module) -> nn.Module:
    """Merge a LoRA adapter into a full-precision base; on a quantised or sharded base it stays beside the
    weights.
    """
    if adapted(lm):
        return lm if quantised(lm) or device.sharded() else lm.merge_and_unload()
    return lm
