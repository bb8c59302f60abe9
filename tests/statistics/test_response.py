"""The dose-response curve: against SciPy, against its own equation by simulation, and against sampled posteriors."""

import math
from collections.abc import Iterator

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Generator, Tensor

from invmm_eval.statistics.response import HALF, MOST, Count, Outcome, Response


def drawn(t: float, b: float, d: Tensor, seed: int) -> tuple[Outcome, ...]:
    """Outcomes of one sample at each distance ``d`` of the mean, of an image whose curve is ``Phi(b (d - t))``."""
    generator = Generator().manual_seed(seed)
    width = math.sqrt(1 / b**2 - 1)
    s = d + torch.randn(d.shape, generator=generator)
    hit = torch.rand(d.shape, generator=generator) < torch.from_numpy(norm.cdf((s - t) / width))
    return tuple(map(Outcome, s.tolist(), hit.tolist()))


def curves(seed: int) -> Iterator[tuple[float, float, Response]]:
    """A hundred curves from the prior's middle, with the responses at doses near them."""
    generator = Generator().manual_seed(seed)
    for place in range(100):
        t = 2 + 2 * torch.rand(1, generator=generator).item()
        b = 0.4 + 0.5 * torch.rand(1, generator=generator).item()
        yield t, b, Response(drawn(t, b, torch.full((64,), t + 0.7 / b), place))


@pytest.mark.parametrize(("hits", "of"), [(0, 8), (8, 8), (1, 64), (58, 64), (32, 64)])
def test_the_interval_of_a_rate_is_the_exact_one(hits: int, of: int) -> None:
    known = binomtest(hits, of).proportion_ci(confidence_level=0.95, method="exact")
    assert Count(hits, of).interval == pytest.approx((known.low, known.high))
    assert Count(hits, of).rate == hits / of


@pytest.mark.parametrize(("t", "b"), [(1.0, 0.9), (3.0, 0.7), (8.0, 0.5)])
def test_many_samples_tell_the_doses(t: float, b: float) -> None:
    response = Response(drawn(t, b, torch.linspace(t - 2, t + 4, 2000), 1))
    for rate in (HALF, MOST):
        distance = t + float(norm.ppf(rate)) / b
        found = response.dose(rate)
        assert math.sqrt(2 * found.nats) == pytest.approx(distance, abs=0.15)
        assert found.high < 1.3 * found.low + 0.3


@pytest.mark.parametrize(("t", "b"), [(1.0, 0.9), (3.0, 0.7)])
def test_what_samples_reach_is_told_and_what_they_do_not_reach_is_not(t: float, b: float) -> None:
    reached = Response(drawn(t, b, torch.linspace(0, t + 3, 200), 6))
    short = Response(drawn(t, b, torch.linspace(t - 6, t - 4, 200), 6))
    for rate in (HALF, MOST):
        dose, furthest = reached.dose_in_range(rate), max(one.distance for one in reached.outcomes)
        assert dose
        assert dose[:2] == reached.dose(rate)[:2]
        assert dose.high == min(reached.dose(rate).high, furthest**2 / 2)
        assert short.dose_in_range(rate) is None
    few = Response(drawn(t, b, torch.linspace(0, t + 0.5, 12), 8))
    ended, furthest = few.dose_in_range(HALF), max(one.distance for one in few.outcomes)
    assert ended
    assert ended.high == furthest**2 / 2 < few.dose(HALF).high


def test_a_curve_that_falls_has_no_dose() -> None:
    """Copies between two distances only, as where too much dose spoils the picture."""
    band = [Outcome(0.1 * place, 20 <= place < 40) for place in range(100)]
    assert Response(tuple(band)).falls
    assert Response(tuple(band)).dose_in_range(HALF) is None
    rising = Response(tuple(band[:40]))
    assert not rising.falls
    assert rising.dose_in_range(HALF)


def test_rising_curves_are_seldom_said_to_fall() -> None:
    assert sum(response.falls for _, _, response in curves(7)) <= 3


def test_the_fitted_chance_is_the_share_of_copies_at_a_distance() -> None:
    t, b = 2.0, 0.8
    response = Response(drawn(t, b, torch.linspace(0, 4, 800), 8))
    places = [1.0, 2.0, 3.0]
    known = norm.cdf((torch.tensor(places) - t) / math.sqrt(1 / b**2 - 1))
    assert response.chance(places) == pytest.approx(known.tolist(), abs=0.08)
    distances, counts = zip(*response.parts(8), strict=True)
    assert response.chance(distances) == pytest.approx([count.rate for count in counts], abs=0.12)


@pytest.mark.parametrize("rate", [HALF, MOST])
def test_intervals_hold_the_truth_as_often_as_they_say(rate: float) -> None:
    """Of 100 intervals of 95 % a few fail."""
    held = 0
    for t, b, response in curves(2):
        found = response.dose(rate)
        nats = (t + float(norm.ppf(rate)) / b) ** 2 / 2
        held += found.low <= nats <= found.high
    assert 88 <= held <= 100


@pytest.mark.parametrize("rate", [0.2, HALF, 0.95])
def test_the_posterior_is_that_of_draws_from_the_prior_weighted_by_likelihood(rate: float) -> None:
    outcomes = drawn(2.0, 0.7, torch.full((30,), 2.5), 3)
    s, hit = torch.tensor(outcomes, dtype=torch.float64).T
    generator = Generator().manual_seed(4)
    prior = torch.rand((2, 100_000, 1), generator=generator, dtype=torch.float64)
    t, b = -4 + (2 * s.max() + 4) * prior[0], prior[1]
    chance = torch.from_numpy(norm.cdf((s - t) / (1 / b**2 - 1).sqrt())).clamp(1e-12, 1 - 1e-12)
    weights = torch.where(hit > 0, chance, 1 - chance).log().sum(dim=1).exp()
    distance = (t + float(norm.ppf(rate)) / b).flatten().clamp(min=0)
    order = distance.argsort()
    mass = weights[order].cumsum(dim=0) / weights.sum()
    for found, share in zip(Response(outcomes).dose(rate), (0.5, 0.025, 0.975), strict=True):
        known = distance[order][(mass >= share).nonzero()[0, 0]].item()
        assert math.sqrt(2 * found) == pytest.approx(known, abs=0.05, rel=0.02)


@pytest.mark.parametrize("hit", [True, False])
def test_replicas_alone_or_none_give_a_finite_interval(hit: bool) -> None:
    response = Response(tuple(Outcome(1.0 + 0.1 * place, hit) for place in range(8)))
    half, most = response.dose(HALF), response.dose(MOST)
    for dose in (half, most):
        assert 0 <= dose.low <= dose.nats <= dose.high < math.inf
    assert half.nats < most.nats
    assert (half.low == 0) == hit


def test_what_plain_sampling_gives_takes_no_dose() -> None:
    plain = torch.randn(200, generator=Generator().manual_seed(5)).tolist()
    response = Response(tuple(Outcome(s, True) for s in plain))
    assert response.dose(HALF).nats == response.dose(HALF).high == 0
