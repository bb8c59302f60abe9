"""``results.jsonl``: one row per image. Where each line is, is held in memory; it is read when it is looked at.

A million rows are gigabytes. What finds and counts them is a table of SQLite, a quarter of a gigabyte then, since
Python's texts and mappings take several times as much.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from operator import index
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import Any, get_type_hints, overload

from invmm_eval import strict_json
from invmm_eval.audits.folder.files import stem
from invmm_eval.audits.folder.format import upgraded_row
from invmm_eval.errors import InvMMError
from invmm_eval.hints import is_plain, typed
from invmm_eval.search.status import Status, Verdict

Span = tuple[int, int]
"""Start and end of a line in its file, in bytes."""

_TABLE = """
CREATE TABLE line (
    stop INTEGER PRIMARY KEY, start INTEGER NOT NULL,
    place INTEGER NOT NULL, name TEXT NOT NULL, picture TEXT NOT NULL, measured INTEGER NOT NULL,
    verdict TEXT, rows INTEGER, finished REAL NOT NULL
);
"""
_INDEXES = "CREATE INDEX of_picture ON line (picture); CREATE INDEX of_place ON line (place);"
_INSERT = "INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_DAMAGES = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, sqlite3.Error)
"""What a line that no run writes raises."""


class Lines:
    """The complete lines of a file; of those of a picture, or of a place in the list of images, the last counts.

    A table ``line`` of SQLite has start and stop of each; the place and the name of its image, and the
    :func:`~invmm_eval.audits.folder.files.stem` of its picture; whether that was measured; its verdict (formats up to 3
    have none), its network rows, and when it was finished, in seconds since 1970. Threads may share it.

    Args:
        path: The file, which may not exist yet.

    Attributes:
        path: The file.
        end: Where the last line ends, in bytes.

    Raises:
        InvMMError: A line is damaged.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self._table = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._lock = Lock()
        self._table.executescript(_TABLE)
        with path.open("rb") if path.exists() else BytesIO() as file:
            whole = (line for line in file if line.endswith(b"\n"))
            try:
                self._fill(_INSERT, (self._counted(json.loads(line), len(line)) for line in whole))
            except _DAMAGES as error:
                raise _damaged(self.first("SELECT count(*) FROM line")[0] + 1, path) from error
        self._table.executescript(_INDEXES)

    def _fill(self, insert: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert rows in one transaction; with one for each it takes twice as long."""
        self._table.execute("BEGIN")
        self._table.executemany(insert, rows)
        self._table.execute("COMMIT")

    def _counted(self, row: Mapping[str, Any], size: int) -> tuple[Any, ...]:
        """The columns of the line of a row, of this size in bytes, at the end.

        Of subclasses of int and str, such as bool and Verdict, sqlite3 takes twice as long to find what they stand for.
        """
        start, self.end = self.end, self.end + size
        return (
            self.end,
            start,
            index(row["index"]),
            row["name"],
            stem(row["digest"], row.get("caption")),
            int(Status(row["status"]) is not Status.FAILED),
            row.get("verdict") and Verdict(row["verdict"]).value,
            row.get("rows"),
            datetime.fromisoformat(row["finished"]).timestamp(),
        )

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """Count the line of a row, of this size in bytes, at the end."""
        self.first(_INSERT, *self._counted(row, size))

    def first(self, asked: str, *values: Any) -> Any:
        """The first row that the table gives; None if it gives none."""
        with self._lock:
            return self._table.execute(asked, values).fetchone()

    def all(self, asked: str) -> list[Any]:
        """All rows that the table gives."""
        with self._lock:
            return self._table.execute(asked).fetchall()

    def picture(self, picture: str) -> Span | None:
        """The line of a picture that was measured, by its stem."""
        asked = "SELECT start, stop FROM line WHERE picture = ? AND measured ORDER BY stop DESC"
        span: Span | None = self.first(asked, picture)
        return span

    def place(self, place: int) -> tuple[str, str, int, int] | None:
        """The name and the stem of the picture at a place, and start and end of its line."""
        asked = "SELECT name, picture, start, stop FROM line WHERE place = ? ORDER BY stop DESC"
        found: tuple[str, str, int, int] | None = self.first(asked, place)
        return found

    def has(self, place: int, name: str, picture: str) -> bool:
        """Whether the picture of this name has the line of this place."""
        return (self.place(place) or ())[:2] == (name, picture)

    def forget(self, picture: str) -> None:
        """Do not count the lines of a picture."""
        self.first("DELETE FROM line WHERE picture = ?", picture)

    def latest(self, names: Mapping[int, str] | None) -> "Rows":
        """The rows of all places, in their order; with ``names`` by place, those of images with these names only."""
        with self._lock:
            self._table.execute("CREATE TABLE wanted (place INTEGER PRIMARY KEY, name TEXT)")
            self._fill("INSERT INTO wanted VALUES (?, ?)", (names or {}).items())
            self._table.execute(
                "CREATE TABLE latest AS SELECT start, stop, verdict, rows, finished FROM line "
                "WHERE stop IN (SELECT max(stop) FROM line GROUP BY place) "
                "AND (? OR (place, name) IN (SELECT place, name FROM wanted)) ORDER BY place",
                (names is None,),
            )
        return Rows(self, range(1, self.first("SELECT count(*) FROM latest")[0] + 1))


class Rows(Sequence[Mapping[str, Any]]):
    """Rows in some order, each read when it is looked at."""

    def __init__(self, lines: Lines, numbers: range) -> None:
        self._lines = lines
        self._numbers = numbers

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> "Rows": ...

    def __getitem__(self, at: int | slice) -> "Mapping[str, Any] | Rows":
        if isinstance(at, slice):
            return Rows(self._lines, self._numbers[at])
        asked = "SELECT start, stop FROM latest WHERE rowid = ?"
        return row_at(self._lines.path, self._lines.first(asked, self._numbers[at]))

    def __len__(self) -> int:
        return len(self._numbers)


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
    except _DAMAGES as error:
        with path.open("rb") as file:
            raise _damaged(file.read(start).count(b"\n") + 1, path) from error
    return row


def _damaged(number: int, path: Path) -> InvMMError:
    return InvMMError(f"Line {number} of {path} is damaged; remove it to measure its image again.")


def _check_row(row: Mapping[str, Any]) -> None:
    """Raise an error unless the row is one that an earlier version writes."""
    from invmm_eval.search.result import Result

    found = Result.from_record(row)
    similarities = found.check.similarities if found.check else {}
    numbers = [value for part in (*similarities.values(), *found.trace) for value in part]
    given = {"passed": bool | None, "prompt": str | None, "sha256": str | None}
    try:
        for name, hint in get_type_hints(Result).items():
            if is_plain(hint):
                typed(getattr(found, name), hint, name)
    except InvMMError as error:
        raise ValueError from error
    if not all(isinstance(row[name], kind) for name, kind in given.items()):
        raise ValueError
    if not all(isinstance(value, int | float) for value in numbers):
        raise ValueError
    if not all(isinstance(part, Mapping) for part in row["estimates"].values()):
        raise ValueError
    if found.status is not Status.FAILED and not similarities:
        raise ValueError
