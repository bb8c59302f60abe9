"""The table of a comparison in a terminal."""

import pytest

from invmm_eval.reports.comparison import Comparison
from invmm_eval.reports.comparison.terminal import ChangesTable
from invmm_eval.reports.terminal import DASH
from tests.helpers.command import printed


def shown(compared: Comparison, width: int) -> list[str]:
    return printed(ChangesTable(compared, most=8), width).splitlines()


def test_a_row_has_both_values_and_the_change(compared: Comparison) -> None:
    lines = shown(compared, width=100)
    freed = next(number for number, line in enumerate(lines) if line.startswith("picture 1.png"))
    assert lines[freed].split() == ["picture", "1.png", "freed", "1", "in", "20", "none", "+8.52"]
    assert f"1 in 15{DASH}30" in lines[freed + 1]
    assert "fewer than 1 in 130" in lines[freed + 1]
    assert "at least +1.53" in lines[freed + 1]
    assert sum(line.startswith("picture") for line in lines) == 8


@pytest.mark.parametrize(("width", "left_out"), [(80, "change, nats"), (60, "intervals, change, nats")])
def test_a_narrow_table_keeps_name_verdict_and_values_whole(width: int, left_out: str, compared: Comparison) -> None:
    lines = shown(compared, width)
    assert lines[-1] == f"Not shown at this width: {left_out}"
    [freed] = [line.split() for line in lines if line.startswith("pictu") and "1.png" in line]
    assert freed[2:] == ["freed", "1", "in", "20", "none"]
