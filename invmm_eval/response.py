"""How the share of replicas rises with the dose: the KL at which half, or nine in ten, of the samples are replicas.

Noise n from N(d u, I), with a direction u of length 1, is the standard normal moved by d standard deviations, at
``KL = d^2 / 2`` nats in all. Of each sample it is known how far it went itself along u: ``s = <n, u>``, which is
N(d, 1). What else is in its noise is the same for every d, so that whether it replicates depends on d through s alone.
By probit analysis (Finney 1947, "Probit Analysis") of all samples, whatever their doses,

    P(replica | s) = Phi((s - t) / w),   and over s ~ N(d, 1)   r(d) = Phi(b (d - t)),   b = 1 / sqrt(1 + w^2).

So half of the samples replicate at the distance t, and the share p at ``t + z_p / b``, z_p the standard normal's
quantile. What is known of (t, b) is their posterior under a uniform prior on a grid, as psychophysics finds thresholds
(Kontsevich and Tyler 1999, "Bayesian adaptive estimation of psychometric slope and threshold"): it is proper after any
outcome, all replicas or none included. That b is at most 1 is no assumption: see :mod:`invmm_eval.bound`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor

from invmm_eval.power import CONFIDENCE

HALF = 0.5
MOST = 0.9
"""The shares of replicas whose doses are told: ED50 and ED90."""

INFORMATIVE = 0.75
"""The share of replicas at whose dose, by what is known so far, the next samples are drawn: they tell most of ED90."""

_DISTANCES = 400
_SLOPES = 20
_BEHIND = 4.0
"""How far before the standard normal t may lie: so far, all but three in 100,000 plain samples replicate."""


class Count(NamedTuple):
    """So many replicas among so many samples."""

    hits: int
    drawn: int

    @property
    def rate(self) -> float:
        """The share of replicas."""
        return self.hits / self.drawn

    @property
    def interval(self) -> tuple[float, float]:
        """The exact interval of the rate by Clopper and Pearson 1934."""
        tail, misses = (1 - CONFIDENCE) / 2, self.drawn - self.hits
        return (
            float(betaincinv(self.hits, misses + 1, tail)) if self.hits else 0.0,
            float(betaincinv(self.hits + 1, misses, 1 - tail)) if misses else 1.0,
        )


class Outcome(NamedTuple):
    """What came of one sample: how far its noise went along the direction, and whether it is a replica."""

    distance: float
    hit: bool


class Dose(NamedTuple):
    """An estimate in nats over all dimensions: the posterior's median, and the ends of its central interval."""

    nats: float
    low: float
    high: float


@dataclass(frozen=True)
class Response:
    """The dose-response curve of one image.

    Attributes:
        outcomes: Of one sample at least, in any order.
    """

    outcomes: tuple[Outcome, ...]

    def dose(self, rate: float) -> Dose:
        """The dose at which the share ``rate``, in (0, 1), of samples replicate; 0 where in plain sampling they do."""
        t, b, weights = self._posterior
        distances, order = (t + torch.special.ndtri(t.new_tensor(rate)) / b).flatten().clamp(min=0).sort()
        mass = weights.flatten()[order].cumsum(dim=0)
        tail = (1 - CONFIDENCE) / 2
        wanted = mass.new_tensor([0.5, tail, 1 - tail]) * mass[-1]
        return Dose(*(distances[torch.searchsorted(mass, wanted)].square() / 2).tolist())

    @cached_property
    def _posterior(self) -> tuple[Tensor, Tensor, Tensor]:
        """The grids of t, up to twice the furthest distance, and of b, and their weights."""
        s, hit = torch.tensor(self.outcomes, dtype=torch.float64).T
        t = torch.linspace(-_BEHIND, 2 * max(float(s.max()), 1.0), _DISTANCES, dtype=torch.float64)[:, None]
        b = (torch.arange(_SLOPES, dtype=torch.float64) + 0.5) / _SLOPES
        z = (s - t[..., None]) * (b / (1 - b.square()).sqrt())[:, None]
        likelihood = torch.special.log_ndtr(torch.where(hit > 0, z, -z)).sum(dim=2)
        return t, b, (likelihood - likelihood.max()).exp()
