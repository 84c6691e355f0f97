"""Checkpoints from a folder or the hub: found, hashed, loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib.errors import ReprolibError, SpecError
from reprolib.models import device
from reprolib.models.policy import Policy, causal_lm

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, CONTENT = "*.safetensors", ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


# --- the checkpoints
# -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint on disk: where it lies, and a hash of all that its numbers can depend on."""

    name: str  # as it was given
    folder: Path
    adapter: Path | None
    fingerprint: str


def locate(
    given: str | Path, what: str = "model", adapter: str | Path | None = None, *, progress: bool = True
) -> Source:
    """The checkpoint that ``given`` names: a folder with config.json and safetensors, or a hub id
    ``owner/name[@revision]``.

    Nothing is loaded. Raises :class:`SpecError` for a folder that is none, that holds no model, or weights as
    pickle.
    """
    folder = _folder(given, what)
    if not (folder / "config.json").is_file():
        hint = (
            " It holds an adapter: give its base model here, and the folder as --adapter."
            if _is_adapter(folder)
            else ""
        )
        raise SpecError(
            f"{what} folder {str(given)!r} has no config.json; give the folder that save_pretrained"
            f" wrote.{hint}"
        )
    if not any(folder.glob(WEIGHTS)):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = (
            "holds its weights as pickle, which is never loaded"
            if pickled
            else "holds no weights (*.safetensors)"
        )
        raise SpecError(
            f"{what} folder {str(given)!r} {why}; save the model with save_pretrained(...,"
            " safe_serialization=True)."
        )
    place = None
    if adapter is not None:
        place = _folder(adapter, "adapter")
        if not _is_adapter(place) or not any(place.glob(WEIGHTS)):
            raise SpecError(
                f"adapter folder {str(adapter)!r} has no adapter_config.json with"
                " adapter_model.safetensors (peft)."
            )
    return Source(
        name=str(given),
        folder=folder,
        adapter=place,
        fingerprint=_hash([folder, *([place] if place else [])], progress),
    )


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _folder(given: str | Path, what: str) -> Path:
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    hub = _HUB.fullmatch(str(given))
    if folder.exists() or hub is None:
        raise SpecError(
            f"{what} {str(given)!r} is neither a folder nor a hub id (owner/name); check the path."
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(hub[1], revision=hub[2], allow_patterns=list(CONTENT)))
    except Exception as error:  # the hub's clients raise errors of several libraries; all mean: not to be had
        raise SpecError(
            f"{what} {str(given)!r} is no local folder, and it could not be fetched from the Hugging Face"
            f" hub ({type(error).__name__}: {error}); check the path, or the network and your access."
        ) from error


def _hash(folders: Sequence[Path], progress: bool) -> str:
    """SHA-256 over names and contents of the files that make a model."""
    from tqdm.auto import tqdm

    files = sorted({p for f in folders for pattern in CONTENT for p in f.glob(pattern)})
    total, out = sum(p.stat().st_size for p in files), hashlib.sha256()
    with tqdm(
        total=total, desc="fingerprint", unit="B", unit_scale=True, disable=not progress or total < 1 << 30
    ) as bar:
        for path in files:
            own = hashlib.sha256()
            with open(path, "rb") as f:
                while block := f.read(1 << 22):
                    own.update(block)
                    bar.update(len(block))
            out.update(f"{folders.index(path.parent)}/{path.name}:{own.hexdigest()}\n".encode())
    return out.hexdigest()[:16]


def load_tokenizer(source: Source):
    """The checkpoint's tokenizer. Raises :class:`SpecError` if there is none, or it has no end-of-text
    token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
        whole = len(tokenizer("a b").input_ids) > 0
    except Exception as error:  # transformers raises many kinds for one cause
        raise SpecError(
            f"no tokenizer could be read from {source.name!r} ({type(error).__name__}:"
            f" {str(error).splitlines()[0]}); copy tokenizer.json and tokenizer_config.json of the base"
            " model into the folder."
        ) from error
    if not whole or tokenizer.eos_token_id is None:
        lacks = "makes no tokens" if not whole else "has no end-of-text token"
        raise SpecError(
            f"the tokenizer of {source.name!r} {lacks}; copy the base model's tokenizer files, all of"
            " them, there."
        )
    return tokenizer


def load_model(source: Source, precision: str, tokenizer) -> nn.Module:
    """The model on this machine's device, its adapter merged where weights are not quantised.

    Raises :class:`SpecError` if it cannot be loaded, or has fewer embeddings than the tokenizer has tokens.
    """
    quantised = precision in ("nf4", "int8")
    to = device.accelerator().device
    try:
        merge = source.adapter is not None and not quantised
        kind: Any = "fp32" if merge else precision
        lm: nn.Module = device.load_lm(str(source.folder), kind, use_safetensors=True)
        if source.adapter is not None:
            from peft import PeftModel

            both = PeftModel.from_pretrained(lm, str(source.adapter))
            # merged in full precision: in bf16 small updates are lost to rounding
            lm = both.merge_and_unload().to(_dtype(precision)) if merge else both
        lm = (lm if quantised else lm.to(to)).eval()
    except ReprolibError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise SpecError(
                f"not enough memory to load {source.name!r}; give --precision bf16 or nf4."
            ) from error
        raise SpecError(
            f"the model in {source.name!r} cannot be loaded ({type(error).__name__}:"
            f" {str(error).strip().splitlines()[0]}); it must be a causal language model that transformers"
            " knows without remote code."
        ) from error
    Policy(lm)  # refuses models whose logits it would not compute rightly
    size = causal_lm(lm).get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise SpecError(
            f"the tokenizer has {len(tokenizer)} tokens, but {source.name!r} has embeddings for {size}; "
            "give models that share a tokenizer, each with its own files."
        )
    return lm


def _dtype(precision: str):
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def out_of_memory(error: BaseException) -> bool:
    import torch

    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
    )
