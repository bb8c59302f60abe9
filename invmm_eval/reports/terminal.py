"""Results as people read them in a terminal."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

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


class Cell(NamedTuple):
    """What a table says about an image in one column.

    Attributes:
        text: The value.
        ends: Its interval, in a second line.
        style: The style of the value, as rich has it.
    """

    text: str
    ends: str = ""
    style: str = ""


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: Its heading.
        cells: One per image.
        numeric: Whether it is aligned to the right.
        notes: What it means, in lines below the table.
    """

    title: str
    cells: Sequence[Cell]
    numeric: bool = True
    notes: Sequence[str] = ()


class ImagesTable:
    """One row per image.

    Where the console is too narrow, columns are left out from the right, then intervals, and named below the table.

    Args:
        names: The names of the images.
        columns: What is said about them.
        least: Number of columns that are always shown.
    """

    def __init__(self, names: Sequence[str], columns: Sequence[Column], least: int) -> None:
        self._names = names
        self._columns = columns
        self._least = least

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        counts = range(len(self._columns), self._least - 1, -1)
        for count, intervals in (*((count, True) for count in counts), (self._least, False)):
            shown = self._columns[:count]
            table = self._table(shown, intervals=intervals)
            if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
                break
        yield table
        hidden = [column.title for column in self._columns[count:]]
        notes = list(chain.from_iterable(column.notes for column in shown))
        if any(cell.ends for column in shown for cell in column.cells):
            if intervals:
                notes.append("Second lines: 95 % intervals")
            else:
                hidden.insert(0, "intervals")
        if hidden:
            notes.append(f"Not shown at this width: {', '.join(hidden)}")
        for note in notes:
            yield Text(note, style="dim")

    def _table(self, shown: Sequence[Column], *, intervals: bool) -> Table:
        longest = max(map(cell_len, self._names), default=1)
        table = plain_table()
        table.add_column("image", min_width=min(max(longest, 5), LEAST_NAME))
        for title, cells, numeric, _ in shown:
            width = max(cell_len(line) for text, ends, _ in (Cell(title), *cells) for line in (text, ends * intervals))
            table.add_column(title, justify="right" if numeric else "left", min_width=width, no_wrap=True)
        for name, *row in zip(self._names, *(column.cells for column in shown), strict=True):
            lines = (f"{text}\n{ends}" if ends and intervals else text for text, ends, _ in row)
            table.add_row(Name(name), *(Text(text, cell.style) for text, cell in zip(lines, row, strict=True)))
        return table


class ResultsTable(ImagesTable):
    """The verdict of each image and its values, the most memorized first.

    Args:
        results: The results.
        describe: Finds the descriptions of the values of an estimator, by its name.
    """

    def __init__(self, results: Sequence[Result], describe: Describe | None = None) -> None:
        ranked = sorted(results, key=rank)
        verdicts = [result.verdict for result in ranked]
        meanings = [f"{verdict}: {verdict.meaning}" for verdict in Verdict if verdict in verdicts]
        cells = [Cell(str(verdict), style=COLOURS[verdict]) for verdict in verdicts]
        fields = [field for field in present("table", ranked, describe) if field.name not in ("name", "verdict")]
        super().__init__(
            [result.name for result in ranked],
            [
                Column("verdict", cells, numeric=False, notes=meanings),
                *(
                    Column(
                        field.title,
                        [value_of(field, result) for result in ranked],
                        field.numeric,
                        [f"{field.title}: {field.summary}"],
                    )
                    for field in fields
                ),
            ],
            least=2,
        )


def value_of(field: Field, result: Result) -> Cell:
    """The value of a field with its interval, such as ``1 in 27-58``."""
    return Cell(field.text(result), field.ends(result).replace(" to 1 in ", DASH).replace(" to ", DASH))


def scores_table(scores: Sequence[Score]) -> Table:
    """One row per image with its score, in their order."""
    table = plain_table()
    table.add_column("rank", justify="right")
    table.add_column("image", min_width=LEAST_NAME)
    table.add_column("score", justify="right")
    for place, score in enumerate(scores, 1):
        table.add_row(f"{place:,}", Name(score.name), score.error if score.score is None else f"{score.score:.4g}")
    return table


def plain_table() -> Table:
    """A table without columns yet, whose only line is that below the headings."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)


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
