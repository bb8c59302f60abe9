"""The answer about one picture as one HTML file, without scripts."""

from pathlib import Path

from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.html.base import parts
from invmm_eval.reports.html.embed import png

COARSE = 64
"""Side up to which the pixels of a picture are shown as they are."""
_STYLE = (
    "main { max-width: 44rem; } .beside { margin: 1.5rem 0; } "
    ".beside > figure { width: 10rem; } .scales { margin: 0; } "
    ".scale figure { width: 6rem; } .coarse img { image-rendering: pixelated; } "
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
        limits=answer.limits,
        settings=answer.facts,
        answer=answer,
        coarse=answer.picture and max(answer.picture.size) <= COARSE,
        picture=answer.picture and png(answer.picture),
        copied=answer.picture and answer.copied and png(answer.copied.over(answer.picture)),
        samples=[
            {"image": png(image), "similarity": f"{similarity:.2f}", "is_copy": is_copy}
            for image, similarity, is_copy in answer.samples
        ],
    )
    path.write_text("".join(page), encoding="utf-8")
