"""What each part of a model's examination takes: the core evaluation's two passes, and every probe of suites
wide and stress.

    python study/benchmarks/probes.py [--testbed tiny/synthetic] [--method npo] [--suites wide stress]
    [--rounds N] [--out FILE]

One unlearned model, its target and its twin are made (or read from the cache) first; that is not timed. Then,
in each round: the core evaluation as a whole, its teacher-forced pass, its generation, the pass with token
statistics that probes share, and each probe by itself. A probe is given the passes that it shares with others
as finished, so that its time is what it adds; ``with_shared`` counts them for it, as if it were asked alone.
``suites`` holds what a record of a suite takes: each shared pass once, and all its probes. Ratios are to the
core evaluation of the same round: below 1 is cheaper.

A model that answers as it was taught needs little generation and one that writes on needs much, so that
ratios hold for models like the one that was asked. All answers must be the same in every round.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
from evaluate import cut
from tqdm.auto import tqdm

CORE = "core evaluation"

PASSES = {
    "teacher-forced": "scores",
    "generation": "generations",
    "token statistics": "texts",
}  # -> attribute of a Subject


class Models:
    """The unlearned model with its examination, and the two models that probes compare it with."""

    def __init__(self, testbed: str, method: str, seed: int, untrained: bool, documents: int | None) -> None:
        from reprolib.evaluate.passes import Examination
        from reprolib.experiment import unlearned
        from reprolib.spec import Spec
        from reprolib.testbeds import memorise
        from reprolib.testbeds.beds import testbed as bed_named

        bed = bed_named(testbed)
        corpus = cut(bed.corpus(), documents)
        if untrained:
            self.lm, tokenizer = memorise.load(bed, "random", seed)
            self.references = {"target": self.lm, "twin": self.lm}
        else:
            self.lm = unlearned(Spec(testbed=testbed, method=method, seed=seed)).lm
            self.references = {which: memorise.load(bed, which, seed)[0] for which in ("target", "twin")}
            tokenizer = memorise.load(bed, "target", seed)[1]
        self.seed = seed
        self.exam = Examination.of(corpus, tokenizer, self.references["target"])

    def subject(self, kept: dict[str, Any] | None = None):
        """The model to be asked; ``kept``: shared passes that are finished."""
        from reprolib.evaluate.subject import Subject

        return Subject(
            self.lm,
            self.exam,
            self.seed,
            self.references.__getitem__,
            progress=False,
            _kept={} if kept is None else kept,
        )


class Asked(dict):
    """What is kept of a model, and which of it was looked up."""

    def __init__(self, kept: Mapping[str, Any]) -> None:
        super().__init__(kept)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)


def shared(models: Models, probe, kept: Mapping[str, Any]) -> list[str]:
    """Which shared passes a probe asks for. Generation begins where the teacher-forced pass ends, so that it
    needs it too.
    """
    asked = Asked(kept)
    probe.ask(models.subject(asked))
    names = asked.names | ({"scores"} if "generations" in asked.names else set())
    return [name for name, attribute in PASSES.items() if attribute in names]


def same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return a.keys() == b.keys() and all(
        x == b[k] or (math.isnan(x) and math.isnan(b[k])) for k, x in a.items()
    )


def measure(models: Models, suites: list[str], rounds: int, bar) -> dict[str, Any]:
    from reprolib.errors import SpecError
    from reprolib.evaluate.summary import evaluate
    from reprolib.probes import suite

    first = models.subject()
    kept = {attribute: getattr(first, attribute) for attribute in PASSES.values()}
    bar.set_description("warm-up")
    evaluate(models.lm, models.exam, progress=False)
    probes, takes, answers, left_out = {}, {}, {}, {}
    for s in suites:
        for p in suite(s):
            try:
                takes[p.name] = shared(models, p, kept)  # also a warm-up
                probes[p.name] = p
            except SpecError as error:  # a library that is not installed
                left_out[p.name] = str(error)
            bar.update()

    def passed(attribute: str):
        # generation needs the teacher-forced pass, the others nothing
        return lambda _: getattr(
            models.subject({"scores": kept["scores"]} if attribute == "generations" else None), attribute
        )

    contestants = {CORE: lambda _: evaluate(models.lm, models.exam, progress=False).metrics}
    contestants |= {name: passed(attribute) for name, attribute in PASSES.items()}
    contestants |= {
        name: lambda _, p=p: p.ask(models.subject(dict(kept))).metrics for name, p in probes.items()
    }

    def check(number: int, results: Mapping[str, Any]) -> None:
        for name in (CORE, *probes):
            if not same(answers.setdefault(name, results[name]), results[name]):
                raise AssertionError(f"round {number}: {name} answered otherwise than in the first round")

    bar.set_description("time")
    seconds = common.interleave(contestants, rounds, after=check, tick=bar.update)
    core = seconds[CORE]
    together = {
        name: [sum(x) for x in zip(own, *(seconds[t] for t in takes.get(name, ())), strict=True)]
        for name, own in seconds.items()
    }
    parts: dict[str, Any] = {}
    for name in seconds:
        parts[name] = {"seconds": common.median(seconds[name]), "ratio": common.ratio(seconds[name], core)}
        if name in probes:
            parts[name] |= {
                "suite": probes[name].suite,
                "cost": probes[name].cost,
                "metrics": len(answers[name]),
                "shares": takes[name],
                "ratio_with_shared": common.ratio(together[name], core),
            }
    totals = {}
    for s in suites:
        own = [n for n, p in probes.items() if p.suite == s]
        once = sorted({t for n in own for t in takes[n]})
        if own:
            totals[s] = common.ratio(
                [sum(x) for x in zip(*(seconds[n] for n in (*once, *own)), strict=True)], core
            )
    return {"parts": parts, "suites": totals, "left_out": left_out}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--testbed", default="tiny/synthetic")
    p.add_argument("--method", default="npo")
    p.add_argument("--suites", nargs="+", choices=("wide", "stress"), default=["wide", "stress"])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--documents", type=int, help="documents of each task and group (default: all)")
    p.add_argument(
        "--untrained",
        action="store_true",
        help="random weights in the place of all three models: nothing is trained",
    )
    p.add_argument("--out", type=Path, default=common.RESULTS / "probes.json")
    a = p.parse_args()
    for name in ("rounds", "documents"):
        if (value := getattr(a, name)) is not None and value < 1:
            p.error(f"--{name} must be >= 1, got {value}")
    import torch

    from reprolib.probes import suite

    models = Models(a.testbed, a.method, a.seed, a.untrained, a.documents)
    torch.set_num_threads(a.threads)
    suites = list(dict.fromkeys(a.suites))
    asked = sum(len(suite(s)) for s in suites)
    result = {
        "benchmark": "probes",
        "machine": common.machine(a.threads),
        "versions": common.versions(),
        "settings": (
            {k: v for k, v in vars(a).items() if k not in ("out", "threads")}
            | {"suites": suites, "method": None if a.untrained else a.method}
        ),
        "rows": {g: len(r) for g, r in models.exam.corpus.groups.items()},
    }
    with tqdm(total=asked + a.rounds * (1 + len(PASSES) + asked), unit="part", mininterval=2) as bar:
        result |= measure(models, suites, a.rounds, bar)
    common.write(a.out, result)
    lines = []
    for name, e in result["parts"].items():
        alone = common.shown(e["ratio_with_shared"]) if e.get("shares") else ""
        lines.append(
            (
                name,
                e.get("suite", ""),
                f"{e['seconds']:.2f}",
                common.shown(e["ratio"]),
                alone,
                str(e.get("metrics", "")),
            )
        )
    print(
        common.table(
            ("part", "suite", "s", "/ core evaluation [95 %]", "with what it shares", "metrics"), lines
        )
    )
    print(
        "\n"
        + common.table(
            ("suite", "/ core evaluation [95 %]"),
            [(s, common.shown(r)) for s, r in result["suites"].items()],
        )
    )
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}")
    print("\nAll answers are the same in every round.")


if __name__ == "__main__":
    main()
