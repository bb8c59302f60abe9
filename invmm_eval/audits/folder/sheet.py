"""The sheet of one image: a picture of the image itself and its samples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
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
