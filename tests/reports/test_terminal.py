"""The table of results in a terminal."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest
import torch
from rich.cells import cell_len

from invmm_eval.reports.terminal import DASH, ResultsTable
from invmm_eval.search.fields import FIELDS
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits
from tests.helpers.command import printed


def check(*similarities: float) -> Check:
    return Check(passed=True, similarities={1.0: similarities}, samples={1.0: torch.zeros(1)})


RESULTS = [
    Result(0, "broken", "", Status.FAILED, error="It broke."),
    Result(1, "far", "", Status.EXHAUSTED, kl=1.9, steps=2000, check=check(0.1, 0.5)),
    Result(2, "bent", "", Status.REPLICATED, kl=1.23456, steps=300, check=check(0.9, 0.876)),
    Result(
        3, "near", "", Status.EXHAUSTED, kl=0.3, steps=2000, check=check(0.2), seconds_steps=10, seconds_checks=2.26
    ),
    Result(4, "memorized", "", Status.REPLICATED, kl=0.0, steps=50, check=check(1.0), seconds_steps=0.04),
]
RESPONSE = Response(tuple(Outcome(0.1 * place, place >= 10) for place in range(40)))
BY_DOSE = [
    audits.shared(replace(result, estimates=audits.estimates(RESPONSE, (60, 64))), **audits.KNOWN) for result in RESULTS
]


def shown(results: Sequence[Result], width: int = 200, **how: Any) -> str:
    return printed(ResultsTable(results), width, **{"color_system": None, **how})


def rows(text: str) -> list[list[str]]:
    """The words of each row, without the heading."""
    return [
        line.split()
        for line in takewhile(lambda line: ": " not in line, text.splitlines()[2:])
        if "∞" in line or "replica" in line or "failed" in line
    ]


def test_the_most_memorized_images_come_first_and_failures_last() -> None:
    assert rows(shown(RESULTS)) == [
        ["memorized", "replicable", "0", "1.00"],
        ["bent", "replicable", "1.23", "0.88"],
        ["near", "not", "replicated", "∞", "0.20"],
        ["far", "not", "replicated", "∞", "0.10"],
        ["broken", "failed", "-", "-"],
    ]
    assert shown(RESULTS[::-1]) == shown(RESULTS)
    assert shown(RESULTS).splitlines()[0].split() == ["image", "verdict", "InvMM", "similarity"]


@pytest.mark.parametrize("name", ["[red]x", "a[/]b", "[/red]", "train[:100]#3", ":smile:.png", "x\\", ""])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert shown([replace(RESULTS[0], name=name)]).splitlines()[2].startswith(f"{name} ")


@pytest.mark.parametrize("results", [RESULTS, BY_DOSE], ids=["published", "by dose"])
@pytest.mark.parametrize("name", ["/".join(map(str, range(40))), "名前" * 30 + ".png", "x" * 200])
def test_a_long_name_is_shortened_in_the_middle_to_fit_80_columns(name: str, results: list[Result]) -> None:
    text = shown([replace(results[2], name=name), *results], width=80)
    assert max(map(cell_len, text.splitlines())) <= 80
    [line] = [line for line in text.splitlines() if "…" in line]
    start, _, rest = line.partition("…")
    assert name.startswith(start.strip())
    assert name.endswith(rest.split()[0])
    assert min(cell_len(start), cell_len(rest.split()[0])) >= 5


def test_columns_that_do_not_fit_are_named_below() -> None:
    text = shown(BY_DOSE, width=75)
    assert text.splitlines()[0].split() == ["image", "verdict", "plain", "samples", "InvMM", "ED50", "rate"]
    assert text.splitlines()[-1] == "Not shown at this width: ED90, similarity"
    assert "Not shown" not in shown(BY_DOSE)


def test_headings_are_explained() -> None:
    lines = " ".join(shown(BY_DOSE).split())
    told = {verdict for verdict in Verdict if f"{verdict}: {verdict.meaning}" in lines}
    assert told == {result.verdict for result in BY_DOSE}
    for field in FIELDS:
        if field.name in ("invmm", "plain_share", "ed50", "ed90", "rate", "similarity"):
            assert " ".join(f"{field.title}: {field.summary}".split()) in lines


@pytest.mark.parametrize(
    ("result", "code"),
    [(BY_DOSE[4], "\x1b[1;31m"), (RESULTS[2], "\x1b[33m"), (RESULTS[1], "far    "), (RESULTS[0], "\x1b[34m")],
)
def test_each_verdict_has_its_colour(result: Result, code: str) -> None:
    text = shown([result], force_terminal=True, color_system="standard")
    assert f"{code}{result.verdict}" in text


def test_estimates_have_columns_with_intervals_where_there_are_any() -> None:
    first, second = shown([BY_DOSE[4], RESULTS[1]]).splitlines()[2:4]
    ed50 = RESPONSE.dose_in_range(0.5)
    assert ed50
    assert first.split()[2:7] == ["1", "in", "39", "0", f"{ed50.nats:.3g}"]
    assert f"1 in 27{DASH}58" in second
    assert f"85 %{DASH}98 %" in second
    assert shown([BY_DOSE[4], RESULTS[1]]).splitlines()[4].split() == ["far", "not", "replicated", *"-∞---", "0.10"]
