"""Distributions over a model's noise: what the search bends until the model replicates an image."""

from collections.abc import Mapping
from typing import Protocol

from torch import Generator, Tensor


class Noise(Protocol):
    """A distribution q over the noise of one image, shape ``(C, h, w)`` or whatever the model's latents have."""

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
    """Makes the distribution that a search starts from."""

    def __call__(self, like: Tensor) -> Noise:
        """The family's start, as near to the standard normal as it states, for a noise like ``like``.

        ``like`` gives the shape of one noise (no batch dimension) and the device; parameters are float32.
        """
        ...
