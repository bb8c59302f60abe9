"""Tests of paired measurements, against tables of contingency, counts of all signs, and scipy."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, wilcoxon

from invmm_eval.statistics.paired import changed_ranks, changed_sides, difference


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (0, 6), (5, 5), (9, 1), (40, 61)])
def test_gains_and_losses_are_tested_by_the_binomial_of_one_half(gained: int, lost: int) -> None:
    of = gained + lost
    known = min(1.0, 2 * binom.cdf(min(gained, lost), of, 0.5)) if of else 1.0
    found = changed_sides(gained, lost)
    assert found.p == pytest.approx(known)
    assert found.changes == of


def all_signs(changes: list[float]) -> float:
    """The share of all combinations of signs whose sum of ranks is as far from its mean as that of the changes."""
    sizes = [abs(change) for change in changes]
    ranks = [sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes]
    sums = [sum(rank for rank, up in zip(ranks, ups, strict=True) if up) for ups in product((0, 1), repeat=len(ranks))]
    own, mean = sum(rank for rank, change in zip(ranks, changes, strict=True) if change > 0), sum(ranks) / 2
    return float(np.mean([abs(one - mean) >= abs(own - mean) - 1e-9 for one in sums]))


@pytest.mark.parametrize(
    "changes",
    [[1.0], [3.0, 1.0, 2.0, 5.0, 4.0], [3.0, -1.0, 2.0, 2.0, -2.0, 7.0], [math.inf, math.inf, -4.0, 1.0, 0.5]],
)
def test_few_changes_are_tested_by_all_signs(changes: list[float]) -> None:
    found = changed_ranks([1.0] * len(changes), [1.0 + change for change in changes])
    assert found.p == pytest.approx(all_signs(changes))
    assert found.changes == len(changes)


def test_many_changes_are_tested_as_scipy_does() -> None:
    before, after = np.random.default_rng(0).normal(size=(2, 60))
    assert changed_ranks(before.tolist(), after.tolist()).p == pytest.approx(wilcoxon(before, after).pvalue)


def test_infinite_in_both_is_no_change_and_the_order_of_models_does_not_matter() -> None:
    before, after = [math.inf, math.inf, 3.0, 2.0], [math.inf, 5.0, 1.0, 2.0]
    assert changed_ranks(before, after) == (0.5, 2)
    assert changed_ranks(after, before) == (0.5, 2)
    assert changed_ranks([math.inf], [math.inf]) == (1.0, 0)


@pytest.mark.parametrize(
    ("one", "other", "known"),
    [
        ((1.0, 2.0), (4.0, 8.0), (2.0, 7.0)),
        ((1.0, 2.0), (4.0, math.inf), (2.0, math.inf)),
        ((0.0, math.inf), (0.0, math.inf), (-math.inf, math.inf)),
        ((math.inf, math.inf), (math.inf, math.inf), (-math.inf, math.inf)),
    ],
)
def test_a_difference_goes_from_end_to_end(
    one: tuple[float, float], other: tuple[float, float], known: tuple[float, float]
) -> None:
    assert difference(one, other) == known
