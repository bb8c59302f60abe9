"""How the share of replicas rises with the dose: the KL at which half, or nine in ten, of the samples are replicas.

Noise n from N(d u, I), with a direction u of length 1, is the standard normal moved by d standard deviations, at
``KL = d^2 / 2`` nats in all. The component of each sample's noise along u is known: ``s = <n, u>``, which is
N(d, 1). The distribution of the other components is the same for every d, so that d acts through s alone.
Probit analysis (Finney 1947, "Probit Analysis") of all samples, at all doses, fits

    P(replica | s) = Phi((s - t) / w),   and over s ~ N(d, 1)   r(d) = Phi(b (d - t)),   b = 1 / sqrt(1 + w^2).

So half of the samples replicate at the distance t, the share p at ``t + z_p / b``, z_p the standard normal's quantile,
and in plain sampling, at the distance 0, the share ``Phi(-b t)``. This is importance sampling with q as the proposal,
whose weights depend on s alone, averaged over the curve instead of over few samples.

The estimate of (t, b) is their posterior under a uniform prior on a grid, as psychophysics estimates thresholds
(Kontsevich and Tyler 1999, "Bayesian adaptive estimation of psychometric slope and threshold"): it is proper after any
outcome, all replicas or none included. That b is at most 1 is no assumption: see :mod:`invmm_eval.statistics.bound`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from invmm_eval.statistics.binomial import CONFIDENCE, most

HALF = 0.5
MOST = 0.9
"""The shares of replicas whose doses are reported: ED50 and ED90."""

DRAWN_AT = (0.1, HALF, MOST)
"""The shares of replicas at whose doses, by the present estimate, samples are drawn in turn."""

REACH = 10.0
"""The largest ED50, in nats, at which the share in plain sampling is reported: beyond it the share is far too high."""

_DISTANCES = 400
_SLOPES = 40
_BEHIND = 4.0
"""The grid of t starts at minus this, where all but three in 100,000 plain samples replicate."""


class Count(NamedTuple):
    """The number of replicas and the number of samples."""

    hits: int
    drawn: int

    @property
    def rate(self) -> float:
        """The share of replicas."""
        return self.hits / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """The exact confidence interval of the rate (Clopper and Pearson 1934)."""
        confidence = (1 + CONFIDENCE) / 2
        return 1 - most(self.drawn - self.hits, self.drawn, confidence), most(self.hits, self.drawn, confidence)


class Outcome(NamedTuple):
    """One sample: the distance of its noise along the direction, and whether it is a replica."""

    distance: float
    hit: bool


class Dose(NamedTuple):
    """An estimate in nats over all dimensions: the posterior's median, and the ends of its central interval."""

    nats: float
    low: float
    high: float


class Share(NamedTuple):
    """An estimate of a share of samples: the posterior's median, and the ends of its central interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Response:
    """The dose-response curve of one image.

    Attributes:
        outcomes: At least one, in any order.
    """

    outcomes: tuple[Outcome, ...]

    def dose(self, rate: float) -> Dose:
        """The dose at which the share ``rate``, in (0, 1), of samples replicates; 0 if plain sampling reaches it."""
        t, b, _ = self._posterior
        distances = (t + torch.special.ndtri(t.new_tensor(rate)) / b).clamp(min=0)
        return Dose(*self._summary(distances.square() / 2))

    def plain(self) -> Share | None:
        """The share of replicas in plain sampling; None where ED50 is above :data:`REACH`."""
        if self.dose(HALF).nats > REACH:
            return None
        t, b, _ = self._posterior
        return Share(*self._summary(torch.special.ndtr(-b * t)))

    def _summary(self, values: Tensor) -> list[float]:
        """The median and the ends of the central interval of a quantity with these values on the grid of t and b."""
        ordered, order = values.flatten().sort()
        mass = self._posterior[2].flatten()[order].cumsum(dim=0)
        tail = (1 - CONFIDENCE) / 2
        targets = mass.new_tensor([0.5, tail, 1 - tail]) * mass[-1]
        quantiles: list[float] = ordered[torch.searchsorted(mass, targets)].tolist()
        return quantiles

    @cached_property
    def _posterior(self) -> tuple[Tensor, Tensor, Tensor]:
        """The grids of t, up to twice the furthest distance, and of b, and their weights."""
        s, hit = torch.tensor(self.outcomes, dtype=torch.float64).T
        t = torch.linspace(-_BEHIND, 2 * max(float(s.max()), 1.0), _DISTANCES, dtype=torch.float64)[:, None]
        b = (torch.arange(_SLOPES, dtype=torch.float64) + 0.5) / _SLOPES
        z = (s - t[..., None]) * (b / (1 - b.square()).sqrt())[:, None]
        likelihood = torch.special.log_ndtr(torch.where(hit > 0, z, -z)).sum(dim=2)
        return t, b, (likelihood - likelihood.max()).exp()
