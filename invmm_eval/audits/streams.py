"""Streaming data sets: read once to be listed, and again when their images are looked at, without a copy.

A stream has no rows by number. While it is listed its state is noted at intervals, where a later reading can begin; so
images that are looked at in order are read in one pass.
"""

import sys
from array import array
from collections.abc import Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Any

import datasets
import fsspec
from PIL import Image

from invmm_eval.audits.pictures import ImageLike, Source, reason
from invmm_eval.audits.places import check_texts, image_columns
from invmm_eval.errors import InvMMError

_INTERVAL = 256
"""Number of images between two places where a reading can begin."""


def pictures_of(
    dataset: datasets.IterableDataset, title: str, column: str | None = None, captions: str | None = None
) -> Iterator[Source]:
    """List the images of a streaming data set.

    Args:
        dataset: The data set, which must give the same images whenever it is read.
        title: Its name.
        column: The column of images; None takes the first one.
        captions: The column of texts; None gives no captions.

    Raises:
        InvMMError: It cannot be read, or has no such columns.
    """
    try:
        stream = _Stream(dataset, title, column)
        for number, caption in enumerate(stream.captions(captions)):
            yield Source(f"{title}#{number}", partial(stream.image, number), caption)
    except InvMMError:
        raise
    except Exception as error:  # a stream may run code of its user
        raise InvMMError(f"The stream {title!r} cannot be read: {reason(error)}.") from error


class _Stream:
    """The images of a streaming data set by their position, once :meth:`captions` has read all of it."""

    def __init__(self, dataset: datasets.IterableDataset, title: str, column: str | None) -> None:
        self._title = title
        rows = dataset.with_format(None)
        kinds = rows.features or {}
        first: Mapping[str, Any] = {} if kinds else next(iter(rows), {})
        images = image_columns(kinds)
        images += [name for name, value in first.items() if isinstance(value, Image.Image | bytes)]
        self._kinds = kinds
        self._column = column or next(iter(images), "")
        if self._column not in images:
            raise InvMMError(
                f"{title!r} has no images in {column or 'any column'}; its columns are {', '.join(kinds or first)}."
            )
        self._rows = rows.cast_column(self._column, datasets.Image(decode=False)) if kinds else rows
        self._marks: list[dict[str, Any]] = []
        self._listed = array("q")
        self._reading: Iterator[Mapping[str, Any]] = iter(())
        self._at = sys.maxsize
        self._lock = Lock()

    def captions(self, column: str | None) -> Iterator[str | None]:
        """The caption of each image, from a column of texts."""
        if column is not None and self._kinds:
            check_texts(self._title, self._kinds, column)
        self._rows = self._rows.select_columns([self._column, *([column] if column else [])])
        self._marks.append(self._rows.state_dict())
        for number, row in enumerate(self._rows, 1):
            caption = row[column] if column else None
            if not isinstance(caption, str | None):
                raise InvMMError(f"The column {column!r} of {self._title!r} holds {caption!r}, which is no text.")
            self._listed.append(_key(row[self._column]))
            if number % _INTERVAL == 0:
                self._marks.append(self._rows.state_dict())
            yield caption

    def image(self, number: int) -> ImageLike | None:
        """An image: where the reading is, from the mark before it, or, if the data set does not give
        the same images from there, as after a shuffle, from the beginning.
        """
        with self._lock:
            if not self._at <= number < self._at + _INTERVAL:
                self._begin(min(number // _INTERVAL, len(self._marks) - 1))
            value = self._next(number)
            if _key(value) != self._listed[number]:
                del self._marks[1:]
                self._begin(0)
                value = self._next(number)
        if _key(value) != self._listed[number]:
            raise InvMMError(
                f"{self._title!r} gives different images each time it is read; fix the order of its images."
            )
        return _contents(value)

    def _begin(self, mark: int) -> None:
        self._rows.load_state_dict(self._marks[mark])
        self._reading, self._at = iter(self._rows), mark * _INTERVAL

    def _next(self, number: int) -> Any:
        """The value of an image that is still to come in this reading."""
        at, self._at = self._at, sys.maxsize  # so it stays if the stream cannot be read
        row: Mapping[str, Any] = {}
        for _ in range(number + 1 - at):
            row = next(self._reading, {})
        self._at = number + 1
        return row.get(self._column)


def _key(value: Any) -> int:
    """A number by which an image is recognized."""
    if isinstance(value, Mapping):
        value = value["path"] if value["bytes"] is None else value["bytes"]
    return hash(value.tobytes() if isinstance(value, Image.Image) else value)


def _contents(value: Any) -> ImageLike | None:
    """The image of a row, with the contents of a file that may lie elsewhere."""
    if isinstance(value, Mapping) and value["bytes"] is None and value["path"]:
        with fsspec.open(value["path"], "rb") as opened:
            return {**value, "bytes": opened.read()}
    image: ImageLike | None = value
    return image
