"""What a sample says of the set it was drawn from: against scipy's test, by simulation, and the table in the docs."""

import re
from pathlib import Path

import pytest
from scipy.stats import binomtest

from invmm_eval.statistics.binomial import most, percent


@pytest.mark.parametrize(("found", "of"), [(0, 1), (0, 300), (3, 300), (7, 8), (8, 8), (120, 9000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_limit_is_the_exact_one_of_the_binomial_test(found: int, of: int, confidence: float) -> None:
    known = binomtest(found, of, alternative="less").proportion_ci(confidence, method="exact").high
    assert most(found, of, confidence) == pytest.approx(known, rel=1e-9)


def test_the_table_of_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "number.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^\| p \| 0 replicated .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[cell.strip().replace(",", "") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert len(rows) == 6
    for share, *counts in rows:
        limit = float(share.removesuffix(" %")) / 100
        for found, count in zip((0, 1, 2, 5, 10), map(int, counts), strict=True):
            assert most(found, count) <= limit < most(found, count - 1)


@pytest.mark.parametrize(
    ("text", "shares"),
    [("1.00 %", [0.00993]), ("1.1 %", [0.0101]), ("40 %", [0.393]), ("100 %", [0.9949, 1]), ("0.0032 %", [0.0000312])],
)
def test_limits_are_rounded_up(text: str, shares: list[float]) -> None:
    assert {percent(share) for share in shares} == {text}
