"""A set of results in a few numbers."""

import math
from functools import partial

import pytest

from invmm_eval.audits.summary import summarize
from invmm_eval.search.result import Result, Status


def result(kl: float | None, *, replicated: bool = True) -> Result:
    if kl is None:
        return Result(0, "", "", Status.FAILED, error="It broke.")
    return Result(0, "", "", Status.REPLICATED if replicated else Status.EXHAUSTED, kl=kl)


exhausted = partial(result, replicated=False)
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
        ([result(None), result(0.5), result(None), exhausted(0.1), result(0.25)], (2, 2, 2 / 3, 0.5, 0.25)),
        ([result(None), result(None)], (0, 2, None, None, None)),
        ([], (0, 0, None, None, None)),
    ],
)
def test_a_summary(results: list[Result], numbers: tuple[float | None, ...]) -> None:
    assert summarize(results) == {"images": len(results), **dict(zip(NUMBERS, numbers, strict=True))}
