"""The bound on plain sampling: against known divergences, and solved for the share it promises."""

import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from invmm_eval.statistics.bound import least_kl, least_share


@pytest.mark.parametrize(("rate", "share"), [(0.9, 0.1), (0.5, 0.001), (0.2, 0.2), (1.0, 0.01), (0.99, 0.5)])
def test_the_bound_is_the_kl_of_two_coins(rate: float, share: float) -> None:
    known = kl_divergence(Bernoulli(torch.tensor(rate).double()), Bernoulli(torch.tensor(share).double()))
    assert least_kl(rate, share) == pytest.approx(known.item(), abs=1e-6)


def test_the_table_of_what_is_promised_follows_from_the_bound() -> None:
    text = (Path(__file__).parents[2] / "docs" / "number.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.e-]+) \| ", text, re.MULTILINE)
    assert [int(nats) for nats, _ in rows] == [1, 3, 10, 20, 100]
    for nats, share in rows:
        assert least_kl(0.9, float(share)) == pytest.approx(float(nats), abs=0.05)
        assert least_share(float(nats), 0.9) == pytest.approx(float(share), rel=0.05)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 1e-3, 1e-12, 1e-200])
def test_the_share_is_the_bound_the_other_way_round(share: float) -> None:
    assert least_share(least_kl(0.9, share), 0.9) == pytest.approx(share, rel=1e-3)


def test_the_more_nats_the_less_is_promised() -> None:
    shares = [least_share(nats, 0.9) for nats in (0, 0.1, 1, 10, 100, 600, 700, 1e6)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.9)
    assert shares[-1] == 0


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_no_nats_change_nothing_and_no_copies_promise_nothing(rate: float) -> None:
    assert least_share(0, rate) == pytest.approx(rate)
    assert least_share(5, rate) <= rate
