"""Expected: the share of copies that a curve expects in plain sampling, and the share that was counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common.measures import mean, quantiles
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, at_least, plot, save

Interval = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """The share that one search expects of its image, and the counted one, each with its 95 % interval."""

    expected: float
    expects: Interval
    counted: float
    counts: Interval

    @property
    def agrees(self) -> bool:
        """Whether the intervals have a share in common."""
        return self.expects[0] <= self.counts[1] and self.counts[0] <= self.expects[1]


def pairs(case: Case, procedure: Procedure) -> list[Pair]:
    """Of each search of a steady image that expects a share."""
    found = []
    for audit in case.over_seeds(procedure):
        for row in audit.rows:
            if row.expected is not None:
                share, low, high = row.expected
                counted = float(case.truth.rates[row.image])
                found.append(Pair(share, (low, high), counted, case.truth.interval(row.image)))
    return found


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Whether the intervals agree, and by what factor the expected share is off where copies were seen."""
    findings = []
    drawn: dict[str, list[Pair]] = {}
    for procedure in procedures:
        for case in cases:
            if not (found := pairs(case, procedure)):
                continue
            drawn[f"{procedure.name}, {case.name}"] = found
            what = f"{procedure.name}, {case.name}: share of {len(found)} searches whose interval agrees with the count"
            findings.append(at_least(what, mean([pair.agrees for pair in found]), 0.9))
            off = [max(p.expected / p.counted, p.counted / p.expected) for p in found if p.counted > 0]
            usual, most = quantiles(off, 0.5, 0.9)
            what = f"{procedure.name}, {case.name}: expected over counted share, or the inverse, {len(off)} searches"
            findings.append(Finding(what, f"{usual:.1f} (median), {most:.1f} (90 %)"))
    budget = cases[0].budget
    return Claim(
        "expected",
        "The share of copies that a search expects in plain sampling is the share that is counted",
        f"Of each image and each of {budget.seeds} seeds, where the dose-response curve gives a share "
        f"(docs/lab/estimator.md), against copies among {budget.samples} plain samples. Intervals of 95 % agree where "
        "they have a share in common.",
        tuple(findings),
        picture=save(_drawn(drawn, budget.samples), pictures, "expected") if drawn else "",
        words="Expected and counted shares, with 95 % intervals; what never came back stands at the left edge.",
    )


def _drawn(found: dict[str, list[Pair]], samples: int) -> Figure:
    figure, axes = plot(height=3.8)
    edge = 0.5 / samples
    for (name, group), colour in zip(found.items(), COLOURS, strict=False):
        counted = np.array([max(pair.counted, edge) for pair in group])
        expected = np.array([max(pair.expected, edge) for pair in group])
        spans = np.abs(np.array([np.maximum(pair.expects, edge) for pair in group]).T - expected)
        axes.errorbar(counted, expected, spans, fmt="o", markersize=3, linewidth=0.6, color=colour, label=name)
    axes.plot([edge, 1], [edge, 1], "--", color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="share counted", ylabel="share expected")
    axes.legend(frameon=False)
    return figure
