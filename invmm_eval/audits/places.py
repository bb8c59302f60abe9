"""Pictures where they are: on file systems of fsspec, in tar and in Parquet files, read one by one without a copy.

What is listed is small: where a picture begins and how long it is. Its bytes are read when it is looked at.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any

import datasets
import fsspec
import pyarrow.parquet as pq

from invmm_eval.audits.pictures import Source, reason
from invmm_eval.errors import InvMMError

SUFFIX = re.compile(
    r".*\.(avif|bmp|gif|heic|heif|jfif|jp2|jpe|jpeg|jpg|pbm|pgm|png|pnm|ppm|tga|tif|tiff|webp)",
    re.IGNORECASE | re.DOTALL,
)
"""The names of image files."""
_TEXTS = ("string", "large_string", "string_view")
_BYTES = ("binary", "large_binary")
_URL = re.compile(r"[a-z][a-z\d+.-]+(::|://).*", re.I)


def is_place(text: str) -> bool:
    """Whether a text is a URL of fsspec, or the name of a tar or Parquet file."""
    return bool(_URL.fullmatch(text)) or PurePosixPath(text).suffix in _ARCHIVES


def pictures_at(where: str, captions: str | None) -> list[Source]:
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
    return found


def _in_folder(system: Any, root: str, captions: str | None) -> Iterator[Source]:
    base = root.rstrip("/")
    for path in sorted(system.find(root)):
        name = path.removeprefix(base).removeprefix("/")
        if SUFFIX.fullmatch(name) and "/." not in f"/{name}":
            yield Source(name, partial(system.cat_file, path), _caption(system, path, captions))


def _in_files(system: Any, files: list[str], captions: str | None) -> Iterator[Source]:
    for path in files:
        name = PurePosixPath(path).name
        if in_archive := _ARCHIVES.get(PurePosixPath(path).suffix):
            yield from in_archive(system, path, name, captions)
        elif system.isfile(path) and (SUFFIX.fullmatch(name) or len(files) == 1):
            yield Source(name, partial(system.cat_file, path), _caption(system, path, captions))
        elif len(files) == 1:
            raise FileNotFoundError(f"there is no file or folder {path}")


def _in_tar(system: Any, path: str, title: str, captions: str | None) -> Iterator[Source]:
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
            text = captions and beside(name, captions)
            if text and text not in texts:
                raise InvMMError(f"The image {name!r} of {title} has no text {text!r} beside it.")
            caption = text_of(texts[text]) if text else None
            yield Source(f"{title}/{name}", partial(system.cat_file, path, start, start + size), caption)


def _in_parquet(system: Any, path: str, title: str, captions: str | None) -> Iterator[Source]:
    """The first column of images of a Parquet file, of which one group of rows is in memory."""
    file = pq.ParquetFile(system.open(path, "rb"))
    features = datasets.Features.from_arrow_schema(file.schema_arrow)
    if not (columns := image_columns(features)):
        raise InvMMError(f"{path} has no column of images; its columns are {', '.join(features)}.")
    texts = repeat(None)
    if captions:
        check_texts(title, features, captions)
        texts = file.read(columns=[captions])[captions].to_pylist()

    @lru_cache(1)
    def values(group: int) -> list[Any]:
        return list(file.read_row_group(group, columns=columns[:1])[columns[0]].to_pylist())

    def image(group: int, row: int) -> bytes | None:
        value = values(group)[row]
        contents: bytes | None = value["bytes"] if isinstance(value, Mapping) else value
        return contents

    groups = range(file.num_row_groups)
    rows = ((group, row) for group in groups for row in range(file.metadata.row_group(group).num_rows))
    for index, (place, text) in enumerate(zip(rows, texts, strict=False)):
        yield Source(f"{title}#{index}", partial(image, *place), text)


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


def beside(path: str, ending: str) -> str:
    """The path of the text file of an image file.

    Raises:
        InvMMError: The ending is none.
    """
    if not ending.startswith("."):
        raise InvMMError(
            f"Image files have no column {ending!r}; name the ending of the text files beside them, such as .txt, or "
            "give a dataset."
        )
    return str(PurePosixPath(path).with_suffix(ending))


def _caption(system: Any, path: str, ending: str | None) -> str | None:
    return None if ending is None else text_of(system.cat_file(beside(path, ending)))


def text_of(contents: bytes) -> str:
    """The caption in a file: UTF-8, with or without the mark of its byte order."""
    return contents.decode("utf-8-sig").strip()


_ARCHIVES = {".tar": _in_tar, ".parquet": _in_parquet}
