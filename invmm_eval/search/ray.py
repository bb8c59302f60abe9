"""Noise distributions whose mean lies along one direction.

q = N(d u, I),   |u| = 1,   KL(q || N(0, I)) = d^2 / 2   in nats over all dimensions
"""

import math

import torch
from torch import Tensor


class Ray:
    """The mean of a noise distribution, movable along one direction.

    Args:
        mu: The parameter that holds the mean.
        towards: A vector in the direction u, of any length, in the shape of ``mu``.
        nats: The KL of the present mean, if it lies on the ray.

    Attributes:
        direction: u, in the shape of ``mu``; zeros where ``towards`` is zero.
        nats: The KL that the mean was last moved to.
    """

    def __init__(self, mu: Tensor, towards: Tensor, nats: float) -> None:
        self._mu = mu
        self.direction = towards / towards.norm().clamp(min=torch.finfo(towards.dtype).tiny)
        self.nats = nats

    def move(self, nats: float) -> None:
        """Set the mean to the point of the ray whose KL is ``nats``."""
        self.nats = nats
        with torch.no_grad():
            self._mu.copy_(math.sqrt(2 * nats) * self.direction)

    def distances(self, noise: Tensor) -> list[float]:
        """The scalar products of ``noise`` ``(n, ...)`` with u."""
        distances: list[float] = (noise.flatten(1) @ self.direction.flatten()).tolist()
        return distances
