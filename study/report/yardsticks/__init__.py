"""How the field's metrics order the same models, and which of them can be trusted."""

from study.report.yardsticks.definitions import ATTACKS, BENCHES, YARDSTICKS, interval, value
from study.report.yardsticks.judging import (
    BUILT,
    CONTROL,
    MEASURE,
    OPEN,
    ROLES,
    SUITES,
    Pool,
    direction,
    effect,
    left_open,
    pool,
    single,
    verdicts,
)
from study.report.yardsticks.metric_page import chart, metric_answer, metric_table
from study.report.yardsticks.page import answer
from study.report.yardsticks.ranking import (
    WHOLES,
    agreement,
    agreements,
    attacks,
    hidden_from_loss,
    least,
    matrix,
    orders,
    tau,
)
from study.report.yardsticks.redrawn import beats, behind_first, gap_closed, rank_table, ranked, stability
from study.report.yardsticks.relearnt import lasting, lasting_table
from study.report.yardsticks.tables import off, table

__all__ = [
    "ATTACKS",
    "BENCHES",
    "BUILT",
    "CONTROL",
    "MEASURE",
    "OPEN",
    "ROLES",
    "SUITES",
    "WHOLES",
    "YARDSTICKS",
    "Pool",
    "agreement",
    "agreements",
    "answer",
    "attacks",
    "beats",
    "behind_first",
    "chart",
    "direction",
    "effect",
    "gap_closed",
    "hidden_from_loss",
    "interval",
    "lasting",
    "lasting_table",
    "least",
    "left_open",
    "matrix",
    "metric_answer",
    "metric_table",
    "off",
    "orders",
    "pool",
    "rank_table",
    "ranked",
    "single",
    "stability",
    "table",
    "tau",
    "value",
    "verdicts",
]
