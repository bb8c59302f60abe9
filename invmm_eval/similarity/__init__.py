"""How alike two images are: what decides whether a sample is a replica."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from invmm_eval.errors import InvMMError


class Similarity(Protocol):
    """Compares images of any size in [0, 1]; resizing and normalising them is its own business."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def threshold(self) -> float:
        """From this value on two images count as copies, unless the recipe says otherwise."""
        ...

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """All that decides its values (input side, digest of weights, ...), recorded in every result."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Features of ``images`` ``(n, C, H, W)``, float32 in [0, 1], C 1 or 3; first dimension ``n``."""
        ...

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarities ``(n, m)`` of features ``a`` of n images and ``b`` of m; higher is more alike."""
        ...


def check_same_size(a: Tensor, b: Tensor) -> None:
    """Refuse to compare images pixel by pixel that have other sizes or channels.

    Raises:
        InvMMError: The shapes differ in more than the first dimension.
    """
    if a.shape[1:] != b.shape[1:]:
        raise InvMMError(
            f"Images of shape {tuple(a.shape[1:])} cannot be compared pixel by pixel with images of shape "
            f"{tuple(b.shape[1:])}; resize them to one size."
        )
