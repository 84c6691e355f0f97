"""A testbed: a model preset on a corpus, e.g. ``tiny/synthetic``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from reprolib.corpus import lume, synthetic
from reprolib.corpus.files import VARIABLE
from reprolib.corpus.read import read
from reprolib.corpus.rows import Corpus
from reprolib.errors import CorpusError, SpecError, unknown
from reprolib.identity import plain
from reprolib.testbeds.presets import MEASURING, PRESETS, Preset

CORPORA = ("synthetic", "lume", "semeval")

# Content of the LUME subsets, so that committed records are found without the data at hand. A release whose
# rows differ is refused when it is read.
_PINNED_ALIKE = ("smollm2", "olmo-1b-0724", "olmo-7b-0724", "olmo-1b-semeval", "olmo-7b-semeval")

PINNED: dict[tuple[str, str], str] = {
    ("tiny", "lume"): "749a274c5b2488f6",
    **{(m, "lume"): "1f1a8d7ed8e12b17" for m in ("olmo-1b-scratch", "olmo-7b-scratch")},
    **{(m, "lume"): "ed43b7e4f443e67c" for m in _PINNED_ALIKE},
    **{(m, "semeval"): "47fcda3886cb837d" for m in _PINNED_ALIKE},
    ("smollm2-few", "semeval"): "484f7ad005293a41",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Testbed:
    """A model preset on a corpus. ``options`` are handed to the corpus (e.g. ``overlap`` of the synthetic
    one).
    """

    __test__ = False

    name: str
    model: str
    corpus_name: str
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def preset(self) -> Preset:
        """The model's preset with the epochs that this corpus needs."""
        preset = PRESETS[self.model]
        return replace(preset, epochs=preset.longer.get(self.corpus_name, preset.epochs))

    @property
    def teacher(self) -> Testbed:
        """The testbed under whose name twins are made: for a published target, that which begins with the
        same weights.
        """
        same = replace(PRESETS[self.model], memorised="")
        model = next((name for name, preset in PRESETS.items() if preset == same), self.model)
        return replace(self, name=f"{model}/{self.corpus_name}", model=model)

    def corpus(self) -> Corpus:
        return _corpus(self.model, self.corpus_name, tuple(sorted(self.options.items())))

    @property
    def data_fingerprint(self) -> str:
        """Content hash of the corpus; known for LUME without having the files."""
        pinned = PINNED.get((self.model, self.corpus_name))
        return pinned if pinned and not self.options else self.corpus().fingerprint

    def identity(self) -> dict:
        """What makes two testbeds the same: the model, how it is trained, and the content of the data."""
        apart = ("documents", "longer", "is", *MEASURING)
        preset = {k: v for k, v in plain(self.preset).items() if k not in apart}
        return {
            "model": self.model,
            "preset": preset,
            "corpus": self.corpus_name,
            "data": self.data_fingerprint,
        }


def testbed(name: str, **options: float) -> Testbed:
    """The testbed of a name like ``tiny/synthetic``."""
    model, _, corpus = name.partition("/")
    if model not in PRESETS:
        raise SpecError(
            unknown("model preset", model, PRESETS)
            + " A testbed is called MODEL/CORPUS, e.g. tiny/synthetic."
        )
    if not corpus:
        own = f"{model}/{next(iter(PRESETS[model].documents))}"
        raise SpecError(
            f"testbed {name!r} names a model and no corpus; a testbed is called MODEL/CORPUS, e.g. {own}."
        )
    if corpus not in CORPORA:
        raise SpecError(
            unknown("corpus", corpus, CORPORA) + " A testbed is called MODEL/CORPUS, e.g. tiny/synthetic."
        )
    if corpus not in PRESETS[model].documents:
        raise SpecError(
            f"testbed {name!r}: " + unknown(f"corpus of {model}", corpus, PRESETS[model].documents)
        )
    return Testbed(name=name, model=model, corpus_name=corpus, options=options)


testbed.__test__ = False  # type: ignore[attr-defined]


@lru_cache(maxsize=8)
def _corpus(model: str, name: str, options: tuple) -> Corpus:
    preset = PRESETS[model]
    documents = preset.documents[name]
    if name == "synthetic":
        assert isinstance(documents, int), "the built-in corpus has no tasks to choose from"
        corpus = synthetic.make(documents=documents, **dict(options))
    elif name == "semeval":  # with its own list of non-members
        given = os.environ.get(VARIABLE)
        if not given:
            raise CorpusError(f"testbed {model}/semeval: {VARIABLE} is not set. {lume.REMEDY}")
        assert not isinstance(documents, Mapping), "one number for all tasks"
        # as many non-members as there are passages to forget
        others = None if documents is None else 3 * documents
        corpus = read(given, "semeval", documents=documents, nonmembers=others, **dict(options))
    else:
        assert isinstance(documents, Mapping), "a number for each task"
        corpus = lume.load(
            tasks=tuple(documents),
            documents=documents,
            holdout={t: 2 * n for t, n in documents.items()},
            **dict(options),
        )
    groups = {**corpus.groups, "world": corpus["world"][: preset.world]}
    corpus = Corpus(corpus.name, groups, corpus.facts)
    pinned = PINNED.get((model, name))
    if pinned and not options and corpus.fingerprint != pinned:
        raise CorpusError(
            f"the rows of {name!r} have content {corpus.fingerprint}, but the study's {model}/{name}"
            f" testbed is {pinned}; get the release that book/data.md names, or remove the pin to work on"
            " other rows (records are then new)."
        )
    return corpus
