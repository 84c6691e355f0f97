"""The benchmarks run, and both organisations compute the same. Nothing is said about time."""

import json
import os
from pathlib import Path

from conftest import Started, add_test_preset, script, write_less

BENCHMARKS = Path(__file__).resolve().parents[1] / "study" / "benchmarks"


def shortened(path: str, *options: str) -> None:
    """In a child: the script, with the tests' preset; relearning ends after two steps."""
    from reprolib.probes import relearning
    from reprolib.testbeds.presets import PRESETS

    add_test_preset(PRESETS)
    write_less()
    relearning.STEPS = (1, 2)
    script(path, *options)


def start(name: str, *options: str, cache: Path, work=script) -> str:
    environment = {**os.environ, "REPROLIB_CACHE": str(cache), "REPROLIB_DEVICE": "cpu"}
    done = Started(work, str(BENCHMARKS / name), *options, folder=cache, environment=environment).wait()
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text and str(BENCHMARKS.parent) not in text, "an absolute path leaves the machine"
    content = json.loads(text)
    assert content["machine"]["cpu"] and content["versions"]["torch"]
    return content


def test_step(tmp_path):
    out = tmp_path / "step.json"
    printed = start("step.py", "--cases", "minute", "--rounds", "2", "--no-memory", "--out", str(out), cache=tmp_path)
    case = read(out)["cases"]["minute"]
    assert "graddiff" in printed and "npo" in printed
    for objective, others in (("graddiff", {"plain", "plain-hf"}), ("npo", {"plain"})):
        assert set(case[objective]["ratio"]) == others
        assert all(r["rounds"] == 2 and r["low"] <= r["median"] <= r["high"] for r in case[objective]["ratio"].values())
        assert max(case[objective]["largest_relative_difference"].values()) < 1e-5


def test_step_memory_child(tmp_path):
    printed = start("step.py", "--child", "minute", "npo", "plain", cache=tmp_path)
    assert json.loads(printed.strip().splitlines()[-1])["peak"] >= 0


def test_evaluate(tmp_path):
    out = tmp_path / "evaluate.json"
    options = ("--start", "random", "--documents", "1", "--epochs", "1", "--rounds", "1", "--max-new-tokens", "12")
    start("evaluate.py", "--testbed", "test/synthetic", *options, "--out", str(out), cache=tmp_path, work=shortened)
    content = read(out)
    assert set(content["models"]) == {"target", "half unlearned"}
    for model in content["models"].values():
        assert set(model["ratio"]) == {"shipped", "shipped, all generated"}
        gaps = model["largest_difference"]
        assert gaps["score"] == gaps["em"] == gaps["es"] == 0 and gaps["nll"] <= 1e-4


def test_probes(tmp_path):
    out = tmp_path / "probes.json"
    options = ("--testbed", "test/synthetic", "--untrained", "--documents", "1", "--rounds", "1")
    printed = start("probes.py", *options, "--out", str(out), cache=tmp_path, work=shortened)
    content = read(out)
    from reprolib.probes import suite

    probes = {p.name: p for s in ("wide", "stress") for p in suite(s)}
    passes = {"core evaluation", "teacher-forced", "generation", "token statistics"}
    assert {*content["parts"], *content["left_out"]} == {*probes, *passes}
    assert content["settings"]["method"] is None
    parts = content["parts"]
    assert parts["core evaluation"]["ratio"]["median"] == 1
    for name, part in parts.items():
        assert part["seconds"] > 0 and part["ratio"]["rounds"] == 1 and name in printed
        if name in probes:
            assert part["metrics"] > 0 and part["cost"] == probes[name].cost
            assert part["ratio_with_shared"]["median"] >= part["ratio"]["median"]
            assert ("teacher-forced" in part["shares"]) or "generation" not in part["shares"]
    assert parts["fluency"]["shares"] == ["teacher-forced", "generation"] and parts["relearning"]["shares"] == []
    for name, total in content["suites"].items():
        assert total["median"] > max(e["ratio"]["median"] for e in parts.values() if e.get("suite") == name)
