"""The figure of a comparison: each image at its distance from plain noise in A and in B."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from invmm_eval.reports.comparison.pairs import LIMIT, Change, Comparison, Pair
from invmm_eval.reports.figures import COLOURS as OF_VERDICTS
from invmm_eval.reports.figures import INK, drawing, samples_per_copy
from invmm_eval.search.fields import number
from invmm_eval.search.status import MEMORIZED, RAREST, Verdict

COLOURS = {
    Change.BECAME: OF_VERDICTS[Verdict.MEMORIZED],
    Change.FREED: "#2f7d57",
    Change.BOTH: OF_VERDICTS[Verdict.REPLICABLE],
    Change.NEITHER: OF_VERDICTS[Verdict.NOT_REPLICATED],
}
IN = {Change.BECAME: "B alone", Change.FREED: "A alone", Change.BOTH: "both", Change.NEITHER: "neither"}
MARKS = {Change.BECAME: "^", Change.FREED: "v", Change.BOTH: "o", Change.NEITHER: "."}


def changes(comparison: Comparison, *, ink: str = INK, width: float = 6.4) -> Figure:
    """Each image that has a distance in both audits; the farthest are at the ends of the axes.

    Below the diagonal B gives copies more often than A. Bars are the intervals of 95 % where shares are estimated; a
    dotted line marks the share from which on an image is memorized.
    """
    shares = comparison.word == "memorized"
    pairs = comparison.valued
    known = [value for pair in pairs for value in pair.nats if value is not None and math.isfinite(value)]
    far = -math.log(RAREST) if shares else max(known, default=1.0)
    none = far if shares else 1.12 * far
    with drawing(ink, (width, 5)) as (figure, axes):
        for change in COLOURS:
            chosen = [pair for pair in pairs if pair.change is change]
            if not chosen:
                continue
            places = [[min(value, none) for value in pair.nats if value is not None] for pair in chosen]
            x, y = zip(*places, strict=True)
            if shares and change is not Change.NEITHER:
                bars = [_bars(chosen, side, positions, none) for side, positions in enumerate((x, y))]
                axes.errorbar(
                    x, y, xerr=bars[0], yerr=bars[1], fmt="none", ecolor=COLOURS[change], elinewidth=0.8, alpha=0.5
                )
            label = f"{IN[change]} ({len(chosen):,})"
            axes.scatter(x, y, s=42, marker=MARKS[change], color=COLOURS[change], label=label, zorder=3)
        axes.plot([0, none], [0, none], color=ink, linewidth=0.8)
        if shares:
            for line in (axes.axvline, axes.axhline):
                line(-math.log(MEMORIZED), color=ink, linestyle=":", linewidth=1)
        what = "plain samples per copy" if shares else "nats in total"
        axes.set(xlim=(0, 1.03 * none), ylim=(0, 1.03 * none), xlabel=f"A: {what}", ylabel=f"B: {what}")
        _ticks(axes, far, none, shares=shares, width=width)
        title = f"{comparison.word} in"
        figure.legend(title=title, loc="outside upper center", ncols=4 if width > 5 else 2, fontsize="small")
    return figure


def _bars(pairs: Sequence[Pair], side: int, places: Sequence[float], none: float) -> list[list[float]]:
    """How far each interval extends below and above its place."""
    assert LIMIT.interval
    ends = [LIMIT.interval(result) if (result := (pair.a, pair.b)[side]) else None for pair in pairs]
    known = [(place, *(end or (place, place))) for place, end in zip(places, ends, strict=True)]
    return [
        [max(0.0, place - low) for place, low, _ in known],
        [max(0.0, min(high, none) - place) for place, _, high in known],
    ]


def _ticks(axes: Axes, far: float, none: float, *, shares: bool, width: float) -> None:
    most = 5 if width > 5 else 3
    if shares:
        decades = int(far / math.log(10))
        powers = range(0, decades + 1, max(1, -(-decades // most)))
        places = [power * math.log(10) for power in powers]
        labels = list(map(samples_per_copy, powers))
    else:
        places = [far * part / (most - 1) for part in range(most)]
        labels = [number(place) for place in places]
    apart = [place for place in places if none - place > none / width]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([*apart, none]))
        axis.set_ticklabels([*labels[: len(apart)], "rarer" if shares else "no copy"])
