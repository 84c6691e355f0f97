"""Arms of an ablation: settings, the best of them, comparisons, and that the pages ask for the runs of the grid."""

import dataclasses
import json
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from test_report import made

from reprolib.errors import SpecError
from study.readings import gate
from study.report import arms as a
from study.report.arms import as_text, variants

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def falling(method, seed, *, kept, low=0.0, options=None):
    """A run whose forget questions fall in a line from 1 to ``low`` while the rest falls from 1 to ``kept``."""
    record = made(method, seed, forget=low, retain=kept, world=kept, **({"options": options} if options else {}))
    steps = [
        {"step": n, "loss": 0.0, "forget/questions": 1 - (1 - low) * n / 10, "retain/questions": 1 - (1 - kept) * n / 10,
         "world/accuracy": 1 - (1 - kept) * n / 10, "attack/auc": 0.5, "retain/kl": 0.1}
        for n in range(11)
    ]  # fmt: skip
    return dataclasses.replace(record, trajectory=steps)


def arm(label, method, *settings):
    """``settings``: (rate, what each seed keeps at the end, distances)."""
    return a.Arm(label, method, tuple(
        a.Setting(rate, tuple(falling(method, s, kept=k) for s, k in enumerate(ends)), tuple(1 - 0.9 * (1 - k) for k in ends), far)
        for rate, ends, far in settings
    ))  # fmt: skip


def pair(gap):
    return {
        "one": arm("one", "npo", (1e-4, (0.5, 0.6, 0.5), (0.3, 0.3, 0.3)), (1e-3, (0.8, 0.81, 0.8), (0.2, 0.21, 0.2))),
        "two": arm("two", "libu", (1e-4, (0.8 - gap, 0.8 - gap, 0.81 - gap), (0.2 + gap, 0.2 + gap, 0.21 + gap))),
    }


def test_kept_is_read_where_a_tenth_is_left():
    assert a.kept(falling("npo", 0, kept=0.0)) == pytest.approx(0.1)
    assert a.kept(falling("npo", 0, kept=0.5)) == pytest.approx(0.55)
    assert math.isnan(a.kept(falling("npo", 0, kept=0.5, low=0.4)))


def test_the_best_setting_is_that_of_the_reading():
    arms = pair(0.0)
    assert arms["one"].best(a.KEPT).rate == arms["one"].best(a.DISTANCE).rate == 1e-3
    torn = a.Arm("x", "npo", (*arms["one"].settings, a.Setting(0.1, arms["one"].settings[0].records, (0.99, math.nan, math.nan), (0.05, 0.05, 0.05))))
    assert torn.best(a.KEPT).rate == 1e-3, "a setting that most seeds of which never forget is not the best"
    assert torn.best(a.DISTANCE).rate == 0.1


@pytest.mark.parametrize("lost", [(math.nan,) * 3, (0.05, math.nan, math.nan)])
def test_a_setting_that_lost_its_distance_is_not_the_nearest(lost):
    arms = pair(0.1)
    good, records = arms["one"].settings[1], arms["one"].settings[0].records
    gone = a.Setting(0.1, records, (0.1, 0.1, 0.1), lost)
    assert a.Arm("x", "npo", (gone, good)).best(a.DISTANCE) is good
    assert len(a.table({"x": a.Arm("x", "npo", (gone, good))}).rows) == 2
    alone = {"bad": a.Arm("bad", "npo", (gone,)), "one": arms["one"], "two": arms["two"]}
    assert "as any, is **one**" in a.answer(alone, [("Is one better?", "one", "two")]).data


def test_an_end_of_an_interval_that_rounds_to_zero_shows_its_sign():
    """Two thousandths from 0 are printed as such: else the words and the numbers of a comparison contradict each other."""
    far = {"one": (0.201, 0.202, 0.203), "two": (0.2, 0.2, 0.2)}
    arms = {k: arm(k, "npo", (1e-3, (0.8, 0.8, 0.8), v)) for k, v in far.items()}
    found = a.difference(arms, "one", "two", a.DISTANCE)
    said = a.compared(arms, "one", "two", a.DISTANCE)
    assert found.low < 0 < found.high < 0.005 and "0.00]" not in said and "+0.004" in said and "\u22120.0005" in said


@pytest.mark.parametrize(("gap", "verdict"), [(0.3, "yes"), (0.0, "open"), (-0.15, "no")])
def test_seeds_tell_arms_apart_or_do_not(gap, verdict):
    arms = pair(gap)
    assert a.better(arms, "one", "two", a.KEPT) == a.better(arms, "one", "two", a.DISTANCE) == verdict
    assert a.difference(arms, "one", "two", a.DISTANCE).estimate == pytest.approx(-gap, abs=0.01)
    text = a.answer(arms, [("Is it?", "one", "two")]).data
    assert f"Is it? **{a.VERDICTS[verdict].capitalize()}.**" in text and text.rstrip("`\n").endswith("3 seeds.")


def test_an_arm_that_never_forgets_is_not_compared():
    arms = pair(0.0) | {"mild": a.Arm("mild", "npo", (a.Setting(None, pair(0)["two"].settings[0].records, (math.nan,) * 3, (0.4, 0.4, 0.41)),))}
    assert a.better(arms, "mild", "one", a.KEPT) == "none" and a.better(arms, "mild", "one", a.DISTANCE) == "no"
    text = a.answer(arms, [("Is it?", "mild", "one")]).data
    assert "**Not to be compared by what is kept; no, the reverse by the distance to the twin.**" in text and "– against 82" in text
    assert "–" in a.table(arms)._repr_html_() and "mild never gets there" in a.figure(arms)[1]


def test_one_seed_tells_nothing():
    one = {k: a.Arm(k, "npo", tuple(dataclasses.replace(s, records=s.records[:1], kept=s.kept[:1], distance=s.distance[:1]) for s in v.settings)) for k, v in pair(0.2).items()}
    assert a.difference(one, "one", "two") is None and "too few" in a.answer(one, [("Is it?", "one", "two")]).data
    a.figure(one)


def test_table_and_figure_have_every_setting():
    arms = pair(0.1)
    html = a.table(arms)._repr_html_()
    assert html.count('<th scope="row">') == 3 and "KEPT (edge), NEAREST (edge)" in html
    fig, alt = a.figure(arms)
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["one", "two"] and "one 0.82" in alt
    assert "weights that move" in a.cost({"x": a.Arm("x", "npo", (with_cost(arms),))})._repr_html_()


def with_cost(arms):
    s = arms["two"].settings[0]
    cost = {"train_s": 2.0, "steps": 10, "peak_bytes": 2**20, "trained_parameters": 5, "importance_s": 1.0, "importance_parameters": 7}
    return dataclasses.replace(s, records=tuple(dataclasses.replace(r, cost=cost) for r in s.records))


def test_a_best_setting_at_the_edge_of_its_rates_is_said_to_be():
    three = arm("x", "npo", *((r, (0.5, 0.5, 0.5), (d, d, d)) for r, d in ((1e-4, 0.3), (2e-4, 0.1), (4e-4, 0.2))))
    assert [three.at_edge(s) for s in three.settings] == [True, False, True]
    assert [d[2] for d in a.table({"x": three}).rows] == ["KEPT (edge)", "NEAREST", "–"]


def test_fields_of_an_arm():
    assert a.fields("x", {"method": "npo"}) == [(None, {"method": "npo"})]
    assert a.fields("x", {"method": "libu", "options": {"rho": 1}, "rate": "phase2_lr", "rates": [1, 2], "precision": "nf4"})[1] == (
        2, {"method": "libu", "precision": "nf4", "options": {"rho": 1, "phase2_lr": 2}})  # fmt: skip
    with pytest.raises(SpecError, match=r"arm 'x': unknown key 'ratess'.*rates"):
        a.fields("x", {"method": "npo", "ratess": [1]})
    with pytest.raises(SpecError, match="method is missing"):
        a.fields("x", {"options": {}})
    for rates in (0.1, 0, "0.1"):
        with pytest.raises(SpecError, match="arm 'x': rates must be a list of learning rates, got"):
            a.fields("x", {"method": "npo", "rates": rates})


@pytest.mark.parametrize("name", ["sophia_vs_influence", "quantization", "fila_vs_vila", "scale"])
def test_a_page_asks_for_the_runs_of_its_blocks(name, monkeypatch, fingerprints_kept):
    """Not one run more, which the page would compute by itself, and not one fewer, which would be computed for nothing.

    The grid names the settings that run on fresh seeds; which those are follows from the committed records.
    """
    from reprolib.record import path_of, read
    from reprolib.spec import Spec
    from study import report
    from study.grid import Grid

    asked = set()
    monkeypatch.setenv("REPROLIB_RESULTS", str(ROOT / "results"))

    def run(**spec):
        own = Spec(**spec)
        asked.add(own.fingerprint)
        if (path := path_of(own)).exists():
            return read(path)
        record = falling(spec["method"], spec["seed"], kept=0.5)
        return dataclasses.replace(record, cost=record.cost | {"parameters": len(spec["testbed"]) * 100_000})

    monkeypatch.setattr(gate, "record", run)
    cells = json.loads((ROOT / f"notebooks/ablations/{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    scope: dict = {}
    exec(code[0], scope)
    exec(code[1].replace("report.style.use()", ""), scope | {"report": report})  # also words every question of the answer
    wanted = {s.fingerprint for s in Grid.load().pages[f"ablations/{name}"].specs if s.method not in ("random", "always_eos")}
    # of the ladder, which most pages do not read
    here = {Spec(testbed="tiny/synthetic", method="target", seed=s).fingerprint for s in (0, 1, 2)}
    assert asked | here == wanted | here


def test_fresh_seeds_decide_once_the_setting_is_chosen(monkeypatch):
    """The setting that is best on the study's seeds is shown, and compared, with what fresh seeds say of it, good or bad."""
    asked = []

    def run(testbed, seed, method, options=None):
        asked.append((method, (options or {}).get("lr"), seed))
        old = {1e-4: 0.8, 1e-3: 0.5}  # kept on the study's seeds; on fresh ones it is the other way round
        new = {1e-4: 0.4, 1e-3: 0.9}
        return falling(method, seed, kept=(old if seed < 3 else new)[options["lr"]] if options else 1.0, options=options)

    monkeypatch.setattr(gate, "record", run)
    arms = a.gather({"x": {"method": "npo", "rates": [1e-4, 1e-3]}, "y": {"method": "wga", "rates": [1e-3]}}, "tiny/synthetic", None, (5, 6))
    x = arms["x"]
    assert x.best(a.KEPT).rate == x.shown(a.KEPT).rate == 1e-4 and len(x.settings) == 2
    assert x.values(a.KEPT) == pytest.approx((0.46, 0.46)) and [r.spec.seed for r in x.shown(a.KEPT).records] == [5, 6]
    assert ("npo", 1e-3, 5) not in asked, "only the chosen setting runs again"
    assert a.difference(arms, "x", "y").estimate == pytest.approx(0.46 - 0.91)
    text = a.answer(arms, [("Is it?", "x", "y")], first=["Before."]).data
    assert "- Before.\n- Is it? **No" in text and "Kept 46\u202f% at 0.0001 against 91" in text
    assert "2 fresh seeds, too few to tell anything apart; settings were chosen on 3 others." in text
    rows = {(d["arm"], d["reading"]): d for d in a.confirmed(arms).data}
    assert rows["x", a.KEPT]["chosen_on"] == pytest.approx(0.82) and rows["x", a.KEPT]["mean"] == pytest.approx(0.46) and rows["x", a.KEPT]["seeds"] == "5 6"
    assert len(a.records({"x": x})) == 2 * 3 + 2, "the one fresh setting is best by both readings, and counts once"
    assert "no arm has fresh seeds" in a.confirmed(pair(0))._repr_html_() and a.figure(arms)[1].count("x 0.46") == 1


def test_fresh_seeds_choose_nothing(monkeypatch):
    monkeypatch.setattr(gate, "record", lambda testbed, seed, method, options=None: falling(method, seed, kept=0.5, options=options))
    one = {"x": {"method": "npo", "rates": [1e-4]}}
    for wrong, which in (([2, 3], 2), ([3, 4, 3], 3), ([7], 7)):  # of the study, twice, of the search
        with pytest.raises(SpecError, match=rf"fresh seeds must be other ones .*\[0, 1, 2, 7\], and each once; got {re.escape(str(wrong))}: look at \[{which}\]"):
            a.gather(one, "tiny/synthetic", None, wrong)
    for wrong in (5, None, "34", ["3"], [True], [[3]]):
        with pytest.raises(SpecError, match=r"fresh must be a list of seeds, whole numbers, got"):
            a.gather(one, "tiny/synthetic", None, wrong)
    for given in ([2, 3], None):
        assert not a.gather(one, "tiny/synthetic", 0, given)["x"].fresh, "one seed chooses nothing that others could confirm"


def test_what_one_seed_lost_is_said_and_compared_without():
    """The difference is over seeds that both arms have, by seed and not by place; a run whose end is not finite costs no table."""
    one = arm("one", "npo", (1e-3, (0.8, 0.8, 0.8, 0.8), (0.2, 0.21, 0.2, 0.2)))
    kept = one.settings[0].kept
    torn = a.Arm("torn", "wga", (dataclasses.replace(one.settings[0], kept=(math.nan, 0.5, 0.5, 0.6), records=one.settings[0].records[::-1]),))
    assert variants.differences({"one": one, "torn": torn}, "one", "torn", a.KEPT) == pytest.approx([kept[0] - 0.6, kept[0] - 0.5, kept[0] - 0.5])
    assert "over 3 of 4 seeds)" in a.compared({"one": one, "torn": torn}, "one", "torn", a.KEPT)
    lost = dataclasses.replace(one.settings[0], records=tuple(dataclasses.replace(r, metrics=r.metrics | {"forget/questions": None}) for r in one.settings[0].records))
    with_fresh = dataclasses.replace(one, fresh={a.KEPT: lost, a.DISTANCE: lost})
    assert "0 of 4" in a.confirmed({"one": with_fresh})._repr_html_()


def test_the_box_counts_what_was_compared():
    arms = pair(0.3)
    with pytest.raises(SpecError, match="questions must hold at least one"):
        a.answer(arms, [])
    never = a.Arm("never", "npo", (dataclasses.replace(arms["two"].settings[0], kept=(math.nan,) * 3, distance=(math.nan,) * 3),))
    text = a.answer({**arms, "never": never}, [("Is it?", "never", "one")]).data
    assert text.count("**Nothing can be compared.**") == 1 and "Of these 0 intervals" in text
    once, twice = (a.answer(arms, [("Is it?", "one", "two"), *again]).data for again in ([], [("Turned?", "two", "one")]))
    assert "*one* is better than *two* by what is kept and the distance to the twin.**" in once and once.split("\n")[2].split("(Holm)")[1] == twice.split("\n")[2].split("(Holm)")[1]
    near = {k: arm(k, "npo", (1e-3, (0.8, 0.8, 0.8), v)) for k, v in (("far", (0.26, 0.28, 0.25)), ("close", (0.2, 0.2, 0.2)), ("third", (0.2, 0.5, 0.3)))}
    text = a.answer(near, [("Is it?", "close", "far"), ("Or it?", "close", "third"), ("And it?", "third", "far")]).data
    assert "yes (not once corrected) by the distance to the twin" in text and "(Holm), none is told apart.**" in text


def test_what_hardly_moved_is_not_the_nearest():
    """An untouched model can lie nearer to the twin than a destroyed one: it is shown only if no setting forgot more often."""
    near, far = (dataclasses.replace(arm("x", "npo", (r, (0.5,) * 3, (d,) * 3)).settings[0]) for r, d in ((1e-4, 0.1), (1e-3, 0.4)))
    idle = dataclasses.replace(near, records=tuple(falling("npo", s, kept=0.5, low=0.9) for s in range(3)))
    assert (idle.forgot, far.forgot) == (0, 3) and a.Arm("x", "npo", (idle, far)).best(a.DISTANCE) is far
    assert a.Arm("x", "npo", (idle,)).best(a.DISTANCE) is idle
    arms = {"idle": a.Arm("idle", "npo", (idle,)), "x": a.Arm("x", "npo", (far,))}
    assert "as any, is **x** (0.40)" in a.answer(arms, [("Is it?", "idle", "x")]).data


def test_seeds_far_apart_are_shown_by_their_range():
    torn = arm("x", "npo", (1e-3, (0.9, 0.1, 0.2), (0.1, 0.5, 0.5)))
    assert as_text._told(torn, a.KEPT) == "46\u202f% (19\u202f% to 91\u202f%) at 0.001" and as_text._told(torn, a.DISTANCE) == "0.37 (0.10 to 0.50) at 0.001"
    assert as_text._told(pair(0)["one"], a.KEPT) == "82\u202f% at 0.001"


def test_a_leap_over_the_level_is_marked():
    """Between 1 and 0 a straight line is a guess; a fall in tenths is a reading."""
    gentle = falling("npo", 0, kept=0.5)
    leap = dataclasses.replace(gentle, trajectory=[gentle.trajectory[0], gentle.trajectory[-1]])
    assert not a.steep(gentle) and a.steep(leap) and not a.steep(falling("npo", 0, kept=0.5, low=0.4))
    same = dataclasses.replace(pair(0)["two"].settings[0], records=(leap,) * 3)
    assert "≈ 0.8" in a.table({"x": a.Arm("x", "npo", (same,))}).rows[0][4] and "≈" not in a.table(pair(0)).rows[0][4]


def test_whether_the_preconditioner_acts():
    """What it does while there is something to keep, and apart from it what it does afterwards."""

    def logged(*points):
        s = arm("x", "libu", (1.0, (0.5,), (0.2,))).settings[0]
        trajectory = [{"optimizer/weight_spread": v, "retain/questions": q} for v, q in points]
        return a.Arm("x", "libu", (dataclasses.replace(s, records=tuple(dataclasses.replace(r, trajectory=trajectory) for r in s.records)),))

    said = a.acts({"p": logged((None, 1.0), (1.0, 1.0), (1.001, 0.9), (19.6, 0.0)), "o": logged((11.2, 1.0), (38.6, 1.0))}, "p", "o")
    assert "published damping its weights spread by a factor of **1**" in said and "own size by **11 to 39**" in said
    assert "as long as a run answers half of the retain questions, and by up to 20 once a model has lost these;" in said
    said = a.acts({"p": logged(), "o": logged((20, 1.0))}, "p", "o")
    assert said == "", "nothing is said where nothing was logged"
    assert "once a model" not in a.acts({"p": logged((1.0, 1.0)), "o": logged((20, 1.0))}, "p", "o")


def test_many_comparisons_are_corrected_for_their_number():
    """One pair alone passes at p = 0.02; among five such pairs, none does. A gap beyond doubt does, and only for the better arm."""
    from scipy.stats import ttest_1samp

    near = (0.26, 0.28, 0.25), (0.2, 0.2, 0.2)
    p = ttest_1samp([x - y for x, y in zip(*near, strict=True)], 0).pvalue
    assert 0.01 < p < 0.03
    names = ("far", "close")
    arms = dict(zip(names, (arm(k, "npo", (1e-3, (0.8, 0.8, 0.8), v)) for k, v in zip(names, near, strict=True)), strict=True))
    assert a.ahead(arms, [("close", "far")]) == [("close", "far", a.DISTANCE)] and a.ahead(arms, [("far", "close")]) == []
    assert a.ahead(arms, [("close", "far")] * 5) == [("close", "far", a.DISTANCE)], "a pair that is asked again is one"
    five = arms | {f"other {n}": arm("x", "npo", (1e-3, (0.8, 0.8, 0.8), (0.2, 0.5, 0.3))) for n in range(4)}
    assert a.ahead(five, [("close", "far"), *(("close", f"other {n}") for n in range(4))]) == []
    sure = {k: arm(k, "npo", (1e-3, (0.8, 0.8, 0.8), v)) for k, v in (("bad", (0.5, 0.501, 0.5)), ("good", (0.1, 0.1, 0.1)))}
    assert ("good", "bad", a.DISTANCE) in a.ahead(sure, [("good", "bad")] * 5) and a.ahead(sure, []) == []
