"""Measure each picture once: known ones come from the folder, equal ones share a search, unreadable ones fail."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import Source
from invmm_eval.audits.pictures import prepare
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target

Measure = Callable[[Iterator[Target]], Iterator[Result]]
"""Measures images as it takes them, in any order; a result has the digest and caption of its target."""


def measured(
    measure: Measure,
    sources: Sequence[Source],
    image_shape: tuple[int, int, int],
    config: Mapping[str, Any],
    out: str | Path | None = None,
    request: Mapping[str, Any] | None = None,
) -> Iterator[Result]:
    """Measure images and keep their results, yielding each as it is ready, with the position of its image as index.

    Args:
        measure: Measures prepared images.
        sources: The images; one that cannot be read gives a failed result.
        image_shape: ``(C, H, W)`` of the model's images.
        config: What determines the values.
        out: Output folder. An existing audit in it is resumed. None keeps nothing.
        request: The request to keep in the folder.

    Raises:
        InvMMError: The folder cannot be used, or holds an audit with another config.
    """
    names = [source.name for source in sources]
    with nullcontext() if out is None else Store(out, config, names, request) as store:
        images = _Images(sources, image_shape, store)
        for result in measure(images):
            yield from images.skipped()
            yield from images.shared(result)
        yield from images.skipped()


class _Images(Iterator[Target]):
    """The images to search, read when they are taken. An image equal to one that is being searched waits for it."""

    def __init__(self, sources: Sequence[Source], image_shape: tuple[int, int, int], store: Store | None) -> None:
        self._sources = enumerate(sources)
        self._image_shape = image_shape
        self._store = store
        self._failed: deque[Result] = deque()
        self._known: deque[int] = deque()
        self._waiting: dict[tuple[str, str | None], list[tuple[int, Target]]] = {}

    def __next__(self) -> Target:
        for index, source in self._sources:
            try:
                target = Target(prepare(source.value, self._image_shape), source.name, source.caption)
            except InvMMError as error:
                self._failed.append(Result(index, source.name, "", Status.FAILED, error=str(error)))
                continue
            if self._store and self._store.knows(index, target):
                self._known.append(index)
                continue
            equal = self._waiting.setdefault((target.digest, target.caption), [])
            equal.append((index, target))
            if len(equal) == 1:
                return target
        raise StopIteration

    def skipped(self) -> Iterator[Result]:
        """The results of images that were not searched since the last call: failed ones and known ones."""
        while self._failed:
            failed = self._failed.popleft()
            yield self._store.add(failed, None) if self._store else failed
        while self._store and self._known:
            yield self._store.result(self._known.popleft())

    def shared(self, result: Result) -> Iterator[Result]:
        """The result of a search, for each image that waited for it."""
        for index, target in self._waiting.pop((result.digest, result.caption)):
            own = replace(result, index=index, name=target.name, target=target.image)
            yield self._store.add(own, target) if self._store else own
