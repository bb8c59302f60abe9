"""``screening.jsonl``: the scores of a detector, each written once.

The first line has the number of the format and the config that determines the scores; each other line is one image. A
line is written when its image is scored, so that it survives the process, and flushed to the disk, so that it survives
the machine, when as many as :data:`BATCH` are new.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from invmm_eval import strict_json
from invmm_eval.audits.folder.files import folder_named, lock_of, opened_alone, stem, write_atomically
from invmm_eval.audits.folder.format import as_json, require_same
from invmm_eval.errors import InvMMError, on_disk

if TYPE_CHECKING:
    from invmm_eval.search.target import Target

FILE = "screening.jsonl"
FORMAT = 1
BATCH = 64
"""Lines after which the file is flushed to the disk."""
_REMEDY = ("remove it to score its image again", "remove the file to score all images again")


@dataclass(frozen=True)
class Score:
    """The suspicion of one image.

    Attributes:
        index: Position of the image in the set.
        name: Its name.
        digest: SHA-256 of its pixels; empty if it could not be read.
        caption: Its caption, if any.
        score: The higher, the more likely the image is memorized; None if it could not be scored.
        seconds: Time that it took.
        error: Why it could not be scored, in one sentence.
    """

    index: int
    name: str
    digest: str
    caption: str | None = None
    score: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def picture(self) -> str:
        """The same for images with the same pixels and caption."""
        return stem(self.digest, self.caption)

    def record(self) -> dict[str, Any]:
        """All values, as JSON can hold them."""
        return asdict(self)

    def tensors(self) -> dict[str, Any]:
        """None: a score is one number."""
        return {}

    def placed(self, index: int, name: str, _: object) -> Self:
        """The same for an equal image at another place of the set."""
        return replace(self, index=index, name=name)

    @classmethod
    def failure(cls, index: int, name: str, digest: str, caption: str | None, error: str) -> Self:
        """That of an image that could not be scored; one that could not be read has an empty digest."""
        return cls(index, name, digest, caption, error=error)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], _: object = None) -> Self:
        """The score of a :meth:`record`.

        Raises:
            TypeError: A value is missing or of another type.
        """
        score = cls(**record)
        if not all(isinstance(getattr(score, name), kind) for name, kind in _TYPES.items()):
            raise TypeError("a value has another type")
        return score


_TYPES = {field.name: field.type for field in fields(Score)} | {"seconds": float | int, "score": float | int | None}


class Scores:
    """The scores in an audit's folder, open for one run.

    Args:
        folder: Created if it does not exist.
        config: What determines the scores, as JSON can hold it.

    Raises:
        InvMMError: The folder cannot be written, is in use, or holds scores that are damaged or of another config.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder = folder_named(folder)
        self._path = self.folder / FILE
        self._known: dict[str, Score] = {}
        self._at: dict[int, Score] = {}
        self._unsynced = 0
        self._lock = lock_of(self.folder)
        with opened_alone(self.folder, self._lock):
            self._open(as_json(config))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with self._written():
                self._sync()
        finally:
            self._file.close()
            self._lock.release()

    def knows(self, index: int, target: "Target") -> bool:
        """Whether this picture was scored before, under any name; if so, it gets a line at this place too."""
        known = self._known.get(stem(target.digest, target.caption))
        if known is None:
            return False
        own = known.placed(index, target.name, None)
        if self._at.get(index) != own:
            self.add(own, target)
        return True

    def result(self, index: int) -> Score:
        """The score of an image that is known."""
        return self._at[index]

    def add(self, result: Score, _: "Target | None") -> Score:
        """Write a score.

        Raises:
            InvMMError: The folder cannot be written.
        """
        with self._written():
            self._file.write(_line(result))
            self._file.flush()
            self._unsynced += 1
            if self._unsynced == BATCH:
                self._sync()
        self._remember(result)
        return result

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _remember(self, score: Score) -> None:
        self._at[score.index] = score
        if score.score is not None:
            self._known[score.picture] = score

    def _open(self, config: dict[str, Any]) -> None:
        complete = 0
        if self._path.exists():
            for length, entry in _entries(self._path):
                if isinstance(entry, Score):
                    self._remember(entry)
                else:
                    require_same(self.folder, "a screening", entry, config)
                complete += length
            os.truncate(self._path, complete)
        self._file = self._path.open("ab")
        if not complete:
            self._file.write(_header(config))
            self._sync()

    def _written(self) -> AbstractContextManager[None]:
        return on_disk(
            f"Scores could not be written to {self.folder}",
            ". Earlier ones are kept; run the same command again to resume.",
        )


def read_scores(folder: Path) -> tuple[dict[str, Any], dict[int, Score]]:
    """The config of the scores in a folder, and the last score of each image by its position.

    Raises:
        InvMMError: The file is damaged.
        OSError: It cannot be read.
    """
    config: dict[str, Any] = {}
    scores = {}
    for _, entry in _entries(folder / FILE):
        if isinstance(entry, Score):
            scores[entry.index] = entry
        else:
            config = entry
    return config, scores


def write_scores(folder: Path, config: Mapping[str, Any], scores: Iterable[Score]) -> None:
    """Write the scores of a folder that has none."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(_header(config))
            file.writelines(map(_line, scores))

    write_atomically(folder / FILE, write)


def _header(config: Mapping[str, Any]) -> bytes:
    return _sealed_line({"format": FORMAT, "config": config})


def _line(score: Score) -> bytes:
    return _sealed_line(score.record())


def _sealed_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(strict_json.sealed(record), allow_nan=False).encode() + b"\n"


def _entries(path: Path) -> Iterator[tuple[int, Score | dict[str, Any]]]:
    """The config and then the scores, each with the length of its line; one that was cut short is left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = strict_json.unsealed(strict_json.parsed_object(line))
                if number > 1:
                    yield len(line), Score.from_record(record)
                    continue
                written, config = record["format"], dict(record["config"])
            except (ValueError, TypeError, KeyError) as error:
                raise InvMMError(f"Line {number} of {path} is damaged; {_REMEDY[number == 1]}.") from error
            if written != FORMAT:
                raise InvMMError(f"{path} has format {written}; this version reads {FORMAT}. Upgrade invmm-eval.")
            yield len(line), config
