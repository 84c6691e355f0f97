"""Intervals: coverage, dependence, strata, pairing, seeds; gap closed and matched levels."""

import math

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import lume
from reprolib.metrics.effects import (
    at_matched,
    benjamini_hochberg,
    cliffs_delta,
    gap_closed,
    gap_reason,
    holm,
    standardised_difference,
    superiority,
)
from reprolib.metrics.ranks import _kendall, rank_stability
from reprolib.metrics.resample import (
    Interval,
    Plan,
    bootstrap,
    combined_interval,
    paired_difference,
    paired_p_value,
    seeds_interval,
    weighted_mean,
)


def mean(columns):
    return columns["x"].mean()


def documents(rng, n=40, rows=5, between=1.0, within=0.1):
    """Rows of one document share most of their value."""
    cluster = np.repeat([f"d{i:03d}" for i in range(n)], rows)
    x = np.repeat(rng.normal(0, between, n), rows) + rng.normal(0, within, n * rows)
    return {"x": x}, cluster


def width(interval):
    return interval.high - interval.low


def test_cluster_bootstrap_is_wider_than_row_bootstrap_for_dependent_rows():
    columns, cluster = documents(np.random.default_rng(0))
    by_document = bootstrap(columns, cluster, mean, n=500)
    by_row = bootstrap(columns, np.arange(len(cluster)), mean, n=500)
    assert by_document.estimate == by_row.estimate == pytest.approx(columns["x"].mean())
    assert by_document.low < by_document.estimate < by_document.high
    assert width(by_document) / width(by_row) == pytest.approx(math.sqrt(5), rel=0.2)
    assert (by_document.n_documents, by_row.n_documents) == (40, 200)


def test_width_agrees_with_the_normal_formula():
    columns, cluster = documents(np.random.default_rng(1), n=100, rows=1)
    got = bootstrap(columns, cluster, mean, n=2000)
    assert width(got) == pytest.approx(2 * 1.96 * columns["x"].std() / 10, rel=0.07)


def test_coverage():
    rng = np.random.default_rng(2)
    hits = {"document": 0, "row": 0}
    for i in range(100):
        columns, cluster = documents(rng, n=30, rows=4)
        for name, keys in (("document", cluster), ("row", np.arange(120))):
            got = bootstrap(columns, keys, mean, n=200, seed=i)
            hits[name] += got.low <= 0 <= got.high
    assert 87 <= hits["document"] <= 99
    assert hits["row"] < 80  # rows as units: far too narrow


def test_reproducible_and_independent_of_row_order():
    rng = np.random.default_rng(3)
    columns, cluster = documents(rng)
    first = bootstrap(columns, cluster, mean, n=50, seed=1)
    assert first == bootstrap(columns, cluster, mean, n=50, seed=1)
    assert first != bootstrap(columns, cluster, mean, n=50, seed=2)
    order = rng.permutation(len(cluster))
    assert bootstrap({"x": columns["x"][order]}, cluster[order], mean, n=50, seed=1) == pytest.approx(first)


def test_documents_stay_whole():
    cluster = np.array([2, 0, 1, 0, 2, 2, 3])
    seen = []

    def statistic(columns):
        seen.append(columns["row"])
        return 0.0

    bootstrap({"row": np.arange(7)}, cluster, statistic, n=100)
    sizes = {0: 2, 1: 1, 2: 3, 3: 1}
    for rows in seen:
        counts = {r: int((rows == r).sum()) for r in range(7)}
        for key in sizes:
            assert len({counts[r] for r in range(7) if cluster[r] == key}) == 1
        drawn = [counts[int(np.flatnonzero(cluster == key)[0])] for key in sizes]
        assert sum(drawn) == 4
    assert len({tuple(s) for s in seen}) > 10


def test_strata_keep_every_cell_filled():
    rng = np.random.default_rng(4)
    columns = {"group": [], "task": [], "kind": [], "score": []}
    cluster = []
    for group in ("forget", "retain"):
        for task in ("Task1", "Task2", "Task3"):
            for d in range(2):
                for kind in ("sc", "qa"):
                    for name, value in zip(columns, (group, task, kind, rng.uniform(0.2, 0.8))):
                        columns[name].append(value)
                    cluster.append(f"{group}{task}{d}")

    def statistic(c):
        return lume.task_aggregate(lume.twelve(c))

    strata = [g + "/" + t for g, t in zip(columns["group"], columns["task"])]
    got = bootstrap(columns, cluster, statistic, strata=strata, n=100)
    assert got.low <= got.estimate + 0.2 and 0 < got.low < got.high < 1
    assert got.n_documents == 12
    with pytest.raises(ReprolibError, match="no row for"):  # what strata are for
        bootstrap(columns, cluster, statistic, n=100)


def test_stratum_means_do_not_add_spread():
    columns = {"x": np.repeat([0.0, 1.0], 20)}
    got = bootstrap(columns, np.arange(40), mean, strata=np.repeat([0, 1], 20), n=50)
    assert got[:3] == (0.5, 0.5, 0.5)


def test_no_spread_to_see_gives_nan():
    one = bootstrap({"x": [1.0, 2.0]}, ["a", "a"], mean, n=10)
    assert one.estimate == 1.5 and math.isnan(one.low) and math.isnan(one.high) and one.n_documents == 1
    each = bootstrap({"x": [1.0, 2.0]}, ["a", "b"], mean, strata=["s", "t"], n=10)
    assert math.isnan(each.low)
    nan = bootstrap({"x": [1.0, 2.0]}, ["a", "b"], lambda c: math.nan, n=10)
    assert math.isnan(nan.low)


def test_level_widens():
    columns, cluster = documents(np.random.default_rng(5))
    assert width(bootstrap(columns, cluster, mean, n=300, level=0.5)) < width(bootstrap(columns, cluster, mean, n=300))


def test_paired_difference_cancels_what_is_common():
    rng = np.random.default_rng(6)
    a, cluster = documents(rng, within=0.5)
    b = {"x": a["x"] - 0.3 + rng.normal(0, 0.05, len(cluster))}
    got = paired_difference(a, b, cluster, mean, n=300)
    assert isinstance(got, Interval)
    assert got.estimate == pytest.approx(0.3, abs=0.02) and got.low > 0
    assert width(got) < width(bootstrap(a, cluster, mean, n=300)) / 5
    back = paired_difference(b, a, cluster, mean, n=300)
    assert (back.low, back.high) == pytest.approx((-got.high, -got.low))
    same = paired_difference(a, a, cluster, mean, n=20)
    assert same[:3] == (0, 0, 0)


def test_seeds_interval():
    got = seeds_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert got == pytest.approx((2.0, 2 - half, 2 + half, 3))
    one = seeds_interval([0.4])
    assert one.estimate == 0.4 and math.isnan(one.low) and math.isnan(one.high) and one.n_seeds == 1
    assert seeds_interval([0.5, 0.5])[:3] == (0.5, 0.5, 0.5)
    assert width(seeds_interval([1, 2, 3], 0.5)) < width(got)


def test_combined_interval():
    rng = np.random.default_rng(7)
    runs = []
    for shift in (-0.5, 0.0, 0.5):
        columns, cluster = documents(rng)
        runs.append(({"x": columns["x"] + shift}, cluster, None))
    got = combined_interval(runs, mean, n=400)
    assert got.estimate == pytest.approx(np.mean([c["x"].mean() for c, _, _ in runs]))
    assert got.low < got.estimate < got.high and got.n_documents == 40
    spread = [({"x": 3 * i + c["x"]}, k, s) for i, (c, k, s) in enumerate(runs)]
    assert width(combined_interval(spread, mean, n=400)) > 1.5 * width(got)


def test_combined_interval_of_one_seed_is_the_document_interval():
    columns, cluster = documents(np.random.default_rng(8))
    one = combined_interval([(columns, cluster, None)], mean, n=500)
    assert width(one) == pytest.approx(width(bootstrap(columns, cluster, mean, n=500)), rel=0.15)


def test_shared_documents_do_not_average_out():
    columns, cluster = documents(np.random.default_rng(9))
    runs = [(columns, cluster, None)] * 4
    shared = combined_interval(runs, mean, shared=True, n=500)
    nested = combined_interval(runs, mean, n=500)
    assert width(shared) == pytest.approx(width(bootstrap(columns, cluster, mean, n=500)), rel=0.15)
    assert width(shared) / width(nested) == pytest.approx(2, rel=0.25)


def test_combined_interval_errors():
    run = ({"x": [1.0, 2.0]}, ["a", "b"], None)
    with pytest.raises(ReprolibError, match="runs is empty"):
        combined_interval([], mean)
    with pytest.raises(ReprolibError, match=r"runs\[0\] is dict"):
        combined_interval([{"x": [1.0]}], mean)
    with pytest.raises(ReprolibError, match="other documents"):
        combined_interval([run, ({"x": [1.0, 2.0]}, ["a", "c"], None)], mean, shared=True)
    with pytest.raises(ReprolibError, match="other documents or strata"):
        combined_interval([run, ({"x": [1.0, 2.0]}, ["a", "b"], ["s", "t"])], mean, shared=True)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: bootstrap({"x": [1.0]}, ["a", "b"], mean), "column 'x'.*allowed: 2 rows"),
        (lambda: bootstrap({}, ["a", "b"], mean), "non-empty dict"),
        (lambda: bootstrap([1.0], ["a"], mean), "got list"),
        (lambda: bootstrap({"x": []}, [], mean), "cluster has shape"),
        (lambda: bootstrap({"x": [1.0, 2.0]}, ["a", "b"], mean, strata=["s"]), "strata has shape"),
        (lambda: bootstrap({"x": [1.0, 2.0]}, ["a", "a"], mean, strata=["s", "t"]), "'a'.*two strata"),
        (lambda: bootstrap({"x": [1.0]}, ["a"], mean, level=95), "level is 95"),
        (lambda: bootstrap({"x": [1.0]}, ["a"], mean, n=0), "n is 0"),
        (lambda: paired_difference({"x": [1.0, 2]}, {"x": [1.0]}, ["a", "b"], mean), "column 'x'"),
        (lambda: seeds_interval([]), "one score per seed"),
        (lambda: seeds_interval([1.0, math.nan]), "not finite"),
        (lambda: gap_closed(1, 0, 1, tolerance=0), "tolerance is 0"),
        (lambda: gap_closed(math.inf, 0, 1), "value is inf"),
        (lambda: at_matched([1, 2], [1], 1.5), "2 points and y has 1"),
        (lambda: at_matched([], [], 1.5), "x has shape"),
        (lambda: at_matched([1, math.nan], [1, 2], 1.5), "x has 1 value"),
        (lambda: at_matched([1, 2], [1, 2], math.nan), "level is nan"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


def test_gap_closed():
    assert gap_closed(0.9, 0.9, 0.3) == 0.0
    assert gap_closed(0.3, 0.9, 0.3) == 1.0
    assert gap_closed(0.6, 0.9, 0.3) == pytest.approx(0.5)
    assert gap_closed(0.0, 0.9, 0.3) == pytest.approx(1.5)
    assert gap_closed(1.0, 0.9, 0.3) < 0
    assert gap_closed(5.0, 2.0, 8.0) == pytest.approx(0.5)  # the twin may be higher
    assert gap_closed(-9.0, 18.0, -36.0) == pytest.approx(gap_closed(0.5, 1.0, 0.0))  # linear maps cancel


def test_gap_closed_nan_has_a_reason():
    assert math.isnan(gap_closed(0.5, 0.4, 0.4))
    assert "no gap to close" in gap_reason(0.4, 0.4)
    assert math.isnan(gap_closed(0.5, 0.4, 0.41, tolerance=0.02)) and "0.02" in gap_reason(0.4, 0.41, 0.02)
    assert not math.isnan(gap_closed(0.5, 0.4, 0.41)) and gap_reason(0.4, 0.41) is None
    assert math.isnan(gap_closed(0.5, 0.4, math.nan)) and "twin" in gap_reason(0.4, math.nan)
    assert math.isnan(gap_closed(math.nan, 0.4, 0.5))


def test_at_matched():
    assert at_matched([1.0, 0.6, 0.2], [0.5, 0.4, 0.1], 0.4) == pytest.approx((0.25, 1.5, True))
    assert at_matched([0.2, 0.6, 1.0], [0.1, 0.4, 0.5], 0.4) == pytest.approx((0.25, 0.5, True))  # upwards
    assert at_matched([1.0, 0.6, 0.2], [0.5, 0.4, 0.1], 0.6) == (0.4, 1.0, True)  # exact hit
    assert at_matched([1.0, 0.6, 0.2], [0.5, 0.4, 0.1], 1.0) == (0.5, 0.0, True)  # at the start
    assert at_matched([1.0, 0.6, 0.2], [0.5, 0.4, 0.1], 0.2) == (0.1, 2.0, True)  # at the end
    assert at_matched([1.0, 0.2, 0.9, 0.1], [0, 1, 2, 3], 0.6) == pytest.approx((0.5, 0.5, True))  # the first of three
    assert at_matched([1.0, 0.5, 0.5, 0.0], [3, 2, 1, 0], 0.5) == (2.0, 1.0, True)  # a plateau
    assert at_matched([0.0, 1.0, 0.5], [0.0, 1.0, 2.0], 0.5) == (0.5, 0.5, True)  # crossing before a hit


def test_at_matched_never_reached():
    got = at_matched([1.0, 0.6, 0.2], [0.5, 0.4, 0.1], 0.1)
    assert not got.reached and math.isnan(got.value) and math.isnan(got.position)
    assert at_matched([0.5], [0.7], 0.5) == (0.7, 0.0, True)


# --- p-values, families of comparisons, effect sizes ----------------------------------------------


def test_p_value_of_no_difference_is_uniform_enough():
    rng = np.random.default_rng(10)
    p = []
    for i in range(120):
        a, cluster = documents(rng, n=30, rows=2, within=1.0)
        b = {"x": a["x"] + rng.normal(0, 1, 60)}
        p.append(paired_p_value(a, b, cluster, mean, n=199, seed=i))
    assert min(p) >= 1 / 200 and max(p) <= 1
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.12 and 0.35 < np.mean(p) < 0.65


def test_p_value_sees_what_pairing_shows():
    rng = np.random.default_rng(11)
    a, cluster = documents(rng, within=0.5)
    b = {"x": a["x"] - 0.3 + rng.normal(0, 0.05, len(cluster))}
    assert paired_p_value(a, b, cluster, mean, n=999) == 0.001
    assert paired_p_value(b, a, cluster, mean, n=999) == 0.001
    assert paired_p_value(a, a, cluster, mean, n=50) == 1
    assert math.isnan(paired_p_value({"x": [1.0, 2.0]}, {"x": [1.0, 1.0]}, ["a", "a"], mean, n=10))
    assert math.isnan(paired_p_value({"x": [1.0, 2.0]}, {"x": [1.0, 1.0]}, ["a", "b"], lambda c: math.nan, n=10))


def test_p_value_agrees_with_the_interval():
    """Of the same draws: p is below 5 % where zero lies outside the interval of 95 %, mirrored around the estimate."""
    rng = np.random.default_rng(12)
    agree = []
    for i in range(40):
        a, cluster = documents(rng, n=25, rows=3)
        b = {"x": a["x"] - 0.15 + np.repeat(rng.normal(0, 0.4, 25), 3)}
        got = paired_difference(a, b, cluster, mean, n=400, seed=i)
        outside = abs(got.estimate) > max(got.high - got.estimate, got.estimate - got.low)
        agree.append(outside == (paired_p_value(a, b, cluster, mean, n=400, seed=i) < 0.05))
    assert np.mean(agree) > 0.9


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == pytest.approx([1, 1])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([0.0, 1.0]).tolist() == [0, 1]


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).tolist() == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert benjamini_hochberg([0.9, 0.01]).tolist() == pytest.approx([0.9, 0.02])
    assert benjamini_hochberg([0.2]).tolist() == [0.2]


def test_corrections_keep_order_and_holm_is_the_stricter():
    p = np.random.default_rng(13).random(30) ** 3
    h, b = holm(p), benjamini_hochberg(p)
    assert (p <= b).all() and (b <= h).all() and h.max() <= 1
    order = np.argsort(p)
    assert (np.diff(h[order]) >= 0).all() and (np.diff(b[order]) >= 0).all()
    turned = np.random.default_rng(14).permutation(30)
    assert holm(p[turned]) == pytest.approx(h[turned]) and benjamini_hochberg(p[turned]) == pytest.approx(b[turned])
    from scipy.stats import false_discovery_control

    assert b == pytest.approx(false_discovery_control(p))


def test_corrections_hold_what_they_promise():
    rng = np.random.default_rng(15)
    family = [(holm(p) < 0.1).any() for p in rng.random((400, 10))]
    assert 0.05 < np.mean(family) < 0.15
    assert np.mean([(p < 0.1).any() for p in rng.random((400, 10))]) > 0.5  # without


def test_standardised_difference():
    assert standardised_difference([1.0, 2, 3], [0.0, 0, 0]) == pytest.approx(2)
    assert standardised_difference([0.0, 0, 0], [1.0, 2, 3]) == pytest.approx(-2)
    # rows of one document are one difference: 1.5, 3
    got = standardised_difference([1.0, 2, 3], [0.0, 0, 0], ["a", "a", "b"])
    assert got == pytest.approx(2.25 / math.sqrt(2 * 0.75**2))
    assert got == pytest.approx(standardised_difference([3.0, 1, 2], [0.0, 0, 0], ["b", "a", "a"]))
    assert standardised_difference([1.0, 2], [1.0, 2]) == 0
    assert standardised_difference([0.3, 0.6], [0.1, 0.4]) == math.inf and standardised_difference([1, 2], [2, 3]) == -math.inf
    assert math.isnan(standardised_difference([1.0, 2.0], [0.0, 0.0], ["a", "a"]))


def test_superiority_and_cliffs_delta():
    assert superiority([1, 2, 3], [0, 2]) == 4.5 / 6
    assert cliffs_delta([1, 2, 3], [0, 2]) == pytest.approx(0.5)
    assert cliffs_delta([0, 2], [1, 2, 3]) == pytest.approx(-0.5)
    assert cliffs_delta([3, 4], [1, 2]) == 1 and cliffs_delta([1], [1]) == 0
    rng = np.random.default_rng(16)
    assert abs(cliffs_delta(rng.random(300), rng.random(300))) < 0.15


# --- ranks ------------------------------------------------------------------------------------------


def board(rng, gaps, seeds=3, n=40, noise=0.3, spread=0.05):
    """Methods that differ by ``gaps``, scored on the same documents, with noise of documents and of seeds."""
    cluster = np.repeat([f"d{i:03d}" for i in range(n)], 2)
    common = np.repeat(rng.normal(0, 1, n), 2)
    return {
        f"m{g}": [
            ({"x": gap + common + np.repeat(rng.normal(0, noise, n), 2) + rng.normal(0, spread)}, cluster, None) for _ in range(seeds)
        ]
        for g, gap in enumerate(gaps)
    }


def test_ranks_by_hand():
    cluster = ["a", "a", "b"]
    methods = {name: [({"x": x}, cluster, None)] for name, x in (("p", [1.0, 1, 1]), ("q", [3.0, 3, 3]), ("r", [1.0, 1, 1]))}
    got = rank_stability(methods, "x", n=50)
    assert got.methods == ("p", "q", "r") and got.score.tolist() == [1, 3, 1]
    assert got.rank.tolist() == [2.5, 1, 2.5] == got.low.tolist() == got.high.tolist()
    assert got.beats.tolist() == [[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]]
    assert got.tau == pytest.approx(1) and (got.n_documents, got.n_seeds) == (2, 1)
    turned = rank_stability(methods, "x", better="lower", n=50)
    assert turned.rank.tolist() == [1.5, 3, 1.5] and turned.beats[1].tolist() == [0, 0.5, 0]


def test_a_clear_order_is_stable_and_chance_is_not():
    rng = np.random.default_rng(17)
    clear = rank_stability(board(rng, [3.0, 2.0, 1.0, 0.0]), "x", n=400)
    assert clear.rank.tolist() == [1, 2, 3, 4] == clear.low.tolist() == clear.high.tolist()
    assert clear.tau == 1 and clear.beats[0, 3] == 1
    same = rank_stability(board(rng, [0.0] * 4), "x", n=400)
    assert same.tau < 0.75 and (same.high - same.low).max() >= 2
    off = ~np.eye(4, dtype=bool)
    assert same.beats[off] == pytest.approx(1 - same.beats.T[off])
    assert (same.low >= 1).all() and (same.high <= 4).all()
    independent = rank_stability(board(rng, [0.0] * 5, seeds=1, noise=1.0), lambda c, w: rng.random(len(w)), n=2000)
    assert abs(independent.tau) < 0.05  # scores of pure chance


def test_what_is_common_to_documents_cancels():
    """Documents differ by 1, methods by 0.1 only: the order is safe, though the intervals of the scores overlap."""
    methods = board(np.random.default_rng(18), [0.1, 0.0], noise=0.05, spread=0.0)
    assert rank_stability(methods, "x", n=400).beats[0, 1] > 0.99
    low, high = (bootstrap(*methods[m][0][:2], mean, n=200) for m in ("m1", "m0"))
    assert low.high > high.low


def test_seeds_count_and_may_be_unpaired():
    rng = np.random.default_rng(19)
    alike = board(rng, [0.2, 0.0], noise=0.01, spread=0.0)
    shift = {m: [({"x": c["x"] + s}, k, None) for s, (c, k, _) in enumerate(runs)] for m, runs in alike.items()}
    assert rank_stability(shift, "x", n=400).beats[0, 1] == 1  # what seeds have in common cancels
    assert rank_stability(shift, "x", n=400, paired_seeds=False).beats[0, 1] < 0.9
    uneven = {"a": alike["m0"], "b": alike["m1"][:2]}
    assert rank_stability(uneven, "x", n=50, paired_seeds=False).n_seeds == 3
    with pytest.raises(ReprolibError, match="as many each"):
        rank_stability(uneven, "x", n=50)


def test_ranks_agree_with_resampling_rows_by_hand():
    """Weights stand for drawn rows: the same probability as with one resampled column after another."""
    methods = board(np.random.default_rng(20), [0.05, 0.0], seeds=1)
    a, b = methods["m0"][0][0], methods["m1"][0][0]
    got = rank_stability(methods, "x", n=2000)
    wins = []
    rng = np.random.default_rng(21)
    for _ in range(2000):
        rows = np.concatenate([[2 * d, 2 * d + 1] for d in rng.integers(0, 40, 40)])
        wins.append(a["x"][rows].mean() > b["x"][rows].mean())
    assert got.beats[0, 1] == pytest.approx(np.mean(wins), abs=0.04) and 0.05 < np.mean(wins) < 0.95


def test_ranks_are_reproducible_and_do_not_hang_on_row_order_or_blocks(monkeypatch):
    methods = board(np.random.default_rng(22), [0.05, 0.0, 0.02])
    first = rank_stability(methods, "x", n=100)
    order = np.random.default_rng(23).permutation(80)
    mixed = {m: [({"x": c["x"][order]}, k[order], None) for c, k, _ in runs] for m, runs in methods.items()}
    again = rank_stability(mixed, "x", n=100)
    assert again.beats == pytest.approx(first.beats) and again.tau == pytest.approx(first.tau)
    by_one = rank_stability(methods, lambda c, w: np.array([weighted_mean(c, row[None], "x")[0] for row in w]), n=100)
    assert by_one.beats == pytest.approx(first.beats) and by_one.score == pytest.approx(first.score)
    assert not np.array_equal(rank_stability(methods, "x", n=100, seed=1).beats, first.beats)


def test_ranks_of_strata_and_of_nothing_to_resample():
    cluster, strata = ["a", "b", "c", "d"], ["s", "s", "t", "t"]
    methods = {m: [({"x": x}, cluster, strata)] for m, x in (("p", [0.0, 0, 1, 1]), ("q", [1.0, 1, 0, 0]))}
    got = rank_stability(methods, "x", n=50)
    assert got.rank.tolist() == [1.5, 1.5] and got.tau == 1 and got.beats[0, 1] == 0.5  # strata add no spread
    assert rank_stability({m: [(r[0][0], cluster, None)] for m, r in methods.items()}, "x", n=200).low.tolist() == [1, 1]
    one = rank_stability({m: [(r[0][0], ["a"] * 4, None)] for m, r in methods.items()}, "x", n=50)
    assert one.rank.tolist() == [1.5, 1.5] and math.isnan(one.tau) and np.isnan(one.low).all() and np.isnan(one.beats).all()


def test_kendall_against_scipy():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(24)
    scores = rng.integers(0, 4, (40, 6)).astype(float)
    expected = [kendalltau(scores[i], scores[i + 1]).statistic for i in range(0, 40, 2)]
    assert _kendall(scores) == pytest.approx(np.mean(expected))
    assert _kendall(np.zeros((2, 3))) == 1 and _kendall(np.array([[0.0, 0, 0], [1, 2, 3]])) == 0
    assert math.isnan(_kendall(scores[:1]))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: paired_p_value({"x": [1.0, 2]}, {"x": [1.0]}, ["a", "b"], mean), "column 'x'"),
        (lambda: paired_p_value({"x": [1.0]}, {"x": [1.0]}, ["a"], mean, n=0), "n is 0"),
        (lambda: holm([]), "p has shape"),
        (lambda: holm([0.1, math.nan]), "not finite"),
        (lambda: benjamini_hochberg([1.2]), "p ranges from 1.2"),
        (lambda: standardised_difference([1, 2], [1]), "2 rows and b has 1"),
        (lambda: standardised_difference([1, 2], [1, 2], ["a"]), "cluster has 1 rows"),
        (lambda: superiority([], [1]), "shape"),
        (lambda: rank_stability({}, "x"), "two methods or more"),
        (lambda: rank_stability({"a": [({"x": [1.0]}, ["d"], None)], "b": []}, "x"), "at least one run"),
        (lambda: rank_stability({m: [({"x": [1.0]}, ["d"], None)] for m in "ab"}, "y"), "no column 'y'"),
        (lambda: rank_stability({m: [({"x": [1.0]}, ["d"], None)] for m in "ab"}, "x", better="up"), "better is 'up'"),
        (lambda: rank_stability({m: [({"x": [1.0]}, [m], None)] for m in "ab"}, "x"), "other documents"),
        (lambda: rank_stability({"a": [({"x": [1.0]}, ["d"], None)], "b": [{"x": [1.0]}]}, "x"), r"boards\['b'\]\[0\] is dict"),
        (lambda: rank_stability({m: [({"x": [1.0, math.nan]}, ["d", "e"], None)] for m in "ab"}, "x"), "'a' is not finite"),
    ],
)
def test_errors_of_comparisons(call, words):
    with pytest.raises(ReprolibError, match=words):
        call()


@pytest.mark.parametrize(("sizes", "seeds"), [([1, 3, 1, 5], 3), ([4, 1], 1), ([7], 2)])
def test_draws_in_one_call_are_those_of_one_call_each(sizes, seeds):
    """Tables were made with one call a stratum; the one call for all must not move a number, nor what is drawn afterwards."""
    strata = np.repeat(np.arange(len(sizes)), sizes)
    plan = Plan(np.random.default_rng(1).permutation(len(strata)), strata)
    one, slow = np.random.default_rng(5), np.random.default_rng(5)
    picks, drawn = plan.draws(one, 50, seeds)
    for i in range(50):
        each = [m[slow.integers(0, len(m), len(m))] for m in plan.members]
        assert (picks[i] == np.concatenate(each)).all()
        assert (drawn[i] == slow.integers(0, seeds, seeds)).all()
    assert one.integers(0, 1000) == slow.integers(0, 1000)
    assert (plan.draw(np.random.default_rng(5)) == picks[0]).all()
