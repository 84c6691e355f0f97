"""The metrics page: every card is on it, every number of a record is explained by it, and what it says in words holds."""

import functools
import html
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from reprolib.errors import SpecError
from reprolib.metrics import CARDS
from study.readings import names
from study.readings.names import (
    COLUMNS,
    KEYS,
    OTHERS,
    RECORDS,
    SUITES,
    cards,
    expand,
    fits,
    groups,
    measured,
    parts,
    resolve,
)
from study.report.metrics import CITED, anchor, answer, cited, costs, counts, escape, extent, filters, table

pytestmark = pytest.mark.usefixtures("brief")
ROOT = Path(__file__).resolve().parent.parent


NOTEBOOK = ROOT / "notebooks" / "synthesis" / "metrics.ipynb"


LABELS = {"group", "task", "kind", "document", "given", "request"}  # columns that say which row it is


# patterns that need another corpus or method than the record below, or a model that knows something
RARE = {"tofu/model_utility", "routing/sent_*", "routing/auc_*", "routing/accuracy_*", "prompts/informative"}


@functools.cache
def record(suite: str, method: str = "target"):
    """Made once: the models stay cached, the record is at hand."""
    import reprolib

    return reprolib.run(testbed="test/synthetic", method=method, suite=suite, progress=False)


def parts_of(name: str, suite: str) -> list[str]:
    """Parts that a metric or a column may come from."""
    if suite == "core":
        return ["teacher-forced", "generation"]
    beginning = name.split("/")[0]
    return [beginning] if "/" in name else [p.name for p in parts().values() if p.suite == suite]


def resolved(name: str, suite: str) -> list[str]:
    return [c for part in parts_of(name, suite) for c in resolve(name, part)]


# --- every card is shown --------------------------------------------------------------------------------------


def test_every_card_of_the_package_is_rendered_with_all_that_it_says():
    for group, of in groups().items():
        text = table(group).data
        assert text.count("\n* - (metric-") == len(of), group
        for name, card in of.items():
            row = text.split(f"(metric-{name})=")[1].split("\n* - ")[0]
            arrow = card.arrow.replace(" ", "\u00a0")
            for said in (f"**{escape(card.label)}** {arrow}", f"`{name}`", extent(card), escape(card.trap)):
                assert (said if said != extent(card) else escape(said)) in row, (name, said)
            assert cited(card.source) in row
            first, names = measured(name)[0]
            assert escape(first.cost) in row and names[0].removeprefix("column ").removeprefix("records ") in row
    assert set(CARDS) <= set(cards())
    assert len(cards()) == sum(len(g) for g in groups().values())  # no name twice


def test_the_notebook_shows_every_group_under_a_heading_with_a_sentence():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = {}
    for before, cell in itertools.pairwise(cells):
        found = re.fullmatch(r'cards\.table\("(\w+)", suite\)', "".join(cell["source"]))
        if found:
            heading, sentence = "".join(before["source"]).split("\n\n")
            shown[found[1]] = heading
            assert heading.startswith("## ") and sentence.endswith("."), found[1]
    assert set(shown) == set(groups())
    assert len(set(shown.values())) == len(shown)


def test_rows_can_be_linked_to():
    anchors = [anchor(c) for c in cards()]
    assert len(set(anchors)) == len(anchors) and anchor("min_k") == "metric-min-k"
    nodes = pytest.importorskip("docutils.nodes")
    assert all(anchor(c) == nodes.make_id(f"metric-{c}") for c in cards())  # what Sphinx makes of the target


def test_cards_come_through_markdown_as_they_are():
    parser = pytest.importorskip("markdown_it").MarkdownIt()
    for card in cards().values():
        for text in (card.label, card.trap, card.unit, card.source):
            assert html.unescape(parser.renderInline(escape(text))) == text


def test_narrowing_by_suite_loses_nothing():
    for group, of in groups().items():
        shown = "".join(table(group, s).data for s in SUITES)
        assert shown.count("(metric-") == len(of)
    assert "None of them" in table("meta", "core").data
    with pytest.raises(SpecError, match="did you mean 'core'"):
        table("tofu", "cor")
    with pytest.raises(SpecError, match="did you mean 'tofu'"):
        table("tofuu")


def test_the_filter_knows_every_suite_and_every_arrow():
    form = filters().data
    assert all(f'<option value="{s}">' in form for s in SUITES)
    for card in cards().values():
        assert sum(f'value="{w}"' in form and w in card.arrow for w in ("↑", "↓", "→", "±")) == 1
    assert "hidden>" in form  # shown by the script only


def test_the_book_loads_the_script_that_shows_the_filter():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    assert "metrics.css" in config["html_css_files"] and "metrics.js" in config["html_js_files"]
    script = (ROOT / "book" / "_static" / "metrics.js").read_text(encoding="utf-8")
    form = filters().data
    assert 'class="metric-filter"' in form and 'querySelector(".metric-filter")' in script
    for name in ("words", "way", "where"):
        assert f'name="{name}"' in form and f'"{name}"' in script
    assert f"({'|'.join(SUITES)})(?=:)" in script


# --- every number is explained --------------------------------------------------------------------------------


def test_every_metric_of_a_record_has_one_card_or_is_declared_as_none(test_preset):
    for suite in ("core", "wide", "stress"):
        for name in record(suite).metrics:
            assert len(resolved(name, suite)) == 1, f"{suite}: {name} -> {resolved(name, suite)}; see study/readings/names.py"
    for name in record("core", "prompt_routing").metrics:
        assert len(resolved(name, "core")) == 1, name


def test_every_column_of_a_record_is_explained(test_preset):
    for suite in ("core", "wide", "stress"):
        for name in set(record(suite).rows) - LABELS:
            assert resolved(name, suite), f"{suite}: column {name}"


def test_nothing_is_declared_that_no_record_holds(test_preset):
    there = {s: [*record(s).metrics, *record(s).rows] for s in ("core", "wide", "stress")}
    for part in parts().values():
        if part.suite not in there:
            continue
        declared = {**KEYS.get(part.name, {}), **COLUMNS.get(part.name, {}), **OTHERS.get(part.name, {})}
        for pattern in (p for d in declared for p in expand(d)):
            if pattern not in RARE:
                assert any(fits(name, pattern) for name in there[part.suite]), f"{part.name}: {pattern}"


def test_a_column_means_what_its_metric_means(test_preset):
    """Two that can be recomputed from the columns alone: the mean of a column is the metric that the same card explains."""
    r = record("wide")
    column = lambda name, g: [v for v, k in zip(r.rows[name], r.rows["group"], strict=True) if k == g and v is not None]  # noqa: E731
    assert np.mean(column("muse_verbmem", "forget")) == pytest.approx(r.metrics["muse/verbmem"], abs=1e-3)
    assert np.mean(column("repetition", "retain")) == pytest.approx(r.metrics["fluency/retain/repetition"], abs=1e-3)
    assert resolve("muse_verbmem", "muse")[0] == resolve("muse/verbmem", "muse")[0] == "verbmem"


def test_the_report_of_an_evaluation_shows_no_other_card(test_preset):
    """`reprolib evaluate` guesses cards from names: it may miss one, but must not show another one."""
    from reprolib.assess.report import describe

    for suite in ("core", "wide", "stress"):
        for name in record(suite).metrics:
            guessed = describe(name)[0]
            if guessed is not None and not name.endswith("questions_em"):
                assert guessed.name in resolved(name, suite), f"{name}: {guessed.name}, not {resolved(name, suite)}"


def test_mmlu_and_harness_names_are_explained():
    from reprolib.probes import mmlu

    p, answers = np.eye(4)[[0, 1, 2, 3]], np.array([0, 1, 2, 0])
    found = mmlu._evaluation(p, answers, np.array(["a", "a", "b", "b"]), np.zeros(4, int), np.zeros(4, bool), 0)
    for name in found.metrics:
        assert len(resolve(name, "mmlu")) == 1, name
    assert resolve("harness/wmdp_bio/acc", "harness") == ["harness"]


def test_every_card_is_measured_somewhere_and_every_declared_card_exists():
    known = cards()
    for name in known:
        assert measured(name), name
    declared = [c for of in KEYS.values() for c in of.values()]
    declared += [c for of in COLUMNS.values() for cs in of.values() for c in cs] + list(RECORDS)
    assert set(declared) <= set(known)
    assert not set(RECORDS) & {c for of in KEYS.values() for c in of.values()}
    assert {*KEYS, *COLUMNS, *OTHERS} <= set(parts())


# --- sources --------------------------------------------------------------------------------------------------


def bibliography() -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", (ROOT / "references.bib").read_text(encoding="utf-8"), re.M)


def test_every_paper_on_a_card_is_in_the_bibliography():
    keys = bibliography()
    assert len(set(keys)) == len(keys)
    assert set(CITED.values()) <= set(keys)
    for name, card in cards().items():
        for paper in re.findall(r"(?:[A-Z]\w+(?: et al\.| and [A-Z]\w+)? \d{4})", card.source):
            if paper not in ("Dec 2024",):
                assert paper in CITED, f"{name}: {paper} has no key"
    used = {c for card in cards().values() for c in CITED if c in card.source}
    assert used == set(CITED)


def test_a_key_stands_for_the_year_and_the_first_author_that_the_card_names():
    text = (ROOT / "references.bib").read_text(encoding="utf-8")
    for name, key in CITED.items():
        entry = next(line for line in text.splitlines() if re.match(rf"@\w+\{{{key},", line))
        author, year = re.search(r"author=\{([^,]+)", entry)[1], re.search(r"year=\{(\d+)", entry)[1]
        assert name.split()[0] == author and (not name[-1].isdigit() or name.endswith(year)), f"{name}: {key}"


# --- what the page and the book say ---------------------------------------------------------------------------


def test_the_answer_counts_what_there_is(tmp_path):
    said = answer().data
    every = cards()
    n = counts()
    assert sum(n.values()) == len(every)
    assert f"{len(every)} metrics have a card. {n['core']} come with every run" in said
    own = {name: c for name, c in every.items() if not name.startswith("mmlu/") and name != "harness"}
    assert f"for {sum(c.better == 'twin' for c in own.values())} of {len(own)} neither high nor low is good" in said
    for s in ("core", "wide", "stress", "data", "records"):
        assert n[s] == sum(measured(c)[0][0].suite == s for c in every)
    assert "In time" not in said  # nothing was timed in this results folder
    assert "They have not been measured here" in costs().data


def test_times_come_from_the_benchmark(tmp_path):
    r = {"median": 2.5, "low": 2.0, "high": 3.0, "rounds": 5}
    timed = {
        "machine": {"threads": 1}, "settings": {"method": "npo", "testbed": "tiny/synthetic", "rounds": 5},
        "parts": {"tofu": {"ratio": r, "shares": ["generation"], "suite": "wide"}, "token statistics": {"ratio": r}},
        "suites": {"wide": r, "stress": {"median": 22.0, "low": 20.0, "high": 25.0}},
    }  # fmt: skip
    folder = tmp_path / "results" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "probes.json").write_text(json.dumps(timed))
    assert "suite *wide* takes 2.50 [2.00, 3.00] and suite *stress* 22.0 [20.0, 25.0] times as long" in answer().data
    row = costs().data.split("(part-tofu)=")[1].split("\n* - ")[0]
    assert "2.50 [2.00, 3.00]" in row


def test_costs_name_every_probe_with_the_cost_on_its_card():
    from reprolib.probes import probes

    text = costs().data
    for probe in probes().values():
        row = text.split(f"(part-{probe.name})=")[1].split("\n* - ")[0]
        assert escape(probe.cost) in row and f"  - {probe.suite}\n" in row


def test_the_committed_benchmark_is_what_the_readme_and_the_page_say():
    timed = json.loads((ROOT / "results" / "benchmarks" / "probes.json").read_text(encoding="utf-8"))
    from reprolib.probes import suite

    readme = (ROOT / "study" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name, e in timed["parts"].items():
        if name != "core evaluation":
            line = next(x for x in readme.splitlines() if x.startswith(f"| {name} |"))
            assert f"{e['ratio']['median']:.2f}x [{e['ratio']['low']:.2f}, {e['ratio']['high']:.2f}]" in line, name
    for s, r in timed["suites"].items():
        line = next(x for x in readme.splitlines() if x.startswith(f"| suite {s} |"))
        assert f"{r['median']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]" in line
        assert {p.name for p in suite(s)} == {n for n, e in timed["parts"].items() if e.get("suite") == s}


def test_the_suites_are_what_reading_the_numbers_says(monkeypatch):
    from reprolib.places import results_dir
    from reprolib.probes import suite
    from reprolib.record import path_of
    from reprolib.spec import Spec

    page = (ROOT / "book" / "reading_the_numbers.md").read_text(encoding="utf-8")
    section = page.split("## Core, wide, stress")[1].split("\n## ")[0]
    assert "{doc}`/results/notebooks/synthesis/metrics`" in section
    assert {p.name for p in suite("wide")} == {"attacks", "tofu", "muse", "fluency"}
    assert {p.name for p in suite("stress")} == {"relearning", "quantization", "prompts"}
    for s in ("wide", "stress"):
        assert f"`results/{s}`" in section
        assert path_of(Spec(suite=s)).is_relative_to(results_dir() / s)
    assert path_of(Spec()).is_relative_to(results_dir() / "records") and "`results/records`" in section
    # the unlearned model is one and the same: a suite changes the record, not the run
    assert Spec(suite="wide").core == Spec(suite="stress").core == Spec()
    from reprolib.probes import prompts, quantization, relearning

    assert f"{max(relearning.STEPS)} steps" in section and f"{prompts.SAMPLES} samples" in section
    assert quantization.PRECISIONS == ("int8", "nf4") and "8 and 4 bits" in section
    assert relearning.SHARE == 0.1 and "a tenth of the forget documents" in section


def test_wide_has_as_many_attacks_as_reading_the_numbers_says(test_preset):
    found = [k for k in record("wide").metrics if re.fullmatch(r"attacks/\w+/auc", k)]
    assert len(found) == 6
    assert "six membership attacks" in " ".join((ROOT / "book" / "reading_the_numbers.md").read_text(encoding="utf-8").split())


def test_wide_and_stress_are_asked_of_the_ladder_and_of_some_methods():
    from study.grid import Grid
    from study.readings.quantities import LADDER

    blocks = Grid.load().blocks
    for name in ("wide", "stress"):
        assert {s.suite for s in blocks[name]} == {name}
        asked = {s.method for s in blocks[name]}
        assert set(LADDER) < asked < set(LADDER) | {s.method for s in blocks["methods"]}


def test_everything_above_the_suites_is_read_from_core_records():
    from study.readings.twin import FOUR

    above = ("*/questions", "attack/auc", "world/accuracy", "retain/kl")
    assert set(above) <= set(KEYS["teacher-forced"])
    assert all(any(fits(name, p) for p in above) for name in FOUR.values())
    assert names.suite("rouge_l_recall") == "core"
