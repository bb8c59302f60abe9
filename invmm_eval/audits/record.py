"""Measure each picture once: known ones come from the folder, equal ones share a measurement, unreadable ones fail."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.scores import Score
from invmm_eval.audits.images import Source
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.shards import Shard
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target

T = TypeVar("T", Result, Score)
"""What is found for an image: a result of a search, or a score."""
Measure = Callable[[Iterator[Target]], Iterator[T]]
"""Measures images as it takes them, in any order. That there are none may hold for the moment only."""


class Keeper(Protocol[T]):
    """A folder that is open to keep what is found."""

    folder: Path

    def knows(self, index: int, target: Target) -> bool:
        """Whether this picture was measured before; if so, what was found is kept for this place too."""
        ...

    def result(self, index: int) -> T:
        """What was found for an image that is known."""
        ...

    def add(self, result: T, target: Target | None) -> T:
        """Keep what was found; without a target its image could not be read."""
        ...


def kept(
    measure: Measure[T],
    sources: Iterable[tuple[int, Source]],
    image_shape: tuple[int, int, int],
    keeper: Keeper[T] | None,
    kind: type[T],
    requested: Requested | None = None,
) -> Iterator[T]:
    """Measure images and keep what is found, yielding each outcome as it is ready, with its image's number as index.

    Args:
        measure: Measures prepared images.
        sources: The images with their numbers, which may come one by one; one that cannot be read gives a failure.
        image_shape: ``(C, H, W)`` of the model's images.
        keeper: The open folder; None keeps nothing.
        kind: What is found for an image.
        requested: What was requested. Of a shard, all other images are left out, and the folder gets the names of its
            images when all are read.

    Raises:
        InvMMError: The folder cannot be read or written.
    """
    shard = requested.shard if requested else None
    images = _Images(sources, image_shape, keeper, kind, shard)
    for result in measure(images):
        yield from images.skipped()
        yield from images.shared(result)
    yield from images.skipped()
    if keeper and requested and shard:
        requested.only(images.of_shard).save(keeper.folder)


class _Images(Iterator[Target], Generic[T]):
    """The images to measure, read when they are taken. An image equal to one being measured waits for it."""

    def __init__(
        self,
        sources: Iterable[tuple[int, Source]],
        image_shape: tuple[int, int, int],
        store: Keeper[T] | None,
        kind: type[T],
        shard: Shard | None,
    ) -> None:
        self._sources = iter(sources)
        self._image_shape = image_shape
        self._store: Keeper[T] | None = store
        self._kind: type[T] = kind
        self._shard = shard
        self.of_shard: dict[int, str] = {}
        self._skipped: deque[Callable[[], T]] = deque()
        self._waiting: dict[tuple[str, str | None], list[tuple[int, Target]]] = {}

    def __next__(self) -> Target:
        for index, source in self._sources:
            try:
                target = Target(prepare(source.value, self._image_shape), source.name, source.caption)
            except InvMMError as error:
                if self._belongs("", index, source):
                    failed = self._kind.failure(index, source.name, "", None, str(error))
                    self._skipped.append(partial(self._kept, failed, None))
                continue
            if not self._belongs(target.digest, index, source):
                continue
            if self._store and self._store.knows(index, target):
                self._skipped.append(partial(self._store.result, index))
                continue
            equal = self._waiting.setdefault((target.digest, target.caption), [])
            equal.append((index, target))
            if len(equal) == 1:
                return target
        raise StopIteration

    def _belongs(self, digest: str, index: int, source: Source) -> bool:
        """Whether an image is to be measured; of a shard it is noted."""
        if not self._shard:
            return True
        if belongs := self._shard.has(digest, source.name):
            self.of_shard[index] = source.name
        return belongs

    def skipped(self) -> Iterator[T]:
        """The results of images that were not measured since the last call: failed ones and known ones."""
        while self._skipped:
            yield self._skipped.popleft()()

    def shared(self, result: T) -> Iterator[T]:
        """The result of a measurement, for each image that waited for it."""
        for index, target in self._waiting.pop((result.digest, result.caption)):
            yield self._kept(result.placed(index, target.name, target.image), target)

    def _kept(self, result: T, target: Target | None) -> T:
        return self._store.add(result, target) if self._store else result
