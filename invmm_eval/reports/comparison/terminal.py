"""A comparison as people read it in a terminal."""

from rich.table import Table

from invmm_eval.reports.comparison.pairs import Comparison
from invmm_eval.reports.comparison.words import change_text
from invmm_eval.reports.terminal import LEAST_NAME, Name, in_lines, plain_table, value_lines
from invmm_eval.search.result import Result


def changes_table(comparison: Comparison, most: int) -> Table:
    """One row per picture with its values in A and in B, those that changed first, and at most so many."""
    table = plain_table()
    table.add_column("image", min_width=LEAST_NAME)
    table.add_column(comparison.word)
    for side in ("A", "B"):
        table.add_column(f"{side}: {comparison.value.title}", justify="right", no_wrap=True)
    table.add_column("change, nats", justify="right", no_wrap=True)

    def cell(result: Result | None) -> str:
        if result is None:
            return "not searched"
        return "failed" if result.error else value_lines(comparison.value, result)

    for pair in comparison.pairs[:most]:
        name = Name(pair.either.name)
        table.add_row(name, str(pair.change), cell(pair.a), cell(pair.b), in_lines(*change_text(pair)))
    return table
