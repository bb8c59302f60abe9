"""Read one picture from a file, bytes, PIL, an array or a tensor as uint8 at the model's size."""

import stat
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from invmm_eval.errors import InvMMError

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | Tensor | Mapping[str, Any]
"""One image: a file, a file's contents, a PIL image, an array ``(H, W)`` or ``(H, W, C)``, a tensor ``(H, W)`` or
``(C, H, W)``, or a mapping with ``bytes`` or ``path`` as :class:`datasets.Image` stores it. Arrays and tensors are
uint8, uint16, bool or floats in [0, 1]; of 2 or 4 channels the last is alpha."""
Late = Callable[[], ImageLike | None]
"""What reads an image when it is looked at."""


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """An image that is listed but not read.

    Attributes:
        name: Its name in results; what files cannot hold of it is escaped.
        value: What :func:`prepare` reads: an image, or what reads it.
        caption: Its text, for models that take one.
    """

    name: str
    value: ImageLike | Late
    caption: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", readable(self.name))


def readable(text: str) -> str:
    """A path or another text as files and terminals can hold it: what is not Unicode in it is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


_WHITE = {"b1": 1, "u1": 255, "u2": 65535, "f4": 1, "f8": 1}
"""The value of white in arrays, by NumPy's kind and size."""
_PNG = b"\x89PNG\r\n\x1a\n"
_UNUSED = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
"""Chunks of a PNG that do not determine its pixels, but have limits in Pillow: texts and colour profiles."""
_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Texts of a PNG that may hold its orientation."""


def prepare(source: ImageLike | Late | None, shape: tuple[int, int, int]) -> Tensor:
    """Read one image as the model would see it.

    The first frame, turned upright by its EXIF orientation, laid on white where it is transparent, converted to the
    model's channels, scaled to cover its size and cropped around the centre. More than 8 bits are scaled down from
    the full range of 16. An image of the model's size keeps its pixels.

    Args:
        source: The image, or what reads it.
        shape: The model's channels (1 or 3), height and width.

    Returns:
        uint8 ``(C, H, W)`` on the CPU.

    Raises:
        InvMMError: It is not an image, cannot be read, or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``, which
            is found out before it is decoded.
    """
    channels, height, width = shape
    try:
        source = source() if callable(source) else source
        image = _on_white(_decoded(source)).convert("RGB" if channels == 3 else "L")
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise InvMMError(f"{_title(source)} cannot be used: {reason(error)}.") from error
    return torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def _decoded(source: ImageLike | None) -> Image.Image:
    if isinstance(source, np.ndarray):
        _check_size(*source.shape[:2])
        return _from_array(source, source.shape)
    if isinstance(source, Tensor):
        _check_size(*source.shape[-2:])
        values = (source.float() if source.is_floating_point() else source).detach().cpu()
        return _from_array((values.movedim(0, -1) if values.ndim == 3 else values).numpy(), tuple(source.shape))
    image = source if isinstance(source, Image.Image) else _opened(source)
    _check_size(*image.size)
    image = ImageOps.exif_transpose(image)
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
        stored = source.get("bytes")
        source = source.get("path") if stored is None else stored
    if isinstance(source, str | Path):
        source = contents(Path(source))
    if not isinstance(source, bytes | bytearray | memoryview):
        raise ValueError("it is not a file, bytes, a PIL image, an array, a tensor, or a mapping with bytes or a path")
    if not source:
        raise ValueError("it is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is checked by _check_size
        image = Image.open(BytesIO(_without_texts(bytes(source))))
    if image.format == "EPS":
        raise ValueError("it is PostScript, a program that would have to be run; convert it to PNG")
    return image


def contents(path: Path) -> bytes:
    """The contents of a regular file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is a pipe or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe may never end
        raise ValueError("it is a pipe or a device, not a file")
    return path.read_bytes()


def _without_texts(png: bytes) -> bytes:
    """A PNG without the chunks of :data:`_UNUSED`, which programs fill with megabytes; other contents as they are."""
    if not png.startswith(_PNG):
        return png
    kept, at = [_PNG], len(_PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] not in _UNUSED or png.startswith(_ORIENTATION, at + 8):
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def _check_size(height: int = 1, width: int = 1) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit and height * width > limit:
        raise ValueError(f"it has more than {limit:,} pixels: it has {height * width:,}; scale it down")


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
    if not np.isfinite(pixels).all():
        raise ValueError("some of its values are not finite")
    if white == 1 and not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError("its values are not all in [0, 1]; scale them")
    if white == 65535:
        pixels = np.round(np.arange(65536, dtype=np.uint16) / np.float32(white) * 255).astype(np.uint8)[pixels]
    elif white == 1:
        pixels = np.round(pixels * np.float32(255)).astype(np.uint8)
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


def reason(error: Exception) -> str:
    """What was wrong, in a line without a full stop."""
    if isinstance(error, UnidentifiedImageError):
        return "it is damaged, or of no image format that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")
