"""The table of results, as it is read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from invmm_eval.reports.findings import WORDS, one_in
from invmm_eval.reports.terminal import results_table
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits


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


def shown(results: Sequence[Result], copies: Mapping[str, int] | None = None, width: int = 200) -> str:
    file = StringIO()
    Console(file=file, width=width, color_system=None).print(results_table(results, copies))
    return file.getvalue()


def cells(text: str) -> list[list[str]]:
    """The rows, without headings and lines."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_the_most_memorized_come_first_and_failures_last() -> None:
    assert cells(shown(RESULTS)) == [
        ["memorized", "replicated", "0.000", "1.00", "50", "0.0"],
        ["bent", "replicated", "1.235", "0.88", "300", "0.0"],
        ["near", "not replicated", "∞", "0.20", "2000", "12.3"],
        ["far", "not replicated", "∞", "0.10", "2000", "0.0"],
        ["broken", "failed", "-", "-", "0", "0.0"],
    ]
    assert cells(shown(RESULTS[::-1])) == cells(shown(RESULTS))


def test_the_headings() -> None:
    [headings] = [line for line in shown(RESULTS).splitlines() if line.startswith("┃")]
    assert [cell.strip() for cell in headings.split("┃")[1:-1]] == [
        "image",
        "status",
        "InvMM",
        "similarity",
        "steps",
        "seconds",
    ]


def test_copies_in_training_are_told_by_name() -> None:
    copies = {"broken": 0, "far": 1, "bent": 16, "near": 4, "memorized": 256}
    text = shown(RESULTS, copies)
    assert "copies" in text
    assert {row[0]: row[1] for row in cells(text)} == {name: str(count) for name, count in copies.items()}
    assert "copies" not in shown(RESULTS)


@pytest.mark.parametrize("name", ["[red]x", "a[/]b", "[/red]", "train[:100]#3", ":smile:.png", "x\\", ""])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    [row] = cells(shown([replace(RESULTS[0], name=name)]))
    assert row[0] == name


@pytest.mark.parametrize("name", ["/".join(map(str, range(40))), "名前" * 30 + ".png", "x" * 200])
def test_a_long_name_has_one_line_and_keeps_its_ends(name: str) -> None:
    text = shown([replace(RESULTS[2], name=name), *RESULTS], width=80)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert len(cells(text)) == 1 + len(RESULTS)
    [told] = [row[0] for row in cells(text) if "…" in row[0]]
    start, end = told.split("…")
    assert name.startswith(start.strip())
    assert name.endswith(end.strip())
    assert min(map(cell_len, (start, end))) >= 5


def test_no_result_is_an_empty_table() -> None:
    assert cells(shown([])) == []


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.name)
def test_each_status_has_its_colour(result: Result) -> None:
    file = StringIO()
    Console(file=file, width=200, force_terminal=True, color_system="standard").print(results_table([result]))
    colour = {"replicated": 31, "exhausted": 32, "failed": 33}[result.status]
    assert f"\x1b[{colour}m{WORDS[result.status]}\x1b[0m" in file.getvalue()


def test_doses_and_rates_have_columns_where_there_are_any() -> None:
    response = Response(tuple(Outcome(0.1 * place, place >= 10) for place in range(20)))
    rows = cells(shown([replace(RESULTS[4], estimates=audits.estimates(response, (60, 64))), RESULTS[1]]))
    share = response.plain()
    assert share
    assert rows[0][3:6] == [f"{response.dose(0.9).nats:.1f}", one_in(share.rate), "0.94"]
    assert rows[1][3:6] == ["-", "-", "-"]
