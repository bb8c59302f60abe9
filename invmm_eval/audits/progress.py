"""A progress bar over the images of an audit, shown on a terminal or in a notebook only."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from tqdm.auto import tqdm

from invmm_eval.audits.launched import launched

if TYPE_CHECKING:
    from invmm_eval.search.search import Search

T = TypeVar("T")
_FORMAT = "{desc} |{bar:16}| {remaining} left{postfix}"
_EVERY = 0.2
"""Seconds between two looks at the searches, whose numbers the model must compute first, and between two counts."""


class Bar:
    """Counts finished images, and tells what is going on: loading, or step, loss, KL and best similarity of a search,
    or the number of samples drawn after it.

    Args:
        images: Number of images.
        shown: False draws nothing, as do ranks that do not lead, and an error stream that is no terminal outside a
            notebook.
        also: Called with the searches after each step too.
        doing: What goes on before the first step.
    """

    def __init__(
        self,
        images: int,
        *,
        shown: bool = True,
        also: "Callable[[Sequence[Search]], None] | None" = None,
        doing: str = "loading",
    ) -> None:
        self._images = images
        self._also = also
        self._finished = 0
        self._looked: float | None = None
        self._bar = tqdm(
            total=images,
            desc=self._count(),
            bar_format=_FORMAT,
            postfix=doing,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            disable=None if shown and launched()[1] else True,
        )

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_step(self, searches: "Sequence[Search]") -> None:
        """Show searches under way; their numbers are read only a few times a second, as the model waits for that."""
        if self._also:
            self._also(searches)
        now = time.monotonic()
        if self._bar.disable or not searches or (self._looked and now < self._looked + _EVERY):
            return
        if self._looked is None:  # neither loading nor images that are known count for the time left
            self._bar.unpause()
            self._bar.initial = self._finished
        self._looked = now
        if not searches[0].status:
            self._bar.n = self._finished + sum(search.step for search in searches) / searches[0].max_steps
        self._bar.set_postfix_str(_described(searches[0]))

    def resize(self, images: int) -> None:
        """Count towards another number of images."""
        self._images = images
        self._bar.total = images
        self._bar.set_description_str(self._count())

    def over(self, results: "Iterable[T]") -> "Iterator[T]":
        """Yield results, or what else is found for images, counting them."""
        drawn = -math.inf
        for result in results:
            self._finished += 1
            self._bar.n = self._finished
            due = (now := time.monotonic()) >= drawn + _EVERY
            self._bar.set_description_str(self._count(), refresh=due)
            drawn = now if due else drawn
            yield result

    def _count(self) -> str:
        return f"{self._finished:,}/{self._images:,} images"


def _described(search: "Search") -> str:
    loss = "" if math.isnan(search.loss) else f" loss {search.loss:.3f}"  # a recipe without gradients has none
    words = f"step {search.step}/{search.max_steps}{loss} KL {search.kl:.3f}"
    if search.status:
        words = f"{search.sampled} samples drawn"
    elif search.last_check:
        words += f" best {max(max(values) for values in search.last_check.similarities.values()):.2f}"
    return f"{words} {search.target.name}"
