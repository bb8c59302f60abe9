"""Results as people read them in a terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from invmm_eval.result import Result, Status

COLOURS = {Status.REPLICATED: "red", Status.EXHAUSTED: "green", Status.FAILED: "yellow"}


def results_table(results: Sequence[Result], copies: Mapping[str, int] | None = None) -> Table:
    """One line an image, the most memorized first; with the copies in training where they are known, by name.

    Of images that were not replicated the KL says nothing: they stand in the order of their similarity.
    """
    table = Table(title="InvMM: KL to the standard normal, in nats per dimension; small means memorized")
    table.add_column("image", overflow="fold")
    if copies is not None:
        table.add_column("copies in training", justify="right")
    for heading in ("status", "InvMM", "similarity", "steps", "seconds"):
        table.add_column(heading, justify="left" if heading == "status" else "right", no_wrap=True)
    for result in sorted(results, key=rank):
        cells: list[str | Text] = [Text(result.name)]
        if copies is not None:
            cells.append(str(copies[result.name]))
        cells += [
            f"[{COLOURS[result.status]}]{result.status}[/]",
            "-" if result.status is Status.FAILED else f"{result.invmm:.3f}".replace("inf", "∞"),
            "-" if result.similarity is None else f"{result.similarity:.2f}",
            str(result.steps),
            f"{result.seconds_steps + result.seconds_checks:.1f}",
        ]
        table.add_row(*cells)
    return table


def rank(result: Result) -> tuple[int, float]:
    """The place in :func:`results_table`."""
    order = list(Status).index(result.status)
    return order, result.invmm if result.status is Status.REPLICATED else -(result.similarity or 0.0)
