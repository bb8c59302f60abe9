"""What the documents show, made short: one picture that was repeated and few held-out ones, and recipes of few rows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import pytest

from invmm_eval import recipe, reference
from invmm_eval.audits import price
from invmm_eval.recipe import Recipe
from invmm_eval.reference import Picture
from invmm_eval.search import plain_share

LIMITS = {
    "max_steps": 2,
    "check_every": 1,
    "draws": 2,
    "sampler_steps": 2,
    "check_images": 2,
    "responses": 4,
    "plain": 8,
    "confirm": 4,
}


def shorten(patch: pytest.MonkeyPatch, held_out: int = 1) -> None:
    """Make the pictures and the recipes short that have names, and what shares and prices take."""
    recipes = cast("dict[str, Callable[[Recipe], Recipe]]", recipe.RECIPES)
    for name, make in recipes.items():
        patch.setitem(recipes, name, _short(make))
    patch.setattr(price, "row_seconds", partial(price.row_seconds, seconds=0.1))
    patch.setattr(plain_share, "DRAWS", 1)
    patch.setattr(plain_share, "ROUNDS", 1)
    patch.setattr(reference, "choose", lambda known: _ends(known, held_out))


def _ends(known: Sequence[Picture], held_out: int) -> list[Picture]:
    return [known[0], *known[-held_out:]]


def _short(make: Callable[[Recipe], Recipe]) -> Callable[[Recipe], Recipe]:
    def made(published: Recipe) -> Recipe:
        full = make(published)
        return full.changed(**{name: min(most, getattr(full, name)) for name, most in LIMITS.items()})

    return made
