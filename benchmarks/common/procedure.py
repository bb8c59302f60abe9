"""All that decides what a search finds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich.progress import track
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.noise import NoiseFamily
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.plugins.host import host
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.replicate import replicate
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine


@dataclass(frozen=True)
class Setup:
    """A model and the settings of the search; images are compared by pixel-cosine."""

    backbone: Backbone
    recipe: Recipe
    seed: int = 0
    noise: NoiseFamily = field(default_factory=diagonal)

    @cached_property
    def similarity(self) -> PixelCosine:
        return PixelCosine(device=self.backbone.device)

    @property
    def threshold(self) -> float:
        return self.similarity.threshold if self.recipe.threshold is None else self.recipe.threshold

    def measure(self, targets: Sequence[Target], *, title: str = "", **options: Any) -> list[Result]:
        """Results in the order of the targets; a ``title`` shows a progress bar."""
        estimators = [host().estimator(name)() for name in self.recipe.estimators]
        found: Iterable[Result] = invert(
            self.backbone,
            targets,
            self.similarity,
            self.noise,
            recipe=self.recipe,
            seed=self.seed,
            estimators=estimators,
            **options,
        )
        if title:
            found = track(found, title, len(targets), transient=True)
        return sorted(found, key=lambda result: result.index)

    def copies(self, samples: Tensor, images: Tensor) -> Tensor:
        """For each uint8 image the share of ``samples`` that are copies of it."""
        images = images.to(self.backbone.device).float() / 255
        alike = self.similarity.compare(self.similarity.embed(samples), self.similarity.embed(images))
        return (alike >= self.threshold).float().mean(dim=0)

    def confirm(self, result: Result, target: Target, samples: int, seed: int) -> float:
        """The share of copies among fresh samples from what a search found."""
        drawn = replicate(self.backbone, result, self.noise, samples, recipe=self.recipe, seed=seed)
        return self.copies(drawn, target.image[None]).item()
