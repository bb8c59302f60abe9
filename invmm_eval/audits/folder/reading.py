"""Read an audit's folder without changing it, also while the audit runs, and, but for old rows, without torch."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from invmm_eval.audits.folder.files import damaged, folder_named, in_use, picture_of, read_object
from invmm_eval.audits.folder.format import upgraded_config
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import Lines, Rows
from invmm_eval.audits.request import command, published, rebuilt, without_path
from invmm_eval.errors import InvMMError
from invmm_eval.search.late import Late
from invmm_eval.search.status import Verdict

if TYPE_CHECKING:
    from invmm_eval.search.result import Result

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """The contents of an audit's folder.

    Attributes:
        folder: The folder.
        config: What determined the values.
        rows: One mapping per image that has a result, in the order of the images, as :meth:`Result.row` makes it,
            with its ``caption``, the ``sha256`` of its file of tensors, and when it was ``finished``. Each is read when
            it is looked at, because memory does not hold a million of them.
        kept_request: The request as it was made last; None if the folder does not hold it.
        progress: The number of images that are done, failed or waiting.
    """

    folder: Path
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    kept_request: Mapping[str, Any] | None
    progress: "Progress"

    def picture(self, row: Mapping[str, Any]) -> Path:
        """The path of the sheet of a row's image and its samples; failed images have none."""
        return picture_of(self.folder, row)

    def result(self, row: Mapping[str, Any]) -> "Result":
        """The result of a row; its tensors are read, and compared with their SHA-256, when they are looked at."""
        from invmm_eval.audits.folder.tensors import result_of

        return result_of(self.folder, row)

    def results(self) -> "Iterator[Result]":
        """The result of each row, in their order."""
        return map(self.result, self._over(self.rows))

    def _over(self, parts: Iterable[T]) -> Iterator[T]:
        """One part per row, with a progress bar where there is a terminal or a notebook."""
        from invmm_eval.audits.progress import Bar

        with Bar(len(self.rows), doing="reading") as bar:
            yield from bar.over(parts)

    @property
    def request(self) -> Mapping[str, Any]:
        """The request as it was made last, or as far as the config says."""
        if self.kept_request is not None:
            return self.kept_request
        return rebuilt(self.config, captions=any(row["caption"] is not None for row in self.rows))

    def public(self) -> "Record":
        """The same as strangers may see it: without local paths in the config and the request."""
        local = len(self.config["weights"] or "") != 40  # a model of the Hub has its commit
        config = {**self.config, "model": without_path(self.config["model"])} if local else self.config
        return replace(self, config=config, kept_request=published(self.request, local_model=local))

    def damaged(self) -> Iterator[str]:
        """Read every file of tensors and pictures; yields a sentence for each that is not what was written."""
        from invmm_eval.audits.folder.tensors import require_files

        for number in self._over(range(len(self.rows))):
            try:
                require_files(self.folder, self.rows[number])
            except InvMMError as error:
                yield str(error)


@dataclass(frozen=True)
class Progress:
    """How far an audit has progressed.

    Attributes:
        counts: Number of images of each verdict; those that failed are tried again when the audit is resumed.
        waiting: Number of images without a result; an estimate for a shard that was not read to its end.
        spent: Network rows that the results cost, as far as they say.
        rate: Results per second since the audit was last started or resumed; None before the first.
        running: Whether a run is writing to the folder now.
    """

    counts: Mapping[Verdict, int]
    waiting: int
    spent: int
    rate: float | None
    running: bool

    @property
    def images(self) -> int:
        """Number of requested images."""
        return sum(self.counts.values()) + self.waiting

    @property
    def done(self) -> int:
        """Number of measured images."""
        return sum(self.counts.values()) - self.failed

    @property
    def failed(self) -> int:
        """Number of images that could not be measured."""
        return self.counts[Verdict.FAILED]

    @property
    def ahead(self) -> int | None:
        """Network rows that the waiting images cost, if they cost as much as the measured ones; None if not known."""
        return round(self.waiting * self.spent / self.done) if self.spent and self.done else None

    @property
    def left(self) -> timedelta | None:
        """Time that the waiting images take at this rate; None if it is not known."""
        return timedelta(seconds=self.waiting / self.rate) if self.rate else None


def read(folder: str | Path) -> Record:
    """Read an audit's folder.

    Raises:
        InvMMError: There is no audit in the folder, it is damaged, or ``folder`` is no path.
    """
    folder = folder_named(folder)
    try:
        config = _config(folder / "config.json")
        lines = Lines(folder / "results.jsonl")
        latest = Requested.load(folder)
        request = read_request(folder)
    except OSError as error:
        raise InvMMError(f"{folder} holds no audit that can be read: {error.filename}: {error.strerror}.") from error
    rows = lines.latest(latest.by_index if latest else None)
    progress = _progress(lines, rows, latest, in_use(folder))
    return Record(folder, config, rows, request, progress)


def _config(path: Path) -> dict[str, Any]:
    stored = read_object(path)
    config = upgraded_config(stored, path)
    if "format" in stored and not stored.keys() & {"model", "recipe"}:  # of a store that holds no audit of a model
        return config
    try:
        kinds: dict[type, tuple[str, ...]] = {
            str: ("model",),
            int: ("seed",),
            dict: ("backbone", "similarity", "noise", "recipe", "versions"),
        }
        fit = all(isinstance(config[name], kind) for kind, names in kinds.items() for name in names)
        if not fit or not isinstance(config["weights"], str | None):
            raise TypeError
        rebuilt(config, captions=False)
        if not isinstance(config["similarity"]["threshold"], int | float):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path) from error
    return config


def read_request(folder: Path) -> dict[str, Any] | None:
    """The request as it was made last, of which a command and a page can be made; None if the folder holds none.

    Raises:
        InvMMError: The file is damaged.
        OSError: It cannot be read.
    """
    path = folder / "request.json"
    if not path.exists():
        return None
    request = read_object(path)
    try:
        command(published(request, local_model=True))
        command(request)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path) from error
    return request


def _progress(lines: Lines, rows: Rows, latest: Requested | None, running: bool) -> Progress:
    """What the table ``latest`` says of these rows."""
    asked = latest.asked.timestamp() if latest else math.inf
    finished, last = lines.first("SELECT count(*), max(finished) FROM latest WHERE finished > ?", asked)
    (spent,) = lines.first("SELECT sum(rows) FROM latest")
    return Progress(
        counts=Late(_counts, lines, rows),
        waiting=max(0, latest.images - len(rows)) if latest else 0,
        spent=spent or 0,
        rate=finished / (last - asked) if finished else None,
        running=running,
    )


def _counts(lines: Lines, rows: Rows) -> dict[Verdict, int]:
    """The number of rows of each verdict; rows of older formats do not hold theirs."""
    found = Counter(dict(lines.all("SELECT verdict, count(*) FROM latest GROUP BY verdict")))
    if found.pop(None, 0):
        from invmm_eval.search.result import Result

        older = lines.all("SELECT rowid - 1 FROM latest WHERE verdict IS NULL")
        found.update(Result.from_record(rows[number]).verdict for (number,) in older)
    return {verdict: found[verdict] for verdict in Verdict}
