"""Bounds on the share of replicas in plain sampling, given the KL of q. They hold for every model and every search.

If noise from q replicates an image at the rate r, and plain noise N(0, I) at the rate p, then by the data processing
inequality (Cover and Thomas 2006, "Elements of Information Theory", section 2.8)

    KL(q || N(0, I)) >= d(r || p),   d(r || p) = r log(r / p) + (1 - r) log((1 - r) / (1 - p))

in nats over all dimensions of the noise.

For q = N(mu, I) a stronger bound holds. By the Neyman-Pearson lemma no set of noises gains more probability from a
shift of the mean than the half-space orthogonal to it, so that with z the quantile function of the standard normal

    z(r) - z(p) <= |mu| = sqrt(2 KL(q || N(0, I)))

(Salman et al. 2019, "Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers", lemma 2), with
equality where the noises that replicate form a half-space.
"""

import math
import sys
from statistics import NormalDist

RATE = 0.9
"""The r that is assumed where it was not measured: a passed check makes it likely, but does not show it."""
TELLING_NATS = 20.0
"""The largest KL, in nats over all dimensions, at which the bound is useful: one copy in 6 billion samples."""


def least_kl(rate: float, share: float) -> float:
    """``d(rate || share)``, the least KL in nats of a noise that raises the share of replicas to ``rate``."""
    pairs = ((rate, share), (1 - rate, 1 - share))
    return sum(r * math.log(r / p) for r, p in pairs if r > 0)


def least_share(nats: float, rate: float = RATE) -> float:
    """The least p in ``[0, rate]`` with ``d(rate || p) <= nats``: the lower bound of the share in plain sampling."""
    low, high = sys.float_info.min, rate
    if least_kl(rate, low) <= nats:
        return 0.0
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (low, middle) if least_kl(rate, middle) <= nats else (middle, high)
    return low


def least_share_moved(nats: float, rate: float = RATE) -> float:
    """The least p for q = N(mu, I): far above the general one."""
    plain = NormalDist()
    return plain.cdf(plain.inv_cdf(rate) - math.sqrt(2 * nats))
