"""Detectors: cheap scores that rank images by how likely a search is to find them memorized.

A detector does not search. It replaces no measurement: it chooses the images that are worth one.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.target import Target


class Detector(Protocol):
    """Scores images for one model."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """Everything that determines its scores, recorded with them."""
        ...

    @property
    def rows(self) -> int:
        """The number of network rows (see :mod:`invmm_eval.search.rows`) that the score of one image costs."""
        ...

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Score images.

        Args:
            backbone: The model.
            x_0: The encoded images, ``(n, ...)``, on the model's device.
            targets: The same n images with their captions.
            seed: The seed of the run. With the same seed an image has the same score in any batch: draw random
                numbers from the seed alone, or from :func:`invmm_eval.search.target.generator` with the image's
                digest.
            micro_batch: Maximum number of rows of a network call.

        Returns:
            Scores ``(n,)``, on any device; the higher, the more likely the image is memorized.
        """
        ...
