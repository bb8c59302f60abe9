"""Gaussians with independent dimensions: the paper's noise family, and one with a single common variance.

With mean ``mu`` and variance ``v = exp(logvar)`` of every dimension,

    KL(q || N(0, I)) / D = mean((mu^2 + v - logvar - 1) / 2).
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from invmm_eval.device import to_device
from invmm_eval.noise import NoiseFamily


class Gaussian:
    """``N(mu, diag(exp(logvar)))``, initially the standard normal.

    Args:
        mu: Zeros in the shape of one noise.
        logvar: Zeros in a shape that broadcasts to that of ``mu``.
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        self.mu = mu.requires_grad_()
        self.logvar = logvar.requires_grad_()

    def parameters(self) -> Mapping[str, Tensor]:
        """``mu`` and ``logvar``."""
        return {"mu": self.mu, "logvar": self.logvar}

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """``mu + exp(logvar / 2) * z`` with ``z`` standard normal, shape ``(n, *mu.shape)``."""
        z = torch.randn((n, *self.mu.shape), generator=generator, device=generator.device)
        return self.mu + (self.logvar / 2).exp() * to_device(z, self.mu.device)

    def kl(self) -> Tensor:
        """The closed form above."""
        return (self.mu.square() + self.logvar.expm1() - self.logvar).mean() / 2


def diagonal() -> NoiseFamily:
    """A variance for each dimension: the family of Ma et al. 2025, section 3."""

    def start(like: Tensor) -> Gaussian:
        zeros = torch.zeros_like(like, dtype=torch.float32)
        return Gaussian(zeros, zeros.clone())

    return start


def isotropic() -> NoiseFamily:
    """One variance for all dimensions: fewer parameters, so a larger KL for the same replication."""

    def start(like: Tensor) -> Gaussian:
        zeros = torch.zeros_like(like, dtype=torch.float32)
        return Gaussian(zeros, zeros.new_zeros(()))

    return start
