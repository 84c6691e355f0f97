"""What runs at true size on a GPU left under ``results/gpu``, as one table a kind.

``records`` are runs as everywhere else, ``models`` how targets and twins were trained and what they know,
``cost`` time and memory of training steps. A table without files is empty and has its columns.
"""

from study.report.true_size.comparisons import bases, both_sizes, figure, grouped, size, table, what
from study.report.true_size.files import COLUMNS, GIB, folder, read_json, require, runs, tables, told
from study.report.true_size.page import HUB, STEPS, answer, results, stamp

__all__ = [
    "COLUMNS",
    "GIB",
    "HUB",
    "STEPS",
    "answer",
    "bases",
    "both_sizes",
    "figure",
    "folder",
    "grouped",
    "read_json",
    "require",
    "results",
    "runs",
    "size",
    "stamp",
    "table",
    "tables",
    "told",
    "what",
]
