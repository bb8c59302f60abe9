"""Noise distributions whose mean lies along one direction.

q = N(d u, I),   |u| = 1,   KL(q || N(0, I)) = d^2 / 2   in nats over all dimensions
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from invmm_eval.statistics.response import Outcome


class Place(NamedTuple):
    """A direction, a KL in it, and the outcomes of samples in that direction."""

    direction: Tensor
    nats: float
    outcomes: dict[float, list[Outcome]]


class Ray:
    """The mean of a noise distribution, movable along one direction.

    Attributes:
        mu: The parameter that holds the mean.
        direction: u, in the shape of ``mu``; zeros at first.
        nats: The KL that the mean was last moved to.
        outcomes: By guidance scale, the samples in this direction: the distance of each noise, and whether it gave a
            copy.
    """

    def __init__(self, mu: Tensor) -> None:
        self.mu = mu
        self.direction = torch.zeros_like(mu, requires_grad=False)
        self.nats = 0.0
        self.outcomes: dict[float, list[Outcome]] = {}

    def aim(self, vector: Tensor) -> None:
        """Take the direction of a vector of any length; zeros where the vector is zero. The mean is not moved."""
        aim([self], [vector])

    def place(self) -> Place:
        """Where the ray is now, to return to."""
        return Place(self.direction, self.nats, self.outcomes)

    def return_to(self, place: Place) -> None:
        """Take the direction of an earlier place, with all samples in it, and its KL. The mean is not moved."""
        self.direction, self.nats, self.outcomes = place

    def move(self, nats: float) -> None:
        """Set the mean to the point of the ray whose KL is ``nats``."""
        move([self], [nats])

    def distances(self, noise: Tensor) -> Tensor:
        """The scalar products of ``noise`` ``(n, ...)`` with u, ``(n,)``."""
        return noise.flatten(1) @ self.direction.flatten()


def aim(rays: Sequence[Ray], vectors: list[Tensor]) -> None:
    """Aim several rays, each as by :meth:`Ray.aim`, by operations on the tensors of all."""
    lengths = torch._foreach_norm(vectors)
    torch._foreach_clamp_min_(lengths, torch.finfo(torch.float32).tiny)
    for ray, direction in zip(rays, torch._foreach_div(vectors, lengths), strict=True):
        ray.direction, ray.outcomes = direction, {}


@torch.no_grad()
def move(rays: Sequence[Ray], nats: Sequence[float]) -> None:
    """Move several rays, each as by :meth:`Ray.move`, by operations on the tensors of all."""
    distances = [math.sqrt(2 * one) for one in nats]
    torch._foreach_copy_([ray.mu for ray in rays], torch._foreach_mul([ray.direction for ray in rays], distances))
    for ray, one in zip(rays, nats, strict=True):
        ray.nats = one
