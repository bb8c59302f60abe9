"""The bound that the exact cases are held against, and the search held against it."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from benchmarks.exact import WEIGHTS, least_kl, plain_shares, search
from invmm_eval.result import Status


@pytest.mark.parametrize(("rate", "weight"), [(0.9, 0.1), (0.5, 0.001), (0.2, 0.2), (1.0, 0.01), (0.99, 0.5)])
def test_the_bound_is_the_kl_of_two_coins(rate: float, weight: float) -> None:
    known = kl_divergence(Bernoulli(torch.tensor(rate).double()), Bernoulli(torch.tensor(weight).double()))
    assert least_kl(rate, weight) == pytest.approx(known.item(), abs=1e-6)


def test_a_sure_replica_costs_the_surprise_of_its_picture() -> None:
    assert least_kl(1.0, 0.001) == pytest.approx(math.log(1000))


def test_plain_sampling_gives_each_picture_as_often_as_it_weighs() -> None:
    samples = 4000
    for share, weight in zip(plain_shares(samples), WEIGHTS, strict=True):
        assert abs(share - weight) < 5 * math.sqrt(weight * (1 - weight) / samples) + 0.005


def test_no_search_undercuts_the_least_kl() -> None:
    """At the rate's lower end, five standard errors down, since it is itself an estimate."""
    fresh = 200
    found = search(0, fresh)
    assert all(one.status is Status.REPLICATED for one in found)
    for one in found:
        low = max(one.weight, one.rate - 5 * math.sqrt(max(one.rate * (1 - one.rate), 1 / fresh) / fresh))
        assert one.nats >= least_kl(low, one.weight)
        assert one.nats < 6 * one.bound + 2


def test_the_table_of_what_is_promised_follows_from_the_bound() -> None:
    text = (Path(__file__).parents[1] / "docs" / "number.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.e-]+) \| ", text, re.MULTILINE)
    assert [int(nats) for nats, _ in rows] == [1, 3, 10, 20, 100]
    for nats, weight in rows:
        assert least_kl(0.9, float(weight)) == pytest.approx(float(nats), abs=0.05)
