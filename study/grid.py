"""``study.yml``: which runs and pages there are. Knows no science, starts nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from reprolib.errors import SpecError, unknown
from reprolib.places import project_root, results_dir
from reprolib.recipes import BASELINES, recipes
from reprolib.record import path_of
from reprolib.spec import Spec

KEYS = (
    "testbed",
    "method",
    "options",
    "forget_documents",
    "forget_rows",
    "precision",
    "suite",
    "requests",
)

SMALL = {
    "testbed": "smoke/synthetic",
    "seed": 0,
}  # of a page's smoke twin, unless it names several testbeds

SECTIONS = ("seeds", "blocks", "search", "pages", "smoke")


@dataclass(frozen=True, slots=True)
class Page:
    """An executed notebook of the book."""

    name: str
    notebook: Path
    parameters: Mapping[str, Any]
    specs: tuple[Spec, ...]
    small: Mapping[str, Any] | None = None  # its parameters at smoke size; None: it cannot be made there

    @property
    def output(self) -> Path:
        return results_dir() / "notebooks" / f"{self.name}.ipynb"


@dataclass(frozen=True, slots=True)
class Search:
    """Which options of each method are tried, and where: on a seed that is reported nowhere else."""

    testbed: str
    seed: int
    trials: Mapping[str, tuple[Mapping[str, Any], ...]]  # method -> options of its trials

    def of(self, method: str) -> tuple[Spec, ...]:
        """The trials of a method."""
        return tuple(
            Spec(testbed=self.testbed, method=method, seed=self.seed, options=o) for o in self.trials[method]
        )

    @classmethod
    def load(cls, path: Path | None = None) -> Search | None:
        """The section ``search`` of the study alone, without its blocks (which take a second to read); None
        if there is none.
        """
        path, raw = _raw(path)
        return _search(raw["search"], _seeds(raw, {}), {}, path) if "search" in raw else None

    def differ(self, method: str) -> None:
        """Raise if two trials of the method are one run."""
        seen: dict[str, Mapping[str, Any]] = {}
        for options, spec in zip(self.trials[method], self.of(method), strict=True):
            if spec.fingerprint in seen:
                same = f"{dict(seen[spec.fingerprint])} and {dict(options)}"
                raise SpecError(
                    f"study.yml, search: two trials of {method!r} are the same run: {same}; remove one."
                )
            seen[spec.fingerprint] = options

    @property
    def twin(self) -> Spec:
        return Spec(testbed=self.testbed, method="twin", seed=self.seed)

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The models that trials are compared with, then every trial."""
        target = Spec(testbed=self.testbed, method="target", seed=self.seed)
        return (target, self.twin, *(s for m in self.trials for s in self.of(m)))


@dataclass(frozen=True, slots=True)
class Grid:
    """The study, or its smoke twin (``Grid.load("smoke")``). The runs of ``search`` stand in the block of
    that name.
    """

    seeds: tuple[int, ...]
    blocks: Mapping[str, tuple[Spec, ...]]
    pages: Mapping[str, Page]
    search: Search | None = None

    @classmethod
    def load(cls, name: str = "study", path: Path | None = None) -> Grid:
        path = _path(path)
        return cls._parsed(name, path, path.read_text(encoding="utf-8"))

    @classmethod
    @lru_cache(maxsize=8)  # pages ask again and again
    def _parsed(cls, name: str, path: Path, text: str) -> Grid:
        _, raw = _raw(path)
        if name not in ("study", "smoke"):
            raise SpecError(unknown("grid", name, ("study", "smoke")))
        small = raw.get("smoke", {}) if name == "smoke" else {}
        seeds = _seeds(raw, small)
        blocks = {}
        for b, axes in raw["blocks"].items():
            own = dict(axes)
            chosen = own.pop("seeds", None) or seeds  # a block may have seeds of its own
            left_out = b in small.get("blocks_left_out", ())
            blocks[b] = () if left_out else tuple(_expand(b, own, seeds if small else chosen, small, path))
        search = _search(raw["search"], seeds, small, path) if "search" in raw else None
        if "search" in raw:
            if "search" in blocks:
                raise SpecError(
                    f"{path}: a block cannot be named 'search', since the section of that name is one."
                )
            blocks["search"] = search.specs if search else ()
            for method in search.trials if search else ():
                search.differ(method)
        # the same run may be named in two ways (a default spelt out): its first spec stands for all, so that
        # it has one path
        first: dict[str, Spec] = {}
        blocks = {b: tuple(first.setdefault(x.fingerprint, x) for x in specs) for b, specs in blocks.items()}
        pages = {}
        for page, entry in raw["pages"].items():
            shown = [*entry.get("blocks", []), *(entry.get("besides", []) if not small else [])]
            wrong = [b for b in shown if b not in blocks]
            if wrong:
                raise SpecError(f"{path}, page {page}: " + unknown("block", wrong[0], blocks))
            specs = tuple(s for b in shown for s in blocks[b])
            if "only" in entry:
                for method in entry["only"]:
                    if method not in recipes():
                        raise SpecError(f"{path}, page {page}: " + unknown("method", method, recipes()))
                if small and not set(entry["only"]) <= set(small.get("methods", entry["only"])):
                    continue  # a method that the smoke grid leaves out
                specs = tuple(s for s in specs if s.method in BASELINES or s.method in entry["only"])
            parameters = dict(entry.get("parameters", {}))
            own = entry.get("smoke", {})
            twin = (
                None
                if own is None
                else parameters | (SMALL if entry.get("blocks") and "testbeds" not in own else {}) | own
            )
            if small and any(blocks[b] == () for b in entry.get("blocks", [])):
                continue  # the page needs data that the smoke grid leaves out
            pages[page] = Page(
                page,
                path.parent / entry["notebook"],
                twin if small and twin is not None else parameters,
                specs,
                twin,
            )
        return cls(seeds, blocks, pages, search)

    @property
    def specs(self) -> tuple[Spec, ...]:
        """Every run once, in the order of the file."""
        return tuple({s.fingerprint: s for specs in self.blocks.values() for s in specs}.values())

    def missing(self) -> tuple[Spec, ...]:
        return tuple(s for s in self.specs if not path_of(s).exists())


def study_seeds() -> tuple[int, ...]:
    """The seeds of the study, without reading its blocks."""
    return _seeds(_raw(None)[1], {})


def _path(path: Path | None) -> Path:
    path = path or project_root() / "study.yml"
    if not path.exists():
        raise SpecError(f"{path} not found; run this inside the project (the folder that holds study.yml).")
    return path


def _raw(path: Path | None) -> tuple[Path, Mapping[str, Any]]:
    path = _path(path)
    return path, _sections(path, path.read_text(encoding="utf-8"))


@lru_cache(maxsize=8)
def _sections(path: Path, text: str) -> Mapping[str, Any]:
    raw = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    for key in raw:
        if key not in SECTIONS:
            raise SpecError(f"{path}: " + unknown("key", key, SECTIONS))
    return raw


def _seeds(raw: Mapping[str, Any], small: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(small.get("seeds", raw["seeds"]))


def _expand(
    block: str, axes: Mapping[str, Any], seeds: tuple[int, ...], small: Mapping[str, Any], path: Path
):
    for key in axes:
        if key not in KEYS:
            raise SpecError(f"{path}, block {block}: " + unknown("key", key, KEYS))
    axes = dict(axes)
    if small:
        swap = small["testbeds"].get(axes["testbed"], axes["testbed"])
        if swap is None:
            return
        axes["testbed"] = swap
        axes |= {k: v for k, v in small["shares"].items() if k in axes}
    lists = {k: v if isinstance(v, list) else [v] for k, v in axes.items()}
    if small and "methods" in small:
        lists["method"] = [m for m in lists["method"] if m in BASELINES or m in small["methods"]]
    for seed in seeds:
        for values in itertools.product(*lists.values()):
            yield Spec.from_dict({**dict(zip(lists, values, strict=True)), "seed": seed})


def _search(
    raw: Mapping[str, Any], seeds: tuple[int, ...], small: Mapping[str, Any], path: Path
) -> Search | None:
    keys = ("testbed", "seed", "trials")
    for key in raw:
        if key not in keys:
            raise SpecError(f"{path}, search: " + unknown("key", key, keys))
    for key in keys:
        if key not in raw:
            raise SpecError(f"{path}, search: {key} is missing; allowed keys: {', '.join(keys)}.")
    bed, seed = raw["testbed"], raw["seed"]
    if small:
        bed = small["testbeds"].get(bed, bed)
        if bed is None or "search" in small.get("blocks_left_out", ()):
            return None
    elif seed in seeds:
        raise SpecError(
            f"{path}, search: seed {seed} is one of the study's seeds {list(seeds)}; search on another one."
        )
    trials = {}
    for method, tried in (raw["trials"] or {}).items():
        if method in BASELINES:
            raise SpecError(
                f"{path}, search: {method!r} belongs to the sanity ladder and has no options to search."
            )
        if not isinstance(tried, list) or not tried or not all(isinstance(o, Mapping) for o in tried):
            raise SpecError(
                f"{path}, search: trials of {method!r} must be a list of options like [{{lr: 0.001}}], got"
                f" {tried!r}."
            )
        trials[method] = tuple(tried)
    return Search(bed, seed, trials)
