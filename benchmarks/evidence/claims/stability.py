"""Spread over seeds: how far an image's value, and its verdict, depend on luck; and procedures against the first."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common.measures import auc, mean, middle, rank_correlation, spread
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.audits import grouped
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, Table, at_least, at_most, plot, save, scale

CONFIRMED = 0.9
"""Share of fresh samples that are copies from which on the noise that was found is taken to replicate."""


@dataclass(frozen=True)
class Steadiness:
    """The spread of a procedure's values over the seeds."""

    images: int  # those audited with every seed
    values: dict[tuple[str, int], list[float]]  # over the seeds, of each image replicated with every seed
    agreement: float  # share of verdicts that are the more frequent one of their image
    confirmed: float  # share of images replicated with the first seed whose fresh samples confirm it
    correlation: float  # Spearman of median values and copies of repeated images, averaged over the sets
    area: float  # AUC by direct count of one seed, averaged over the sets
    evaluations: float  # per image

    def median(self, images: Iterable[tuple[str, int]]) -> float:
        """Over images, the median of their median nats."""
        return middle([middle(self.values[image]) for image in images])

    def range(self, images: Iterable[tuple[str, int]]) -> float:
        """Over images, the median of their interquartile ranges in nats."""
        return middle([spread(self.values[image]) for image in images])

    def relative(self) -> float:
        """Over all, the median of an image's interquartile range over its median."""
        return middle([spread(values) / middle(values) for values in self.values.values()])


def steadiness(cases: Sequence[Case], procedure: Procedure) -> Steadiness:
    """The steady images of all sets, with every seed."""
    values: dict[tuple[str, int], list[float]] = {}
    agreements, rates, correlations, areas, evaluations = [], [], [], [], []
    for case in cases:
        audits = case.over_seeds(procedure)
        evaluations += [audit.evaluations for audit in audits]
        for group in grouped(audits):
            passed = mean([row.replicated for row in group])
            agreements.append(max(passed, 1 - passed))
            if passed == 1:
                values[case.name, group[0].image] = [row.value for row in group]
            if group[0].fresh is not None:
                rates.append(group[0].fresh)
        medians = case.medians(procedure)
        found = [i for i in case.repeated if medians[i] < math.inf]
        correlations.append(rank_correlation([medians[i] for i in found], case.data.copies[found]))
        once = case.once(procedure)
        areas.append(auc([-row.value for row in once], case.memorized([row.image for row in once])))
    return Steadiness(
        images=len(agreements),
        values=values,
        agreement=mean(agreements),
        confirmed=mean([rate >= CONFIRMED for rate in rates]),
        correlation=mean(correlations),
        area=mean(areas),
        evaluations=mean(evaluations),
    )


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Each procedure's steadiness; every one but the first is held against the first."""
    found = {procedure.name: steadiness(cases, procedure) for procedure in procedures}
    (name, first), *others = found.items()
    findings = [
        Finding(f"{name}: interquartile range over the median, of an image", f"{first.relative():.2f}"),
        Finding(f"{name}: verdicts that agree with their image's more frequent one", f"{first.agreement:.1%}"),
        Finding(f"{name}: noise found that fresh samples confirm", f"{first.confirmed:.1%}"),
    ]
    for other, one in others:
        both = [image for image in first.values if image in one.values]
        ranges, medians = one.range(both) / first.range(both), one.median(both) / first.median(both)
        over = f"over that of {name}, {len(both)} images"
        findings += [
            at_most(f"{other}: interquartile range, {over}", ranges, 0.2),
            at_most(f"{other}: median, {over}", medians, 1 / 3),
            at_least(f"{other}: share of noise found that fresh samples confirm", one.confirmed, first.confirmed),
            at_most(f"{other}: Spearman with the copies", one.correlation, first.correlation),
            at_least(f"{other}: AUC by direct count", one.area, first.area),
            at_most(f"{other}: evaluations, over those of {name}", one.evaluations / first.evaluations, 1),
        ]
    budget = cases[0].budget
    return Claim(
        "stability",
        "The value of an image does not depend on the seed",
        f"{first.images} images, {budget.seeds} seeds; ranges and medians are of images replicated with every seed. "
        f"Noise is confirmed where {CONFIRMED:.0%} or more of {budget.fresh} fresh samples from it are copies. The "
        "first procedure is reported; others are held against it. ED50 is the value at half of the rate that a passed "
        "check stands for; at nine in ten docs/lab/estimator.md compares them, and the noise confirmed is of 95 % by "
        "the curve.",
        tuple(findings),
        (Table(COLUMNS, tuple((name, *_cells(one)) for name, one in found.items())),),
        save(_drawn(cases, procedures), pictures, "stability"),
        "Each replicated image's values over the seeds, images sorted by their median.",
    )


COLUMNS = (
    *("procedure", "replicated with every seed", "median nats", "IQR", "IQR / median", "verdicts agree"),
    *("confirmed", "Spearman", "AUC", "evaluations an image"),
)


def _cells(one: Steadiness) -> tuple[str, ...]:
    return (
        f"{len(one.values)} of {one.images}",
        f"{one.median(one.values):.1f}",
        f"{one.range(one.values):.1f}",
        f"{one.relative():.2f}",
        f"{one.agreement:.1%}",
        f"{one.confirmed:.1%}",
        f"{one.correlation:.3f}",
        f"{one.area:.3f}",
        f"{one.evaluations:,.0f}",
    )


def _drawn(cases: Sequence[Case], procedures: Sequence[Procedure]) -> Figure:
    figure, axes = plot(width=8)
    heights: list[float] = []
    for procedure, colour in zip(procedures, COLOURS, strict=False):
        groups = [
            sorted(row.value for row in group if row.value < math.inf)
            for case in cases
            for group in grouped(case.over_seeds(procedure))
        ]
        groups = sorted((group for group in groups if group), key=lambda group: float(np.median(group)))
        heights += [value for group in groups for value in group]
        for place, group in enumerate(groups):
            axes.plot([place] * 2, [group[0], group[-1]], color=colour, linewidth=0.6)
            label = procedure.name if place == 0 else None
            axes.scatter([place] * len(group), group, s=6, color=colour, label=label)
    axes.set(yscale=scale(heights), xlabel="image", ylabel="value, nats in all")
    axes.legend(frameon=False)
    return figure
