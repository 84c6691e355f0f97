"""EleutherAI's lm-evaluation-harness as a second engine: MMLU, WMDP and every other task that it knows.
Optional (``[eval]``).

Its numbers are its own: prompts, tokenisation and answer rules come from the task's file in the installed
version. Its MMLU scores the letters as :mod:`reprolib.probes.mmlu` does but words the prompt differently, so
that the two differ a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from reprolib.errors import CorpusError, SpecError, unknown
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.metrics.card import Card
from reprolib.models.policy import causal_lm
from reprolib.probes.base import Probe

CARDS: dict[str, Card] = {
    "harness": Card(
        name="harness",
        label="lm-evaluation-harness",
        unit="as the task defines it",
        low=None,
        high=None,
        better="higher",
        source="Gao et al., lm-evaluation-harness, and the paper of the task",
        trap=(
            "Mostly higher is better, not for perplexities. On WMDP an unlearned model should be at chance"
            " (0.25), not below."
        ),
    )
}

VERSION = 1  # raise when a number of this probe changes
_CLIENTS = ("datasets", "huggingface_hub", "requests", "httpx", "httpx2", "urllib3", "aiohttp", "fsspec")


def harness(
    lm: nn.Module,
    tokenizer,
    tasks: Sequence[str] = ("mmlu",),
    limit: int | None = None,
    *,
    shots: int | None = None,
    batch_size: int = 8,
    include: str | Path | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Run ``tasks`` (or groups of tasks) on a loaded model: ``{"harness/<task>/<metric>": value}``.

    ``limit``: questions of each task, None for all; ``shots``: worked examples, None for what the task says;
    ``include``: a folder with tasks of your own (YAML). With each metric comes its standard error
    (``..._stderr``, where the task gives one), and with each task the number of questions (``.../n``); groups
    have no ``n``. ``seed`` draws worked examples. Source: lm-evaluation-harness, ``simple_evaluate``.

    Raises :class:`SpecError` if lm-eval is not installed, for an unknown task and for a model that is no
    single transformers model; :class:`CorpusError` if a task's data cannot be had.
    """
    from transformers import PreTrainedModel

    inner = causal_lm(lm)
    if not isinstance(inner, PreTrainedModel):
        raise SpecError(
            f"lm-eval runs transformers models only, got {type(inner).__name__}; leave this probe out for it."
        )
    names = _checked(tasks, limit, batch_size)
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise SpecError(
            f"lm-eval is not installed ({error}); pip install 'reprolib[eval]', or leave these tasks out."
        ) from error
    manager = _manager(names, include)
    was_training = inner.training
    try:
        found = simple_evaluate(
            HFLM(
                pretrained=inner.eval(),
                tokenizer=tokenizer,
                batch_size=batch_size,
                device=str(inner.device),
            ),
            tasks=list(names),
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=1000,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except Exception as error:
        if _unreachable(error):
            raise CorpusError(
                f"the data of {', '.join(names)} could not be had ({type(error).__name__}: {error});"
                " lm-eval fetches it from the Hugging Face hub: connect, or fill the hub's cache"
                " (HF_HOME) beforehand, or give tasks over local files (include)."
            ) from error
        raise
    finally:
        inner.train(was_training)
    return _flat(found)


def _checked(tasks: Sequence[str], limit: int | None, batch_size: int) -> tuple[str, ...]:
    names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not names or not all(isinstance(n, str) and n for n in names):
        raise SpecError(f"tasks is {tasks!r}; give one or more names of lm-eval tasks, e.g. mmlu, wmdp_bio.")
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SpecError(f"{name} is {value!r}; allowed: a whole number of at least 1.")
    return tuple(dict.fromkeys(names))


def _manager(names: Sequence[str], include: str | Path | None):
    """lm-eval's index of tasks; only of one's own where they are all that is asked for, since its own take
    seconds to list.
    """
    from lm_eval.tasks import TaskManager

    if include is not None:
        own = TaskManager(include_path=str(include), include_defaults=False)
        if all(n in own.all_tasks for n in names):
            return own
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in names:
        if name not in manager.all_tasks:
            message = unknown("lm-eval task", name, manager.all_tasks).partition(" Known: ")[
                0
            ]  # there are thousands
            raise SpecError(f"{message} `lm-eval ls tasks` lists them.")
    return manager


def _unreachable(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or any(
            c.__module__.partition(".")[0] in _CLIENTS for c in type(error).__mro__
        ):
            return True
        error = error.__cause__
    return False


def _flat(found: dict[str, Any]) -> dict[str, float]:
    out: dict[str, float] = {}
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")  # "acc,none": metric and answer filter
            if comma and isinstance(value, int | float) and math.isfinite(value):
                out[f"harness/{task}/{metric}" + ("" if chosen == "none" else f"@{chosen}")] = float(value)
        if task in found["n-samples"]:
            out[f"harness/{task}/n"] = float(found["n-samples"][task]["effective"])
    return out


def probe(
    tasks: Sequence[str],
    limit: int | None = None,
    *,
    batch_size: int = 8,
    include: str | Path | None = None,
) -> Probe:
    """lm-eval tasks as a probe of the ``data`` suite."""

    def ask(subject: Subject) -> Evaluation:
        found = harness(
            subject.lm,
            subject.exam.tokenizer,
            tasks,
            limit,
            batch_size=batch_size,
            include=include,
            seed=subject.seed,
        )
        return Evaluation(found, {})

    return Probe(
        name="harness",
        title=f"lm-eval: {', '.join(tasks)}",
        suite="data",
        cost="as the tasks say",
        ask=ask,
    )
