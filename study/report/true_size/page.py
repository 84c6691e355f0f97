"""The page of runs at true size: what there is, what is missing, every run, and where it was made."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from IPython.display import HTML

from study.readings.twin import between
from study.report import style
from study.report.tables import Table, number
from study.report.true_size.files import COLUMNS, folder, read_json, runs, told
from study.report.words import say

STEPS = {  # of the playbook, and the testbed of each
    "olmo-1b": "olmo-1b-scratch/lume",
    "olmo-7b": "olmo-7b-scratch/lume",
    "smollm2": "smollm2/lume",
    "smollm2-semeval": "smollm2/semeval",
}

HUB = {  # the same for steps that need weights from the hub
    "olmo-1b-semeval": "olmo-1b-semeval/semeval", "olmo-7b-semeval": "olmo-7b-semeval/semeval",
    "olmo-1b-0724": "olmo-1b-0724/semeval", "olmo-7b-0724": "olmo-7b-0724/semeval",
}  # fmt: skip


def answer(base: Path | str | None = None) -> Any:
    """What there is; of what is missing, which commands make it."""
    found = runs(base)
    there = {r.spec.testbed for r in found}
    missing, pretrained = (
        [step for step, bed in steps.items() if bed not in there] for steps in (STEPS, HUB)
    )
    lines = [told(base)]
    if missing:
        lines.append(
            f"Missing: {', '.join(f'`{m}`' for m in missing)}. On a machine with one GPU of 141 GB (80 GB"
            " for all but `olmo-7b`), from the root of the repository, `python -m study.gpu run"
            f" {' '.join(missing)}` makes them; `study/gpu/README.md` says what it needs and how long it"
            " takes. "
            + ("Of these nothing is known yet." if found else "Until then this page has nothing to show.")
        )
    if pretrained:
        lines.append(
            f"Where weights can be downloaded, also missing: {', '.join(f'`{m}`' for m in pretrained)},"
            " the organisers' own targets and the published models (`python -m study.gpu run"
            f" {' '.join(pretrained)}`)."
        )
    return say(
        "```{admonition} The answer\n:class: "
        + ("warning" if missing else "tip")
        + "\n"
        + "\n\n".join(lines)
        + "\n```"
    )


OFFICIAL = {"official/final": "official final", "official/mmlu": "MMLU"}  # of pretrained models


def results(base: Path | str | None = None) -> Any:
    """Every run beside its twin, the closest first within a testbed; a sentence where there is none."""
    found = runs(base)
    twins = {(r.spec.testbed, r.spec.seed): r for r in found if r.spec.method == "twin"}
    rows, asked = [], any("official/final" in r.metrics for r in found)
    for r in found:
        s, m = r.spec, r.metrics
        twin = twins.get((s.testbed, s.seed))
        rows.append(
            {
                "model": s.testbed,
                "method": style.label(s.method),
                "seed": s.seed,
                "precision": s.precision,
                "options": ", ".join(f"{k} {v}" for k, v in sorted(s.options.items())) or "–",
                "distance": number(between(r, twin)) if twin else "–",
                "forget q.": number(m["forget/questions"]),
                "AUC": number(m["attack/auc"]),
                "retain q.": number(m["retain/questions"]),
                "world q.": number(m["world/accuracy"]),
                **(
                    {head: number(math.nan if m.get(k) is None else m[k]) for k, head in OFFICIAL.items()}
                    if asked
                    else {}
                ),
                "status": r.status,
            }
        )
    if not rows:
        return say("No runs yet.")
    rows.sort(key=lambda row: (row["model"], row["distance"] == "–", row["distance"]))
    return Table.of(
        rows,
        caption=(
            "All runs at true size, the closest to the twin of the same model first. One seed each unless"
            " more are listed: no intervals."
        ),
    )


def stamp(base: Path | str | None = None, kinds: Sequence[str] = tuple(COLUMNS)) -> Any:
    """Provenance: GPU, driver, versions and commit of all files of these kinds; nothing where there are
    none.
    """
    files = [p for kind in kinds for p in sorted((folder(base) / kind).rglob("*.json"))]
    made = [read_json(p)["provenance"] for p in files]
    if not made:
        return None
    facts = {
        "files": [f"{len(files)} in {', '.join(f'results/gpu/{k}' for k in kinds)}"],
        "GPU": [m["machine"].get("gpu") or f"none: {m['machine'].get('cpu')}" for m in made],
        "driver": [m["machine"].get("driver") for m in made],
        "CUDA": [m["machine"].get("cuda") for m in made],
        "versions": [", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items() if v) for m in made],
        "commit": [str(m["commit"])[:10] + (" with local changes" if m.get("dirty") else "") for m in made],
        "made": [m["time"][:10] for m in made],
    }
    said = {k: "; ".join(html.escape(x) for x in sorted({str(x) for x in v if x})) for k, v in facts.items()}
    rows = "".join(f"<tr><th scope='row'>{k}</th><td>{v or 'unknown'}</td></tr>" for k, v in said.items())
    command = "python -m study.gpu list   # the steps, and what is done"
    return HTML(
        f'<div class="stamp"><div class="scrolls" tabindex="0"><table>{rows}</table></div>'
        f"<p>Steps that make these files again:</p><pre><code>{command}</code></pre></div>"
    )
