"""The GPU playbook, rehearsed on a CPU: every step of it at toy size through ``python -m study.gpu``, killed on the way and continued."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Started, module, processes, run_code, write_less

from reprolib.errors import RecordError, SpecError

ROOT = Path(__file__).resolve().parent.parent


STEPS = ("olmo-1b", "olmo-1b-cost", "olmo-7b", "olmo-7b-cost", "smollm2", "smollm2-semeval", "smollm2-semeval-rest", "olmo-1b-0724", "olmo-7b-0724",
         "olmo-1b-semeval", "olmo-7b-semeval")  # fmt: skip


ASK = """
import sys
from study.gpu.__main__ import main
folder = sys.argv[1]
for argv in (["list"], ["check"], ["run", "olmo-2b"], ["unpack", __file__]):
    print("answered:", main([*argv, "--rehearse", folder]), flush=True)
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def environment() -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("REPROLIB_", "GPU_"))}
    return own | {"REPROLIB_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def playbook(*words: str) -> None:
    """In a child: ``python -m study.gpu words``."""
    write_less()
    module("study.gpu", *words)


def start(folder: Path, work, *words: str) -> Started:
    return Started(work, *words, folder=folder, environment=environment(), cwd=ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gpu")


def files(base: Path) -> dict[str, bytes]:
    return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*.json")}


def test_every_step_at_toy_size_killed_and_continued(folder):
    archive, results = folder / "packed.tar.gz", folder / "toy" / "results"
    command = (playbook, "run", *STEPS, "--rehearse", str(folder / "toy"), "--jobs", "1", "--workers", "0", "--pack", str(archive))
    first, until = start(folder, *command), time.monotonic() + 100
    while not list(results.rglob("records/**/*.json")) and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert first.poll() is None, first.wait()
    first.kill()
    before = files(results)
    assert before, "killed before anything was done"

    second = start(folder, *command).wait(200)
    said = second.stdout
    assert second.returncode == 0, second
    assert "FAILED" not in said and "nothing is left to do" in said
    after = files(results)
    assert {k: after[k] for k in before} == before, "what was done is not done again"
    assert "target, seed 0" in said and "olmo-1b-scratch/lume: target" not in said

    from study.gpu import carry
    from study.report import cost, true_size

    assert carry.unpack(archive, folder / "unpacked") == len(after)
    assert files(folder / "unpacked") == after
    tables = true_size.tables(results)
    # 8 testbeds: a target and a run of each, of one two; 6 of them pretrained, which MMLU is asked of too; a case of each cost step
    assert {k: len(t) for k, t in tables.items()} == {"records": 9, "models": 8, "cost": 2}
    assert set(tables["records"]["status"]) == {"done"} and set(tables["records"]["gpu"].isna()) == {True}
    assert set(tables["records"].groupby("precision").size().index) == {"fp32", "bf16", "nf4"}
    asked = tables["records"].dropna(subset="mmlu/accuracy_questions")
    assert asked["mmlu/accuracy_questions"].between(0, 1).all() and len(asked) == 7
    semeval = asked[asked["testbed"].str.endswith("/semeval")]
    assert semeval["official/mia_auc"].between(0, 1).all() and semeval["official/final"].notna().all() and len(semeval) == 6
    models = tables["models"].set_index("testbed")
    assert (models.loc[["olmo-1b-semeval/semeval", "olmo-7b-semeval/semeval"], "epochs"] == 0).all(), "published targets are not taught"
    assert (models.loc[["olmo-1b-0724/semeval", "olmo-7b-0724/semeval"], "epochs"] > 0).all()
    assert set(tables["cost"]["model"]) == {"smollm2", "olmo-7b-scratch"}
    assert (tables["cost"].set_index("case").loc["olmo-7b_npo_lora-64-16_bf16", ["step_s", "peak_gib"]] > 0).all()
    assert "9 runs" in true_size.told(results)
    assert {"Retrained twin", "NPO"} & {row[1] for row in true_size.results(results).rows}
    assert len(cost.measured(results).rows) >= 1 and "TFLOP/s" in cost.ceilings(results).data
    stamp = true_size.stamp(results).data
    assert "19 in results/gpu/records, results/gpu/models, results/gpu/cost" in stamp and "none: " in stamp and "torch 2" in stamp
    assert true_size.stamp(folder / "toy") is None
    next((results / "models").glob("*.json")).write_text("{}")
    with pytest.raises(RecordError, match=r"lacks.*run its step again"):
        true_size.tables(results)


def test_list_check_and_what_is_not_there(tmp_path):
    asked = start(tmp_path, run_code, ASK.replace("__file__", repr(__file__)).replace("sys.argv[1]", repr(str(tmp_path / "asked")))).wait(200)
    said = asked.stdout + asked.stderr
    answers = [line.split()[1] for line in said.splitlines() if line.startswith("answered:")]
    assert answers == ["0", "1", "2", "2"], said
    for step in STEPS:
        assert f"\n{step} " in said
    assert "LACK GPU" in said and "no CUDA device" in said
    assert "ok   4 and 8 bits" in said and "ok   packages" in said and "ok   data" in said
    assert "error:" in said and "olmo-2b" in said and "olmo-7b-cost" in said, "what is allowed is said"
    assert "is no archive of results" in said


def test_tables_of_nothing_are_empty_and_say_so(tmp_path):
    from study.report import true_size

    tables = true_size.tables(tmp_path)
    assert all(t.empty and tuple(t.columns) == true_size.COLUMNS[k] for k, t in tables.items())
    assert true_size.told(tmp_path) == f"No results at true size are part of this study yet: {tmp_path} holds none."
    assert true_size.told().endswith("results/gpu holds none."), "the usual folder need not be there"


def test_a_folder_that_is_none_is_refused(tmp_path):
    from study.report import cost, true_size

    (tmp_path / "file").write_text("")
    for name, said in (("nope", "not there"), ("file", "a file")):
        for ask in (true_size.answer, true_size.results, cost.measured, cost.ceilings):
            with pytest.raises(RecordError, match=f"{name} is {said}; allowed: a folder with records/"):
                ask(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"), ("[]", "lacks case.model"), ('{"case": {}}', "lacks case.model, case.method, provenance"),
        ('{"case": {"model": "m", "method": "ceilings"}, "provenance": {"machine": {}, "commit": "", "time": ""}}', "lacks bf16_tflops"),
    ],
)  # fmt: skip
def test_a_broken_file_of_cost_is_named(content, message, tmp_path):
    from study.report import cost

    (tmp_path / "cost").mkdir()
    (tmp_path / "cost" / "x.json").write_text(content)
    with pytest.raises(RecordError, match=rf"x\.json {message}.*run its step again"):
        cost.ceilings(tmp_path)


@pytest.mark.parametrize("words", [["run", "olmo-1b", "--minutes", "0"], ["run", "olmo-1b", "--workers", "-1"], ["run"], ["fly"]])
def test_bad_input_ends_at_once(words, capsys):
    from study.gpu.__main__ import main

    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and "usage:" in capsys.readouterr().err


# --- the clock, on jobs that do nothing ------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle:
    folder: Path
    name: str
    seconds: float = 0.0

    def done(self) -> bool:
        return (self.folder / self.name).exists()

    def do(self) -> str:
        if self.name.startswith("dies"):
            os._exit(1)
        if self.name.startswith("fails"):
            raise ValueError("on purpose")
        time.sleep(self.seconds)
        (self.folder / self.name).write_text(str(os.getpid()))
        return "idled"


@pytest.fixture
def runner(tmp_path, monkeypatch):
    from study.gpu.places import DEFAULTS
    from study.gpu.run import Runner

    for name in DEFAULTS:  # what prepare() sets is taken back
        monkeypatch.setenv(name, os.environ.get(name, DEFAULTS[name]))
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path / "results"))
    return Runner


def phase(tmp_path, *jobs: tuple, minutes: float = 0.01, workers: int = 1):
    from study.gpu.steps import Phase

    return Phase(tuple(Idle(tmp_path, *j) for j in jobs), minutes, workers)


def test_jobs_side_by_side_survive_those_that_fail_or_die(runner, tmp_path, capsys, monkeypatch):
    from study.gpu.steps import Step

    # forked from what has imported torch already, not spawned
    monkeypatch.setattr(sys.modules[runner.__module__], "multiprocessing", SimpleNamespace(get_context=lambda kind: processes()))
    run = runner(2)
    run.step("idle", Step("", (phase(tmp_path, ("dies",), ("a",), ("b",), ("c",), workers=2),)))
    run.report()
    assert run.failed == ["dies"] and not run.left
    assert all((tmp_path / n).exists() for n in "abc")
    said = capsys.readouterr().out
    assert "its process ended" in said and "tries them again" in said


def test_the_first_job_begins_whatever_it_is_expected_to_take_and_no_other_without_time(runner, tmp_path, capsys):
    from study.gpu.steps import Step

    run = runner(0.02)
    run.step("idle", Step("", (phase(tmp_path, ("a", 0.6), ("b", 0.6), ("c", 0.6), minutes=30),)))
    run.step("next", Step("", (phase(tmp_path, ("d",)),))) if run.time_left > 0 else None
    run.report()
    assert run.left == ["a", "b", "c"] or (tmp_path / "a").exists()
    assert "c" in run.left and "the same command goes on" in capsys.readouterr().out


def test_what_needs_a_failed_model_is_not_begun(runner, tmp_path):
    from study.gpu.steps import Step

    run = runner(1, workers=0)
    run.step("idle", Step("", (phase(tmp_path, ("fails",), ("model",)), phase(tmp_path, ("run",)))))
    assert run.failed == ["fails"] and (tmp_path / "model").exists() and not (tmp_path / "run").exists()


def test_models_are_not_made_again_for_runs_that_are_done(runner, tmp_path):
    from study.gpu.steps import Step

    (tmp_path / "run").write_text("")
    run = runner(1, workers=0)
    run.step("idle", Step("", (phase(tmp_path, ("model",)), phase(tmp_path, ("run",)))))
    assert not (tmp_path / "model").exists() and not run.left


def test_what_a_killed_training_left_is_removed(tmp_path, monkeypatch):
    from reprolib.testbeds import memorise
    from reprolib.testbeds.beds import testbed

    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(memorise, "_make", lambda bed, which, seed, folder, progress: (folder / "config.json").write_text("{}"))
    bed = testbed("smoke/synthetic")
    folder = memorise.folder_of(bed, "target", 0)
    left = folder.with_name(f".{folder.name}-left")
    (left / "weights").mkdir(parents=True)
    assert memorise.get(bed, "target", 0, progress=False) == folder
    assert (folder / "config.json").exists() and not left.exists()


# --- what is carried -------------------------------------------------------------------------------------------


def test_packages_are_carried_with_one_library_only():
    from study.gpu import carry

    carried = carry.package("bitsandbytes", "130")
    libraries = sorted(Path(n).name for n in carried if n.endswith(".so"))
    assert libraries == ["libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so"]
    assert any(n.endswith("METADATA") for n in carried), "its version can be asked for"
    with pytest.raises(SpecError, match=r"no library for --cuda 99.*cuda130"):
        carry.package("bitsandbytes", "99")
    with pytest.raises(SpecError, match="not installed here"):
        carry.package("no-such-package", "130")


def test_pieces_that_come_one_a_call_are_put_together(tmp_path, monkeypatch):
    from study.gpu import carry

    monkeypatch.setattr(carry, "CARRIED", tmp_path / "carried")
    (tmp_path / "carried").mkdir()
    cache = tmp_path / "smollm2"
    cache.mkdir()
    for number, content in ((2, b"two"), (1, b"one")):
        piece = tmp_path / "carried" / f"model.gguf.{number}of2"
        piece.write_bytes(content)
        assert not (cache / "model.gguf").exists()
        carry._join(cache)
        piece.unlink()
    assert (cache / "model.gguf").read_bytes() == b"onetwo"
    assert not list((cache / "pieces").iterdir())


# --- the loop at true size -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["full", "lora-4-8"])
def test_gradient_checkpointing_and_small_micro_batches_change_no_result(trainable, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, OlmoConfig

    from reprolib.recipes import recipe
    from reprolib.unlearn.loop import unlearn
    from study.gpu import cost

    monkeypatch.setattr(cost, "ROWS", 4)
    monkeypatch.setattr(cost, "TOKENS", 24)
    monkeypatch.setattr(cost, "LABELS", 6)
    config = OlmoConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                        pad_token_id=1, eos_token_id=0, bos_token_id=None)  # fmt: skip

    def weights(**settings: str) -> torch.Tensor:
        with monkeypatch.context() as m:
            for name, value in settings.items():
                m.setenv(name, value)
            torch.manual_seed(0)
            lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            stages = recipe("npo").build({"epochs": 1, "lr": 1e-3, "batch_size": 4, "trainable": trainable})
            lm, outcome = unlearn(lm, stages, cost.even_rows(64, 0), cost.even_rows(64, 1), seed=0, points=0, progress=False)
            assert outcome.status == "done"
            return torch.cat([p.detach().flatten() for p in lm.parameters()])

    plain = weights()
    assert torch.equal(weights(REPROLIB_GRADIENT_CHECKPOINTING="1"), plain)
    torch.testing.assert_close(weights(REPROLIB_MICRO_TOKENS="24"), plain, rtol=0, atol=2e-4)
    with pytest.raises(SpecError, match="REPROLIB_MICRO_TOKENS is '0'"):
        weights(REPROLIB_MICRO_TOKENS="0")


def test_no_step_names_a_run_twice():
    from study.gpu import steps as study

    for name, step in study.steps().items():
        asked = [j.spec.fingerprint for j in step.jobs if isinstance(j, study.Run)]
        assert len(set(asked)) == len(asked), name


def test_settings_as_published_are_an_arm_of_their_own():
    from test_report import made

    from study.report import true_size

    lora = {"trainable": "lora-64-16"}
    found = [
        made("gradient_ascent", 0, forget=0.0, retain=1.0, precision="nf4", options=lora | more, testbed="olmo-7b-0724/semeval")
        for more in ({"lr": 1e-4}, {"lr": 3e-4}, {"lr": 2e-6, "epochs": 20})
    ]
    twin = made("twin", 0, forget=0.0, retain=1.0, testbed="olmo-7b-0724/semeval")
    arms = true_size.grouped([twin, *found], true_size.what)
    assert {name: [s.rate for s in arm.settings] for name, arm in arms.items()} == {
        "Gradient ascent, LoRA 64/16, 4 bits": [1e-4, 3e-4], "Gradient ascent, epochs 20, LoRA 64/16, 4 bits": [2e-6],
    }  # fmt: skip
    libu = made("libu", 0, forget=0.0, retain=1.0, options={"phase2_lr": 1e-4, "lr": 2.0}, testbed="olmo-7b-0724/semeval")
    assert true_size.grouped([twin, libu], true_size.what)["LIBU"].settings[0].rate == 1e-4


@pytest.mark.slow
def test_every_kind_of_job_at_toy_size(tmp_path):
    command = [sys.executable, "-m", "study.gpu", "run", *STEPS, "--rehearse", str(tmp_path), "--minutes", "30", "--workers", "2"]
    process = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800)
    said = process.stdout
    assert process.returncode == 0 and "FAILED" not in said and "nothing is left to do" in said, said


def test_the_page_says_what_is_missing_and_shows_what_is_there(tmp_path, monkeypatch):
    from test_report import made

    from reprolib import record
    from study.report import cost, true_size

    nothing = true_size.answer(tmp_path).data
    assert "`olmo-1b`, `olmo-7b`, `smollm2`, `smollm2-semeval`" in nothing and "python -m study.gpu run olmo-1b olmo-7b smollm2 smollm2-semeval`" in nothing
    assert "also missing: `olmo-1b-semeval`, `olmo-7b-semeval`, `olmo-1b-0724`, `olmo-7b-0724`" in nothing
    from study.gpu.steps import steps

    beds = {name: phase.jobs[0].testbed for name, step in steps().items() for phase in step.phases[:1]}
    assert {k: v for k, v in beds.items() if not k.endswith(("-cost", "-rest"))} == {**true_size.STEPS, **true_size.HUB}
    assert true_size.results(tmp_path).data == "No runs yet." and cost.measured(tmp_path).data.startswith("Nothing was measured")
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path))
    for method, forget in (("twin", 0.0), ("target", 1.0), ("npo", 0.0)):
        r = made(method, 0, forget=forget, retain=0.75 if method == "npo" else 1.0)
        record.write(r)
    table = true_size.results(tmp_path)
    assert [row[1] for row in table.rows[:2]] == ["Retrained twin", "NPO"] and table.rows[0][5] == "0.00"
    assert "Missing: `olmo-1b`" in true_size.answer(tmp_path).data


def test_what_was_run_at_both_sizes_stands_side_by_side(tmp_path, monkeypatch):
    from test_report import made

    from reprolib import record
    from study.report import true_size

    assert true_size.both_sizes(tmp_path) == true_size.bases(tmp_path) == {}
    assert "python -m study.gpu run olmo-1b olmo-7b" in true_size.figure({}, "").data and true_size.table({}) is None
    monkeypatch.setenv("REPROLIB_RESULTS", str(tmp_path))
    lora = {"trainable": "lora-64-16"}
    for bed in ("olmo-1b-scratch/lume", "olmo-7b-scratch/lume"):
        record.write(made("twin", 0, forget=0.0, retain=1.0, testbed=bed))
        for n, (precision, retain) in enumerate((("bf16", 1.0), ("nf4", 0.75))):
            record.write(made("npo", 0, forget=0.0, retain=retain, testbed=bed, precision=precision, options={"lr": 3e-4, **lora}))
            if n == 0:
                record.write(made("npo", 0, forget=0.0, retain=0.25, testbed=bed, precision=precision, options={"lr": 1e-3, **lora}))
    alone = made("npo", 0, forget=0.0, retain=1.0, testbed="olmo-1b-scratch/lume", options={"lr": 5e-5})  # all weights, at 1B only
    record.write(alone)
    record.write(made("npo", 1, forget=0.0, retain=1.0, testbed="olmo-1b-scratch/lume", options={"lr": 5e-5}))  # a seed without a twin

    sizes = true_size.both_sizes(tmp_path)
    assert list(sizes) == [f"NPO, LoRA 64/16, {p}: {s}" for p in ("4 bits", "bf16") for s in ("1B", "7B")]
    both = sizes["NPO, LoRA 64/16, bf16: 1B"]
    assert sorted(s.rate for s in both.settings) == [3e-4, 1e-3] and both.best("distance").rate == 3e-4
    assert both.best("distance").distance == pytest.approx([0.0], abs=1e-6) and all(len(s.records) == 1 for s in both.settings)
    bases = true_size.bases(tmp_path)
    assert list(bases) == [f"olmo-{s}-scratch: NPO, {p}" for s in ("1b", "7b") for p in ("bf16", "nf4")]
    assert true_size.what(alone) == "NPO"
    assert "NPO, LoRA 64/16, bf16: 7B" in true_size.figure(sizes, "caption").data
    assert len(true_size.table(sizes).rows) == 6


def test_predictions_say_where_a_run_fits():
    from study.report import cost

    cases = {"full": {"method": "npo"}, "adapter": {"method": "npo", "trainable": "lora-16", "precision": "nf4", "micro_tokens": 1024}}
    rows = cost.predictions(["smollm2-135m"], cases).rows
    assert [r[5] for r in rows] == ["24 GiB", "24 GiB"] and float(rows[1][3]) <= float(rows[0][3])


def test_the_page_and_the_command_mean_the_same_gibibytes():
    from reprolib.plan.prediction import needed, plan
    from reprolib.plan.shapes import GPUS
    from study.report import cost

    size = needed(plan("smollm2-135m", "npo").peak_bytes) / cost.GIB
    for memory, fits in ((size + 0.01, True), (size - 0.01, False)):
        assert plan("smollm2-135m", "npo", gpu_memory_gib=memory).fits is fits
        said = cost.predictions(["smollm2-135m"], {"x": {"method": "npo"}}, [memory]).rows[0][5]
        assert said == (f"{memory:g} GiB, barely" if fits else f"none of them ({memory:g} GiB perhaps)")
    assert {24, 80, 141} <= {g.memory_gib for g in GPUS.values()}


@pytest.mark.parametrize(
    ("models", "cases", "message"),
    [
        ([], {"x": {"method": "npo"}}, r"models must be a list with at least one name, got \[\]"),
        ("smoke", {"x": {"method": "npo"}}, "models must be a list"),
        (["smoke"], {}, "cases must map at least one title"),
        (["smoke"], {"x": {}}, "case 'x': method is missing"),
        (["smoke"], {"x": {"metod": "npo"}}, "case 'x': method is missing.*allowed fields: .*method"),
        (["smoke"], {"x": {"method": "npo", "precission": "nf4"}}, "case 'x': unknown field 'precission'; did you mean 'precision'"),
    ],
)  # fmt: skip
def test_cases_that_cannot_be_planned_are_refused(models, cases, message, tmp_path):
    from study.report import cost

    for ask in (cost.predictions, lambda m, c: cost.answer(m, c, tmp_path)):
        with pytest.raises(SpecError, match=message):
            ask(models, cases)
