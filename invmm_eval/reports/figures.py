"""Figures of an audit: how its values are distributed, and the way of one search.

They are drawn on nothing, in an ink of the caller's choice, so that they serve on light and on dark pages.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from invmm_eval.reports.findings import Findings
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.bound import TELLING_NATS

INK = "#1f1d1a"
COLOURS = {Status.REPLICATED: "#c2452d", Status.EXHAUSTED: "#7d8790", Status.FAILED: "#b08a1e"}
"""Grey where nothing was found: it is no good news, but none at all."""


def distribution(findings: Findings, *, ink: str = INK) -> Figure:
    """How many images have which InvMM, on a logarithmic axis; those not replicated, and failed, stand apart.

    A line marks the value up to which copies are promised in ordinary sampling, where all have the same dimensions.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    values = np.array([result.invmm for result in findings.results if result.status is Status.REPLICATED])
    values = values.clip(min=values[values > 0].min(initial=1e-6))
    edges = _edges(values)
    left.hist(values, edges, color=COLOURS[Status.REPLICATED], edgecolor="white", linewidth=0.5)
    left.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="InvMM, nats per dimension (small: memorized)")
    left.set_ylabel("images")
    dimensions = {result.dimensions for result in findings.results} - {None}
    if len(dimensions) == 1:
        limit = TELLING_NATS / (dimensions.pop() or 1)
        if edges[0] < limit < edges[-1]:
            left.axvline(limit, color=ink, linestyle=":", linewidth=1)
            left.annotate(
                f"{TELLING_NATS:g} nats in all ",
                (limit, 0.97),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="top",
                color=ink,
            )
    apart = {Status.EXHAUSTED: ("not\nreplicated", findings.exhausted)}
    if findings.failed:
        apart[Status.FAILED] = ("failed", findings.failed)
    names, counts = zip(*apart.values(), strict=True)
    right.bar(names, counts, width=0.6, color=[COLOURS[status] for status in apart])
    right.set_xlim(-0.8, len(apart) - 0.2)
    right.yaxis.set_visible(False)
    left.set_ylim(top=1.2 * left.get_ylim()[1])
    left.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        _plain(axes, ink)
    figure.patch.set_alpha(0)
    return figure


def trace(result: Result, *, ink: str = INK) -> Figure:
    """Loss, KL per dimension and weight at each check of one search, over its steps."""
    figure = Figure(figsize=(8, 2), layout="constrained")
    steps = [point.step for point in result.trace]
    curves = {
        "loss": [point.loss for point in result.trace],
        "KL, nats per dimension": [point.kl for point in result.trace],
        "weight λ": [point.weight for point in result.trace],
    }
    for axes, (name, values) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        axes.plot(steps, values, color=COLOURS[result.status], linewidth=1.5, marker=".", markersize=4)
        axes.set_xlabel("step")
        axes.set_title(name, loc="left", fontsize="medium", color=ink)
        axes.set_ylim(bottom=0)
        _plain(axes, ink)
    figure.patch.set_alpha(0)
    return figure


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Bins of one width on a logarithmic axis, six a decade, over whole decades."""
    first, last = (
        (-3, 0) if not len(values) else (math.floor(np.log10(values.min())), math.ceil(np.log10(values.max())))
    )
    last = max(last, first + 1)
    return np.logspace(first, last, 6 * (last - first) + 1)


def _plain(axes: Axes, ink: str) -> None:
    """Two thin lines and nothing else around the picture."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", colors=ink)
    for line in axes.spines.values():
        line.set(color=ink, linewidth=0.8)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
