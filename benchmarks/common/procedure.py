"""Procedures: ways to find an image's value, each a function of a model and images, with the rows it used counted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rich.progress import track
from torch import Tensor

from benchmarks.common.counting import counted, evaluations
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise import NoiseFamily
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.replicate import replicate
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine


@dataclass(frozen=True)
class Setup:
    """All that decides what a search finds; images are compared by pixel-cosine."""

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
        found: Iterable[Result] = invert(
            self.backbone, targets, self.similarity, self.noise, recipe=self.recipe, seed=self.seed, **options
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


@dataclass(frozen=True)
class Run:
    """Results of one procedure, and its cost.

    ``fresh`` has the share of copies among fresh samples from the noise found for each image, None where none were
    drawn. They are not part of the cost.
    """

    results: Sequence[Result]
    fresh: Sequence[float | None]
    rows_without: int
    rows_with: int

    @property
    def evaluations(self) -> float:
        """Network evaluations per image."""
        return evaluations(self.rows_without, self.rows_with, self.results)


@dataclass(frozen=True)
class Procedure:
    """A search by a recipe. Another kind of procedure overrides :meth:`run`."""

    name: str
    recipe: Recipe
    nats: Callable[[Result], float | None] = lambda result: result.nats  # None, no value, ranks as infinite
    rate: float = 0.9  # share of copies that the value stands for

    def changed(self, **settings: Any) -> "Procedure":
        """The same with other settings of its recipe."""
        return replace(self, recipe=self.recipe.changed(**settings))

    def run(
        self, backbone: Backbone, targets: Sequence[Target], *, seed: int = 0, fresh: int = 0, **options: Any
    ) -> Run:
        """Measure images, with ``fresh`` samples for each that was replicated."""
        counting, counter = counted(backbone)
        results = Setup(counting, self.recipe, seed).measure(targets, **options)
        setup = Setup(backbone, self.recipe)
        shares = [
            setup.confirm(result, target, fresh, seed) if fresh and result.nats is not None else None
            for result, target in zip(results, targets, strict=True)
        ]
        return Run(results, shares, counter.rows_without, counter.rows_with)
