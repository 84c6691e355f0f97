"""The SemEval score: hand-computed vectors, the published leaderboard, and properties."""

import itertools
import random

import numpy as np
import pytest

from reprolib.errors import ReprolibError
from reprolib.metrics import lume

# methods.md section 8: printed final, task, MIA, MMLU
LEADERBOARD = [
    (".706", ".827", ".847", ".443"),
    (".487", ".944", ".048", ".471"),
    (".470", ".834", ".139", ".436"),
    (".376", ".387", ".256", ".485"),
    (".326", ".496", "0", ".481"),
    (".308", ".433", "0", ".492"),
    (".308", ".478", "0", ".446"),
    (".273", ".348", ".014", ".456"),
    (".251", ".283", "0", ".469"),
    (".169", ".100", ".021", ".385"),
    (".165", "0", "0", ".495"),
    (".154", "0", "0", ".463"),
    (".711", ".964", ".894", ".275"),
    (".420", ".152", ".876", ".232"),
    (".409", "0", ".999", ".229"),
    (".402", "0", ".965", ".242"),
    # 1B
    (".688", ".964", ".857", ".242"),
    (".652", ".973", ".741", ".243"),
    (".586", ".887", ".622", ".248"),
    (".485", ".412", ".793", ".250"),
    (".483", ".915", ".292", ".243"),
    (".416", "0", ".980", ".269"),
    (".412", ".955", ".039", ".244"),
    (".409", "0", ".959", ".269"),
    (".389", "0", ".914", ".251"),
    (".357", ".837", "0", ".236"),
    (".351", "0", ".824", ".229"),
    (".177", ".289", "0", ".243"),
]


@pytest.mark.parametrize("printed, task, mia, mmlu", LEADERBOARD)
def test_leaderboard(printed, task, mia, mmlu):
    assert lume.final_score(float(task), float(mia), float(mmlu)) == pytest.approx(float(printed), abs=0.0011)


def make_rows(forget, retain, tasks=("Task1", "Task2", "Task3"), per_cell=2):
    return [
        {"group": g, "task": t, "kind": k, "score": forget if g == "forget" else retain}
        for g, t, k in itertools.product(("forget", "retain"), tasks, ("sc", "qa"))
        for _ in range(per_cell)
    ]


def test_rouge_l_recall_vectors():
    assert lume.rouge_l_recall("a b c d", "a x c d e") == 0.75
    assert lume.rouge_l_recall("a b c d", "a b c d and more") == 1.0
    assert lume.rouge_l_recall("running dogs", "run dog") == 1.0  # stemmed
    assert lume.rouge_l_recall("a b", "") == 0.0


def test_knowledge_vectors():
    assert lume.knowledge("Perth Glory", " perth glory") == 1.0
    assert lume.knowledge("Perth Glory", "Perth Glory.") == 0.0


def test_task_aggregate_vectors():
    assert lume.task_aggregate([0.9] * 11 + [0.1]) == pytest.approx(0.54)
    assert lume.task_aggregate([0.8] * 6 + [0.5] * 6) == pytest.approx(0.61538, abs=1e-5)
    assert lume.task_aggregate([0.9] * 11 + [0.0]) == 0.0


def test_mia_and_final_vectors():
    assert [lume.mia_score(a) for a in (0.98, 0.02, 0.5)] == pytest.approx([0.04, 0.04, 1.0])
    assert lume.mia_score(0.0) == lume.mia_score(1.0) == 0.0
    assert lume.final_score(0, 0.999, 0.229) == pytest.approx(0.40933, abs=1e-5)
    assert lume.final_score(0.827, 0.847, 0.443) == pytest.approx(0.70567, abs=1e-5)


def test_floored_aggregate():
    values = [0.9] * 11 + [0.0]
    assert lume.floored_aggregate(values) == pytest.approx(12 / (11 / 0.9 + 1 / 0.01))
    assert lume.floored_aggregate([0.5, 0.7]) == pytest.approx(lume.task_aggregate([0.5, 0.7]))
    assert lume.floored_aggregate(values, floor=0.0) == 0.0


def test_old_final_score_is_one_harmonic_mean():
    values = [0.8] * 12
    assert lume.final_score_2024_11(values, 0.5, 0.4) == pytest.approx(14 / (12 / 0.8 + 2 + 2.5))
    assert lume.final_score_2024_11(values, 0.9, 0.4) > lume.final_score_2024_11(values, 0.5, 0.4)  # its fault
    assert lume.final_score_2024_11([0.0] * 12, 0.5, 0.4) == 0.0


def test_twelve_names_order_and_values():
    got = lume.twelve(make_rows(0.25, 0.5))
    assert list(got) == [
        f"{g}/Task{t}/{k}" for g, t, k in itertools.product(("forget", "retain"), (1, 2, 3), ("sc", "qa"))
    ]
    assert all(v == (0.75 if name.startswith("forget") else 0.5) for name, v in got.items())


def test_perfect_and_hopeless_model():
    assert lume.task_aggregate(lume.twelve(make_rows(0.0, 1.0))) == 1.0
    assert lume.task_aggregate(lume.twelve(make_rows(1.0, 0.0))) == 0.0
    assert lume.task_aggregate(lume.twelve(make_rows(1.0, 1.0))) == 0.0  # untouched
    assert lume.task_aggregate(lume.twelve(make_rows(0.0, 0.0))) == 0.0  # wiped


def test_twelve_is_a_mean_of_rows_not_of_documents():
    rows = make_rows(0.0, 0.0, per_cell=1)
    rows.append({"group": "retain", "task": "Task1", "kind": "qa", "score": 1.0})
    rows.append({"group": "retain", "task": "Task1", "kind": "qa", "score": 1.0})
    assert lume.twelve(rows)["retain/Task1/qa"] == pytest.approx(2 / 3)


def test_twelve_rows_and_columns_agree_in_any_order():
    rng = random.Random(0)
    rows = [r | {"score": rng.random()} for r in make_rows(0, 0, per_cell=5)]
    by_rows = lume.twelve(rows)
    rng.shuffle(rows)
    columns = {name: np.array([r[name] for r in rows]) for name in rows[0]}
    by_columns = lume.twelve(columns)
    assert list(by_rows) == list(by_columns)
    assert by_columns == pytest.approx(by_rows)


def test_twelve_with_fewer_tasks():
    assert len(lume.twelve(make_rows(0.1, 0.9, tasks=("Task2",)))) == 4
    assert len(lume.twelve(make_rows(0.1, 0.9, tasks=("Task3", "Task1")))) == 8


@pytest.mark.parametrize(
    "gone", [("forget", "Task1", "sc"), ("retain", "Task3", "qa")], ids=lambda gone: "/".join(gone)
)
def test_twelve_names_the_missing_cell(gone):
    rows = [r for r in make_rows(0.1, 0.9) if (r["group"], r["task"], r["kind"]) != gone]
    with pytest.raises(ReprolibError, match="no row for " + "/".join(gone)):
        lume.twelve(rows)


def test_twelve_notices_a_whole_missing_task_if_told():
    rows = make_rows(0.1, 0.9, tasks=("Task1",))
    with pytest.raises(ReprolibError, match="forget/Task2/sc"):
        lume.twelve(rows, tasks=["Task1", "Task2"])
    with pytest.raises(ReprolibError, match="Task1"):
        lume.twelve(rows, tasks=["Task2"])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"group": "holdout"}, "holdout.*allowed: forget, retain"),
        ({"kind": "mc"}, "mc.*allowed: sc, qa"),
        ({"score": 75.0}, "75.0.*0 to 1.*Divide"),
        ({"score": float("nan")}, "not finite"),
    ],
)
def test_twelve_rejects(change, words):
    rows = make_rows(0.1, 0.9)
    rows[3] = rows[3] | change
    with pytest.raises(ReprolibError, match=words):
        lume.twelve(rows)


def test_twelve_rejects_rows_without_a_field_and_no_rows():
    with pytest.raises(ReprolibError, match="lack task, kind"):
        lume.twelve([{"group": "forget", "score": 1.0}])
    with pytest.raises(ReprolibError, match="shapes"):
        lume.twelve({"group": ["forget"], "task": ["Task1"], "kind": ["sc"], "score": [1.0, 0.5]})
    with pytest.raises(ReprolibError):
        lume.twelve([])


def test_aggregate_lies_between_smallest_and_mean():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values = rng.uniform(0.01, 1, 12)
        got = lume.task_aggregate(values)
        assert values.min() <= got <= values.mean() + 1e-12
        assert got == pytest.approx(lume.task_aggregate(rng.permutation(values)))
        assert lume.floored_aggregate(values) == pytest.approx(got)


@pytest.mark.parametrize("values", [[], [0.5, -0.1], [0.5, 1.5], [0.5, float("nan")], ["a"]])
def test_aggregate_rejects(values):
    with pytest.raises(ReprolibError, match="allowed"):
        lume.task_aggregate(values)


@pytest.mark.parametrize("auc", [-0.1, 1.1, float("nan"), None])
def test_mia_score_rejects(auc):
    with pytest.raises(ReprolibError, match=r"auc.*allowed: 0 to 1"):
        lume.mia_score(auc)


def test_text_functions_reject():
    with pytest.raises(ReprolibError, match="output is NoneType"):
        lume.rouge_l_recall("a", None)
    with pytest.raises(ReprolibError, match="blank"):
        lume.rouge_l_recall("  ", "a")
    with pytest.raises(ReprolibError, match="reference is int"):
        lume.knowledge(3, "3")
