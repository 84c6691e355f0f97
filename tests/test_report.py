"""Figures, tables and sentences, on records made by hand."""

import math

import numpy as np
import pytest

from reprolib import report
from reprolib.record import Record
from reprolib.report import figures, style, summary, tables
from reprolib.spec import Spec


def made(method, seed, *, forget, retain, auc_shift=0.0, world=1.0, status="done", given=None, **spec):
    """A record whose questions are answered as said: four documents a group, each with one passage and two questions."""
    rows = {k: [] for k in ("group", "task", "kind", "document", "score", "nll", "em", "es", "text_nll")}
    random = np.random.default_rng(seed)

    def add(group, kind, document, score, text=None):
        for k, v in zip(rows, (group, "World" if group == "world" else "Task1", kind, document, score, 1.0, 1.0, 1.0, text), strict=True):
            rows[k].append(v)

    for n, (group, value) in enumerate((("forget", forget), ("retain", retain))):
        for d in range(4):
            document = 10 * n + d
            add(group, "sc", document, value, 2.0 + random.random() - auc_shift)
            add(group, "qa", document, 1.0 if d < 4 * value else 0.0)
            add(group, "qa", document, 1.0 if d < 4 * value else 0.0)
    for d in range(4):
        add("holdout", "sc", 30 + d, None, 2.0 + random.random())
    for d in range(4):
        add("world", "qa", 40 + d, 1.0 if d < 4 * world else 0.0)
    if given is not None:
        rows["given"] = [given] * 12 + [0] * (len(rows["group"]) - 12)
    metrics = {
        "forget/questions": forget, "retain/questions": retain, "attack/auc": 0.5 + auc_shift / 2, "world/accuracy": world,
        "retain/kl": 1 - retain, "lume/forget/Task1/sc": 1 - forget, "lume/retain/Task1/sc": retain, "lume/final": 0.4,
    }  # fmt: skip
    measures = {k: metrics[k] for k in ("forget/questions", "retain/questions", "attack/auc", "world/accuracy")}
    made_spec = Spec(testbed="smoke/synthetic", method=method, seed=seed, **spec)
    return Record(
        spec=made_spec, fingerprint=made_spec.fingerprint, status=status, metrics=metrics, rows=rows,
        trajectory=[{"step": n, **{k: v * n / 2 for k, v in measures.items()}} for n in range(3)],
        cost={"train_s": 1.0, "evaluate_s": 1.0, "forget_rows_given": 12},
        provenance={"commit": "abc", "dirty": False, "versions": {"torch": "2"}, "machine": {"gpu": None, "cpu": "CPU"}, "time": "2026-01-01"},
        reason="loss nan" if status == "diverged" else "",
    )  # fmt: skip


def study(seeds=3):
    def many(method, **how):
        return [made(method, s, **how) for s in range(seeds)]

    return {
        "target": many("target", forget=1.0, retain=1.0, auc_shift=1.5),
        "twin": many("twin", forget=0.0, retain=1.0),
        "random": many("random", forget=0.0, retain=0.0, world=0.25),
        "npo": many("npo", forget=0.25, retain=0.75, world=0.75),
        "gradient_ascent": many("gradient_ascent", forget=0.0, retain=0.0, world=0.25, status="diverged"),
    }


def test_distance_orders_twin_partial_destroyed():
    s = study()
    d = {m: report.page.distance(s, m) for m in s}
    assert d["twin"] == 0
    assert d["twin"] < d["npo"] < min(d["target"], d["gradient_ascent"])
    # by hand: forget .25, AUC 0, retain .25, world .25, passages .25
    assert d["npo"] == pytest.approx(1.0 / 5)


def test_intervals_hold_the_estimate_and_narrow_with_nothing_to_resample():
    s = study()
    i = summary.interval(s["npo"], "forget_questions")
    assert i.estimate == pytest.approx(0.25) and i.low <= 0.25 <= i.high and i.low < i.high
    sure = summary.interval(s["twin"], "retain_questions")
    assert (sure.low, sure.estimate, sure.high) == (1, 1, 1)


def test_readings_agree_with_the_record_s_own_metrics():
    r = study()["npo"][0]
    assert summary.value(r, "forget_questions") == pytest.approx(r.metrics["forget/questions"])
    assert summary.value(r, "world_questions") == pytest.approx(r.metrics["world/accuracy"])
    assert summary.value(r, "retain_kl") == pytest.approx(r.metrics["retain/kl"])


def test_gap_closed_by_seed():
    s = study()
    assert summary.gap(s["npo"], s["target"], s["twin"], "forget_questions") == pytest.approx([0.75] * 3)
    assert all(math.isnan(g) for g in summary.gap(s["npo"], s["target"], s["twin"], "retain_questions"))  # nothing to close


def test_score_table_says_direction_interval_seeds_and_divergence():
    html = tables.scores(study(), caption="A table")._repr_html_()
    for text in ("→ twin", "↑", "[", "3 seeds", "3 of 3 diverged", "Retrained twin"):
        assert text in html
    assert "One seed" in tables.scores(study(1), caption="A table")._repr_html_()


def test_csv_is_written_with_plain_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path))
    tables.scores(study(), caption="x").csv("t")
    lines = (tmp_path / "tables" / "t.csv").read_text().splitlines()
    assert lines[0].startswith("method,seeds,diverged,forget_questions,forget_questions_low")
    assert any(line.startswith("npo,3,0,0.25,") for line in lines)


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_figure_draws_and_its_alt_text_has_the_numbers(seeds):
    style.use()
    s = study(seeds)
    for draw in (figures.headline, lambda s: figures.tradeoff(s, "smoke"), figures.official):
        fig, alt = draw(s)
        assert "NPO 0." in alt and alt.endswith(".")
        assert style.svg(fig) == style.svg(draw(s)[0]), "equal figures give equal bytes"
    fig, alt = figures.trajectories({k: v for k, v in s.items() if k != "gradient_ascent"})
    assert "to 0.25" in alt
    style.svg(fig)


def test_size_figure_and_table_with_shares_that_leave_no_rows():
    some = {0.5: [made("npo", s, forget=0.5, retain=1.0, given=1, forget_documents=0.5) for s in range(3)],
            1.0: [made("npo", s, forget=0.25, retain=0.75) for s in range(3)]}  # fmt: skip
    fig, alt = figures.sizes({"npo": some}, "share (%)", study())
    style.svg(fig)
    assert "other rows of these documents: 0.50 at 50 %" in alt and "rows given: 0.25 at 100 %" in alt
    html = report.size_table({"npo": some}, {"npo": some})._repr_html_()
    assert "50 %" in html and "nan" not in html


def test_figures_carry_alt_text_into_the_page():
    style.use()
    fig, _ = figures.official(study())
    html = style.show(fig, 'a "quoted" text', "A caption <b>").data
    assert 'alt="a &quot;quoted&quot; text"' in html and "A caption &lt;b&gt;" in html


def test_stamp_shows_reason_and_command_and_notices_stale_records():
    import dataclasses

    s = study()
    fresh = tables.stamp(s["npo"], "notebooks/methods/npo.ipynb").data
    assert "records match" in fresh and "papermill notebooks/methods/npo.ipynb out.ipynb -p testbed smoke/synthetic" in fresh
    old = [dataclasses.replace(r, fingerprint="0" * 12) for r in s["npo"]]
    assert "stale: 3 of 3" in tables.stamp(old, "n.ipynb").data
    assert "loss nan" in tables.stamp(s["gradient_ascent"], "n.ipynb").data


def test_answer_names_best_worst_and_the_trap():
    text = report.answer(study()).data
    assert "**NPO** comes closest" in text and "Farthest from the twin is Gradient ascent" in text
    assert "random weights score 0.40, about as much as" in text and "Diverged: Gradient ascent (3 of 3 seeds)" in text


def test_a_method_has_one_colour_and_plug_ins_get_a_stable_one():
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)
    assert style.colour("something_new") == style.colour("something_new")
