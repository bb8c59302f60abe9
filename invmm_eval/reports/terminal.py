"""Results as people read them in a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from invmm_eval.reports.findings import WORDS, one_in
from invmm_eval.search.result import Result, Status, rank
from invmm_eval.statistics.response import MOST, Response

COLOURS = {Status.REPLICATED: "red", Status.EXHAUSTED: "green", Status.FAILED: "yellow"}


def results_table(results: Sequence[Result], copies: Mapping[str, int] | None = None) -> Table:
    """One line an image, the most memorized first; with the copies in training where they are known, by name.

    Of images that were not replicated the KL says nothing: they stand in the order of their similarity. ED90 is in nats
    over all dimensions; "one in" is how many plain samples the curve expects for one copy.
    """
    table = Table(title="InvMM: KL to the standard normal, in nats per dimension; small means memorized")
    table.add_column("image")
    if copies is not None:
        table.add_column("copies", justify="right", no_wrap=True)
    by_dose, confirmed = any(result.response for result in results), any(result.confirmed for result in results)
    more = [*(["ED90", "one in"] if by_dose else []), *(["rate"] if confirmed else [])]
    for heading in ("status", "InvMM", *more, "similarity", "steps", "seconds"):
        table.add_column(heading, justify="left" if heading == "status" else "right", no_wrap=True)
    for result in sorted(results, key=rank):
        cells: list[str | Text | _Name] = [_Name(result.name)]
        if copies is not None:
            cells.append(str(copies[result.name]))
        cells += [
            f"[{COLOURS[result.status]}]{WORDS[result.status]}[/]",
            "-" if result.status is Status.FAILED else f"{result.invmm:.3f}".replace("inf", "∞"),
            *(_doses(result.response) if by_dose else []),
            *([f"{result.confirmed.rate:.2f}" if result.confirmed else "-"] if confirmed else []),
            "-" if result.similarity is None else f"{result.similarity:.2f}",
            str(result.steps),
            f"{result.seconds_steps + result.seconds_checks:.1f}",
        ]
        table.add_row(*cells)
    return table


def _doses(response: Response | None) -> list[str]:
    share = response.plain() if response else None
    return [f"{response.dose(MOST).nats:.1f}" if response else "-", one_in(share.rate) if share else "-"]


class _Name:
    """A name in one line: what is too long loses its middle, since paths differ at their ends."""

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
