"""A comparison as one HTML file, without scripts."""

from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.files import write_to
from invmm_eval.errors import on_disk
from invmm_eval.reports.comparison.figure import changes
from invmm_eval.reports.comparison.pairs import Comparison, Pair
from invmm_eval.reports.comparison.words import LIMITS, RAREST_COPIES, change_text, paragraphs
from invmm_eval.reports.findings import Findings
from invmm_eval.reports.html.base import parts
from invmm_eval.reports.html.embed import figures, tiled, webp
from invmm_eval.reports.shown import Shown
from invmm_eval.search.result import Result

SHOWN = 1000
"""Maximum number of images in the table, those that changed first."""
ILLUSTRATED = 200
"""Maximum number of images that are shown with their samples."""
SIDE = 64
"""Maximum side of an image, in pixels."""
_STYLE = """
.compared img { display: block; max-width: 100%; height: auto; }
.compared [scope="row"] { min-width: 9rem; }
@media screen and (max-width: 44rem) {
  .compared thead { display: none; }
  .compared tbody tr { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  .compared .number { grid-column: 1 / -1; text-align: left; }
  .compared [data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
"""


def write_page(comparison: Comparison, path: Path) -> None:
    """Write a comparison as one HTML file.

    Raises:
        InvMMError: The file cannot be written.
    """
    page = parts(
        "comparison/page.html",
        style=_STYLE,
        headline=comparison.headline,
        limits=LIMITS,
        settings={name: value for name, value in comparison.a.settings.items() if name not in comparison.differing},
        comparison=comparison,
        rarest=RAREST_COPIES,
        paragraphs=list(paragraphs(comparison)),
        figures=figures(partial(changes, comparison), 4.4, 6.4),
        rows=[_row(comparison, pair, at < ILLUSTRATED) for at, pair in enumerate(comparison.pairs[:SHOWN])],
        hidden=max(0, len(comparison.pairs) - SHOWN),
    )
    with on_disk(f"The comparison cannot be written to {path}"):
        write_to(path, methodcaller("write_text", "".join(page), encoding="utf-8"))


def _row(comparison: Comparison, pair: Pair, illustrated: bool) -> dict[str, Any]:
    return {
        "name": pair.either.name,
        "change": str(pair.change),
        "sides": [
            _side(comparison, findings, result, illustrated)
            for findings, result in ((comparison.a, pair.a), (comparison.b, pair.b))
        ],
        "nats": change_text(pair),
    }


def _side(comparison: Comparison, findings: Findings, result: Result | None, illustrated: bool) -> dict[str, Any]:
    """What the cell of one audit shows: the picture, then its samples at the best guidance scale, and the value."""
    if result is None:
        return {"text": "not searched"}
    if result.error:
        return {"text": f"failed: {result.error}"}
    side: dict[str, Any] = {"text": comparison.value.text(result), "ends": comparison.value.ends(result)}
    if illustrated and (shown := Shown.of(findings, result)):
        row = tiled([[shown.image, *(sample.image for sample in shown.samples)]], SIDE)
        side |= {"picture": webp(row), "size": row.size}
    return side
