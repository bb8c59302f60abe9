"""What a page of one file holds inside itself: pictures and figures as data, and the hashes that allow its code."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

_INKS = {"(prefers-color-scheme: dark)": "#cfcabf", "": "#3a3833"}


def figures(draw: Callable[..., Figure], *widths: float) -> list[tuple[str, str]]:
    """A figure as data for each kind of screen, with the media query that chooses it; the last one has none.

    Args:
        draw: Draws it, with the arguments ``ink`` and ``width``.
        *widths: Its width in inches: on narrow screens, and on others; one for all.
    """
    screens = [("(max-width: 44rem)", widths[0]), ("", widths[-1])][-len(widths) :]
    return [
        (" and ".join(filter(None, (screen, scheme))), svg(draw(ink=ink, width=width)))
        for screen, width in screens
        for scheme, ink in _INKS.items()
    ]


def tiled(rows: Sequence[Sequence[Image.Image | None]], side: int) -> Image.Image:
    """Pictures of one size in rows without gaps, scaled down to ``side`` pixels at most; white where there is none."""
    [first, *_], *_ = rows
    assert first
    shrink = min(1.0, side / max(first.size))
    width, height = (max(1, round(length * shrink)) for length in first.size)
    tiles = Image.new(first.mode, (max(map(len, rows)) * width, len(rows) * height), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            if picture:
                tiles.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (x * width, y * height))
    return tiles


def webp(image: Image.Image) -> str:
    """A picture as data, with losses that are not seen."""
    return _picture(image, "webp", quality=80)


def png(image: Image.Image) -> str:
    """A picture as data, every pixel as it is."""
    return _picture(image, "png", optimize=True)


def _picture(image: Image.Image, kind: str, **options: int) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return _uri(f"image/{kind}", file.getvalue())


def svg(figure: Figure) -> str:
    """A figure as data, the same at every call."""
    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "invmm", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", file.getvalue().encode())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def allowed(text: str) -> str:
    """The hash by which a Content-Security-Policy allows a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
