"""The page of a report, written as it is made, so that thousands of pictures are never held at once.

What a row needs comes first, as JSON, and the page works from there on. What an opened row shows, and all pictures,
follow in blocks of their own, which are read when they are looked at. The page may run no script but its own and load
nothing from anywhere: its Content-Security-Policy says so.
"""

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib import rc_context
from PIL import Image

from invmm_eval.audits.folder.sheet import cut
from invmm_eval.reports.figures import distribution
from invmm_eval.reports.findings import LIMITS, Findings, finite, meaning
from invmm_eval.search.fields import STATUS_WORDS, Field, fields, present
from invmm_eval.search.result import Result

PIXELS = 64_000_000
"""About so many pixels are kept of all pictures together: at most some 50 MB, unless :data:`SIDES` asks for more."""
SIDES = (24, 128)
"""The least and the largest side of a picture that is kept."""
INKS = {"light": "#3a3833", "dark": "#cfcabf"}
"""What the figure is drawn with on either ground."""

_FIXED = ("name", "status")
"""Fields that the page shows in its own way."""
_NO_COLUMN = (*_FIXED, "seconds")
"""Fields without a column: opened rows show the last."""


def write_page(findings: Findings, path: Path, *, pictures: bool = True) -> None:
    """Write the whole report as one HTML file.

    Args:
        findings: The audit.
        path: Where to write.
        pictures: Whether each image and its samples are shown.

    Raises:
        OSError: It cannot be written.
    """
    environment = Environment(loader=PackageLoader("invmm_eval.reports.html", ""), autoescape=True, trim_blocks=True)
    style, script = (Markup((Path(__file__).parent / f"page.{kind}").read_text("utf-8")) for kind in ("css", "js"))
    columns = [field for field in present("html", findings.results) if field.name not in _NO_COLUMN]
    page = environment.get_template("page.html").generate(
        findings=findings,
        columns=columns,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
        figures={ground: _figure(findings, ink) for ground, ink in INKS.items()},
        limits=LIMITS,
        words={str(status): word for status, word in STATUS_WORDS.items()},
        rows=[_row(position, result, columns) for position, result in enumerate(findings.results)],
        details=_details(findings, pictures),
        shape=findings.config["backbone"]["image_shape"],
    )
    with path.open("w", encoding="utf-8") as file:
        file.writelines(page)


def _row(position: int, result: Result, columns: Sequence[Field]) -> dict[str, Any]:
    """What the table shows of one image."""
    row = {
        "id": position,
        "name": result.name,
        "status": str(result.status),
        "values": {field.name: finite(field.value(result)) for field in columns},
        "texts": {field.name: field.text(result) for field in columns},
    }
    if result.check:
        scales = list(result.check.similarities)
        row["best"] = scales.index(result.check.best_scale)
        row["drawn"] = [len(values) for values in result.check.similarities.values()]
    return row


def _details(findings: Findings, pictures: bool) -> Iterator[dict[str, Any]]:
    """What the page shows of one image that is opened, image after image."""
    cells = sum(map(_cells, findings.results))
    side = min(max(math.isqrt(PIXELS // max(cells, 1)), SIDES[0]), SIDES[1]) if pictures else 0
    with ThreadPoolExecutor() as threads:
        yield from threads.map(partial(_detail, findings, side), findings.results)


def _cells(result: Result) -> int:
    return sum(1 + len(values) for values in result.check.similarities.values()) if result.check else 0


def _detail(findings: Findings, side: int, result: Result) -> dict[str, Any]:
    """Of one image; a side of no pixels is no picture."""
    record = result.record()
    path = findings.picture(result)
    counts = [len(values) for values in record["similarities"].values()]
    picture = None
    if side and counts and path.is_file():
        picture = _webp(thumbnails(path, findings.config["backbone"]["image_shape"], counts, side))
    kept = ("index", "digest", "similarities", "prompt", "trace")
    return {
        **{key: record[key] for key in kept},
        "picture": picture,
        "meaning": meaning(result),
        "facts": [
            (field.title, field.full(result), field.description)
            for field in fields("html", [result])
            if field.name not in _FIXED and field.value(result) is not None
        ],
    }


def thumbnails(path: Path, shape: Sequence[int], counts: Sequence[int], side: int) -> Image.Image:
    """A sheet without its gaps, each picture scaled down to ``side`` pixels at most.

    Args:
        path: The sheet's file.
        shape: Channels, height and width of a picture in it.
        counts: Samples in each of its rows.
        side: Of a picture; one that is smaller keeps its pixels.
    """
    _, height, width = shape
    shrink = min(1.0, side / max(height, width))
    small_width, small_height = max(1, round(width * shrink)), max(1, round(height * shrink))
    with Image.open(path) as sheet:
        small = Image.new(sheet.mode, ((1 + max(counts)) * small_width, len(counts) * small_height), "white")
        for row, count in enumerate(counts):
            for column in range(0 if row == 0 else 1, 1 + count):
                cell = cut(sheet, shape, row, column).resize((small_width, small_height), Image.Resampling.LANCZOS)
                small.paste(cell, (column * small_width, row * small_height))
    return small


def _webp(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return _uri("image/webp", file.getvalue())


def _figure(findings: Findings, ink: str) -> str:
    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "invmm", "font.family": "sans-serif"}):
        distribution(findings, ink=ink).savefig(file, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", file.getvalue().encode())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _digest(text: str) -> str:
    """As a Content-Security-Policy names a script or style that is allowed."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
