"""Put the folders of all shards of a set together: the folder that one run of the set would have written."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from invmm_eval.audits.folder import Record, read
from invmm_eval.audits.folder.files import (
    folder_named,
    in_use,
    picture_of,
    stem,
    tensors_of,
    write_atomically,
    write_object,
)
from invmm_eval.audits.folder.format import differences
from invmm_eval.audits.folder.manifest import write_manifest
from invmm_eval.audits.folder.ranking import ranked, write_ranking
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import line_of
from invmm_eval.audits.folder.scores import FILE as SCORES
from invmm_eval.audits.folder.scores import Score, read_scores, write_scores
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.shards import Shard
from invmm_eval.errors import InvMMError, on_disk


def merge(out: str | Path, parts: Sequence[str | Path], *, progress: bool = True) -> Requested:
    """Put the folders of all shards of a set together.

    The rows are those of one run, in the order of the images; if the shards list the images in different orders, in
    that of their names. Tensors and pictures are linked where the file system can, and else copied. The folders of the
    shards stay as they are. The output folder appears when all of it is written.

    Args:
        out: Output folder, which must be new or empty.
        parts: The folders, one for each shard, as ``run``, ``screen`` or ``audit`` with a shard wrote them.
        progress: Whether to show a progress bar where there is a terminal or a notebook.

    Returns:
        The images.

    Raises:
        InvMMError: A folder is no shard, is not complete, or is of another model, recipe or set of images; a shard is
            missing or given twice; or the output folder cannot be written.
    """
    out = folder_named(out)
    shards = [_Part.of(folder_named(part)) for part in parts]
    for part in shards[1:]:
        _check_alike(shards[0], part)
    _check_all(shards)
    places = _places(shards)
    images = Requested.now([shards[part].requested.by_index[index] for part, index in places])
    with on_disk(f"The shards cannot be merged into {out}"):
        if out.exists() and any(out.iterdir()):
            raise InvMMError(f"{out} is not empty; choose another folder for the merged one.")
        whole = out.resolve()
        whole.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{whole.name}.partial-", dir=whole.parent) as temporary:
            partial = Path(temporary, whole.name)
            partial.mkdir()
            images.save(partial)
            if shards[0].audit:
                with Bar(len(places), shown=progress, doing="merging") as bar:
                    _write_results(partial, shards, bar.over(_rows(partial, shards, places)))
            if shards[0].screening:
                scores = [replace(shards[part].scores[at], index=place) for place, (part, at) in enumerate(places)]
                write_scores(partial, shards[0].screening, scores)
                write_ranking(ranked(scores), partial)
            if shards[0].audit:
                write_manifest(partial)
            partial.rename(whole)
    return images


Place = tuple[int, int]
"""An image: the number of its part in the order of the arguments, and its position in the list of that part."""


@dataclass(frozen=True)
class _Part:
    """The folder of one shard.

    Attributes:
        folder: The folder.
        requested: Its images.
        shard: Which shard they are.
        audit: Its results, if it has any.
        screening: The config of its scores, if it has any.
        scores: Its scores by position.
    """

    folder: Path
    requested: Requested
    shard: Shard
    audit: Record | None
    screening: Mapping[str, Any]
    scores: Mapping[int, Score]

    @classmethod
    def of(cls, folder: Path) -> "_Part":
        """Read a folder.

        Raises:
            InvMMError: It holds no shard, or one that is not complete.
        """
        with on_disk(f"{folder} cannot be read"):
            requested = Requested.load(folder)
            audit = read(folder) if (folder / "config.json").exists() else None
            screening, scores = read_scores(folder) if (folder / SCORES).exists() else ({}, {})
        if not requested or not requested.shard:
            raise InvMMError(f"{folder} holds no shard; give the folders of commands with --shard.")
        own = requested.by_index
        done = [len(audit.rows) == len(own)] if audit else []
        done += [all(index in scores and scores[index].name == name for index, name in own.items())] * bool(screening)
        if requested.indices is None or not done or not all(done) or in_use(folder):
            raise InvMMError(f"{folder} is not complete; let its command end, or run it again to resume, then merge.")
        return cls(folder, requested, requested.shard, audit, screening, scores)


def _check_alike(first: _Part, part: _Part) -> None:
    """Check that two shards are of one run.

    Raises:
        InvMMError: They are not.
    """
    both = f"{first.folder} and {part.folder}"
    if (bool(first.audit), bool(first.screening)) != (bool(part.audit), bool(part.screening)):
        raise InvMMError(f"{both} do not both hold results, or both scores; run the same commands for each shard.")
    for one, other in (
        (first.audit and first.audit.config, part.audit and part.audit.config),
        (first.screening, part.screening),
    ):
        if one and other and (differing := differences(one, other)):
            raise InvMMError(f"{both} cannot be merged: {'; '.join(differing[:3])}.")
        if one and not one["weights"]:
            raise InvMMError(f"{both} cannot be merged, since they do not say which model they are of.")
    if first.shard.of != part.shard.of or first.requested.whole != part.requested.whole:
        raise InvMMError(f"{both} are not shards of the same images, cut into the same number of shards.")


def _check_all(parts: Sequence[_Part]) -> None:
    """Check that each shard is there once.

    Raises:
        InvMMError: One is missing, or there twice.
    """
    by_number: dict[int, _Part] = {}
    for part in parts:
        if (twin := by_number.setdefault(part.shard.number, part)) is not part:
            raise InvMMError(f"{twin.folder} and {part.folder} both hold shard {part.shard}; give one of them.")
    of = parts[0].shard.of
    if missing := [str(Shard(number, of)) for number in range(1, of + 1) if number not in by_number]:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise InvMMError(f"Shards are missing: {', '.join(missing[:3])}{more}; give the folders of all {of:,}.")


def _places(parts: Sequence[_Part]) -> list[Place]:
    """The images in the order of their list, or of their names if the shards had it in different orders."""
    images = [(number, index) for number, part in enumerate(parts) for index in part.requested.by_index]
    images.sort(key=lambda place: place[1])
    if [index for _, index in images] != list(range(len(images))):
        images.sort(key=lambda place: (parts[place[0]].requested.by_index[place[1]], place))
    return images


def _write_results(out: Path, parts: Sequence[_Part], rows: Iterable[Mapping[str, Any]]) -> None:
    first = parts[0].audit
    assert first
    write_object(out / "config.json", first.config, indent=2)
    if first.kept_request:
        write_object(out / "request.json", {**first.kept_request, "shard": None}, indent=2)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(map(line_of, rows))

    write_atomically(out / "results.jsonl", write)


def _rows(out: Path, parts: Sequence[_Part], places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """The rows in their new places, once their files are there."""
    positions = [{index: row for row, index in enumerate(sorted(part.requested.by_index))} for part in parts]
    for index, (number, old) in enumerate(places):
        part = parts[number]
        assert part.audit
        row = part.audit.rows[positions[number][old]]
        name = stem(row["digest"], row["caption"])
        _link(tensors_of(part.folder, name), tensors_of(out, name))
        _link(picture_of(part.folder, row), picture_of(out, row))
        yield {**row, "index": index}


def _link(source: Path, target: Path) -> None:
    """A file at another place too, unless it is there already, or nowhere. Files of an audit never change."""
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
