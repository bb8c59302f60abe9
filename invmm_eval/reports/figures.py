"""The figure of an audit: the distribution of its values.

The background is transparent and the caller chooses the ink, so that it suits light and dark pages.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from invmm_eval.reports.summary import Summary
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import TELLING_NATS

INK = "#1f1d1a"
COLOURS = {Status.REPLICATED: "#c2452d", Status.EXHAUSTED: "#7d8790", Status.FAILED: "#b08a1e"}
"""Grey for images that were not replicated, which is neither good nor bad news."""


def distribution(summary: Summary, *, ink: str = INK) -> Figure:
    """The number of images by InvMM, on a logarithmic axis; images not replicated and failed ones in a separate panel.

    A line marks the value up to which copies are predicted in ordinary sampling, if all images have the same number of
    dimensions.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    values = np.array([result.invmm for result in summary.results if result.status is Status.REPLICATED])
    values = values.clip(min=values[values > 0].min(initial=1e-6))
    edges = _edges(values)
    left.hist(values, edges, color=COLOURS[Status.REPLICATED], edgecolor="white", linewidth=0.5)
    left.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="InvMM in nats per dimension (small means memorized)")
    left.set_ylabel("images")
    dimensions = {result.dimensions for result in summary.results} - {None}
    if len(dimensions) == 1:
        limit = TELLING_NATS / (dimensions.pop() or 1)
        if edges[0] < limit < edges[-1]:
            left.axvline(limit, color=ink, linestyle=":", linewidth=1)
            left.annotate(
                f"{TELLING_NATS:g} nats in total ",
                (limit, 0.97),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="top",
                color=ink,
            )
    apart = {Status.EXHAUSTED: ("not\nreplicated", summary.exhausted)}
    if summary.failed:
        apart[Status.FAILED] = ("failed", summary.failed)
    names, counts = zip(*apart.values(), strict=True)
    right.bar(names, counts, width=0.6, color=[COLOURS[status] for status in apart])
    right.set_xlim(-0.8, len(apart) - 0.2)
    right.yaxis.set_visible(False)
    left.set_ylim(top=1.2 * left.get_ylim()[1])
    left.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        _strip_axes(axes, ink)
    figure.patch.set_alpha(0)
    return figure


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Bins of equal width on a logarithmic axis, six per decade, over whole decades."""
    first, last = (
        (-3, 0) if not len(values) else (math.floor(np.log10(values.min())), math.ceil(np.log10(values.max())))
    )
    last = max(last, first + 1)
    return np.logspace(first, last, 6 * (last - first) + 1)


def _strip_axes(axes: Axes, ink: str) -> None:
    """Only two thin axes, in this ink."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", colors=ink)
    for line in axes.spines.values():
        line.set(color=ink, linewidth=0.8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
