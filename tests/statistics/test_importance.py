"""The share of copies in plain sampling, against sets of noises whose share is known in closed form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from invmm_eval.statistics.importance import plain_share, relative_error

SHIFTS = (0.3, 0.5, 0.75, 1.0)
"""Shifts, in units of the distance at which half of the samples are copies."""

Copies = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""Which noises give copies, by their coordinates along the direction and across it."""


def half_space(share: float, cosine: float = 1.0) -> Copies:
    """All noises beyond a plane at an angle to the direction; its share is exact."""
    across = math.sqrt(1 - cosine**2)
    return lambda s, r: cosine * s + across * r >= norm.isf(share)


def slab(low: float, high: float) -> Copies:
    """Noises between two planes: too large a shift gives fewer copies."""
    return lambda s, _: (s >= low) & (s <= high)


Drawn = tuple[NDArray[np.float64], NDArray[np.int64], tuple[int, int]]
"""The arguments of ``plain_share``."""


def drawn(copies: Copies, shifts: dict[float, int], rng: np.random.Generator) -> Drawn:
    """Samples at shifts along the direction."""
    return drawn_at(copies, {(shift, 0.0): count for shift, count in shifts.items()}, rng)


def drawn_at(copies: Copies, means: dict[tuple[float, float], int], rng: np.random.Generator) -> Drawn:
    """Samples at means given by their coordinates along the direction and across it."""
    hits, plain = [], (0, 0)
    for mean, count in means.items():
        noise = mean + rng.standard_normal((count, 2))
        hit = copies(noise[:, 0], noise[:, 1])
        hits.append(noise[hit])
        if mean == (0, 0):
            plain = (int(hit.sum()), count)
    at = np.array(list(means))
    log_ratios = np.concatenate(hits) @ at.T - (at**2).sum(axis=1) / 2
    return log_ratios, np.array(list(means.values())), plain


def shifted(distance: float, count: int) -> dict[float, int]:
    return {factor * distance: count for factor in SHIFTS}


@pytest.mark.parametrize("share", [0.1, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("cosine", [1.0, 0.9])
def test_the_estimate_is_unbiased(share: float, cosine: float) -> None:
    rng = np.random.default_rng(0)
    shifts = shifted(norm.isf(share) / cosine, 128)
    rates = [plain_share(*drawn(half_space(share, cosine), shifts, rng)).rate for _ in range(200)]
    error = np.std(rates) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - share) < 4 * error
    assert error < 0.1 * share


def test_a_set_that_is_left_by_a_large_shift_has_its_exact_share() -> None:
    rng, share = np.random.default_rng(1), norm.cdf(3.5) - norm.cdf(2.5)
    rates = [plain_share(*drawn(slab(2.5, 3.5), shifted(3.0, 128), rng)).rate for _ in range(200)]
    assert abs(np.mean(rates) - share) < 4 * np.std(rates) / math.sqrt(len(rates))


@pytest.mark.parametrize("share", [0.05, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("cosine", [1.0, 0.8])
def test_limits_hold_at_their_confidence(share: float, cosine: float) -> None:
    """Each limit fails in 2.5 % of the cases; more than 6 % of 400 has a probability below 1e-4."""
    rng, copies = np.random.default_rng(2), half_space(share, cosine)
    shifts = {0.0: 1000, **shifted(norm.isf(share) / cosine, 32)}
    found = [plain_share(*drawn(copies, shifts, rng)) for _ in range(400)]
    assert sum(one.low > share for one in found) <= 24
    assert sum(one.high < share for one in found) <= 24


def test_means_may_lie_in_several_directions() -> None:
    """As those of a search that turns: the estimate stays unbiased."""
    rng, share = np.random.default_rng(3), 1e-2
    distance = norm.isf(share)
    means = {(0.0, 0.0): 50, (0.5 * distance, distance): 30, (distance, -0.5): 60, (0.7 * distance, 0.2): 60}
    rates = [plain_share(*drawn_at(half_space(share), means, rng)).rate for _ in range(400)]
    assert abs(np.mean(rates) - share) < 4 * np.std(rates) / math.sqrt(len(rates))
    assert np.std(rates) < share


def test_plain_samples_alone_give_their_count_and_exact_limits() -> None:
    found = plain_share(np.zeros((5, 1)), np.array([100]), (5, 100))
    assert found.rate == pytest.approx(0.05)
    assert found.low == pytest.approx(chi2.ppf(0.025, 10) / 200)  # Poisson: Fay and Feuer with equal weights
    assert found.high == pytest.approx(0.11283, abs=1e-5)  # Clopper and Pearson, from R's binom.test(5, 100)


def test_without_plain_samples_there_is_no_upper_limit() -> None:
    assert plain_share(np.array([[1.5]]), np.array([2])).high == 1


def test_without_a_copy_the_share_is_zero_and_plain_samples_limit_it() -> None:
    found = plain_share(np.zeros((0, 2)), np.array([1000, 10]), (0, 1000))
    assert (found.rate, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert found.nats == math.inf


def test_weights_are_those_of_the_mixture_of_all_means() -> None:
    s = np.array([1.5, 0.2])
    log_ratios = s[:, None] * np.arange(3) - np.arange(3) ** 2 / 2
    expected = norm.pdf(s) / (norm.pdf(s) + 2 * norm.pdf(s, loc=1) + norm.pdf(s, loc=2))
    assert plain_share(log_ratios, np.array([1, 2, 1])).rate == pytest.approx(expected.sum())


def test_the_relative_error_of_plain_samples_is_that_of_a_count() -> None:
    assert relative_error(np.zeros((25, 1)), np.array([1000])) == pytest.approx(1 / 5)
    assert relative_error(np.zeros((0, 1)), np.array([1000])) == math.inf


def test_the_relative_error_is_the_scatter_of_the_estimate() -> None:
    rng = np.random.default_rng(0)
    samples = [drawn(half_space(0.01), shifted(2.3, 56), rng) for _ in range(400)]
    rates = np.array([plain_share(*one).rate for one in samples])
    stated = float(np.mean([relative_error(*one[:2]) for one in samples]))
    assert rates.std() / rates.mean() == pytest.approx(stated, rel=0.15)
