"""List images in files, folders, data sets and memory, without reading them, so that a damaged one fails alone."""

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from torch import Tensor

from invmm_eval.audits.pictures import ImageLike, contents, readable, reason
from invmm_eval.audits.pictures import Source as Source
from invmm_eval.audits.places import SUFFIX, beside, check_texts, image_columns, is_place, pictures_at, text_of
from invmm_eval.audits.streams import pictures_of
from invmm_eval.errors import InvMMError
from invmm_eval.reference import named

_DATASET = re.compile(r"(?P<kind>dataset|stream):(?P<name>[^:]+)(:(?P<split>([^:\[]|\[[^\]]*\])*)(:(?P<column>.+))?)?")
"""A colon in brackets, as in ``train[:100]``, belongs to the split."""
_SHEET = re.compile(r"samples/(..)/\1[0-9a-f]{14}(-[0-9a-f]{8})?\.png")
"""What an audit in the folder of its images wrote there, which are no images of the set."""
_PACKED = {".7z", ".bz2", ".gz", ".rar", ".tgz", ".xz", ".zip", ".zst"}
"""The endings of files whose pictures cannot be read one by one."""


def find_images(
    *where: ImageLike | Iterable[ImageLike] | datasets.Dataset, captions: str | Iterable[str | None] | None = None
) -> list[Source]:
    """List images without reading them.

    Args:
        *where: Any of these, or lists, sets or streams of them. What a stream yields is kept in memory.

            - A folder: all image files in and below it, sorted, named by their path in it; hidden ones and those that
              an audit wrote are left out.
            - A file.
            - A URL of fsspec, such as ``hf://datasets/ORG/NAME/train/*.parquet`` or ``s3://BUCKET/FOLDER``, or a tar or
              Parquet file: images that are read where they are, one by one.
            - The text ``reference`` or ``reference:held-out``: pictures that the reference model was trained on, or
              that it never saw.
            - The text ``dataset:NAME[:[CONFIG/]SPLIT[:COLUMN]]``: a dataset of the Hub, a local folder or a local file
              that :func:`datasets.load_dataset` reads; by default the split "train" and the first column of images.
              ``stream:...`` is the same without a copy on the disk: the data set is read once to be listed, and again
              when its images are measured.
            - A :class:`datasets.Dataset`, streaming or not: its first column of images. A row or a batch of it: the
              first image of each.
            - A :class:`Source`.
            - An array ``(n, H, W, C)`` or a tensor ``(n, C, H, W)``: n images.
            - Any other image, named by its position.
        captions: Where the text of each image is: a column of the dataset or of rows, or the suffix of text files
            beside the image files that share their names, such as ``.txt``; or the texts themselves, one per image.
            None gives no captions.

    Raises:
        InvMMError: There is no such file, folder, dataset, column or caption, or there is no image in it.
    """
    sources: list[Source] = []
    for item in where:
        _add(sources, item, captions if isinstance(captions, str) else None)
    if not sources or (len(where) == 1 and where[0] is None):
        raise InvMMError("There is no image to audit; give a folder, files or a dataset with images.")
    return sources if captions is None or isinstance(captions, str) else _with_captions(sources, captions)


def _with_captions(sources: Sequence[Source], captions: Iterable[str | None]) -> list[Source]:
    if not isinstance(captions, Iterable) or isinstance(captions, bytes):
        raise InvMMError(f"The captions are {captions!r}; give a list of texts, one for each image, or where they are.")
    texts = list(captions)
    if len(texts) != len(sources):
        raise InvMMError(f"There are {len(texts)} captions for {len(sources)} images; give one for each.")
    for text in texts:
        if not _is_text(text):
            raise InvMMError(f"A caption is {text!r}, which is no text; give None where there is none.")
    return [replace(source, caption=text) for source, text in zip(sources, texts, strict=True)]


def _add(sources: list[Source], item: Any, captions: str | None) -> None:
    """List an image, or the images of what names them, or of a list, set, stream or batch, however deep."""
    if isinstance(item, Source):
        sources.append(item)
    elif isinstance(item, str | Path):
        sources += _by_name(item, captions)
    elif isinstance(item, datasets.Dataset | datasets.IterableDataset):
        sources += _rows(item, "dataset", captions=captions)
    elif isinstance(item, datasets.DatasetDict | datasets.IterableDatasetDict):
        _add(sources, _only_split(item), captions)
    elif isinstance(item, Mapping) and not _is_stored(item):
        for row in _rows_of(item):
            sources.append(_of_row(str(len(sources)), row, captions))
    elif _is_one(item):
        if captions:
            raise InvMMError(f"An image in memory has no {captions!r} beside it; give captions as a list of texts.")
        sources.append(Source(str(len(sources)), item))
    elif _is_open_file(item) and item.seekable():  # images are listed more than once
        item.seek(0)
        _add(sources, item.read(), captions)
    elif isinstance(item, Iterable) and not _is_table(item) and not _is_open_file(item):
        for part in sorted(item, key=str) if isinstance(item, set | frozenset) else item:
            _add(sources, part, captions)
    else:
        instead = "; give a folder, files, a list of images, or a datasets.Dataset"
        if _is_table(item):
            instead = "; give a datasets.Dataset of it, as from_pandas makes it"
        raise InvMMError(f"The type {type(item).__name__} cannot be listed as images{instead}.")


def _by_name(name: str | Path, captions: str | None) -> list[Source]:
    """The images that a text or a path names."""
    if isinstance(name, str):
        if name.startswith(("dataset:", "stream:")):
            return _loaded(name, captions)
        if not name:
            raise InvMMError("The name of an image or folder is empty; for the current folder give a dot.")
        if pictures := named(name):
            return [Source(picture.name, picture.image) for picture in pictures]
    if is_place(str(name)):
        return pictures_at(str(name), captions)
    return [_captioned(source, captions) for source in _files(Path(name))]


def _only_split(splits: Mapping[str, Any]) -> Any:
    if len(splits) > 1:
        raise InvMMError(
            f"A {type(splits).__name__} has several data sets; give one of its splits ({', '.join(splits)}), as in "
            f"images[{next(iter(splits))!r}]."
        )
    return next(iter(splits.values()), [])


def _is_one(item: Any) -> bool:
    """Whether this is one image in memory, and neither a batch nor a list of texts; None is a missing image."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "OU":
        return item.ndim not in (1, 4)
    if isinstance(item, np.ndarray | Tensor):
        return item.ndim != 4
    return isinstance(item, bytes | bytearray | memoryview | Image.Image | Mapping | None)


def _is_open_file(item: object) -> bool:
    return hasattr(item, "read") and hasattr(item, "seekable")


def _is_table(item: object) -> bool:
    return hasattr(item, "columns") or hasattr(item, "column_names")


def _rows_of(columns: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The rows of a batch, as a data set gives it by a slice; a mapping with an image is a row itself."""
    if any(map(_is_image, columns.values())):
        yield columns
    elif all(_is_column(column) for column in columns.values()):
        for row in zip(*columns.values(), strict=False):
            yield from _rows_of(dict(zip(columns, row, strict=True)))
    else:
        raise InvMMError(f"There is no image in a row; its columns are {', '.join(map(str, columns))}.")


def _is_column(values: Any) -> bool:
    return isinstance(values, Sequence | np.ndarray | Tensor) and not isinstance(values, str)


def _is_image(value: Any) -> bool:
    return _is_stored(value) or isinstance(value, Image.Image | bytes) or getattr(value, "ndim", 0) in (2, 3)


def _is_stored(value: Any) -> bool:
    """Whether a value is an image as :class:`datasets.Image` stores it."""
    return isinstance(value, Mapping) and bool(value) and value.keys() <= {"bytes", "path"}


def _of_row(name: str, row: Mapping[str, Any], captions: str | None) -> Source:
    caption = row.get(captions, ...) if captions else None
    if not _is_text(caption):
        raise InvMMError(f"A row has no text in {captions!r}; its columns are {', '.join(map(str, row))}.")
    return Source(name, next(filter(_is_image, row.values())), caption)


def _is_text(caption: object) -> bool:
    return caption is None or (isinstance(caption, str) and readable(caption) == caption)


def _files(path: Path) -> list[Source]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InvMMError(f"The file or folder {str(path)!r} cannot be opened: {reason(error)}.") from error
    if not stat.S_ISDIR(mode):
        if path.suffix.lower() in _PACKED:
            raise InvMMError(
                f"The pictures in {str(path)!r} are compressed together and cannot be read one by one; unpack it."
            )
        return [Source(path.as_posix(), path.absolute())]
    base = str(path.absolute())
    try:
        found = sorted(name for name in _names(str(path)) if not _SHEET.fullmatch(name))
        sources = [Source(name, f"{base}/{name}") for name in found]
    except OSError as error:
        raise InvMMError(f"The folder {error.filename!r} cannot be listed: {reason(error)}.") from error
    if not sources:
        raise InvMMError(f"The folder {str(path)!r} holds no image file (.png, .jpg, .webp, .tif, ...).")
    return sources


def _names(folder: str, above: str = "") -> Iterator[str]:
    """The paths of the images in and below a folder, from it; of links those to files and to nothing.

    A folder of an audit among them is left out: a run that resumes it would measure the samples in it.
    """
    if above and all(os.path.exists(f"{folder}/{part}") for part in ("tensors", "samples", "config.json")):  # noqa: PTH110
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _names(entry.path, f"{above}{entry.name}/")
            elif SUFFIX.fullmatch(entry.name) and _is_file(entry):
                yield f"{above}{entry.name}"


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file, or a link to one, to nothing or to itself."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113


def _captioned(source: Source, ending: str | None) -> Source:
    if ending is None:
        return source
    text = Path(beside(str(source.value), ending))
    try:
        return replace(source, caption=text_of(contents(text)))
    except (OSError, ValueError) as error:
        raise InvMMError(
            f"The caption of {source.name!r} cannot be read ({reason(error)}); each image needs a text file of its "
            f"name beside it, with the ending {ending}."
        ) from error


def _loaded(text: str, captions: str | None) -> list[Source]:
    match = _DATASET.fullmatch(text)
    if not match:
        raise InvMMError(
            f"{text!r} is not of the form dataset:NAME, dataset:NAME:SPLIT, dataset:NAME:CONFIG/SPLIT or "
            "dataset:NAME:SPLIT:COLUMN, or the same with stream: in place of dataset:."
        )
    name, (config, slash, split) = match["name"], (match["split"] or "").rpartition("/")
    split = split or "train"
    file, place = Path(name), {"path": name}
    try:
        if file.is_file():
            place = {"path": str(file.parent.absolute()), "data_files": glob.escape(str(file.absolute()))}
        dataset = datasets.load_dataset(**place, name=config or None, split=split, streaming=match["kind"] == "stream")
    except Exception as error:
        configs = _configurations(**place)
        if len(configs) > 1 and config not in configs:
            raise InvMMError(
                f"The dataset {name!r} has several configurations ({', '.join(configs)}); name one before its split, "
                f"as in dataset:{name}:{configs[0]}/train."
            ) from error
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        why = reason(cause if isinstance(cause, Exception) else error)
        raise InvMMError(f"The split {split!r} of the dataset {name!r} cannot be loaded: {why}.") from error
    return _rows(dataset, f"{name}[{config}{slash}{split}]", match["column"], captions)


def _configurations(**place: str) -> list[str]:
    try:
        return list(datasets.get_dataset_config_names(**place))
    except Exception:  # what is wrong is told by what load_dataset raised
        return []


def _rows(
    dataset: datasets.Dataset | datasets.IterableDataset,
    title: str,
    column: str | None = None,
    captions: str | None = None,
) -> list[Source]:
    if isinstance(dataset, datasets.IterableDataset):
        return list(pictures_of(dataset, title, column, captions))
    column = column or next(iter(image_columns(dataset.features)), "")
    try:
        rows = dataset.with_format(None).select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except Exception as error:
        known = ", ".join(dataset.column_names)
        raise InvMMError(f"{title!r} has no images in {column or 'any column'}; its columns are {known}.") from error
    texts: Sequence[str | None] = [None] * len(rows)
    if captions is not None:
        check_texts(title, dataset.features, captions)
        texts = dataset.with_format(None)[captions]
    row = partial(_image_of_row, rows, column)
    return [Source(f"{title}#{i}", partial(row, i), caption) for i, caption in enumerate(texts)]


def _image_of_row(rows: datasets.Dataset, column: str, index: int) -> Mapping[str, Any] | None:
    stored: Mapping[str, Any] | None = rows[index][column]
    return stored
