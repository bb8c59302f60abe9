"""The search by dose: the best mean of the noise at a given KL, found for one dose after the other.

Here q = N(mu, I), and the dose is K = |mu|^2 / 2, its KL in nats over all dimensions. Of all means of that length the
one is wanted for which the reconstruction loss L is least. There the gradient is parallel to the mean, by Lagrange's
condition, and so each step sets

    m <- (1 - 1/C) m - dL/dmu,   mu <- sqrt(2 K) m / |m|,

with m an average of gradients that reaches back over one dose of C steps. Unlike Adam's, a step spends nothing on
dimensions that do not matter: near the standard normal the Fisher metric is Euclidean, and the plain gradient is
the direction that lowers the loss most for the least KL.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError


class DosePath:
    """The mean of a noise family, moved so that the KL is the dose.

    Args:
        parameters: Those of the noise, the standard normal now; ``mu`` is moved and the others are left as they are.
        nats: The first dose.
        steps: Steps that are taken at a dose (C).

    Attributes:
        nats: The dose, which holds from the next step on.

    Raises:
        InvMMError: The family has no mean.
    """

    def __init__(self, parameters: Mapping[str, Tensor], nats: float, steps: int) -> None:
        if "mu" not in parameters:
            raise InvMMError("The search by dose moves the noise's mean, but this noise family has no mu.")
        for name, tensor in parameters.items():
            tensor.requires_grad_(name == "mu")
        self.nats = nats
        self._mu = parameters["mu"]
        self._average = torch.zeros_like(self._mu)
        self._memory = 1 - 1 / steps

    def zero_grad(self) -> None:
        """Before a step."""
        self._mu.grad = None

    def step(self) -> None:
        """Along the average of gradients, at the dose."""
        assert self._mu.grad is not None
        self._average = self._memory * self._average - self._mu.grad
        self.move(self.nats)

    def move(self, nats: float) -> None:
        """To a dose, in the direction of the average."""
        self.nats = nats
        with torch.no_grad():
            self._mu.copy_(math.sqrt(2 * nats) * self._direction)

    def resume(self) -> None:
        """Take up the dose and the direction of the mean as it is."""
        self._average = self._mu.detach().clone()
        self.nats = self._average.square().sum().item() / 2

    def distances(self, noise: Tensor) -> list[float]:
        """How far each of some noises, first dimension n, lies in the direction of the mean."""
        distances: list[float] = (noise.flatten(1) @ self._direction.flatten()).tolist()
        return distances

    @property
    def _direction(self) -> Tensor:
        length: Tensor = self._average.norm().clamp(min=torch.finfo(self._average.dtype).tiny)
        return self._average / length
