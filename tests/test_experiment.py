"""``run``: computed once, shared between processes, continued, and kept when it fails."""

import dataclasses
import itertools
import json
import os
import signal
from pathlib import Path

import pytest
from conftest import add_test_preset, byte_tokenizer, processes, small_corpus, write_less

from reprolib import experiment
from reprolib.corpus.rows import Row
from reprolib.errors import RecordError, ReprolibError, SpecError
from reprolib.experiment import run
from reprolib.models import device
from reprolib.places import results_dir
from reprolib.portions import choose_forget, portions_of
from reprolib.record import find, path_of, read, to_json
from reprolib.spec import Spec

QUICK = {"epochs": 1}


@pytest.fixture(autouse=True)
def _preset(test_preset, brief):
    pass


def spec(**fields):
    return Spec(**{"testbed": "test/synthetic", "options": QUICK} | fields)


def failed_files():
    return sorted((results_dir() / "failed").glob("*"))


# --- run ------------------------------------------------------------------------------------------------------


def test_a_run_is_computed_once_and_read_afterwards(monkeypatch):
    first = run(spec(), progress=False)
    assert first.status == "done" and first.fingerprint == spec().fingerprint
    assert find(spec()) == first
    assert first.trajectory[0]["step"] == 0 and first.trajectory[-1]["step"] == first.cost["steps"] == 1
    assert 0 < first.metrics["forget/nll"] < 20 and len(first.rows["group"]) == len(first.rows["score"])
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("computed again"))
    assert run(spec(), progress=False) == first
    assert run(testbed="test/synthetic", method="npo", options={"epochs": 1.0, "beta": 0.1}, progress=False) == first
    with pytest.raises(SpecError, match="unknown key 'metod'"):
        run(metod="npo")


def test_same_spec_same_record_whatever_happened_before(monkeypatch, tmp_path):
    first = run(spec(seed=1), progress=False)
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "other"))
    run(spec(seed=2, method="gradient_ascent"), progress=False)
    second = run(spec(seed=1), progress=False)
    assert second is not first
    for name in ("spec", "fingerprint", "status", "reason", "metrics", "rows", "trajectory", "stages"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.cost["steps"] == second.cost["steps"]


def test_baselines_start_from_the_right_weights():
    methods = ("target", "twin", "random", "always_eos")
    target, twin, random, eos = (run(spec(method=m, options={}), progress=False) for m in methods)
    assert target.metrics["retain/kl"] == 0 != twin.metrics["retain/kl"]
    assert target.metrics["forget/nll"] < random.metrics["forget/nll"]
    assert eos.metrics["attack/auc"] == 0.5 and eos.metrics["forget/questions"] == 0
    for r in (target, twin, random, eos):
        assert r.cost["steps"] == 0 and r.trajectory == [] and r.stages == []


def test_an_absurd_learning_rate_leaves_a_diverged_record():
    one_step = run(spec(options={"epochs": 1, "lr": 1e9}), progress=False)
    several = run(spec(options={"epochs": 20, "lr": 1e9}), progress=False)
    for record in (one_step, several):
        assert record.status == "diverged" and record.reason
        assert find(record.spec) == record
        assert record.metrics["lume/task_aggregate"] == 0 and "lume/final" in record.metrics
    assert one_step.cost["steps"] == 1 and several.cost["steps"] < 20
    assert failed_files() == []


def test_a_failed_run_is_kept_and_made_good_by_a_later_one(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("boom")

    with monkeypatch.context() as m, pytest.raises(ZeroDivisionError, match="boom"):
        m.setattr(experiment, "unlearn", broken)
        run(spec(), progress=False)
    (path,) = failed_files()
    kept = read(path)
    assert kept.status == "failed" and kept.spec == spec() and kept.metrics == {}
    line = broken.__code__.co_firstlineno + 1
    assert kept.reason == f"ZeroDivisionError: boom (test_experiment.py, line {line})"
    assert find(spec()) is None  # a failure is no result
    assert run(spec(), progress=False).status == "done"
    assert not path.exists()


def test_an_error_of_the_user_is_no_failed_run(monkeypatch):
    def refused(*_, **__):
        raise ReprolibError("give another file")

    monkeypatch.setattr("reprolib.experiment.unlearn", refused)
    with pytest.raises(ReprolibError, match="another file"):
        run(spec(), progress=False)
    assert failed_files() == []


def test_results_that_cannot_be_written_stop_the_run_before_it_begins(monkeypatch):
    results_dir().mkdir()
    (results_dir() / "records").write_text("")
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("hours of computing"))
    with pytest.raises(RecordError, match="cannot be written"):
        run(spec(), progress=False)


def test_a_damaged_record_is_not_computed_over(monkeypatch):
    path = path_of(spec())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("overwrites a result"))
    with pytest.raises(RecordError, match="line 1"):
        run(spec(), progress=False)
    assert path.read_text() == "{"


def test_checkpoints_are_gone_after_a_run_of_a_large_model(monkeypatch):
    from reprolib.unlearn.checkpoint import Checkpoint

    written = []
    real = Checkpoint.save
    monkeypatch.setattr(experiment, "KEEP_BYTES", 1000)
    monkeypatch.setattr(Checkpoint, "save", lambda self, *a: (real(self, *a), written.append(self.path.exists()), self.path)[2])
    wanted = spec(options=QUICK | {"lr": 7e-4})
    run(wanted, progress=False)
    folder = Path(os.environ["REPROLIB_CACHE"]) / "runs"
    assert written == [True] and not (folder / wanted.fingerprint).exists()


# --- several processes ---------------------------------------------------------------------------------------


def environment(results: str, cache: str) -> None:
    """In a child: the folders and the preset of the test."""
    from reprolib.testbeds.presets import PRESETS

    os.environ |= {"REPROLIB_RESULTS": results, "REPROLIB_CACHE": cache, "REPROLIB_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
    add_test_preset(PRESETS)
    write_less()


def wants(results: str, cache: str, log: str, out: str, barrier) -> None:
    """A process that wants the run, and says in ``log`` if it computes anything itself."""
    from reprolib.testbeds import memorise

    environment(results, cache)
    compute, make = experiment.compute, memorise._make

    def say(what):
        with open(log, "a") as f:
            f.write(f"{what}\n")

    experiment.compute = lambda *a, **k: (say("computed"), compute(*a, **k))[1]
    memorise._make = lambda *a: (say("trained"), make(*a))[1]
    barrier.wait(60)
    Path(out).write_text(to_json(run(spec(), progress=False)))


def both(target, arguments) -> None:
    children = [processes().Process(target=target, args=a) for a in arguments]
    for c in children:
        c.start()
    for c in children:
        c.join(120)
    assert [c.exitcode for c in children] == [0, 0]


def test_two_processes_want_the_same_run_one_computes(tmp_path):
    log, results, cache = tmp_path / "log", tmp_path / "results", tmp_path / "cache"
    barrier = processes().Barrier(2)
    outs = [tmp_path / f"{n}.json" for n in range(2)]
    both(wants, [(str(results), str(cache), str(log), str(o), barrier) for o in outs])
    assert sorted(log.read_text().split()) == ["computed", "trained"]
    (path,) = (results / "records").rglob("*.json")
    assert outs[0].read_text() == outs[1].read_text() == path.read_text()


def trains(cache: str, log: str, out: str, barrier) -> None:
    from reprolib.testbeds import memorise
    from reprolib.testbeds.beds import testbed

    environment(cache, cache)
    make = memorise._make

    def logged(*a):
        with open(log, "a") as f:
            f.write("trained\n")
        make(*a)

    memorise._make = logged
    barrier.wait(60)
    Path(out).write_text(str(memorise.get(testbed("test/synthetic"), "target", 0, progress=False)))


def test_two_processes_want_the_same_model_one_trains(tmp_path):
    barrier = processes().Barrier(2)
    outs = [tmp_path / f"{n}.txt" for n in range(2)]
    both(trains, [(str(tmp_path / "c"), str(tmp_path / "log"), str(o), barrier) for o in outs])
    assert (tmp_path / "log").read_text() == "trained\n"
    assert outs[0].read_text() == outs[1].read_text()
    assert (Path(outs[0].read_text()) / "config.json").exists()


def killed_run(results: str, cache: str, at: int) -> None:
    """A run that is killed in the ``at``-th measurement, or in the evaluation at the end (at = 0)."""
    environment(results, cache)
    measure, calls = experiment.measure, []

    def counted(*a):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(*a)

    experiment.measure = counted
    if at == 0:
        experiment.evaluate = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    run(spec(options={"epochs": 4, "trainable": "lora-4"}), progress=False)


@pytest.mark.parametrize("at", [3, 0], ids=["while-training", "while-evaluating"])
def test_a_killed_run_goes_on_to_the_same_record(tmp_path, monkeypatch, at):
    wanted = spec(options={"epochs": 4, "trainable": "lora-4"})
    whole = run(wanted, progress=False)
    experiment._checkpoint(wanted).remove()
    cache, results = os.environ["REPROLIB_CACHE"], tmp_path / "killed"
    child = processes().Process(target=killed_run, args=(str(results), cache, at))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.setenv("REPROLIB_RESULTS", str(results))
    assert find(wanted) is None
    checkpoint = Path(cache) / "runs" / wanted.fingerprint / "checkpoint.safetensors"
    assert checkpoint.exists()
    from reprolib.unlearn import loop

    steps = []
    real = loop.micro_batches
    monkeypatch.setattr(loop, "micro_batches", lambda *a: (steps.append(1), real(*a))[1])
    again = run(wanted, progress=False)
    assert len(steps) == (0 if at == 0 else 4 - (at - 2))  # only what was still to do
    for name in ("status", "metrics", "rows", "trajectory", "stages"):
        assert getattr(again, name) == getattr(whole, name), name


def test_a_finished_model_is_kept_for_further_suites_if_it_is_small(monkeypatch):
    from reprolib.unlearn import loop

    wanted = spec(options={"epochs": 3, "lr": 3e-4})
    core = run(wanted, progress=False)
    kept = experiment._checkpoint(wanted)
    assert kept.path.exists() and not kept.load().optim  # the model alone
    monkeypatch.setattr(loop, "micro_batches", lambda *a: pytest.fail("trained again"))
    done = experiment.unlearned(dataclasses.replace(wanted, suite="wide"), progress=False)
    from reprolib.evaluate.summary import evaluate

    with device.one_thread(True):
        again = evaluate(done.lm, done.exam, progress=False)
    assert {k: round(v, 6) for k, v in again.metrics.items()} == core.metrics
    assert done.outcome.trajectory and done.outcome.steps == core.cost["steps"]
    kept.finish(keep_bytes=10)
    assert not kept.path.exists()


@pytest.mark.parametrize("method", ["npo", "target"])
def test_a_suite_is_a_run_with_a_record_of_its_own(method, monkeypatch):
    from reprolib import probes
    from reprolib.evaluate.subject import Evaluation

    def ask(subject):
        twin = subject.reference("twin")
        assert twin is subject.reference("twin") and subject.seed == 0
        return Evaluation({"count/rows": float(len(subject.rows))}, {"counted": subject.column({0: 1.0})})

    probe = probes.Probe(name="count", title="Rows", suite="wide", cost="none", ask=ask)
    monkeypatch.setattr(experiment, "suite", lambda name: (probe,))
    wanted = spec(method=method, suite="wide", options={"epochs": 2} if method == "npo" else {})
    record = run(wanted, progress=False)
    assert record.metrics == {"count/rows": len(record.rows["group"])} and record.rows["counted"][0] == 1
    assert record.trajectory == [] and record.cost["count_s"] >= 0
    assert path_of(wanted).is_relative_to(results_dir() / "wide") and find(wanted) == record
    assert wanted.core.fingerprint != wanted.fingerprint and find(wanted.core) is None


def test_a_probe_that_breaks_its_promise_is_named(monkeypatch):
    from reprolib.evaluate.subject import Evaluation
    from reprolib.probes.base import Probe

    answers = [Evaluation({"other/x": 1.0}, {}), Evaluation({}, {"short": [1.0]}), Evaluation({}, {"group": []})]
    for answer in answers:
        probe = Probe(name="bad", title="", suite="wide", cost="", ask=lambda subject, a=answer: a)
        monkeypatch.setattr(experiment, "suite", lambda name, p=probe: (p,))
        with pytest.raises(SpecError, match="probe 'bad' returned"):
            run(spec(method="target", suite="wide", options={}), progress=False)


# --- requests one after another ------------------------------------------------------------------------------


def test_requests_share_the_documents_out():
    rows = rows_of(documents=7)
    portions = portions_of(rows, spec(requests=3))
    assert sorted(r.id for p in portions for r in p) == sorted(r.id for r in rows)
    documents = [{r.document for r in p} for p in portions]
    assert sorted(len(d) for d in documents) == [2, 2, 3] and not documents[0] & documents[1]
    assert portions == portions_of(rows, spec(requests=3)) != portions_of(rows, spec(requests=3, seed=1))
    assert portions_of(rows, spec()) == (rows,)
    with pytest.raises(SpecError, match="each request needs at least one"):
        portions_of(rows, spec(requests=8))


def test_each_request_starts_from_the_model_that_the_one_before_left(monkeypatch):
    from reprolib.unlearn import loop

    seen = []
    real = loop.unlearn

    def watched(lm, stages, forget, *rest, **named):
        seen.append((len(forget), next(lm.parameters()).detach().clone()))
        return real(lm, stages, forget, *rest, **named)

    monkeypatch.setattr(experiment, "unlearn", watched)
    wanted = spec(requests=3, options={"epochs": 1, "lr": 1e-3})
    record = run(wanted, progress=False)
    rows = sum(g == "forget" for g in record.rows["group"])
    assert len(seen) == 3 and sum(n for n, _ in seen) == rows
    assert not seen[0][1].equal(seen[1][1]) and not seen[1][1].equal(seen[2][1])
    assert {v for v in record.rows["request"] if v is not None} == {0, 1, 2}
    assert [p.get("request", 0) for p in record.trajectory] == sorted(p.get("request", 0) for p in record.trajectory)
    steps = [p["step"] for p in record.trajectory]
    assert steps == sorted(steps) and steps[-1] == record.cost["steps"]
    again = experiment.compute(wanted, progress=False)  # from the finished models of all requests
    assert again.metrics == record.metrics and again.rows == record.rows


def test_requests_need_a_whole_model_to_hand_on():
    with pytest.raises(SpecError, match="requests=2 hands the model"):
        spec(method="prompt_routing", requests=2, options={})
    with pytest.raises(SpecError, match="requests=2 hands the model"):
        spec(requests=2, precision="nf4", options={"trainable": "lora-4"})
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(SpecError, match="requests must be a whole number"):
            spec(requests=bad)


# --- which forget rows are given -----------------------------------------------------------------------------


def rows_of(documents=20, questions=4):
    return tuple(
        Row(id=f"{d}qa{q}", document=str(d), task=f"Task{d % 3}", kind="qa", input="q?", output="a")
        for d in range(documents)
        for q in range(questions)
    )


def chosen(rows, **shares):
    return choose_forget(rows, spec(**shares))


def test_everything_is_given_by_default():
    assert chosen(rows_of()) == rows_of()


def test_shares_of_documents_and_rows():
    rows = rows_of()
    half = chosen(rows, forget_documents=0.5)
    assert len({r.document for r in half}) == 10 and len(half) == 40  # whole documents
    some = chosen(rows, forget_rows=0.5)
    assert len({r.document for r in some}) == 20 and len(some) == 40
    both = chosen(rows, forget_documents=0.25, forget_rows=0.25)
    assert len({r.document for r in both}) == len(both) == 5


def test_larger_shares_contain_smaller_ones():
    rows = rows_of()
    shares = (0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0)
    for name in ("forget_documents", "forget_rows"):
        sets = [{r.id for r in chosen(rows, **{name: s})} for s in shares]
        assert all(a <= b for a, b in itertools.pairwise(sets)) and len(sets[-1]) == len(rows)
    grown = [{r.id for r in chosen(rows, forget_documents=s, forget_rows=s)} for s in shares]
    assert all(a <= b for a, b in itertools.pairwise(grown))


def test_at_least_one_document_and_one_row_of_each():
    rows = rows_of()
    assert len(chosen(rows, forget_documents=1e-6, forget_rows=1e-6)) == 1
    assert len(chosen(rows, forget_rows=1e-6)) == 20


def test_the_choice_depends_on_the_seed_alone():
    rows = rows_of()
    assert chosen(rows, forget_documents=0.5, seed=1) == chosen(rows, forget_documents=0.5, seed=1)
    assert chosen(rows, forget_documents=0.5, seed=1) != chosen(rows, forget_documents=0.5, seed=2)
    # rows of a chosen document do not depend on how many documents are chosen
    all_documents = {r.id for r in chosen(rows, forget_rows=0.5)}
    assert {r.id for r in chosen(rows, forget_documents=0.3, forget_rows=0.5)} <= all_documents


def test_the_record_says_which_rows_were_given():
    record = run(spec(forget_documents=0.34, forget_rows=0.5), progress=False)
    assert record.cost["forget_documents_given"] == 1
    forget = [g for g, group in zip(record.rows["given"], record.rows["group"], strict=True) if group == "forget"]
    documents = [d for d, group in zip(record.rows["document"], record.rows["group"], strict=True) if group == "forget"]
    assert forget.count(2) == record.cost["forget_rows_given"] >= 1
    (given,) = {d for d, g in zip(documents, forget, strict=True) if g == 2}
    assert all((g > 0) == (d == given) for d, g in zip(documents, forget, strict=True))
    assert {g for g, group in zip(record.rows["given"], record.rows["group"], strict=True) if group != "forget"} == {0}
    assert "given" not in run(spec(), progress=False).rows


# --- a corpus of one's own -----------------------------------------------------------------------------------


def test_no_text_of_the_corpus_is_in_the_file(monkeypatch):
    from reprolib.testbeds import beds as testbeds

    corpus = small_corpus()
    monkeypatch.setattr(testbeds, "_corpus", lambda *_: corpus)
    record = run(spec(), progress=False)
    text = path_of(record.spec).read_text()
    strings = {s for g in corpus.groups.values() for r in g for s in (r.id, r.input, r.output, r.text, *r.perturbed)}
    assert len([s for s in strings if len(s) > 12]) > 20
    assert not [s for s in strings if len(s) > 12 and (s in text or json.dumps(s)[1:-1] in text)]


# --- a pretrained model is asked MMLU besides -------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The test preset with two measures along a run and two MMLU questions a subject, from a folder that is not there yet."""
    from reprolib.testbeds import memorise, presets

    preset = dataclasses.replace(presets.PRESETS["test"], mmlu=2, points=2)
    monkeypatch.setitem(presets.PRESETS, "asked", preset)
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(memorise, "train_tokenizer", lambda *a: byte_tokenizer())  # in which " A" to " D" are told apart
    return spec(testbed="asked/synthetic", options={"epochs": 4})


def test_mmlu_stands_in_the_record_with_the_questions_and_every_answer(asked, tmp_path):
    from test_assess import mmlu_folder

    mmlu_folder(tmp_path / "data" / "mmlu")
    record = run(asked, progress=False)
    m, note = record.metrics, record.provenance["mmlu"]
    assert m["mmlu/scored"] == len(note["hits"]) == 114 and set(note["hits"]) <= {"0", "1"}
    assert m["mmlu/accuracy_questions"] == pytest.approx(note["hits"].count("1") / 114, abs=1e-6)
    assert m["mmlu/accuracy_questions_low"] <= m["mmlu/accuracy_questions"] <= m["mmlu/accuracy_questions_high"]
    assert "2 questions a subject" in note["questions"] and not [k for k in m if k.startswith("mmlu/subject/")]
    assert "official/final" not in m, "a corpus without the organisers' lists has no official score"
    assert len(record.trajectory) == 3 and read(path_of(asked)) == record
    again = run(dataclasses.replace(asked, method="gradient_ascent", options={"epochs": 1}), progress=False)
    assert again.provenance["mmlu"]["content"] == note["content"], "the same questions of every run"


def test_missing_questions_are_found_before_anything_is_trained(asked, monkeypatch):
    monkeypatch.setattr(experiment, "unlearned", lambda *a, **k: pytest.fail("trained first"))
    with pytest.raises(ReprolibError, match=r"mmlu|MMLU"):
        run(asked, progress=False)
    assert not failed_files(), "nothing was learnt about the method"


def test_how_a_run_is_measured_is_part_of_its_identity_but_not_of_its_models(asked, monkeypatch):
    from reprolib.testbeds.beds import testbed
    from reprolib.testbeds.presets import PRESETS

    before = asked.fingerprint, testbed("asked/synthetic").identity()
    preset = PRESETS["asked"]
    for field in ("mmlu", "points"):
        monkeypatch.setitem(PRESETS, "asked", dataclasses.replace(preset, **{field: 3}))
        assert asked.fingerprint != before[0] and testbed("asked/synthetic").identity() == before[1]
