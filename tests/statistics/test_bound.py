"""The bound on plain sampling: against known divergences, and solved for the share it promises."""

import math
import re
from pathlib import Path

import pytest
import torch
from scipy.stats import norm
from torch.distributions import Bernoulli, kl_divergence

from invmm_eval.statistics.bound import RATE, TELLING_NATS, least_kl, least_share, least_share_moved


@pytest.mark.parametrize(("rate", "share"), [(0.9, 0.1), (0.5, 0.001), (0.2, 0.2), (1.0, 0.01), (0.99, 0.5)])
def test_the_bound_is_the_kl_of_two_coins(rate: float, share: float) -> None:
    known = kl_divergence(Bernoulli(torch.tensor(rate).double()), Bernoulli(torch.tensor(share).double()))
    assert least_kl(rate, share) == pytest.approx(known.item(), abs=1e-6)


def test_a_sure_replica_costs_the_surprise_of_its_picture() -> None:
    assert least_kl(1.0, 0.001) == pytest.approx(math.log(1000))


def test_the_table_of_what_is_promised_follows_from_the_bound() -> None:
    text = (Path(__file__).parents[2] / "docs" / "number.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.e-]+) \| ", text, re.MULTILINE)
    assert [int(nats) for nats, _ in rows] == [1, 3, 10, 20, 100]
    for nats, share in rows:
        assert least_kl(0.9, float(share)) == pytest.approx(float(nats), abs=0.05)
        assert least_share(float(nats)) == pytest.approx(float(share), rel=0.05)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 1e-3, 1e-12, 1e-200])
def test_the_share_is_the_bound_the_other_way_round(share: float) -> None:
    assert least_share(least_kl(RATE, share)) == pytest.approx(share, rel=1e-3)


def test_the_more_nats_the_less_is_promised() -> None:
    shares = [least_share(nats) for nats in (0, 0.1, 1, 10, 100, 600, 700, 1e6)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(RATE)
    assert shares[-1] == 0
    assert 1e9 < 1 / least_share(TELLING_NATS) < 1e10


@pytest.mark.parametrize(("share", "distance"), [(0.3, 1.0), (0.01, 3.0), (1e-6, 5.5)])
def test_a_moved_mean_gains_no_more_than_a_half_space(share: float, distance: float) -> None:
    """In a half-space the bound is met; in the set left by two parallel planes, of the same share, it is not."""
    rate = float(norm.sf(norm.isf(share) - distance))
    assert least_share_moved(distance**2 / 2, rate) == pytest.approx(share, rel=1e-6)
    edge = norm.isf(share / 2)
    rate = float(norm.sf(edge - distance) + norm.cdf(-edge - distance))
    assert 0 < least_share_moved(distance**2 / 2, rate) < share


@pytest.mark.parametrize("nats", [0.1, 1.0, 5.0, 20.0])
def test_of_a_moved_mean_more_is_known_than_of_any_noise(nats: float) -> None:
    assert least_share(nats) < least_share_moved(nats) < RATE
    assert least_share_moved(0) == pytest.approx(RATE)


def test_the_table_of_what_a_moved_mean_promises_follows_from_the_bound() -> None:
    text = (Path(__file__).parents[2] / "docs" / "lab" / "estimator.md").read_text(encoding="utf-8")
    rows = [list(map(float, row)) for row in re.findall(r"^\| (\d+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)]
    assert [row[0] for row in rows] == [1, 3, 10, 20]
    for nats, most, general in rows:
        assert least_share_moved(nats) == pytest.approx(most, rel=0.05)
        assert least_share(nats) == pytest.approx(general, rel=0.05)
