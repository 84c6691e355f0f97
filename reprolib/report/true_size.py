"""What runs at true size on a GPU left under ``results/gpu``, as one table a kind.

``records`` are runs as everywhere else, ``models`` how targets and twins were trained and what they know, ``cost`` time and memory of
training steps. A table without files is empty and has its columns.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprolib.errors import RecordError
from reprolib.record import Record, read, results_dir
from reprolib.report import arms, style
from reprolib.report.page import between, say
from reprolib.report.summary import LADDER
from reprolib.report.tables import Table, number

if TYPE_CHECKING:
    import pandas

GIB = 1 << 30
REMEDY = "Restore it (git checkout), or remove it and run its step again."
MADE = ("gpu", "processes", "commit", "time")
COLUMNS = {
    "records": ("testbed", "method", "seed", "precision", "options", "status", "fingerprint", "wall_s", "peak_gib", *MADE),
    "models": ("testbed", "which", "seed", "parameters", "epochs", "nll", "seconds", "peak_gib", "fit", *MADE),
    "cost": ("case", "model", "method", "precision", "stage", "step_s", "tokens_per_s", "mfu", "peak_gib", "predicted_gib", *MADE),
}


def folder(base: Path | str | None = None) -> Path:
    """Where results at true size lie, unless told otherwise. The usual folder need not be there yet."""
    if base and not Path(base).is_dir():
        raise RecordError(
            f"{base} is {'a file' if Path(base).exists() else 'not there'}; allowed: a folder with records/, models/ or cost/. "
            "Give one, or nothing for results/gpu."
        )
    return Path(base) if base else results_dir() / "gpu"


def tables(base: Path | str | None = None) -> dict[str, pandas.DataFrame]:
    """Kind -> table, a row a file (in ``cost`` a row a stage); metrics in columns after the named ones."""
    import pandas

    out = {}
    for kind, rows_of in ROWS.items():
        rows = [row for path in sorted((folder(base) / kind).rglob("*.json")) for row in rows_of(path)]
        frame = pandas.DataFrame(rows)
        more = [c for c in frame.columns if c not in COLUMNS[kind]]
        out[kind] = frame.reindex(columns=[*COLUMNS[kind], *more])
    return out


def told(base: Path | str | None = None) -> str:
    """In a sentence, what there is."""
    found = tables(base)
    if all(t.empty for t in found.values()):
        return f"No results at true size are part of this study yet: {base or 'results/gpu'} holds none."
    gpus = sorted({g for t in found.values() for g in t["gpu"].dropna()})
    words = ("runs", "models", "rows of cost")
    counts = ", ".join(f"{len(t)} {word}" for t, word in zip(found.values(), words, strict=True))
    return f"At true size there are: {counts}; made on {' and '.join(gpus) or 'no GPU'}."


def _record(path: Path) -> list[dict[str, Any]]:
    r = read(path)
    s = r.spec
    own = {"testbed": s.testbed, "method": s.method, "seed": s.seed, "precision": s.precision, "options": dict(s.options)}
    cost = {"wall_s": r.cost.get("wall_s"), "peak_gib": _gib(r.cost.get("peak_bytes"))}
    return [own | {"status": r.status, "fingerprint": r.fingerprint} | cost | _made(r.provenance) | r.metrics]


def _model(path: Path) -> list[dict[str, Any]]:
    raw = read_json(path, "testbed", "which", "seed", "parameters", "training", "unfit", "metrics")
    own = {k: raw.get(k) for k in ("testbed", "which", "seed", "parameters", "seconds")}
    log = raw["training"]
    own |= {"epochs": len(log), "nll": log[-1]["nll"] if log else None, "peak_gib": _gib(raw.get("peak_bytes")), "fit": not raw["unfit"]}
    return [own | _made(raw["provenance"]) | raw["metrics"]]


def _cost(path: Path) -> list[dict[str, Any]]:
    """A row a stage of training; one row for the GPU's own ceilings and for each comparison, whose numbers the file holds."""
    raw = read_json(path, "name", "case.model", "case.method", "case.precision")
    own = {"case": raw["name"], **{k: raw["case"][k] for k in ("model", "method", "precision")}}
    if "stages" not in raw:
        own |= {k: raw[k] for k in ("bf16_tflops", "copy_gb_s", "ratio", "seconds", "peak_bytes") if k in raw}
        return [own | _made(raw["provenance"])]
    require(path, raw, "peak_bytes", "predicted_peak_bytes")
    own |= {"peak_gib": _gib(raw["peak_bytes"]), "predicted_gib": _gib(raw["predicted_peak_bytes"])}
    return [own | {k: s[k] for k in ("stage", "step_s", "tokens_per_s", "mfu")} | _made(raw["provenance"]) for s in raw["stages"]]


ROWS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    "records": _record, "models": _model, "cost": _cost,
}  # fmt: skip


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """A file's content, with its provenance and the ``needed`` keys in it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. {REMEDY}") from error
    require(path, raw, *needed, "provenance.machine", "provenance.commit", "provenance.time")
    return raw


def require(path: Path, raw: Any, *needed: str) -> None:
    """Refuse what a file holds if one of these keys is not in it (``case.method``: a key within a key)."""

    def has(name: str) -> bool:
        inner = raw
        for key in name.split("."):
            if not isinstance(inner, dict) or key not in inner:
                return False
            inner = inner[key]
        return True

    if missing := [k for k in needed if not has(k)]:
        raise RecordError(f"{path} lacks {', '.join(missing)}. {REMEDY}")


def _made(provenance: Mapping[str, Any]) -> dict[str, Any]:
    machine = provenance["machine"]
    return {"gpu": machine.get("gpu"), "processes": machine.get("processes", 1)} | {k: provenance[k] for k in ("commit", "time")}


def _gib(size: float | None) -> float | None:
    return None if size is None else round(size / GIB, 2)


# --- the page -------------------------------------------------------------------------------------------------

STEPS = {  # of the playbook, and the testbed of each
    "olmo-1b": "olmo-1b-scratch/lume", "olmo-7b": "olmo-7b-scratch/lume", "smollm2": "smollm2/lume", "smollm2-semeval": "smollm2/semeval",
}  # fmt: skip
HUB = {  # the same for steps that need weights from the hub
    "olmo-1b-semeval": "olmo-1b-semeval/semeval", "olmo-7b-semeval": "olmo-7b-semeval/semeval",
    "olmo-1b-0724": "olmo-1b-0724/semeval", "olmo-7b-0724": "olmo-7b-0724/semeval",
}  # fmt: skip


def runs(base: Path | str | None = None) -> list[Record]:
    return [read(path) for path in sorted((folder(base) / "records").rglob("*.json"))]


def answer(base: Path | str | None = None) -> Any:
    """What there is; of what is missing, which commands make it."""
    found = runs(base)
    there = {r.spec.testbed for r in found}
    missing, pretrained = ([step for step, bed in steps.items() if bed not in there] for steps in (STEPS, HUB))
    lines = [told(base)]
    if missing:
        lines.append(
            f"Missing: {', '.join(f'`{m}`' for m in missing)}. On a machine with one GPU of 141 GB (80 GB for all but `olmo-7b`), from the root of the "
            f"repository, `python -m gpu run {' '.join(missing)}` makes them; `gpu/README.md` says what it needs and how long it takes. "
            + ("Of these nothing is known yet." if found else "Until then this page has nothing to show.")
        )
    if pretrained:
        lines.append(
            f"Where weights can be downloaded, also missing: {', '.join(f'`{m}`' for m in pretrained)}, the organisers' own targets and the published models "
            f"(`python -m gpu run {' '.join(pretrained)}`)."
        )
    return say("```{admonition} The answer\n:class: " + ("warning" if missing else "tip") + "\n" + "\n\n".join(lines) + "\n```")


OFFICIAL = {"official/final": "official final", "official/mmlu": "MMLU"}  # of pretrained models


def results(base: Path | str | None = None) -> Any:
    """Every run beside its twin, the closest first within a testbed; a sentence where there is none."""
    found = runs(base)
    twins = {(r.spec.testbed, r.spec.seed): r for r in found if r.spec.method == "twin"}
    rows, asked = [], any("official/final" in r.metrics for r in found)
    for r in found:
        s, m = r.spec, r.metrics
        twin = twins.get((s.testbed, s.seed))
        rows.append({
            "model": s.testbed, "method": style.label(s.method), "seed": s.seed, "precision": s.precision,
            "options": ", ".join(f"{k} {v}" for k, v in sorted(s.options.items())) or "–",
            "distance": number(between(r, twin)) if twin else "–", "forget q.": number(m["forget/questions"]),
            "AUC": number(m["attack/auc"]), "retain q.": number(m["retain/questions"]), "world q.": number(m["world/accuracy"]),
            **({head: number(math.nan if m.get(k) is None else m[k]) for k, head in OFFICIAL.items()} if asked else {}),
            "status": r.status,
        })  # fmt: skip
    if not rows:
        return say("No runs yet.")
    rows.sort(key=lambda row: (row["model"], row["distance"] == "–", row["distance"]))
    return Table.of(rows, caption="All runs at true size, the closest to the twin of the same model first. One seed each unless more are listed: no intervals.")


def stamp(base: Path | str | None = None, kinds: Sequence[str] = tuple(COLUMNS)) -> Any:
    """Provenance: GPU, driver, versions and commit of all files of these kinds; nothing where there are none."""
    from IPython.display import HTML

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
    rows = "".join(
        f"<tr><th scope='row'>{k}</th><td>{'; '.join(html.escape(str(x)) for x in sorted({str(x) for x in v if x})) or 'unknown'}</td></tr>"
        for k, v in facts.items()
    )
    command = "python -m gpu list   # the steps, and what is done"
    return HTML(
        f'<div class="stamp"><div class="scrolls" tabindex="0"><table>{rows}</table></div>'
        f"<p>Steps that make these files again:</p><pre><code>{command}</code></pre></div>"
    )


# --- comparisons -----------------------------------------------------------------------------------------------

SIZES = {"olmo-1b": "1B", "olmo-7b": "7B"}  # how a model's name begins -> its size
KINDS = {"-0724": " (pretrained)", "-semeval": " (organisers' target)"}  # how it ends -> what it began with; else random weights
BITS = {"nf4": "4 bits", "int8": "8 bits"}


RATES = ("phase2_lr", "lr")  # of an arm, the first that a run names


def further(record: Record) -> str:
    """The options that make a run of another arm than those that differ from it in rate only, e.g. settings as published."""
    return "".join(f", {k} {v:g}" if isinstance(v, float) else f", {k} {v}" for k, v in sorted(record.spec.options.items())
                   if k not in (*RATES, "trainable"))  # fmt: skip


def what(record: Record) -> str:
    """Method, its options, weights that move and the base's precision: what two runs have in common that differ in size, rate or seed."""
    s = record.spec
    trainable = str(s.options.get("trainable", ""))
    kind, _, rest = trainable.partition("-")
    moved = "LoRA " + rest.replace("-", "/") if kind == "lora" else f"last {rest} blocks" if kind == "last" else trainable.replace("full", "")
    return ", ".join(x for x in (style.label(s.method) + further(record), moved, "" if s.precision == "fp32" else BITS.get(s.precision, s.precision)) if x)


def grouped(records: Sequence[Record], label: Callable[[Record], str | None]) -> dict[str, arms.Arm]:
    """Runs as arms: those with one label differ in learning rate and seed. Without a label, or a twin of its own, a run is left out."""
    twins = {(r.spec.testbed, r.spec.seed): r for r in records if r.spec.method == "twin"}
    found: dict[str, dict[str, list[Record]]] = {}
    for r in records:
        name = label(r)
        if name is not None and r.spec.method not in LADDER and (r.spec.testbed, r.spec.seed) in twins:
            options = {k: v for k, v in r.spec.options.items()}
            found.setdefault(name, {}).setdefault(json.dumps(options, sort_keys=True), []).append(r)
    out = {}
    for name, settings in found.items():
        own = [
            arms.Setting(
                next((same[0].spec.options[k] for k in RATES if k in same[0].spec.options), None), tuple(same),
                tuple(arms.kept(r) for r in same),
                tuple(between(r, twins[r.spec.testbed, r.spec.seed]) for r in same),
            )
            for same in settings.values()
        ]  # fmt: skip
        out[name] = arms.Arm(name, settings[next(iter(settings))][0].spec.method, tuple(own))
    return out


def size(record: Record) -> str | None:
    """1B or 7B; None for a model of another family."""
    return next((s for name, s in SIZES.items() if record.spec.testbed.startswith(name)), None)


def both_sizes(base: Path | str | None = None) -> dict[str, arms.Arm]:
    """What was run on OLMo-1B and on OLMo-7B of the same kind (:data:`KINDS`), one below the other."""
    every = grouped(runs(base), lambda r: f"{what(r)}{_kind(r)}: {size(r)}" if size(r) else None)
    names = {label.rpartition(": ")[0] for label in every}
    both = sorted(n for n in names if all(f"{n}: {s}" in every for s in SIZES.values()))
    return {f"{n}: {s}": every[f"{n}: {s}"] for n in both for s in SIZES.values()}


def _kind(record: Record) -> str:
    model = record.spec.testbed.partition("/")[0]
    return next((kind for end, kind in KINDS.items() if model.endswith(end)), "")


def bases(base: Path | str | None = None) -> dict[str, arms.Arm]:
    """LoRA of rank 64 and alpha 16 on a base in each precision, for every model and method of which there are two precisions or more."""
    found = [r for r in runs(base) if r.spec.options.get("trainable") == "lora-64-16"]

    def about(r: Record) -> str:
        return f"{r.spec.testbed.partition('/')[0]}: {style.label(r.spec.method)}{further(r)}"

    precisions: dict[str, set[str]] = {}
    for r in found:
        precisions.setdefault(about(r), set()).add(r.spec.precision)
    twins = [r for r in runs(base) if r.spec.method == "twin"]
    every = grouped([*twins, *found], lambda r: f"{about(r)}, {r.spec.precision}" if len(precisions.get(about(r), ())) > 1 else None)
    return dict(sorted(every.items()))


def figure(found: Mapping[str, arms.Arm], caption: str) -> Any:
    """The arms as dots, or a sentence that there are none and which command makes them."""
    if not found:
        return say("Nothing was measured at true size yet: `python -m gpu run olmo-1b olmo-7b` makes these runs, see `gpu/README.md`.")
    return style.show(*arms.figure(found), caption)


def table(found: Mapping[str, arms.Arm]) -> Any:
    """Every setting of the arms; nothing where there are none."""
    return arms.table(found) if found else None
