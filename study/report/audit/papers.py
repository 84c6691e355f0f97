"""What the papers of this study say, beside their arithmetic."""

from __future__ import annotations

from typing import Any

from reprolib.metrics import lume
from study.readings import quantities
from study.report import style
from study.report.audit.reward import mean_of
from study.report.audit.rows import Published, Study, implied_task
from study.report.audit.wording import bullets, count_word
from study.report.words import percent, say


def claims(data: Published, study: Study) -> Any:
    """Headline numbers of two papers beside the official rows, in sentences."""
    alike = count_word(sum(r.blank for r in data.rows if r.team != "Cyber for AI"), "other row")
    parts = [
        "**LIBU** (Lacuna Inc.) {cite}`libu2025`",
        bullets(_libu(data)),
        "**Cyber for AI** {cite}`cyberforai2025`",
        bullets(_cyber(data, study)),
        (
            f"The parts of {alike} look the same, the organisers' own ascent and KL runs among them. The trap"
            " is in the formula, and whoever is ranked by it can walk into it."
        ),
    ]
    return say("\n\n".join(parts))


def _libu(data: Published) -> list[str]:
    libu7, libu1 = (data.row(t, "Lacuna Inc.") for t in ("7B", "1B"))
    own = data.papers["libu-setup-3"]
    return [
        (
            f'*Said* ({_source(data, "libu-notes")}): a "regurgitation rate" of {libu7.task} that'
            f" exceeds the threshold, with MMLU {libu7.mmlu}, at 7B. *Official*: {libu7.task} is the"
            " task aggregate, the harmonic mean of all twelve scores, of which half are about retain"
            f" rows. The only threshold is on MMLU ({lume.ELIGIBLE_MMLU}), and {libu7.mmlu} passes it."
            f" The MIA score, which is left out, is {libu7.mia:g}; the final score is"
            f" {libu7.final:.3f}, place {libu7.rank} of {data.board_size(libu7)}."
        ),
        (
            f"Two evaluations are in circulation: {own['final']:.3f} ({own['task']:.3f},"
            f" {own['mia']:g}, {own['mmlu']:.3f}) in the paper's table by these notes,"
            f" {libu7.final:.3f} ({libu7.task}, {libu7.mia:g}, {libu7.mmlu}) on the board. They must"
            f" be quoted apart. At 1B the system is on the board as well, with {libu1.final:.3f},"
            f" place {libu1.rank} of {data.board_size(libu1)}."
        ),
        (
            "*Fair to say*: nothing here is destroyed. MMLU stays at"
            f" {percent(libu7.mmlu / data.untouched['mmlu'])} of the untouched model's, and the row"
            " is eligible. A MIA score of 0 means an AUC of 0 or of 1; beside an aggregate this low,"
            " 1 is likelier: forgetting that stopped early, not destruction."
        ),
    ]


def _cyber(data: Published, study: Study) -> list[str]:
    p = data.papers
    cyber7, cyber1 = (data.row(t, "Cyber for AI") for t in ("7B", "1B"))
    val = p["cyber-descent-1b"]
    low, high = implied_task(val["final"], val["mia"], val["mmlu"])
    before7, before1 = p["cyber-original-7b"], p["cyber-original-1b"]
    loss = before1["mmlu"] - val["mmlu"]
    return [
        (
            f"*Said* ({_source(data, 'cyber-abstract')}): aggregate scores of {cyber7.final:.3f} at 7B"
            f" and {cyber1.final:.3f} at 1B on the test set, called promising. *Official*: these are"
            f" the final scores; their task aggregates are {cyber7.task:g} and {cyber1.task:g}, their"
            f" MMLU {cyber7.mmlu} and {cyber1.mmlu}. A destroyed model of the same MMLU gets"
            f" {cyber7.destroyed:.3f} and {cyber1.destroyed:.3f}. The 7B row is below the threshold"
            f" and not ranked; the 1B row is at place {cyber1.rank} of {data.board_size(cyber1)}."
        ),
        (
            f"*Said* ({_source(data, 'cyber-notes')}): descent on the retain rows at 1B is"
            f" near-perfect unlearning with minimal loss, by a MIA score of {val['mia']} and an"
            f" aggregate of {val['final']:.3f} on validation. *Arithmetic*: with MMLU {val['mmlu']}"
            f" that leaves a task aggregate of {low:.3f} to {high:.3f}. MMLU falls by no more than"
            f" {loss:.3f}, but from {before1['mmlu']}, near chance: there was little to lose."
        ),
        (
            f"*Said* ({_source(data, 'cyber-notes')}): a MIA score of 0.5 is best, 0 is under- and 1"
            " over-unlearning. Two scales are mixed: that holds, turned around, of the raw AUC (near"
            f" 1: recognised; near 0: shunned). Of the published score, 1 is best, and {val['mia']} is"
            " near it."
        ),
        (
            f"The paper's MMLU of the 7B model before unlearning is {before7['mmlu']}, the organisers'"
            f" {data.untouched['mmlu']}: compare within one harness only."
        ),
        (
            "*Fair to say*: the scores are what the task's formula gives, and the fall of MMLU under"
            f" ascent ({before7['mmlu']} to {p['cyber-ascent-7b']['mmlu']}, and"
            f" {p['cyber-restored-7b']['mmlu']} after one epoch of descent) is reported as a loss of"
            f" utility. The methods need not destroy: {_ours(study)}."
        ),
    ]


def _source(data: Published, key: str) -> str:
    s = data.sources[key]
    return f"[{s['title']}]({s['url']})"


def _ours(study: Study) -> str:
    """What methods of that paper do here, at settings that were searched for."""
    found = [m for m in ("gradient_descent", "chain_difference_ga") if m in study]
    bed = study["target"][0].spec.testbed
    own = {m: mean_of(quantities.value(r, "task_aggregate") for r in study[m]) for m in found}
    said = [f"{style.label(m)} {v:.2f}" for m, v in own.items()]
    if not said:
        return f"on `{bed}` they were not run"
    return f"at the settings of this study, on `{bed}`, their task aggregates are: {'; '.join(said)}"
