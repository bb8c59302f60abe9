"""A set of results in a few numbers."""

import math
from dataclasses import replace
from functools import partial

import pytest

from invmm_eval.audits.summary import NO_SHARE, count, summarize
from invmm_eval.search.result import CONFIRMATION, PLAIN_SHARE, Result, Status
from invmm_eval.search.status import Verdict


def result(kl: float | None, *, replicated: bool = True) -> Result:
    if kl is None:
        return Result(0, "", "", Status.FAILED, error="It broke.")
    return Result(0, "", "", Status.REPLICATED if replicated else Status.EXHAUSTED, kl=kl)


exhausted = partial(result, replicated=False)


def shared(low: float) -> Result:
    return replace(exhausted(0.1), estimates={PLAIN_SHARE: {"share": 2 * low, "low": low, "copies": 9}})


def test_verdicts_are_counted_over_all_images() -> None:
    results = [shared(0.1), shared(1e-9), result(0.5), exhausted(0.1), result(None)]
    found = summarize(results)
    counts = [found[name] for name in ("memorized", "replicable", "not_replicated", "failed")]
    assert (counts, found["images"], found["memorized_fraction"]) == ([1, 2, 1, 1], 5, 1 / 5)
    assert list(count(results).values()) == counts
    assert list(count(results)) == list(Verdict)


@pytest.mark.parametrize(
    ("results", "fraction"),
    [
        ([result(0.5), exhausted(0.1)], None),
        ([result(None)], None),
        ([shared(0.0), result(0.5)], 0.0),
        ([replace(exhausted(0.1), estimates={CONFIRMATION: {"hits": 0, "drawn": 8}})], 0.0),
    ],
)
def test_no_fraction_is_memorized_where_no_share_was_estimated(
    results: list[Result], fraction: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert summarize(results)["memorized_fraction"] == fraction
    measured = any(result.status is not Status.FAILED for result in results)
    assert (NO_SHARE in caplog.text) is (measured and fraction is None)


NUMBERS = ("replicated", "failed", "replicated_fraction", "median_invmm", "smallest_invmm")


@pytest.mark.parametrize(
    ("results", "numbers"),
    [
        ([result(0.5), result(0.1), result(0.4)], (3, 0, 1.0, 0.4, 0.1)),
        ([result(0.5), result(0.1), result(0.25), result(0.75)], (4, 0, 1.0, 0.375, 0.1)),
        ([exhausted(0.01), result(0.5), result(0.1), exhausted(0.2), result(0.3)], (3, 0, 0.6, 0.5, 0.1)),
        ([exhausted(0.01), result(0.5), result(0.1), exhausted(0.2)], (2, 0, 0.5, math.inf, 0.1)),
        ([exhausted(0.01), result(0.5), exhausted(0.2)], (1, 0, 1 / 3, math.inf, 0.5)),
        ([exhausted(0.01), exhausted(0.2)], (0, 0, 0.0, math.inf, math.inf)),
        ([result(None), result(0.5), result(None), exhausted(0.1), result(0.25)], (2, 2, 2 / 5, 0.5, 0.25)),
        ([result(None), result(None)], (0, 2, None, None, None)),
        ([], (0, 0, None, None, None)),
    ],
)
def test_a_summary(results: list[Result], numbers: tuple[float | None, ...]) -> None:
    found = summarize(results)
    assert {name: found[name] for name in NUMBERS} == dict(zip(NUMBERS, numbers, strict=True))
    assert found["images"] == len(results)
