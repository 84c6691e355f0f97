"""What a run is: frozen, validated, and identified by the content of everything that decides its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reprolib.edits import Edit
from reprolib.errors import SpecError, unknown
from reprolib.identity import digest, plain
from reprolib.recipes import recipe
from reprolib.testbeds.beds import testbed
from reprolib.versions import METRICS_VERSION, SCHEMA, SUITES, TRAINING_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One run of the study.

    ``options`` go to the recipe (learning rate, epochs, ...); what is not given has the recipe's default.
    ``forget_documents`` is the share of forget documents handed to the method, ``forget_rows`` the share
    of each document's rows (at least one each); evaluation always sees all of them. ``requests``: they are
    handed over in so many portions of documents, one after another, each to the model that the one before
    left. ``suite``: what is measured of the unlearned model: "core", which every run has, or a suite of
    :mod:`reprolib.probes` in a record of its own.
    """

    testbed: str = "tiny/synthetic"
    method: str = "npo"
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    forget_documents: float = 1.0
    forget_rows: float = 1.0
    precision: str = "fp32"  # of the base model during unlearning: fp32, bf16, nf4, int8
    suite: str = "core"
    requests: int = 1

    def __post_init__(self) -> None:
        for name, kind in (("testbed", str), ("method", str), ("precision", str), ("suite", str)):
            if not isinstance(getattr(self, name), kind):
                raise SpecError(f"spec: {name} must be a string, got {getattr(self, name)!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SpecError(f"spec: seed must be a whole number >= 0, got {self.seed!r}.")
        for name in ("forget_documents", "forget_rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                hint = (
                    f" Did you mean {value / 100:g}?"
                    if isinstance(value, int | float) and 1 < value <= 100
                    else ""
                )
                raise SpecError(f"spec: {name} is a share in (0, 1], got {value!r}.{hint}")
        if isinstance(self.requests, bool) or not isinstance(self.requests, int) or self.requests < 1:
            raise SpecError(f"spec: requests must be a whole number >= 1, got {self.requests!r}.")
        if not isinstance(self.options, Mapping):
            raise SpecError(f"spec: options must be a mapping of the recipe's options, got {self.options!r}.")
        if self.suite != "core" and self.suite not in SUITES:
            raise SpecError(unknown("suite", self.suite, ("core", *SUITES)))
        allowed = ("fp32", "bf16", "nf4", "int8")
        if self.precision not in allowed:
            raise SpecError(unknown("precision", self.precision, allowed))
        testbed(self.testbed)
        stages = recipe(self.method).build(self.options)
        if self.requests > 1 and (
            self.precision in ("nf4", "int8") or any(isinstance(s, Edit) and s.last for s in stages)
        ):
            raise SpecError(
                f"spec: requests={self.requests} hands the model of one request to the next, which"
                f" {self.method!r} on a base in {self.precision} does not leave whole (an adapter or a"
                " second model stands beside the weights); use requests=1."
            )
        if self.precision in ("nf4", "int8") and any(not s.quantisable for s in stages):
            lora = (
                "set the option trainable='lora-16', or "
                if "trainable" in recipe(self.method).defaults
                else ""
            )
            raise SpecError(
                f"spec: precision={self.precision!r} freezes the base weights: only LoRA adapters that"
                " leave them as they are can train on it, which does not hold for stage"
                f" {next(s.name for s in stages if not s.quantisable)!r} of {self.method!r}; {lora}use"
                " precision='fp32' or 'bf16'."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """From plain values, as YAML, JSON or papermill give them. Unknown keys raise."""
        known = {f.name for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise SpecError("spec: " + unknown("key", key, known))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        values = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        for name, default in (("suite", "core"), ("requests", 1)):
            if values[name] == default:
                del values[name]  # so in records and fingerprints that are older than these fields
        return values

    @property
    def core(self) -> Spec:
        """The same run with the core evaluation: what identifies the unlearned model."""
        return dataclasses.replace(self, suite="core")

    @property
    def stages(self):
        return recipe(self.method).build(self.options)

    @property
    def fingerprint(self) -> str:
        """Hash of the spec with all defaults filled in, the data's content, and the versions that it uses."""
        own = self.to_dict()
        del own["options"]  # the resolved stages hold them, with defaults filled in
        identity = {
            "spec": own,
            "stages": self.stages,
            "testbed": testbed(self.testbed).identity(),
            "recipe": recipe(self.method).version,
            "training": TRAINING_VERSION,
            "metrics": METRICS_VERSION,
            "schema": SCHEMA,
        }
        if self.suite != "core":
            identity["suite"] = SUITES[self.suite]
        elif measuring := testbed(self.testbed).preset.measuring:
            identity["measuring"] = measuring
        return digest(identity)

    @property
    def slug(self) -> str:
        """Readable part of the record's path."""
        parts = [f"s{self.seed}"]
        parts += [f"{k}-{v}" for k, v in sorted(plain(self.options).items())]
        for key, short in (("forget_documents", "docs"), ("forget_rows", "rows")):
            if getattr(self, key) != 1:
                parts.append(f"{short}-{getattr(self, key):g}")
        if self.requests != 1:
            parts.append(f"requests-{self.requests}")
        if self.precision != "fp32":
            parts.append(self.precision)
        return "_".join(parts).replace("/", "-")
