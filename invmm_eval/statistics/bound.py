"""A bound on the share of replicas in plain sampling, given the KL of q. It holds for every model and every search.

If noise from q replicates an image at the rate r, and plain noise N(0, I) at the rate p, then by the data processing
inequality (Cover and Thomas 2006, "Elements of Information Theory", section 2.8)

    KL(q || N(0, I)) >= d(r || p),   d(r || p) = r log(r / p) + (1 - r) log((1 - r) / (1 - p))

in nats over all dimensions of the noise.
"""

import math
import sys


def least_kl(rate: float, share: float) -> float:
    """``d(rate || share)``, the least KL in nats of a noise that raises the share of replicas to ``rate``."""
    pairs = ((rate, share), (1 - rate, 1 - share))
    return sum(r * math.log(r / p) for r, p in pairs if r > 0)


def least_share(nats: float, rate: float) -> float:
    """The least p in ``[0, rate]`` with ``d(rate || p) <= nats``: the lower bound of the share in plain sampling."""
    low, high = sys.float_info.min, rate
    if least_kl(rate, low) <= nats:
        return 0.0
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (low, middle) if least_kl(rate, middle) <= nats else (middle, high)
    return low
