"""Published scores of SemEval-2025 Task 4: recomputed, as a table, as bars and in sentences."""

from __future__ import annotations

import html
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from reprolib.metrics import lume
from study.report import style
from study.report.audit.rows import PARTS, Published
from study.report.audit.wording import bullets, count_word
from study.report.tables import Table
from study.report.words import listed, percent, say


def _groups(data: Published) -> dict[int, str]:
    """Number of the row that a board begins with -> the board's title."""
    groups: dict[int, str] = {}
    seen = set()
    for n, r in enumerate(data.rows):
        board = next(b for b in data.boards if (b["track"], b["board"]) == (r.track, r.board))
        own = sum((x.track, x.board) == (r.track, r.board) for x in data.rows)
        if board["title"] not in seen:
            groups[n] = f"{board['title']} ({own} of {board['of']} rows)"
        seen.add(board["title"])
    return groups


def table(data: Published) -> Table:
    """Every published row, its final score recomputed from its parts, and what a destroyed model with the
    same MMLU gets.
    """
    rows, plain = [], []
    for r in data.rows:
        check = "✓" if r.agrees else '<span class="diverged">differs</span>'
        place = f"{r.rank}. " if r.rank else ""
        rows.append(
            (
                html.escape(place + r.team),
                f"{r.task:.3f}",
                f"{r.mia:.3f}",
                f"{r.mmlu:.3f}",
                f"{r.final:.3f}",
                f"{r.recomputed:.4f}",
                f"{_signed(r.difference, 4)} {check}",
                _signed(r.recomputed - r.destroyed, 3),
            )
        )
        plain.append(
            {
                "track": r.track,
                "board": r.board,
                "rank": r.rank or "",
                "team": r.team,
                "task": r.task,
                "mia": r.mia,
                "mmlu": r.mmlu,
                "final": r.final,
                "recomputed": round(r.recomputed, 5),
                "difference": round(r.difference, 5),
                "agrees": r.agrees,
                "eligible": r.eligible,
                "destroyed_same_mmlu": round(r.destroyed, 5),
                "no_more_than_destroyed": r.below,
                "letter": data.letter(r.mmlu),
            }
        )
    header = ("team", "task", "MIA", "MMLU", "final", "mean", "difference", "margin")
    help_ = {
        "task": "Task aggregate: harmonic mean of twelve scores.",
        "MIA": "MIA score: 1 - 2 |AUC - 0.5|.",
        "final": "As printed.",
        "mean": "(task + MIA + MMLU) / 3, from the printed parts.",
        "difference": "The mean minus the printed final score; ✓ if rounding explains it.",
        "margin": (
            "The mean minus (0 + 1 + MMLU) / 3, what a destroyed model with the same MMLU gets: (task +"
            " MIA - 1) / 3."
        ),
    }
    caption = (
        "Published rows as printed on the task page; the mean of their parts, and how much it differs"
        " from the printed final score (✓: no more than rounding explains); the margin over a destroyed"
        f" model with the same MMLU. Threshold for awards in the 7B track: MMLU {lume.ELIGIBLE_MMLU}; the"
        " 1B track has none. Of the 1B board, only these rows were to be had."
    )
    return Table(header, tuple(rows), caption, help_, data=tuple(plain), groups=_groups(data))


def bars(data: Published) -> tuple[Any, str]:
    """The three parts of every published row, and a tick where a destroyed model with the same MMLU would
    be.
    """
    groups = _groups(data)
    places, y = [], 0.0
    for n in range(len(data.rows)):
        y += 1.0 + (1.3 if n in groups else 0.0)
        places.append(y)
    fig, axis = plt.subplots(figsize=(8.4, 1.3 + 0.235 * (places[-1] + 1)))
    left = np.zeros(len(data.rows))
    for name, (text, shade) in PARTS.items():
        width = np.array([r.parts[name] for r in data.rows]) / 3
        axis.barh(places, width, left=left, color=shade, label=f"{text} / 3", height=0.66)
        left += width
    for y, r in zip(places, data.rows, strict=True):
        name = "destroyed model, same MMLU" if r is data.rows[0] else None
        axis.plot([r.destroyed] * 2, [y - 0.46, y + 0.46], color=style.INK, linewidth=2.2, label=name)
        slant = "italic" if r.below else "normal"
        axis.text(
            max(r.recomputed, r.destroyed) + 0.012,
            y,
            f"{r.final:.3f}",
            va="center",
            fontsize=9,
            style=slant,
        )
    for n, title in groups.items():
        axis.text(0.0, places[n] - 1.05, title, va="center", fontsize=9.5, fontweight="bold")
    axis.set(xlim=(0, 0.82), ylim=(places[-1] + 0.8, places[0] - 1.8), xlabel="final score and its parts")
    axis.set_yticks(places, [r.team for r in data.rows], fontsize=9.5)
    axis.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=2)
    words = [f"{r.label} {r.final:.3f} against {r.destroyed:.3f}" for r in data.rows]
    alt = (
        "Stacked bars of the published final scores; a tick marks what a destroyed model with the same"
        " MMLU gets. "
    )
    return fig, alt + "; ".join(words) + "."


def arithmetic(data: Published) -> Any:
    """Whether the printed finals follow from their parts, and what the threshold does."""
    wrong = [r for r in data.rows if not r.agrees]
    worst = max(data.rows, key=lambda r: abs(r.difference))
    n = len(data.rows)
    said = f"{n - len(wrong)} of {n} printed final scores" if wrong else f"All {n} printed final scores"
    odd = f" Not explained by rounding: {listed([r.label for r in wrong])}." if wrong else ""
    lines = [
        (
            f"{said} are the mean of their parts to rounding; the largest difference is"
            f" {worst.difference:+.4f} ({worst.label}), where rounding allows {worst.allowed:.3f}.{odd}"
        ),
        f"The threshold of {lume.ELIGIBLE_MMLU} is"
        f" {percent(lume.ELIGIBLE_MMLU / data.untouched['mmlu'])} of the untouched 7B model's"
        f" {data.untouched['mmlu']}. It leaves out {len([r for r in data.of('7B') if not r.eligible])} of"
        f" {len(data.of('7B'))} submissions" + _highest(data) + " " + caught(data),
    ]
    return say(bullets(lines))


def _highest(data: Published) -> str:
    top = max(data.of("7B"), key=lambda r: r.final)
    if top.eligible:
        return "."
    return f", among them the highest final score of all ({top.team}, {top.final:.3f}, with MMLU {top.mmlu})."


def caught(data: Published) -> str:
    """Where rows that look destroyed stand: behind the threshold at 7B, in the ranking at 1B."""
    large, small = ([r for r in data.of(t) if r.blank] for t in ("7B", "1B"))
    out = sum(not r.eligible for r in large)
    whom = (
        "the threshold, and not the score, leaves out all of them"
        if out == len(large)
        else f"the threshold leaves out {out} of them"
    )
    text = (
        f"At 7B there are {count_word(len(large), 'submission')} with a task aggregate of 0 and a MIA"
        f" score above one half: {whom}."
    )
    ranks = [f"{r.rank}" for r in small if r.rank]
    if ranks:
        text += (
            " At 1B, where the untouched model's MMLU is near chance and there is no threshold,"
            f" {len(small)} of the {len(data.of('1B'))} rows that we have look the same, and hold places"
            f" {listed(ranks)} of {data.board_size(small[0])}."
        )
    return text


def _signed(x: float, digits: int) -> str:
    """With a sign of the width of a plus."""
    text = f"{x:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\u2212")


def letters(data: Published) -> Any:
    """Rows whose MMLU is what answering always the same letter gives."""
    total = sum(data.answers.values())
    shares = ", ".join(f"{k} {n / total:.4f}" for k, n in data.answers.items())
    low = [r for r in data.rows if r.mmlu < 0.3]
    zero, others = [r for r in low if r.blank], [r for r in low if r.task > 0]
    hits = [r for r in zero if data.letter(r.mmlu)]
    missed = [r for r in others if data.letter(r.mmlu)]
    each: dict[str, list[str]] = {}
    for r in hits:
        each.setdefault(data.letter(r.mmlu), []).append(r.label)
    said = "; ".join(f"{k}: {', '.join(v)}" for k, v in sorted(each.items()))
    return say(
        f"A sign that such models give every question the same answer: the shares of MMLU's {total:,} test"
        f" questions that each letter answers are {shares}, so that is what a model scores which always"
        f" says this letter. Of the {len(zero)} rows with a task aggregate of 0 and a MIA score above one"
        f" half, {len(hits)} have exactly one of these numbers to the three printed decimals ({said}); of"
        f" the {len(others)} rows with MMLU below 0.3 and an aggregate above 0, {len(missed) or 'none'}."
        " It is no proof, since the predictions were not published."
    )
