"""A comparison as people read it in a terminal."""

from invmm_eval.reports.comparison.pairs import Change, Comparison
from invmm_eval.reports.comparison.words import change_text
from invmm_eval.reports.terminal import Cell, Column, ImagesTable, value_of
from invmm_eval.search.result import Result


class ChangesTable(ImagesTable):
    """The values of each image in A and in B, those that changed first.

    Args:
        comparison: The comparison.
        most: Maximum number of rows.
    """

    def __init__(self, comparison: Comparison, most: int) -> None:
        pairs, value = comparison.pairs[:most], comparison.value

        def cell(result: Result | None) -> Cell:
            if result is None:
                return Cell("not searched")
            return Cell("failed") if result.error else value_of(value, result)

        changes = [Cell("failed" if pair.change is Change.FAILED else str(pair.change)) for pair in pairs]
        super().__init__(
            [pair.either.name for pair in pairs],
            [
                Column(comparison.word, changes, numeric=False),
                Column(f"A: {value.title}", [cell(pair.a) for pair in pairs]),
                Column(f"B: {value.title}", [cell(pair.b) for pair in pairs]),
                Column("change, nats", [Cell(*change_text(pair)) for pair in pairs]),
            ],
            least=3,
        )
