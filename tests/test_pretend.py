"""The pretended GPU: it refuses what a GPU refuses, computes what the CPU computes, and counts what is alive.

It changes torch for good, so that all parts below run in a process of their own, which says what it found as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Started, module, run_code

ROOT = Path(__file__).resolve().parent.parent


HEAD = """
import json, sys
sys.path.insert(0, ".")
import torch, torch.nn.functional as F
from torch import nn
from study.gpu import pretend
pretend.install()
from reprolib.models import device
found = {}
def error(work):
    try:
        work()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return "done"
"""


DEVICES = """
here, there = torch.ones(3, 4), torch.ones(3, 4, device="cuda")
numbers, mask = torch.tensor([0, 2], device="cuda"), torch.tensor([True, False, True])
found["refused"] = {
    "sum": error(lambda: here + there), "product": error(lambda: there @ here.T), "in place": error(lambda: here.add_(there)),
    "index": error(lambda: here[numbers]), "embedding": error(lambda: F.embedding(numbers, here)), "numpy": error(lambda: there.numpy()),
    "generator": error(lambda: torch.randn(3, device="cuda", generator=torch.Generator())), "loss": error(lambda: F.mse_loss(there, here)),
    "cat": error(lambda: torch.cat([here, there])), "linear": error(lambda: nn.Linear(4, 2)(there)),
}
found["taken"] = {
    "number": (there * 2 + torch.tensor(1.0)).tolist() == [[3.0] * 4] * 3, "mask": there[mask].shape == (2, 4), "rows": there[torch.tensor([1])].shape == (1, 4),
    "copy": here.clone().copy_(there).device.type == "cpu", "put": there.clone().copy_(here).is_cuda, "back": there.cpu().numpy().tolist() == [[1.0] * 4] * 3,
    "context": device.accelerator().device.type == "cuda" and device.on_gpu() and device.has_bf16(), "like": torch.zeros_like(there).device == there.device,
    "to other": here.to(there).is_cuda and there.to(here).device.type == "cpu", "as it is": there.to("cuda") is there, "type": there.to("cpu", torch.float64).dtype == torch.float64,
    "tensor": torch.tensor([1.0, 2.0], device="cuda").is_cuda, "list": torch.tensor([1, 2], device="cuda").tolist() == [1, 2],
}
with torch.device("cuda"):
    found["taken"]["made there"] = torch.empty(2).is_cuda and nn.Linear(2, 2).weight.is_cuda
"""


TRAINING = """
a, b = nn.Linear(8, 8), nn.Linear(8, 8)
b.weight = a.weight
lm = nn.Sequential(a, b)
before = a.weight
lm.to("cuda")
import copy
again = copy.deepcopy(copy.deepcopy(lm))
found["copies"] = all(torch.equal(p, q) and p.data_ptr() != q.data_ptr() and isinstance(q, nn.Parameter) and q.is_cuda and q.requires_grad
                      for p, q in zip(lm.parameters(), again.parameters(), strict=True)) and again[0].weight is again[1].weight
found["same parameter"] = a.weight is before and b.weight is before and isinstance(before, nn.Parameter) and before.is_cuda
x = torch.randn(4, 8, device="cuda")
with torch.autocast("cuda", torch.bfloat16):
    y = lm(x)
    found["autocast"] = [str(t.dtype) for t in (y, F.softmax(y, -1), y.sum(), F.layer_norm(y, (8,)), y.relu())]
    with torch.autocast("cuda", enabled=False):
        found["off"] = str(lm(x).dtype)
y.float().sum().backward()
found["gradient"] = before.grad.is_cuda and before.grad.dtype == torch.float32
found["norm"] = nn.utils.clip_grad_norm_(lm.parameters(), 1e9).is_cuda
def trained(where):
    torch.manual_seed(0)
    lm = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)).to(where)
    own = torch.optim.AdamW(lm.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        own.zero_grad()
        F.cross_entropy(lm(torch.ones(2, 8, device=where)), torch.tensor([0, 2], device=where)).backward()
        own.step()
    return [p.detach().cpu() for p in lm.parameters()]
found["as on the CPU"] = all(torch.equal(p, q) for p, q in zip(trained("cpu"), trained("cuda")))
"""


COUNTING = """
held = torch.cuda.memory_allocated
def part():
    start = held()
    x = torch.zeros(1024, device="cuda")
    view = x[:10].reshape(2, 5)
    found["one"] = held() - start
    y = x + 1
    found["two"] = held() - start
    del x, y
    found["a view keeps all"] = held() - start
    del view
    found["none"] = held() - start
    torch.cuda.reset_peak_memory_stats()
    w = torch.ones(256, 256, device="cuda", requires_grad=True)
    (w * 2).exp().sum().backward()
    found["peak"] = torch.cuda.max_memory_allocated() - start
    found["after"] = held() - start
    found["small"] = (torch.zeros(1, device="cuda"), held() - start)[1] - found["after"]
part()
"""


HOLLOW = """
def part():
    pretend.hollow = True
    base = held()
    w = torch.ones(4096, 4096, device="cuda")
    found["no numbers"] = w.inner.is_meta
    found["bytes"] = held() - base
    mask = torch.zeros(4096, dtype=torch.bool, device="cuda")
    mask[3] = mask[5] = True
    found["chosen"] = list(w[mask].shape)
    found["finite"] = bool(torch.isfinite(w).all())
    found["whole numbers"] = torch.arange(5, device="cuda").tolist()
    found["apart"] = error(lambda: w + torch.ones(4096, 4096))
    lin = nn.Linear(4096, 4096).to("cuda")
    F.cross_entropy(lin(w), torch.zeros(4096, dtype=torch.long, device="cuda")).backward()
    found["hollow gradient"] = list(lin.weight.grad.shape)
    found["number"] = w.sum().item()
part()
"""


LOOP = """
import os
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, OlmoConfig
from study.gpu import cost
cost.ROWS, cost.TOKENS, cost.LABELS = 4, 32, 8
from reprolib.recipes import recipe
from reprolib.unlearn import unlearn
config = OlmoConfig(vocab_size=304, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, eos_token_id=0, pad_token_id=1)
def weights(method, options, where, bf16):
    AcceleratorState._reset_state(True)
    os.environ["REPROLIB_DEVICE"] = where
    torch.cuda.is_bf16_supported = lambda *_, **__: bf16
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    stages = recipe(method).build({"epochs": 1, **options})
    lm, outcome = unlearn(lm, stages, cost.even_rows(304, 0), cost.even_rows(304, 1), seed=0, points=0, progress=False)
    assert outcome.status == "done"
    return next(lm.parameters()).device.type, {k: v.detach().cpu() for k, v in lm.named_parameters()}
def apart(a, b):
    return max(float((a[k] - b[k]).abs().max()) for k in a)
for method, options in (("npo", {"trainable": "lora-4"}), ("gradient_difference", {}), ("libu", {"trainable": "lora-4", "phase2_epochs": 1}), ("fila", {"rank": 4})):
    here, there = weights(method, options, "cpu", False), weights(method, options, "", False)
    found[method] = [here[0], there[0], apart(here[1], there[1])]
found["methods"] = {k: found.pop(k) for k in ("npo", "gradient_difference", "libu", "fila")}
found["rounded"] = apart(here[1], weights(method, options, "", True)[1])
"""


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("REPROLIB_", "GPU_"))} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    parts = (HEAD, DEVICES, TRAINING, COUNTING, LOOP, HOLLOW, "print(json.dumps(found))")
    done = Started(run_code, "\n".join(parts), folder=tmp_path_factory.mktemp("found"), environment=environment(), cwd=ROOT).wait()
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_gpu_refuses_and_what_it_takes(found):
    refused = found["refused"]
    for name in ("sum", "product", "in place", "index", "embedding", "loss", "cat", "linear"):
        assert refused[name].startswith("RuntimeError: Expected all tensors to be on the same device"), (name, refused[name])
    assert refused["numpy"].startswith("TypeError") and "Tensor.cpu()" in refused["numpy"]
    assert "generator" in refused["generator"]
    assert all(found["taken"].values()), found["taken"]


def test_training_there_is_training(found):
    assert found["same parameter"] and found["copies"] and found["gradient"] and found["norm"] and found["as on the CPU"]
    low, high = "torch.bfloat16", "torch.float32"
    assert found["autocast"] == [low, high, high, high, low] and found["off"] == high


def test_bytes_alive_are_counted(found):
    assert (found["one"], found["two"], found["a view keeps all"], found["none"]) == (4096, 8192, 4096, 0)
    square = 4 * 256 * 256  # w, w * 2 and exp(w * 2) while the last is made; then the gradient
    assert 3 * square <= found["peak"] <= 4 * square + 4096 and found["after"] == 2 * square
    assert found["small"] == 512, "torch's allocator gives blocks of 512 bytes"


def test_without_numbers_sizes_and_whole_numbers_are_left(found):
    assert found["no numbers"] and found["bytes"] == 4 * 4096**2 and found["number"] == 1.0
    assert found["chosen"] == [2, 4096] and found["finite"] and found["whole numbers"] == [0, 1, 2, 3, 4]
    assert found["apart"].startswith("RuntimeError: Expected all tensors") and found["hollow gradient"] == [4096, 4096]


def test_the_loop_there_ends_with_the_weights_of_the_cpu(found):
    for method, (here, there, apart) in found["methods"].items():
        assert (here, there) == ("cpu", "cuda") and apart < 2e-6, (method, apart)
    assert found["rounded"] > 1e-5, "with bf16 autocast they are others"


PLAYBOOK = ("study.gpu", "run", "--workers", "0", "--pretend", "--rehearse")


def test_playbook_on_a_pretended_gpu(tmp_path):
    done = Started(module, *PLAYBOOK, str(tmp_path), "--jobs", "2", "olmo-7b-cost", folder=tmp_path, environment=environment(), cwd=ROOT).wait()
    assert done.returncode == 0 and "FAILED" not in done.stdout and "nothing is left" in done.stdout, done
    cases = [json.loads(p.read_text()) for p in (tmp_path.with_name(tmp_path.name + "-pretended") / "results" / "cost").rglob("*.json")]
    assert {c["case"]["precision"] for c in cases} == {"nf4", "bf16"}
    for c in cases:
        assert c["gpu"]["name"] == "pretended GPU (a CPU)", "no such record may pass for a GPU's"
        assert 0.8 < c["predicted_peak_bytes"] / c["peak_bytes"] < 1.25


@pytest.mark.slow
def test_all_of_the_playbook_on_a_pretended_gpu(tmp_path):
    from tests.test_gpu import STEPS

    command = [sys.executable, "-m", *PLAYBOOK, str(tmp_path), "--minutes", "60", *STEPS]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "FAILED" not in done.stdout and "nothing is left" in done.stdout, done.stdout + done.stderr[-3000:]


def test_pretending_is_for_rehearsals(capsys):
    from study.gpu.__main__ import main

    with pytest.raises(SystemExit):
        main(["run", "olmo-1b", "--pretend"])
    assert "--rehearse" in capsys.readouterr().err
