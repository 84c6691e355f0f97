"""Every method of the study, by name. To add one outside this tree, use the entry point
``reprolib.recipes``.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from reprolib.errors import SpecError, unknown
from reprolib.recipes import (
    agad,
    alt_po,
    assistant,
    baselines,
    ce_u,
    chains,
    disturbances,
    gradient_ascent,
    gradient_descent,
    gradient_difference,
    idk_dpo,
    idk_nll,
    ihl,
    kl_minimisation,
    libu,
    localised,
    npo,
    pdu,
    prompt_routing,
    rmu,
    satimp,
    sha256,
    simnpo,
    soul,
    sugd,
    task_vector,
    undial,
    wga,
    whp,
    zjuklab,
)
from reprolib.recipes.base import FAMILIES, Card, Recipe, Schedule, Stage

BASELINES = {
    "target": baselines.TARGET,
    "twin": baselines.TWIN,
    "random": baselines.RANDOM,
    "always_eos": baselines.ALWAYS_EOS,
}

METHODS = {
    # likelihood
    "gradient_ascent": gradient_ascent.RECIPE,
    "gradient_descent": gradient_descent.RECIPE,
    "gradient_difference": gradient_difference.RECIPE,
    "kl_minimisation": kl_minimisation.RECIPE,
    "ihl": ihl.RECIPE,
    # chains of ascent and descent
    "chain_ga_gd": chains.GA_GD,
    "chain_ga_gd_ga": chains.GA_GD_GA,
    "chain_difference_ga": chains.DIFFERENCE_GA,
    # preference
    "npo": npo.RECIPE,
    "simnpo": simnpo.RECIPE,
    "idk_nll": idk_nll.RECIPE,
    "idk_dpo": idk_dpo.RECIPE,
    "alt_po": alt_po.RECIPE,
    # token weighting
    "wga": wga.RECIPE,
    "satimp": satimp.RECIPE,
    # distillation
    "undial": undial.RECIPE,
    "ce_u": ce_u.RECIPE,
    "pdu": pdu.RECIPE,
    "whp": whp.RECIPE,
    # representation
    "rmu": rmu.RECIPE,
    "adaptive_rmu": rmu.ADAPTIVE,
    # second order
    "libu": libu.RECIPE,
    "libu_influence": libu.INFLUENCE,
    "libu_sophia": libu.SOPHIA,
    "so_gradient_difference": soul.DIFFERENCE,
    "so_po": soul.PO,
    "so_npo": soul.NPO_RECIPE,
    # localised LoRA
    "fila": localised.FILA,
    "loku": localised.LOKU,
    "vila_difference": localised.VILA_DIFFERENCE,
    "vila_ihl": localised.VILA_IHL,
    "vila_npo": localised.VILA_NPO,
    # weights
    "task_vector": task_vector.RECIPE,
    # competition systems
    "sugd": sugd.RECIPE,
    "agad": agad.RECIPE,
    "sha256": sha256.RECIPE,
    "zjuklab": zjuklab.RECIPE,
    # at inference time
    "assistant": assistant.RECIPE,
    "prompt_routing": prompt_routing.RECIPE,
    # no method at all: bounds of the table
    "noise": disturbances.NOISE,
    "random_labels": disturbances.RANDOM_LABELS,
}


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes: baselines, methods of this tree, and those that installed packages offer."""
    known = {**BASELINES, **METHODS}
    for point in entry_points(group="reprolib.recipes"):
        recipe = point.load()
        if not isinstance(recipe, Recipe):
            raise SpecError(
                f"entry point {point.name!r} ({point.value}) must be a reprolib.recipes.Recipe, got"
                f" {type(recipe).__name__}."
            )
        if point.name in known:
            raise SpecError(
                f"entry point {point.name!r} ({point.value}) has the name of a built-in method; choose"
                " another."
            )
        known[point.name] = recipe
    return known


def recipe(name: str) -> Recipe:
    known = recipes()
    if name not in known:
        raise SpecError(unknown("method", name, known))
    return known[name]


__all__ = ["BASELINES", "FAMILIES", "METHODS", "Card", "Recipe", "Schedule", "Stage", "recipe", "recipes"]
