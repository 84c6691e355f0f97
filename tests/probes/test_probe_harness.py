"""lm-evaluation-harness as an engine: a task of our own on a tiny model, and what is said when something is missing."""

import builtins
import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_lm

from reprolib.edits.contrast import Contrasted
from reprolib.errors import CorpusError, SpecError
from reprolib.evaluate.passes import Examination
from reprolib.evaluate.subject import Subject
from reprolib.probes import harness as engine

OPTIONS = (("Morvale", "Tarnsby"), ("rye", "salt"), ("an owl", "a kite"), ("wool", "stone"), ("the mill", "the barn"))


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval")


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A folder with one task over a local file, and a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"q": f"Number {n}:", "choices": list(o), "gold": n % 2} for n, o in enumerate(OPTIONS)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "task: own_choices\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path / 'rows.json'}\ntest_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{gold}}"\n'
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    return folder


def by_hand(lm, tokenizer):
    """Accuracy: the option with the larger sum of log-probabilities after the question and a space."""
    hits = []
    for n, options in enumerate(OPTIONS):
        sums = []
        for option in options:
            prompt, answer = (tokenizer(x, add_special_tokens=False).input_ids for x in (f"Number {n}:", f" {option}"))
            with torch.no_grad():
                logp = lm(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            sums.append(sum(logp[len(prompt) - 1 + i, t].item() for i, t in enumerate(answer)))
        hits.append(sums.index(max(sums)) == n % 2)
    return sum(hits) / len(hits)


def test_a_task_of_our_own_gives_what_the_model_prefers(lm_eval, tasks, tokenizer):
    scores = []
    for seed in (0, 1, 2):
        lm = tiny_lm(seed).train()
        found = engine.harness(lm, tokenizer, ["own_choices"], include=tasks, batch_size=3)
        assert lm.training  # left as it was
        assert set(found) == {f"harness/own_choices/{m}" for m in ("acc", "acc_stderr", "n")}
        assert found["harness/own_choices/n"] == 5
        assert found["harness/own_choices/acc"] == by_hand(lm.eval(), tokenizer)
        scores.append(found["harness/own_choices/acc"])
    assert len(set(scores)) > 1
    assert engine.harness(tiny_lm(), tokenizer, "own_choices", limit=2, include=tasks)["harness/own_choices/n"] == 2


def test_an_unknown_task_offers_the_nearest(lm_eval, tasks, tokenizer, corpus, monkeypatch):
    from lm_eval.tasks import manager

    # of lm-eval's own tasks, which lie beside its manager, one folder: all 13,000 files take a quarter of a minute to read
    monkeypatch.setattr(manager, "__file__", str(Path(manager.__file__).parent / "sciq" / "manager.py"))
    subject = Subject(tiny_lm(), Examination.of(corpus, tokenizer), progress=False)
    for wrong, right in (("own_choises", "own_choices"), ("scic", "sciq")):
        asked = engine.probe([wrong], include=tasks)
        with pytest.raises(SpecError, match=f"did you mean '{right}'") as e:
            asked.ask(subject)
        assert len(str(e.value)) < 200 and "Known" not in str(e.value), "the thousands that there are, are not listed"
    assert asked.suite == "data" and asked.name == "harness"


def test_data_out_of_reach(lm_eval, tasks, tokenizer):
    (tasks / "own.yaml").write_text((tasks / "own.yaml").read_text().replace("rows.json", "absent.json"))
    with pytest.raises(CorpusError, match=r"data of own_choices could not be had.*HF_HOME"):
        engine.harness(tiny_lm(), tokenizer, ["own_choices"], include=tasks)


def test_without_lm_eval_the_error_says_what_to_install(monkeypatch, tokenizer):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "lm_eval":
            raise ImportError("No module named 'lm_eval'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SpecError, match=r"pip install 'reprolib\[eval\]'"):
        engine.harness(tiny_lm(), tokenizer)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"tasks": ()}, "one or more names"),
        ({"tasks": [3]}, "one or more names"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 0.5}, "limit is 0.5"),
        ({"batch_size": True}, "batch_size is True"),
    ],
)
def test_bad_input(tokenizer, change, words):
    with pytest.raises(SpecError, match=words):
        engine.harness(tiny_lm(), tokenizer, **change)


def test_several_models_in_one_are_refused(tokenizer):
    with pytest.raises(SpecError, match="transformers models only, got Contrasted"):
        engine.harness(Contrasted(tiny_lm(), tiny_lm(1), 1.0), tokenizer)


def test_only_the_data_s_own_troubles_are_called_so():
    assert engine._unreachable(ConnectionError("x")) and engine._unreachable(FileNotFoundError("x"))
    wrapped = RuntimeError("loading failed")
    wrapped.__cause__ = ConnectionError("x")
    assert engine._unreachable(wrapped)
    assert not engine._unreachable(RuntimeError("x")) and not engine._unreachable(KeyError("x"))


def test_names_of_metrics_with_filters_and_groups():
    found = {
        "results": {
            "t": {"alias": "t", "sample_len": 2, "exact_match,strict": 0.5, "acc,none": 1, "acc_stderr,none": "N/A"},
            "group": {"acc,none": 0.25, "ppl,none": float("nan")},
        },
        "n-samples": {"t": {"original": 9, "effective": 2}},
    }
    assert engine._flat(found) == {
        "harness/t/exact_match@strict": 0.5, "harness/t/acc": 1.0, "harness/t/n": 2.0, "harness/group/acc": 0.25,
    }  # fmt: skip
