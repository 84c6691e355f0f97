"""Several processes share a run: the same numbers as one alone, with copies of the weights and with shards of them (gloo, on the CPU)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Started, script

ROOT = Path(__file__).resolve().parent.parent


FSDP = {"ACCELERATE_USE_FSDP": "true"}  # as `accelerate launch` sets it for study/gpu/accelerate/fsdp.yaml (on a CPU torch's launcher starts processes)


def start(out: Path, processes: int, **more: str) -> None:
    """tests/processes.py in children of one server, each with what torch's launcher (as in the slow test) sets for its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        env = {k: v for k, v in os.environ.items() if k != "REPROLIB_MICRO_TOKENS"} | {"REPROLIB_DEVICE": "cpu"} | more
        if processes > 1:
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(Started(script, str(ROOT / "tests/processes.py"), str(out), folder=out.parent, environment=env))
    try:
        done = [c.wait() for c in children]
    finally:
        for c in children:
            c.kill()
    assert [d.returncode for d in done] == [0] * processes, "\n".join(d.stderr[-3000:] for d in done)


def launched(out: Path, processes: int, *words: str, **more: str) -> subprocess.CompletedProcess:
    env = os.environ | {"OMP_NUM_THREADS": "1", "REPROLIB_DEVICE": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"} | more
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)) if processes > 1 else ()
    command = [sys.executable, *launcher, *words]
    done = subprocess.run(command, env=env, cwd=out.parent, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out.json"
    start(out, 1)
    return json.loads(out.read_text())


def same(a: dict, b: dict, name: str) -> None:
    assert a["status"] == b["status"] == "done" and a["unchanged"] == b["unchanged"], name
    assert len(a["trajectory"]) == len(b["trajectory"]) > 1
    for p, q in zip([*a["trajectory"], {k: a[k] for k in ("forget", "retain")}], [*b["trajectory"], {k: b[k] for k in ("forget", "retain")}], strict=True):
        for k, v in p.items():
            assert q[k] == (pytest.approx(v, rel=1e-4, abs=1e-5) if isinstance(v, float) else v), f"{name}, {k}"


def test_two_processes_with_copies_give_what_one_gives(alone, tmp_path):
    start(tmp_path / "out.json", 2)
    both = json.loads((tmp_path / "out.json").read_text())
    assert (alone["processes"], both["processes"]) == (1, 2)
    names = [k for k in alone if isinstance(alone[k], dict)]
    assert len(names) == 11
    for name in names:
        same(alone[name], both[name], name)
        assert alone[name]["forget"] != alone[name]["trajectory"][0]["forget"], f"{name} changed nothing"


def test_two_processes_with_shards_give_what_one_gives(alone, tmp_path):
    start(tmp_path / "out.json", 2, **FSDP)
    both = json.loads((tmp_path / "out.json").read_text())
    assert both["sharded"] and not alone["sharded"]
    for name in ("full", "lora"):
        same(alone[name], both[name], name)
        assert both[name]["held"] == both[name]["copied"] < 0.6, "each process holds about half, and copies what it holds"
    assert "under FSDP no process holds whole weights" in both["refused"]


@pytest.mark.slow
def test_a_run_of_two_processes_makes_one_record(tmp_path):
    """From nothing: the first process trains the models, both unlearn and evaluate, the first writes."""
    from reprolib.record import read

    run = ("-m", "reprolib", "run", "npo", "--testbed", "smoke/synthetic")
    env = {"REPROLIB_CACHE": str(tmp_path / "cache")}
    one = json.loads(launched(tmp_path / "x", 1, *run, REPROLIB_RESULTS=str(tmp_path / "one"), **env).stdout)
    two = json.loads(launched(tmp_path / "x", 2, *run, REPROLIB_RESULTS=str(tmp_path / "two"), REPROLIB_CACHE=str(tmp_path / "other")).stdout)
    assert {k: v for k, v in two.items() if k != "record"} == pytest.approx({k: v for k, v in one.items() if k != "record"}, abs=1e-3)
    assert read(Path(two["record"])).provenance["machine"]["ranks"] == "2, data parallel"


def test_the_configurations_are_what_the_tests_and_the_playbook_say():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {}
    for name in ("fsdp", "data_parallel"):
        file = ROOT / f"study/gpu/accelerate/{name}.yaml"
        kinds[name] = load_config_from_file(str(file)).distributed_type.value
        assert f"--config_file study/gpu/accelerate/{name}.yaml -m reprolib run" in file.read_text()
    assert kinds == {"fsdp": "FSDP", "data_parallel": "MULTI_GPU"}


def test_each_process_loads_onto_a_gpu_of_its_own(monkeypatch):
    from reprolib.models import device

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert device.own_gpu() == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.own_gpu() == "cuda:3"
