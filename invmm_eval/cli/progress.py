"""One bar over the images of an audit, shown on a terminal and silent elsewhere."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from invmm_eval.search.inversion import Search
from invmm_eval.search.result import Result


class Bar:
    """Counts finished images, and tells of the first search under way: its step, loss, KL and best similarity.

    Args:
        images: How many there are.
        console: Where to draw; nothing is drawn where that is not a terminal.
    """

    def __init__(self, images: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn("auditing"),
            BarColumn(),
            TextColumn("{task.fields[finished]}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=images, finished=0, told="")
        self._finished = 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def on_step(self, searches: Sequence[Search]) -> None:
        """Move the bar; the numbers are read only when it is drawn, so that the model never waits for them."""
        if self._progress.disable or not searches:
            return
        shares = sum(search.step for search in searches) / searches[0].max_steps
        self._progress.update(self._task, completed=self._finished + shares, told=_Told(searches[0]))

    def over(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on, counting them."""
        for result in results:
            self._finished += 1
            self._progress.update(self._task, completed=self._finished, finished=self._finished)
            yield result


class _Told:
    """One search in words, put together when they are asked for."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def __str__(self) -> str:
        search = self._search
        best = max(max(values) for values in search.last_check.similarities.values()) if search.last_check else None
        words = f"{search.target.name} step {search.step}/{search.max_steps} loss {search.loss:.3f} KL {search.kl:.3f}"
        return words if best is None else f"{words} best similarity {best:.2f}"
