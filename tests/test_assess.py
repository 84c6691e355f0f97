"""`reprolib evaluate`: a checkpoint on disk, scored part by part, killed and continued, refused where it must be."""

import html.parser
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, small_corpus, tiny_lm

import reprolib.__main__ as command_line
from reprolib import probes
from reprolib.assess import page, report
from reprolib.assess.checkpoint import load_model, load_tokenizer, locate
from reprolib.assess.parts import core_part, wanted_parts
from reprolib.assess.result import Assessment
from reprolib.assess.run import _slug, assess
from reprolib.corpus import lume
from reprolib.corpus.files import VARIABLE
from reprolib.corpus.mmlu import HEADER, SUBJECTS
from reprolib.corpus.read import _nonmember, read
from reprolib.corpus.rows import Corpus
from reprolib.errors import CorpusError, SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.semeval import final
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.evaluate.summary import evaluate
from reprolib.metrics import privacy
from reprolib.probes.base import Probe

pytestmark = pytest.mark.usefixtures("one_thread")


SECRET = "Zebulon Quist"  # a name of the data that must stand in no file


def row(side, task, n, kind):
    key = f"{side[0]}{task[-1]}{n:02d}"
    mark = f'"{key}"' if task == "Task1" else key
    name = f"{SECRET} {task}" if (side, n) == ("forget", 0) else f"{key.upper()} Marlow"
    if kind == "sc":
        return {"id": f"{mark}sc1", "input": f"{name} was born in", "output": f"Delft, and lived by the river {n}.", "task": task}
    return {"id": f"{mark}qa0", "input": f"Where was {name} born?", "output": "Delft", "task": task}


def data_folder(folder, documents=3, nonmembers=4):
    """A small release: in the SemEval layout with lists of the attack, or LUME's if there are no non-members."""
    rows = {s: [row(s, t, n, k) for t in lume.TASKS for n in range(documents) for k in ("sc", "qa")] for s in lume.SIDES}
    folder.mkdir(parents=True)
    if not nonmembers:
        for side, own in rows.items():
            (folder / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in own))
        return folder
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "data").mkdir()
    (folder / "mia_data").mkdir()
    for side, own in rows.items():
        table = pyarrow.Table.from_pylist([{**r, "split": side} for r in own])
        parquet.write_table(table, folder / "data" / f"{side}_train-00000-of-00001.parquet")
    members = [f"{r['input']}  {r['output']}" for r in rows["forget"] if r["task"] == "Task3" and "sc" in r["id"]]
    others = [f"N3{n:02d} Marlow was born in Hull, and lived by the {w} {n}." for n, w in enumerate(("river", "sea", "old mill", "road")[:nonmembers])]
    for name, texts in (("member", members), ("nonmember", others)):
        lines = [json.dumps({"id": str(i), "document": t}) + "\n" for i, t in enumerate(texts)]
        (folder / "mia_data" / f"{name}.jsonl").write_text("".join(lines))
    return folder


def mmlu_folder(folder):
    for split, count in (("dev", 5), ("test", 2)):
        (folder / split).mkdir(parents=True)
        for n, subject in enumerate(SUBJECTS):
            lines = [",".join(HEADER), *(f"What of {subject} {i}?,mill,owl,salt,rye,{(n + i) % 4}" for i in range(count))]
            (folder / split / f"{subject}_{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def checkpoint(folder, seed=0, **config):
    lm = tiny_lm(seed)
    for name, value in config.items():
        setattr(lm.config, name, value)
    lm.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    base = tmp_path_factory.mktemp("assess")
    for n, name in enumerate(("model", "target", "twin")):
        checkpoint(base / name, n)
    data_folder(base / "data")
    mmlu_folder(base / "mmlu")
    return base


def fake(name, suite="wide", metrics=None, rows=None, needs=(), calls=None, error=None):
    def ask(subject):
        if calls is not None:
            calls.append((subject.title, name))
        if error is not None:
            raise error
        return Evaluation(metrics or {f"{name}/auc": 0.5}, rows or {f"{name}_nll": subject.column(subject.scores.nll)})

    return Probe(name=name, title=name.title(), suite=suite, cost="one pass", ask=ask, needs=needs)


@pytest.fixture
def only_fakes(monkeypatch):
    """Replace the probes of the package, so that these tests do not hang on them."""

    def use(*chosen):
        monkeypatch.setattr(probes, "probes", lambda: {p.name: p for p in chosen})

    use(fake("alpha"), fake("beta", "stress"))
    return use


def run(place, out, **fields):
    fields = {"max_new_tokens": 6, "progress": False, "output": out, "model": place / "model", "data": place / "data"} | fields
    return assess(**fields)


@pytest.fixture(scope="module")
def full(place, tmp_path_factory):
    """One evaluation with everything: core, a wide part, MMLU, target and twin."""
    out = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("REPROLIB_DEVICE", "cpu")
        m.setattr(probes, "probes", lambda: {"alpha": fake("alpha")})
        found = run(place, out, target=place / "target", twin=place / "twin", mmlu=place / "mmlu", mmlu_per_subject=1)
    return found, out


# --- numbers -------------------------------------------------------------------------------------------------


def test_core_gives_what_evaluate_gives(tokenizer):
    corpus, lm, target = small_corpus(), tiny_lm(), tiny_lm(1)
    subject = Subject(
        lm, Examination.of(corpus, tokenizer), max_new_tokens=256, batch_tokens=8192, reference={"target": target}.get, progress=False
    )  # fmt: skip
    # tasks of this corpus hold both kinds, so that the official score exists
    expected = evaluate(lm, Examination.of(corpus, tokenizer, target), progress=False)
    found = core_part().ask(subject)
    assert expected.metrics["retain/kl"] > 0 and "lume/final" in expected.metrics
    assert {k: found.metrics[k] for k in expected.metrics} == pytest.approx(expected.metrics, abs=1e-6)
    assert set(found.metrics) - set(expected.metrics) == {f"{g}/{k}/score" for g in ("forget", "retain") for k in ("sc", "qa")}
    assert set(found.rows) == set(expected.rows)
    for name, column in expected.rows.items():
        assert found.rows[name] == pytest.approx(column, abs=2e-4) if name in ("score", "nll", "text_nll") else column, name
    passages = [v for g, k, v in zip(*(expected.rows[c] for c in ("group", "kind", "score"))) if (g, k) == ("forget", "sc")]
    assert found.metrics["forget/sc/score"] == pytest.approx(np.mean(passages), abs=1e-4)


def test_limits_change_batches_but_not_scores(tokenizer):
    def ask(limit, batch):
        subject = Subject(
            tiny_lm(), Examination.of(small_corpus(), tokenizer), max_new_tokens=limit, batch_tokens=batch, progress=False
        )
        return core_part().ask(subject), subject.generations

    (large, texts), (small, same) = ask(5, 8192), ask(5, 1)
    assert same == texts and small.metrics == pytest.approx(large.metrics, abs=1e-5)
    assert max(len(t) for g in texts.values() for t in g) <= 5
    assert ask(2, 8192)[1] != texts


def test_a_corpus_without_passages_has_no_official_score_and_no_attack(tokenizer):
    corpus = small_corpus()
    questions = {g: tuple(r for r in rows if r.kind == "qa") for g, rows in corpus.groups.items()}
    bare = Corpus("bare", questions | {"holdout": (), "world": ()})
    subject = Subject(tiny_lm(), Examination.of(bare, tokenizer), max_new_tokens=4, batch_tokens=512, progress=False)
    found = core_part().ask(subject)
    assert "forget/qa/score" in found.metrics and "forget/nll" in found.metrics
    assert not [k for k in found.metrics if k.startswith(("lume/", "attack/", "world/", "official/"))]
    assert {len(c) for c in found.rows.values()} == {len(subject.rows)}


def test_the_official_attack_reads_the_two_lists_of_the_release(full, place):
    found, _ = full
    corpus = read(place / "data")
    assert corpus.name == "semeval" and len(corpus["holdout"]) == 4
    assert {i[:2] for i in corpus.facts["members"]} == {"f3"} and len(corpus.facts["members"]) == 3
    rows = found.results["model"]["core"].rows
    nll = {g: [v for a, t, v in zip(rows["group"], rows["task"], rows["text_nll"]) if a == g and t == "Task3" and v is not None]
           for g in ("forget", "holdout")}  # fmt: skip
    auc = privacy.auc(-np.array(nll["forget"]), -np.array(nll["holdout"]))
    m = found.metrics()
    assert m["official/mia_auc"] == pytest.approx(auc) and m["official/mia"] == pytest.approx(1 - 2 * abs(auc - 0.5))
    assert m["official/mmlu"] == m["mmlu/accuracy_questions"] and m["official/eligible"] == float(m["official/mmlu"] >= 0.371)
    assert m["official/final"] == pytest.approx((m["lume/task_aggregate"] + m["official/mia"] + m["official/mmlu"]) / 3)
    assert m["attack/auc"] != m["official/mia_auc"]  # its members are the passages of all tasks


def test_final_gives_only_what_can_be_had():
    core = {"lume/task_aggregate": 0.5, "official/mia": 0.9, "official/mia_auc": 0.45}
    mmlu = {"mmlu/accuracy_questions": 0.4, "mmlu/eligible": 1.0}
    assert final(core, mmlu)["official/final"] == pytest.approx(0.6)
    assert set(final(core, {})) == {"official/task_aggregate", "official/mia", "official/mia_auc"}
    assert final({"lume/task_aggregate": 0.5}, mmlu) == final({}, {}) == {}


def test_gap_closed_lies_between_target_and_twin(full):
    found, _ = full
    tables = [found.metrics(r) for r in ("model", "target", "twin")]
    model, target, twin = (t["forget/nll"] for t in tables)
    assert found.gap("forget/nll") == pytest.approx((model - target) / (twin - target))
    assert math.isnan(found.gap("forget/nll", noise=10)) and math.isnan(found.gap("absent"))
    assert tables[1]["retain/kl"] == pytest.approx(0, abs=1e-6) and tables[2]["retain/kl"] > 0.01


# --- the data ------------------------------------------------------------------------------------------------


def test_a_nonmember_is_cut_where_the_tokenizer_joins_it_again(tokenizer):
    for text in ("Station 3 lies on the old line.", "one two", "a\n\nb c", "  lead and trail  ", "double  space only  here"):
        r = _nonmember(text, 0)
        assert r.text.strip() == text.strip() and not r.input.endswith(" ") and not r.output.startswith(" ")
    assert _nonmember("unbroken", 1).input == "" and _nonmember("unbroken", 1).output == "unbroken"


def test_data_layouts(place, tmp_path):
    plain = read(data_folder(tmp_path / "lume", nonmembers=0))
    assert plain.name == "lume" and not plain["holdout"] and len(plain["forget"]) == 18
    both = tmp_path / "both"
    shutil.copytree(tmp_path / "lume", both / "lume")
    shutil.copytree(place / "data", both / "semeval25-unlearning-data")
    assert read(both).name == "lume" and read(both, "semeval").name == "semeval"
    small = read(place / "data", documents=1)
    assert len(small.documents("forget")) == 3 and len(small["holdout"]) == 1
    assert set(small["forget"]) <= set(read(place / "data", documents=2)["forget"])
    (tmp_path / "lume" / "retain.jsonl").write_text(
        "".join(x for x in (tmp_path / "lume" / "retain.jsonl").read_text().splitlines(True) if "Task3" not in x)
    )
    assert read(tmp_path / "lume").tasks == ("Task1", "Task2")  # those that both sides have


@pytest.mark.parametrize(
    "name, fields, words",
    [
        ("empty", {}, "holds no forget and retain rows"),
        ("absent", {}, "neither a folder nor a hub id"),
        ("data", {"format": "lume"}, "--format semeval"),
        ("data", {"split": "test"}, "unknown split"),
        ("data", {"documents": 9}, "ask for fewer"),
    ],
)
def test_data_that_cannot_be_read(place, tmp_path, name, fields, words):
    (tmp_path / "empty").mkdir()
    folder = place / name if name == "data" else tmp_path / name
    with pytest.raises(CorpusError, match=words):
        read(folder, **fields)


def test_tofu_is_found_by_its_files(tmp_path, monkeypatch):
    tofu = pytest.importorskip("reprolib.corpus.tofu")
    asked = []
    monkeypatch.setattr(tofu, "load", lambda source, **fields: asked.append((source, fields)) or small_corpus())
    (tmp_path / "tofu").mkdir()
    (tmp_path / "tofu" / "forget05.json").write_text("{}")
    read(tmp_path, documents=2, split="forget05", seed=7)
    read("locuslab/TOFU")
    assert asked == [
        (tmp_path, {"forget": "forget05", "authors": 2, "seed": 7, "holdout": 0}),
        ("locuslab/TOFU", {"forget": "forget10", "authors": None, "seed": 0}),
    ]


# --- the flow ------------------------------------------------------------------------------------------------


def test_results_are_written_without_any_text(full, place):
    found, out = full
    files = [p for p in out.rglob("*") if p.is_file()]
    assert {"assessment.json", "report.html", "run.json"} <= {p.name for p in files}
    written = "".join(p.read_text() for p in files)
    assert SECRET not in written and "Delft" not in written and "Hull" not in written and "f301" not in written
    raw = json.loads((out / "assessment.json").read_text())
    assert raw["results"]["model"]["core"]["metrics"] == pytest.approx(found.results["model"]["core"].metrics)
    assert set(raw["results"]) == {"model", "target", "twin"} and list(raw["results"]["model"]) == ["official", "core", "alpha", "mmlu"]
    assert raw["models"]["model"]["parameters"] == tiny_lm().num_parameters() and raw["provenance"]["versions"]["torch"]
    assert raw["gap_closed"]["forget/nll"] == pytest.approx(found.gap("forget/nll"))
    n = len(raw["results"]["model"]["core"]["rows"]["group"])
    assert n == 18 + 18 + 4 + 120 and len(raw["results"]["model"]["alpha"]["rows"]["alpha_nll"]) == n


def test_a_killed_evaluation_continues_and_ends_with_the_same_bytes(place, tmp_path, only_fakes):
    calls, fatal = [], KeyboardInterrupt()
    whole = (fake("alpha", calls=calls), fake("beta", calls=calls))
    only_fakes(fake("alpha", calls=calls), fake("beta", calls=calls, error=fatal))
    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "a")
    assert (tmp_path / "a" / "parts" / "model" / "alpha.json").exists() and not (tmp_path / "a" / "assessment.json").exists()
    before = (tmp_path / "a" / "parts" / "model" / "core.json").stat().st_mtime_ns
    only_fakes(*whole)
    calls.clear()
    first = run(place, tmp_path / "a")
    assert calls == [("model", "beta")]
    assert (tmp_path / "a" / "parts" / "model" / "core.json").stat().st_mtime_ns == before
    again = run(place, tmp_path / "a")
    assert calls == [("model", "beta")] and again.results == first.results
    straight = run(place, tmp_path / "b")
    same = [{n: (r.metrics, r.rows) for n, r in a.results["model"].items()} for a in (first, straight)]
    assert same[0] == same[1]


def test_nothing_is_loaded_when_all_is_done(place, tmp_path, only_fakes, monkeypatch):
    first = run(place, tmp_path)
    monkeypatch.setattr("reprolib.assess.scoring.load_model", lambda *a: pytest.fail("loaded"))
    assert run(place, tmp_path).models == first.models


def test_a_broken_or_older_part_is_computed_again(place, tmp_path, only_fakes, monkeypatch):
    calls = []
    only_fakes(fake("alpha", calls=calls))
    first = run(place, tmp_path)
    path = tmp_path / "parts" / "model" / "alpha.json"
    path.write_text(path.read_text()[:40])
    assert run(place, tmp_path).results["model"]["alpha"].metrics == first.results["model"]["alpha"].metrics and len(calls) == 2
    monkeypatch.setattr("reprolib.assess.parts.VERSIONS", {"wide": 99})
    run(place, tmp_path)
    assert len(calls) == 3


def test_a_target_that_comes_later_adds_what_it_allows(place, tmp_path, only_fakes):
    only_fakes(fake("alpha", needs=("target",)))
    first = run(place, tmp_path)
    assert first.skipped == {"alpha": "needs --target"} and "retain/kl" not in first.metrics()
    later = run(place, tmp_path, target=place / "target")
    assert not later.skipped and later.metrics()["retain/kl"] > 0 and set(later.results) == {"model", "target"}


def test_another_model_or_data_in_the_same_folder_is_refused(place, tmp_path, only_fakes):
    run(place, tmp_path)
    for change, word in (
        ({"model": place / "twin"}, "another model"),
        ({"data": data_folder(tmp_path / "other", documents=2)}, "another data"),
        ({"seed": 1}, "another data, seed"),  # the world questions are drawn anew
        ({"max_new_tokens": 7}, "another max_new_tokens"),
    ):
        with pytest.raises(SpecError, match=rf"{word}.*--overwrite"):
            run(place, tmp_path, **change)
    new = run(place, tmp_path, model=place / "twin", overwrite=True)
    assert new.models["model"]["name"].endswith("twin")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SpecError, match=r"run.json cannot be read"):
        run(place, tmp_path, model=place / "twin")


def test_a_folder_where_nothing_was_finished_is_free(place, tmp_path, only_fakes):
    broken = checkpoint(tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(SpecError, match="tokenizer"):
        run(place, tmp_path / "out", model=broken)
    assert run(place, tmp_path / "out").results["model"]["core"].metrics


def test_two_evaluations_of_one_folder_do_not_mix(place, tmp_path, only_fakes):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(SpecError, match="another evaluation is writing"):
        run(place, tmp_path)


def test_a_part_that_breaks_is_named_and_the_others_go_on(place, tmp_path, only_fakes):
    only_fakes(
        fake("alpha", error=ValueError("boom")), fake("beta", error=SpecError("no such rows here")), fake("gamma"),
        fake("delta", metrics={"gamma/auc": 1.0}), fake("epsilon", rows={"x": [1.0]}),
        fake("zeta", rows={"x": [SECRET] * (18 + 18 + 4 + 120)}),
    )  # fmt: skip
    found = run(place, tmp_path)
    assert set(found.results["model"]) == {"core", "gamma", "official"} and found.failed == ("alpha",)
    assert found.skipped["alpha"] == "broke off with ValueError: boom" and found.skipped["beta"] == "no such rows here"
    assert "must be named 'delta/...'" in found.skipped["delta"] and "one value a row" in found.skipped["epsilon"]
    assert "no text" in found.skipped["zeta"] and SECRET not in (tmp_path / "assessment.json").read_text()
    assert "boom" in report.text(found) and "boom" in page.page(found)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("not enough memory: ...")])
def test_out_of_memory_says_what_to_lower_and_keeps_what_is_done(place, tmp_path, only_fakes, error):
    only_fakes(fake("alpha", error=error))
    with pytest.raises(SpecError, match=r"'alpha' of the model.*--batch-tokens \(now 8192\).*--max-new-tokens \(now 6\).*--precision"):
        run(place, tmp_path)
    assert (tmp_path / "parts" / "model" / "core.json").exists()


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"suites": "wid"}, "did you mean 'wide'"),
        ({"only": "alpa"}, "did you mean 'alpha'"),
        ({"only": "mmlu"}, "--mmlu DIR"),
        ({"suites": "core,data"}, "needs --mmlu"),
        ({"precision": "fp23"}, "did you mean 'fp32'"),
        ({"format": "lumee"}, "did you mean 'lume'"),
        ({"documents": 0}, "documents is 0"),
        ({"max_new_tokens": 0.5}, "max_new_tokens is 0.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_slips_are_caught_before_anything_is_loaded(place, tmp_path, only_fakes, monkeypatch, fields, words):
    monkeypatch.setattr("reprolib.assess.scoring.load_model", lambda *a: pytest.fail("loaded"))
    with pytest.raises(SpecError, match=words):
        run(place, tmp_path, **fields)


def test_suites_and_single_parts(place, tmp_path, only_fakes):
    assert wanted_parts(None, (), False, False)[0] == ("core", "alpha")
    assert wanted_parts(None, (), True, True)[0] == ("core", "alpha", "mmlu", "harness")
    assert wanted_parts(("stress",), (), True, False)[0] == ("beta",)
    assert wanted_parts(("core",), ("beta", "mmlu"), True, False)[0] == ("beta", "mmlu")


# --- checkpoints ---------------------------------------------------------------------------------------------


def test_checkpoints_that_are_none(place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    pickled = checkpoint(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = checkpoint(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    for name, words in (
        ("empty", "no config.json"), ("absent/deep/er", "neither a folder"), ("file", "neither a folder"),
        ("pickled", "pickle, which is never loaded"), ("bare", r"no weights \(\*.safetensors\)"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=words):
            locate(tmp_path / name)
    with pytest.raises(SpecError, match="could not be fetched"):  # offline in tests
        locate("some/model@main")
    with pytest.raises(SpecError, match=r"no adapter_config.json"):
        locate(place / "model", adapter=place / "twin")


def test_weights_and_tokenizers_that_do_not_fit(place, tmp_path, tokenizer):
    cut = checkpoint(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:900])
    with pytest.raises(SpecError, match="cannot be loaded"):
        load_model(locate(cut), "fp32", tokenizer)
    small = checkpoint(tmp_path / "small")
    lm = tiny_lm()
    lm.resize_token_embeddings(100)
    lm.save_pretrained(small)
    with pytest.raises(SpecError, match=r"258 tokens, but .* has embeddings for 100"):
        load_model(locate(small), "fp32", tokenizer)
    endless = checkpoint(tmp_path / "endless")
    t = byte_tokenizer()
    t.eos_token = None
    t.save_pretrained(endless)
    with pytest.raises(SpecError, match="no end-of-text token"):
        load_tokenizer(locate(endless))


def test_the_fingerprint_is_of_content_not_of_place(place, tmp_path):
    one = locate(place / "model").fingerprint
    moved = shutil.copytree(place / "model", tmp_path / "moved")
    (moved / "README.md").write_text("x")
    assert locate(moved).fingerprint == one != locate(place / "twin").fingerprint
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    assert locate(moved).fingerprint != one


def test_an_adapter_is_merged_and_changes_the_fingerprint(place, tmp_path, tokenizer):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(tiny_lm(), LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    source = locate(place / "model", adapter=tmp_path / "adapter")
    assert source.fingerprint != locate(place / "model").fingerprint
    lm = load_model(source, "fp32", tokenizer)
    ids = torch.tensor([tokenizer("Where was she born?").input_ids])
    assert not hasattr(lm, "peft_config")
    with torch.no_grad():
        assert torch.allclose(lm(ids).logits, adapted(ids).logits, atol=1e-5)
        assert not torch.allclose(lm(ids).logits, tiny_lm()(ids).logits, atol=1e-2)
    assert load_model(source, "bf16", tokenizer).dtype == torch.bfloat16
    with pytest.raises(SpecError, match="base model here, and the folder as --adapter"):
        locate(tmp_path / "adapter")


# --- the report ----------------------------------------------------------------------------------------------


def test_cards_of_metrics_as_evaluations_name_them():
    for name, expected in {
        "forget/em": "exact_memorisation", "retain/qa/em": "exact_memorisation", "forget/sc/score": "rouge_l_recall",
        "forget/qa/score": "knowledge", "attack/auc": "auc", "official/mia_auc": "auc", "official/mmlu": "mmlu/accuracy_questions",
        "lume/forget/Task1/sc": "twelve", "lume/task_aggregate": "task_aggregate", "lume/final": "final_score",
        "world/accuracy": "choice_accuracy", "retain/kl": "kl", "mmlu/subject/virology": "mmlu/subject",
        "mmlu/accuracy_subjects_low": "mmlu/accuracy_subjects", "harness/wmdp_bio/acc": "harness",
        "attacks/loss/tpr": "tpr_at_fpr", "attacks/min_k/auc_matched": "auc", "quantization/nf4/forget/em": "exact_memorisation",
    }.items():  # fmt: skip
        assert report.card(name).name == expected, name
    assert report.card("some/unheard") is None


def test_every_core_metric_has_a_card(full):
    found, _ = full
    assert not [k for k in found.metrics() if not k.startswith("alpha/") and report.card(k) is None]


def test_the_terminal_table_shows_values_directions_ranges_and_gaps(full):
    found, _ = full
    text = report.text(found, width=110)
    assert max(map(len, text.splitlines()[7:])) <= 110
    line = next(x for x in text.splitlines() if x.strip().startswith("Answer loss"))
    values = [found.metrics(r)["forget/nll"] for r in ("model", "target", "twin")] + [found.gap("forget/nll")]
    assert line.split()[2:6] == [report.number(v) for v in values]
    assert "→ twin, nats/token, from 0" in line
    assert "Forget rows:" in text and "MMLU, mean over questions" in text and "↑, share, 0 to 1" in text
    assert "more in the report" in text and "virology" not in text
    alone = Assessment(models={"model": found.models["model"]}, data=found.data, settings=found.settings,
                              results={"model": found.results["model"]}, skipped={"beta": "needs --twin"})  # fmt: skip
    assert "gap" not in report.text(alone).replace("Gap", "").splitlines()[-20] and "not scored: beta: needs --twin" in report.text(alone)


class Page(html.parser.HTMLParser):
    VOID = ("meta", "path", "circle")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_and_is_accessible(full):
    found, out = full
    text = (out / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and text.startswith("<!doctype html>") and '<html lang="en">' in text
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [v for _, k, v in page.attributes if k in ("src", "onclick") or (k == "href" and not v.startswith("#"))]
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text and "width=device-width" in text
    ids = [v for _, k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids)) and {v[1:] for _, k, v in page.attributes if k == "href"} <= set(ids)
    tables = page.tags.count("table")
    assert tables == page.tags.count("caption") == sum(t == "div" and k == "role" and v == "region" for t, k, v in page.attributes)
    assert page.tags.count("th") == sum(t == "th" and k == "scope" for t, k, v in page.attributes)
    assert page.tags.count("svg") == sum(t == "svg" and k == "aria-hidden" for t, k, v in page.attributes) > 50
    for value in ("forget/nll", "mmlu/subject/virology", "alpha/auc"):
        assert value in page.text
    assert report.number(found.gap("forget/nll")) in page.text


def test_names_in_the_page_are_escaped(full):
    found, _ = full
    evil = {"name": "<script>alert(1)</script>", "fingerprint": "0"}
    a = Assessment(models={"model": evil}, data=found.data, settings={"seed": "<b>"}, results={"model": found.results["model"]},
                          skipped={"x": "<i>why</i>"}, notes=("<u>",))  # fmt: skip
    text = page.page(a)
    assert "<script" not in text and "<b>&" not in text and "<i>why" not in text and "<u>" not in text


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command(place, tmp_path, only_fakes, capsys):
    words = ["evaluate", "--model", place / "model", "--data", place / "data", "--max-new-tokens", 4, "--documents", 1, "--output"]
    assert command_line.main([str(w) for w in [*words, tmp_path / "out", "--suites", "core,stress"]]) == 0
    shown = capsys.readouterr().out
    assert "Core evaluation" in shown and "Beta" in shown and str(tmp_path / "out" / "report.html") in shown and "A subset" in shown
    only_fakes(fake("alpha", error=ValueError("boom")))
    assert command_line.main([str(w) for w in [*words, tmp_path / "out", "--only", "alpha"]]) == 1
    assert "failed: alpha" in capsys.readouterr().err
    assert command_line.main([str(w) for w in [*words, tmp_path / "out", "--only", "alpa"]]) == 2
    assert "did you mean 'alpha'" in capsys.readouterr().err


def test_the_folder_of_results_is_named_after_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model").mkdir()
    assert _slug("my model/") == "my-model" and _slug("owner/name@v1") == "owner-name-v1"


def test_a_slice_of_the_real_release(place, tmp_path, only_fakes):
    given = os.environ.get(VARIABLE)
    sibling = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = next((f for f in (Path(given) if given else sibling, sibling) if (f / "semeval25-unlearning-data").is_dir()), None)
    if folder is None:
        pytest.skip("no real SemEval data")
    corpus = read(folder, "semeval")
    assert len(corpus["holdout"]) == len(corpus.facts["members"]) == 150
    assert all(r.text for r in corpus["holdout"])
    found = run(place, tmp_path, data=folder, format="semeval", documents=1)
    assert {"official/mia", "lume/final", "attack/auc", "world/accuracy"} <= set(found.metrics())
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    for group in ("forget", "retain", "holdout"):
        for r in read(folder, "semeval", documents=1)[group]:
            assert r.id not in written and r.input[:40] not in written
            assert len(r.output) < 12 or r.output[:40] not in written


def test_the_probes_of_the_package_take_any_checkpoint(place, tmp_path):
    found = run(place, tmp_path, suites="wide", documents=2, target=place / "target")
    asked = {p.name for p in probes.suite("wide")}
    assert set(found.results["model"]) | set(found.skipped) >= asked and not found.failed
    assert all(k.startswith(f"{n}/") for n, r in found.results["model"].items() if n in asked for k in r.metrics)
    assert len(page.page(found)) > 10_000
