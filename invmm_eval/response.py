"""How the share of replicas rises with the dose: the KL at which half, or nine in ten, of the samples are replicas.

Noise from N(mu, I) is the standard normal moved by ``d = |mu|`` standard deviations, at ``KL = d^2 / 2`` nats in all.
Let r(d) be the share of its samples that replicate an image, and z the quantile function of the standard normal. By
the Neyman-Pearson lemma no set of noises gains more than a half-space does, so that for every model

    0 <= d' - d  implies  z(r(d')) - z(r(d)) <= d' - d

(Salman et al. 2019, "Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers", lemma 2). The curve
fitted is that of probit analysis (Finney 1947, "Probit Analysis"),

    r(d) = Phi(z(0.9) + b (d - t)),   0 < b <= 1,

in which t is the distance at which nine in ten replicate. All that is known of (t, b) after some outcomes is their
posterior under a uniform prior on a grid, as psychophysics finds thresholds (Kontsevich and Tyler 1999, "Bayesian
adaptive estimation of psychometric slope and threshold"): it is proper after any outcome, all hits or none included.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from scipy.special import betaincinv  # type: ignore[import-untyped]
from torch import Tensor

CONFIDENCE = 0.95
"""Of every interval here."""
HALF = 0.5
MOST = 0.9
"""The shares of replicas whose doses are told: ED50 and ED90."""

_DISTANCES = 400
_SLOPES = 40


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
    """What came of a dose, in nats over all dimensions: so many replicas among so many samples."""

    nats: float
    hits: int
    drawn: int


class Dose(NamedTuple):
    """An estimate in nats over all dimensions: the posterior's median, and the ends of its central interval."""

    nats: float
    low: float
    high: float


class Response:
    """The dose-response curve of one image.

    Args:
        outcomes: One at least, in any order; of one at least the dose is above 0.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = tuple(outcomes)

    def dose(self, rate: float) -> Dose:
        """The dose at which the share ``rate``, in (0, 1), of samples replicate; 0 where in plain sampling they do."""
        t, b, weights = self._posterior
        distances, order = (t + (_z(rate) - _z(MOST)) / b).flatten().clamp(min=0).sort()
        mass = weights.flatten()[order].cumsum(dim=0)
        tail = (1 - CONFIDENCE) / 2
        wanted = mass.new_tensor([HALF, tail, 1 - tail]) * mass[-1]
        return Dose(*(distances[torch.searchsorted(mass, wanted)].square() / 2).tolist())

    @cached_property
    def _posterior(self) -> tuple[Tensor, Tensor, Tensor]:
        """The grids of t, up to twice the furthest distance, and of b, and their weights."""
        nats, hits, drawn = torch.tensor(self.outcomes, dtype=torch.float64).T
        d = (2 * nats).sqrt()
        t = torch.linspace(0, 2 * float(d.max()), _DISTANCES, dtype=torch.float64)[:, None, None]
        b = torch.linspace(0, 1, _SLOPES + 1, dtype=torch.float64)[1:, None]
        z = _z(MOST) + b * (d - t)
        likelihood = (hits * torch.special.log_ndtr(z) + (drawn - hits) * torch.special.log_ndtr(-z)).sum(dim=2)
        return t[..., 0], b[:, 0], (likelihood - likelihood.max()).exp()


def _z(rate: float) -> float:
    return float(torch.special.ndtri(torch.tensor(rate, dtype=torch.float64)))
