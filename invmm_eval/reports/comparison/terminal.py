"""A comparison as people read it in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from invmm_eval.reports.comparison.pairs import Comparison
from invmm_eval.reports.comparison.words import change_text
from invmm_eval.reports.terminal import DASH, LEAST_NAME, Name
from invmm_eval.search.result import Result


def changes_table(comparison: Comparison, most: int) -> Table:
    """One row per picture with its values in A and in B, those that changed first, and at most so many."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("image", min_width=LEAST_NAME)
    table.add_column(comparison.word)
    for side in ("A", "B"):
        table.add_column(f"{side}: {comparison.value.title}", justify="right", no_wrap=True)
    table.add_column("change, nats", justify="right", no_wrap=True)

    def cell(result: Result | None) -> str:
        if result is None:
            return "not searched"
        return (
            "failed"
            if result.error
            else _lines(comparison.value.text(result), comparison.value.ends(result).replace(" to ", DASH))
        )

    for pair in comparison.pairs[:most]:
        name = Name(pair.either.name)
        table.add_row(name, str(pair.change), cell(pair.a), cell(pair.b), _lines(*change_text(pair)))
    return table


def _lines(text: str, ends: str) -> str:
    return f"{text}\n{ends}" if ends else text
