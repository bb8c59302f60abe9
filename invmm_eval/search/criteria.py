"""Criteria: which samples a check draws, whether it is passed, and whether the search ends.

A new one is a class with the methods of :class:`Criterion` and a line in :data:`CRITERIA`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from invmm_eval.recipe import Recipe
from invmm_eval.search.result import Judged, Point, Status

Similarities = Mapping[float, Sequence[float]]
"""The similarities of the samples drawn so far, by guidance scale."""


class Criterion(Protocol):
    """The stopping rule of a search."""

    @property
    def judged_by(self) -> Judged:
        """Which of the similarities at a guidance scale decides."""
        ...

    @property
    def description(self) -> str:
        """When a check is passed, in words that complete "A check is passed if ..."."""
        ...

    def samples(self, scales: int) -> int:
        """The largest number of samples at each of a number of guidance scales."""
        ...

    def request(self, drawn: Similarities) -> Mapping[float, int]:
        """The samples that the decision needs next: their total number by guidance scale; empty once it is known."""
        ...

    def passed(self, drawn: Similarities) -> bool:
        """Whether the check is passed."""
        ...

    def status(self, trace: Sequence[Point], *, passed: bool, last: bool) -> Status | None:
        """How the search ends after this check; None where it continues.

        Args:
            trace: One point per check, the latest last.
            passed: Whether the latest check is passed.
            last: Whether the budget, in steps or nats, is spent.
        """
        ...


class _UntilPassed:
    """A search ends replicated at the first passed check, or with ``stop=False`` at a passed last one."""

    def __init__(self, recipe: Recipe, threshold: float) -> None:
        self._recipe = recipe
        self._threshold = threshold

    def status(self, trace: Sequence[Point], *, passed: bool, last: bool) -> Status | None:  # noqa: ARG002
        """Exhausted where the last check is not passed."""
        if passed and (self._recipe.stop or last):
            return Status.REPLICATED
        return Status.EXHAUSTED if last else None


class AllSamples(_UntilPassed):
    """The paper's: all K samples at one guidance scale reach the similarity threshold beta.

    One failing sample rules out its scale, and one scale at which all K samples pass is enough (Ma et al. 2025, section
    3.3). So one sample is drawn at every scale first, then all others at the most promising scale, and so on while
    none has passed. The K noises are fixed beforehand: the decision is that of drawing everything.
    """

    judged_by = Judged.LEAST

    @property
    def description(self) -> str:
        """With the numbers of the recipe."""
        return (
            f"all {self._recipe.check_images} samples at one guidance scale reach a similarity of {self._threshold:g}"
        )

    def samples(self, scales: int) -> int:  # noqa: ARG002
        """K."""
        return self._recipe.check_images

    def request(self, drawn: Similarities) -> Mapping[float, int]:
        """One sample per scale, then all at the scale with the most similar first one."""
        if not all(drawn.values()):
            return dict.fromkeys(drawn, 1)
        alive = [scale for scale, values in drawn.items() if self._reached(values)]
        best = max(alive, key=lambda scale: (len(drawn[scale]), min(drawn[scale])), default=None)
        if best is None or len(drawn[best]) == self._recipe.check_images:
            return {}
        return {best: self._recipe.check_images}

    def passed(self, drawn: Similarities) -> bool:
        """All K at one scale."""
        return any(self._reached(values) and len(values) == self._recipe.check_images for values in drawn.values())

    def _reached(self, values: Sequence[float]) -> bool:
        return all(value >= self._threshold for value in values)


class AnySample(_UntilPassed):
    """One sample that reaches the threshold beta is enough.

    How often the image comes back is then for an estimator to tell. The K samples are spread evenly over the guidance
    scales and drawn together. The first scale, in the recipe's order, at which one is enough decides.
    """

    judged_by = Judged.GREATEST

    @property
    def description(self) -> str:
        """With the numbers of the recipe."""
        return f"one of {self._recipe.check_images} samples reaches a similarity of {self._threshold:g}"

    def samples(self, scales: int) -> int:
        """K divided by the number of scales, rounded up."""
        return math.ceil(self._recipe.check_images / scales)

    def request(self, drawn: Similarities) -> Mapping[float, int]:
        """All samples of the scales that have none."""
        missing = [scale for scale, values in drawn.items() if not values]
        return {} if self.passed(drawn) else dict.fromkeys(missing, self.samples(len(drawn)))

    def passed(self, drawn: Similarities) -> bool:
        """Any sample."""
        return any(value >= self._threshold for values in drawn.values() for value in values)


CriterionMaker = Callable[[Recipe, float], Criterion]
"""``make(recipe, threshold)``."""

CRITERIA: dict[str, CriterionMaker] = {"all-samples": AllSamples, "any-sample": AnySample}
"""By the name that a recipe gives."""
