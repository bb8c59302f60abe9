"""The answer about one image as a PDF of one page, A4."""

import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.figures import COLOURS, INK
from invmm_eval.reports.shown import Shown

PAGE = (8.27, 11.69)
"""Width and height of A4, in inches."""
MARGIN = 0.7
"""Of the page, in inches."""
_PICTURES = 1.7
"""Height of the pictures, in inches."""
_SOFT = "#625e55"
_PER_POINT = 0.0072
"""Width of a letter of the font on average, in inches per point."""
_LEADING = 1.4 / 72
"""Height of a line, in inches per point."""


@dataclass(frozen=True)
class _Block:
    """Some lines of text in one column, or, without text, the pictures; ``label`` stands in front of the first line."""

    text: str
    size: float = 9.5
    colour: str = INK
    weight: str = "normal"
    label: str = ""
    left: float = 0
    gap: float = 0.12

    def lines(self, scale: float) -> list[str]:
        """The text in lines that fit the page when all sizes are multiplied by a scale."""
        letter = _PER_POINT * self.size * scale * (1.1 if self.weight == "bold" else 1)
        return textwrap.wrap(self.text, int((PAGE[0] - 2 * MARGIN - self.left) / letter)) or [""]

    def height(self, scale: float) -> float:
        """In inches, with the gap below it."""
        text = len(self.lines(scale)) * self.size * scale * _LEADING if self.text else _PICTURES
        return text + self.gap * scale


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
    while sum(block.height(scale) for block in blocks) > PAGE[1] - 2 * MARGIN and scale > 0.3:
        scale *= 0.95
    figure = Figure(figsize=PAGE)
    top = PAGE[1] - MARGIN
    for block in blocks:
        if block.text:
            first = [(0.0, block.label), (block.left, block.lines(scale)[0])]
            others = [(block.left, line) for line in block.lines(scale)[1:]]
            for row, line in enumerate([first, *([other] for other in others)], start=1):
                for left, text in line:
                    figure.text(
                        (MARGIN + left) / PAGE[0],
                        (top - row * block.size * scale * _LEADING) / PAGE[1],
                        text,
                        size=block.size * scale,
                        color=block.colour,
                        weight=block.weight,
                        va="bottom",
                        parse_math=False,
                    )
        elif answer.shown:
            _pictures(answer.shown, COLOURS[answer.result.verdict], figure, top)
        top -= block.height(scale)
    return figure


def _blocks(answer: Answer) -> Iterator[_Block]:
    yield _Block("Memorization of one image, by InvMM (Ma et al., ICCV 2025, arXiv 2405.05846)", 8, _SOFT, gap=0.08)
    yield _Block(answer.question, 12, gap=0.08)
    yield _Block(answer.short, 16, COLOURS[answer.result.verdict], "bold", gap=0.16)
    first, *others = answer.paragraphs
    yield _Block(first)
    if answer.shown:
        yield _Block("", gap=0.2)
    for paragraph in others:
        yield _Block(paragraph)
    yield _Block("Limits", 11, weight="bold", gap=0.08)
    for limit in answer.findings.limits:
        yield _Block(limit, 8.5, label="\N{BULLET}", left=0.14, gap=0.03)
    yield _Block("What was measured and how", 11, weight="bold", gap=0.1)
    for name, value in answer.facts.items():
        yield _Block(value, 7.5, _SOFT, label=name, left=1.5, gap=0.02)


def _pictures(shown: Shown, accent: str, figure: Figure, top: float) -> None:
    """The image and what is copied of it at the left, and the samples in two rows beside them."""
    large = [(shown.image, "the image")]
    if shown.copied:
        large.append((shown.copied.over(shown.image), "copied part"))
    columns = -(-len(shown.samples) // 2)
    grid = figure.add_gridspec(
        2,
        2 * len(large) + columns,
        left=MARGIN / PAGE[0],
        right=1 - MARGIN / PAGE[0],
        top=top / PAGE[1],
        bottom=(top - _PICTURES + 0.2) / PAGE[1],
        hspace=0.35,
    )
    places = [(grid[:, 2 * at : 2 * at + 2], image, words, _SOFT) for at, (image, words) in enumerate(large)]
    for at, (image, similarity, is_copy) in enumerate(shown.samples):
        place = grid[at // columns, 2 * len(large) + at % columns]
        places.append((place, image, f"{similarity:.2f}{' copy' if is_copy else ''}", accent if is_copy else _SOFT))
    for place, image, words, colour in places:
        axes = figure.add_subplot(place, anchor="NW")
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        axes.axis("off")
        axes.text(0.5, -0.04, words, size=6.5, color=colour, ha="center", va="top", transform=axes.transAxes)
