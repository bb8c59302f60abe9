"""Which line of ``results.jsonl`` is that of a picture, and which that of a place in the list of images.

Arrow and NumPy hold the lines that are there, since Python's texts and mappings take ten times the memory.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from invmm_eval.audits.folder.files import stem
from invmm_eval.audits.folder.rows import Lines, Span
from invmm_eval.search.status import Status

_AT_ONCE = 1 << 16
"""Lines whose texts are Python's at the same time."""
_PICTURE = ("digest", "caption")


class Index:
    """The lines of a file, by picture and by place; of several the last counts.

    Args:
        lines: The lines that are there.
    """

    def __init__(self, lines: Lines) -> None:
        self._ends = lines.ends
        self._columns = lines.columns.select(["name", *_PICTURE])
        pictures = self._columns.select(_PICTURE).to_batches(_AT_ONCE)
        stems = (stem(*picture) for batch in pictures for picture in zip(*map(pa.Array.to_pylist, batch), strict=True))
        keys = np.fromiter(map(hash, stems), np.int64, len(lines.columns))
        measured = np.flatnonzero(pc.not_equal(lines.columns["status"], Status.FAILED).to_numpy())
        self._pictures = _Last(keys[measured], measured)
        self._places = _Last(lines.columns["index"].to_numpy(), np.arange(len(keys)))
        self._added_pictures: dict[str, Span | None] = {}
        self._added_places: dict[int, tuple[str, str, Span]] = {}

    def picture(self, files: str) -> Span | None:
        """The line of a picture that was measured, by its :func:`~invmm_eval.audits.folder.files.stem`."""
        if files in self._added_pictures:
            return self._added_pictures[files]
        line = self._pictures.line(hash(files))
        return None if line is None or self._stem(line) != files else self._span(line)

    def place(self, index: int) -> tuple[str, str, Span] | None:
        """The name and the stem of the picture at a place, and its line."""
        if index in self._added_places:
            return self._added_places[index]
        line = self._places.line(index)
        return None if line is None else (self._columns["name"][line].as_py(), self._stem(line), self._span(line))

    def add(self, span: Span, index: int, name: str, files: str, status: str) -> None:
        """Count a line that was added."""
        self._added_places[index] = name, files, span
        if status != Status.FAILED:
            self._added_pictures[files] = span

    def forget(self, files: str) -> None:
        """Take a picture for one that was not measured."""
        self._added_pictures[files] = None

    def _stem(self, line: int) -> str:
        return stem(*(self._columns[name][line].as_py() for name in _PICTURE))

    def _span(self, line: int) -> Span:
        return int(self._ends[line]), int(self._ends[line + 1])


class _Last:
    """The last line of each key."""

    def __init__(self, keys: NDArray[np.int64], lines: NDArray[np.int64]) -> None:
        self._keys, self._lines = last_lines(keys, lines)

    def line(self, key: int) -> int | None:
        at = int(np.searchsorted(self._keys, key))
        return int(self._lines[at]) if at < len(self._keys) and self._keys[at] == key else None


def last_lines(keys: NDArray[np.int64], lines: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different keys in ascending order, and the last line of each."""
    if (keys[1:] > keys[:-1]).all():  # as one run writes the places
        return keys, lines
    order = np.argsort(keys, kind="stable")
    keys, lines = keys[order], lines[order]
    last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
    return keys[last], lines[last]
