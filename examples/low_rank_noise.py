"""A custom noise family, registered from a script: a Gaussian with covariance along a few directions.

    python examples/low_rank_noise.py

With covariance ``S = diag(d) + W W^T``, ``d = exp(logvar)`` and ``W`` of shape (D, r),

    KL(q || N(0, I)) / D = (mean(mu^2) + mean(d) + |W|^2 / D - 1 - log|S| / D) / 2,
    log|S| = sum(logvar) + log|I + W^T diag(1/d) W|      (matrix determinant lemma),

so that nothing larger than r x r is factored. Its common directions cost nats before they help, so its values are not
comparable with those of the built-in families.

As a package, the same function is named in the entry-point group ``invmm_eval``: see plugins/invmm-score-sde.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from invmm_eval import audit, host
from invmm_eval.plugin import InvMMError, NoiseFamily, NoiseFamilyMaker, hookimpl, to_device
from invmm_eval.reference import MODEL, pictures

START = 1e-3
"""Initial length of each direction. It must not be zero, where its gradient vanishes."""


class LowRankGaussian:
    """``N(mu, diag(exp(logvar)) + W W^T)``; its initial KL is below 1e-9 nats per dimension.

    Args:
        like: A tensor in the shape of one noise, on its device.
        rank: Columns of ``W``, at least 1.
    """

    def __init__(self, like: Tensor, rank: int) -> None:
        self.mu = torch.zeros_like(like, dtype=torch.float32).requires_grad_()
        self.logvar = torch.zeros_like(like, dtype=torch.float32).requires_grad_()
        directions = torch.randn((*like.shape, rank), generator=torch.Generator().manual_seed(0))
        self.factor = (START / math.sqrt(like.numel()) * directions).to(like.device).requires_grad_()

    def parameters(self) -> Mapping[str, Tensor]:
        """``mu``, ``logvar`` and ``factor``, the last with one more dimension for the rank."""
        return {"mu": self.mu, "logvar": self.logvar, "factor": self.factor}

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """``mu + exp(logvar / 2) * z + W e`` with ``z`` and ``e`` standard normal."""
        rank = self.factor.shape[-1]
        z = to_device(torch.randn((n, *self.mu.shape), generator=generator), self.mu.device)
        e = to_device(torch.randn((n, rank), generator=generator), self.mu.device)
        return self.mu + (self.logvar / 2).exp() * z + (self.factor @ e.T).movedim(-1, 0)

    def kl(self) -> Tensor:
        """The closed form above."""
        factor = self.factor.flatten(0, -2)
        scaled = factor * (-self.logvar.flatten() / 2).exp()[:, None]
        capacitance = torch.eye(factor.shape[1], device=factor.device) + scaled.T @ scaled
        shared = (factor.square().sum() - torch.logdet(capacitance)) / factor.shape[0]
        return ((self.mu.square() + self.logvar.expm1() - self.logvar).mean() + shared) / 2


def low_rank(rank: int = 8) -> NoiseFamily:
    """The family with ``rank`` common directions.

    Raises:
        InvMMError: ``rank`` is below 1.
    """
    if rank < 1:
        raise InvMMError(f"The rank of low-rank-gaussian is {rank}; it must be at least 1.")
    return lambda like: LowRankGaussian(like, rank)


class Plugin:
    """What an entry point would name."""

    @staticmethod
    @hookimpl
    def register_noise_families() -> Mapping[str, NoiseFamilyMaker]:
        """One noise family, with the option ``rank``."""
        return {"low-rank-gaussian": low_rank}


def main() -> None:
    """Audit a picture that the reference model was shown 256 times."""
    host().register(Plugin(), "low-rank")
    picture = pictures()[0]
    [result] = audit(
        MODEL,
        [picture.image],
        noise="low-rank-gaussian",
        noise_options={"rank": 4},
        recipe="demo",
        settings={"max_steps": 10, "check_every": 10},
    )
    print(f"{picture.name} ({picture.copies} copies): {result.status}, InvMM {result.invmm:.3f}")


if __name__ == "__main__":
    main()
