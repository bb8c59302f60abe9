"""The share of plain samples that are copies, from samples of shifted noise, by multiple importance sampling.

Noise ``n`` drawn from ``N(mu, I)``, with a well-chosen ``mu``, gives copies far more often than plain noise
``N(0, I)``. With ``N_j`` samples drawn at each of several means ``mu_j``, a mean of 0 being plain sampling, the balance
heuristic (Veach and Guibas 1995, "Optimally combining sampling techniques for Monte Carlo rendering") weights a sample
by

    w(n) = 1 / sum_j N_j r_j(n),   r_j(n) = exp(<n, mu_j> - |mu_j|^2 / 2)

and the sum of the weights of the copies estimates the share ``p`` of copies among plain samples. It is unbiased
whatever set of noises gives copies. How far it scatters depends on the means: a copy whose noise lies far off all of
them is rarely drawn, and its weight is large. So the shifted samples support a lower limit only; an upper limit comes
from plain samples.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, logsumexp

from invmm_eval.statistics.binomial import CONFIDENCE, most

SURE = 0.5
"""The largest relative standard error at which the estimate is more than a lower limit."""


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


def plain_share(
    log_ratios: NDArray[np.float64],
    drawn: NDArray[np.int64],
    plain: tuple[int, int] = (0, 0),
    *,
    confidence: float = CONFIDENCE,
) -> PlainShare:
    """Estimate the share of copies among plain samples.

    Args:
        log_ratios: ``ln r_j(n)`` of the noise ``n`` of every copy, one row for each, and of every mean ``mu_j``, one
            column for each; zeros in the column of plain samples.
        drawn: ``N_j``, the number of samples drawn at every mean, copies or not, shape ``(J,)``.
        plain: Of the plain samples among them: the number of copies, and of all.
        confidence: Of the two limits together, in (0, 1): each fails with a probability of ``(1 - confidence) / 2``.

    Returns:
        The estimate by the balance heuristic; the lower limit of Fay and Feuer 1997, "Confidence intervals for directly
        standardized rates", for its weighted count; and the exact upper limit of Clopper and Pearson 1934 for the
        plain samples alone.
    """
    weights = _weights(log_ratios, drawn)
    copies, samples = plain
    tail = (1 - confidence) / 2
    return PlainShare(
        rate=min(1.0, float(weights.sum())),
        low=_lower(weights, tail),
        high=most(copies, samples, 1 - tail) if samples else 1.0,
    )


def relative_error(log_ratios: NDArray[np.float64], drawn: NDArray[np.int64]) -> float:
    """The standard error of the estimate of :func:`plain_share` over the estimate, as far as the samples show it.

    Infinite without any copy; ``1 / sqrt(h)`` for ``h`` copies among plain samples alone.
    """
    weights = _weights(log_ratios, drawn)
    return float(np.sqrt(np.square(weights).sum()) / weights.sum()) if len(weights) else math.inf


def _weights(log_ratios: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the balance heuristic, one for each copy."""
    weights: NDArray[np.float64] = np.exp(-logsumexp(log_ratios, axis=1, b=drawn)) if len(log_ratios) else np.zeros(0)
    return weights


def _lower(weights: NDArray[np.float64], tail: float) -> float:
    """The quantile of the gamma distribution with the mean and variance of the weighted count."""
    total, variance = weights.sum(), np.square(weights).sum()
    return float(variance / total * gammaincinv(np.square(total) / variance, tail)) if len(weights) else 0.0
