"""Noise distributions whose mean lies along one direction.

q = N(d u, I),   |u| = 1,   KL(q || N(0, I)) = d^2 / 2   in nats over all dimensions
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invmm_eval.statistics.response import Outcome


def unit(vector: Tensor) -> Tensor:
    """The vector at length 1; zeros where it is zero."""
    unit: Tensor = vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
    return unit


class Place(NamedTuple):
    """A direction, a KL in it, and the outcomes of samples in that direction."""

    direction: Tensor
    nats: float
    outcomes: dict[float, list[Outcome]]


class Ray:
    """The mean of a noise distribution, movable along one direction.

    Args:
        mu: The parameter that holds the mean.

    Attributes:
        direction: u, in the shape of ``mu``; zeros at first.
        nats: The KL that the mean was last moved to.
        outcomes: By guidance scale, the samples in this direction: the distance of each noise, and whether it gave a
            copy.
    """

    def __init__(self, mu: Tensor) -> None:
        self._mu = mu
        self.direction = torch.zeros_like(mu, requires_grad=False)
        self.nats = 0.0
        self.outcomes: dict[float, list[Outcome]] = {}

    def aim(self, vector: Tensor) -> None:
        """Take the direction of a vector of any length; zeros where the vector is zero. The mean is not moved."""
        self.direction = unit(vector)
        self.outcomes = {}

    def place(self) -> Place:
        """Where the ray is now, to return to."""
        return Place(self.direction, self.nats, self.outcomes)

    def return_to(self, place: Place) -> None:
        """Take the direction of an earlier place, with all samples in it, and its KL. The mean is not moved."""
        self.direction, self.nats, self.outcomes = place

    def move(self, nats: float) -> None:
        """Set the mean to the point of the ray whose KL is ``nats``."""
        self.nats = nats
        with torch.no_grad():
            self._mu.copy_(math.sqrt(2 * nats) * self.direction)

    def distances(self, noise: Tensor) -> Tensor:
        """The scalar products of ``noise`` ``(n, ...)`` with u, ``(n,)``."""
        return noise.flatten(1) @ self.direction.flatten()
