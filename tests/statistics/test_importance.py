"""The share of copies in plain sampling, against sets of noises whose share is known in closed form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from invmm_eval.statistics.importance import SHIFTS, Draw, hit_weights, plain_share

Copies = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""Which noises give copies, by their coordinates along the direction and across it."""


def half_space(share: float, cosine: float = 1.0) -> Copies:
    """All noises beyond a plane at an angle to the direction; its share is exact."""
    across = math.sqrt(1 - cosine**2)
    return lambda s, r: cosine * s + across * r >= norm.isf(share)


def slab(low: float, high: float) -> Copies:
    """Noises between two planes: too large a shift gives fewer copies."""
    return lambda s, _: (s >= low) & (s <= high)


def drawn(copies: Copies, shifts: dict[float, int], rng: np.random.Generator) -> list[Draw]:
    draws = []
    for shift, count in shifts.items():
        s, r = shift + rng.standard_normal(count), rng.standard_normal(count)
        draws += [Draw(shift, float(a), bool(hit)) for a, hit in zip(s, copies(s, r), strict=True)]
    return draws


def shifted(distance: float, count: int) -> dict[float, int]:
    return {factor * distance: count for factor in SHIFTS}


@pytest.mark.parametrize("share", [0.1, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("cosine", [1.0, 0.9])
def test_the_estimate_is_unbiased(share: float, cosine: float) -> None:
    rng = np.random.default_rng(0)
    shifts = shifted(norm.isf(share) / cosine, 128)
    rates = [plain_share(drawn(half_space(share, cosine), shifts, rng)).rate for _ in range(200)]
    error = np.std(rates) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - share) < 4 * error
    assert error < 0.1 * share


def test_a_set_that_is_left_by_a_large_shift_has_its_exact_share() -> None:
    rng, share = np.random.default_rng(1), norm.cdf(3.5) - norm.cdf(2.5)
    rates = [plain_share(drawn(slab(2.5, 3.5), shifted(3.0, 128), rng)).rate for _ in range(200)]
    assert abs(np.mean(rates) - share) < 4 * np.std(rates) / math.sqrt(len(rates))


@pytest.mark.parametrize("share", [0.05, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("cosine", [1.0, 0.8])
def test_limits_hold_at_their_confidence(share: float, cosine: float) -> None:
    """Each limit fails in 2.5 % of the cases; more than 6 % of 400 has a probability below 1e-4."""
    rng, copies = np.random.default_rng(2), half_space(share, cosine)
    shifts = {0.0: 1000, **shifted(norm.isf(share) / cosine, 32)}
    found = [plain_share(drawn(copies, shifts, rng)) for _ in range(400)]
    assert sum(one.low > share for one in found) <= 24
    assert sum(one.high < share for one in found) <= 24


def test_plain_samples_alone_give_their_count_and_exact_limits() -> None:
    draws = [Draw(0.0, 0.0, hit) for hit in [True] * 5 + [False] * 95]
    found = plain_share(draws)
    assert found.rate == pytest.approx(0.05)
    assert found.low == pytest.approx(chi2.ppf(0.025, 10) / 200)  # Poisson: Fay and Feuer with equal weights
    assert found.high == pytest.approx(0.11283, abs=1e-5)  # Clopper and Pearson, from R's binom.test(5, 100)


def test_without_plain_samples_there_is_no_upper_limit() -> None:
    assert plain_share([Draw(1.0, 2.0, True), Draw(1.0, 0.5, False)]).high == 1


def test_without_a_copy_the_share_is_zero_and_plain_samples_limit_it() -> None:
    found = plain_share([Draw(0.0, 0.0, False)] * 1000 + [Draw(2.0, 2.0, False)] * 10)
    assert (found.rate, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert found.nats == math.inf


def test_weights_are_those_of_the_mixture_of_all_shifts() -> None:
    draws = [Draw(0.0, 0.3, False), Draw(1.0, 1.5, True), Draw(1.0, 0.2, True), Draw(2.0, 2.5, False)]
    expected = [norm.pdf(s) / (norm.pdf(s) + 2 * norm.pdf(s, loc=1) + norm.pdf(s, loc=2)) for s in (1.5, 0.2)]
    assert hit_weights(draws) == pytest.approx(expected)
