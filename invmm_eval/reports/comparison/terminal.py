"""A comparison as people read it in a terminal."""

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from invmm_eval.reports.comparison.pairs import Comparison, Pair
from invmm_eval.reports.comparison.words import change_text
from invmm_eval.reports.terminal import LEAST_NAME, Name, in_lines, plain_table, value_lines
from invmm_eval.search.result import Result


class ChangesTable:
    """One row per picture with its values in A and in B, those that changed first.

    Where the console is too narrow, intervals are left out, then changes, which is said below the table.

    Args:
        comparison: The comparison.
        most: Maximum number of rows.
    """

    def __init__(self, comparison: Comparison, most: int) -> None:
        self._comparison = comparison
        self._most = most

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for left_out in ((), ("intervals",), ("intervals", "changes")):
            table = self._table(intervals=not left_out, changes="changes" not in left_out)
            if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
                break
        yield table
        if left_out:
            yield Text(f"Not shown at this width: {', '.join(left_out)}", style="dim")

    def _table(self, *, intervals: bool, changes: bool) -> Table:
        value, pairs = self._comparison.value, self._comparison.pairs[: self._most]
        what = f": {value.title}" if changes else ""

        def cell(result: Result | None) -> str:
            if result is None:
                return "not searched"
            if result.error:
                return "failed"
            return value_lines(value, result) if intervals else value.text(result)

        def change(pair: Pair) -> str:
            text, ends = change_text(pair)
            return in_lines(text, ends if intervals else "")

        columns = {
            self._comparison.word: [str(pair.change) for pair in pairs],
            f"A{what}": [cell(pair.a) for pair in pairs],
            f"B{what}": [cell(pair.b) for pair in pairs],
            **({"change, nats": list(map(change, pairs))} if changes else {}),
        }
        first, *_ = columns.values()
        table = plain_table()
        table.add_column("image", min_width=LEAST_NAME)
        for heading, cells in columns.items():
            width = max(cell_len(line) for text in (heading, *cells) for line in text.splitlines())
            table.add_column(heading, justify="left" if cells is first else "right", min_width=width, no_wrap=True)
        for pair, *cells in zip(pairs, *columns.values(), strict=True):
            table.add_row(Name(pair.either.name), *cells)
        return table
