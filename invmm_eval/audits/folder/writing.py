"""Write an audit's folder: made or resumed, and closed to all other runs until it is left.

A thread writes, so that the model does not wait for the disk.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar

from safetensors import SafetensorError

from invmm_eval.audits.folder.files import (
    folder_named,
    lock_of,
    opened_alone,
    picture_of,
    read_object,
    stem,
    tensors_of,
    write_atomically,
    write_object,
)
from invmm_eval.audits.folder.format import FORMAT, as_json, require_same, upgraded_config
from invmm_eval.audits.folder.manifest import FILE as MANIFEST
from invmm_eval.audits.folder.manifest import write_manifest
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import Lines, line_of, row_at
from invmm_eval.audits.folder.tensors import result_of
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result
from invmm_eval.search.sheet import strip
from invmm_eval.search.status import Verdict
from invmm_eval.search.target import Target

_UNWRITTEN = 8
"""Results that may wait to be written; then the search waits."""
_log = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """An audit's folder, open for one run.

    Results are written one after the other by a thread, in the order in which they are added. Closing waits for them,
    also where an error or Ctrl-C ends the run. After a write that failed nothing else is written, since a line that was
    cut short must stay the last one.

    Args:
        folder: Created if it does not exist.
        config: What determines the values, as JSON can hold it.
        images: The requested images; None keeps those of the last run.
        request: The request as JSON can hold it; None keeps that of the last run.
        keep: Of which images tensors and pictures are kept: ``all``, ``replicated`` or ``nothing``.

    Raises:
        InvMMError: The folder cannot be written, is damaged or in use, or holds an audit with another config; or JSON
            cannot hold the config.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        images: Requested | None = None,
        request: Mapping[str, Any] | None = None,
        *,
        keep: str = "all",
    ) -> None:
        self._keep = keep
        self.folder = folder_named(folder)
        self._lock = lock_of(self.folder)
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._room = BoundedSemaphore(_UNWRITTEN)
        self._unwritten: set[str] = set()
        self._failure: BaseException | None = None
        with opened_alone(self.folder, self._lock):
            for part in ("tensors", "samples"):
                (self.folder / part).mkdir(exist_ok=True)
            self._open(as_json(config))
            (self.folder / MANIFEST).unlink(missing_ok=True)
            self._lines = self._complete_lines()
            if images is not None:
                images.save(self.folder)
            if request is not None:
                write_object(self.folder / "request.json", request, indent=2)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write all that was added and then the manifest, and release the folder to other runs.

        Raises:
            InvMMError: The folder cannot be written.
        """
        self._writer.shutdown()
        try:
            if self._lock.is_locked and not self._failure:
                with self._disk_errors():
                    write_manifest(self.folder)
        finally:
            self._lock.release()
        self._raise_failure()

    def _open(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            if config.get("weights", ...) is None:
                _log.warning("The model has no known identity, so the audit in %s cannot be resumed.", self.folder)
            write_object(path, {"format": FORMAT, **config}, indent=2)
            return
        stored = read_object(path)
        upgraded = upgraded_config(stored, path)
        require_same(self.folder, "an audit", upgraded, upgraded_config(config, path))
        if upgraded["format"] != stored.get("format"):
            write_object(path, upgraded, indent=2)

    def _complete_lines(self) -> Lines:
        """The complete lines; a last one that an interruption left unfinished is cut off."""
        lines = Lines(self._results)
        if self._results.exists():
            os.truncate(self._results, lines.end)
        return lines

    @property
    def _results(self) -> Path:
        return self.folder / "results.jsonl"

    def recall(self, index: int, name: str, files: str) -> Result | None:
        """The result of a picture by its :func:`stem`, which gets a row at this place; None if it was not measured."""
        return self.result(index) if self._placed(index, name, files) else None

    def knows(self, index: int, target: Target) -> bool:
        """Whether this picture was measured before, under any name; if so, it gets a row at this place too.

        Raises:
            InvMMError: The folder cannot be read or written.
        """
        self._raise_failure()
        files = stem(target.digest, target.caption)
        if files in self._unwritten:
            self._submit(lambda: None).result()  # waits for all that was added
        picture = picture_of(self.folder, {"digest": target.digest, "caption": target.caption})
        missing = [path for path in (tensors_of(self.folder, files), picture) if not path.exists()]
        if missing and (span := self._lines.picture(files)) and row_at(self._results, span)["sha256"]:
            _log.warning("%s is missing, so its image is measured again.", missing[0])
            self._lines.forget(files)
        return self._placed(index, target.name, files)

    def result(self, index: int) -> Result:
        """The result of an image that is known; its tensors are read when they are looked at."""
        place = self._lines.place(index)
        assert place
        with self._disk_errors():
            return result_of(self.folder, row_at(self._results, place[2:]))

    def add(self, result: Result, target: Target | None) -> Result:
        """Have a result written; its row comes last, so that a row means that all else is there.

        Args:
            result: The result.
            target: Its image; None if it could not be read.

        Returns:
            The result, with tensors that are read, and compared with their SHA-256, when they are looked at, which
            waits until they are written.

        Raises:
            InvMMError: The folder cannot be written, which may show at a later call.
        """
        if target and self.knows(result.index, target):
            return self.result(result.index)
        more = {"caption": target and target.caption, "sha256": None, "finished": _now()}
        if target:
            self._unwritten.add(stem(target.digest, target.caption))
        kept = target if result.check and self._keeps(result) else None
        written = self._submit(lambda: self._write({**result.row(), **more}, result, kept))
        return result_of(self.folder, {**result.record(), **more, "sha256": written if kept else None})

    def _keeps(self, result: Result) -> bool:
        copied = result.verdict in (Verdict.MEMORIZED, Verdict.REPLICABLE)
        return self._keep == "all" or (self._keep == "replicated" and copied)

    def _write(self, row: Mapping[str, Any], result: Result, target: Target | None) -> str | None:
        """Write the files of a result, unless ``target`` is None, and then its row; returns the SHA-256 of tensors."""
        digest = None
        files = stem(row["digest"], row["caption"])
        if result.check and target:
            sheet = strip(target.image, result.check.samples)
            tensors, picture = tensors_of(self.folder, files), picture_of(self.folder, row)
            for path in (tensors, picture):
                path.parent.mkdir(exist_ok=True)
            digest = write_atomically(tensors, result.save)
            write_atomically(picture, lambda partial: sheet.save(partial, "PNG"))
        self._append({**row, "sha256": digest})
        self._unwritten.discard(files)
        return digest

    def _placed(self, index: int, name: str, files: str) -> bool:
        """Whether a picture was measured; if so, it has a row of this place and this name too."""
        if not (span := self._lines.picture(files)):
            return False
        if not self._lines.has(index, name, files):
            with self._disk_errors():
                row = {**row_at(self._results, span), "index": index, "name": name}
            self._submit(lambda: self._append(row)).result()
        return True

    def _append(self, row: Mapping[str, Any]) -> None:
        line = line_of({**row, "format": FORMAT})
        with self._results.open("ab") as lines:
            lines.write(line)
            lines.flush()
            os.fsync(lines.fileno())
        self._lines.add(row, len(line))

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        """Have the thread do some work, after all that it was given before."""
        self._raise_failure()
        self._room.acquire()
        submitted = self._writer.submit(self._guarded, work)
        submitted.add_done_callback(lambda _: self._room.release())
        return submitted

    def _guarded(self, work: Callable[[], T]) -> T:
        self._raise_failure()
        try:
            with self._disk_errors():
                return work()
        except BaseException as error:
            self._failure = error
            raise

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn errors of the disk into one sentence."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvMMError(
                f"A result could not be written to {self.folder}: {reason}. Earlier results are kept; run the same "
                "command again to resume."
            ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
