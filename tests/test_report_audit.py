"""The audit page: published numbers, the algebra of the official mean, the error of an AUC, and the page's claims against the records."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from test_claims import SEEDS, records
from test_report import made
from test_report import study as by_hand

from reprolib.metrics import lume
from study.readings.quantities import value
from study.readings.twin import distance
from study.report import audit, style
from study.report.audit import membership, reward, scores

ROOT = Path(__file__).resolve().parent.parent


BEDS = ("tiny/synthetic", "tiny/lume")


NOTEBOOK = ROOT / "notebooks" / "synthesis" / "audit.ipynb"


@pytest.fixture(scope="module")
def data():
    return audit.published()


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def ladder(bed):
    return {m: [records(bed, m)[s] for s in SEEDS] for m in ("target", "twin", "random", "always_eos")}


def study(seeds=3):
    """By hand: the twin has a final score of 0.9, the target 0.3, destroyed models 0.4; ascent 0.35 in all seeds, NPO 0.6."""
    finals = {"target": 0.3, "twin": 0.9, "random": 0.4, "npo": 0.6, "gradient_ascent": 0.35}
    s = by_hand(seeds)
    s["always_eos"] = [made("always_eos", n, forget=0.0, retain=0.0, world=0.25) for n in range(seeds)]
    return {m: [dataclasses.replace(r, metrics=r.metrics | {"lume/final": finals.get(m, 0.4)}) for r in rs] for m, rs in s.items()}


# ---------------------------------------------------------------------- published numbers


def test_every_published_number_has_a_source(data):
    raw = yaml.safe_load((ROOT / "book" / "published_scores.yml").read_text(encoding="utf-8"))
    named = [data.untouched, *data.papers.values(), *data.attack_sets, raw["mmlu_answers"]]
    assert {x["source"] for x in named} <= set(data.sources)
    assert all(s["title"] and s["url"].startswith("https://") for s in data.sources.values())
    for b in data.boards:
        own = [r for r in data.rows if (r.track, r.board) == (b["track"], b["board"])]
        assert 0 < len(own) <= b["of"] and (b["track"] == "1B" or len(own) == b["of"])
        ranks = [r.rank for r in own if r.rank]
        assert ranks == sorted(ranks) and all(n <= b["of"] for n in ranks)
        assert [r.final for r in own if r.rank] == sorted((r.final for r in own if r.rank), reverse=True)
    assert len({(r.track, r.board, r.team) for r in data.rows}) == len(data.rows)
    assert "@" not in (ROOT / "book" / "published_scores.yml").read_text(encoding="utf-8")


def test_every_printed_final_score_is_the_mean_of_its_parts_to_rounding(data):
    for r in data.rows:
        assert r.agrees, f"{r.label}: {r.recomputed} against {r.final}"
    assert "All 36 printed final scores" in audit.arithmetic(data).data and ">differs<" not in audit.table(data)._repr_html_()


def test_a_sum_that_is_wrong_is_marked(data):
    row = audit.Row("7B", "eligible", 1, "X", 0.5, 0.6, 0.3, 0.5)  # the mean is 0.4667
    assert not row.agrees and row.difference == pytest.approx(-1 / 30) and row.allowed == pytest.approx(0.001)
    assert audit.Row("7B", "eligible", 6, "X", 0.3082, 0.433, 0.0, 0.492).allowed == pytest.approx(0.00055)  # four decimals
    wrong = dataclasses.replace(data, rows=(row, *data.rows[1:]))
    assert ">differs<" in audit.table(wrong)._repr_html_() and "Not explained by rounding: X (7B)" in audit.arithmetic(wrong).data
    assert "1 of 36 published means do not add up" in reward._sums(wrong)


def test_the_threshold_is_three_quarters_of_the_untouched_model_and_sorts_the_7b_boards(data):
    assert data.untouched["threshold"] == lume.ELIGIBLE_MMLU == pytest.approx(0.75 * data.untouched["mmlu"], abs=0.0005)
    assert all(r.eligible for r in data.of("7B", "eligible")) and not any(r.eligible for r in data.of("7B", "excluded"))
    assert "leaves out 6 of 20 submissions, among them the highest final score of all (SHA256, 0.711" in audit.arithmetic(data).data


def test_rows_with_the_parts_of_a_destroyed_model(data):
    large, small = ([r for r in data.of(t) if r.blank] for t in ("7B", "1B"))
    assert len(large) == 4 and not any(r.eligible for r in large)
    assert [r.rank for r in small] == [6, 8, 10, 15]
    assert "not the score, leaves out all of them" in scores.caught(data) and "6, 8, 10 and 15 of 24" in scores.caught(data)
    eligible = [dataclasses.replace(r, mmlu=0.4) if r.team == "MALTO" else r for r in data.rows]
    assert "leaves out 3 of them" in scores.caught(dataclasses.replace(data, rows=tuple(eligible)))


def test_at_1b_the_untouched_model_is_near_chance(data):
    assert data.papers["cyber-original-1b"]["mmlu"] - 0.25 < 0.03


def test_one_letter_for_all_questions(data):
    assert sum(data.answers.values()) == 14042
    assert [data.letter(x) for x in (0.229, 0.247, 0.255, 0.269, 0.25, 0.495)] == ["A", "B", "C", "D", "", ""]
    said = audit.letters(data).data
    assert "Of the 10 rows with a task aggregate of 0" in said and ", 8 have exactly one of these" in said and "above 0, none" in said


@pytest.mark.skipif("REPROLIB_DATA" not in os.environ, reason="MMLU is not at hand")
def test_the_shares_of_letters_are_those_of_mmlu(data):
    from collections import Counter

    from reprolib.corpus.mmlu import LETTERS, load

    folder = Path(os.environ["REPROLIB_DATA"]) / "mmlu"
    if not folder.exists():
        pytest.skip("MMLU is not at hand")
    assert dict(Counter(LETTERS[q.answer] for q in load(folder).test)) == data.answers


def test_figures_draw_alike_and_say_their_numbers(data):
    style.use()
    for draw in (audit.bars, audit.intervals):
        fig, alt = draw(data)
        assert "Cyber for AI (7B) 0." in alt and alt.endswith(".")
        assert style.svg(fig) == style.svg(draw(data)[0])
    assert alt.count("with 150") == sum(r.mia > 0 for r in data.rows)


def test_tables_are_written(data, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path))
    shown = audit.table(data).csv("p")._repr_html_()
    assert shown.count("rowgroup") == 4 and "1B, no threshold (12 of 24 rows)" in shown
    lines = (tmp_path / "tables" / "p.csv").read_text().splitlines()
    assert len(lines) == 37 and "7B,excluded,,Cyber for AI,0.0,0.999,0.229,0.409,0.40933," in "\n".join(lines)
    assert len(audit.errors(data, [study()]).rows) == 3


# ---------------------------------------------------------------------- the formula


def test_a_destroyed_model_gets_a_third_of_one_plus_its_mmlu():
    assert audit.destroyed(0.25) == pytest.approx(1.25 / 3) and audit.destroyed(0.229) == pytest.approx(0.40967, abs=1e-5)
    for task, mia, below in ((0.4, 0.5, True), (0.5, 0.5, True), (0.6, 0.5, False)):
        assert audit.Row("7B", "eligible", 1, "X", 0.0, task, mia, 0.3).below is below  # task + MIA <= 1


def test_break_even_and_the_share_of_rows_it_takes():
    assert audit.break_even(0.495) == pytest.approx(0.755)
    assert lume.final_score(audit.break_even(0.495), 0.0, 0.495) == pytest.approx(audit.destroyed())
    q = audit.forgotten(0.755)
    assert lume.task_aggregate([q] * 6 + [1.0] * 6) == pytest.approx(0.755) and q == pytest.approx(0.606, abs=1e-3)


def test_a_missing_part_follows_from_the_others():
    assert audit.implied_task(0.410, 0.982, 0.247) == pytest.approx((0.0, 0.0035), abs=1e-9)
    assert audit.implied_task(0.5, 0.5, 0.5)[0] == pytest.approx(0.4975)


def test_what_the_page_says_of_the_formula(data):
    said = audit.algebra(data, [ladder(b) for b in BEDS]).data
    for text in ("0.417 at chance, 0.498 if", "17 of the 20 7B submissions do not", "13 of the 14 eligible ones", "15 of 20 at 7B and 7 of 12 at 1B",
                 "0.755 to draw level", "forget 61\u202f% of the forget rows", "no submission at 7B scored more", "What-if".lower()):  # fmt: skip
        assert text in said, text


# ---------------------------------------------------------------------- what the score rewards


def test_where_a_measure_puts_models_beside_the_destroyed_ones():
    s = study()
    assert audit.placed(s, audit.finals) == {"below": ["target", "gradient_ascent"], "level": [], "above": ["npo"]}
    s["npo"][0] = dataclasses.replace(s["npo"][0], metrics=s["npo"][0].metrics | {"lume/final": 0.39})
    assert audit.placed(s, audit.finals)["level"] == ["npo"]  # the ranges over seeds overlap
    s["npo"][0] = dataclasses.replace(s["npo"][0], metrics=s["npo"][0].metrics | {"lume/final": None})
    assert min(audit.finals(s, "npo")) == 0  # a score that was lost
    assert audit.placed(s, audit.gaps)["above"] == ["npo"]  # by hand: 0.2 from the twin, the others 0.5 and more


def test_whether_destruction_pays():
    s = study()
    assert audit.rewarded(s) and audit.covered(s, "random") == pytest.approx(1 / 6) and audit.covered(s, "twin") == 1
    s["random"][1] = dataclasses.replace(s["random"][1], metrics=s["random"][1].metrics | {"lume/final": 0.2})
    assert not audit.rewarded(s)


def test_agreement_of_two_orders():
    s = study()
    assert math.isnan(audit.agreement(s))  # two methods
    s["idk_nll"] = [dataclasses.replace(made("idk_nll", n, forget=0.0, retain=1.0), fingerprint=f"i{n}") for n in range(3)]
    s["idk_nll"] = [dataclasses.replace(r, metrics=r.metrics | {"lume/final": 0.8}) for r in s["idk_nll"]]
    assert audit.agreement(s) == pytest.approx(1.0)


def test_methods_beyond_the_twin():
    s = study()
    s["twin"] = [made("twin", n, forget=0.25, retain=1.0) for n in range(3)]  # a quarter is form rather than secret
    assert audit.beyond_twin(s) == []
    s["npo"] = [made("npo", n, forget=0.0, retain=1.0) for n in range(3)]
    assert audit.beyond_twin(s) == ["npo"]
    assert "1 of 2 methods is above" in audit.rewards(s).data


@pytest.mark.parametrize("seeds", [1, 3])
def test_table_figure_and_sentences_of_a_study(data, seeds, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path))
    style.use()
    s = study(seeds)
    assert audit.shown(s) == ["twin", "random", "always_eos", "target", "npo", "gradient_ascent"]
    shown = audit.ladder([s, s]).csv("l")._repr_html_()
    assert shown.count("rowgroup") == 2 and "nan" not in shown
    assert "nan" not in (tmp_path / "tables" / "l.csv").read_text()
    fig, alt = audit.scatter(s)
    assert "Destroyed models score 0.40 to 0.40" in alt and "NPO 0." in alt
    assert style.svg(fig) == style.svg(audit.scatter(s)[0])
    said = audit.answer(data, [s]).data
    assert "**Yes: a destroyed model gets about 0.4" in said and "15 of the 20 published 7B submissions" in said
    assert "It puts Gradient ascent below the destroyed models in every seed." in said
    s["target"] = [dataclasses.replace(r, metrics=r.metrics | {"lume/final": 0.5}) for r in s["target"]]
    assert "**Not on every testbed: a destroyed model gets about 0.4" in audit.answer(data, [s]).data
    for text in (audit.rewards(s).data, audit.claims(data, s).data, audit.attack(data, [s]).data):
        assert "nan" not in text and "None" not in text


@pytest.mark.parametrize("bed", BEDS)
def test_destroyed_models_score_more_than_the_untouched_target_and_close_no_gap(bed):
    """The page's one-sentence answer."""
    s = ladder(bed)
    assert audit.rewarded(s)
    for m in audit.DESTROYED:
        assert abs(np.mean(audit.gaps(s, m))) < 0.06
        assert 0.05 < audit.covered(s, m) < 0.2
    assert min(audit.finals(s, "twin")) > 0.9
    assert reward.mean_of(audit.finals(s, "always_eos")) == pytest.approx(audit.destroyed(), abs=0.02)


@pytest.mark.parametrize("bed", BEDS)
def test_untouched_and_destroyed_models_are_about_equally_far_from_the_twin(bed):
    """The page: the distance says that both are useless, not which is worse."""
    s = ladder(bed)
    assert max(distance(s, m) for m in ("target", *audit.DESTROYED)) - min(distance(s, m) for m in ("target", *audit.DESTROYED)) < 0.03


@pytest.mark.parametrize("bed, count", [("tiny/synthetic", 12), ("tiny/lume", 8)])
def test_the_number_of_scores_in_the_aggregate(bed, count):
    for r in records(bed, "twin").values():
        assert sum(k.startswith(("lume/forget/", "lume/retain/")) for k in r.metrics) == count


# ---------------------------------------------------------------------- what papers say


def test_libu_s_number_is_the_task_aggregate(data):
    row = data.row("7B", "Lacuna Inc.")
    assert (row.task, row.mia, row.mmlu) == (0.283, 0.0, 0.469) and row.eligible and not row.blank
    said = audit.claims(data, study()).data
    for text in ("place 9 of 14", "place 17 of 24", "0.254 (0.280, 0, 0.483)", "95\u202f% of the untouched model's"):
        assert text in said


def test_cyber_for_ai_s_scores_are_those_of_a_destroyed_model(data):
    for track in ("7B", "1B"):
        row = data.row(track, "Cyber for AI")
        assert row.blank and row.below and abs(row.final - row.destroyed) < 0.03
    said = audit.claims(data, study()).data
    for text in ("task aggregates are 0 and 0", "0.410 and 0.417", "place 10 of 24", "0.000 to 0.004", "MMLU falls by no more than 0.027"):
        assert text in said
    baselines = [r.team for r in data.of("7B", "baseline") if r.blank]
    assert baselines == ["Gradient ascent", "KL minimisation"]  # named in the text


def test_methods_of_that_paper_need_not_destroy():
    s = {m: list(records("tiny/synthetic", m).values()) for m in ("gradient_descent", "chain_difference_ga", "target", "twin")}
    for m in ("gradient_descent", "chain_difference_ga"):
        assert min(value(r, "task_aggregate") for r in s[m]) > 0.3


# ---------------------------------------------------------------------- the error of an AUC


def test_error_of_an_auc_by_hand():
    # n = m = 150, A = 1/2: (1/4 + 2 * 149 / 12) / 150^2
    assert audit.auc_error(0.5, 150, 150) == pytest.approx(math.sqrt((0.25 + 298 / 12) / 150**2))
    assert audit.auc_error(0.5, 150, 150) == pytest.approx(0.0334, abs=1e-4) and audit.auc_error(0.5, 34, 34) == pytest.approx(0.0705, abs=1e-4)
    assert audit.auc_error(1.0, 34, 34) == 0
    for a in (0.6, 0.8, 0.95):  # the mirror image has the same error
        assert audit.auc_error(a, 60, 60) == pytest.approx(audit.auc_error(1 - a, 60, 60))


def test_mia_score_of_a_model_that_cannot_be_attacked():
    rng = np.random.default_rng(0)
    for n in (34, 150):
        mean, low = audit.unseen(n, n)
        drawn = []
        for _ in range(1500):
            x, y = rng.random(n), np.sort(rng.random(n))
            drawn.append(1 - 2 * abs(np.searchsorted(y, x).sum() / n**2 - 0.5))
        assert np.mean(drawn) == pytest.approx(mean, abs=0.01)
        assert np.mean(np.array(drawn) > low) == pytest.approx(0.95, abs=0.02)


def test_interval_of_a_mia_score():
    s = audit.auc_error(0.6, 150, 150)
    low, high = audit.mia_interval(0.8, 150, 150)
    assert (low, high) == pytest.approx((0.8 - 2 * audit.Z * s, 0.8 + 2 * audit.Z * s))
    assert audit.mia_interval(0.99, 34, 34)[1] == 1 and all(math.isnan(x) for x in audit.mia_interval(0.0, 34, 34))
    assert audit.mia_interval(0.014, 34, 34)[0] == 0


def test_the_highest_published_attack_scores_are_one_group(data):
    for n, count in ((150, 14), (34, 16)):
        group = audit.together(data, n)
        assert len(group) == count
        assert not any(audit.told_apart(a.mia, b.mia, n, n) for a in group for b in group)
    said = reward._attack_line(data)
    assert "the 14 highest published MIA scores (0.824 to 0.999) are not told apart" in said and "scores 0.95 on average" in said
    assert audit.told_apart(0.999, 0.048, 34, 34)


def test_the_shift_of_zjuklab_is_more_than_chance(data):
    said = membership._transfer(data)
    assert "14 (with 150 texts a side) or 6 (with 34 texts a side) standard errors away" in said


def test_formula_and_bootstrap_agree_on_records():
    ratios = []
    for m in ("twin", "random", "npo", "gradient_difference"):
        for r in records("tiny/synthetic", m).values():
            auc, formula, boot = audit.bootstrapped(r, n=1000)
            assert auc == pytest.approx(r.metrics["attack/auc"], abs=1e-3)  # rows are rounded
            ratios.append(boot / formula)
    assert 0.8 < np.median(ratios) < 1.25
    lost = dataclasses.replace(r, rows=r.rows | {"text_nll": [None] * len(r.rows["text_nll"])})
    assert audit.bootstrapped(lost) is None and audit.sizes(r) == (60, 120)


def test_the_notebook_s_prose_holds_no_number_of_its_own():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    prose = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert set(re.findall(r"\d+\.\d+", prose)) <= {"0.5", "10.1148", "143.1"}  # the formula, and an article's number
