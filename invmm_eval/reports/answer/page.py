"""The answer about one image as one HTML file, without scripts, which is one page on paper."""

from pathlib import Path

from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.html.base import parts

COARSE = 64
"""Side up to which the pixels of an image are shown as they are."""
_STYLE = (
    "main { max-width: 44rem; } .beside { margin: 1.5rem 0; } "
    ".beside > figure { width: 10rem; } .scales { margin: 0; } "
    ".scale figure { width: 6rem; } .coarse img { image-rendering: pixelated; } "
    "@media print { :root { font-size: 60%; } body { font-size: 8pt; line-height: 1.3; } "
    "main, section:not(.wide) { max-width: none; } h1 { font-size: 15pt; } "
    ".settings { columns: 2; column-gap: 2rem; } }"
)


def write_page(answer: Answer, path: Path) -> None:
    """Write the answer.

    Raises:
        OSError: The file cannot be written.
    """
    page = parts(
        "answer/page.html",
        style=_STYLE,
        headline=answer.short,
        limits=answer.findings.limits,
        settings=answer.facts,
        answer=answer,
        coarse=answer.shown and max(answer.shown.image.size) <= COARSE,
        shown=answer.shown,
    )
    path.write_text("".join(page), encoding="utf-8")
