"""Which names in a record stand for which metric, and which part of an evaluation measures it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from reprolib.assess.report import CARDS as OWN
from reprolib.metrics import MODULES, Card
from reprolib.probes import probes
from reprolib.probes.harness import CARDS as HARNESS

SUITES = ("core", "wide", "stress", "data", "records")  # from what every run has to what touches no model


@dataclass(frozen=True, slots=True)
class Part:
    """What is done to a model to have some metrics: a pass of the core evaluation, a probe, or nothing."""

    name: str
    title: str
    suite: str
    cost: str  # in passes over the data


# --- which names mean what
# ------------------------------------------------------------------------------------
# part -> name of a metric, * for any text and {a,b} for a or b -> name of its card

KEYS: dict[str, dict[str, str]] = {
    "teacher-forced": {
        "*/nll": "nll",
        "*/em": "exact_memorisation",
        "*/es": "extraction_strength",
        "*/questions": "questions",
        "attack/auc": "auc",
        "lume/mia": "mia_score",
        "world/accuracy": "choice_accuracy",
        "retain/kl": "kl",
    },
    "generation": {
        "lume/*/*/{sc,qa}": "twelve",
        "lume/task_aggregate": "task_aggregate",
        "lume/task_aggregate_floored": "floored_aggregate",
        "lume/final": "final_score",
    },
    "attacks": {
        "attacks/*/{auc,auc_matched}": "auc",
        "attacks/length_auc": "auc",
        "attacks/*/tpr": "tpr_at_fpr",
    },
    "tofu": {
        "tofu/*/probability": "probability",
        "tofu/*/option_probability": "option_probability",
        "tofu/*/rouge_l_recall": "rouge_l_recall",
        "tofu/*/{truth_score,truth_score_arithmetic}": "truth_score",
        "tofu/*/{parity_score,parity_score_arithmetic}": "parity_score",
        "tofu/*/truth_ratio_new": "truth_ratio",
        "tofu/model_utility": "model_utility",
        "tofu/partial_utility": "partial_utility",
        "tofu/forget_quality": "forget_quality",
        "tofu/log10_p": "log10_p",
        "tofu/ks_distance": "ks_distance",
    },
    "muse": {
        "muse/verbmem": "verbmem",
        "muse/knowmem_*": "knowmem",
        "muse/{auc,auc_twin}": "auc",
        "muse/privleak": "privleak",
        "muse/privleak_difference": "privleak_difference",
    },
    "fluency": {
        "fluency/*/{distinct_?,distinct_?_text}": "distinct_n",
        "fluency/*/repetition": "repetition",
        "fluency/*/loop": "loop",
        "fluency/*/empty": "empty_share",
        "fluency/*/length_ratio": "length_ratio",
        "fluency/*/perplexity": "perplexity",
        "fluency/collapsed": "collapsed",
    },
    "relearning": {
        "relearning/*/{questions,retain_questions}": "questions",
        "relearning/*/{questions_em,passages_em}": "exact_memorisation",
        "relearning/*/auc": "auc",
    },
    "quantization": {
        "quantization/*/questions": "questions",
        "quantization/*/em": "exact_memorisation",
        "quantization/*/es": "extraction_strength",
        "quantization/*/nll": "nll",
        "quantization/*/attack/auc": "auc",
        "quantization/*/world/accuracy": "choice_accuracy",
        "quantization/*/retain/kl": "kl",
        "quantization/*/lume/task_aggregate": "task_aggregate",
        "quantization/*/lume/mia": "mia_score",
        "quantization/*/lume/final": "final_score",
    },
    "prompts": {
        "prompts/*/{plain,small,lower,please,twice,brief,form,aside,instruction,few_shot}": "knowledge",
        "prompts/*/{prefix_*,passage_*}": "knowledge",
        "prompts/*/leak@*": "leak_at_k",
    },
    "mmlu": (
        {
            "mmlu/accuracy_questions*": "mmlu/accuracy_questions",
            "mmlu/accuracy_subjects*": "mmlu/accuracy_subjects",
            "mmlu/subject/*": "mmlu/subject",
        }
        | {
            f"mmlu/{n}": f"mmlu/{n}"
            for n in ("eligible", "answer_mass", "chance", "scored", "shortened", "shots_dropped", "cut")
        }
    ),
    "harness": {"harness/*": "harness"},
}

# part -> column of scores, one a row of the corpus -> names of its cards, which differ by the kind of the row
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "teacher-forced": {
        "nll": ("nll",),
        "em": ("exact_memorisation",),
        "es": ("extraction_strength",),
        "score": ("choice_accuracy",),
    },
    "generation": {"score": ("rouge_l_recall", "knowledge")},
    "attacks": {
        "attack_zlib": ("zlib_score",),
        "attack_min_k": ("min_k",),
        "attack_min_k_plus_plus": ("min_k_plus_plus",),
        "attack_gradient_norm": ("gradient_norm",),
        "attack_reference": ("reference_attack",),
    },
    "tofu": {
        "tofu_probability": ("probability",),
        "tofu_rouge": ("rouge_l_recall",),
        "truth_ratio": ("truth_ratio",),
    },
    "muse": {
        "muse_verbmem": ("verbmem", "rouge_l_f1"),
        "muse_knowmem": ("knowmem", "rouge_l_f1"),
        "muse_min_k": ("min_k",),
    },
    "fluency": {"repetition": ("repetition",), "loop": ("loop",)},
    "relearning": {"relearnt_part": ("questions",), "relearnt_benign": ("questions",)},
    "quantization": {
        "score_int8": ("rouge_l_recall", "knowledge"),
        "score_nf4": ("rouge_l_recall", "knowledge"),
    },
    "prompts": {"leak_sampled": ("leak_at_k",)},
}

# Names of numbers that are no metric of their own: counts, sizes, readings of one method.
OTHERS: dict[str, dict[str, str]] = {
    "teacher-forced": {
        "routing/sent_*": (
            "of prompt routing: share of the group's prompts that it sends to the model that says nothing"
        ),
        "routing/{auc,accuracy}_*": (
            "of prompt routing: how well its classifier tells forget from retain prompts"
        ),
        "text_nll": "column: mean loss of the whole passage, which the loss attack ranks by",
    },
    "attacks": {
        "attacks/matched_pairs": (
            "pairs of forget and holdout passages of about equal length, which auc_matched is read on"
        ),
        "attack_loss": "column: minus the mean loss of the whole passage",
    },
    "tofu": {
        "tofu/utility_parts": "how many numbers the partial model utility is the harmonic mean of",
        "tofu/{forget_rows,forget_rows_twin}": (
            "how many truth ratios the forget quality compares on either side"
        ),
    },
    "fluency": {
        "fluency/*/scored": "how many outputs are not empty, so that they have a perplexity",
        "generation_nll": "column: mean loss of the output under the model before unlearning",
    },
    "prompts": {
        "prompts/*/worst": (
            "the largest share over all ways of asking; it grows with their number, so read it beside the"
            " twin's"
        ),
        "prompts/*/any": (
            "share of questions that at least one way of asking, or one sample, drew the answer from"
        ),
        "prompts/informative": (
            "share of the ways of asking that still work on retain rows; the others say nothing"
        ),
        "leak_any": "column: whether any way of asking drew the answer",
    },
}

# Metrics that no evaluation of one model gives: what they are computed from.
RECORDS: dict[str, str] = {
    "gap_closed": "records of a model, its target and its twin",
    "standardised_difference": "records of two methods over seeds",
    "superiority": "records of two methods over seeds",
    "cliffs_delta": "records of two methods over seeds",
    "rank_stability": "records of several methods over seeds",
    "quantisation_robustness": "records of suite stress",
    "relearning_robustness": "records of suite stress, the twin's included",
    "robustness": "records of suite stress, the twin's included",
    "scalability": "records of one method with forget sets of several sizes",
    "sustainability": "records of one model that was given several requests in a row",
    "faithfulness": "records of many models, with the knowledge and without",
    "stability": "records of suite stress, the twin's included",
    "overall": "records of many models, those of suite stress included",
}


def expand(pattern: str) -> list[str]:
    """A pattern for each choice in braces.

    >>> expand("muse/{auc,auc_twin}")
    ['muse/auc', 'muse/auc_twin']
    """
    found = re.search(r"\{([^}]*)\}", pattern)
    if not found:
        return [pattern]
    return [
        p
        for word in found[1].split(",")
        for p in expand(pattern[: found.start()] + word + pattern[found.end() :])
    ]


def fits(name: str, pattern: str) -> bool:
    return any(fnmatchcase(name, p) for p in expand(pattern))


def resolve(name: str, part: str) -> list[str]:
    """What a metric or a column of a part stands for: names of cards, or "" if it is declared as no metric;
    empty if unknown.
    """
    found = [card for pattern, card in KEYS.get(part, {}).items() if fits(name, pattern)]
    found += [c for column, cards in COLUMNS.get(part, {}).items() if column == name for c in cards]
    return found + ["" for pattern in OTHERS.get(part, {}) if fits(name, pattern)]


# --- cards and parts
# ------------------------------------------------------------------------------------------


def groups() -> dict[str, dict[str, Card]]:
    """All cards: those of ``reprolib.metrics`` by module, then the core evaluation's own readings and
    lm-eval's.
    """
    own = {"readings": OWN}
    return own | {m.__name__.rpartition(".")[2]: m.CARDS for m in MODULES} | {"harness": HARNESS}


def cards() -> dict[str, Card]:
    return {name: card for group in groups().values() for name, card in group.items()}


def parts() -> dict[str, Part]:
    """All parts, from the cheapest to have to the dearest suite; probes of installed packages included."""
    found = [
        Part("teacher-forced", "Teacher-forced pass", "core", "one forward pass over all rows"),
        Part("generation", "Greedy generation", "core", "generation for forget and retain rows"),
    ]
    found += [
        Part(p.name, p.title, p.suite, p.cost)
        for p in sorted(probes().values(), key=lambda p: SUITES.index(p.suite))
    ]
    found += [
        Part(
            "mmlu",
            "MMLU",
            "data",
            "one forward pass over all prompts; worked examples are read once a subject",
        ),
        Part("harness", "lm-evaluation-harness", "data", "as the tasks say"),
        Part("records", "From finished records", "records", "no pass over a model"),
    ]
    return {p.name: p for p in found}


def measured(card: str) -> list[tuple[Part, list[str]]]:
    """Where a metric comes from: parts, the first of the cheapest suite, and its names there ("column ..."
    for those of rows).
    """
    out = []
    for part in parts().values():
        names = [pattern for pattern, c in KEYS.get(part.name, {}).items() if c == card]
        names += [f"column {column}" for column, cards in COLUMNS.get(part.name, {}).items() if card in cards]
        if part.name == "records" and card in RECORDS:
            names = [RECORDS[card]]
        if names:
            out.append((part, names))
    return out


def suite(card: str) -> str:
    """The cheapest suite that has a metric."""
    return measured(card)[0][0].suite
