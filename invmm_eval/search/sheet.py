"""The sheet of one image: a picture of the image itself and its samples, and how notebooks and figures show it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from invmm_eval.errors import InvMMError, on_disk

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

GAP = 2
"""White pixels between the pictures of a sheet."""


def strip(image: "Tensor", samples: Mapping[float, "Tensor"]) -> Image.Image:
    """Draw a sheet.

    Args:
        image: uint8 ``(C, H, W)``, C 1 or 3.
        samples: uint8 ``(n, C, H, W)`` by guidance scale.

    Returns:
        The image and its samples side by side, one row per guidance scale, :data:`GAP` pixels between them.
    """
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


def opened(path: Path) -> Image.Image | None:
    """The sheet in a file; None if there is no file.

    Raises:
        InvMMError: The file cannot be read, or is damaged.
    """
    with on_disk(f"{path} cannot be read"):
        if not path.is_file():
            return None
        content = path.read_bytes()
    try:
        with Image.open(BytesIO(content)) as sheet:
            sheet.load()
            return sheet
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvMMError(f"{path} is damaged; remove it, and the same command measures its image again.") from error


def picture_of(image: "Tensor | Path", samples: "Tensor") -> Image.Image | None:
    """The sheet of an image and some of its samples, uint8 ``(n, C, H, W)``.

    Args:
        image: uint8 ``(C, H, W)``, or the file of a sheet that begins with it; there is no picture without the file.
        samples: The samples.
    """
    import torch

    if isinstance(image, Path):
        sheet = opened(image)
        if sheet is None:
            return None
        channels, height, width = samples.shape[1:]
        first = cut(sheet, samples.shape[1:], 0, 0)
        pixels = np.array(first.convert("L" if channels == 1 else "RGB"))
        image = torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)
    return strip(image, {1.0: samples})


def html(words: str, sheet: Image.Image | None) -> str:
    """A line of words, and below it a sheet, for a notebook."""
    if sheet is None:
        return f"<p>{escape(words)}</p>"
    file = BytesIO()
    sheet.save(file, "PNG")
    data = b64encode(file.getvalue()).decode()
    style = f"width: min(100%, {max(sheet.width, 900)}px); image-rendering: pixelated; margin: 0"
    return f'<p>{escape(words)}<br><img src="data:image/png;base64,{data}" alt="image and samples" style="{style}"></p>'


def figure(words: str, sheet: Image.Image | None) -> "Figure":
    """The same as a figure of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(words, fontsize="medium")
    axes.axis("off")
    if sheet:
        axes.imshow(sheet, cmap="gray", interpolation="nearest")
    return figure
