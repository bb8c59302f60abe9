"""The HTML report, written in parts, so that thousands of pictures are never in memory at once.

The data of all rows comes first, as JSON. The details and pictures of each image follow in blocks of their own, which
the page parses when a row is shown. Its Content-Security-Policy allows its own script only and forbids to load
anything.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invmm_eval.audits.progress import Bar
from invmm_eval.reports.figures import distribution, values
from invmm_eval.reports.findings import Findings
from invmm_eval.reports.html.base import parts
from invmm_eval.reports.html.embed import figures, png, tiled, webp
from invmm_eval.reports.numbers import capital
from invmm_eval.reports.shown import Shown
from invmm_eval.reports.wording import meaning
from invmm_eval.search.fields import Field, finite, present
from invmm_eval.search.result import Result
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.response import Response

PIXELS = 64_000_000
"""Approximate number of pixels of all pictures together, at most about 50 MB, unless :data:`SIDES` requires more."""
LISTED = 10_000
"""Maximum number of images in the table, the most memorized ones."""
SHOWN = 1000
"""Maximum number of images with pictures and details."""
SIDES = (24, 128)
"""Smallest and largest side of a picture, in pixels."""

_FIXED = ("name", "verdict", "finding")
"""Fields that the page shows in its own way."""


def write_page(findings: Findings, path: Path, *, pictures: bool = True) -> None:
    """Write the whole report as one HTML file.

    Args:
        findings: The audit.
        path: Output file.
        pictures: Whether to show each image and its samples.

    Raises:
        OSError: The file cannot be written.
    """
    fields = present("table", findings.results.examples, findings.describe)
    columns = [field for field in fields if field.name not in _FIXED]
    page = parts(
        "html/page.html",
        script=(Path(__file__).parent / "page.js").read_text("utf-8"),
        headline=findings.headline,
        limits=findings.limits,
        settings=findings.facts,
        findings=findings,
        columns=columns,
        figures=len(values(findings)) > 1 and figures(partial(distribution, findings), 4.4, 8),
        verdicts={verdict: verdict.name.lower() for verdict in Verdict},
        rows=[_row(position, result, columns) for position, result in enumerate(findings.results[:LISTED])],
        shown=min(SHOWN, findings.images),
        pictures=pictures,
        details=_details(findings, pictures),
        shape=findings.image_shape,
    )
    with path.open("w", encoding="utf-8") as file:
        file.writelines(page)


def _row(position: int, result: Result, columns: Sequence[Field]) -> dict[str, Any]:
    row = {
        "id": position,
        "name": result.name,
        "verdict": str(result.verdict),
        "kind": result.verdict.name.lower(),
        "values": {field.name: finite(field.value(result)) for field in columns},
        "texts": {field.name: (field.text(result), field.ends(result)) for field in columns},
    }
    if result.check and result.check.similarities:
        row["best"] = result.check.best_row
        row["drawn"] = [len(values) for values in result.check.similarities.values()]
    return row


def _details(findings: Findings, pictures: bool) -> Iterator[dict[str, Any]]:
    shown = [*findings.results[:SHOWN]]
    cells = sum(map(_cells, shown))
    side = min(max(math.isqrt(PIXELS // max(cells, 1)), SIDES[0]), SIDES[1]) if pictures else 0
    with ThreadPoolExecutor() as threads, Bar(len(shown), doing="writing") as bar:
        yield from bar.over(threads.map(partial(_detail, findings, side), shown))


def _cells(result: Result) -> int:
    return sum(1 + len(values) for values in result.check.similarities.values()) if result.check else 0


def _detail(findings: Findings, side: int, result: Result) -> dict[str, Any]:
    """The details of one image; a side of 0 leaves out the picture."""
    record = result.record()
    shown = Shown.of(findings, result) if side else None
    part = shown and shown.copied
    kept = ("index", "digest", "similarities", "prompt", "trace")
    return {
        **{key: record[key] for key in kept},
        "picture": shown and webp(tiled(shown.tiles, side)),
        "copied": part and [png(part.veil), part.sentence],
        "meaning": meaning(result),
        "curve": result.response and _curve(result.response),
        "facts": [
            (capital(field.title), field.full(result), field.description)
            for field in present("details", [result], findings.describe)
            if field.name not in _FIXED and result.check
        ],
    }


def _curve(response: Response) -> dict[str, list[tuple[float, ...]]]:
    """The shares of copies by distance with their intervals, and the fit unless it does not hold."""
    parts = response.parts(8)
    places = np.linspace(0, max(parts[-1][0], 1.0), 50).tolist()
    return {
        "parts": [(distance, count.rate, *count.interval) for distance, count in parts],
        "fit": [] if response.falls else list(zip(places, response.chance(places), strict=True)),
    }
