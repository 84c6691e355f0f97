"""How the order changes when documents and seeds are drawn anew."""

from __future__ import annotations

import html
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from reprolib.metrics.effects import holm
from reprolib.metrics.ranks import Ranking, rank_stability
from reprolib.metrics.resample import Interval, SeedsInterval, seeds_interval
from reprolib.record import Record
from study.readings import twin
from study.readings.intervals import vectorised
from study.readings.quantities import ASPECTS, LADDER
from study.readings.twin import LEVEL, bound, closed
from study.report import style
from study.report.tables import Table, number
from study.report.words import percent, say
from study.report.yardsticks.definitions import DRAWS, Columns, Study, rows_of
from study.report.yardsticks.tables import cell_of, p_text, plain_text, whole

# --- would the order come out again? ------------------------------------------------------------------------


def _view(c: Columns, prefix: str) -> Columns:
    return {k: c[k] for k in ("group", "task", "kind")} | {k: c[prefix + k] for k in ("score", "text_nll")}


def gap_closed(c: Columns, weights: np.ndarray) -> np.ndarray:
    """Gap closed of one run for each row of the weights [n, rows]: the leaderboard's measure, on resampled
    documents. [n].
    """
    own, twin, target = (
        np.array([vectorised(name, _view(c, prefix), weights) for name in ASPECTS])
        for prefix in ("", "twin_", "target_")
    )
    return 1 - np.abs(own - twin).mean(axis=0) / np.abs(target - twin).mean(axis=0)


def ranked(core: Study, level: float = LEVEL) -> list[str]:
    """Methods with a place on the leaderboard, in its order: all seeds end at the level or below. Bounds have
    none.
    """
    methods = [m for m in core if m not in LADDER and not bound(m)]
    return [
        m
        for m in twin.ranking(core, methods, level)
        if twin.group(core, m, level) == "all" and _finite(core, m)
    ]


def _finite(core: Study, method: str) -> bool:
    return all(math.isfinite(g) for g in closed(core, method).values())


def stability(core: Study, methods: Sequence[str] | None = None, n: int = DRAWS) -> Ranking | None:
    """Bootstrap of the leaderboard's order over documents and seeds; None with fewer than two methods in
    it.
    """
    methods = list(methods or ranked(core))
    if len(methods) < 2:
        return None
    twins, targets = (_rows_by_seed(core[k]) for k in ("twin", "target"))
    boards = {}
    for m in methods:
        boards[m] = []
        for r in sorted(core[m], key=lambda r: r.spec.seed):
            c = rows_of(r)
            beside = {
                f"{k}_{x}": v[r.spec.seed][x]
                for k, v in (("twin", twins), ("target", targets))
                for x in ("score", "text_nll")
            }
            strata = np.array([f"{g}/{t}" for g, t in zip(c["group"], c["task"], strict=True)])
            boards[m].append(
                (
                    {k: c[k] for k in ("group", "task", "kind", "score", "text_nll")} | beside,
                    c["document"].astype(int),
                    strata,
                )
            )
    return rank_stability(boards, gap_closed, n=n, seed=zlib.crc32(b"ranks"))


def _rows_by_seed(records: Iterable[Record]) -> dict[int, Columns]:
    return {r.spec.seed: rows_of(r) for r in records}


def behind_first(ranking: Ranking, n: int = DRAWS) -> dict[str, float]:
    """p-values of "as good as the first", Holm-corrected: twice the share of replicates in which a method is
    ahead of the first.
    """
    best = int(np.argmax(ranking.score))
    others = [i for i in range(len(ranking.methods)) if i != best]
    p = [min(1.0, max(2 * (1 - ranking.beats[best, i]), 1 / (1 + n))) for i in others]
    if not np.isfinite(p).all():
        return {ranking.methods[i]: math.nan for i in others}
    return {ranking.methods[i]: float(v) for i, v in zip(others, holm(p), strict=True)}


def rank_table(core: Study, ranking: Ranking | None) -> Table:
    """The leaderboard's order with the interval of each rank, and what speaks for each place."""
    if ranking is None:
        return Table.of(
            [{"method": "–"}],
            caption=(
                "Fewer than two methods have a place on the leaderboard: there is no order to be stable."
            ),
        )
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
            "rank": (
                f'{ranking.rank[i]:.0f} <span class="interval">[{whole(ranking.low[i])},'
                f" {whole(ranking.high[i])}]</span>"
            ),
            "method": swatch + html.escape(style.label(m)),
            "gap closed ↑": number(ranking.score[i]),
            "beats the next": "–" if below is None else percent(ranking.beats[i, below]),
            "beats the first": "–" if i == best else percent(ranking.beats[i, best]),
            "behind the first, t": "–" if i == best else cell_of(Interval(t.estimate, t.low, t.high, 0)),
            "p (Holm)": "–" if i == best else p_text(adjusted[m]),
        }
        rows.append(tuple(cells.values()))
        data.append(
            {
                "rank": plain_text(ranking.rank[i]),
                "method": m,
                "rank_low": plain_text(ranking.low[i]),
                "rank_high": plain_text(ranking.high[i]),
                "gap_closed": plain_text(ranking.score[i]),
                "beats_next": "" if below is None else plain_text(ranking.beats[i, below]),
                "beats_first": "" if i == best else plain_text(ranking.beats[i, best]),
                "behind_first": plain_text(t.estimate),
                "behind_first_low": plain_text(t.low),
                "behind_first_high": plain_text(t.high),
                "p_holm": "" if i == best else plain_text(adjusted[m]),
            }
        )
    caption = (
        "Methods with a place on the leaderboard, by the gap closed. Ranks with 95 % intervals, and"
        " shares of resamples in which a method is ahead: of the one below it, of the first."
        f" {ranking.n_documents} documents and {ranking.n_seeds} seeds were drawn anew {DRAWS:,} times,"
        " for all methods alike. Behind the first: difference of the gap closed with Student's t over"
        " seeds. p: from the resamples, Holm-corrected for all comparisons with the first."
    )
    return Table(tuple(cells), tuple(rows), caption, data=tuple(data), named=1)


def beats(ranking: Ranking | None, name: str = "rank_beats") -> Any:
    """Writes, for all pairs, the share of resamples in which the row's method is ahead of the column's;
    returns where it is.
    """
    if ranking is None:
        return say("")
    order = [int(i) for i in np.argsort(-ranking.score, kind="stable")]
    data = tuple(
        {"method": ranking.methods[i]}
        | {ranking.methods[j]: "" if i == j else plain_text(ranking.beats[i, j]) for j in order}
        for i in order
    )
    Table(tuple(data[0]), (), data=data).csv(name)
    return say(f"How often each method is ahead of each other one stands in `results/tables/{name}.csv`.")


def lags(ranking: Ranking, core: Study) -> dict[str, SeedsInterval]:
    """How far each method's gap closed is behind that of the first, with Student's t over seeds."""
    gaps = {m: closed(core, m) for m in ranking.methods}
    best = gaps[ranking.methods[int(np.argmax(ranking.score))]]
    return {m: seeds_interval([best[s] - g for s, g in own.items()]) for m, own in gaps.items()}
