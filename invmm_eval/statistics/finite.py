"""Exact limits for a set of known size: what a random sample of it implies for the images that were not looked at.

If ``found`` of ``of`` images, drawn without replacement from ``size``, have a property, the number in the set that have
it is at most the largest M with

    P(X <= found) > 1 - c,   X ~ Hypergeometric(size, M, of)

at confidence c: the one-sided limit of Clopper and Pearson for a finite population (Buonaccorsi 1987, "A note on
confidence intervals for proportions in finite populations"). If all of the set was drawn, it is ``found``.
"""

from bisect import bisect_left

from scipy.stats import hypergeom

from invmm_eval.statistics.binomial import CONFIDENCE


def most_in(size: int, found: int, of: int, confidence: float = CONFIDENCE) -> int:
    """The upper limit of the number in the whole set, ``found`` included.

    Args:
        size: Number of images of the set.
        found: Number of drawn images that have the property.
        of: Number of drawn images, at most ``size``.
        confidence: Probability that the limit holds, at least.
    """
    possible = range(found, size - (of - found) + 1)
    return possible[
        bisect_left(possible, confidence - 1, key=lambda number: -hypergeom.cdf(found, size, number, of)) - 1
    ]
