"""The page of a pretrained model: MMLU question by question, the organisers' numbers, and sentences that follow them."""

import dataclasses

import numpy as np
import pytest
from test_report import made as made_anywhere

from study.readings import gate
from study.report import pretrained
from study.report.arms.variants import Arm, Setting

NOTE = "5 questions a subject, seed 0"


def made(*args, **how):
    return made_anywhere(*args, **how, testbed="smollm2-few/semeval")


def asked(record, hits, note=NOTE, **metrics):
    share = hits.count("1") / len(hits)
    own = {"official/task_aggregate": 0.5, "official/mia_auc": 0.6, "official/mia": 0.8, "official/mmlu": share,
           "official/final": (0.5 + 0.8 + share) / 3, "mmlu/accuracy_questions_low": share - 0.1,
           "mmlu/accuracy_questions_high": share + 0.1, "mmlu/chance": 0.25, "mmlu/scored": float(len(hits))} | metrics  # fmt: skip
    mmlu = {"questions": note, "content": "abc", "hits": hits}
    return dataclasses.replace(record, metrics=record.metrics | own, provenance=record.provenance | {"mmlu": mmlu})


RIGHT, HALF, WRONG = "1" * 570, "10" * 285, "0" * 570


@pytest.fixture
def study():
    return {
        "target": [asked(made("target", 0, forget=1.0, retain=1.0, auc_shift=1.5), RIGHT)],
        "twin": [asked(made("twin", 0, forget=0.0, retain=1.0), RIGHT)],
        "npo": [asked(made("npo", 0, forget=0.25, retain=1.0), RIGHT[:-1] + "0")],
        "gradient_ascent": [asked(made("gradient_ascent", 0, forget=0.0, retain=0.0, world=0.0), WRONG, **{"official/final": 0.9})],
    }


def arms_of(study, **distances):
    """An arm a method with the rates 1e-5, 2e-5, ... ending at these distances, the first of which is the study's record."""
    return {m: Arm(m, m, tuple(Setting(1e-5 * (i + 1), tuple(study[m]), (float("nan"),), (d,)) for i, d in enumerate(distances.get(m, [0.1]))))
            for m in study if m not in ("target", "twin", "always_eos")}  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "estimate"), [(RIGHT, WRONG, 1.0), (WRONG, RIGHT, -1.0), (HALF, HALF, 0.0), (RIGHT, HALF, 0.5)]
)
def test_a_change_in_mmlu_is_paired_by_question(a, b, estimate):
    plain = made("npo", 0, forget=0.0, retain=1.0)
    found = pretrained.change(asked(plain, a), asked(plain, b))
    assert found.estimate == pytest.approx(estimate) and found.low <= estimate <= found.high
    if a == b or {a, b} == {RIGHT, WRONG}:
        assert found.low == found.high == pytest.approx(estimate), "every question changes alike"


def test_questions_are_resampled_within_their_subjects():
    """One subject of three lost as a whole: however questions are drawn, a third of them is lost."""
    plain = made("npo", 0, forget=0.0, retain=1.0)
    found = pretrained.change(asked(plain, "0" * 5 + "1" * 10), asked(plain, "1" * 15))
    assert found.low == found.high == pytest.approx(-1 / 3)


def test_the_table_has_the_change_since_the_target(study):
    table = pretrained.official(study)
    assert table.header[0] == "model" and table.header[-1] == "MMLU since the target"
    rows = {d["method"]: d for d in table.data}
    assert rows["gradient_ascent"]["mmlu_change"] == -1.0 and rows["target"]["mmlu_change"] == ""
    assert rows["npo"]["mmlu"] == pytest.approx(569 / 570, abs=1e-4) and rows["npo"]["mmlu_change_high"] == 0.0
    assert "570 in all" in table.caption and table.rule_after == 2


def test_the_answer_names_the_closest_the_order_and_what_mmlu_lost(study):
    said = pretrained.answer(study, study, arms_of(study)).data
    assert "of the methods whose run shown is one of these: Gradient ascent (" in said and "The other methods left more; they stand at NPO (" in said and "Of 1 pairs" not in said and "The one pair of methods comes" in said
    assert "gives Gradient ascent most, 0.90; the twin 0.77 and" in said and "guessing" not in said and "Gradient ascent (-100 points)" in said and "One seed, 4 forget documents" in said
    assert "end-of-text" not in said
    silent = study | {"always_eos": [asked(made("always_eos", 0, forget=0.0, retain=0.0), HALF, **{"official/final": 0.8})]}
    assert "nothing but end-of-text scores 0.80, more than NPO here" in pretrained.answer(silent, study, arms_of(study)).data
    small = {**study, "npo": study["gradient_ascent"], "gradient_ascent": study["npo"]}
    assert pretrained.answer(study, small, arms_of(study)).data != said, "the order of the small models is looked up"
    same = {k: [asked(r[0], RIGHT)] for k, r in study.items()}
    ignorant = {k: [asked(r[0], HALF, **{"mmlu/accuracy_questions_low": 0.2})] for k, r in study.items()}
    assert "which guessing does too" in pretrained.answer(ignorant, study, arms_of(study)).data and "are answered by Gradient ascent (\u2212100 points [\u2212100, \u2212100])" in pretrained.answer(ignorant, study, arms_of(study)).data
    assert "no method is told apart from it" in pretrained.answer(same, same, arms_of(study)).data
    assert np.isnan(pretrained.mean([dataclasses.replace(study["npo"][0], metrics={"official/final": None})], "official/final"))


def test_the_answer_says_that_a_setting_was_chosen_on_the_numbers_shown(study):
    said = pretrained.answer(study, study, arms_of(study, npo=[0.3, 0.2, 0.4])).data
    assert "chosen on these very numbers: 3 of NPO (from 0.20 to 0.40)" in said
    assert "**1 of 4 runs end at a tenth of the forget questions or less, and with 0 to 0" in said and "is one of these: Gradient ascent" in said
    untouched = {m: [dataclasses.replace(r[0], metrics=r[0].metrics | {"forget/questions": 1.0})] for m, r in study.items()}
    said = pretrained.answer(untouched, study, arms_of(untouched)).data
    assert "**No run ends at a tenth of the forget questions or less.**" in said and "All methods left more; they stand at " in said
    assert "chosen on" not in pretrained.answer(study, study, arms_of(study)).data


def test_world_questions_are_compared_one_by_one(study):
    lost = pretrained.world(study["gradient_ascent"][0], study["target"][0])
    assert lost.estimate == lost.low == lost.high == -1.0, "every question is lost"
    assert pretrained.world(study["npo"][0], study["target"][0]).estimate == 0.0


def test_each_method_stands_with_the_record_nearest_to_the_twin(study, monkeypatch):
    """Of all its rates, and of all arms that it has."""
    other, longer = (made("npo", s, forget=0.5, retain=1.0) for s in (1, 2))
    short = Arm("NPO", "npo", (Setting(1e-5, tuple(study["npo"]), (0.5,), (0.3,)), Setting(2e-5, (other,), (0.5,), (0.2,))))
    long = Arm("NPO, long", "npo", (Setting(1e-5, (longer,), (0.5,), (0.25,)),))
    monkeypatch.setattr(gate, "record", lambda **fields: study[fields["method"]][0])
    found = pretrained.gather({"NPO": short, "NPO, long": long}, ["target", "twin"], "smollm2-few/semeval", 0)
    assert list(found) == ["target", "twin", "npo"] and found["npo"] == [other]
    assert pretrained.nearest({"NPO": short, "NPO, long": long})["npo"][2] == 3
