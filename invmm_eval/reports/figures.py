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
from invmm_eval.search.result import Result, Status
from invmm_eval.search.status import MEMORIZED, Verdict

INK = "#1f1d1a"
COLOURS = {
    Verdict.MEMORIZED: "#c2452d",
    Verdict.REPLICABLE: "#c98a1b",
    Verdict.NOT_REPLICATED: "#7d8790",
    Verdict.FAILED: "#4b4f8f",
}
"""Grey for images that were not replicated, which is neither good nor bad news."""


def distribution(summary: Summary, *, ink: str = INK) -> Figure:
    """The number of images by the samples per copy, or by InvMM where no share was estimated, on a logarithmic axis.

    Bars have the colours of verdicts. Images without a value are in a separate panel. A line marks the share from which
    on an image is memorized.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    shares = any(result.plain_share for result in summary.results)
    values = {
        verdict: np.array([value for result in summary.of(verdict) if (value := _value(result, shares)) is not None])
        for verdict in Verdict
    }
    every = np.concatenate(list(values.values()))
    least = every[every > 0].min(initial=1e-6)
    edges = _edges(every.clip(min=least))
    shown = [verdict for verdict in Verdict if len(values[verdict])]
    if shown:
        left.hist(
            [values[verdict].clip(min=least) for verdict in shown],
            edges,
            stacked=True,
            color=[COLOURS[verdict] for verdict in shown],
            label=[str(verdict) for verdict in shown],
            edgecolor="white",
            linewidth=0.5,
        )
    label = "plain samples per copy" if shares else "InvMM in nats per dimension (small means memorized)"
    left.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel=label)
    left.set_ylabel("images")
    if shares and edges[0] < 1 / MEMORIZED < edges[-1]:
        left.axvline(1 / MEMORIZED, color=ink, linestyle=":", linewidth=1)
    apart = {v: count - len(values[v]) for v, count in summary.counts.items() if count > len(values[v])}
    right.bar([str(v) for v in apart], list(apart.values()), 0.6, color=[COLOURS[v] for v in apart])
    right.set_xlim(-0.8, max(1, len(apart)) - 0.2)
    right.yaxis.set_visible(False)
    right.tick_params(axis="x", labelsize="small", labelrotation=30)
    left.set_ylim(top=1.2 * left.get_ylim()[1])
    left.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        strip_axes(axes, ink)
    if len(shown) > 1:
        left.legend(frameon=False, labelcolor=ink, loc="upper right", ncols=len(shown))
    figure.patch.set_alpha(0)
    return figure


def _value(result: Result, shares: bool) -> float | None:
    if shares:
        return 1 / result.plain_share.rate if result.plain_share and result.plain_share.rate > 1e-18 else None
    return result.invmm if result.status is Status.REPLICATED else None


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Bins of equal width on a logarithmic axis, six per decade, over whole decades."""
    first, last = (
        (-3, 0) if not len(values) else (math.floor(np.log10(values.min())), math.ceil(np.log10(values.max())))
    )
    last = max(last, first + 1)
    return np.logspace(first, last, 6 * (last - first) + 1)


def strip_axes(axes: Axes, ink: str) -> None:
    """Only two thin axes, in this ink."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", colors=ink)
    for line in axes.spines.values():
        line.set(color=ink, linewidth=0.8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
