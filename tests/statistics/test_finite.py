"""Limits for finite sets: against exhaustive enumeration of all samples, and the binomial limit of large sets."""

from collections import Counter
from itertools import combinations
from math import comb

import pytest

from invmm_eval.statistics.binomial import most
from invmm_eval.statistics.finite import most_in


def by_enumeration(size: int, found: int, of: int, confidence: float) -> int:
    """The largest M at which more than 1 - c of all samples have as few, by listing every sample."""
    likely = []
    for holders in range(size + 1):
        counts = Counter(sum(place < holders for place in sample) for sample in combinations(range(size), of))
        if sum(count for hits, count in counts.items() if hits <= found) > (1 - confidence) * comb(size, of):
            likely.append(holders)
    return max(likely)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_the_limit_is_that_of_enumerating_every_sample(size: int, confidence: float) -> None:
    for of in range(size + 1):
        for found in range(of + 1):
            assert most_in(size, found, of, confidence) == by_enumeration(size, found, of, confidence)


def test_a_large_set_has_the_binomial_limit() -> None:
    assert most_in(10**7, 2, 59) / 10**7 == pytest.approx(most(2, 59), rel=1e-3)


def test_all_of_the_set_leaves_nothing_open() -> None:
    assert most_in(12, 3, 12) == 3
    assert most_in(0, 0, 0) == 0
