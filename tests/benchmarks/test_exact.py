"""The bound that the exact cases are held against, and the search held against it."""

import json
import math
from pathlib import Path

from benchmarks.exact import WEIGHTS, main, plain_shares, search
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


def test_shares_are_stated_of_pictures_too_rare_to_be_memorized(tmp_path: Path) -> None:
    short = ["--seeds", "1", "--samples", "100", "--fresh", "10"]
    main(["--fast", "--weights", "1e-4", "1e-5", *short, "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["found"]
    assert [one["weight"] for one in found] == [1e-4, 1e-5]
    for one in found:
        assert 1 / 5 < one["share"] / one["weight"] < 5
        assert one["low"] <= one["weight"]
