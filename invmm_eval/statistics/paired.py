"""Tests of paired measurements: the same pictures under two models."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import PermutationMethod, binomtest, wilcoxon

EXACT = 13
"""Number of changes up to which the signed-rank test tries every combination of signs, 2^13 of them."""

Ends = tuple[float, float]


class Tested(NamedTuple):
    """What a test found.

    Attributes:
        p: The p-value, in (0, 1], two-sided; 1 where nothing changed.
        changes: Number of pairs that changed: those that a test of signs or ranks uses.
    """

    p: float
    changes: int


def changed_sides(gained: int, lost: int) -> Tested:
    """McNemar's test in its exact form: whether as many pairs gained a property as lost it.

    Under the null hypothesis a pair that changed is as likely to have gained it as to have lost it, so that the number
    of gains is binomial with one half. McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages".

    Args:
        gained: Number of pairs whose second member alone has it.
        lost: Number of pairs whose first member alone has it.
    """
    changes = gained + lost
    return Tested(float(binomtest(gained, changes).pvalue) if changes else 1.0, changes)


def changed_ranks(before: Sequence[float], after: Sequence[float]) -> Tested:
    """Wilcoxon's signed-rank test: whether changes up and down are alike in number and size.

    Under the null hypothesis changes are symmetric about 0. Only the order of their sizes counts, so that values may be
    infinite: a change to or from infinity is larger than any other, and infinite values in both are no change. Pairs
    without a change are left out. Wilcoxon 1945, "Individual comparisons by ranking methods".

    Args:
        before: Values without NaN.
        after: Those of the same pairs.
    """
    pairs = zip(before, after, strict=True)
    changes = np.array([two - one for one, two in pairs if one != two])
    if len(changes) < 2:
        return Tested(1.0, len(changes))
    finite = np.abs(changes[np.isfinite(changes)])
    largest = 2 * finite.max(initial=0.5)  # of the rank of infinity
    method = PermutationMethod(n_resamples=2**EXACT) if len(changes) <= EXACT else "auto"
    found = wilcoxon(np.clip(changes, -largest, largest), method=method)
    return Tested(float(found.pvalue), len(changes))


def difference(one: Ends, other: Ends) -> Ends:
    """The least and the greatest ``b - a`` for ``a`` and ``b`` within their intervals.

    Where both are intervals at 95 % confidence, it holds in at least 90 % of cases (Bonferroni).
    """
    low, high = other[0] - one[1], other[1] - one[0]
    return (-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)
