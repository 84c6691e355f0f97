"""Intervals: coverage, dependence, strata, pairing, seeds; gap closed and matched levels."""

import math

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import lume
from reprolib.metrics.statistics import (
    Interval,
    at_matched,
    bootstrap,
    combined_interval,
    gap_closed,
    gap_reason,
    paired_difference,
    seeds_interval,
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
