"""What a page of one file holds inside itself: pictures and figures as data, and the hashes that allow its code."""

import base64
import hashlib
from collections.abc import Sequence
from io import BytesIO, StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from invmm_eval.search.sheet import cut
from invmm_eval.search.trace import Check

INKS = {"light": "#3a3833", "dark": "#cfcabf"}
"""Ink of a figure on a light and a dark page."""


def thumbnails(sheet: Image.Image, shape: Sequence[int], counts: Sequence[int], side: int) -> Image.Image:
    """A sheet without its gaps, each picture scaled down to ``side`` pixels at most.

    Args:
        sheet: The sheet.
        shape: Channels, height and width of a picture in it.
        counts: Samples in each of its rows.
        side: Maximum side of a picture in pixels; smaller pictures are kept.
    """
    rows = [[(row, column) for column in range(1, 1 + count)] for row, count in enumerate(counts)]
    return _tiled(sheet, shape, [[None, *cells] if row else [(0, 0), *cells] for row, cells in enumerate(rows)], side)


def best_row(sheet: Image.Image, shape: Sequence[int], check: Check, side: int) -> Image.Image:
    """The image of a sheet and, beside it, its samples at the best guidance scale, scaled like :func:`thumbnails`."""
    row, count = check.best_row, len(check.similarities[check.best_scale])
    return _tiled(sheet, shape, [[(0, 0), *((row, column) for column in range(1, 1 + count))]], side)


def _tiled(
    sheet: Image.Image, shape: Sequence[int], cells: Sequence[Sequence[tuple[int, int] | None]], side: int
) -> Image.Image:
    _, height, width = shape
    shrink = min(1.0, side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = Image.new(sheet.mode, (max(map(len, cells)) * size[0], len(cells) * size[1]), "white")
    for y, places in enumerate(cells):
        for x, place in enumerate(places):
            if place:
                cell = cut(sheet, shape, *place).resize(size, Image.Resampling.LANCZOS)
                small.paste(cell, (x * size[0], y * size[1]))
    return small


def webp(image: Image.Image) -> str:
    """A picture as data, with losses that are not seen."""
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return uri("image/webp", file.getvalue())


def png(image: Image.Image) -> str:
    """A picture as data, every pixel as it is."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return uri("image/png", file.getvalue())


def svg(figure: Figure) -> str:
    """A figure as data, the same at every call."""
    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "invmm", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return uri("image/svg+xml", file.getvalue().encode())


def uri(kind: str, data: bytes) -> str:
    """Data of a media type as an address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def allowed(text: str) -> str:
    """The hash by which a Content-Security-Policy allows a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
