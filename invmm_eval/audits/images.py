"""Read images from files, folders, datasets and arrays as uint8 at the model's size.

:func:`find_images` lists images without opening a file, and :func:`prepare` reads one image, so that a damaged one is a
failure of that image alone.
"""

import glob
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.reference import named

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | Tensor | Mapping[str, Any]
"""One image: a file, a file's contents, a PIL image, an array ``(H, W)`` or ``(H, W, C)``, a tensor ``(H, W)`` or
``(C, H, W)``, or a mapping with ``bytes`` or ``path`` as :class:`datasets.Image` stores it. Arrays and tensors are
uint8, uint16, bool or floats in [0, 1]; of 2 or 4 channels the last is alpha."""

_SUFFIX = re.compile(r"\.(avif|bmp|gif|heic|heif|jfif|jp2|jpe|jpeg|jpg|pbm|pgm|png|pnm|ppm|tga|tif|tiff|webp)", re.I)
_DATASET = re.compile(r"dataset:(?P<name>[^:]+)(:(?P<split>([^:\[]|\[[^\]]*\])*)(:(?P<column>.+))?)?")
"""A colon in brackets, as in ``train[:100]``, belongs to the split."""
_WHITE = {"b1": 1, "u1": 255, "u2": 65535, "f4": 1, "f8": 1}
"""The value of white in arrays, by NumPy's kind and size."""


@dataclass(frozen=True, eq=False)
class Source:
    """An image that is listed but not read.

    Attributes:
        name: Its name in results.
        value: What :func:`prepare` reads.
        caption: Its text, for models that take one.
    """

    name: str
    value: ImageLike
    caption: str | None = None


def prepare(source: ImageLike, shape: tuple[int, int, int]) -> Tensor:
    """Read one image as the model would see it.

    The first frame, turned upright by its EXIF orientation, laid on white where it is transparent, converted to the
    model's channels, scaled to cover its size and cropped around the centre. More than 8 bits are scaled down from
    the full range of 16. An image of the model's size keeps its pixels.

    Args:
        source: The image.
        shape: The model's channels (1 or 3), height and width.

    Returns:
        uint8 ``(C, H, W)`` on the CPU.

    Raises:
        InvMMError: It is not an image, cannot be read, or has more pixels than Pillow opens.
    """
    channels, height, width = shape
    try:
        image = _on_white(_decoded(source)).convert("RGB" if channels == 3 else "L")
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise InvMMError(f"{_title(source)} cannot be used: {_reason(error)}.") from error
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def _decoded(source: ImageLike) -> Image.Image:
    if isinstance(source, np.ndarray):
        return _from_array(source, source.shape)
    if isinstance(source, Tensor):
        values = (source.float() if source.is_floating_point() else source).detach().cpu()
        return _from_array((values.movedim(0, -1) if values.ndim == 3 else values).numpy(), tuple(source.shape))
    image = ImageOps.exif_transpose(source if isinstance(source, Image.Image) else _opened(source))
    if 0 in image.size:
        raise ValueError("it has no pixels")
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "I" and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)
    return _from_array(pixels, image.size)


def _opened(source: object) -> Image.Image:
    if isinstance(source, Mapping):
        contents = source.get("bytes")
        source = source.get("path") if contents is None else contents
    if isinstance(source, str | Path):
        source = Path(source).read_bytes()
    if not isinstance(source, bytes | bytearray | memoryview):
        raise ValueError("it is not a file, bytes, a PIL image, an array, a tensor, or a mapping with bytes or a path")
    if not source:
        raise ValueError("it is empty")
    image = Image.open(BytesIO(source))
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program that would have to be run; convert it to PNG")
    return image


def _from_array(pixels: NDArray[Any], shape: tuple[int, ...]) -> Image.Image:
    """An 8-bit image of ``(H, W)`` or ``(H, W, C)``; ``shape`` is that of errors."""
    if pixels.size == 0 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] > 4):
        raise ValueError(
            f"its shape {shape} is not that of one image, which is (H, W) or (H, W, C) for an array and (H, W) or "
            "(C, H, W) for a tensor, with C from 1 to 4; give the images of a batch one by one"
        )
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    white = _WHITE.get(pixels.dtype.str[1:])
    if white is None:
        raise ValueError(f"its values are {pixels.dtype}; give uint8, uint16, bool, or floats in [0, 1]")
    if white == 1 and not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError("its values are not all in [0, 1]; scale them")
    if white != 255:
        pixels = np.round(pixels / np.float32(white) * 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)


def _title(source: object) -> str:
    if isinstance(source, Image.Image):
        source = getattr(source, "filename", None)
    elif isinstance(source, Mapping):
        source = source.get("path")
    return f"The image {str(source)!r}" if isinstance(source, str | Path) and source else "The image"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged, or of no image format that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than Pillow opens; scale it down"
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).splitlines()[0].rstrip(".")


def find_images(
    *where: ImageLike | Sequence[ImageLike] | datasets.Dataset, captions: str | Sequence[str | None] | None = None
) -> list[Source]:
    """List images without reading them.

    Args:
        *where: Any of these, or sequences of them.

            - A folder: all image files in and below it, sorted, named by their path in it; hidden ones are left out.
            - A file.
            - The text ``reference`` or ``reference:held-out``: pictures that the reference model was trained on, or
              that it never saw.
            - The text ``dataset:NAME[:SPLIT[:COLUMN]]``: a dataset of the Hub, a local folder or a local file that
              :func:`datasets.load_dataset` reads; by default the split "train" and the first column of images.
            - A :class:`datasets.Dataset`: its first column of images.
            - A :class:`Source`.
            - Any other image, named by its position.
        captions: Where the text of each image is: a column of the dataset, or the suffix of text files beside the image
            files that share their names, such as ``.txt``; or the texts themselves, one per image. None gives no
            captions.

    Raises:
        InvMMError: There is no such file, folder, dataset, column or caption, or there is no image in it.
    """
    sources: list[Source] = []
    place = captions if isinstance(captions, str) else None
    for item in _items(where):
        if isinstance(item, str) and item.startswith("dataset:"):
            sources += _loaded(item, place)
        elif isinstance(item, str) and (pictures := named(item)):
            sources += [Source(picture.name, picture.image) for picture in pictures]
        elif isinstance(item, str | Path):
            sources += [_captioned(source, place) for source in _files(Path(item))]
        elif isinstance(item, datasets.Dataset):
            sources += _rows(item, "dataset", captions=place)
        elif isinstance(item, Source):
            sources.append(item)
        else:
            sources.append(Source(str(len(sources)), item))
    if not sources:
        raise InvMMError("There is no image to audit; give a folder, files or a dataset with images.")
    return sources if captions is None or isinstance(captions, str) else with_captions(sources, captions)


def with_captions(sources: Sequence[Source], captions: Sequence[str | None]) -> list[Source]:
    """The same images, each with its text.

    Raises:
        InvMMError: The number of texts is not that of images.
    """
    if len(captions) != len(sources):
        raise InvMMError(f"There are {len(captions)} captions for {len(sources)} images; give one for each.")
    return [replace(source, caption=text) for source, text in zip(sources, captions, strict=True)]


def _items(where: Iterable[Any]) -> Iterator[Any]:
    for item in where:
        if isinstance(item, Sequence) and not isinstance(item, str | bytes | bytearray | memoryview):
            yield from item
        else:
            yield item


def _files(path: Path) -> list[Source]:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InvMMError(f"The file or folder {str(path)!r} cannot be opened: {_reason(error)}.") from error
    if not stat.S_ISDIR(mode):
        return [Source(_text(path), path)]
    files = [file for file in path.rglob("*") if _SUFFIX.fullmatch(file.suffix) and not file.is_dir()]
    names = sorted(file.relative_to(path).as_posix() for file in files)
    sources = [Source(_text(Path(name)), path / name) for name in names if "/." not in f"/{name}"]
    if not sources:
        raise InvMMError(f"The folder {str(path)!r} holds no image file (.png, .jpg, .webp, .tif, ...).")
    return sources


def _text(path: Path) -> str:
    """A path as files and terminals can hold it: what is not Unicode in it is escaped."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _captioned(source: Source, ending: str | None) -> Source:
    if ending is None:
        return source
    if not ending.startswith("."):
        raise InvMMError(
            f"Image files have no column {ending!r}; name the ending of the text files beside them, such as .txt, or "
            "give a dataset."
        )
    assert isinstance(source.value, Path)
    try:
        return replace(source, caption=source.value.with_suffix(ending).read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise InvMMError(
            f"The caption of {source.name!r} cannot be read ({_reason(error)}); each image needs a text file of its "
            f"name beside it, with the ending {ending}."
        ) from error


def _loaded(text: str, captions: str | None) -> list[Source]:
    match = _DATASET.fullmatch(text)
    if not match:
        raise InvMMError(f"{text!r} does not read dataset:NAME, dataset:NAME:SPLIT or dataset:NAME:SPLIT:COLUMN.")
    name, split = match["name"], match["split"] or "train"
    file, place = Path(name), {"path": name}
    try:
        if file.is_file():
            place = {"path": str(file.parent.absolute()), "data_files": glob.escape(str(file.absolute()))}
        dataset = datasets.load_dataset(**place, split=split)
    except Exception as error:
        raise InvMMError(f"The split {split!r} of the dataset {name!r} cannot be loaded: {_reason(error)}.") from error
    return _rows(dataset, f"{name}[{split}]", match["column"], captions)


def _rows(
    dataset: datasets.Dataset, title: str, column: str | None = None, captions: str | None = None
) -> list[Source]:
    kinds = dataset.features.items()
    column = column or next((name for name, kind in kinds if isinstance(kind, datasets.Image)), "")
    try:
        rows = dataset.with_format(None).select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except Exception as error:
        known = ", ".join(dataset.column_names)
        raise InvMMError(f"{title!r} has no images in {column or 'any column'}; its columns are {known}.") from error
    texts: Sequence[str | None] = [None] * len(rows)
    if captions is not None:
        if dataset.features.get(captions) != datasets.Value("string"):
            known = ", ".join(name for name, kind in kinds if kind == datasets.Value("string")) or "none"
            raise InvMMError(f"{title!r} has no column of texts {captions!r}; its columns of texts are: {known}.")
        texts = dataset.with_format(None)[captions]
    return [Source(f"{title}#{i}", _Row(rows, column, i), caption) for i, caption in enumerate(texts)]


@dataclass(frozen=True, eq=False)
class _Row(Mapping[str, Any]):
    """A row's image as its dataset stores it, read when it is looked at."""

    rows: datasets.Dataset
    column: str
    index: int

    def __getitem__(self, key: str) -> Any:
        return (self.rows[self.index][self.column] or {})[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2
