"""How the share of replicas rises with the dose: the KL at which half, or nine in ten, of the samples are replicas.

Noise n from N(d u, I), with a direction u of length 1, is the standard normal moved by d standard deviations, at
``KL = d^2 / 2`` nats in all. The component of each sample's noise along u is known: ``s = <n, u>``, which is
N(d, 1). The distribution of the other components is the same for every d, so that d acts through s alone.
Probit analysis (Finney 1947, "Probit Analysis") of all samples, at all doses, fits

    P(replica | s) = Phi((s - t) / w),   and over s ~ N(d, 1)   r(d) = Phi(b (d - t)),   b = 1 / sqrt(1 + w^2).

So half of the samples replicate at the distance t, and the share p at ``t + z_p / b``, z_p the standard normal's
quantile. The curve says nothing about plain sampling, at the distance 0, which lies in its tail: see
:mod:`invmm_eval.statistics.importance`.

The estimate of (t, b) is their posterior under a uniform prior on a grid, as psychophysics estimates thresholds
(Kontsevich and Tyler 1999, "Bayesian adaptive estimation of psychometric slope and threshold"): it is proper after any
outcome, all replicas or none included. That b is at most 1 is no assumption: see :mod:`invmm_eval.statistics.bound`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invmm_eval.statistics.binomial import CONFIDENCE, most

HALF = 0.5
MOST = 0.9
"""The shares of replicas whose doses are reported: ED50 and ED90."""

DRAWN_AT = (0.1, HALF, MOST)
"""The shares of replicas at whose doses, by the present estimate, samples are drawn in turn."""

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

    def dose_in_range(self, rate: float) -> Dose | None:
        """The dose at which the share ``rate`` replicates, within the range of the samples.

        Returns:
            :meth:`dose`, its interval ended at the largest dose that a sample lies at. None where the curve falls, or
            the dose is beyond all samples: there it follows from the shape of the fit alone.
        """
        dose, furthest = self.dose(rate), max(0.0, *(outcome.distance for outcome in self.outcomes)) ** 2 / 2
        if self.falls or dose.nats >= furthest:
            return None
        return Dose(dose.nats, dose.low, min(dose.high, furthest))

    def values(self) -> dict[str, Any]:
        """The outcomes, and the doses in their range at :data:`HALF` and :data:`MOST`, as JSON holds them."""
        doses = {name: self.dose_in_range(share) for name, share in (("ed50", HALF), ("ed90", MOST))}
        return {
            "outcomes": list(map(list, self.outcomes)),
            **{name: dose and list(dose) for name, dose in doses.items()},
        }

    @property
    def falls(self) -> bool:
        """Whether more dose hurts: a quarter of the samples, by distance, has more replicas than the furthest one.

        More means that their intervals (:attr:`Count.interval`) do not overlap.
        """
        quarters = [count.interval for _, count in self.parts(4)]
        return quarters[-1][1] < max(low for low, _ in quarters)

    def parts(self, number: int) -> list[tuple[float, Count]]:
        """The samples by distance in ``number`` parts of equal size: their mean distance and replicas."""
        outcomes = sorted(self.outcomes)
        ends = [len(outcomes) * part // number for part in range(number + 1)]
        parts = [outcomes[start:end] for start, end in pairwise(ends) if end > start]
        return [
            (sum(one.distance for one in part) / len(part), Count(sum(one.hit for one in part), len(part)))
            for part in parts
        ]

    def chance(self, distances: Sequence[float]) -> list[float]:
        """The fitted ``P(replica | s)`` at distances s: the mean of its posterior."""
        t, b, weights = self._posterior
        z = (t.new_tensor(distances) - t[..., None]) * (b / (1 - b.square()).sqrt())[:, None]
        chances = torch.special.ndtr(z) * weights[..., None]
        fitted: list[float] = (chances.sum(dim=(0, 1)) / weights.sum()).tolist()
        return fitted

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
