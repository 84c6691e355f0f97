"""The front of methods, advice by constraint, sizes of models, and the status page."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
from test_report import made, study
from test_report_arms import arm

from reprolib.spec import Spec
from study.grid import Grid
from study.report import advice, scale, status


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def test_the_front_is_what_nothing_beats():
    points = {"a": (0.1, 0.5), "b": (0.2, 0.1), "c": (0.3, 0.3), "d": (0.2, 0.1), "e": (0.4, 0.05)}
    assert advice.front(points) == ["a", "b", "d", "e"]  # equal points do not beat each other
    assert advice.front({"x": (0.0, 0.0)}) == ["x"] and advice.front({}) == []


def test_the_two_axes_are_the_two_halves_of_the_distance():
    from study.readings import twin

    s = study()
    for m in s:
        left, lost = advice.off(s, m, advice.FORGET), advice.off(s, m, advice.KEEP)
        for a, b, d in zip(left, lost, twin.by_seed(s, m).values(), strict=True):
            assert 0.6 * a + 0.4 * b == pytest.approx(d)
    assert advice.points(s)["twin"] == (0, 0)


def test_advice_keeps_the_order_of_the_leaderboard_and_says_when_there_is_none():
    s = study()
    found = advice.cases(s, {"twin": s["twin"]})
    own = {c.situation: [e.method for e in c.methods] for c in found}
    assert not own["There are no retain rows"] or "npo" not in own["There are no retain rows"]
    assert all(e.group == "all" for c in found for e in c.methods if c.situation.startswith("Forget and retain"))
    assert "Not measured here." in [c.beware for c in found]
    text = advice.answer(s, found).data
    assert "none of those measured" in text and "3 seeds" in text
    html = advice.table(found)._repr_html_()
    assert html.count('<th scope="row">') == len(found)
    _, alt = advice.chart(s)
    assert "On the front" in alt and "NPO" in alt


def test_adapters_are_told_by_what_is_trained():
    assert advice._adapters("loku") and advice._adapters("agad")
    assert not advice._adapters("npo") and not advice._adapters("prompt_routing")


def sizes():
    def size(bed, parameters):
        s = {m: records for m, records in study().items() if m not in ("random", "always_eos")}
        s["target"] = [dataclasses.replace(r, cost={"parameters": parameters}) for r in s["target"]]
        both = {"all weights": arm("all weights", "npo", (1e-4, (0.5, 0.6, 0.5), (0.3, 0.3, 0.3)), (1e-3, (0.8, 0.8, 0.8), (0.2, 0.2, 0.2))),
                "adapter": arm("adapter", "npo", (1e-4, (0.9, 0.9, 0.9), (0.4, 0.4, 0.4)), (1e-3, (0.7, 0.7, 0.7), (0.3, 0.3, 0.3)))}  # fmt: skip
        return scale.Size(bed, both, s)

    return [size("smoke/synthetic", 600_000), size("tiny/synthetic", 1_300_000)]


def test_sizes_are_compared_under_names_of_their_own():
    both = sizes()
    more = {"other": arm("other", "npo", (1e-4, (0.5, 0.6, 0.5), (0.3, 0.3, 0.3)), (1e-3, (0.8, 0.8, 0.8), (0.2, 0.2, 0.2)))}
    assert list(scale.joined(both, more)) == ["all weights, 0.6\u202fM", "adapter, 0.6\u202fM", "all weights, 1.3\u202fM", "adapter, 1.3\u202fM", "other"]
    rate, order = scale.lines(both, 1e-3, more, both[1].label)
    assert "At one rate for all, 0.001" in rate and "All weights: 0\u202f%, 0\u202f%" in rate and "other: 0\u202f%" in rate
    assert "Kendall's tau from one size to the next is 1.00" in order and order.endswith("neighbouring sizes: none.")
    fig, alt = scale.rates(both)
    assert len(fig.axes) == 2 and "learning rates 0.0001, 0.001" in alt and "adapter, retain and world: 0.90, 0.70" in alt
    assert scale.order(both)._repr_html_().count('<th scope="row">') == len(both[0].study) - 2


def test_a_rate_is_told_with_its_range_over_seeds():
    assert scale.told((0.2, 0.5, 0.8)) == "50\u202f% (20 to 80)" and scale.told((0.5, 0.5)) == "50\u202f%"


def test_a_command_says_what_differs_from_the_defaults():
    plain = Spec(testbed="tiny/synthetic", method="npo", seed=0)
    assert status.command(plain) == "python -m reprolib run npo --testbed tiny/synthetic --seed 0"
    other = Spec(testbed="tiny/synthetic", method="loku", seed=1, options={"centred": True, "lr": 1e-3, "rows": "uniform"}, forget_documents=0.5)
    assert status.command(other) == (
        "python -m reprolib run loku --testbed tiny/synthetic --seed 1 --forget-documents 0.5 -o centred=true -o lr=0.001 -o rows=uniform"
    )


@pytest.mark.parametrize("block", ["methods", "requests", "wide", "fila-vila", "quantization", "size-rows", "meta"])
def test_the_command_of_a_run_means_that_run(block, monkeypatch):
    import shlex

    from reprolib import __main__ as main
    from reprolib import experiment

    meant = []
    monkeypatch.setattr(experiment, "run", lambda spec: meant.append(spec) or made("npo", 0, forget=0.0, retain=1.0))
    for spec in Grid.load().blocks[block][:40]:
        main.main(shlex.split(status.command(spec))[3:])
        assert meant.pop().fingerprint == spec.fingerprint


def test_the_matrix_links_pages_that_exist(fingerprints_kept):
    html = status.matrix()._repr_html_()
    assert "../ablations/forget_set_size.html" in html and "results/records/tiny/synthetic/npo" in html
    assert "python -m reprolib run npo --testbed tiny/synthetic --seed 0</code>" in html
    assert "Hours are those of one core" in status.counts().data
    assert "| methods |" in status.counts().data and "| npo on tiny/synthetic | 0 |" in status.runs().data
