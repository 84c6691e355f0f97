"""Every method of the study, by name. To add one outside this tree, use the entry point ``reprolib.recipes``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from reprolib.errors import SpecError, unknown
from reprolib.recipes import baselines, gradient_ascent, gradient_descent, gradient_difference, npo
from reprolib.recipes.base import Card, Recipe, Schedule, Stage

BASELINES = {
    "target": baselines.TARGET,
    "twin": baselines.TWIN,
    "random": baselines.RANDOM,
    "always_eos": baselines.ALWAYS_EOS,
}
METHODS = {
    "gradient_ascent": gradient_ascent.RECIPE,
    "gradient_descent": gradient_descent.RECIPE,
    "gradient_difference": gradient_difference.RECIPE,
    "npo": npo.RECIPE,
}


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes: baselines, methods of this tree, and those that installed packages offer."""
    known = {**BASELINES, **METHODS}
    for point in entry_points(group="reprolib.recipes"):
        recipe = point.load()
        if not isinstance(recipe, Recipe):
            raise SpecError(
                f"entry point {point.name!r} ({point.value}) must be a reprolib.recipes.Recipe, got {type(recipe).__name__}."
            )
        if point.name in known:
            raise SpecError(f"entry point {point.name!r} ({point.value}) has the name of a built-in method; choose another.")
        known[point.name] = recipe
    return known


def recipe(name: str) -> Recipe:
    known = recipes()
    if name not in known:
        raise SpecError(unknown("method", name, known))
    return known[name]


__all__ = ["BASELINES", "METHODS", "Card", "Recipe", "Schedule", "Stage", "recipe", "recipes"]
