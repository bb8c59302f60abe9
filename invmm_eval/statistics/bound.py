"""What a KL says about plain sampling, whatever the model is and however q was found.

If noise from q replicates an image at the rate r, and plain noise N(0, I) at the rate p, then by the data processing
inequality (Cover and Thomas 2006, "Elements of Information Theory", section 2.8)

    KL(q || N(0, I)) >= d(r || p),   d(r || p) = r log(r / p) + (1 - r) log((1 - r) / (1 - p))

in nats over all dimensions of the noise.

Where q = N(mu, I) more is known. By the Neyman-Pearson lemma no set of noises gains more by a move of the mean than the
half-space across it does, so that with z the quantile function of the standard normal

    z(r) - z(p) <= |mu| = sqrt(2 KL(q || N(0, I)))

(Salman et al. 2019, "Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers", lemma 2). Equal it
is where the noises that replicate are a half-space.
"""

import math
import sys
from statistics import NormalDist

RATE = 0.9
"""The r that is supposed where it was not measured: a passed check makes it likely, no more."""
TELLING_NATS = 20.0
"""Above so many nats in all, the bound promises no copy that anybody would see: one in 6 thousand million samples."""


def least_kl(rate: float, share: float) -> float:
    """``d(rate || share)``: the least nats for a noise that gives at ``rate`` what plain noise gives at ``share``."""
    pairs = ((rate, share), (1 - rate, 1 - share))
    return sum(ours * math.log(ours / plain) for ours, plain in pairs if ours > 0)


def least_share(nats: float, rate: float = RATE) -> float:
    """The least p in ``[0, rate]`` with ``d(rate || p) <= nats``: at least so often plain sampling gives a copy."""
    low, high = sys.float_info.min, rate
    if least_kl(rate, low) <= nats:
        return 0.0
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (low, middle) if least_kl(rate, middle) <= nats else (middle, high)
    return low


def least_share_moved(nats: float, rate: float = RATE) -> float:
    """The least p where q has the standard normal's variance and only its mean is moved: far above the general one."""
    plain = NormalDist()
    return plain.cdf(plain.inv_cdf(rate) - math.sqrt(2 * nats))
