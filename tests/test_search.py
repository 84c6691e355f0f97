"""The search for options: the rule on trials made by hand, the section of study.yml, and the command."""

import dataclasses
import math

import pytest
import yaml
from test_report import made

from reprolib import experiment
from reprolib.errors import SpecError
from reprolib.places import results_dir
from reprolib.record import path_of, write
from study import search
from study.grid import Grid, Search
from study.readings.twin import HEADS, READINGS
from study.search import Trial, choose


def trial(forget=0.0, distance=0.1, lr=1e-3, status="done", **other):
    readings = {"forget_questions": forget, "forget_passages": 0.9, "attack_auc": 0.5, "retain_questions": 1.0, "retain_passages": 1.0}
    readings |= {"world_questions": 1.0, "distance": distance}
    return Trial(options={"lr": lr}, lr=lr, status=status, readings={} if status in ("failed", "missing") else readings, **other)


def test_of_those_that_forget_enough_the_one_closest_to_the_twin():
    shallow, far, good = trial(forget=0.11, distance=0.01), trial(distance=0.3), trial(forget=0.1, distance=0.2)
    choice = choose([shallow, far, good])
    assert choice.pick is good and choice.enough and "2 of 3 forget enough; the smallest distance" in choice.reason
    assert not shallow.enough and good.enough  # the gate includes its level; passages are no gate
    assert choose([shallow, far]).pick is far


def test_near_equals_go_by_learning_rate_then_by_order():
    fast, slow = trial(distance=0.10, lr=1e-3), trial(distance=0.11, lr=1e-4)
    choice = choose([fast, slow])
    assert choice.pick is slow and "the smallest learning rate of 2 with about the same distance" in choice.reason
    assert choose([fast, trial(distance=0.111, lr=1e-4)]).pick is fast
    one, two = trial(), trial()
    assert choose([one, two]).pick is one and choose([two, one]).pick is two
    assert "the first of 2 with about the same distance" in choose([one, two]).reason


def test_none_that_forgets_enough_gives_the_one_that_answers_fewest_and_says_so():
    fewest, more = trial(forget=0.2, distance=0.5), trial(forget=0.3, distance=0.1)
    choice = choose([more, fewest])
    assert choice.pick is fewest and not choice.enough and "none forgets enough; this one answers fewest, 0.20" in choice.reason
    near = trial(forget=0.21, distance=0.4)
    assert choose([fewest, near]).pick is near  # within 0.01 of the fewest: the smaller distance
    slow = trial(forget=0.21, distance=0.4, lr=1e-4)
    assert choose([fewest, near, slow]).pick is slow


def test_diverged_trials_take_part_if_finite_and_failed_ones_do_not():
    diverged = trial(status="diverged")
    assert choose([trial(distance=0.5), diverged]).pick is diverged
    lost, failed = trial(status="diverged", distance=math.nan), trial(status="failed", reason="boom")
    kept = trial(distance=0.8)
    choice = choose([lost, failed, trial(status="missing"), kept])
    assert choice.pick is kept and choice.trials[1] is failed
    nothing = choose([lost, failed])
    assert nothing.pick is None and not nothing.enough and "no trial has finite readings" in nothing.reason
    assert choose([]).pick is None


def test_a_trial_is_read_by_the_distance_that_the_book_ranks_by():
    from study.readings import twin as readings

    record, twin = made("npo", 7, forget=0.25, retain=0.75), made("twin", 7, forget=0.0, retain=1.0)
    found = search.trial(record.spec, record, twin)
    assert found.readings["distance"] == readings.distance({"npo": [record], "twin": [twin]}, "npo") == pytest.approx((0.25 + 0.25 + 0.25) / 5)
    assert tuple(found.readings) == READINGS and not found.enough


def test_verdict_compares_with_the_default():
    assert "; the recipe's default." in search.verdict(choose([trial(default=True)]))
    assert "not the recipe's default, which was not tried" in search.verdict(choose([trial()]))
    text = search.verdict(choose([trial(), trial(distance=0.5, default=True), trial(status="missing")]))
    assert "not the recipe's default. 1 of 3 trials are missing" in text
    assert search.verdict(choose([trial(status="missing")])) == "no trial has been made."
    assert "no pick" in search.verdict(choose([trial(status="failed")]))


# ---------------------------------------------------------------------- study.yml and the records


def test_the_study_s_search_is_a_block_on_a_seed_of_its_own():
    grid = Grid.load()
    assert grid.search.seed not in grid.seeds
    assert grid.blocks["search"] == grid.search.specs
    assert [s.method for s in grid.search.specs[:2]] == ["target", "twin"]
    assert {s.seed for s in grid.search.specs} == {grid.search.seed}
    assert Grid.load("smoke").blocks["search"] == ()


def study(path, **changes):
    raw = {"seeds": [0], "blocks": {}, "pages": {}, "search": {"testbed": "smoke/synthetic", "seed": 7, "trials": {"npo": [{}, {"lr": 0.001}]}} | changes}
    (path / "study.yml").write_text(yaml.safe_dump(raw))
    return path / "study.yml"


@pytest.mark.parametrize("change, message", [
    ({"sed": 7}, "did you mean 'seed'"),
    ({"seed": 0}, "one of the study's seeds"),
    ({"trials": {"npp": [{"lr": 0.1}]}}, "did you mean 'npo'"),
    ({"trials": {"npo": [{"lrr": 0.1}]}}, "did you mean 'lr'"),
    ({"trials": {"npo": {"lr": 0.1}}}, "must be a list of options"),
    ({"trials": {"npo": []}}, "must be a list of options"),
    ({"trials": {"twin": [{}]}}, "belongs to the sanity ladder"),
    ({"trials": {"npo": [{"lr": 0.001}, {"lr": 0.001}]}}, "are the same run"),
])  # fmt: skip
def test_errors_of_the_section_name_the_mistake(tmp_path, change, message):
    with pytest.raises(SpecError, match=message):
        Grid.load(path=study(tmp_path, **change))


def test_a_search_needs_all_its_keys_and_its_block_s_name(tmp_path):
    path = tmp_path / "study.yml"
    path.write_text(yaml.safe_dump({"seeds": [0], "blocks": {}, "pages": {}, "search": {"testbed": "smoke/synthetic", "seed": 7}}))
    with pytest.raises(SpecError, match="trials is missing"):
        Grid.load(path=path)
    raw = yaml.safe_load(study(tmp_path).read_text()) | {"blocks": {"search": {"testbed": "smoke/synthetic", "method": "npo"}}}
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(SpecError, match="cannot be named 'search'"):
        Grid.load(path=path)


@pytest.mark.parametrize("words, message", [
    ((), "name a method"),
    (("npp",), "did you mean 'npo'"),
    (("gradient_ascent",), "add them to study.yml, e.g. search: trials: gradient_ascent: "),
    (("twin",), "belongs to the sanity ladder"),
])  # fmt: skip
def test_bad_calls_name_what_to_do(tmp_path, monkeypatch, capsys, words, message):
    from study.__main__ import main

    study(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["search", *words]) == 2
    assert message in capsys.readouterr().err


def test_dry_run_computes_nothing(tmp_path, monkeypatch, capsys):
    from study.__main__ import main

    study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "run", lambda *_, **__: pytest.fail("computed"))
    assert main(["search", "--all", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "npo on smoke/synthetic, seed 7: 2 trials" in out and out.count("missing") == 2 and "no trial has been made" in out


@pytest.fixture
def calls(monkeypatch):
    """Records made by hand in place of computing; lr 0.002 breaks and leaves what `experiment.run` leaves."""
    made_specs: list = []

    def run(spec):
        made_specs.append(spec)
        how = {"forget": 0.0, "retain": 1.0} if spec.method == "twin" else {"forget": 0.0, "retain": 0.75 if spec.options else 0.5}
        record = made(spec.method, spec.seed, **how, options=dict(spec.options))
        if spec.options.get("lr") == 0.002:
            failed = dataclasses.replace(record, status="failed", metrics={}, rows={}, trajectory=[], cost={}, reason="boom")
            write(failed, results_dir() / "failed" / path_of(spec).name)
            raise RuntimeError("boom")
        write(record)
        return record

    monkeypatch.setattr(experiment, "run", run)
    return made_specs


def test_trials_are_made_once_and_a_failed_one_is_kept_and_shown(tmp_path, monkeypatch, capsys, calls):
    from study.__main__ import main

    study(tmp_path, trials={"npo": [{}, {"lr": 0.001}, {"lr": 0.002}]})
    monkeypatch.chdir(tmp_path)
    assert main(["search", "npo"]) == 1  # one failed
    out = capsys.readouterr().out
    assert "lr 0.002: failed: boom" in out and "pick: lr 0.001 (2 of 3 forget enough; the smallest distance); not the recipe's default." in out
    assert len(calls) == 4  # the twin and three trials
    assert main(["search", "npo", "--dry-run"]) == 0 and "failed" in capsys.readouterr().out
    assert len(calls) == 4
    main(["search", "npo"])
    assert len(calls) == 5  # records are read, what failed is tried again


def test_the_page_of_the_search(tmp_path, monkeypatch, calls):
    from study import report

    study(tmp_path, trials={"npo": [{}, {"lr": 0.001}], "gradient_ascent": [{"lr": 0.002}]})
    monkeypatch.chdir(tmp_path)
    choices = report.search("smoke/synthetic", 3)  # the same trials elsewhere
    assert {s.seed for s in calls} == {3}
    said = report.search_answer(choices).data
    assert "3 trials of 2 methods, 1 to 2 a method. Unlearning them took 2 to 2 s a method" in said
    assert "default is the rule's choice for 0 of 2." in said and "It is not for NPO." in said
    assert "No trial of Gradient ascent gave finite readings" in said and "Failed trials: Gradient ascent 1." in said
    table = report.search_summary(choices)._repr_html_()
    assert "lr 0.001" in table and "defaults" in table and "not tried" in table
    trials = report.search_trials(choices).data
    assert "picked" in trials and "failed" in trials and "boom" in trials and "nan" not in trials
    assert all(f">{h}</th>" in trials for h in HEADS) and "the twin of this seed" in trials


def test_the_page_of_the_search_says_where_extra_trials_went_and_who_never_forgets_enough():
    from study import report

    said = report.search_answer({
        "npo": choose([trial(distance=0.1)]), "rmu": choose([trial(distance=0.2)]),
        "gradient_ascent": choose([trial(distance=0.6), trial(distance=0.5, lr=1e-4), trial(distance=0.9)]),
        "gradient_descent": choose([trial(forget=0.9), trial(forget=0.8)]), "noise": choose([trial(distance=0.6)]),
    }).data  # fmt: skip
    assert "8 trials of 4 methods and 1 bound, 1 to 3 a method." in said and "s a method" not in said
    assert "Extra trials went to weak methods: 1.7 a method on average" in said and "1.5 in the half nearer" in said
    assert "No trial of Descent on retain ends with at most 10\u202f% of the forget questions answered" in said


def test_trials_as_options_that_equal_the_defaults():
    from reprolib.recipes import recipe

    default = recipe("npo").defaults["lr"]
    specs = Search("smoke/synthetic", 7, {"npo": ({"lr": default}, {"lr": default / 2})}).of("npo")
    found = [search.trial(s, None, None) for s in specs]
    assert [t.default for t in found] == [True, False] and found[1].lr == default / 2 and found[0].status == "missing"
