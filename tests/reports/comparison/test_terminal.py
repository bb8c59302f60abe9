"""The table of a comparison in a terminal."""

from io import StringIO

from rich.console import Console

from invmm_eval.reports.comparison import Comparison
from invmm_eval.reports.comparison.terminal import changes_table
from invmm_eval.reports.terminal import DASH


def test_a_row_has_both_values_and_the_change(compared: Comparison) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(changes_table(compared, most=8))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    freed = next(number for number, line in enumerate(lines) if line.startswith("picture 1.png"))
    assert lines[freed].split() == ["picture", "1.png", "freed", "1", "in", "20", "none", "+∞"]
    assert f"1 in 15{DASH}1 in 30" in lines[freed + 1]
    assert "fewer than 1 in 130" in lines[freed + 1]
    assert "at least +1.53" in lines[freed + 1]
    assert sum(line.startswith("picture") for line in lines) == 8
