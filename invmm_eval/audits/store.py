"""The folder of one audit: what was asked, what was found, and enough to go on after an interruption.

config.json      all that decides the results; a folder with another one is refused
images.json      the images that were asked for last, by name and in order, and when
results.jsonl    one line an image, appended when all else of it is there; an image that failed or got another name gets
                 another line when the audit is gone on with, and its last line counts
tensors/         a safetensors file a picture: q, the condition and the samples (``Result.load`` reads it)
samples/         a picture a picture: the image itself, then its samples, one row a guidance scale; both in 256 folders
                 by the first two digits of their names, since file systems and tools dislike a million in one
.lock            held by the run that writes here; the system lets it go, however the run ends

Files are written beside their place, brought to the disk and moved there; the line comes last and tells the SHA-256 of
the tensors.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import file_digest, sha256
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from invmm_eval.audits.lines import Lines, Rows, Span, line_at
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target

_REMEMBERED = ("index", "name", "digest", "caption", "status")
_log = logging.getLogger(__name__)


class Store:
    """An audit's folder, made or gone on with, and closed to all other runs until it is left.

    Args:
        folder: Made where it does not exist.
        config: What decides the results, as JSON can hold it.
        images: The names of the images that are asked for; None leaves it at those that were asked for before.

    Raises:
        InvMMError: The folder cannot be written, is damaged or in use, or holds an audit with another config; or the
            config is not what JSON can hold.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any], images: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self._lock = _lock(self.folder)
        try:
            for part in ("tensors", "samples"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=1)
            self._agree(_as_json(config))
            lines = self._mend()
            if images is not None:
                _write(self.folder / "images.json", json.dumps({"asked": _now(), "names": list(images)}) + "\n")
        except BaseException as error:
            self.close()
            if isinstance(error, Timeout):
                raise InvMMError(
                    f"Another run is writing to {self.folder}; wait for its end, or name another folder."
                ) from error
            if isinstance(error, OSError):
                raise InvMMError(f"The folder {self.folder} cannot be used: {error.strerror or error}.") from error
            raise
        self._known: dict[str, Span] = {}
        self._places: dict[int, tuple[str, str, Span]] = {}
        self._renewed: set[str] = set()
        told = (lines.columns[name].to_pylist() for name in _REMEMBERED)
        for span, *values in zip(pairwise(lines.ends.tolist()), *told, strict=True):
            self._remember(span, *values)

    def _remember(self, span: Span, index: int, name: str, digest: str, caption: str | None, status: str) -> None:
        stem = _stem(digest, caption)
        self._places[index] = name, stem, span
        if status != Status.FAILED:
            self._known[stem] = span

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        self._lock.release()

    def _agree(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            _write(path, json.dumps(config, indent=2) + "\n")
            return
        there = _object(path)
        if differing := sorted(key for key in there.keys() | config.keys() if there.get(key) != config.get(key)):
            raise InvMMError(
                f"{self.folder} holds an audit that differs in {', '.join(differing)}; name another folder, "
                "or ask for what was asked there."
            )

    def _mend(self) -> Lines:
        """The lines that are there, without a last one that an interruption left unfinished."""
        lines = Lines.read(self._results)
        if self._results.exists() and self._results.stat().st_size > lines.ends[-1]:
            os.truncate(self._results, lines.ends[-1])
        return lines

    @property
    def _results(self) -> Path:
        return self.folder / "results.jsonl"

    def knows(self, index: int, target: Target) -> bool:
        """Whether these pixels were measured before, under whatever name; if so, they get a line in this place too.

        Raises:
            InvMMError: The folder cannot be read or written.
        """
        stem = _stem(target.digest, target.caption)
        if stem not in self._known:
            return False
        path = _tensors(self.folder, stem)
        if not path.exists():
            _log.warning("%s is gone, so its image is measured again.", path)
            del self._known[stem]
            self._renewed.add(stem)
            return False
        if stem in self._renewed or self._places.get(index, ())[:2] != (target.name, stem):
            with self._told():
                self._append({**line_at(self._results, self._known[stem]), "index": index, "name": target.name})
        return True

    def result(self, index: int) -> Result:
        """The result of an image that is known; its tensors are read when they are looked at."""
        _, _, span = self._places[index]
        with self._told():
            return _result(self.folder, line_at(self._results, span))

    def add(self, result: Result, target: Target | None) -> Result:
        """Keep a result; its line is written last, so that a line means that all is there.

        Args:
            result: The result.
            target: Its image; None where it could not be read.

        Returns:
            The result, with tensors that are read, and held against their SHA-256, when they are looked at.

        Raises:
            InvMMError: The folder cannot be written.
        """
        if target and self.knows(result.index, target):
            return self.result(result.index)
        row = {**result.record(), "caption": target and target.caption, "sha256": None, "finished": _now()}
        with self._told():
            if result.check and target:
                sheet = strip(target.image, result.check.samples)
                row["sha256"] = _settle(_tensors(self.folder, _stem(target.digest, target.caption)), result.save)
                _settle(picture_of(self.folder, row), lambda partial: sheet.save(partial, "PNG"))
            self._append(row)
        return _result(self.folder, row)

    def _append(self, row: Mapping[str, Any]) -> None:
        with self._results.open("ab") as lines:
            start = lines.tell()
            lines.write(json.dumps(row).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
            self._remember((start, lines.tell()), *(row[name] for name in _REMEMBERED))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the disk as a sentence."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            told = getattr(error, "strerror", None) or error
            raise InvMMError(
                f"A result could not be written to {self.folder}: {told}. What was written before is kept; run the "
                "same command again to go on."
            ) from error


@dataclass(frozen=True)
class Record:
    """What an audit's folder says, read without changing it, also while the audit goes on.

    Attributes:
        folder: The folder.
        config: All that decided the results.
        rows: One mapping an image that has a result, in the order of the images, as :meth:`Result.record` makes it,
            with its ``caption``, the ``sha256`` of its file of tensors, and when it was ``finished``. Each is read when
            it is looked at: a million of them are too many to hold.
        progress: How far the audit has come.
    """

    folder: Path
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    progress: "Progress"

    def picture(self, row: Mapping[str, Any]) -> Path:
        """The picture of a row's image and its samples, as :func:`strip` made it; failed images have none."""
        return picture_of(self.folder, row)

    def result(self, row: Mapping[str, Any]) -> Result:
        """The result of a row; its tensors are read, and held against their SHA-256, when they are looked at."""
        return _result(self.folder, row)

    def damaged(self) -> Iterator[str]:
        """Read every file of tensors, and tell of each that is not what was written."""
        for row in self.rows:
            try:
                len(self.result(row).noise)
            except InvMMError as error:
                yield str(error)


@dataclass(frozen=True)
class Progress:
    """How far an audit has come.

    Attributes:
        replicated: Images so far that were.
        exhausted: Images so far that were not replicated within the budget.
        failed: Images so far that could not be measured; they are tried again when the audit is gone on with.
        waiting: Images without a result.
        rate: Results a second since the audit was last started or gone on with; None before the first.
        running: Whether a run is writing to the folder now.
    """

    replicated: int
    exhausted: int
    failed: int
    waiting: int
    rate: float | None
    running: bool

    @property
    def images(self) -> int:
        """All that were asked for."""
        return self.done + self.failed + self.waiting

    @property
    def done(self) -> int:
        """Images that were measured."""
        return self.replicated + self.exhausted

    @property
    def left(self) -> timedelta | None:
        """How long the waiting images take at this rate; None where it is not known."""
        return timedelta(seconds=self.waiting / self.rate) if self.rate else None


def read(folder: str | Path) -> Record:
    """Read an audit's folder.

    Raises:
        InvMMError: There is no audit in the folder, or it is damaged.
    """
    folder = Path(folder)
    try:
        config = _object(folder / "config.json")
        asked = _object(folder / "images.json") if (folder / "images.json").exists() else None
        lines = Lines.read(folder / "results.jsonl")
    except OSError as error:
        raise InvMMError(f"{folder} holds no audit that can be read: {error.filename}: {error.strerror}.") from error
    indices, names = (lines.columns[column].to_pylist() for column in ("index", "name"))
    last = {index: number for number, index in enumerate(indices)}
    order = [last[index] for index in sorted(last)]
    if asked:
        there = dict(enumerate(asked["names"]))
        order = [number for number in order if there.get(indices[number]) == names[number]]
    return Record(folder, config, Rows(lines, order), _progress(lines, order, asked, _in_use(folder)))


def _progress(lines: Lines, order: list[int], asked: Mapping[str, Any] | None, running: bool) -> Progress:
    results = lines.columns.take(pa.array(order, pa.int64()))
    counts = {count["values"]: count["counts"] for count in results["status"].value_counts().to_pylist()}
    rate = None
    if asked:
        started = datetime.fromisoformat(asked["asked"])
        times = results["finished"].filter(pc.greater(results["finished"], pa.scalar(started)))
        rate = len(times) / (pc.max(times).as_py() - started).total_seconds() if len(times) else None
    return Progress(
        replicated=counts.get(Status.REPLICATED, 0),
        exhausted=counts.get(Status.EXHAUSTED, 0),
        failed=counts.get(Status.FAILED, 0),
        waiting=len(asked["names"]) - len(order) if asked else 0,
        rate=rate,
        running=running,
    )


class _Saved(Mapping[str, Tensor]):
    """The tensors of a file, read and held against its SHA-256 when they are first looked at."""

    def __init__(self, path: Path, expected: str) -> None:
        self._path = path
        self._expected = expected

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        try:
            contents = self._path.read_bytes()
        except OSError as error:
            raise InvMMError(f"{self._path} cannot be read: {error.strerror}.") from error
        if sha256(contents).hexdigest() != self._expected:
            raise InvMMError(
                f"{self._path} is not what the audit wrote: its SHA-256 differs. Remove it, and the same command "
                "measures its image again."
            )
        return dict(load(contents))

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _result(folder: Path, row: Mapping[str, Any]) -> Result:
    path = _tensors(folder, _stem(row["digest"], row["caption"]))
    return Result.from_record(row, _Saved(path, row["sha256"]) if row["sha256"] else {})


def _stem(digest: str, caption: str | None) -> str:
    """What a picture's files are called: pictures with the same pixels share them where captions are the same too."""
    return digest[:16] if caption is None else f"{digest[:16]}-{sha256(caption.encode()).hexdigest()[:8]}"


def _tensors(folder: Path, stem: str) -> Path:
    return folder / "tensors" / stem[:2] / f"{stem}.safetensors"


def picture_of(folder: Path, row: Mapping[str, Any]) -> Path:
    """Where the picture of a row's image and its samples lies in an audit's folder."""
    stem = _stem(row["digest"], row["caption"])
    return folder / "samples" / stem[:2] / f"{stem}.png"


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock", thread_local=False)


def _in_use(folder: Path) -> bool:
    try:
        if (folder / ".lock").exists():
            _lock(folder).acquire(timeout=0).lock.release()
        return False
    except Timeout:
        return True
    except OSError:  # nobody can write there, and we neither
        return False


def _object(path: Path) -> dict[str, Any]:
    """What a file of JSON holds.

    Raises:
        InvMMError: It is damaged.
        OSError: It cannot be read.
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InvMMError(f"{path} is damaged, so what was asked there is not known; name another folder.") from error


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(config, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvMMError(
            f"The audit cannot be kept in a folder, since JSON cannot hold its config: {error}."
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _settle(path: Path, write: Callable[[Path], object]) -> str:
    """All of a file or nothing, on the disk, whenever this is interrupted; gives its SHA-256."""
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(exist_ok=True)
    write(partial)
    with partial.open("rb+") as file:
        digest = file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    partial.replace(path)
    return digest


def _write(path: Path, text: str) -> None:
    _settle(path, lambda partial: partial.write_text(text, encoding="utf-8"))


GAP = 2
"""White pixels between the pictures of a strip."""


def strip(image: Tensor, samples: Mapping[float, Tensor]) -> Image.Image:
    """The image ``(C, H, W)`` and its samples side by side, one row a guidance scale, :data:`GAP` between."""
    channels, height, width = image.shape
    columns = 1 + max(len(row) for row in samples.values())
    size = (len(samples) * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels)
    sheet = np.full(size, 255, np.uint8)
    for row, drawn in enumerate(samples.values()):
        for column, picture in enumerate([image, *drawn] if row == 0 else drawn, start=0 if row == 0 else 1):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet)


def cut(sheet: Image.Image, shape: Sequence[int], row: int, column: int) -> Image.Image:
    """One picture of a :func:`strip` of pictures ``(C, H, W)``; the image itself is at row 0, column 0."""
    _, height, width = shape
    left, top = column * (width + GAP), row * (height + GAP)
    return sheet.crop((left, top, left + width, top + height))
