"""Checkpoints of a run: safetensors and JSON only, written to a temporary file and renamed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from reprolib.errors import RecordError

# "base/": weights of the whole model that earlier stages changed; "movable/": weights of the present stage;
# "optim/<parameter number>/<name>": optimizer state; "kept/": what earlier stages left for later ones.


@dataclass
class State:
    meta: dict[str, Any]
    base: dict[str, torch.Tensor]
    movable: dict[str, torch.Tensor]
    optim: dict[str, torch.Tensor]
    kept: dict[str, torch.Tensor]

    def restore_base(self, lm: nn.Module) -> None:
        """Put the weights of the present stage's start back (in the first stage none are held)."""
        with torch.no_grad():
            for name, p in lm.named_parameters():
                if name in self.base:
                    p.copy_(self.base[name])

    def restore(self, movable: Mapping[str, nn.Parameter], optimizer, scheduler) -> None:
        """Put weights, optimizer state and learning rates back. A checkpoint at a stage's start holds none of
        them.
        """
        if not self.movable:
            return
        with torch.no_grad():
            for name, p in movable.items():
                p.copy_(self.movable[name])
        if self.meta.get("finished"):  # nothing is trained from here
            return
        own = optimizer.state_dict()
        entries: dict[int, dict[str, Any]] = {}
        for key, tensor in self.optim.items():
            number, name = key.split("/")
            entries.setdefault(int(number), {})[name] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": self.meta["param_groups"]})
        assert len(own["param_groups"]) == len(self.meta["param_groups"])
        scheduler.load_state_dict(self.meta["scheduler"])


class Checkpoint:
    """One file that each save replaces. A file that cannot be read is put aside, and the run starts again."""

    def __init__(self, path: Path, fingerprint: str):
        self.path, self.fingerprint = Path(path), fingerprint
        self._base: dict[
            str, torch.Tensor
        ] = {}  # weights at the start of the present stage, if it is not the first
        self._kept: dict[str, torch.Tensor] = {}

    def load(self) -> State | None:
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as f:
                meta = json.loads(f.metadata()["meta"])
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as e:
            aside = self.path.with_suffix(".corrupt")
            os.replace(self.path, aside)
            print(
                f"checkpoint {self.path} cannot be read ({e}); moved to {aside.name}, the run starts from"
                " its beginning."
            )
            return None
        if meta["fingerprint"] != self.fingerprint:
            raise RecordError(
                f"checkpoint {self.path} belongs to run {meta['fingerprint']}, not {self.fingerprint};"
                " remove it."
            )
        self._base = {k.removeprefix("base/"): v for k, v in tensors.items() if k.startswith("base/")}
        part = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        self._kept = part("kept/")
        return State(meta, part("base/"), part("movable/"), part("optim/"), self._kept)

    def save(
        self, stage: int, step: int, outcome, movable: Mapping[str, nn.Parameter], optimizer, scheduler
    ) -> None:
        """After a step of a stage. Weights that earlier stages changed but this one does not move are saved
        too.
        """
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        state = inner.state_dict()
        tensors = {f"movable/{k}": v.detach() for k, v in movable.items()}
        for number, values in state["state"].items():
            tensors |= {f"optim/{number}/{k}": torch.as_tensor(v).detach() for k, v in values.items()}
        if stage > 0:
            tensors |= {f"base/{k}": v for k, v in self._base.items()}
        meta = {"param_groups": state["param_groups"], "scheduler": _plain_scheduler(scheduler)}
        self._write(tensors, stage, step, outcome, meta)

    def save_stage(self, stage: int, outcome, lm: nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
        """At the start of a later stage: all weights that can have moved (so none in 4 or 8 bits), no
        optimizer.
        """
        self._kept = dict(kept)
        self._base = {k: v.detach().clone().cpu() for k, v in lm.named_parameters() if v.is_floating_point()}
        self._write({f"base/{k}": v for k, v in self._base.items()}, stage, 0, outcome, {})

    def _write(
        self, tensors: dict[str, torch.Tensor], stage: int, step: int, outcome, meta: dict[str, Any]
    ) -> None:
        meta |= {
            "fingerprint": self.fingerprint,
            "stage": stage,
            "step": step,
            "outcome": dataclasses.asdict(outcome),
        }
        tensors |= {f"kept/{k}": v for k, v in self._kept.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}.part")
        # clones, since tied weights share memory, which safetensors refuses
        save_file(
            {k: v.cpu().contiguous().clone() for k, v in tensors.items()},
            part,
            metadata={"meta": json.dumps(meta)},
        )
        os.replace(part, self.path)

    def finish(self, keep_bytes: int) -> None:
        """The run is over: keep the model alone, without optimizer state, if it is small; else nothing."""
        state = self.load()
        if state:
            kept = {
                f"{part}/{k}": v
                for part in ("base", "movable", "kept")
                for k, v in getattr(state, part).items()
            }
        if not state or sum(v.nbytes for v in kept.values()) > keep_bytes:
            self.remove()
            return
        metadata = {"meta": json.dumps(state.meta | {"finished": True})}
        part = self.path.with_suffix(f".{os.getpid()}.part")
        save_file({k: v.contiguous().clone() for k, v in kept.items()}, part, metadata=metadata)
        os.replace(part, self.path)

    def remove(self) -> None:
        for leftover in (
            self.path,
            *self.path.parent.glob(f"{self.path.stem}.*.part"),
        ):  # of saves that were killed
            leftover.unlink(missing_ok=True)
        if self.path.parent.exists() and not any(self.path.parent.iterdir()):
            shutil.rmtree(self.path.parent, ignore_errors=True)


def _plain_scheduler(scheduler) -> dict[str, Any]:
    return {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"} | {"lr_lambdas": [None]}
