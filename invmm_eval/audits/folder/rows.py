"""``results.jsonl``: one row per image, of which a few columns are read at once and the rest when it is looked at.

A million rows are gigabytes; reading these columns with pyarrow takes seconds and little memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import NoneType
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import json as arrow_json

from invmm_eval import strict_json
from invmm_eval.audits.folder.files import STEM
from invmm_eval.audits.folder.format import upgraded_row
from invmm_eval.errors import InvMMError
from invmm_eval.hints import check_types
from invmm_eval.search.status import Status, Verdict

Span = tuple[int, int]
"""Start and end of a line in its file, in bytes."""

_BLOCK = 1 << 21
"""Bytes that are parsed at once, which takes several times as much memory."""
COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        *((name, pa.string()) for name in ("name", "digest", "caption", "status")),
        ("finished", pa.timestamp("ms", "UTC")),
        ("rows", pa.int64()),
        ("verdict", pa.string()),
    ]
)
"""The columns that are read at once; of the digests, what :func:`~invmm_eval.audits.folder.files.stem` takes. Rows of
formats up to 3 have no verdict."""


@dataclass(frozen=True)
class Lines:
    """The complete lines of ``results.jsonl``.

    Attributes:
        path: The file.
        ends: The end of each line in bytes, after a first 0.
        columns: Their values of :data:`COLUMNS`.
    """

    path: Path
    ends: NDArray[np.int64]
    columns: pa.Table

    @classmethod
    def read(cls, path: Path) -> "Lines":
        """Read all complete lines, without holding more than a part of the file.

        Raises:
            InvMMError: A line is damaged.
            OSError: The file cannot be read.
        """
        ends, tables = [np.zeros(1, np.int64)], [COLUMNS.empty_table()]
        with path.open("rb") if path.exists() else BytesIO() as file:
            rest = b""
            while block := file.read(_BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    breaks = np.flatnonzero(np.frombuffer(whole + newline, np.uint8) == ord("\n")) + 1
                    table = _parsed(whole + newline, longest=int(np.diff(breaks, prepend=0).max()))
                    if table is None or len(table) != len(breaks):
                        _blame(path, whole, sum(map(len, tables)))
                    ends.append(ends[-1][-1] + breaks)
                    tables.append(table)
        return cls(path, np.concatenate(ends), pa.concat_tables(tables))

    def span(self, number: int) -> Span:
        """Start and end of a line."""
        return int(self.ends[number]), int(self.ends[number + 1])


class Rows(Sequence[Mapping[str, Any]]):
    """Rows in some order, each read when it is looked at."""

    def __init__(self, lines: Lines, order: NDArray[np.int64]) -> None:
        self._lines = lines
        self._order = order

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> "Rows": ...

    def __getitem__(self, at: int | slice) -> "Mapping[str, Any] | Rows":
        if isinstance(at, slice):
            return Rows(self._lines, self._order[at])
        return row_at(self._lines.path, self._lines.span(self._order[at]))

    def __len__(self) -> int:
        return len(self._order)


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as its file holds it, with its checksum and without values of None."""
    held = {name: value for name, value in row.items() if value is not None}
    return json.dumps(strict_json.sealed(held, _APART), allow_nan=False, separators=(",", ":")).encode() + b"\n"


_APART: Mapping[str, type | tuple[type, ...]] = {
    "index": int,
    "name": str,
    "seconds_steps": (int, float),
    "seconds_checks": (int, float),
    "finished": str,
    "sha256": (str, NoneType),
}
"""What the checksum leaves out: equal results have equal ones."""


def row_at(path: Path, span: Span) -> dict[str, Any]:
    """The row at one place of the file, in the present format.

    Raises:
        InvMMError: The line is damaged.
        OSError: The file cannot be read.
    """
    start, end = span
    with path.open("rb") as file:
        file.seek(start)
        line = file.read(end - start)
    try:
        stored = strict_json.parsed_object(line)
        row = upgraded_row(strict_json.unsealed(stored, _APART), path)
        if "crc32" not in stored:  # rows of earlier versions have none
            _check_row(row)
        elif not all(isinstance(row[name], kind) for name, kind in _APART.items()):
            raise ValueError
        datetime.fromisoformat(row["finished"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        with path.open("rb") as file:
            raise _damaged(file.read(start).count(b"\n") + 1, path) from error
    return row


def _damaged(number: int, path: Path) -> InvMMError:
    return InvMMError(f"Line {number} of {path} is damaged; remove it to measure its image again.")


@dataclass(frozen=True)
class _Row:
    """The types of a row's values, as earlier versions wrote them."""

    index: int
    name: str
    digest: str
    caption: str | None
    status: Literal["replicated", "exhausted", "failed"]
    kl: float | None
    dimensions: int | None
    steps: int
    passed: bool | None
    similarities: Mapping[str, Any]
    prompt: str | None
    trace: tuple[Any, ...]
    seconds_steps: float
    seconds_checks: float
    error: str | None
    traceback: str | None
    estimates: Mapping[str, Any]
    sha256: str | None
    finished: str


def _check_row(row: Mapping[str, Any]) -> None:
    """Raise an error unless the row is one that a run writes."""
    try:
        check_types(_Row(**{field.name: row[field.name] for field in fields(_Row)}))
    except InvMMError as error:
        raise ValueError from error
    values = [*row["similarities"].values(), *row["trace"]]
    if not all(value is None or isinstance(value, int | float) for part in values for value in part):
        raise ValueError
    if any(len(point) != 5 or point[0] is None for point in row["trace"]):
        raise ValueError
    for scale in row["similarities"]:
        float(scale)
    if not all(isinstance(part, Mapping) for part in row["estimates"].values()):
        raise ValueError
    if row["status"] != Status.FAILED and not row["similarities"]:
        raise ValueError


def _parsed(lines: bytes, longest: int) -> pa.Table | None:
    """:data:`COLUMNS` of some lines, None if a run does not write such lines."""
    if lines.startswith(b"{") + lines.count(b"\n{") != lines.count(b"\n") + (not lines.endswith(b"\n")):
        return None  # pyarrow crashes where the first value is null
    reading = arrow_json.ReadOptions(block_size=max(longest, 1 << 20))
    options = arrow_json.ParseOptions(explicit_schema=COLUMNS, unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(pa.BufferReader(lines), reading, options)
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    known = set(table["status"].unique().to_pylist()) <= set(Status)
    known &= set(table["verdict"].unique().to_pylist()) <= {*Verdict, None}
    nulls = sum(table[name].null_count for name in ("index", "name", "digest", "finished"))
    if not known or nulls:
        return None
    place = COLUMNS.names.index("digest")
    return table.set_column(place, COLUMNS[place], pc.utf8_slice_codeunits(table["digest"], 0, STEM))


def _blame(path: Path, lines: bytes, before: int) -> None:
    """Raise InvMMError about the first damaged line."""
    numbers = (n for n, line in enumerate(lines.split(b"\n"), before + 1) if len(_parsed(line, len(line)) or ()) != 1)
    raise _damaged(next(numbers, before + 1), path)
