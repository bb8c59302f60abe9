"""Exact binomial limits: what a random sample of images implies for the set that it was drawn from.

If ``found`` of ``of`` images, drawn at random from a large set, have a property, then at confidence c at most a share p
of the set has it: the p at which that few or fewer are found with probability 1 - c,

    P(X <= found) = 1 - c,   X ~ Binomial(of, p),   so that   p = B(c; found + 1, of - found)

with B the quantile function of the beta distribution: the exact upper limit of Clopper and Pearson 1934, "The use of
confidence or fiducial limits illustrated in the case of the binomial", one-sided. With none found it is about
``-log(1 - c) / of``, the rule of three.
"""

import math

from scipy.special import betaincinv

CONFIDENCE = 0.95
"""The confidence c of all statements."""


def most(found: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The upper limit of the share, in (0, 1]; 1 if all have the property or there are no images."""
    return 1.0 if found == of else float(betaincinv(found + 1, of - found, confidence))


def percent(share: float) -> str:
    """A limit as text, in per cent: two significant digits, rounded up."""
    digits = max(0, 1 - math.floor(math.log10(100 * share)))
    return f"{math.ceil(100 * share * 10**digits) / 10**digits:.{digits}f} %"
