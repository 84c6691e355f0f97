"""Whether what a metric says lasts after relearning."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reprolib.metrics import meta, robustness
from reprolib.metrics.resample import Interval, bootstrap
from study.readings import twin
from study.readings.quantities import LADDER
from study.readings.twin import LEVEL
from study.report.tables import Table, number
from study.report.yardsticks.definitions import Study, twins_of, value
from study.report.yardsticks.judging import NOTHING, Verdict
from study.report.yardsticks.tables import cell_of, plain_text

# --- does what a metric says last? --------------------------------------------------------------------------

# Name -> the metric of the core record, the same after rounding to 4 bits, the same along relearning, and how
# to read it.
LASTING: dict[str, tuple[str, str, str, bool]] = {
    "questions answered": (
        "forget/questions",
        "quantization/nf4/forget/questions",
        "relearning/part/{}/questions",
        False,
    ),
    "exact memorisation, answers": (
        "forget/em",
        "quantization/nf4/forget/em",
        "relearning/part/{}/questions_em",
        False,
    ),
    "attack AUC": ("attack/auc", "quantization/nf4/attack/auc", "relearning/part/{}/auc", False),
    "extraction strength": ("forget/es", "quantization/nf4/forget/es", "", False),
    "probability of the answer": ("forget/nll", "quantization/nf4/forget/nll", "", True),
}

RELEARNT = 10  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """Q and R of one metric over unlearned models, and with its faithfulness the overall score. NaN where a
    part was not measured.
    """

    name: str
    metric: str
    models: int
    q: Interval
    r: Interval
    robustness: float
    faithfulness: float
    overall: float


def lasting(core: Study, stress: Study, found: Sequence[Verdict], step: int = RELEARNT) -> list[Lasting]:
    """Stability of metrics under rounding and relearning, over the models that had forgotten in every seed;
    intervals over methods.
    """
    forgot = [m for m in stress if m not in LADDER and twin.group(core, m) == "all"]
    twins, faith = twins_of(stress), {v.metric: v.faithfulness.estimate for v in found}
    cores = {(m, r.spec.seed): r for m in core for r in core[m]}
    out = []
    for name, (plain, rounded, relearnt, loss) in LASTING.items():
        read = (lambda r, k: math.exp(-value(r, k))) if loss else value
        qs, rs, methods_q, methods_r = [], [], [], []
        for m in forgot:
            for r in stress[m]:
                pair = [read(cores[m, r.spec.seed], plain), read(r, rounded)]
                if np.isfinite(pair).all():
                    qs.append(robustness.quantisation_robustness(*pair))
                    methods_q.append(m)
                if relearnt and r.spec.seed in twins:
                    four = [read(x, relearnt.format(s)) for x in (r, twins[r.spec.seed]) for s in (0, step)]
                    if np.isfinite(four).all():
                        rs.append(robustness.relearning_robustness(*four))
                        methods_r.append(m)
        q, r = _over_methods(qs, methods_q), _over_methods(rs, methods_r)
        both = robustness.robustness(r.estimate, q.estimate) if qs and rs else math.nan
        f = faith.get(plain, math.nan)
        whole = meta.overall(f, both) if math.isfinite(both) and math.isfinite(f) else math.nan
        out.append(
            Lasting(
                name=name,
                metric=plain,
                models=len(qs),
                q=q,
                r=r,
                robustness=both,
                faithfulness=f,
                overall=whole,
            )
        )
    return sorted(
        out,
        key=lambda x: (
            not math.isfinite(x.overall),
            -x.overall if math.isfinite(x.overall) else -x.q.estimate,
        ),
    )


def _over_methods(values: Sequence[float], methods: Sequence[str]) -> Interval:
    """Mean over models with an interval from resampling methods: a method's seeds are dependent."""
    if not values:
        return NOTHING
    return bootstrap({"v": np.array(values)}, np.array(methods), lambda c: float(c["v"].mean()), n=1000)


def lasting_table(found: Sequence[Lasting], step: int = RELEARNT) -> Table:
    rows, data = [], []
    for x in found:
        rows.append(
            (
                html.escape(x.name),
                cell_of(x.q),
                cell_of(x.r),
                number(x.robustness),
                number(x.faithfulness),
                number(x.overall),
            )
        )
        data.append(
            {
                "metric": x.metric,
                "models": x.models,
                "Q": plain_text(x.q.estimate),
                "Q_low": plain_text(x.q.low),
                "Q_high": plain_text(x.q.high),
                "R": plain_text(x.r.estimate),
                "R_low": plain_text(x.r.low),
                "R_high": plain_text(x.r.high),
                "robustness": plain_text(x.robustness),
                "faithfulness": plain_text(x.faithfulness),
                "overall": plain_text(x.overall),
            }
        )
    n = max((x.models for x in found), default=0)
    caption = (
        f"Over {n} models that answer at most {100 * LEVEL:.0f} % of the forget questions, of methods that"
        " do so in every seed. Q: the metric before over after rounding to 4 bits (NF4), cut at 1. R:"
        f" what the twin gains in {step} steps of training on a tenth of the forget documents, over what"
        " the model gains, cut at 1. Brackets: 95 % intervals from resampling methods. Robustness:"
        " harmonic mean of the two; overall: of robustness and faithfulness. R is not measured of the"
        " last two, whose values along relearning no record holds."
    )
    return Table(
        ("metric", "Q ↑", "R ↑", "robustness ↑", "faithfulness ↑", "overall ↑"),
        tuple(rows),
        caption,
        data=tuple(data),
    )
