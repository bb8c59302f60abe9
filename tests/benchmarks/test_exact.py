"""The bound that the exact cases are held against, and the search held against it."""

import math

from benchmarks.exact import RARE, WEIGHTS, plain_shares, rare, search
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import least_kl


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


def test_shares_are_stated_of_pictures_too_rare_to_be_memorized() -> None:
    for weight, (shown, stated, off, _, held) in zip(RARE, rare(1), strict=True):
        assert (shown, stated, held) == (f"{weight:g}", "1 of 1", "1")
        assert 1 <= float(off) < 5
