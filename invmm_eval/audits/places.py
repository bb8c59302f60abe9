"""Pictures where they are: on file systems of fsspec, in tar and in Parquet files, read one by one without a copy.

What is listed is small: where a picture begins and how long it is. Its bytes are read when it is looked at.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import datasets
import fsspec
import pyarrow.parquet as pq

from invmm_eval.audits.pictures import reason
from invmm_eval.errors import InvMMError

SUFFIX = re.compile(
    r".*\.(avif|bmp|gif|heic|heif|jfif|jp2|jpe|jpeg|jpg|pbm|pgm|png|pnm|ppm|tga|tif|tiff|webp)",
    re.IGNORECASE | re.DOTALL,
)
"""The names of image files."""
_TEXTS = ("string", "large_string", "string_view")
_BYTES = ("binary", "large_binary")
_URL = re.compile(r"[a-z][a-z\d+.-]+(::|://).*", re.I)

Listed = Iterator[tuple[str, "Stored", str | None]]
"""The name of each picture, where it is, and its caption."""


@dataclass(frozen=True, eq=False, slots=True)
class Stored(Mapping[str, Any]):
    """A picture as :class:`datasets.Image` stores it, whose bytes are read when they are looked at."""

    read: Callable[[], bytes | None]

    def __getitem__(self, key: str) -> bytes | None:
        return self.read() if key == "bytes" else None

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


def is_place(text: str) -> bool:
    """Whether a text is a URL of fsspec, or the name of a tar or Parquet file."""
    return bool(_URL.fullmatch(text)) or PurePosixPath(text).suffix in _ARCHIVES


def pictures_at(where: str, captions: str | None) -> Listed:
    """List pictures.

    Args:
        where: A URL of fsspec, such as ``hf://datasets/ORG/NAME/train/*.parquet`` or ``s3://bucket/pictures``, or a
            path: of a folder, of an image, of a tar file or of a Parquet file, or a pattern of such files.
        captions: The suffix of texts beside image files that share their names, in a folder or a tar file, or the
            column of a Parquet file; None gives no captions.

    Raises:
        InvMMError: There is no such file, no image in it, or no such caption; or the file system is unknown.
    """
    try:
        system, root = fsspec.url_to_fs(where)
        files = sorted(system.glob(root)) if "*" in root else [root]
        folder = len(files) == 1 and system.isdir(root)
        found = list(_in_folder(system, root, captions) if folder else _in_files(system, files, captions))
    except InvMMError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise InvMMError(f"The images at {where!r} cannot be listed: {reason(error)}.") from error
    if not found:
        raise InvMMError(
            f"There is no image at {where!r}; give an image file, a .tar or .parquet file, a folder of images, or a "
            "pattern such as *.tar."
        )
    return iter(found)


def _in_folder(system: Any, root: str, captions: str | None) -> Listed:
    base = root.rstrip("/")
    for path in sorted(system.find(root)):
        name = path.removeprefix(base).removeprefix("/")
        if SUFFIX.fullmatch(name) and "/." not in f"/{name}":
            yield name, Stored(partial(system.cat_file, path)), _caption(system, path, captions)


def _in_files(system: Any, files: list[str], captions: str | None) -> Listed:
    for path in files:
        name = PurePosixPath(path).name
        if in_archive := _ARCHIVES.get(PurePosixPath(path).suffix):
            yield from in_archive(system, path, name, captions)
        elif system.isfile(path) and (SUFFIX.fullmatch(name) or len(files) == 1):
            yield name, Stored(partial(system.cat_file, path)), _caption(system, path, captions)
        elif len(files) == 1:
            raise FileNotFoundError(f"there is no file or folder {path}")


def _in_tar(system: Any, path: str, title: str, captions: str | None) -> Listed:
    """The images of a tar file, each with the text of the same name, as WebDataset stores them."""
    spans, texts = {}, {}
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            spans[member.name] = start, size = member.offset_data, member.size
            if captions and member.name.endswith(captions):
                file.seek(start)
                texts[member.name] = file.read(size)
    for name, (start, size) in spans.items():
        if SUFFIX.fullmatch(name):
            text = captions and _beside(name, captions)
            if text and text not in texts:
                raise InvMMError(f"The image {name!r} of {title} has no text {text!r} beside it.")
            caption = text_of(texts[text]) if text else None
            yield f"{title}/{name}", Stored(partial(system.cat_file, path, start, start + size)), caption


def _in_parquet(system: Any, path: str, title: str, captions: str | None) -> Listed:
    table = _Parquet(system, path)
    texts = table.texts(captions, title) if captions else None
    for index in range(table.rows):
        yield f"{title}#{index}", Stored(partial(table.image, index)), texts[index] if texts else None


class _Parquet:
    """The first column of images of a Parquet file, of which one group of rows is in memory."""

    def __init__(self, system: Any, path: str) -> None:
        self._file = pq.ParquetFile(system.open(path, "rb"))
        metadata = self._file.metadata
        self._groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._features = datasets.Features.from_arrow_schema(self._file.schema_arrow)
        images = image_columns(self._features)
        if not images:
            raise InvMMError(f"{path} has no column of images; its columns are {', '.join(self._features)}.")
        self._column = images[0]
        self._read: tuple[int, list[Any]] = (-1, [])

    @property
    def rows(self) -> int:
        return sum(self._groups)

    def texts(self, column: str, title: str) -> list[str | None]:
        """All values of a column of texts."""
        check_texts(title, self._features, column)
        return list(self._file.read(columns=[column])[column].to_pylist())

    def image(self, index: int) -> bytes | None:
        """The bytes of the image of a row."""
        group = 0
        while index >= self._groups[group]:
            index -= self._groups[group]
            group += 1
        if self._read[0] != group:
            self._read = group, self._file.read_row_group(group, columns=[self._column])[self._column].to_pylist()
        value = self._read[1][index]
        contents: bytes | None = value["bytes"] if isinstance(value, Mapping) else value
        return contents


def image_columns(features: Mapping[str, Any]) -> list[str]:
    """The columns that hold images: those that say so, then bytes with a path beside them, then bytes alone."""
    declared = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    stored = [
        name for name, kind in features.items() if isinstance(kind, Mapping) and _dtype(kind.get("bytes")) in _BYTES
    ]
    return declared + stored + [name for name, kind in features.items() if _dtype(kind) in _BYTES]


def check_texts(title: str, features: Mapping[str, Any], column: str) -> None:
    """Check that a column holds texts.

    Raises:
        InvMMError: It does not.
    """
    written = [name for name, kind in features.items() if _dtype(kind) in _TEXTS]
    if column not in written:
        known = ", ".join(written) or "none"
        raise InvMMError(f"{title!r} has no column of texts {column!r}; its columns of texts are: {known}.")


def _dtype(kind: object) -> str | None:
    return kind.dtype if isinstance(kind, datasets.Value) else None


def _beside(path: str, ending: str) -> str:
    if not ending.startswith("."):
        raise InvMMError(f"Image files have no column {ending!r}; name the ending of texts beside them, such as .txt.")
    return str(PurePosixPath(path).with_suffix(ending))


def _caption(system: Any, path: str, ending: str | None) -> str | None:
    return None if ending is None else text_of(system.cat_file(_beside(path, ending)))


def text_of(contents: bytes) -> str:
    """The caption in a file: UTF-8, with or without the mark of its byte order."""
    return contents.decode("utf-8-sig").strip()


_ARCHIVES = {".tar": _in_tar, ".parquet": _in_parquet}
