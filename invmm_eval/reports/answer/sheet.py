"""The answer about one picture as a PDF of one page, A4."""

import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL.Image import Image

from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.figures import COLOURS, INK

PAGE = (8.27, 11.69)
"""Width and height of A4, in inches."""
MARGIN = 0.7
"""Of the page, in inches."""
_ROW = 0.85
"""Height of the row of samples, in inches."""
_SOFT = "#625e55"
_PER_POINT = 0.0072
"""Width of a letter of the font on average, in inches per point."""
_LEADING = 1.4 / 72
"""Height of a line, in inches per point."""


@dataclass(frozen=True)
class _Block:
    """Some lines of text, or, without text, the pictures."""

    text: str
    size: float = 9
    colour: str = INK
    weight: str = "normal"
    indent: str = ""
    gap: float = 0.08

    def lines(self, scale: float) -> list[str]:
        """The text in lines that fit the page when all sizes are multiplied by a scale."""
        width = int((PAGE[0] - 2 * MARGIN) / (_PER_POINT * self.size * scale * (1.1 if self.weight == "bold" else 1)))
        return textwrap.wrap(self.text, width, subsequent_indent=self.indent) or [""]


def write_sheet(answer: Answer, path: Path) -> None:
    """Write the answer.

    Raises:
        OSError: The file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # in names; the page has them all
        sheet(answer).savefig(path, format="pdf")


def sheet(answer: Answer) -> Figure:
    """The page. Where the text is long, all of it is smaller."""
    blocks = list(_blocks(answer))
    scale = 1.0
    while _height(blocks, scale) > PAGE[1] - 2 * MARGIN and scale > 0.3:
        scale *= 0.95
    figure = Figure(figsize=PAGE)
    y = PAGE[1] - MARGIN
    for block in blocks:
        if block.text:
            for line in block.lines(scale):
                y -= block.size * scale * _LEADING
                figure.text(
                    MARGIN / PAGE[0],
                    y / PAGE[1],
                    line,
                    size=block.size * scale,
                    color=block.colour,
                    weight=block.weight,
                    va="bottom",
                    parse_math=False,
                )
        else:
            y -= 2 * _ROW
            _pictures(answer, figure, y)
        y -= block.gap * scale
    return figure


def _height(blocks: list[_Block], scale: float) -> float:
    return sum(
        (len(block.lines(scale)) * block.size * scale * _LEADING if block.text else 2 * _ROW) + block.gap * scale
        for block in blocks
    )


def _blocks(answer: Answer) -> Iterator[_Block]:
    yield _Block("Memorization of one picture, by InvMM (Ma et al., ICCV 2025, arXiv 2405.05846)", 8, _SOFT)
    yield _Block(answer.question, 12)
    yield _Block(answer.short, 16, COLOURS[answer.result.verdict], "bold", gap=0.16)
    first, *others = answer.paragraphs
    yield _Block(first, 9.5, gap=0.12)
    if answer.picture:
        yield _Block("", gap=0.2)
    for paragraph in others:
        yield _Block(paragraph, 9.5, gap=0.12)
    yield _Block("Limits", 11, weight="bold")
    for limit in answer.limits:
        yield _Block(f"- {limit}", 8.5, indent="  ", gap=0.03)
    yield _Block("What was measured and how", 11, weight="bold", gap=0.1)
    for name, value in answer.facts.items():
        yield _Block(f"{name}: {value}", 7.5, _SOFT, indent="    ", gap=0.02)


def _pictures(answer: Answer, figure: Figure, bottom: float) -> None:
    """The picture and its copied part at the left, and the samples in two rows beside them."""
    assert answer.picture
    tall = answer.picture.height / answer.picture.width
    side = min(2 * _ROW - 0.25, (2 * _ROW - 0.25) / tall)
    left = MARGIN

    def show(image: Image, words: str, colour: str, place: tuple[float, float], width: float) -> None:
        x, y = place
        axes = figure.add_axes((x / PAGE[0], y / PAGE[1], width / PAGE[0], width * tall / PAGE[1]))
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        axes.axis("off")
        middle, below = (x + width / 2) / PAGE[0], (y - 0.03) / PAGE[1]
        figure.text(middle, below, words, size=6.5, color=colour, ha="center", va="top")

    show(answer.picture, "the picture", _SOFT, (left, bottom + 0.15), side)
    left += side + 0.15
    if answer.copied:
        show(answer.copied.over(answer.picture), "where samples agree", _SOFT, (left, bottom + 0.15), side)
        left += side + 0.15
    columns = -(-len(answer.samples) // 2)
    step = min(_ROW, (PAGE[0] - MARGIN - left) / max(columns, 1))
    small = min(step - 0.1, (_ROW - 0.25) / max(tall, 1))
    for at, (image, similarity, is_copy) in enumerate(answer.samples):
        place = left + step * (at % columns), bottom + 0.15 + _ROW * (1 - at // columns)
        colour = COLOURS[answer.result.verdict] if is_copy else _SOFT
        show(image, f"{similarity:.2f}{' copy' if is_copy else ''}", colour, place, small)
