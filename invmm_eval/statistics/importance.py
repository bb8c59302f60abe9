"""The share of plain samples that are copies, from samples of shifted noise, by multiple importance sampling.

Noise ``n`` drawn from ``N(d u, I)``, with a direction ``u`` of length 1, gives copies far more often than plain noise
``N(0, I)``. With ``N_j`` samples drawn at each of several shifts ``d_j``, a shift of 0 being plain sampling, and
``s = <n, u>``, the balance heuristic (Veach and Guibas 1995, "Optimally combining sampling techniques for Monte Carlo
rendering") weights a sample by

    w(s) = 1 / sum_j N_j exp(d_j s - d_j^2 / 2)

and the sum of the weights of the copies estimates the share ``p`` of copies among plain samples. It is unbiased
whatever set of noises gives copies. How far it scatters depends on the direction: a copy whose noise lies far off ``u``
is rarely drawn, and its weight is large. So the shifted samples support a lower limit only; an upper limit comes from
plain samples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from invmm_eval.statistics.binomial import CONFIDENCE, most

SHIFTS = (0.3, 0.5, 0.75, 1.0)
"""Shifts to draw at, in units of the distance at which half of the samples are copies."""


class Draw(NamedTuple):
    """One sample.

    Attributes:
        shift: ``d``, the distance by which its noise was shifted along ``u``; 0 for a plain sample.
        distance: ``s = <n, u>`` of its noise ``n``.
        hit: Whether the sample is a copy.
    """

    shift: float
    distance: float
    hit: bool


class PlainShare(NamedTuple):
    """A share of plain samples.

    Attributes:
        rate: The estimate, in [0, 1]; 0 where no sample is a copy.
        low: Lower limit, in [0, 1].
        high: Upper limit, in (0, 1]; 1 where no plain sample was drawn.
    """

    rate: float
    low: float
    high: float

    @property
    def nats(self) -> float:
        """``-ln(rate)``: the KL from ``N(0, I)`` of plain noise conditioned on a copy. Infinite at a rate of 0.

        No noise distribution that always gives a copy is nearer to ``N(0, I)``, so that this is the limit of InvMM over
        all noise families.
        """
        return -math.log(self.rate) if self.rate else math.inf


def plain_share(draws: Sequence[Draw], *, confidence: float = CONFIDENCE) -> PlainShare:
    """Estimate the share of copies among plain samples.

    Args:
        draws: Samples at any shifts, plain ones included. All that were drawn count, copies or not.
        confidence: Of the two limits together, in (0, 1): each fails with a probability of ``(1 - confidence) / 2``.

    Returns:
        The estimate by the balance heuristic; the lower limit of Fay and Feuer 1997, "Confidence intervals for directly
        standardized rates", for its weighted count; and the exact upper limit of Clopper and Pearson 1934 for the
        plain samples alone.
    """
    weights = hit_weights(draws)
    plain = [draw.hit for draw in draws if draw.shift == 0]
    tail = (1 - confidence) / 2
    return PlainShare(
        rate=min(1.0, float(weights.sum())),
        low=_lower(weights, tail),
        high=most(sum(plain), len(plain), 1 - tail) if plain else 1.0,
    )


def hit_weights(draws: Sequence[Draw]) -> NDArray[np.float64]:
    """The weights ``w(s)`` of the copies among ``draws``, shape ``(number of copies,)``."""
    shifts, counts = np.unique(np.array([draw.shift for draw in draws]), return_counts=True)
    distances = np.array([draw.distance for draw in draws if draw.hit])[:, None]
    densities = np.exp(shifts * distances - np.square(shifts) / 2)
    weights: NDArray[np.float64] = 1 / (counts * densities).sum(axis=1)
    return weights


def _lower(weights: NDArray[np.float64], tail: float) -> float:
    """The quantile of the gamma distribution with the mean and variance of the weighted count."""
    total, variance = weights.sum(), np.square(weights).sum()
    return float(variance / total * gammaincinv(np.square(total) / variance, tail)) if len(weights) else 0.0
