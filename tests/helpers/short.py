"""What the documents show, made short: one picture that was repeated and one held-out one, and recipes of few rows."""

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from invmm_eval import recipe, reference
from invmm_eval.recipe import Recipe
from invmm_eval.reference import Picture

LIMITS = {
    "max_steps": 2,
    "check_every": 1,
    "draws": 2,
    "sampler_steps": 2,
    "check_images": 2,
    "responses": 4,
    "plain": 8,
    "aim": 8,
    "confirm": 4,
}


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Make the pictures and the recipes short that have names."""
    recipes = cast("dict[str, Callable[[Recipe], Recipe]]", recipe.RECIPES)
    for name, make in recipes.items():
        patch.setitem(recipes, name, _short(make))
    patch.setattr(reference, "choose", _ends)


def _ends(known: Sequence[Picture]) -> list[Picture]:
    return [known[0], known[-1]]


def _short(make: Callable[[Recipe], Recipe]) -> Callable[[Recipe], Recipe]:
    def made(published: Recipe) -> Recipe:
        full = make(published)
        return full.changed(**{name: min(most, getattr(full, name)) for name, most in LIMITS.items()})

    return made
