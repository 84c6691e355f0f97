"""Other yardsticks than the book's distance: TOFU, MUSE, membership attacks, fluency; how far the order of methods can be relied on;
and whether a metric tells models that know from models that do not. Reads records of the suites core, wide and stress."""

from __future__ import annotations

import html
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import CARDS, meta, muse, privacy, robustness, tofu
from reprolib.metrics.card import Card
from reprolib.metrics.statistics import (
    Interval,
    Ranking,
    SeedsInterval,
    bootstrap,
    combined_interval,
    holm,
    rank_stability,
    seeds_interval,
    standardised_difference,
)
from reprolib.record import Record
from reprolib.report import page, style, summary
from reprolib.report.summary import LADDER
from reprolib.report.tables import Table, number
from reprolib.search import LEVEL

Study = Mapping[str, Sequence[Record]]
Columns = dict[str, np.ndarray]
ALPHA = 0.05
DRAWS = 2000  # of documents and seeds, for the stability of the order
NEAR = 0.1  # AUCs that differ by no more than this, in every seed, count as alike
BENCHES = {"tofu": "TOFU", "muse": "MUSE", "attacks": "Membership attacks", "fluency": "Fluency"}
ATTACKS = {
    "loss": "loss", "zlib": "zlib", "min_k": "Min-K%", "min_k_plus_plus": "Min-K%++", "gradient_norm": "gradient norm",
    "reference": "reference",
}  # fmt: skip
SHAPES = dict(zip(ATTACKS, ("o", "s", "^", "v", "D", "X"), strict=True))


# --- yardsticks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """A reading of the suite wide. ``draw``: the columns of one record (and of the twin's) that it reads, for resampling documents;
    without it, the interval is Student's t over seeds (``log``: of the logarithm)."""

    name: str  # in the record
    label: str
    card: str
    draw: Callable[[Record, Record | None], tuple[Columns, np.ndarray] | None] | None = None  # columns, and which rows they are of
    statistic: Callable[[Columns], float] | None = None
    log: bool = False
    ranks: bool = True  # part of the comparison of orders; of readings that are functions of each other, one is

    @property
    def facts(self) -> Card:
        return CARDS[self.card]

    @property
    def bench(self) -> str:
        return self.name.partition("/")[0]

    @property
    def head(self) -> str:
        return f"{self.label} {self.facts.arrow}" + ("" if self.draw else " (t)")

    @property
    def help(self) -> str:
        return f"{self.facts.trap} Source: {self.facts.source}."


def _rows(record: Record) -> Columns:
    return summary.columns(record)


def _column(column: str, group: str, rated: bool = False, change: Callable[[np.ndarray], np.ndarray] | None = None):
    """The numbers of one column in one group (``rated``: of the questions that have a truth ratio, where there are any)."""

    def draw(record: Record, twin: Record | None):
        c = _rows(record)
        own = (c["group"] == group) & np.isfinite(c[column])
        if rated and (own & np.isfinite(c["truth_ratio"])).any():
            own &= np.isfinite(c["truth_ratio"])
        return {"value": change(c[column][own]) if change else c[column][own]}, own

    return {"draw": draw, "statistic": lambda c: float(c["value"].mean())}


def _attacked(c: Columns) -> np.ndarray:
    """Rows that a membership attack reads: of completions if both sides have some, else of answers."""
    for kind in ("sc", "qa"):
        sides = [(c["group"] == g) & (c["kind"] == kind) for g in ("forget", "holdout")]
        if all(s.any() for s in sides):
            return sides[0] | sides[1]
    return np.zeros(len(c["group"]), dtype=bool)


def _attack(column: str, sign: float, measure: Callable[[np.ndarray, np.ndarray], float], beside: bool = False):
    """Members against non-members by one column; ``beside``: with the twin's scores of the same texts."""

    def scores(record: Record, rows: np.ndarray) -> np.ndarray:
        return np.nan_to_num(sign * _rows(record)[column][rows], nan=-np.inf)  # a destroyed model knows no text

    def draw(record: Record, twin: Record | None):
        c = _rows(record)
        own = _attacked(c)
        columns = {"member": c["group"][own] == "forget", "value": scores(record, own)}
        if beside:
            if twin is None:
                return None
            columns["twin"] = scores(twin, own)
        return columns, own

    def statistic(c: Columns) -> float:
        m = c["member"]
        if not beside:
            return measure(c["value"][m], c["value"][~m])
        return measure(privacy.auc(c["value"][m], c["value"][~m]), privacy.auc(c["twin"][m], c["twin"][~m]))

    return {"draw": draw, "statistic": statistic}


def _utility():
    """TOFU's harmonic mean over the groups that the corpus has, from the columns."""

    def draw(record: Record, twin: Record | None):
        c = _rows(record)
        own = np.isin(c["group"].astype(str), ("retain", "world")) & np.isfinite(c["tofu_probability"])
        return {"group": c["group"][own], **{k: c[k][own] for k in ("tofu_probability", "tofu_rouge", "truth_ratio")}}, own

    def statistic(c: Columns) -> float:
        parts = {}
        for g in ("retain", "world"):
            own = c["group"] == g
            rated = own & np.isfinite(c["truth_ratio"])
            use = rated if rated.any() else own
            if not use.any():
                continue
            parts |= {f"{g}/p": float(c["tofu_probability"][use].mean()), f"{g}/r": float(c["tofu_rouge"][use].mean())}
            if rated.any():
                parts[f"{g}/t"] = float(tofu.truth_score(c["truth_ratio"][rated]).mean())
        return tofu.partial_utility({k: min(max(v, 0.0), 1.0) for k, v in parts.items()})

    return {"draw": draw, "statistic": statistic}


def _privleak(a: float, r: float) -> float:
    return math.nan if r == 1.0 else privacy.privleak(a, r)


def _new(ratio: np.ndarray) -> np.ndarray:
    return 1 / (1 + ratio)


YARDSTICKS: dict[str, Yardstick] = {
    y.name: y
    for y in (
        Yardstick(name="tofu/ks_distance", label="KS distance", card="ks_distance"),
        Yardstick(name="tofu/log10_p", label="log10 p", card="log10_p", ranks=False),
        Yardstick(name="tofu/forget/probability", label="Forget: probability", card="probability", **_column("tofu_probability", "forget", True)),
        Yardstick(name="tofu/forget/rouge_l_recall", label="Forget: ROUGE-L", card="rouge_l_recall", **_column("tofu_rouge", "forget", True)),
        Yardstick(name="tofu/forget/parity_score", label="Forget: truth ratio", card="parity_score",
                  **_column("truth_ratio", "forget", change=tofu.parity_score)),
        Yardstick(name="tofu/forget/truth_ratio_new", label="Forget: truth ratio, new form", card="truth_ratio", ranks=False,
                  **_column("truth_ratio", "forget", change=_new)),
        Yardstick(name="tofu/retain/probability", label="Retain: probability", card="probability", ranks=False,
                  **_column("tofu_probability", "retain", True)),
        Yardstick(name="tofu/retain/truth_score", label="Retain: truth ratio", card="truth_score", ranks=False,
                  **_column("truth_ratio", "retain", change=tofu.truth_score)),
        Yardstick(name="tofu/world/option_probability", label="World: probability", card="option_probability", ranks=False,
                  **_column("tofu_probability", "world", True)),
        Yardstick(name="tofu/partial_utility", label="Utility (partial)", card="partial_utility", **_utility()),
        Yardstick(name="muse/verbmem", label="VerbMem", card="verbmem", **_column("muse_verbmem", "forget")),
        Yardstick(name="muse/knowmem_forget", label="KnowMem, forget", card="knowmem", **_column("muse_knowmem", "forget")),
        Yardstick(name="muse/knowmem_retain", label="KnowMem, retain", card="knowmem", **_column("muse_knowmem", "retain")),
        Yardstick(name="muse/auc", label="Min-40% AUC", card="auc", ranks=False, **_attack("muse_min_k", -1, privacy.auc)),
        Yardstick(name="muse/privleak", label="PrivLeak, %", card="privleak", **_attack("muse_min_k", -1, _privleak, beside=True)),
        Yardstick(name="muse/privleak_difference", label="PrivLeak, bounded", card="privleak_difference", ranks=False,
                  **_attack("muse_min_k", -1, muse.privleak_difference, beside=True)),
        *(Yardstick(name=f"attacks/{k}/auc", label=f"AUC, {v}", card="auc", **_attack(f"attack_{k}", 1, privacy.auc)) for k, v in ATTACKS.items()),
        *(Yardstick(name=f"attacks/{k}/tpr", label=f"TPR, {v}", card="tpr_at_fpr", ranks=False, **_attack(f"attack_{k}", 1, privacy.tpr_at_fpr))
          for k, v in ATTACKS.items()),
        *(Yardstick(name=f"fluency/{g}/distinct_2", label=f"Distinct-2, {g}", card="distinct_n", ranks=g == "retain") for g in ("retain", "forget")),
        *(Yardstick(name=f"fluency/{g}/repetition", label=f"Repetition, {g}", card="repetition", ranks=g == "retain", **_column("repetition", g))
          for g in ("retain", "forget")),
        *(Yardstick(name=f"fluency/{g}/perplexity", label=f"Perplexity, {g}", card="perplexity", log=True, ranks=g == "retain")
          for g in ("retain", "forget")),
        Yardstick(name="fluency/forget/empty", label="Empty, forget", card="empty_share", ranks=False),
    )
}  # fmt: skip


def value(record: Record, name: str) -> float:
    """A metric of a record; NaN where it is not there or not finite."""
    found = record.metrics.get(name)
    return math.nan if found is None else float(found)


def _twins(study: Study) -> dict[int, Record]:
    return {r.spec.seed: r for r in study["twin"]}


_KEPT: dict[tuple, Interval] = {}


def interval(study: Study, method: str, name: str, n: int = 300) -> Interval:
    """Mean over seeds with its 95 % interval: seeds and documents resampled where the record has the rows, else Student's t over seeds.

    Intervals of t are cut to the metric's range. KS distances are not resampled: a resample lies farther from its twin than the data does.
    """
    y, records, twins = YARDSTICKS[name], study[method], _twins(study)
    key = (name, n, *(r.fingerprint for r in records), *(t.fingerprint for t in twins.values()))
    if key not in _KEPT:
        _KEPT[key] = _resampled(y, records, twins, n) if y.draw else _over_seeds(y, [value(r, name) for r in records])
    return _KEPT[key]


def _over_seeds(y: Yardstick, values: Sequence[float]) -> Interval:
    if not values or not np.isfinite(values).all():
        return Interval(math.nan, math.nan, math.nan, 0)
    if y.log:
        return Interval(*(math.exp(min(v, 700.0)) for v in seeds_interval(np.log(values))[:3]), 0)
    i, (bottom, top) = seeds_interval(values), (y.facts.low, y.facts.high)
    low, high = (-math.inf if bottom is None else bottom), (math.inf if top is None else top)
    return Interval(i.estimate, *(v if math.isnan(v) else min(max(v, low), high) for v in (i.low, i.high)), 0)


def _resampled(y: Yardstick, records: Sequence[Record], twins: Mapping[int, Record], n: int) -> Interval:
    runs = []
    for r in records:
        drawn = y.draw(r, twins.get(r.spec.seed))
        if drawn is None or not drawn[1].any():
            return Interval(math.nan, math.nan, math.nan, 0)
        columns, own = drawn
        c = _rows(r)
        strata = np.array([f"{g}/{t}" for g, t in zip(c["group"][own], c["task"][own], strict=True)])
        runs.append((columns, c["document"][own].astype(int), strata))
    if len(runs) > 1:
        alike = all(np.array_equal(d, runs[0][1]) and np.array_equal(s, runs[0][2]) for _, d, s in runs)
    else:
        alike = True
    return combined_interval(runs, y.statistic, shared=alike, n=n, seed=zlib.crc32(y.name.encode()))


def collapsed(study: Study, method: str) -> int:
    """How many seeds' models write no text any more for most retain prompts."""
    return sum(value(r, "fluency/collapsed") == 1 for r in study[method])


def _named(study: Study, method: str) -> str:
    """The method's name in a row, marked where its models collapsed or diverged."""
    n, notes = len(study[method]), []
    for k, word in ((collapsed(study, method), "collapsed"), (sum(r.status == "diverged" for r in study[method]), "diverged")):
        if k:
            notes.append(word if k == n else f"{word} in {k} of {n} seeds")
    swatch = f'<span class="swatch" style="background:{style.colour(method)}"></span>'
    return swatch + html.escape(style.label(method)) + (f' <span class="diverged">({"; ".join(notes)})</span>' if notes else "")


def ordered(core: Study, wide: Study) -> list[str]:
    """Models of the tables: the ladder on top, then the methods in the leaderboard's order."""
    methods = [m for m in wide if m not in LADDER]
    return [m for m in LADDER if m in wide] + page.ranking(core, methods)


def _cell(i: Interval, digits: int = 2) -> str:
    def show(x: float) -> str:
        return "–" if not math.isfinite(x) else f"{round(x, digits) + 0.0:.{digits}f}" if abs(x) < 1e4 else f"{x:.1e}"

    if not math.isfinite(i.estimate):
        return "–"
    if not (math.isfinite(i.low) and math.isfinite(i.high)):
        return show(i.estimate)
    return f'{show(i.estimate)} <span class="interval">[{show(i.low)}, {show(i.high)}]</span>'


def table(core: Study, wide: Study, bench: str, only: str = "*") -> Table:
    """Models against the readings of one benchmark (or those whose name fits ``only``), each a mean over seeds with its 95 % interval; the
    sanity ladder on top."""
    chosen = [y for y in YARDSTICKS.values() if y.bench == bench and fnmatchcase(y.name, only) and any(y.name in r.metrics for r in wide["twin"])]
    order, rows, data = ordered(core, wide), [], []
    for m in order:
        found = {y.name: interval(wide, m, y.name) for y in chosen}
        cells = [_cell(found[y.name], 0 if y.name == "muse/privleak" else 1 if y.name == "tofu/log10_p" else 2) for y in chosen]
        n, gone = len(wide[m]), collapsed(wide, m)
        plain: dict[str, Any] = {"method": m, "seeds": n, "collapsed": gone}
        for name, i in found.items():
            plain |= {name + end: round(v, 4) if math.isfinite(v) else "" for end, v in (("", i.estimate), ("_low", i.low), ("_high", i.high))}
        rows.append((_named(wide, m), *cells, *([f"{gone} of {n}"] if bench == "fluency" else [])))
        data.append(plain)
    heads = [y.head for y in chosen] + (["Collapsed ↓"] if bench == "fluency" else [])
    help_ = {y.head: y.help for y in chosen} | {"Collapsed ↓": CARDS["collapsed"].trap}
    return Table(("model", *heads), tuple(rows), _caption(wide, bench), help_, sum(m in LADDER for m in order), tuple(data))


def _caption(wide: Study, bench: str) -> str:
    seeds = sorted({len(r) for r in wide.values()})
    many = f"Means over {seeds[0]} seeds" if seeds[0] == seeds[-1] > 1 else "One seed" if seeds[-1] == 1 else f"Means over {seeds[0]} to {seeds[-1]} seeds"
    drawn = "documents" if seeds[-1] == 1 else "seeds and documents"
    text = f"{BENCHES[bench]}. {many}; brackets: 95 % intervals from resampling {drawn}, in columns marked (t) Student's t over seeds."
    first = wide["twin"][0].metrics
    if bench == "tofu" and "tofu/forget_rows" in first:
        text += (
            f" The Kolmogorov-Smirnov test compares {first['tofu/forget_rows']:.0f} truth ratios of forget questions with "
            f"{first['tofu/forget_rows_twin']:.0f} of the twin; log10 p hangs on that number."
        )
    if bench == "tofu" and "tofu/utility_parts" in first:
        text += f" The utility is partial: the harmonic mean of {first['tofu/utility_parts']:.0f} numbers instead of TOFU's 9, of retain and world questions."
    if bench == "attacks" and "attacks/length_auc" in first:
        text += f" TPR: share of the forget passages found where at most 1 % of the others are flagged. The length of a passage alone, in tokens, has an AUC of {first['attacks/length_auc']:.2f}."
    if bench == "fluency":
        text += " Perplexity is that of the text under the target: geometric means over seeds, t of the logarithm; none where nothing is written."
    return text


# --- do the yardsticks see the same order? ------------------------------------------------------------------------


def off(study: Study, method: str, name: str) -> float:
    """How bad a method is by a yardstick, mean over seeds: |method - twin of the same seed| where the twin is best (of logarithms, for
    perplexities), else the value itself, turned so that less is better. Infinite where a seed has no value."""
    y, twins = YARDSTICKS[name], _twins(study)
    out = []
    for r in study[method]:
        own, goal = value(r, name), value(twins[r.spec.seed], name)
        if y.log:
            own, goal = (math.log(v) if v > 0 else math.nan for v in (own, goal))
        out.append({"twin": abs(own - goal), "lower": own, "higher": -own}[y.facts.better])
    mean = sum(out) / len(out)
    return mean if math.isfinite(mean) else math.inf


DISTANCE = "distance"
WHOLES: dict[str, tuple[str, tuple[str, ...]]] = {  # a benchmark's own axes, together: the mean of a model's places by each
    "tofu": ("TOFU as a whole", ("tofu/ks_distance", "tofu/partial_utility")),
    "muse": ("MUSE as a whole", ("muse/verbmem", "muse/knowmem_forget", "muse/knowmem_retain", "muse/privleak")),
}
Orders = dict[str, dict[str, float]]


def orders(core: Study, wide: Study, seed: int | None = None) -> Orders:
    """By yardstick, how bad each model is; "distance" is the book's own. ``seed``: the models of one seed alone."""
    if seed is not None:
        core, wide = ({m: [r for r in s[m] if r.spec.seed == seed] for m in wide} for s in (core, wide))
    names = [n for n, y in YARDSTICKS.items() if y.ranks and any(n in r.metrics for r in wide["twin"])]
    far = {m: page.distance(core, m) for m in wide}
    single, methods = {n: {m: off(wide, m, n) for m in wide} for n in names}, _methods(wide)
    wholes = {}
    for bench, (_, parts) in WHOLES.items():
        if all(p in single for p in parts):  # how many methods are ahead, on average over the parts
            wholes[bench] = {m: sum(1 - _behind([single[p][x] for x in methods if x != m], single[p][m]) for p in parts) / len(parts) for m in wide}
    out = {DISTANCE: {m: v if math.isfinite(v) else math.inf for m, v in far.items()}}
    for n, own in single.items():  # a whole stands before its parts
        bench = n.partition("/")[0]
        if bench in wholes and bench not in out:
            out[bench] = wholes[bench]
        out[n] = own
    return out


def _label(name: str) -> str:
    return "Distance (this book)" if name == DISTANCE else WHOLES[name][0] if name in WHOLES else YARDSTICKS[name].label


def _methods(wide: Study) -> list[str]:
    return [m for m in wide if m not in LADDER]


def tau(a: Mapping[str, float], b: Mapping[str, float], methods: Sequence[str]) -> tuple[float, float]:
    """Kendall's tau-b between two orders of the methods, and its p-value; NaN where one of them is tied throughout."""
    from scipy.stats import kendalltau

    x, y = ([min(round(s[m], 6), 1e9) for m in methods] for s in (a, b))
    if len(methods) < 2 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan, math.nan
    found = kendalltau(x, y)
    return float(found.statistic), float(found.pvalue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one yardstick's order of the methods goes with that of the book's distance."""

    name: str
    tau: float
    seeds: tuple[float, ...]  # tau of each seed's models alone
    p: float  # of tau = 0
    holm: float  # the same, adjusted over all yardsticks
    first: tuple[str, ...]  # the methods that it puts first
    places: Mapping[str, float]  # share of the methods that lie behind a model of the ladder (ties count half)

    @property
    def label(self) -> str:
        return _label(self.name)

    @property
    def bench(self) -> str:
        return BENCHES[self.name.partition("/")[0]]


def agreements(core: Study, wide: Study) -> list[Agreement]:
    """Every yardstick beside the distance, the most alike first."""
    methods, every = _methods(wide), orders(core, wide)
    by_seed = [orders(core, wide, s) for s in sorted({r.spec.seed for r in wide["twin"]})]
    found = {n: tau(every[n], every[DISTANCE], methods) for n in every if n != DISTANCE}
    tested = [n for n, (_, p) in found.items() if math.isfinite(p)]
    adjusted = dict(zip(tested, holm([found[n][1] for n in tested]), strict=True)) if tested else {}
    out = []
    for n, (t, p) in found.items():
        own = every[n]
        best = min(own[m] for m in methods)
        places = {m: _behind([own[x] for x in methods], own[m]) for m in LADDER if m in own and m != "twin"}
        out.append(Agreement(
            name=n, tau=t, seeds=tuple(tau(o[n], o[DISTANCE], methods)[0] for o in by_seed), p=p, holm=float(adjusted.get(n, math.nan)),
            first=tuple(m for m in methods if own[m] <= best + 1e-6), places=places,
        ))  # fmt: skip
    return sorted(out, key=lambda a: (not math.isfinite(a.tau), -a.tau if math.isfinite(a.tau) else 0.0))


def least(n: int, alpha: float) -> float:
    """The smallest Kendall's tau between two orders of n methods whose two-sided p-value is at most ``alpha``; above 1 where none is.

    >>> round(least(10, 0.05), 2)
    0.51
    """
    ways = [1]  # orders of the first methods, by how many pairs stand the wrong way round
    for k in range(2, n + 1):
        ways = [sum(ways[max(0, i - k + 1) : i + 1]) for i in range(len(ways) + k - 1)]
    pairs, below = n * (n - 1) // 2, 0
    for wrong, count in enumerate(ways):
        below += count
        if 2 * below / math.factorial(n) > alpha:
            return 1 - 2 * (wrong - 1) / pairs if wrong else math.inf
    return math.inf


def _behind(others: Sequence[float], own: float) -> float:
    """Share of the others that are worse; ties count half."""
    return sum(1.0 if x > own + 1e-6 else 0.5 if abs(x - own) <= 1e-6 or x == own else 0.0 for x in others) / max(1, len(others))


def agreement(core: Study, wide: Study) -> Table:
    """Each yardstick: how its order of the methods goes with the distance, whom it puts first, and what it thinks of models that know nothing."""
    rows, data = [], []
    for a in agreements(core, wide):
        own = [t for t in a.seeds if math.isfinite(t)]
        spread = f' <span class="interval">({min(own):.2f} to {max(own):.2f})</span>' if len(own) > 1 else ""
        rows.append((
            f'{html.escape(a.label)} <span class="interval">{a.bench}</span>', number(a.tau) + spread, _p(a.holm),
            html.escape(page.names(a.first, 3)), *(f"{100 * a.places[m]:.0f}\u202f%" for m in a.places),
        ))  # fmt: skip
        data.append(
            {"yardstick": a.name, "better": YARDSTICKS[a.name].facts.better if a.name in YARDSTICKS else "", "tau": _plain(a.tau), "p": _plain(a.p), "p_holm": _plain(a.holm)}
            | {f"tau_seed_{i}": _plain(t) for i, t in enumerate(a.seeds)} | {"first": " ".join(a.first)} | {f"ahead_{m}": _plain(v) for m, v in a.places.items()}
        )  # fmt: skip
    n = len(_methods(wide))
    ladder = [m for m in LADDER if m in wide and m != "twin"]
    short = {"target": "target", "random": "random", "always_eos": "silent"}
    heads = ("yardstick", "tau ↑", "p (Holm)", "first", *(f"ahead: {short[m]}" for m in ladder))
    caption = (
        f"Kendall's tau-b between the order of {n} methods by each yardstick and by the distance to the twin, of means over seeds; in parentheses the "
        f"range over single seeds. Where the card says that the twin is best, a yardstick is |method - twin|. As a whole: the mean of a method's places by {_parts()}. First: the method that would lead. Last "
        "columns: the share of the methods that the untouched target, random weights and a model that says nothing are ahead of, ties counted half."
    )
    return Table(heads, tuple(rows), caption, {"tau ↑": "1: the same order; 0: no relation; -1: the reverse."}, data=tuple(data))


def _parts() -> str:
    return ", and by ".join(f"{page.listed([YARDSTICKS[p].label for p in parts]).replace(';', ',')} ({BENCHES[bench]})" for bench, (_, parts) in WHOLES.items())


def _p(p: float) -> str:
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _plain(x: float) -> float | str:
    return round(x, 4) if math.isfinite(x) else ""


def _shade(t: float) -> tuple[float, ...]:
    """From red (-1) over nearly white (0) to blue (1): opaque, so that it reads alike on light and on dark pages."""
    end, middle = np.array((0.0, 0.447, 0.698) if t > 0 else (0.757, 0.267, 0.055)), np.array((0.945, 0.945, 0.945))
    return tuple(float(v) for v in middle + min(1.0, abs(t)) ** 1.3 * (end - middle))


def _short(t: float) -> str:
    """One decimal without a leading zero."""
    text = f"{abs(t):.1f}"
    return ("−" if t < 0 and text != "0.0" else "") + (text if text[0] == "1" else text[1:])


def taus(core: Study, wide: Study) -> tuple[list[str], np.ndarray]:
    """Yardsticks, the distance first, and Kendall's tau between the orders of the methods by every two of them; without those that order nothing."""
    every, methods = orders(core, wide), _methods(wide)
    names = [n for n in every if len({round(every[n][m], 6) for m in methods}) > 1]
    return names, np.array([[tau(every[a], every[b], methods)[0] for b in names] for a in names])


def matrix(core: Study, wide: Study, csv: str = "") -> tuple[Any, str]:
    """Kendall's tau between the orders of the methods by every two yardsticks; ``csv``: the name of the table that it is also written to."""
    methods, (names, found) = _methods(wide), taus(core, wide)
    labels = [_label(n) for n in names]
    if csv:
        data = tuple({"yardstick": a} | {b: _plain(t) for b, t in zip(names, row, strict=True)} for a, row in zip(names, found, strict=True))
        Table(tuple(data[0]), (), data=data).csv(csv)
    size = len(names)
    fig, axis = plt.subplots(figsize=(8.8, 8.0))
    for i in range(size):
        for j in range(i + 1):
            t = found[i, j]
            if i == j:
                axis.text(j, i, "·", ha="center", va="center")
                continue
            strong = abs(t) > 0.62
            axis.add_patch(plt.Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=_shade(t), linewidth=0))
            axis.text(j, i, _short(t), ha="center", va="center", fontsize=8.5, color="white" if strong else "#333333")
    axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=range(size), yticks=range(size))
    axis.set_yticklabels(labels, fontsize=9)
    axis.set_xticklabels(labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    axis.grid(False)
    axis.tick_params(length=0)
    for y in range(1, size):  # a rule where another benchmark begins
        if names[y].partition("/")[0] != names[y - 1].partition("/")[0]:
            axis.plot([-0.5, y - 0.5], [y - 0.5, y - 0.5], color=style.INK, linewidth=0.8)
            axis.plot([y - 0.5, y - 0.5], [y - 0.5, size - 0.5], color=style.INK, linewidth=0.8)
    for side in axis.spines.values():
        side.set_visible(False)
    words = "; ".join(f"{labels[i]} {found[i, 0]:.2f}" for i in range(1, size))
    return fig, f"Matrix of Kendall's tau between the orders of {len(methods)} methods by {size} yardsticks. With the book's distance: {words}."


# --- the attacks --------------------------------------------------------------------------------------------


def attacks(core: Study, wide: Study) -> tuple[Any, str]:
    """One row a model, one marker an attack: AUCs with their intervals; lines at the twin's range."""
    order = [m for m in ordered(core, wide) if m not in ("random", "always_eos")]
    there = [k for k in ATTACKS if any(f"attacks/{k}/auc" in r.metrics for r in wide["twin"])]
    fig, axis = plt.subplots(figsize=(8.6, 1.5 + 0.5 * len(order)))
    axis.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    words = []
    for y, m in enumerate(order):
        said = []
        for n, k in enumerate(there):
            i = interval(wide, m, f"attacks/{k}/auc")
            at = y + (n - (len(there) - 1) / 2) * 0.125
            if math.isfinite(i.low):
                axis.plot([i.low, i.high], [at, at], color=style.colour(m), linewidth=1.6, alpha=0.5, solid_capstyle="butt", zorder=2)
            axis.plot([i.estimate], [at], marker=SHAPES[k], color=style.colour(m), linestyle="", markersize=5.5, zorder=3)
            said.append(f"{ATTACKS[k]} {i.estimate:.2f}")
        if y:
            axis.axhline(y - 0.5, color=style.GRID, linewidth=0.8, zorder=0)
        words.append(f"{style.label(m)}: {', '.join(said)}")
    axis.set(xlim=(-0.02, 1.02), ylim=(len(order) - 0.5, -0.5), xlabel="AUC of the attack: 1 recognised, 0.5 chance, 0 shunned")
    axis.set_yticks(range(len(order)), [style.label(m) + (" (collapsed)" if collapsed(wide, m) else "") for m in order])
    for text, m in zip(axis.get_yticklabels(), order, strict=True):
        text.set_style("italic" if m in LADDER else "normal")
    axis.grid(axis="y", visible=False)
    handles = [plt.Line2D([], [], marker=SHAPES[k], color=style.INK, linestyle="") for k in there]
    fig.legend(handles, [ATTACKS[k] for k in there], loc="outside lower center", ncols=6)
    return fig, "Dot chart of the AUC of membership attacks, one row a model. " + "; ".join(words) + "."


def gives_away(wide: Study, method: str, attack: str) -> bool:
    """Whether an attack's AUC differs from the twin's of the same seed by more than ``NEAR`` in every seed."""
    twins, name = _twins(wide), f"attacks/{attack}/auc"
    return all(abs(value(r, name) - value(twins[r.spec.seed], name)) > NEAR for r in wide[method])


def hidden_from_loss(wide: Study) -> dict[str, list[str]]:
    """Methods that the loss attack sees as the twin in every seed (within ``NEAR``), with the attacks that tell them from it in every seed."""
    twins, name, out = _twins(wide), "attacks/loss/auc", {}
    for m in _methods(wide):
        if all(abs(value(r, name) - value(twins[r.spec.seed], name)) <= NEAR for r in wide[m]):
            out[m] = [k for k in ATTACKS if k != "loss" and gives_away(wide, m, k)]
    return out


# --- would the order come out again? --------------------------------------------------------------------------------


def _view(c: Columns, prefix: str) -> Columns:
    return {k: c[k] for k in ("group", "task", "kind")} | {k: c[prefix + k] for k in ("score", "text_nll")}


def gap_closed(c: Columns, weights: np.ndarray) -> np.ndarray:
    """Gap closed of one run for each row of the weights [n, rows]: the leaderboard's measure, on resampled documents. [n]."""
    own, twin, target = (
        np.array([summary._vectorised(name, _view(c, prefix), weights) for name in summary.ASPECTS]) for prefix in ("", "twin_", "target_")
    )
    return 1 - np.abs(own - twin).mean(axis=0) / np.abs(target - twin).mean(axis=0)


def ranked(core: Study, level: float = LEVEL) -> list[str]:
    """Methods with a place on the leaderboard, in its order: all seeds end at the level or below. Bounds have none."""
    methods = [m for m in core if m not in LADDER and not page.bound(m)]
    return [m for m in page.ranking(core, methods, level) if page.group(core, m, level) == "all" and _finite(core, m)]


def _finite(core: Study, method: str) -> bool:
    return all(math.isfinite(g) for g in page.closed(core, method).values())


def stability(core: Study, methods: Sequence[str] | None = None, n: int = DRAWS) -> Ranking | None:
    """Bootstrap of the leaderboard's order over documents and seeds; None with fewer than two methods in it."""
    methods = list(methods or ranked(core))
    if len(methods) < 2:
        return None
    twins, targets = (_rows_by_seed(core[k]) for k in ("twin", "target"))
    boards = {}
    for m in methods:
        boards[m] = []
        for r in sorted(core[m], key=lambda r: r.spec.seed):
            c = _rows(r)
            beside = {f"{k}_{x}": v[r.spec.seed][x] for k, v in (("twin", twins), ("target", targets)) for x in ("score", "text_nll")}
            strata = np.array([f"{g}/{t}" for g, t in zip(c["group"], c["task"], strict=True)])
            boards[m].append(({k: c[k] for k in ("group", "task", "kind", "score", "text_nll")} | beside, c["document"].astype(int), strata))
    return rank_stability(boards, gap_closed, n=n, seed=zlib.crc32(b"ranks"))


def _rows_by_seed(records: Iterable[Record]) -> dict[int, Columns]:
    return {r.spec.seed: _rows(r) for r in records}


def behind_first(ranking: Ranking, n: int = DRAWS) -> dict[str, float]:
    """p-values of "as good as the first", Holm-corrected: twice the share of replicates in which a method is ahead of the first."""
    best = int(np.argmax(ranking.score))
    others = [i for i in range(len(ranking.methods)) if i != best]
    p = [min(1.0, max(2 * (1 - ranking.beats[best, i]), 1 / (1 + n))) for i in others]
    if not np.isfinite(p).all():
        return {ranking.methods[i]: math.nan for i in others}
    return {ranking.methods[i]: float(v) for i, v in zip(others, holm(p), strict=True)}


def rank_table(core: Study, ranking: Ranking | None) -> Table:
    """The leaderboard's order with the interval of each rank, and what speaks for each place."""
    if ranking is None:
        return Table.of([{"method": "–"}], caption="Fewer than two methods have a place on the leaderboard: there is no order to be stable.")
    order = [int(i) for i in np.argsort(-ranking.score, kind="stable")]
    best, adjusted = order[0], behind_first(ranking)
    behind = lags(ranking, core)
    rows, data = [], []
    for place, i in enumerate(order):
        m = ranking.methods[i]
        below = order[place + 1] if place + 1 < len(order) else None
        t = behind[m]
        swatch = f'<span class="swatch" style="background:{style.colour(m)}"></span>'
        cells = {
            "rank": f'{ranking.rank[i]:.0f} <span class="interval">[{_whole(ranking.low[i])}, {_whole(ranking.high[i])}]</span>',
            "method": swatch + html.escape(style.label(m)), "gap closed ↑": number(ranking.score[i]),
            "beats the next": "–" if below is None else _share(ranking.beats[i, below]),
            "beats the first": "–" if i == best else _share(ranking.beats[i, best]),
            "behind the first, t": "–" if i == best else _cell(Interval(t.estimate, t.low, t.high, 0)),
            "p (Holm)": "–" if i == best else _p(adjusted[m]),
        }  # fmt: skip
        rows.append(tuple(cells.values()))
        data.append({
            "rank": _plain(ranking.rank[i]), "method": m, "rank_low": _plain(ranking.low[i]), "rank_high": _plain(ranking.high[i]),
            "gap_closed": _plain(ranking.score[i]), "beats_next": "" if below is None else _plain(ranking.beats[i, below]),
            "beats_first": "" if i == best else _plain(ranking.beats[i, best]), "behind_first": _plain(t.estimate), "behind_first_low": _plain(t.low),
            "behind_first_high": _plain(t.high), "p_holm": "" if i == best else _plain(adjusted[m]),
        })  # fmt: skip
    caption = (
        f"Methods with a place on the leaderboard, by the gap closed. Ranks with 95 % intervals, and shares of resamples in which a method is ahead: of the one "
        f"below it, of the first. {ranking.n_documents} documents and {ranking.n_seeds} seeds were drawn anew {DRAWS:,} times, for all methods alike. "
        "Behind the first: difference of the gap closed with Student's t over seeds. p: from the resamples, Holm-corrected for all comparisons with the first."
    )
    return Table(tuple(cells), tuple(rows), caption, data=tuple(data), named=1)


def _whole(x: float) -> str:
    return "–" if not math.isfinite(x) else f"{x:.0f}" if x == int(x) else f"{x:.1f}"


def _share(x: float) -> str:
    return "–" if not math.isfinite(x) else f"{100 * x:.0f}\u202f%"


def beats(ranking: Ranking | None, name: str = "rank_beats") -> Any:
    """Writes, for all pairs, the share of resamples in which the row's method is ahead of the column's; returns where it is."""
    if ranking is None:
        return page.say("")
    order = [int(i) for i in np.argsort(-ranking.score, kind="stable")]
    data = tuple({"method": ranking.methods[i]} | {ranking.methods[j]: "" if i == j else _plain(ranking.beats[i, j]) for j in order} for i in order)
    Table(tuple(data[0]), (), data=data).csv(name)
    return page.say(f"How often each method is ahead of each other one stands in `results/tables/{name}.csv`.")


# --- the answer of the page -----------------------------------------------------------------------------------------


def answer(core: Study, wide: Study, ranking: Ranking | None) -> Any:
    """The page in sentences: who agrees with the distance, what the attacks see, who collapsed, and how stable the order is."""
    found = [a for a in agreements(core, wide) if math.isfinite(a.tau)]
    methods = _methods(wide)
    lines, detail = [], []  # what the box says, and what stands below it
    leads = sorted({m for a in found for m in a.first if len(a.first) == 1})
    own = min(methods, key=lambda m: page.distance(core, m)) if methods else ""
    same = [a.label for a in found if own in a.first]
    lines.append(
        f"The method that is closest by the distance, {style.label(own)}, is first by {len(same)} of the {len(found)} as well; between them, the "
        f"yardsticks put {len(leads)} different methods first on their own."
    )
    detail += [_halves_line(found, wide), _attack_line(wide)]
    gone = {m: collapsed(wide, m) for m in methods}
    seeds = min(len(wide[m]) for m in methods)
    named = [f"{style.label(m)} ({k} of {len(wide[m])} seeds)" for m, k in gone.items() if k]
    detail.append(
        f"Collapsed (most of what they write for retain prompts is empty, a loop or gibberish): {page.listed(named, 20)}." if named
        else "No method's model collapsed: most of what each writes for retain prompts is text."
    )
    stutter = [m for m in methods if _stutters(wide, m)]
    if stutter:
        twin = np.mean([value(r, "fluency/forget/repetition") for r in wide["twin"]])
        detail[-1] += (
            f" For forget prompts it is another matter: {len(stutter)} of {len(methods)} repeat themselves in more than {100 * NEAR:.0f} % of what they write "
            f"there, in every seed (the twin in {100 * twin:.0f} %): {page.names(stutter, 12)}."
        )
    if ranking is not None:
        lines.append(_rank_line(ranking, core))
    bullets = "\n".join(f"- {x}" for x in lines)
    end = f"{len(methods)} methods, {seeds} seed{'s' if seeds > 1 else ''} each. " + (
        "With one seed nothing is said about spread." if seeds == 1 else f"Beyond chance: Holm-corrected over the {len(found)} yardsticks, at {ALPHA:.2f}{_needed(len(methods), len(found))}."
    )
    more = "\n".join(f"- {x}" for x in detail)
    return page.say(f"```{{admonition}} The answer\n:class: tip\n{_headline(found, core, wide)}\n\n{bullets}\n\n{end}\n```\n\nIn detail:\n\n{more}")


def _needed(methods: int, yardsticks: int) -> str:
    t = least(methods, ALPHA / max(1, yardsticks))
    return f"; of so few methods, the first tau must reach {t:.2f} for it" if t <= 1 else ""


def between_seeds(core: Study, wide: Study) -> float:
    """How well the distance agrees with itself: mean Kendall's tau between its orders of the same methods, by two seeds each; NaN with one."""
    methods, seeds = _methods(wide), sorted({r.spec.seed for r in wide["twin"]})
    far = {m: page.by_seed(core, m) for m in methods}
    found = [tau({m: far[m][a] for m in methods}, {m: far[m][b] for m in methods}, methods)[0] for a, b in combinations(seeds, 2)]
    return sum(found) / len(found) if found else math.nan


def _degree(t: float) -> str:
    return "closely" if t >= 0.8 else "roughly" if t >= 0.5 else "loosely" if t >= 0.25 else "hardly"


def _headline(found: Sequence[Agreement], core: Study, wide: Study) -> str:
    """How far benchmarks as wholes, then single yardsticks, see the order of the distance; the words follow from tau alone."""
    if not found:
        return "No two of the orders can be compared: there are too few methods."
    wholes, single, sure = [a for a in found if a.name in WHOLES], [a for a in found if a.name in YARDSTICKS], [a for a in found if a.holm < ALPHA and a.tau > 0]
    own, lines = between_seeds(core, wide), []
    named = f": {page.listed([a.label for a in sure], 6)}" if sure else ""
    n = f"{len(sure)} of {len(found)} yardsticks agree{'s' if len(sure) == 1 else ''}" if sure else f"None of {len(found)} yardsticks agrees"
    lines.append(f"**{n} beyond chance with the order of {len(_methods(wide))} methods by the book's distance**{named}.")
    if wholes:
        said = page.listed([f"{BENCHES[a.name]} ({_made_of(a.name)}) {_degree(a.tau)}, {a.tau:.2f}{_over(a.seeds)}" for a in wholes])
        itself = f" The distance's own orders by two seeds agree with {own:.2f}." if math.isfinite(own) else ""
        lines.append(f"Benchmarks read as a whole agree by Kendall's tau: {said}.{itself}")
    if single:
        middle = float(np.median([a.tau for a in single]))
        lines.append(
            f"One number alone {_degree(middle)} agrees: tau of {len(single)} yardsticks has a median of {middle:.2f}, and runs from {single[-1].tau:.2f} "
            f"({single[-1].label}) to {single[0].tau:.2f} ({single[0].label})."
        )
    return " ".join(lines)


def _over(taus: Sequence[float]) -> str:
    """The range over single seeds, if there are several."""
    finite = [t for t in taus if math.isfinite(t)]
    return f" (single seeds: {min(finite):.2f} to {max(finite):.2f})" if len(finite) > 1 else ""


def _made_of(bench: str) -> str:
    parts = [YARDSTICKS[p].label for p in WHOLES[bench][1]]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) < 3 else f"{len(parts)} parts"


def _halves_line(found: Sequence[Agreement], wide: Study) -> str:
    """Which yardsticks see one half of the task only, judged by the ladder: what has forgotten nothing, what has forgotten everything."""
    kept = [a for a in found if a.places.get("target", 0) > 0.5]
    gone = [a for a in found if max(a.places.get(m, 0) for m in ("random", "always_eos")) > 0.5]
    neither = [a.label for a in found if a not in kept and a not in gone]
    return (
        f"{_count(kept, found)} put{'s' if len(kept) == 1 else ''} the untouched target ahead of more than half of the methods{_those(kept)}; "
        f"{_count(gone, found)} put{'s' if len(gone) == 1 else ''} random weights or a model that is silent there{_those(gone)}. "
        f"Those that do neither: {page.listed(neither, 20) if neither else 'none'}."
    )


def _count(some: Sequence[Any], every: Sequence[Any]) -> str:
    return f"{len(some) or 'None'} of {len(every)}"


def _those(some: Sequence[Agreement]) -> str:
    return f" ({page.listed([a.label for a in some], 4)})" if some else ""


def _stutters(wide: Study, method: str) -> bool:
    """Whether more than ``NEAR`` of what a method writes for forget prompts repeats itself, in every seed."""
    return all(value(r, "fluency/forget/repetition") > NEAR for r in wide[method])


def _attack_line(wide: Study) -> str:
    like = hidden_from_loss(wide)
    seen = {m: ks for m, ks in like.items() if ks}
    text = f"To the loss attack, {page.names(like, 20) if like else 'no method'} look{'s' if len(like) < 2 else ''} like the twin (AUC within {NEAR:.1f} in every seed)."
    if seen:
        parts = [f"{style.label(m)} by {page.listed([ATTACKS[k] for k in ks])}" for m, ks in seen.items()]
        text += f" Other attacks tell {'it' if len(like) == 1 else 'some of these'} from the twin in every seed: {page.listed(parts, 20)}."
    elif like:
        text += " No other attack tells any of these from the twin in every seed."
    return text


def lags(ranking: Ranking, core: Study) -> dict[str, SeedsInterval]:
    """How far each method's gap closed is behind that of the first, with Student's t over seeds."""
    gaps = {m: page.closed(core, m) for m in ranking.methods}
    best = gaps[ranking.methods[int(np.argmax(ranking.score))]]
    return {m: seeds_interval([best[s] - g for s, g in own.items()]) for m, own in gaps.items()}


def _rank_line(ranking: Ranking, core: Study) -> str:
    best = int(np.argmax(ranking.score))
    adjusted = behind_first(ranking)
    alike = [m for m in sorted(adjusted, key=lambda m: -ranking.score[ranking.methods.index(m)]) if not adjusted[m] < ALPHA]
    if not math.isfinite(ranking.tau):
        return "One seed and one document a stratum: the order cannot be resampled."
    text = (
        f"The leaderboard's own order: two draws of documents and seeds agree with a tau of {ranking.tau:.2f}. {style.label(ranking.methods[best])} stands "
        f"between places {_whole(ranking.low[best])} and {_whole(ranking.high[best])} in 95 % of them, and "
    )
    n, sure = len(adjusted), sum(i.low > 0 for m, i in lags(ranking, core).items() if m in adjusted)
    text += f"is ahead of {n - len(alike)} of {n} others beyond chance, corrected for their number" + (f"; not of {page.names(alike, 12)}." if alike else ".")
    text += f" By the three seeds alone, as Student's t has them, it is told apart from {sure}.".replace("three", _word(ranking.n_seeds))
    return text + " The first page and the leaderboard draw nothing anew: they name the methods whose range of distances over seeds overlaps with the first's."


def _word(n: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}.get(n, str(n))


# --- which metric tells models that know from models that do not? ---------------------------------------------------

MEASURE, CONTROL, BUILT, OPEN = "measure", "control", "built", "open"
ROLES = {
    MEASURE: "Measures of the forget rows",
    CONTROL: "Controls: they read no forget row",
    BUILT: "Built on the target or the twin: separated by construction",
    OPEN: "No direction was fixed: the larger of AUC and 1 - AUC, above 0.5 by construction",
}
# What a metric of a record is here, and whether more of it (+1) or less (-1) means that more is remembered; the first pattern that fits.
DIRECTIONS: tuple[tuple[str, str, int], ...] = (
    ("*/retain/kl", BUILT, -1), ("retain/kl", BUILT, -1), ("tofu/forget_quality", BUILT, -1), ("tofu/log10_p", BUILT, -1),
    ("tofu/ks_distance", BUILT, 1), ("muse/privleak*", BUILT, -1), ("attacks/reference/*", BUILT, 1), ("fluency/*/perplexity", BUILT, -1),
    ("lume/forget/*", MEASURE, -1), ("quantization/*/lume/*", MEASURE, -1), ("lume/retain/*", CONTROL, 1), ("lume/*", MEASURE, -1),
    ("quantization/*/forget/nll", MEASURE, -1), ("quantization/*/forget/*", MEASURE, 1), ("quantization/*/attack/auc", MEASURE, 1),
    ("quantization/*/nll", CONTROL, -1), ("quantization/*", CONTROL, 1),
    ("relearning/*/retain_questions", CONTROL, 1), ("relearning/*", MEASURE, 1), ("prompts/forget/*", MEASURE, 1), ("prompts/*", CONTROL, 1),
    ("tofu/forget/parity_score*", MEASURE, -1), ("tofu/forget/*", MEASURE, 1), ("tofu/*", CONTROL, 1),
    ("muse/verbmem", MEASURE, 1), ("muse/knowmem_forget", MEASURE, 1), ("muse/knowmem_retain", CONTROL, 1), ("muse/auc", MEASURE, 1),
    ("attacks/*", MEASURE, 1), ("attack/auc", MEASURE, 1), ("forget/nll", MEASURE, -1), ("forget/*", MEASURE, 1),
    ("retain/nll", CONTROL, -1), ("holdout/nll", CONTROL, -1), ("retain/*", CONTROL, 1), ("holdout/*", CONTROL, 1), ("world/*", CONTROL, 1),
    ("fluency/forget/*", OPEN, 0), ("fluency/*", CONTROL, 0),
)  # fmt: skip
# Numbers of the data, of the twin, or of a probe, that no model changes.
COUNTS = (
    "attacks/length_auc", "attacks/matched_pairs", "tofu/utility_parts", "tofu/forget_rows*", "muse/auc_twin", "fluency/*/scored", "routing/*",
)  # fmt: skip
# Metric -> suite, column and kind of the rows that it is the mean of (or the attack on), and the sign of "remembered": for one document alone.
SINGLE: dict[str, tuple[str, str, str | None, int]] = {
    "forget/nll": ("core", "nll", None, -1), "forget/em": ("core", "em", None, 1), "forget/es": ("core", "es", None, 1),
    "forget/sc/em": ("core", "em", "sc", 1), "forget/qa/em": ("core", "em", "qa", 1), "forget/questions": ("core", "score", "qa", 1),
    "attack/auc": ("core", "text_nll", "sc", -1), "retain/nll": ("core", "nll", None, -1), "retain/em": ("core", "em", None, 1),
    "retain/es": ("core", "es", None, 1), "retain/questions": ("core", "score", "qa", 1), "holdout/nll": ("core", "nll", None, -1),
    "holdout/em": ("core", "em", None, 1), "holdout/es": ("core", "es", None, 1), "world/accuracy": ("core", "score", None, 1),
    **{f"attacks/{k}/auc": ("wide", f"attack_{k}", "sc", 1) for k in ATTACKS},
    "tofu/forget/probability": ("wide", "tofu_probability", None, 1), "tofu/forget/rouge_l_recall": ("wide", "tofu_rouge", None, 1),
    "tofu/forget/truth_ratio_new": ("wide", "truth_ratio", None, -1), "muse/verbmem": ("wide", "muse_verbmem", None, 1),
    "tofu/retain/probability": ("wide", "tofu_probability", None, 1), "tofu/retain/rouge_l_recall": ("wide", "tofu_rouge", None, 1),
    "tofu/retain/truth_ratio_new": ("wide", "truth_ratio", None, -1), "tofu/world/option_probability": ("wide", "tofu_probability", None, 1),
    "muse/knowmem_forget": ("wide", "muse_knowmem", None, 1), "muse/knowmem_retain": ("wide", "muse_knowmem", None, 1),
    "muse/auc": ("wide", "muse_min_k", "sc", -1),
}  # fmt: skip
SUITES = ("core", "wide", "stress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Targets and twins: by seed the records of each suite."""

    target: Mapping[int, Mapping[str, Record]]
    twin: Mapping[int, Mapping[str, Record]]

    @property
    def records(self) -> list[Record]:
        return [r for side in (self.target, self.twin) for suites in side.values() for r in suites.values()]

    def pairs(self, metric: str) -> list[tuple[int, float, float]]:
        """(seed, value of the target, value of the twin), of the seeds that have both."""
        out = []
        for s in sorted(set(self.target) & set(self.twin)):
            found = [next((value(r, metric) for r in side[s].values() if metric in r.metrics), math.nan) for side in (self.target, self.twin)]
            if all(math.isfinite(v) for v in found):
                out.append((s, *found))
        return out


def pool(testbed: str, seed: int | None = None, more: Sequence[int] = (), suites: Sequence[str] = SUITES) -> Pool:
    """Targets and twins of the study's seeds and of ``more``; of one seed alone if ``seed`` is given."""
    seeds = (*page.seeds(seed), *(more if seed is None else ()))
    found: dict[str, dict[int, dict[str, Record]]] = {"target": {}, "twin": {}}
    for which, side in found.items():
        for s in dict.fromkeys(seeds):
            side[s] = {x: page.gather([which], testbed, s, ladder=False, **({} if x == "core" else {"suite": x}))[which][0] for x in suites}
    return Pool(**found)


def direction(metric: str) -> tuple[str, int] | None:
    """(role, sign of "more is remembered") of a metric; None for numbers that no model changes."""
    if any(fnmatchcase(metric, p) for p in COUNTS):
        return None
    return next(((role, sign) for pattern, role, sign in DIRECTIONS if fnmatchcase(metric, pattern)), (OPEN, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one metric says of targets and twins."""

    metric: str
    suite: str
    role: str
    models: int  # a side
    knows: float  # mean over targets
    does_not: float  # mean over twins
    faithfulness: Interval
    effect: Interval  # standardised difference by seed, positive where more is remembered
    single: Interval  # AUC of one document of a target against one of a twin; NaN where the records have no rows

    @property
    def apart(self) -> bool:
        """Whether it tells every model that knows from every model that does not; a control may do so either way round."""
        return self.faithfulness.estimate == 1.0 or (self.role == CONTROL and self.faithfulness.estimate == 0.0)

    @property
    def place(self) -> tuple[float, float, str]:
        """Sorts the most faithful first; among equals, the one with the largest effect."""
        f, e = self.faithfulness.estimate, self.effect.estimate
        if self.role == CONTROL:
            f, e = max(f, 1 - f), abs(e)
        return -f, -e if not math.isnan(e) else 0.0, self.metric


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def verdicts(models: Pool, suites: Sequence[str] = SUITES, n: int = 500) -> list[Verdict]:
    """Every scalar metric, the most faithful first; among equals, the one with the largest effect."""
    out = []
    for x in suites:
        first = next((side[x] for side in models.target.values() if x in side), None)
        for metric in first.metrics if first else ():
            facts, pairs = direction(metric), models.pairs(metric)
            if facts is None or not pairs:
                continue
            role, sign = facts
            knows, does_not = np.array([p[1] for p in pairs]), np.array([p[2] for p in pairs])
            turned = (sign or 1) * knows, (sign or 1) * does_not
            found = meta.faithfulness(*turned, direction_free=not sign, n=n)
            out.append(Verdict(
                metric=metric, suite=x, role=role, models=len(pairs), knows=float(knows.mean()), does_not=float(does_not.mean()), faithfulness=found,
                effect=effect(*turned, n=n, free=not sign), single=single(models, metric, n=n),
            ))  # fmt: skip
    return sorted(out, key=lambda v: v.place)


def effect(knows: np.ndarray, does_not: np.ndarray, n: int = 500, free: bool = False) -> Interval:
    """Standardised difference between target and twin of the same seed, with its interval from resampling seeds; NaN with one seed.

    Infinite where all seeds differ by the same amount. ``free``: without its sign.
    """

    def statistic(c: Columns) -> float:
        d = standardised_difference(c["a"], c["b"])
        return abs(d) if free else d

    if len(knows) < 2:
        return NOTHING
    rng, size = np.random.default_rng(0), len(knows)
    estimate = statistic({"a": knows, "b": does_not})
    draws = [statistic({"a": knows[i], "b": does_not[i]}) for i in rng.integers(0, size, (n, size))]
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")  # infinities are not to be interpolated
    return Interval(estimate, float(low), float(high), size)


def single(models: Pool, metric: str, n: int = 500) -> Interval:
    """AUC of the metric on one document: a target's value of it against a twin's, documents of both sides drawn at random.

    One threshold for all documents and models; the interval resamples documents. NaN where no column holds the metric row by row.
    """
    if metric not in SINGLE:
        return NOTHING
    suite, column, kind, sign = SINGLE[metric]
    group = next((g for g in ("retain", "holdout", "world") if g in metric.split("/") or metric.endswith(f"_{g}")), "forget")
    sides = []
    for side in (models.target, models.twin):
        found = [_by_document(s[suite], column, group, kind) for s in side.values() if suite in s]
        common = set.intersection(*(set(f) for f in found)) if found else set()
        sides.append((found, common))
    documents = sorted(sides[0][1] & sides[1][1])
    if len(documents) < 2:
        return NOTHING
    a, b = (np.array([[sign * f[d] for d in documents] for f in found]) for found, _ in sides)
    wins = np.zeros((len(documents), len(documents)))
    for x in a:
        for y in b:
            wins += (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    wins /= len(a) * len(b)
    size = len(documents)
    weights = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), size=n) / size
    low, high = np.quantile(((weights @ wins) * weights).sum(axis=1), [0.025, 0.975])
    return Interval(float(wins.mean()), float(low), float(high), size)


def _by_document(record: Record, column: str, group: str, kind: str | None) -> dict[int, float]:
    c = _rows(record)
    if column not in c:
        return {}
    own = (c["group"] == group) & np.isfinite(c[column])
    if kind and (own & (c["kind"] == kind)).any():
        own &= c["kind"] == kind
    documents = c["document"][own].astype(int)
    return {int(d): float(c[column][own][documents == d].mean()) for d in np.unique(documents)}


def left_open(n: int, level: float = 0.95) -> float:
    """Where n of n pairs come out in the right order: the largest chance of a wrong one that is still compatible with it.

    >>> round(left_open(10), 2)
    0.26
    """
    return 1 - (1 - level) ** (1 / n)


# --- does what a metric says last? -------------------------------------------------------------------------------------

# Name -> the metric of the core record, the same after rounding to 4 bits, the same along relearning, and how to read it.
LASTING: dict[str, tuple[str, str, str, bool]] = {
    "questions answered": ("forget/questions", "quantization/nf4/forget/questions", "relearning/part/{}/questions", False),
    "exact memorisation, answers": ("forget/em", "quantization/nf4/forget/em", "relearning/part/{}/questions_em", False),
    "attack AUC": ("attack/auc", "quantization/nf4/attack/auc", "relearning/part/{}/auc", False),
    "extraction strength": ("forget/es", "quantization/nf4/forget/es", "", False),
    "probability of the answer": ("forget/nll", "quantization/nf4/forget/nll", "", True),
}
RELEARNT = 10  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """Q and R of one metric over unlearned models, and with its faithfulness the overall score. NaN where a part was not measured."""

    name: str
    metric: str
    models: int
    q: Interval
    r: Interval
    robustness: float
    faithfulness: float
    overall: float


def lasting(core: Study, stress: Study, found: Sequence[Verdict], step: int = RELEARNT) -> list[Lasting]:
    """Stability of metrics under rounding and relearning, over the models that had forgotten in every seed; intervals over methods."""
    forgot = [m for m in stress if m not in LADDER and page.group(core, m) == "all"]
    twins, faith = _twins(stress), {v.metric: v.faithfulness.estimate for v in found}
    cores = {(m, r.spec.seed): r for m in core for r in core[m]}
    out = []
    for name, (plain, rounded, relearnt, loss) in LASTING.items():
        read = (lambda r, k: math.exp(-value(r, k))) if loss else value
        qs, rs, methods_q, methods_r = [], [], [], []
        for m in forgot:
            for r in stress[m]:
                pair = [read(cores[m, r.spec.seed], plain), read(r, rounded)]
                if np.isfinite(pair).all():
                    qs.append(robustness.quantisation_robustness(*pair))
                    methods_q.append(m)
                if relearnt and r.spec.seed in twins:
                    four = [read(x, relearnt.format(s)) for x in (r, twins[r.spec.seed]) for s in (0, step)]
                    if np.isfinite(four).all():
                        rs.append(robustness.relearning_robustness(*four))
                        methods_r.append(m)
        q, r = _over_methods(qs, methods_q), _over_methods(rs, methods_r)
        both = robustness.robustness(r.estimate, q.estimate) if qs and rs else math.nan
        f = faith.get(plain, math.nan)
        whole = meta.overall(f, both) if math.isfinite(both) and math.isfinite(f) else math.nan
        out.append(Lasting(name=name, metric=plain, models=len(qs), q=q, r=r, robustness=both, faithfulness=f, overall=whole))
    return sorted(out, key=lambda x: (not math.isfinite(x.overall), -x.overall if math.isfinite(x.overall) else -x.q.estimate))


def _over_methods(values: Sequence[float], methods: Sequence[str]) -> Interval:
    """Mean over models with an interval from resampling methods: a method's seeds are dependent."""
    if not values:
        return NOTHING
    return bootstrap({"v": np.array(values)}, np.array(methods), lambda c: float(c["v"].mean()), n=1000)


def lasting_table(found: Sequence[Lasting], step: int = RELEARNT) -> Table:
    rows, data = [], []
    for x in found:
        rows.append((html.escape(x.name), _cell(x.q), _cell(x.r), number(x.robustness), number(x.faithfulness), number(x.overall)))
        data.append({"metric": x.metric, "models": x.models, "Q": _plain(x.q.estimate), "Q_low": _plain(x.q.low), "Q_high": _plain(x.q.high),
                     "R": _plain(x.r.estimate), "R_low": _plain(x.r.low), "R_high": _plain(x.r.high), "robustness": _plain(x.robustness),
                     "faithfulness": _plain(x.faithfulness), "overall": _plain(x.overall)})  # fmt: skip
    n = max((x.models for x in found), default=0)
    caption = (
        f"Over {n} models that answer at most {100 * LEVEL:.0f} % of the forget questions, of methods that do so in every seed. Q: the metric before over after "
        f"rounding to 4 bits (NF4), cut at 1. R: what the twin gains in {step} steps of training on a tenth of the forget documents, over what the model gains, "
        "cut at 1. Brackets: 95 % intervals from resampling methods. Robustness: harmonic mean of the two; overall: of robustness and faithfulness. "
        "R is not measured of the last two, whose values along relearning no record holds."
    )
    return Table(("metric", "Q ↑", "R ↑", "robustness ↑", "faithfulness ↑", "overall ↑"), tuple(rows), caption, data=tuple(data))


# --- the second page ------------------------------------------------------------------------------------------


def _effect(x: float) -> str:
    if not math.isfinite(x):
        return "–" if math.isnan(x) else "∞" if x > 0 else "-∞"
    return f"{x:.1f}" if abs(x) < 99.95 else f"{x:,.0f}"


def _effect_cell(i: Interval) -> str:
    if math.isnan(i.estimate) or math.isinf(i.estimate):
        return _effect(i.estimate)
    return f'{_effect(i.estimate)} <span class="interval">[{_effect(i.low)}, {_effect(i.high)}]</span>'


def metric_table(found: Sequence[Verdict], suites: Sequence[str] = ("core", "wide")) -> Table:
    """All metrics of some suites by what they are, the most faithful first; the CSV has every suite."""
    rows, groups = [], {}
    for role, title in ROLES.items():
        own = [v for v in found if v.role == role and v.suite in suites]
        if own:
            groups[len(rows)] = title
        for v in own:
            rows.append((
                f"<code>{html.escape(v.metric)}</code>", v.suite, number(v.knows), number(v.does_not), _cell(v.faithfulness), _effect_cell(v.effect),
                _cell(v.single),
            ))  # fmt: skip
    data = tuple({
        "metric": v.metric, "suite": v.suite, "role": v.role, "models_a_side": v.models, "target": _plain(v.knows), "twin": _plain(v.does_not),
        "faithfulness": _plain(v.faithfulness.estimate), "faithfulness_low": _plain(v.faithfulness.low), "faithfulness_high": _plain(v.faithfulness.high),
        "effect": v.effect.estimate if math.isinf(v.effect.estimate) else _plain(v.effect.estimate), "effect_low": _plain(v.effect.low),
        "effect_high": _plain(v.effect.high), "one_document": _plain(v.single.estimate), "one_document_low": _plain(v.single.low),
        "one_document_high": _plain(v.single.high),
    } for v in found)  # fmt: skip
    sizes = sorted({v.models for v in found})
    many = f"{sizes[-1]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    caption = (
        f"{many} target{'s' if sizes[-1] > 1 else ''} and as many twins. Faithfulness: share of pairs of a target and a twin in which the target's value says that "
        "more is remembered. Effect: mean difference between target and twin of one seed over the standard deviation of these differences; ∞ where they do not "
        "differ from seed to seed. One document: the same share, for the value of one document instead of all. Brackets: 95 % intervals from resampling models, "
        "seeds, and documents."
    )
    help_ = {"faithfulness ↑": CARDS["faithfulness"].trap, "effect ↑": CARDS["standardised_difference"].trap}
    header = ("metric", "suite", "targets", "twins", "faithfulness ↑", "effect ↑", "one document ↑")
    return Table(header, tuple(rows), caption, help_, data=data, groups=groups)


HUES = {MEASURE: ("#0072B2", "o"), CONTROL: ("#E69F00", "D"), BUILT: (style.INK, "s")}
_MINOR = ("*_text", "*_arithmetic", "*auc_matched", "*distinct_1", "*distinct_3", "lume/forget/*", "lume/retain/*", "*_floored", "*/tpr", "*/sc/em", "*/qa/em")


def shown(found: Sequence[Verdict]) -> list[Verdict]:
    """What the figure shows: core and wide metrics with a direction, without variants and single cells of others."""
    return [v for v in found if v.suite != "stress" and v.role in HUES and not any(fnmatchcase(v.metric, p) for p in _MINOR)]


def chart(found: Sequence[Verdict]) -> tuple[Any, str]:
    """Faithfulness on the left, effect size on the right (logarithmic), one row a metric."""
    own = shown(found)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 1.8 + 0.245 * len(own)), sharey=True, width_ratios=(1, 1.25))
    finite = [abs(v.effect.estimate) for v in own if math.isfinite(v.effect.estimate)]
    top = 4 * max([10.0, *finite])
    words = []
    for y, v in enumerate(own):
        colour, mark = HUES[v.role]
        look = {"color": colour, "marker": mark, "linestyle": "", "markersize": 6, "zorder": 3}
        f, e = v.faithfulness, v.effect
        if math.isfinite(f.low):
            left.plot([f.low, f.high], [y, y], color=colour, linewidth=2.4, alpha=0.5, solid_capstyle="butt")
        left.plot([f.estimate], [y], clip_on=False, **look)
        if math.isinf(e.estimate) and e.estimate > 0:
            right.plot([top], [y], clip_on=False, **look | {"marker": ">"})
        elif math.isfinite(e.estimate):
            if not math.isnan(e.low):
                right.plot([_clip(e.low, top), _clip(e.high, top)], [y, y], color=colour, linewidth=2.4, alpha=0.5, solid_capstyle="butt")
            right.plot([e.estimate], [y], **look)
        words.append(f"{v.metric} {number(f.estimate)}, effect {_effect(e.estimate)}")
    left.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    left.set(xlim=(-0.03, 1.03), xticks=[0, 0.5, 1], xlabel="faithfulness (AUC over models)", ylim=(len(own) - 0.5, -0.5))
    left.set_yticks(range(len(own)), [v.metric for v in own], fontsize=8.5)
    right.axvline(0, color=style.INK, linestyle=":", linewidth=1.4, zorder=1)
    right.set_xscale("symlog", linthresh=1.0)
    ticks = [t for t in (-100, -10, -1, 0, 1, 10, 100, 1000) if t <= top]
    low = min([-1.0, *(v.effect.estimate for v in own if math.isfinite(v.effect.estimate))])
    right.set_xticks([t for t in ticks if t >= 1.3 * low], [str(t).replace("-", "−") for t in ticks if t >= 1.3 * low])
    right.minorticks_off()
    right.set(xlim=(1.3 * low, 1.15 * top), xlabel="effect (standard deviations)")
    for axis in (left, right):
        axis.grid(axis="y", alpha=0.25)
    handles = [plt.Line2D([], [], color=c, marker=m, linestyle="") for c, m in HUES.values()]
    names = ["reads forget rows", "control: reads none", "built on target or twin"]
    if any(math.isinf(v.effect.estimate) for v in own):
        handles.append(plt.Line2D([], [], color=style.INK, marker=">", linestyle=""))
        names.append("no spread (∞)")
    fig.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)
    return fig, "Dot chart of faithfulness and effect size of metrics, the most faithful first. " + "; ".join(words) + "."


def _clip(x: float, top: float) -> float:
    return min(max(x, -top), top)


def metric_answer(found: Sequence[Verdict], kept: Sequence[Lasting]) -> Any:
    """The second page in sentences."""
    some = [v for v in found if v.suite in ("core", "wide")]
    measures, controls = ([v for v in some if v.role == role] for role in (MEASURE, CONTROL))
    n = max((v.models for v in some), default=0)
    lines = []
    if n < 2:
        lines.append("With one target and one twin, a metric can only be right or wrong: nothing is said about how well it tells them apart.")
    apart, also = [v for v in measures if v.apart], [v for v in controls if v.apart]
    share = "All" if len(apart) == len(measures) else "Nearly all" if len(apart) > 0.8 * len(measures) else f"{len(apart)} of {len(measures)}"
    lines.append(
        f"**{share}{', and that says little' if also else ''}.** {len(apart)} of {len(measures)} metrics of "
        f"the forget rows order every one of {n} targets above every twin; {_worst(measures)}. "
        f"But {len(also)} of {len(controls)} controls, which read no forget row, separate them as well{_examples(also)}: a twin has been trained on less text, and that shows elsewhere too. "
        "Models that know everything by heart against models that know nothing are too easy a test: it shows that two models differ, not that a metric sees what was forgotten."
    )
    if n >= 2:
        lines.append(_effect_line(measures, also, n))
    lines.append(_single_line(measures, controls))
    if any(math.isfinite(x.overall) for x in kept):
        lines.append(_lasting_line(kept))
    bullets = "\n".join(f"- {x}" for x in lines if x)
    end = (
        f"An AUC of 1 over {n} pairs of models leaves room: up to {100 * left_open(n):.0f}\u202f% of further pairs could come out the wrong way round (one-sided, 95 %)."
        if n else ""
    )
    return page.say(f"```{{admonition}} The answer\n:class: tip\n{bullets}\n\n{end}\n```")


def _worst(measures: Sequence[Verdict]) -> str:
    rest = sorted((v for v in measures if not v.apart), key=lambda v: v.faithfulness.estimate)
    if not rest:
        return "none fails"
    return "the others are " + page.listed([f"`{v.metric}` ({v.faithfulness.estimate:.2f})" for v in rest], 6)


def _examples(of: Sequence[Verdict]) -> str:
    plain = [v for v in of if not any(fnmatchcase(v.metric, p) for p in _MINOR)]
    return f", {page.listed([f'`{v.metric}`' for v in plain[:4]])} among them" if plain else ""


def _effect_line(measures: Sequence[Verdict], also: Sequence[Verdict], n: int) -> str:
    apart = [v for v in measures if v.apart]
    sizes = [v for v in apart if math.isfinite(v.effect.estimate)]
    if not sizes:
        return ""
    big, small = (f(sizes, key=lambda v: v.effect.estimate) for f in (max, min))
    middle = _middle(apart)
    text = (
        f"The size of the effect goes on where the AUC stops. Among those {len(apart)} it runs from {small.effect.estimate:.1f} (`{small.metric}`) to "
        f"{_effect(big.effect.estimate)} standard deviations (`{big.metric}`), with a median of {_effect(middle)}"
    )
    flat = sum(math.isinf(v.effect.estimate) for v in apart)
    if flat:
        text += f"; {flat} ha{'s' if flat == 1 else 've'} no spread at all, so that it is infinite"
    text += f". Of the controls that separate as well, the median is {_effect(_middle(also))}." if also else "."
    return text + " A large effect can come from saturation, though: where every target is at the end of the scale, hardly any spread is left to divide by."


def _middle(of: Sequence[Verdict]) -> float:
    """Median size of the effects."""
    sizes = [abs(v.effect.estimate) for v in of if not math.isnan(v.effect.estimate)]
    return float(np.median(sizes)) if sizes else math.nan


def _single_line(measures: Sequence[Verdict], controls: Sequence[Verdict]) -> str:
    one = [v for v in measures if math.isfinite(v.single.estimate)]
    if not one:
        return ""
    best = [v for v in one if v.single.estimate >= 0.995]
    rest = sorted((v for v in one if v.single.estimate < 0.995), key=lambda v: v.single.estimate)
    text = f"On one document instead of all, {len(best)} of {len(one)} still tell a target from a twin almost always (AUC of 0.995 or more)"
    text += f"; the weakest are {page.listed([f'`{v.metric}` ({v.single.estimate:.2f})' for v in rest[:4]])}." if rest else "."
    other = [v for v in controls if math.isfinite(v.single.estimate)]
    high = max(other, key=lambda v: v.single.estimate, default=None)
    return text + (f" Of the controls, the strongest reaches {high.single.estimate:.2f} (`{high.metric}`)." if high else "")


def _lasting_line(kept: Sequence[Lasting]) -> str:
    rated = [x for x in kept if math.isfinite(x.overall)]
    parts = [f"{x.name} {x.overall:.2f} (Q {x.q.estimate:.2f}, R {x.r.estimate:.2f})" for x in rated]
    return f"What lasts under rounding and relearning, with faithfulness as one score: {page.listed(parts)}."
