"""Distributions over a model's noise, which the search moves until the model replicates an image."""

from collections.abc import Mapping
from typing import Protocol

from torch import Generator, Tensor


class Noise(Protocol):
    """A distribution q over the noise of one image, in the shape of the model's latents, for example ``(C, h, w)``."""

    def parameters(self) -> Mapping[str, Tensor]:
        """Leaf tensors to optimise and to save, by name."""
        ...

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """Draw ``n`` noises, shape ``(n, *shape)``, differentiable in the parameters.

        The random numbers come from ``generator``, on its device (the CPU), so that they are the same on every device.
        """
        ...

    def kl(self) -> Tensor:
        """``KL(q || N(0, I))`` in nats per dimension: a float32 scalar >= 0, differentiable in the parameters."""
        ...


class NoiseFamily(Protocol):
    """Makes the initial distribution of a search."""

    def __call__(self, like: Tensor) -> Noise:
        """The initial distribution: the standard normal, or as close to it as the family can start.

        ``like`` has the shape of one noise (no batch dimension) and its device; parameters are float32.
        """
        ...
