"""Estimators: values that are computed from what a search found and from further samples.

An estimator runs once per image, after the search of the image has ended without an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from invmm_eval.noise import Noise
from invmm_eval.recipe import Recipe
from invmm_eval.search.ray import Ray
from invmm_eval.search.result import Status


@dataclass(frozen=True)
class Samples:
    """Samples of the model at one guidance scale, compared with the image.

    Attributes:
        noise: The initial noises, ``(n, ...)``, on the model's device.
        similarities: n similarities to the image.
        hits: Whether each similarity reaches the threshold.
        images: The samples, uint8 ``(n, C, H, W)``, on the CPU.
    """

    noise: Tensor
    similarities: tuple[float, ...]
    hits: tuple[bool, ...]
    images: Tensor


@dataclass(frozen=True)
class Found:
    """What the search of one image found.

    Attributes:
        status: Replicated or exhausted.
        recipe: The settings of the search.
        threshold: The similarity from which on a sample counts as a replica (beta).
        noise: q. Where an estimator changes its parameters, the result is that of the changed q.
        ray: The direction in which the search moved the mean of q; None where its optimizer follows no direction.
        sample: Draws ``n`` new samples from q as it is now, at the guidance scale of the best check.
    """

    status: Status
    recipe: Recipe
    threshold: float
    noise: Noise
    ray: Ray | None
    sample: Callable[[int], Samples]


class Estimator(Protocol):
    """Computes values for one image after its search."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """The values it returns, by name, each with a short description that reports show."""
        ...

    def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """The values by name, as JSON can hold them; None where nothing can be estimated."""
        ...
