"""What a run is: refused where it makes no sense, and identified by everything that decides its result."""

import dataclasses
import itertools
import os
import subprocess
import sys
from types import MappingProxyType

import pytest
from conftest import Started, run_code

from reprolib.errors import SpecError
from reprolib.identity import canonical, digest, plain
from reprolib.spec import Spec


@pytest.fixture(autouse=True)
def _preset(test_preset):
    pass


def spec(**fields):
    return Spec(**{"testbed": "test/synthetic", **fields})


# --- refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "npp"}, "unknown method 'npp'; did you mean 'npo'"),
        ({"method": "gradient_accent"}, "did you mean 'gradient_ascent'"),
        ({"testbed": "tiiny/synthetic"}, "unknown model preset 'tiiny'; did you mean 'tiny'"),
        ({"testbed": "tiny/synthetik"}, "unknown corpus 'synthetik'; did you mean 'synthetic'"),
        ({"testbed": "tiny"}, "testbed 'tiny' names a model and no corpus; a testbed is called MODEL/CORPUS, e.g. tiny/synthetic"),
        ({"options": {"trainable": "mlp-9-2"}}, "0 <= first <= last"),
        ({"testbed": None}, "testbed must be a string"),
        ({"method": 3}, "method must be a string"),
        ({"precision": "nf3"}, "unknown precision 'nf3'; did you mean 'nf4'"),
        ({"options": {"bata": 0.1}}, "unknown option 'bata'; did you mean 'beta'"),
        ({"options": {"lr": "fast"}}, "option 'lr' must be a number, got 'fast'"),
        ({"options": {"lr": True}}, "option 'lr' must be a number"),
        ({"options": {"retain": 1}}, "option 'retain' must be a string"),
        ({"options": {"retain": "kll"}}, "unknown retain term 'kll'; did you mean 'kl'"),
        ({"options": {"trainable": "lora"}}, "unknown trainable 'lora'"),
        ({"options": {"epochs": 0}}, "epochs must be > 0"),
        ({"options": {"beta": 0}}, "beta must be > 0"),
        ({"options": {"lr": float("nan")}}, "lr must be >= 0"),
        ({"options": ["lr"]}, "options must be a mapping"),
        ({"method": "target", "options": {"lr": 1}}, "unknown option 'lr'"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"forget_documents": 5}, r"forget_documents is a share in \(0, 1\], got 5. Did you mean 0.05\?"),
        ({"forget_rows": 50}, r"Did you mean 0.5\?"),
        ({"forget_documents": 0}, "is a share"),
        ({"forget_documents": float("nan")}, "is a share"),
        ({"forget_documents": "all"}, "is a share"),
    ],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        spec(**fields)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_frozen_bases_take_adapters_only(precision):
    for trainable in ("full", "last-1"):
        with pytest.raises(SpecError, match=r"only LoRA adapters .* set the option trainable='lora-16'"):
            spec(precision=precision, options={"trainable": trainable})
    with pytest.raises(SpecError, match="only LoRA adapters"):
        spec(precision=precision)  # the default trains everything
    with pytest.raises(SpecError, match="of 'fila'; use precision='fp32' or 'bf16'"):  # it has no option trainable
        spec(precision=precision, method="fila")
    assert spec(precision=precision, options={"trainable": "lora-16"}).precision == precision
    assert spec(precision=precision, method="target").stages == ()  # nothing is trained


def test_unknown_keys_are_refused_with_the_nearest():
    with pytest.raises(SpecError, match="unknown key 'forget_document'; did you mean 'forget_documents'"):
        Spec.from_dict({"testbed": "test/synthetic", "forget_document": 0.5})
    with pytest.raises(SpecError, match="unknown key 'lr'"):
        Spec.from_dict({"lr": 1})


def test_a_grid_is_for_runs_that_it_lists(capsys, monkeypatch):
    from reprolib import experiment
    from study.__main__ import main

    monkeypatch.setattr(experiment, "run", lambda *_, **__: pytest.fail("a run began"))
    for words in (["run"], ["run", "--all", "--fingerprint", "0" * 12]):
        assert main(words) == 2 and "give --fingerprint for one run of the grid, or --all" in capsys.readouterr().err
    assert main(["run", "--fingerprint", "0" * 12]) == 2 and "no run of the study grid" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status"], ["run", "--all"], ["run", "--fingerprint=0"], ["search", "npo"]])
def test_commands_that_moved_to_the_study_say_so_and_go_on(words, capsys, monkeypatch):
    """Until version 0.2."""
    import reprolib.__main__ as library

    went = []
    point = type("Point", (), {"name": "study", "value": "study.__main__:main", "load": lambda self: lambda w: went.append(w) or 0})()
    monkeypatch.setattr(library, "entry_points", lambda group: [point])
    assert library.main(words) == 0 and went == [words]
    assert f"`reprolib {words[0]}` is now `study {words[0]}`" in capsys.readouterr().err
    monkeypatch.setattr(library, "entry_points", lambda group: [])
    assert library.main(words) == 2 and "which is not installed here" in capsys.readouterr().err


def test_numbers_that_are_not_finite_have_no_fingerprint():
    with pytest.raises(SpecError, match="finite numbers only, got inf"):
        _ = spec(options={"lr": float("inf")}).fingerprint


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().seed = 2


# --- identity -------------------------------------------------------------------------------------------------


def test_fingerprint_is_twelve_hex_digits_and_the_same_in_another_process(tmp_path):
    code = "import os; print(os.getpid(), hash('a')); from conftest import add_test_preset; from reprolib.testbeds.presets import PRESETS; add_test_preset(PRESETS); "
    code += "from reprolib import Spec; print(Spec(testbed='test/synthetic', options={'lr': 0.001, 'beta': 0.2}).fingerprint)"
    # of a server of its own, which draws the seed of its hashes by itself
    done = Started(run_code, code, folder=tmp_path).wait(120)
    assert done.returncode == 0, done.stderr[-3000:]
    number, seeded, there = done.stdout.split()
    here = spec(options={"beta": 0.2, "lr": 1e-3}).fingerprint
    assert int(number) != os.getpid() and (int(seeded) != hash("a") or "PYTHONHASHSEED" in os.environ)
    assert there == here and len(here) == 12 and int(here, 16) >= 0


def test_fingerprint_does_not_hang_on_how_a_setting_is_written():
    base = spec(options={"lr": 1e-3, "epochs": 5})
    for same in (
        spec(options={"epochs": 5, "lr": 1e-3}),
        spec(options={"lr": 0.001, "epochs": 5.0}),
        spec(options=MappingProxyType({"lr": 1e-3, "epochs": 5})),
        spec(options={"lr": 1e-3, "epochs": 5}, forget_documents=1),
        Spec.from_dict(base.to_dict()),
    ):
        assert same.fingerprint == base.fingerprint and same.slug == base.slug


@pytest.mark.parametrize("method", ["npo", "gradient_ascent", "gradient_descent", "gradient_difference"])
def test_defaults_given_explicitly_are_the_same_run(method):
    from reprolib.recipes import recipe

    defaults = dict(recipe(method).defaults)
    assert len(defaults) > 3
    assert spec(method=method).fingerprint == spec(method=method, options=defaults).fingerprint


def test_every_field_makes_another_run():
    lora = {"trainable": "lora-4"}
    specs = [
        spec(), spec(seed=1), spec(method="gradient_difference"), spec(method="gradient_ascent"), spec(method="target"),
        spec(method="twin"), spec(testbed="smoke/synthetic"), spec(forget_documents=0.5), spec(forget_rows=0.5),
        spec(precision="bf16"), spec(options=lora), spec(options=lora, precision="nf4"), spec(options=lora, precision="int8"),
        spec(options={"trainable": "lora-4-4"}), spec(options={"trainable": "last-1"}), spec(options={"lr": 1e-5}),
        spec(options={"epochs": 4}), spec(options={"batch_size": 8}), spec(options={"beta": 0.2}),
        spec(options={"retain": "kl"}), spec(options={"retain_weight": 2}), spec(seed=2),
        spec(suite="wide"), spec(suite="stress"), spec(requests=2),
    ]  # fmt: skip
    for a, b in itertools.combinations(specs, 2):
        assert a.fingerprint != b.fingerprint, (a, b)
    assert {f.name for f in dataclasses.fields(Spec)} == {
        "testbed", "method", "seed", "options", "forget_documents", "forget_rows", "precision", "suite", "requests"
    }, "a new field needs a case above"  # fmt: skip


def test_data_presets_and_versions_are_part_of_the_identity(monkeypatch):
    from reprolib import spec as spec_module
    from reprolib.recipes import npo, recipes
    from reprolib.testbeds import beds, presets

    seen = {spec().fingerprint}

    def another():
        now = spec().fingerprint
        assert now not in seen
        seen.add(now)

    for owner, name in ((spec_module, "TRAINING_VERSION"), (spec_module, "METRICS_VERSION"), (spec_module, "SCHEMA")):
        monkeypatch.setattr(owner, name, 99)
        another()
    monkeypatch.setitem(recipes(), "npo", dataclasses.replace(npo.RECIPE, version=2))
    another()
    monkeypatch.setitem(presets.PRESETS, "test", dataclasses.replace(presets.PRESETS["test"], lr=1e-3))
    another()
    corpus = beds.testbed("test/synthetic").corpus()
    rows = corpus["retain"]
    edited = {**corpus.groups, "retain": (dataclasses.replace(rows[0], output="another answer"), *rows[1:])}
    monkeypatch.setattr(beds, "_corpus", lambda *_: type(corpus)("synthetic", edited))
    another()


def test_order_of_the_rows_of_a_corpus_is_no_part_of_the_identity(monkeypatch):
    from reprolib.testbeds import beds

    before = spec().fingerprint
    corpus = beds.testbed("test/synthetic").corpus()
    turned = type(corpus)("synthetic", {g: rows[::-1] for g, rows in corpus.groups.items()})
    monkeypatch.setattr(beds, "_corpus", lambda *_: turned)
    assert spec().fingerprint == before


def test_a_later_field_at_its_default_keeps_old_fingerprints():
    @dataclasses.dataclass
    class Old:
        a: int = 1

    @dataclasses.dataclass
    class New:
        a: int = 1
        b: int = dataclasses.field(default=2, metadata={"later": True})

    assert plain(New()) == {"is": "New", "a": 1} != plain(New(b=3))
    New.__name__ = "Old"
    assert digest(New()) == digest(Old()) != digest(New(b=3))


def test_canonical_form():
    assert canonical({"b": 1.0, "a": (1, 2.5, None, True)}) == '{"a":[1,2.5,null,true],"b":1}'
    with pytest.raises(SpecError, match="plain values only, got set"):
        canonical({1})


def test_slug():
    assert spec().slug == "s0"
    assert spec(seed=3, options={"trainable": "last-1", "epochs": 2.0}).slug == "s3_epochs-2_trainable-last-1"
    assert spec(forget_documents=0.25, forget_rows=0.5, precision="bf16").slug == "s0_docs-0.25_rows-0.5_bf16"


# --- imports --------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_import_is_quick_and_brings_no_torch():
    code = "import sys, time; t = time.perf_counter(); import reprolib; t = time.perf_counter() - t; "
    code += "print(t, *({'torch', 'transformers', 'numpy', 'peft'} & {m.split('.')[0] for m in sys.modules}))"
    took, *heavy = min(python(code).split() for _ in range(2))
    assert not heavy and float(took) < 1


def test_public_names_resolve():
    import reprolib
    from reprolib.experiment import run

    assert reprolib.run is run and reprolib.Spec is Spec
    assert all(hasattr(reprolib, n) for n in reprolib.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reprolib.nothing


def test_optional_packages_are_not_needed_to_import_the_core():
    python(
        """
import sys
blocked = {"bitsandbytes", "datasets", "matplotlib", "papermill", "seaborn", "pandas", "gguf", "nbformat"}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
try:
    import papermill
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the block does not work")
import reprolib.experiment, reprolib.unlearn, reprolib.evaluate, reprolib.testbeds.memorise, reprolib.adapters
import reprolib.recipes, reprolib.record, reprolib.corpus.lume, reprolib.corpus.synthetic
assert not blocked & {m.split(".")[0] for m in sys.modules}
reprolib.Spec(testbed="smoke/synthetic", method="npo").fingerprint
"""
    )


def test_batch_size_is_whole_and_a_zero_retain_weight_drops_the_retain_rows():
    assert Spec(method="npo", options={"batch_size": 16.0}).fingerprint == Spec(method="npo").fingerprint
    with pytest.raises(SpecError, match="whole number of rows"):
        Spec(method="npo", options={"batch_size": 2.5})
    for method in ("npo", "gradient_difference"):
        (stage,) = Spec(method=method, options={"retain_weight": 0}).stages
        assert stage.objective.retain is None and stage.schedule.pairing == "forget"
