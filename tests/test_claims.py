"""What the book says in so many words, checked against the committed records: a claim that stops being true breaks the build."""

from pathlib import Path

import pytest

from reprolib.models.memorise import REQUIREMENTS
from reprolib.record import read

RECORDS = Path(__file__).resolve().parent.parent / "results" / "records"
BEDS = ("tiny/synthetic", "tiny/lume")
SEEDS = (0, 1, 2)


def records(bed: str, method: str) -> dict:
    found = [read(p) for p in sorted((RECORDS / bed / method).glob("*.json"))]
    plain = [r for r in found if not r.spec.options and r.spec.forget_documents == r.spec.forget_rows == 1]
    return {r.spec.seed: r for r in plain if r.spec.seed in SEEDS}


@pytest.mark.parametrize("bed", BEDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_target_and_twin_do_what_they_must(bed, seed):
    for requirement, (low, high) in REQUIREMENTS.items():
        which, metric = requirement.split()
        value = records(bed, which)[seed].metrics[metric]
        assert low <= value <= high, f"{bed}, seed {seed}: {requirement} is {value}"


@pytest.mark.parametrize("bed", BEDS)
def test_every_method_has_three_seeds(bed):
    from reprolib.recipes import METHODS

    real = ("gradient_ascent", "gradient_descent", "gradient_difference", "npo")
    for method in METHODS if bed == "tiny/synthetic" else real:
        assert set(records(bed, method)) == set(SEEDS), f"{bed}: {method}"


def test_a_destroyed_model_gets_about_four_tenths_of_the_official_score():
    """book/reading_the_numbers.md: (0 + 1 + 0.25) / 3."""
    for bed in BEDS:
        for r in records(bed, "always_eos").values():
            assert r.metrics["lume/task_aggregate"] == 0
            assert r.metrics["lume/final"] == pytest.approx(0.42, abs=0.02)
        for r in records(bed, "random").values():
            assert r.metrics["lume/final"] == pytest.approx(0.4, abs=0.06)


def test_the_twin_does_not_score_zero_on_forget_passages():
    """book/reading_the_numbers.md: the twin knows the form of a passage."""
    for r in records("tiny/synthetic", "twin").values():
        left = [1 - v for k, v in r.metrics.items() if k.startswith("lume/forget/") and k.endswith("/sc")]
        assert 0.1 < sum(left) / len(left) < 0.6


def test_the_model_of_the_setting_page_has_1_3_million_parameters():
    assert records("tiny/synthetic", "target")[0].cost["parameters"] == pytest.approx(1.3e6, rel=0.02)


def test_the_published_damping_is_far_above_the_fisher_of_an_adapter():
    """The page on LIBU: an absolute damping of 1e-3 is far larger than the Fisher entries of a LoRA adapter."""
    for method in ("libu", "libu_influence"):
        for r in records("tiny/synthetic", method).values():
            values = [p["optimizer/fisher_log10_p95"] for p in r.trajectory if "optimizer/fisher_log10_p95" in p]
            assert values and max(values) < -5, f"{method}: {values}"
