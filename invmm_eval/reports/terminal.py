"""Results as people read them in a terminal."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from invmm_eval.audits.folder.scores import Score
from invmm_eval.search.fields import Describe, Field, present
from invmm_eval.search.result import Result, rank
from invmm_eval.search.status import Verdict

COLOURS = {
    Verdict.MEMORIZED: "bold red",
    Verdict.REPLICABLE: "yellow",
    Verdict.NOT_REPLICATED: "",
    Verdict.FAILED: "blue",
}
"""Those of the report, as far as a terminal has them."""
LEAST_NAME = 12
"""Least width of the names' column, in cells."""
DASH = "\N{EN DASH}"


def plain_table() -> Table:
    """A table without columns yet, whose only line is that below the headings."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)


def value_lines(field: Field, result: Result) -> str:
    """The value of a field, and its interval in a second line."""
    return in_lines(field.text(result), field.ends(result).replace(" to ", DASH))


def in_lines(text: str, ends: str) -> str:
    """A value and the ends of its interval, if it has one, in a second line."""
    return f"{text}\n{ends}" if ends else text


class ResultsTable:
    """One row per image, the most memorized first.

    Where the console is too narrow for all columns, the least important ones are hidden and named below the table.

    Args:
        results: The results.
        describe: Finds the descriptions of the values of an estimator, by its name.
    """

    def __init__(self, results: Sequence[Result], describe: Describe | None = None) -> None:
        self._results = sorted(results, key=rank)
        self._describe = describe

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = list(present("table", self._results, self._describe))
        hidden: list[Field] = []
        while Measurement.get(console, options.update(width=10_000), self._table(shown)).minimum > options.max_width:
            if len(shown) <= 3:
                break
            hidden.append(shown.pop())
        yield self._table(shown)
        for verdict in Verdict:
            if any(result.verdict is verdict for result in self._results):
                yield Text(f"{verdict}: {verdict.meaning}", style="dim")
        for field in shown:
            if field.name not in ("name", "verdict"):
                yield Text(f"{field.title}: {field.summary}", style="dim")
        if any(field.ends(result) for field in shown for result in self._results):
            yield Text("Second lines: 95 % intervals", style="dim")
        if hidden:
            titles = ", ".join(field.title for field in reversed(hidden))
            yield Text(f"Not shown at this width: {titles}", style="dim")

    def _table(self, shown: Sequence[Field]) -> Table:
        table = plain_table()
        for field in shown:
            if field.name == "name":
                longest = max((cell_len(result.name) for result in self._results), default=1)
                table.add_column(field.title, min_width=min(max(longest, 5), LEAST_NAME))
            else:
                lines = [line for result in self._results for line in self._cell(field, result).plain.splitlines()]
                whole = field.numeric or field.name == "verdict"
                width = max(map(cell_len, [*lines, field.title])) if whole else None
                table.add_column(
                    field.title, justify="right" if field.numeric else "left", min_width=width, no_wrap=whole
                )
        for result in self._results:
            table.add_row(*self._cells(shown, result))
        return table

    def _cells(self, shown: Sequence[Field], result: Result) -> "Iterator[str | Text | Name]":
        for field in shown:
            if field.name == "name":
                yield Name(result.name)
            else:
                yield self._cell(field, result)

    def _cell(self, field: Field, result: Result) -> Text:
        return Text(value_lines(field, result), COLOURS[result.verdict] if field.name == "verdict" else "")


def scores_table(scores: Sequence[Score]) -> Table:
    """One row per image with its score, in their order."""
    table = plain_table()
    table.add_column("rank", justify="right")
    table.add_column("image", min_width=LEAST_NAME)
    table.add_column("score", justify="right")
    for place, score in enumerate(scores, 1):
        table.add_row(f"{place:,}", Name(score.name), score.error if score.score is None else f"{score.score:.4g}")
    return table


class Name:
    """A name on one line: one that is too long is shortened in the middle, as paths differ at their ends."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, cell_len(self._name)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        name, width = self._name, options.max_width
        if cell_len(name) > width:
            end = width // 2
            name = f"{set_cell_size(name, width - 1 - end)}…{set_cell_size(name[::-1], end)[::-1]}"
        yield Text(name, no_wrap=True)
