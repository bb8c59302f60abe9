"""The figure of an audit: the distribution of its values.

The background is transparent and the caller chooses the ink, so that it suits light and dark pages.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from invmm_eval.reports.summary import Summary
from invmm_eval.search.sentence import one_in
from invmm_eval.search.status import MEMORIZED, Verdict

INK = "#1f1d1a"
COLOURS = {
    Verdict.MEMORIZED: "#bb4029",
    Verdict.REPLICABLE: "#8a5f0c",
    Verdict.NOT_REPLICATED: "#626c75",
    Verdict.FAILED: "#595ea8",
}
"""Of text on light pages, and of bars. Grey for images that were not replicated, which is neither good nor bad news."""


@contextmanager
def drawing(ink: str, size: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    """A figure on a transparent ground with two thin axes, all in this ink; the size is in inches."""
    names = ("axes.edgecolor", "axes.labelcolor", "legend.labelcolor", "text.color")
    style = {"axes.facecolor": "none", "axes.linewidth": 0.8, "axes.spines.right": False, "axes.spines.top": False}
    with rc_context({**dict.fromkeys(names, ink), **style, "figure.facecolor": "none", "legend.frameon": False}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(which="both", colors=ink)
        yield figure, axes


def save(figure: Figure, out: Path | BytesIO, kind: str = "png") -> None:
    """Write a figure on white, as it may be shown on a dark page."""
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(out, format=kind, dpi=160, facecolor="white")


def distribution(summary: Summary, *, ink: str = INK, width: float = 8) -> Figure:
    """The number of images by the samples per copy, or by InvMM where no share was estimated, on a logarithmic axis.

    Bars have the colours of verdicts. Images without a value are not drawn. A line marks the share from which on an
    image is memorized.
    """
    shares, drawn = _by_share(summary), values(summary)
    every = np.array([value for _, value in drawn])
    least = every[every > 0].min(initial=1e-6)
    edges = _edges(every.clip(min=least))
    by_verdict = {kind: [max(value, least) for verdict, value in drawn if verdict is kind] for kind in Verdict}
    shown = [verdict for verdict in Verdict if by_verdict[verdict]]
    with drawing(ink, (width, 3)) as (figure, axes):
        if shown:
            axes.hist(
                [by_verdict[verdict] for verdict in shown],
                edges.tolist(),
                stacked=True,
                color=[COLOURS[verdict] for verdict in shown],
                label=[str(verdict) for verdict in shown],
                edgecolor="white",
                linewidth=0.5,
            )
        axes.set(xscale="log", xlim=(edges[0], edges[-1]), ylabel="images")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if shares:
            powers = range(*(round(math.log10(edge)) for edge in (edges[0], 10 * edges[-1])))
            powers = powers[:: max(1, -(-len(powers) // round(width)))]
            axes.set_xticks([10.0**power for power in powers], map(samples_per_copy, powers))
            axes.set_xlabel("plain samples per copy")
            if edges[0] < 1 / MEMORIZED < edges[-1]:
                axes.axvline(1 / MEMORIZED, color=ink, linestyle=":", linewidth=1, label="limit of memorized")
        else:
            axes.set_xlabel("InvMM in nats per dimension (small means memorized)")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if shown:
            figure.legend(loc="outside upper right", ncols=max(2, round(width / 2)))
    return figure


def values(summary: Summary) -> list[tuple[Verdict, float]]:
    """What :func:`distribution` draws: the verdict and the value of each image of which a copy was found."""
    verdict, minus_share, invmm, *_ = summary.results.keys.T
    drawn = -minus_share > 1e-18 if _by_share(summary) else np.isfinite(invmm)
    value = -1 / minus_share[drawn] if _by_share(summary) else invmm[drawn]
    return [(list(Verdict)[int(place)], one) for place, one in zip(verdict[drawn], value.tolist(), strict=True)]


def samples_per_copy(power: int) -> str:
    """A tick at the share ``10**-power``."""
    return one_in(10.0**-power).removeprefix("1 in ") if power else "all"


def _by_share(summary: Summary) -> bool:
    return any(result.plain_share for result in summary.results.examples)


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Bins of equal width on a logarithmic axis, six per decade, over whole decades."""
    first, last = (
        (-3, 0) if not len(values) else (math.floor(np.log10(values.min())), math.ceil(np.log10(values.max())))
    )
    last = max(last, first + 1)
    return np.logspace(first, last, 6 * (last - first) + 1)
