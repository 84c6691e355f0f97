"""What the book says in so many words, checked against the committed records: a claim that stops being true breaks the build."""

import functools
from pathlib import Path

import pytest

from reprolib import experiment, record
from reprolib.record import read
from reprolib.testbeds.checks import REQUIREMENTS
from study import claims as c

RECORDS = Path(__file__).resolve().parent.parent / "results" / "records"


BEDS = ("tiny/synthetic", "tiny/lume")


SEEDS = (0, 1, 2)


@functools.cache
def records(bed: str, method: str) -> dict:
    """By seed, of runs without options: their names have none."""
    found = [read(p) for s in SEEDS for p in sorted((RECORDS / bed / method).glob(f"s{s}-*.json"))]
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


# ---------------------------------------------------------------------- the claims of the book


@pytest.fixture
def committed(monkeypatch, fingerprints_kept):
    """The committed records, and an error for a run that has none."""

    def missing(spec, **_):
        pytest.fail(f"the claim asks for a run without a record: {spec.method} on {spec.testbed}, seed {spec.seed}, {dict(spec.options)}")

    monkeypatch.setenv("REPROLIB_RESULTS", str(RECORDS.parent))
    monkeypatch.setattr(experiment, "compute", missing)
    monkeypatch.setattr(record, "read", functools.cache(read))  # several claims ask for the same ones


def test_claims_are_sentences_with_a_page():
    from study.grid import Grid

    pages = Grid.load().pages
    for claim in c.CLAIMS.values():
        assert claim.text.endswith((".", ").")) and claim.text[0].isupper(), claim.name
        assert claim.page in pages, claim.name


def test_the_claims_of_the_book_hold_and_its_pages_depend_on_what_they_ask_for(committed, monkeypatch):
    """All at once, since they share their evidence.

    A page that did not depend on a run would compute it, by itself and one after another, where the grid could have before.
    """
    from study.grid import Grid
    from study.readings import gate

    asked = {}

    def noted(run):
        def inner(**fields):
            found = run(**fields)
            asked[found.fingerprint] = found.spec
            return found

        return inner

    monkeypatch.setattr(gate, "record", noted(gate.record))
    findings = c.examine(c.Evidence())  # raises with all that do not hold
    assert set(findings) == set(c.CLAIMS)
    for name, finding in findings.items():
        assert finding.holds and any(d.isdigit() for d in finding.numbers), name
    for name in ("index", "synthesis/claims"):
        held = {s.fingerprint for s in Grid.load().pages[name].specs}
        assert not [s for f, s in asked.items() if f not in held], name


def test_a_claim_that_fails_stops_the_page(monkeypatch):
    broken = c.Claim("x", "synthesis/audit", "Water runs uphill.", lambda e: c.Finding(False, "it runs down in 3 of 3"))
    monkeypatch.setitem(c.CLAIMS, "x", broken)
    with pytest.raises(c.ClaimError, match=r"1 of 1 claims do not hold any more: x \(Water runs uphill\. Now: it runs down in 3 of 3\)"):
        c.abstract(None, ["x"])
    monkeypatch.setitem(c.CLAIMS, "x", c.Claim("x", "synthesis/audit", "Water runs.", lambda e: c.Finding(True, "3 of 3")))
    assert c.abstract(None, ["x"]).data == "- Water runs. → {doc}`/results/notebooks/synthesis/audit`"
