"""Similarities of images, which decide whether a sample is a replica."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from invmm_eval.errors import InvMMError


class Similarity(Protocol):
    """Compares images of any size, with values in [0, 1]; it resizes and normalises them itself."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def threshold(self) -> float:
        """Similarity from which on two images count as copies, unless the recipe sets another."""
        ...

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """Everything that determines its values (input side, digest of weights, ...), recorded in audits."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Features of ``images`` ``(n, C, H, W)``, float32 in [0, 1], C 1 or 3; first dimension ``n``."""
        ...

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarities ``(n, m)`` of features ``a`` of n images and ``b`` of m images; higher is more similar.

        NaN where the similarity is not defined for an image of ``b``: its search then fails with a sentence.
        """
        ...


def check_same_size(a: Tensor, b: Tensor) -> None:
    """Check that images can be compared pixel by pixel.

    Raises:
        InvMMError: The shapes differ in more than the first dimension.
    """
    if a.shape[1:] != b.shape[1:]:
        raise InvMMError(
            f"Images of shape {tuple(a.shape[1:])} cannot be compared pixel by pixel with images of shape "
            f"{tuple(b.shape[1:])}; resize them to one size."
        )
