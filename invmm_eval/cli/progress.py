"""A progress bar over the images of an audit, shown on a terminal only."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from invmm_eval.search.result import Result
from invmm_eval.search.search import Search


class Bar:
    """Counts finished images, and shows the first search under way: its step, loss, KL and best similarity.

    Args:
        images: Number of images.
        console: Where to draw. Nothing is drawn if it is not a terminal.
    """

    def __init__(self, images: int, console: Console) -> None:
        self._progress = _TwoLines(
            BarColumn(),
            TextColumn("{task.fields[finished]:,}/{task.total:,} images"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=images, finished=0)
        self._finished = 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def on_step(self, searches: Sequence[Search]) -> None:
        """Move the bar. Numbers are read only when it is drawn, so that the model never waits for them."""
        if self._progress.disable or not searches:
            return
        shares = sum(search.step for search in searches) / searches[0].max_steps
        self._progress.search = searches[0]
        self._progress.update(self._task, completed=self._finished + shares)

    def over(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results, counting them."""
        for result in results:
            self._finished += 1
            self._progress.started = True
            self._progress.update(self._task, completed=self._finished, finished=self._finished)
            yield result


class _TwoLines(Progress):
    """The bar, and below it a line about one search, cut at the width of the terminal."""

    search: Search | None = None
    started = False

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.search or not self.started:
            line = _described(self.search) if self.search else "starting"
            yield Text(line, no_wrap=True, overflow="ellipsis")


def _described(search: Search) -> str:
    words = f"step {search.step}/{search.max_steps}  loss {search.loss:.3f}  KL {search.kl:.3f}"
    if search.last_check:
        words += f"  best similarity {max(max(values) for values in search.last_check.similarities.values()):.2f}"
    return f"{words}  {search.target.name}"
