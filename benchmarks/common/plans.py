"""Searches of loaded models, whose images are compared by pixel-cosine."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.progress import track

from invmm_eval.audits.plan import Plan
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.plugins.host import host
from invmm_eval.recipe import Recipe
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine


def planned(backbone: Backbone, recipe: Recipe, seed: int = 0) -> Plan:
    """All that decides what a search finds."""
    estimators = [host().estimator(name)() for name in recipe.estimators]
    return Plan(backbone, PixelCosine(device=backbone.device), diagonal(), recipe, seed, {}, estimators)


def measure(
    plan: Plan, targets: Sequence[Target], *, title: str = "", batch_size: int = 1, **options: Any
) -> list[Result]:
    """Results in the order of the targets; a ``title`` shows a progress bar."""
    found: Iterable[Result] = plan.measure(targets, batch_size=batch_size, **options)
    if title:
        found = track(found, title, len(targets), transient=True)
    return sorted(found, key=lambda result: result.index)
