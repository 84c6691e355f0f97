"""Sentences, tables and figures on relearning, rounding, prompts and requests, on records made by hand."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
from test_report import made

from reprolib.probes.relearning import STEPS
from study import report
from study.report import requests, stress


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def stressed(method, seed, *, rise, comes=0.0, leak=0.0):
    """A record of the suite: the AUC goes from 0.5 to 0.5 + rise within ten steps."""
    base = made(method, seed, forget=0.0, retain=1.0)
    metrics = {}
    for n, step in enumerate((0, *STEPS)):
        part = min(1.0, n / (1 + STEPS.index(stress.EARLY)))
        for key, value in (("auc", 0.5 + rise * part), ("questions", 0.0), ("questions_em", 0.1 + rise * part), ("retain_questions", 1.0)):
            metrics[f"relearning/part/{step}/{key}"] = value
            metrics[f"relearning/benign/{step}/{key}"] = value / 2
    for precision in ("int8", "nf4"):
        for name in ("forget/questions", "forget/em", "attack/auc", "retain/questions", "world/accuracy"):
            metrics[f"quantization/{precision}/{name}"] = comes
    metrics |= {f"prompts/{g}/{k}": leak if g == "forget" else 1.0 for g in ("forget", "retain") for k in stress.ASKED}
    return dataclasses.replace(base, metrics=metrics)


def study():
    def many(method, **how):
        return [stressed(method, s, **how) for s in range(3)]

    out = {"target": many("target", rise=0.5), "twin": many("twin", rise=0.02)}
    return out | {"npo": many("npo", rise=0.45, comes=0.03, leak=0.2), "adaptive_rmu": many("adaptive_rmu", rise=0.05)}


def core(*methods, forget=0.0):
    return {m: [made(m, s, forget=forget, retain=1.0) for s in range(3)] for m in methods}


def test_a_rise_counts_beyond_the_twin_s():
    assert stress.comes_back(study(), "npo") == pytest.approx([0.43] * 3)
    assert stress.comes_back(study(), "adaptive_rmu") == pytest.approx([0.03] * 3)


def test_the_answer_names_who_hid_and_who_did_not():
    text = stress.answer(study(), core("npo", "adaptive_rmu", "target", "twin")).data
    assert "**1 left documents that become recognisable again**" in text and "These are NPO." in text and "It does not on Adaptive RMU." in text
    assert "at most 3 % of the forget questions are answered (NPO, 0 % before)" in text
    assert "most leak from NPO (20 % of the questions), then Adaptive RMU (0 % of the questions); from the twin 0 %" in text


def test_a_method_that_was_recognised_all_along_did_not_hide():
    s = study()
    s["npo"] = [dataclasses.replace(r, metrics=r.metrics | {"relearning/part/0/auc": 0.95}) for r in s["npo"]]
    text = stress.answer(s, core("npo", "adaptive_rmu", "target", "twin")).data
    assert "**0 left documents" in text and "NPO had never made them unrecognisable." in text


def test_a_method_that_forgot_nothing_is_not_asked_whether_it_hid():
    text = stress.answer(study(), core("npo", forget=0.5) | core("adaptive_rmu", "target", "twin")).data
    assert text.startswith("```{admonition} The answer\n:class: tip\nOf 1 methods") and "NPO" not in text


def test_tables_and_figure_name_every_model():
    s, c = study(), core("npo", "adaptive_rmu", "target", "twin")
    for table in (stress.relearning(s), stress.rounding(s, c), stress.prompts(s)):
        assert [r[0].rpartition(">")[2] for r in table.rows] == ["Target", "Twin", "NPO", "Adaptive RMU"] or len(table.rows) == 4
        assert len(table.header) == len(table.rows[0]) and table.rule_after == 2
    rise = stress.rise(s)
    assert "NPO" in rise.rows[0][0] and "+0.43" in rise.rows[0][3]  # the largest first
    fig, alt = stress.curves(s)
    assert "auc 0.50 to 0.95" in alt and len([a for a in fig.axes if a.get_visible()]) == 3  # twin stands in every panel


def requested(method, seed, *, drop):
    record = made(method, seed, forget=0.0, retain=1.0, requests=2)
    measures = {"forget/questions": 1.0, "retain/questions": 1.0, "world/accuracy": 1.0, "attack/auc": 1.0}
    trajectory = [{"step": 0, **measures}, {"step": 1, **measures | {"retain/questions": 1 - drop}}]
    trajectory += [{"step": 2, "request": 1, **measures | {"retain/questions": 0.9}}]
    n = len(record.rows["group"])
    numbers = [0] * 6 + [1] * 6 + [None] * (n - 12)
    return dataclasses.replace(record, trajectory=trajectory, rows=record.rows | {"request": numbers}, cost=record.cost | {"steps": 2})


def whole(method, seed):
    record = made(method, seed, forget=0.0, retain=1.0)
    measures = {"forget/questions": 0.0, "retain/questions": 1.0, "world/accuracy": 1.0, "attack/auc": 0.5}
    return dataclasses.replace(record, trajectory=[{"step": 0, **measures}, {"step": 1, **measures}], cost=record.cost | {"steps": 2})


def test_requests_are_followed_one_after_another():
    one = requested("npo", 0, drop=0.3)
    assert requests.after_each(one, "retain/questions") == pytest.approx([1.0, 0.7, 0.9])
    assert requests.of_request(one, 0) == 0.0 and requests.of_request(one, -1) == 0.0
    twins = [made("twin", s, forget=0.0, retain=1.0) for s in range(3)]
    s = {"npo": {1: [whole("npo", k) for k in range(3)], 2: [requested("npo", k, drop=0.3) for k in range(3)]}}
    text = requests.answer(s, twins).data
    assert "about as far from the twin when the same documents come in 2 requests" in text and "30 points fewer" in text
    table = requests.table(s, twins)
    assert [r[1] for r in table.rows] == ["1", "2"] and table.rows[0][4] == "–" and table.rows[1][4] == "0.00"
    _fig, alt = requests.figure(s, twins)
    assert "retain questions: 1.00 to 0.90" in alt


def test_the_report_offers_both():
    assert report.stress is stress and report.requests is requests
