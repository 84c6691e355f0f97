"""What the book says in its own name: each claim a sentence, a check over the records and the numbers behind it.

A claim that stops being true stops the book: its page raises, and ``tests/test_claims.py`` fails. The sentence is the first line of
the function's docstring; the function returns whether it holds, and the numbers. A method called *told apart* from another differs
from it by more than the seeds do (:func:`reprolib.report.page.overlap`, :func:`reprolib.report.arms.better`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from reprolib.errors import ReprolibError
from reprolib.record import Record, project_root
from reprolib.report import advice, audit, cost, leaderboard, page, pretrained, requests, scale, stress, style, yardsticks
from reprolib.report import arms as _arms
from reprolib.report.cards import ratio
from reprolib.report.summary import LADDER


class ClaimError(ReprolibError):
    """The records no longer support what the book says."""


class Finding(NamedTuple):
    holds: bool
    numbers: str


@dataclass(frozen=True, slots=True)
class Claim:
    name: str
    page: str  # of the book, with the evidence
    text: str
    check: Callable[[Evidence], Finding]


CLAIMS: dict[str, Claim] = {}


def claim(of: str) -> Callable[[Callable[[Evidence], tuple[bool, str]]], Callable[[Evidence], tuple[bool, str]]]:
    """Register the decorated check, whose docstring says the claim, as one that rests on the page ``of``."""

    def add(check: Callable[[Evidence], tuple[bool, str]]) -> Callable[[Evidence], tuple[bool, str]]:
        text = (check.__doc__ or "").strip().partition("\n")[0]
        CLAIMS[check.__name__] = Claim(check.__name__, of, text, lambda e: Finding(*check(e)))
        return check

    return add


class Evidence:
    """Records of the study, gathered when a claim first asks for them."""

    def __init__(self, testbed: str = "tiny/synthetic", real: str = "tiny/lume", seed: int | None = None):
        self.testbed, self.real, self.seed = testbed, real, seed

    def _gather(self, block: str, testbed: str, **fields: Any) -> dict[str, list[Record]]:
        from reprolib.grid import Grid

        methods = dict.fromkeys(s.method for s in Grid.load().blocks[block] if s.method not in LADDER)
        return page.gather(methods, testbed, self.seed, **fields)

    @cached_property
    def core(self) -> dict[str, list[Record]]:
        return self._gather("methods", self.testbed)

    @cached_property
    def board(self) -> tuple[leaderboard.Entry, ...]:
        return leaderboard.board(self.core)

    @cached_property
    def methods(self) -> list[leaderboard.Entry]:
        """The leaderboard without the ladder and the bounds."""
        return [e for e in self.board if e.counts]

    @cached_property
    def lume(self) -> dict[str, list[Record]]:
        return self._gather("methods-lume", self.real)

    @cached_property
    def wide(self) -> dict[str, list[Record]]:
        return self._gather("wide", self.testbed, suite="wide")

    @cached_property
    def stress(self) -> dict[str, list[Record]]:
        return self._gather("stress", self.testbed, suite="stress")

    @cached_property
    def published(self) -> audit.Published:
        return audit.published()

    def parameters(self, of: str) -> dict[str, Any]:
        """The parameters of a page's notebook, which name what the page compares."""
        import json

        path = Path(project_root()) / "notebooks" / f"{of}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        scope: dict[str, Any] = {}
        exec("".join(next(c["source"] for c in cells if "parameters" in c["metadata"].get("tags", ()))), scope)
        return {k: v for k, v in scope.items() if k != "__builtins__"}

    def arms(self, of: str) -> dict[str, _arms.Arm]:
        p = self.parameters(of)
        return _arms.gather(p["arms"], self.testbed, self.seed, p.get("fresh", ()))


def _percent(x: float) -> str:
    return f"{100 * x:.0f}\u202f%"


# ---------------------------------------------------------------------- the official score


@claim("synthesis/audit")
def the_official_score_rewards_destruction(e: Evidence) -> tuple[bool, str]:
    """A destroyed model scores more on the official mean than an untouched one, on both corpora."""
    said, holds = [], True
    for study in (e.core, e.lume):
        ends = {m: audit.finals(study, m) for m in ("target", "random", "always_eos")}
        holds &= min(*ends["random"], *ends["always_eos"]) > max(ends["target"])
        said.append(f"`{study['twin'][0].spec.testbed}`: " + ", ".join(f"{style.label(m).lower()} {sum(v) / len(v):.2f}" for m, v in ends.items()))
    return holds, "; ".join(said)


@claim("synthesis/audit")
def a_destroyed_model_outscores_most_published_systems(e: Evidence) -> tuple[bool, str]:
    """What a destroyed 7B model scores for nothing is more than most of the published 7B systems got."""
    rows = e.published.of("7B")
    below = [r for r in rows if r.final < audit.destroyed()]
    return 2 * len(below) > len(rows), f"{len(below)} of {len(rows)} submissions score less than {audit.destroyed():.2f}; the threshold on MMLU, not the score, keeps such models out"


@claim("synthesis/audit")
def the_distance_sees_destruction(e: Evidence) -> tuple[bool, str]:
    """The distance to a retrained twin gives destroyed models next to nothing: less than a tenth of the gap is closed."""
    gaps = [g for m in ("random", "always_eos") for g in page.closed(e.core, m).values()]
    return max(gaps) < 0.1, f"{_percent(min(gaps))} to {_percent(max(gaps))} of the gap, over two destroyed models and {len(gaps) // 2} seeds"


@claim("synthesis/audit")
def a_headline_was_the_score_of_a_destroyed_model(e: Evidence) -> tuple[bool, str]:
    """The headline scores of Cyber for AI come with a task aggregate of zero."""
    rows = [e.published.row(t, "Cyber for AI") for t in ("7B", "1B")]
    return all(r.task == 0 for r in rows), "; ".join(f"{r.track}: final {r.final:.3f}, task aggregate {r.task:g}" for r in rows)


# ---------------------------------------------------------------------- methods


@claim("synthesis/leaderboard")
def the_best_come_close(e: Evidence) -> tuple[bool, str]:
    """The best methods close more than four fifths of the gap to the twin, and none closes all of it."""
    ranked = [m for m in e.methods if m.group == "all" and m.gap]
    near = [m for m in ranked if m.gap.estimate > 0.8]
    floor = page.noise(e.core)
    least = min(ranked, key=lambda m: m.distance)
    said = ", ".join(f"{m.label} {m.gap.estimate:.2f}" for m in near)
    return bool(near) and least.distance > floor, f"{said}; smallest distance {least.distance:.2f}, between twins at most {floor:.2f}"


@claim("synthesis/leaderboard")
def the_best_train_on_retain_rows(e: Evidence) -> tuple[bool, str]:
    """The ten methods that come closest to the twin all train on retain rows."""
    first = [m for m in e.methods if m.group == "all" and m.gap][:10]
    other = max((m for m in e.methods if m.retains == "no" and m.gap), key=lambda m: m.gap.estimate)
    return len(first) == 10 and all(m.retains == "in the loss" for m in first), f"the best without them, {other.label}, closes {other.gap.estimate:.2f} of the gap"


@claim("synthesis/leaderboard")
def the_systems_of_the_three_papers_are_not_the_best(e: Evidence) -> tuple[bool, str]:
    """LIBU, the chains of Cyber for AI and VILA with gradient difference, at the options searched for here, lie behind the best method in every seed."""
    best = next(m for m in e.methods if m.group == "all")
    own = {m.method: m for m in e.methods if m.method in ("libu", "chain_ga_gd", "chain_ga_gd_ga", "chain_difference_ga", "vila_difference")}
    behind = all(min(m.distances) > max(best.distances) for m in own.values())
    return behind, f"distance {best.distance:.2f} ({best.label}); " + ", ".join(f"{m.label} {m.distance:.2f}" for m in own.values())


@claim("synthesis/real_data")
def real_rows_give_a_like_order(e: Evidence) -> tuple[bool, str]:
    """On rows of LUME, 14 methods come in a like order as on synthetic people (Kendall's tau above 0.7)."""
    methods = [m for m in e.lume if m not in LADDER]
    found, p = yardsticks.tau({m: page.distance(e.lume, m) for m in methods}, {m: page.distance(e.core, m) for m in methods}, methods)
    return found > 0.7 and len(methods) == 14, f"tau {found:.2f} over {len(methods)} methods ({'p < 0.001' if p < 0.001 else f'p = {p:.3f}'})"


@claim("synthesis/real_data")
def real_passages_stay_recognisable(e: Evidence) -> tuple[bool, str]:
    """On rows of LUME most methods leave the forget passages recognisable to the plainest attack (AUC above 0.75; the twin's is near 0.5)."""
    methods = [m for m in e.lume if m not in LADDER]
    seen = [m for m in methods if page.mean(e.lume[m], "attack/auc") > 0.75]
    return 2 * len(seen) > len(methods), f"{len(seen)} of {len(methods)}; the twin's AUC is {page.mean(e.lume['twin'], 'attack/auc'):.2f}"


# ---------------------------------------------------------------------- gone, or hidden


@claim("synthesis/hidden")
def nothing_is_gone_for_good(e: Evidence) -> tuple[bool, str]:
    """No method that was put under stress makes documents unrecognisable for good: ten steps on other forget documents, and the attack knows the rest again.

    Or it had known them all along.
    """
    asked = [m for m in stress.methods_of(e.stress) if stress.forgot(e.stress, e.core, m)]
    back = [m for m in asked if min(stress.comes_back(e.stress, m)) > 0.1]
    still = [m for m in asked if m not in back and stress.mean(e.stress[m], "relearning/part/0/auc") > stress.STILL]
    said = f"of {len(asked)} that had forgotten, {len(back)} are known again ({stress.named(back)}), {len(still)} were all along ({stress.named(still)})"
    return len(back) + len(still) == len(asked) > 0, said


@claim("synthesis/hidden")
def rounding_brings_little_back(e: Evidence) -> tuple[bool, str]:
    """Rounding an unlearned model to 8 or 4 bits brings back less than a tenth of the forget questions."""
    asked = [m for m in stress.methods_of(e.stress) if stress.forgot(e.stress, e.core, m)]
    worst = {m: max(stress.mean(e.stress[m], f"quantization/{p}/forget/questions") for p in ("int8", "nf4")) for m in asked}
    most = max(worst, key=worst.get)
    return worst[most] < 0.1, f"at most {_percent(worst[most])} ({style.label(most)}), over {len(asked)} methods"


# ---------------------------------------------------------------------- ablations


@claim("ablations/forget_set_size")
def a_few_documents_do_not_stand_for_all(e: Evidence) -> tuple[bool, str]:
    """Given one of the forget documents, gradient difference and NPO leave more than four fifths of the questions about the others answered."""
    own = {m: page.gather([m], e.testbed, e.seed, ladder=False, forget_documents=0.02)[m] for m in ("gradient_difference", "npo")}
    kept = {m: sum(page.answered(r, 0) for r in records) / len(records) for m, records in own.items()}
    given = {(r.cost["forget_documents_given"], r.cost["forget_rows_given"]) for records in own.values() for r in records}
    counts = sorted({n for _, n in given})
    rows = f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} rows, and as many fewer steps"
    return min(kept.values()) > 0.8 and {d for d, _ in given} == {1}, ", ".join(f"{style.label(m)} {_percent(v)}" for m, v in kept.items()) + f" ({rows})"


@claim("ablations/sequential_requests")
def the_best_at_once_is_not_the_best_in_portions(e: Evidence) -> tuple[bool, str]:
    """Asked in four requests instead of one, adaptive RMU ends farther from the twin on every seed; NPO's distance hardly moves, and world questions pay."""
    said, far = [], {}
    in_four = page.gather(["adaptive_rmu", "npo"], e.testbed, e.seed, ladder=False, requests=4)
    for m in in_four:
        four = requests.distances(in_four[m], e.core["twin"])
        one = requests.distances(e.core[m], e.core["twin"])
        far[m] = [b - a for a, b in zip(one, four, strict=True)]
        said.append(f"{style.label(m)} {sum(one) / len(one):.2f} at once, {sum(four) / len(four):.2f} in four")
    world = [page.mean(r, "world/accuracy") for r in (e.core["npo"], in_four["npo"])]
    holds = min(far["adaptive_rmu"]) > 0 and max(map(abs, far["npo"])) < 0.05 and world[1] < world[0]
    return holds, f"distances: {'; '.join(said)}; world questions of NPO {_percent(world[0])}, then {_percent(world[1])}"


def _beside(found: _arms.Arms, a: str, b: str) -> str:
    """What two arms keep and how far they end from the twin, with the intervals of the differences."""
    return f"{a} against {b}: " + "; ".join(_arms.compared(found, a, b, r) for r in (_arms.KEPT, _arms.DISTANCE))


def _verdicts(found: _arms.Arms, a: str, b: str) -> set[str]:
    return {_arms.better(found, a, b, r) for r in (_arms.KEPT, _arms.DISTANCE)}


@claim("ablations/sophia_vs_influence")
def an_influence_step_costs_more_than_it_brings(e: Evidence) -> tuple[bool, str]:
    """An influence step that moves the model, before Sophia, ends farther from the twin than Sophia alone, by seven seeds that chose no setting and with the page's comparisons counted."""
    found, pair = e.arms("ablations/sophia_vs_influence"), ("Sophia", "Fisher step, then Sophia")
    asked = [(a, b) for _, a, b in e.parameters("ablations/sophia_vs_influence")["questions"]]
    holds = (*pair, _arms.DISTANCE) in _arms.apart(found, asked)
    return holds and all(len(found[k].shown(_arms.KEPT).records) == 7 for k in pair), _beside(found, *pair)


@claim("ablations/sophia_vs_influence")
def the_fisher_decides_little(e: Evidence) -> tuple[bool, str]:
    """In LIBU's influence step, alone or before Sophia, the Fisher matrix shows no advantage over the identity; with the published damping it multiplies nine tenths of the weights alike, within a twentieth, as long as half of the retain questions are answered."""
    found = e.arms("ablations/sophia_vs_influence")
    pairs = [("Fisher step, then Sophia", "plain step, then Sophia"), ("Fisher step", "plain step"), ("Fisher step, damping 0.001", "plain step")]
    spread = _arms.spreads(found["Fisher step, damping 0.001"])
    holds = all(_verdicts(found, *p) <= {"open", "no"} for p in pairs) and bool(spread) and max(spread) < 1.05
    said = ". ".join(_beside(found, *p) for p in pairs)
    return holds, f"{said}. 95th over 5th percentile of the weights with the published damping: {min(spread, default=0):.2f} to {max(spread, default=0):.2f}"


@claim("ablations/sophia_vs_influence")
def the_influence_step_alone_destroys(e: Evidence) -> tuple[bool, str]:
    """Alone, the influence step, with the Fisher or without, brings the forget questions down to a tenth only where less than half of the rest is kept, if at all."""
    found = e.arms("ablations/sophia_vs_influence")
    kept = [_arms.kept(r) for r in _arms.records({k: found[k] for k in ("Fisher step", "Fisher step, damping 0.001", "plain step")})]
    there = [v for v in kept if v == v]
    said = f", and keep ≈ {_percent(min(there))} to {_percent(max(there))}" if there else ""
    return max(there, default=0.0) < 0.5, f"{len(there)} of {len(kept)} runs come down to a tenth{said}"


@claim("ablations/sophia_vs_influence")
def sophia_is_not_better_than_adamw(e: Evidence) -> tuple[bool, str]:
    """Sophia shows no advantage over AdamW in its place, by seven seeds that chose the rate of neither."""
    found = e.arms("ablations/sophia_vs_influence")
    holds = _verdicts(found, "Sophia", "AdamW") <= {"open", "no"} and len(found["Sophia"].shown(_arms.DISTANCE).records) == 7
    return holds, _beside(found, "Sophia", "AdamW")


@claim("ablations/fila_vs_vila")
def importance_is_no_better_than_none(e: Evidence) -> tuple[bool, str]:
    """Beginning an adapter where FILA's or VILA's importance is high shows no advantage over beginning it anywhere, or blank, that is left once the comparisons are counted."""
    found = e.arms("ablations/fila_vs_vila")
    starts = ("FILA: full weights", "FILA, damping as published", "VILA: LoRA factors, centred")
    pairs = [(a, b) for a in starts for b in ("importance of other rows", "all rows alike (PiSSA)", "blank LoRA")]
    shown = [(a, "blank LoRA") for a in starts]
    told = [f"{2 * len(pairs)} comparisons, corrected for their number (Holm)", *(_beside(found, *p) for p in shown)]
    return not _arms.ahead(found, pairs), ". ".join(told)


@claim("ablations/cost")
def importance_is_not_forty_times_faster(e: Evidence) -> tuple[bool, str]:
    """On the same rows VILA's importance pass needs down to a ninetieth of FILA's weights (claimed: a hundredth), but is not 40 times as fast: less than twice.

    Rank 8, one draw of random factors; widths 128 and 1024 on a CPU.
    """
    cases = cost.benchmark("importance")["cases"]
    times, weights = {k: c["ratio"]["vila"] for k, c in cases.items()}, {k: c["parameters_ratio"]["vila"] for k, c in cases.items()}
    said = "; ".join(f"width {c['hidden']}: {weights[k]:.0f}x fewer, {ratio(times[k])} times as fast" for k, c in cases.items())
    return all(t["high"] < 2 for t in times.values()) and 80 < max(weights.values()) < 120, said


@claim("ablations/cost")
def the_planner_counts_what_is_there(e: Evidence) -> tuple[bool, str]:
    """At the true sizes of OLMo-1B, OLMo-7B and SmolLM2 the planner's peak memory is within 2 % of what the loop's tensors take, counted without a GPU."""
    ratios = [c["predicted_of_counted"] for c in cost.benchmark("memory")["cases"].values() if "predicted_of_counted" in c]
    return len(ratios) > 20 and max(abs(r - 1) for r in ratios) < 0.02, f"{len(ratios)} cases, {100 * min(ratios):.1f} to {100 * max(ratios):.1f} %"


@claim("ablations/cost")
def seven_billion_weights_fit_a_small_gpu(e: Evidence) -> tuple[bool, str]:
    """OLMo-7B in 4 bits with an adapter of rank 64, four rows at a time, takes less than 24 GiB by the same count; with sixteen it does not."""
    cases = cost.benchmark("memory")["cases"]
    few, many = (cases[f"olmo-7b_npo_lora-64-16_nf4{x}"]["peak_bytes"] / 2**30 for x in ("_micro-1024", ""))
    return few < 22 < 24 < many, f"NPO: {few:.1f} and {many:.1f} GiB"


@claim("ablations/quantization")
def full_precision_shows_no_advantage(e: Evidence) -> tuple[bool, str]:
    """Under an adapter, a base in full precision shows no advantage over one of 8 or 4 bits."""
    p = e.parameters("ablations/quantization")
    found = _arms.gather(_arms.precisions(p["methods"], p["precisions"], p["options"], p["rates"]), e.testbed, e.seed, p.get("fresh", ()))
    pairs = [(f"{style.label(m)}, fp32", f"{style.label(m)}, {x}") for m in p["methods"] for x in p["precisions"] if x != "fp32"]
    return not any("yes" in _verdicts(found, *x) for x in pairs), ". ".join(_beside(found, *x) for x in pairs)


@claim("synthesis/pretrained")
def a_pretrained_model_pays_for_forgetting(e: Evidence) -> tuple[bool, str]:
    """On a pretrained model of 135 million weights (one seed, 18 forget documents), no run that ended at a tenth of the forget questions or less ended with three quarters of the retain questions that its twin answers.

    At settings that were not searched for this model.
    """
    p = e.parameters("synthesis/pretrained")
    found = _arms.gather(p["arms"], p["testbed"], p["seed"])
    there = pretrained.ended(found, page.gather(["twin"], p["testbed"], p["seed"], ladder=False)["twin"][0])
    said = ", ".join(f"{style.label(r.spec.method)} {_percent(kept)}" for kept, r in there)
    return bool(there) and there[-1][0] < 0.75, f"{len(there)} of {len(_arms.records(found))} runs end at a tenth or less; of what the twin answers they keep: {said}"


@claim("ablations/scale")
def one_rate_is_not_one_strength(e: Evidence) -> tuple[bool, str]:
    """At one learning rate, in every seed and at every size, all weights leave less than a twentieth of the forget questions, an adapter scaled by a quarter more than a fifth.

    Scaled by one, it leaves less than a twentieth too.
    """
    p = e.parameters("ablations/scale")
    sizes = scale.gather(p["testbeds"], p["arms"], p["methods"], e.seed)
    left = {label: [scale.left(s.arms[label], p["rates"][0]) for s in sizes] for label in p["arms"]}
    said = "; ".join(f"{label}: {', '.join(map(scale.told, v))}" for label, v in left.items())
    one = scale.left(_arms.gather({"x": p["others"]["LoRA, alpha / r = 1"]}, p["others_at"], e.seed)["x"], p["rates"][0])
    said += f"; LoRA, alpha / r = 1: {scale.told(one)}, with {next(s.label for s in sizes if s.testbed == p['others_at'])}"
    most, least = max(map(max, left["all weights"])), min(map(min, left["LoRA, alpha / r = 1/4"]))
    holds = most < 0.05 and least > 0.2 and max(one) < 0.05
    return holds, f"forget questions left at {p['rates'][0]:g}, with {', '.join(s.label for s in sizes)} weights: {said}"


@claim("ablations/scale")
def size_alone_keeps_the_order(e: Evidence) -> tuple[bool, str]:
    """From 0.6 to 4.7 million weights, four methods keep their order at fixed options."""
    p = e.parameters("ablations/scale")
    sizes = scale.gather(p["testbeds"], {}, p["methods"], e.seed)
    orders = [tuple(page.ordered(s.study, p["methods"])) for s in sizes]
    said = [f"{style.label(m)} {', '.join(f'{page.distance(s.study, m):.2f}' for s in sizes)}" for m in orders[0]]
    holds = len(set(orders)) == 1 and [s.label for s in (sizes[0], sizes[-1])] == ["0.6\u202fM", "4.7\u202fM"]
    return holds, f"distances with {', '.join(s.label for s in sizes)} weights: {'; '.join(said)}"


# ---------------------------------------------------------------------- how to measure


@claim("synthesis/yardsticks")
def no_single_number_orders_methods(e: Evidence) -> tuple[bool, str]:
    """Of 18 single measures of the field, none orders ten methods as the distance to the twin does (Kendall's tau below 0.7)."""
    found = [a for a in yardsticks.agreements(e.core, e.wide) if a.name not in yardsticks.WHOLES]
    taus = sorted((a.tau for a in found), reverse=True)
    methods = sum(m not in LADDER for m in e.wide)
    return taus[0] < 0.7 and len(found) == 18 and methods == 10, f"{len(found)} measures, {methods} methods, tau from {taus[-1]:.2f} to {taus[0]:.2f}"


@claim("synthesis/advice")
def forgetting_alone_favours_destruction(e: Evidence) -> tuple[bool, str]:
    """By what is left to forget alone, destroyed models are ahead of most methods."""
    left = {m: x for m, (x, _) in advice.points(e.core).items()}
    methods = [m.method for m in e.methods]
    worst = max(left["random"], left["always_eos"])
    behind = [m for m in methods if left[m] > worst]
    return 2 * len(behind) > len(methods), f"{len(behind)} of {len(methods)} methods have more left than {worst:.2f}"


# ---------------------------------------------------------------------- what pages show of them


def examine(evidence: Evidence, names: Iterable[str] | None = None) -> dict[str, Finding]:
    """Every claim's finding; raises if the records no longer support one of them."""
    found = {n: CLAIMS[n].check(evidence) for n in (names or CLAIMS)}
    broken = [f"{n} ({CLAIMS[n].text} Now: {f.numbers})" for n, f in found.items() if not f.holds]
    if broken:
        raise ClaimError(
            f"{len(broken)} of {len(found)} claims do not hold any more: {'; '.join(broken)}. Correct the claim in reprolib/report/claims.py "
            "and every sentence that rests on it, or find out what happened to the records."
        )
    return found


def _title(of: str) -> str:
    return f"{{doc}}`/results/notebooks/{of}`"


def listing(evidence: Evidence) -> Any:
    """Every claim with its numbers, the page of its evidence and its name, in the order of the argument."""
    found = examine(evidence)
    lines = [f"{n}. **{CLAIMS[k].text}** {f.numbers[0].upper()}{f.numbers[1:]}. *Evidence:* {_title(CLAIMS[k].page)}. *Check:* `{k}`." for n, (k, f) in enumerate(found.items(), 1)]
    return page.say("\n".join(lines))


def abstract(evidence: Evidence, names: Iterable[str]) -> Any:
    """The claims named, each checked, with the page of its evidence: for the first page."""
    return page.say("\n".join(f"- {CLAIMS[k].text} → {_title(CLAIMS[k].page)}" for k in examine(evidence, names)))
