"""Where noise that gives copies of an image is likely, from the image and how the model's images vary.

If the model's images were Gaussian, ``N(m, S)``, its deterministic sampler would turn a noise ``n`` into
``x_t = alpha m + (alpha^2 S + sigma^2 I)^(1/2) n`` on the way. So the noises of the paths that lead through the noised
image ``alpha x_0 + sigma e``, with ``e ~ N(0, I)``, are, for ``r = (alpha / sigma)^2``,

    q_r = N(r^(1/2) (I + r S)^(-1/2) (x_0 - m), (I + r S)^(-1)).

At r = 0 this is plain noise; the more r, the more of the path is given. The mean is shifted towards the image, and
where the model's images vary most, noises must be closer to that mean, or another image comes out. S is known along the
first principal components of plain samples, and taken to be 0 across them; without plain samples q_r is shifted plain
noise.
"""

import math
from typing import NamedTuple

import torch
from scipy.optimize import brentq
from torch import Generator, Tensor

from invmm_eval.device import to_device

COMPONENTS = 32
"""The most principal components. More than a few hardly matter; what is left is the same for all images."""
DISTINCT = 1e-6
"""Components with less than this part of the largest variance are left out."""


class Spread(NamedTuple):
    """How images vary.

    Attributes:
        mean: m, in the shape of one encoded image, ``(1, ...)``.
        components: Orthonormal, ``(k, D)``.
        variances: Of the images along them, ``(k,)``, float64 on the CPU.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "Spread":
        """The spread of encoded images ``(n, ...)``, n at least 1."""
        mean = images.mean(dim=0, keepdim=True)
        centred = (images - mean).flatten(1)
        values, vectors = torch.linalg.eigh((centred @ centred.T).double().cpu())
        values, vectors = values.flip(0)[:COMPONENTS], vectors.flip(1)[:, :COMPONENTS]
        kept = values > DISTINCT * values[:1].clamp(min=torch.finfo(torch.float32).tiny)
        components = (vectors[:, kept] / values[kept].sqrt()).T.to(centred) @ centred
        return cls(mean, components, values[kept] / max(1, len(images) - 1))


class Proposal(NamedTuple):
    """``N(mean, I)``, but for the variances along the components of a spread.

    Attributes:
        mean: In the shape of one noise.
        variances: ``(k,)``; None where all are 1.
    """

    mean: Tensor
    variances: Tensor | None = None


class Proposals:
    """The distributions q_r of one image.

    Args:
        towards: ``x_0 - m``, or another direction, in the shape of one noise, not 0.
        spread: How the model's images vary; None where it is not known.
    """

    def __init__(self, towards: Tensor, spread: Spread | None = None) -> None:
        towards = towards.detach()
        self._shape = towards.shape
        flat = towards.flatten()
        self._components = spread.components if spread else flat.new_zeros((0, len(flat)))
        self._spread = spread.variances if spread else torch.zeros(0, dtype=torch.float64)
        along = self._components @ flat
        self._across = flat - along @ self._components
        self._along = along.double().cpu()
        self._rest = self._across.double().square().sum().item()

    def at(self, nats: float) -> Proposal:
        """The one whose KL from plain noise is ``nats``, above 0."""
        r = math.exp(brentq(lambda exponent: self._nats(math.exp(exponent)) - nats, -80, 80))
        variances = 1 / (1 + r * self._spread)
        along = (self._along * variances.sqrt()).to(self._across)
        mean = math.sqrt(r) * (along @ self._components + self._across)
        return Proposal(mean.reshape(self._shape), variances)

    def rsample(self, proposal: Proposal, n: int, generator: Generator) -> Tensor:
        """``n`` noises from a proposal, ``(n, ...)``."""
        plain = torch.randn((n, *self._shape), generator=generator, device=generator.device)
        return self.noise(proposal, to_device(plain, self._across.device))

    def noise(self, proposal: Proposal, plain: Tensor) -> Tensor:
        """Noise from a proposal, made of plain noise ``(n, ...)``."""
        if proposal.variances is None:
            return plain + proposal.mean
        along = plain.flatten(1) @ self._components.T
        narrowed = (along * (proposal.variances.sqrt() - 1).to(along)) @ self._components
        return plain + narrowed.reshape(plain.shape) + proposal.mean

    def log_ratios(self, noise: Tensor, proposals: list[Proposal]) -> Tensor:
        """``ln q_j(n) / N(n; 0, I)`` of ``h`` noises ``(h, ...)`` and J proposals: float64 ``(h, J)`` on the CPU."""
        flat = noise.flatten(1).double()
        means = torch.stack([one.mean.flatten() for one in proposals]).double()
        shifts = (flat @ means.T - means.square().sum(dim=1) / 2).cpu()
        components = self._components.double()
        along, centres = (flat @ components.T).cpu(), (means @ components.T).cpu()
        ones = torch.ones_like(self._spread)
        variances = torch.stack([ones if one.variances is None else one.variances for one in proposals])
        off = (along[:, None] - centres).square()
        return shifts - ((1 / variances - 1) * off + variances.log()).sum(dim=2) / 2

    def _nats(self, r: float) -> float:
        grown = 1 + r * self._spread
        narrowed = (r * self._along.square() + 1) / grown - 1 + grown.log()
        return (narrowed.sum().item() + r * self._rest) / 2
