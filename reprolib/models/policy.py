"""The one way in which a model is called for training and scoring.

The output head runs on labelled positions only: at a vocabulary of 32,000 the logits of prompt and
padding are most of the memory and much of the time of a step, and no loss or metric looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import nn

from reprolib.corpus.batching import Batch, Tokens, buckets, collate
from reprolib.errors import SpecError
from reprolib.models import device

if TYPE_CHECKING:
    from peft import PeftModel


class CausalLM(nn.Module):
    """What this package asks of a causal language model. Those of transformers have all of it without being
    one of these, which :func:`causal_lm` tells the type checker.
    """

    config: Any  # of an architecture's own class, with fields of its own

    @property
    def base_model(self) -> Any:
        """All but the output head: called with ``input_ids``, it gives ``last_hidden_state``."""
        raise NotImplementedError

    def get_output_embeddings(self) -> Any:
        """The output head, from hidden states to logits."""
        raise NotImplementedError

    def get_input_embeddings(self) -> Any:
        raise NotImplementedError

    def num_parameters(self) -> int:
        raise NotImplementedError


class Composed(CausalLM):
    """Several models behind the face of one, as the last edit of a recipe may leave them."""

    readings: Mapping[str, float] = MappingProxyType({})  # metrics of the composition itself

    def parts(self, tokens: Tokens, rows: Sequence[int]) -> list[tuple[nn.Module, Sequence[int]]]:
        """Which model answers which rows: this one all of them, unless it sends some to another."""
        return [(self, rows)]

    def new_cache(self) -> Any:
        """What :func:`reprolib.models.generate.generate` hands in as ``past_key_values``."""
        from transformers import DynamicCache

        return DynamicCache(config=self.config)


class Scored:
    """Logits at the N labelled positions of B rows, and what losses need of them.

    ``logits`` [N, V]; ``labels`` [N]; ``row`` [N], which of the B rows a position belongs to;
    ``index`` [B], the rows' numbers in the data set (keys of cached reference values).
    """

    def __init__(self, logits: torch.Tensor, labels: torch.Tensor, row: torch.Tensor, index: torch.Tensor):
        self.logits, self.labels, self.row, self.index = logits, labels, row, index

    @cached_property
    def token_logp(self) -> torch.Tensor:
        """log p(label) in nats, fp32: [N]."""
        return -F.cross_entropy(self.logits.float(), self.labels, reduction="none")

    @cached_property
    def sequence_logp(self) -> torch.Tensor:
        """Sum of ``token_logp`` over each row's answer, in nats: [B]."""
        zero = self.token_logp.new_zeros(len(self.index))
        return zero.index_add(0, self.row, self.token_logp)


def labelled_logits(inner: CausalLM, batch: Batch) -> torch.Tensor:
    """The output head at the labelled positions only: [N, V]."""
    # no attention mask: right padding is invisible to real tokens under causal attention
    hidden = inner.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    return inner.get_output_embeddings()(hidden[batch.predict])


SHARDED = "labelled_logits"


def shard(lm: nn.Module) -> None:
    """Divide weights, gradients and optimizer state over the processes, block by block (torch's FSDP2), in
    place.

    Before the optimizer is built: the weights are other objects afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    inner = causal_lm(lm)
    mesh = init_device_mesh(next(inner.parameters()).device.type, (device.processes(),))
    for block in blocks_of(inner):
        fully_shard(block, mesh=mesh)
    fully_shard(inner, mesh=mesh)
    setattr(inner, SHARDED, MethodType(labelled_logits, inner))
    register_fsdp_forward_method(inner, SHARDED)  # FSDP gathers weights for forward alone, unless told


class Policy(nn.Module):
    """A causal language model that answers with :class:`Scored`.

    A module of its own, which `accelerate` can wrap whole.
    """

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm
        inner = causal_lm(lm)
        scaled = [
            k
            for k in ("final_logit_softcapping", "logit_scale", "logits_scaling")
            if getattr(inner.config, k, None)
        ]
        if scaled:
            raise SpecError(
                f"model type {inner.config.model_type!r} changes its logits after the output head"
                f" ({scaled}); the labelled-position head would score it wrongly. Use a model without it"
                " (OLMo, Llama, Qwen, SmolLM)."
            )

    def forward(self, batch: Batch, layer: int | None = None) -> Scored | torch.Tensor:
        """Scores at the labelled positions; with ``layer``, the outputs of that block there, [N, D], and
        nothing above it runs.
        """
        inner = causal_lm(self.lm)
        if layer is not None:
            return block_output(inner, batch.ids, layer)[batch.predict]
        sharded = getattr(inner, SHARDED, None)  # of shard
        logits = labelled_logits(inner, batch) if sharded is None else sharded(batch)
        return Scored(logits, batch.labels, batch.row, batch.index)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class _Reached(Exception):
    """The forward pass has come to the block asked for."""


def blocks_of(inner: CausalLM) -> nn.ModuleList:
    blocks = getattr(inner.base_model, "layers", None)
    if blocks is None:
        raise SpecError(
            f"model type {inner.config.model_type!r} does not keep its blocks as model.layers, so no layer"
            " of it can be read; use OLMo, Llama, Qwen or SmolLM."
        )
    return blocks


def block_output(inner: CausalLM, ids: torch.Tensor, layer: int) -> torch.Tensor:
    blocks = blocks_of(inner)
    if not 0 <= layer < len(blocks):
        raise SpecError(
            f"layer must lie in 0..{len(blocks) - 1} for this model of {len(blocks)} blocks, got {layer}."
        )
    found: list[torch.Tensor] = []

    def stop(module, inputs, output):
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    handle = blocks[layer].register_forward_hook(stop)
    try:
        inner.base_model(input_ids=ids, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


def adapted(lm: nn.Module) -> TypeGuard[PeftModel]:
    """Whether a peft adapter stands beside the weights (without importing peft, which most runs never do)."""
    return hasattr(lm, "peft_config")


def causal_lm(lm: nn.Module) -> CausalLM:
    """The transformers model inside a peft wrapper (adapters are injected in place), or the model itself."""
    return cast(CausalLM, lm.get_base_model() if adapted(lm) else lm)


def quantised(lm: nn.Module) -> bool:
    """Whether the base weights are in 4 or 8 bits, so that nothing can be merged into them."""
    return getattr(causal_lm(lm), "quantization_method", None) is not None


@dataclass(frozen=True, slots=True)
class Cached:
    """Reference values computed once, before any weight moves; the reference model is then not needed.

    ``sequence`` [rows]: sequence log-probabilities. ``logits``: per row, [answer tokens, V]. ``states``: per
    row, outputs of one block at the answer's positions, [answer tokens, D].
    """

    sequence: torch.Tensor | None = None
    logits: tuple[torch.Tensor, ...] | None = None
    states: tuple[torch.Tensor, ...] | None = None

    def on(self, policy: nn.Module, rows: Batch) -> Cached:
        return self

    def sequence_logp(self, index: torch.Tensor) -> torch.Tensor:
        assert self.sequence is not None, (
            "the objective did not declare that it needs reference sequence log-probs"
        )
        return self.sequence[index.to(self.sequence.device)].to(index.device)

    def token_logits(self, index: torch.Tensor) -> torch.Tensor:
        assert self.logits is not None, "the objective did not declare that it needs reference logits"
        return torch.cat([self.logits[i] for i in index.tolist()]).to(index.device)

    def row_logits(self, row: int) -> torch.Tensor:
        """Of one row: [answer tokens, V]."""
        assert self.logits is not None, "logits of the reference were not kept"
        return self.logits[row]

    def hidden(self, index: torch.Tensor) -> torch.Tensor:
        assert self.states is not None, (
            "the objective did not declare that it needs hidden states of the start"
        )
        return torch.cat([self.states[i] for i in index.tolist()]).to(index.device)


@dataclass(frozen=True, slots=True)
class Live:
    """A reference that is run beside the policy in every step, for values too large to keep.

    ``frozen``: a copy of the policy before unlearning; None: the policy itself with its adapter switched off,
    which needs no second copy of the weights.
    """

    frozen: Policy | None = None

    @torch.no_grad()
    def on(self, policy: nn.Module, rows: Batch) -> _Bound:
        if self.frozen is not None:
            return _Bound(self.frozen(rows))
        with cast("PeftModel", unwrapped(policy).lm).disable_adapter():
            return _Bound(policy(rows))


@dataclass(frozen=True, slots=True)
class _Bound:
    """Reference values of one batch; the rows asked for are those that were scored."""

    scored: Scored

    def sequence_logp(self, index: torch.Tensor) -> torch.Tensor:
        return self.scored.sequence_logp

    def token_logits(self, index: torch.Tensor) -> torch.Tensor:
        return self.scored.logits


def unwrapped(policy: nn.Module) -> Policy:
    """The policy inside of what accelerate made of it for several processes."""
    return cast(Policy, getattr(policy, "module", policy))


Reference = Cached | Live


@torch.no_grad()
def cache_reference(
    policy: Policy, tokens: Tokens, needs: str | set[str], layer: int | None = None, max_tokens: int = 4096
) -> Cached:
    """One pass over ``tokens`` with the weights as they are now. ``needs``: "sequence", "logits", "hidden" or
    a set of them.
    """
    needs = {needs} if isinstance(needs, str) else set(needs)
    sequence = torch.empty(len(tokens))
    logits: list[torch.Tensor] = [torch.empty(0)] * len(tokens)
    states = list(logits)
    was_training = policy.training
    policy.eval()
    for indices in buckets(tokens, range(len(tokens)), max_tokens):
        batch = collate(tokens, indices).to(policy.device)
        sizes = [tokens.n_labels(i) for i in indices]
        if needs != {"hidden"}:
            out = policy(batch)
            sequence[indices] = out.sequence_logp.float().cpu()
        for wanted, kept in (("logits", logits), ("hidden", states)):
            if wanted in needs:
                values = out.logits if wanted == "logits" else policy(batch, layer=layer)
                for i, part in zip(indices, values.float().cpu().split(sizes), strict=True):
                    kept[i] = part.clone()
    policy.train(was_training)
    return Cached(
        sequence if needs != {"hidden"} else None,
        tuple(logits) if "logits" in needs else None,
        tuple(states) if "hidden" in needs else None,
    )


def score(
    policy: Policy, tokens: Tokens, indices: Sequence[int], max_tokens: int = 4096
) -> Iterator[tuple[list[int], Scored]]:
    """Yield (indices, Scored) over length-sorted batches without gradients."""
    with torch.no_grad():
        for chunk in buckets(tokens, indices, max_tokens):
            yield chunk, policy(collate(tokens, chunk).to(policy.device))
