"""Spread over seeds: how far an image's value, and its verdict, depend on luck; and procedures against the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.evidence.audits import Procedure, grouped
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, Table, at_least, at_most, save
from benchmarks.evidence.measures import auc, mean, quantiles, rank_correlation, spread

CONFIRMED = 0.9
"""Share of fresh samples that are copies from which on the noise that was found is taken to replicate."""


@dataclass(frozen=True)
class Steadiness:
    """What a procedure's values over the seeds came to.

    Attributes:
        images: Those audited with every seed.
        replicated: Those of them replicated with every seed.
        median: Over these, of the image's median nats.
        range: Over these, of the image's interquartile range in nats.
        relative: Over these, of that range over that median.
        agreement: Share of verdicts that are the more frequent one of their image.
        confirmed: Share of images replicated with the first seed whose fresh samples confirm it.
        correlation: Spearman of values and copies, over repeated images, averaged over the sets.
        area: AUC by direct count of one seed, averaged over the sets.
        evaluations: An image.
    """

    images: int
    replicated: int
    median: float
    range: float
    relative: float
    agreement: float
    confirmed: float
    correlation: float
    area: float
    evaluations: float


def steadiness(cases: Sequence[Case], procedure: Procedure) -> Steadiness:
    """The steady images of all sets, with every seed."""
    medians, ranges, agreements, rates, correlations, areas, evaluations = [], [], [], [], [], [], []
    images = 0
    for case in cases:
        audits = case.over_seeds(procedure)
        evaluations += [audit.evaluations for audit in audits]
        for group in grouped(audits):
            images += 1
            passed = np.mean([row.replicated for row in group])
            agreements.append(max(passed, 1 - passed))
            if passed == 1:
                values = [row.value for row in group]
                medians.append(np.median(values))
                ranges.append(spread(values))
            if group[0].fresh is not None:
                rates.append(group[0].fresh)
        known = case.medians(procedure)
        found = [i for i in case.repeated if known[i] < math.inf]
        correlations.append(rank_correlation([known[i] for i in found], case.data.copies[found]))
        once = case.once(procedure)
        areas.append(auc([-row.value for row in once], case.memorized([row.image for row in once])))
    return Steadiness(
        images=images,
        replicated=len(medians),
        median=quantiles(medians, 0.5)[0],
        range=quantiles(ranges, 0.5)[0],
        relative=quantiles(np.array(ranges) / np.array(medians), 0.5)[0],
        agreement=mean(agreements),
        confirmed=mean([rate >= CONFIRMED for rate in rates]),
        correlation=mean(correlations),
        area=mean(areas),
        evaluations=mean(evaluations),
    )


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Each procedure's steadiness; every one but the first is held against the first."""
    found = {procedure.name: steadiness(cases, procedure) for procedure in procedures}
    first = found[procedures[0].name]
    findings = [
        Finding(f"{procedures[0].name}: interquartile range over the median, of an image", f"{first.relative:.2f}"),
        Finding(
            f"{procedures[0].name}: verdicts that agree with their image's more frequent one", f"{first.agreement:.1%}"
        ),
        Finding(f"{procedures[0].name}: noise found that fresh samples confirm", f"{first.confirmed:.1%}"),
    ]
    for procedure in procedures[1:]:
        one = found[procedure.name]
        findings += [
            at_most(
                f"{procedure.name}: interquartile range, over that of {procedures[0].name}",
                one.range / first.range,
                0.2,
            ),
            at_most(f"{procedure.name}: median, over that of {procedures[0].name}", one.median / first.median, 1 / 3),
            at_least(f"{procedure.name}: noise found that fresh samples confirm", one.confirmed, first.confirmed),
            at_most(f"{procedure.name}: Spearman with the copies", one.correlation, first.correlation),
            at_least(f"{procedure.name}: AUC by direct count", one.area, first.area),
            at_most(
                f"{procedure.name}: evaluations, over those of {procedures[0].name}",
                one.evaluations / first.evaluations,
                1,
            ),
        ]
    head = ("procedure", "replicated with every seed", "median nats", "IQR", "IQR / median", "verdicts agree")
    more = ("confirmed", "Spearman", "AUC", "evaluations an image")
    rows = tuple(
        (
            name,
            f"{one.replicated} of {one.images}",
            f"{one.median:.1f}",
            f"{one.range:.1f}",
            f"{one.relative:.2f}",
            f"{one.agreement:.1%}",
            f"{one.confirmed:.1%}",
            f"{one.correlation:.3f}",
            f"{one.area:.3f}",
            f"{one.evaluations:,.0f}",
        )
        for name, one in found.items()
    )
    budget = cases[0].budget
    return Claim(
        "stability",
        "The value of an image does not depend on the seed",
        f"{first.images} images, {budget.seeds} seeds. Noise is confirmed where {CONFIRMED:.0%} or more of "
        f"{budget.fresh} fresh samples from it are copies. The first procedure is reported; others are held "
        "against it.",
        tuple(findings),
        (Table((*head, *more), rows),),
        save(_drawn(cases, procedures), pictures, "stability"),
        "Each replicated image's values over the seeds, images sorted by their median.",
    )


def _drawn(cases: Sequence[Case], procedures: Sequence[Procedure]) -> Figure:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for procedure, colour in zip(procedures, COLOURS, strict=False):
        groups = [
            sorted(row.value for row in group if row.value < math.inf)
            for case in cases
            for group in grouped(case.over_seeds(procedure))
        ]
        groups = sorted((group for group in groups if group), key=lambda group: float(np.median(group)))
        for place, group in enumerate(groups):
            axes.plot([place] * 2, [group[0], group[-1]], color=colour, linewidth=0.6)
            label = procedure.name if place == 0 else None
            axes.scatter([place] * len(group), group, s=6, color=colour, label=label)
    axes.set(yscale="log", xlabel="image", ylabel="value, nats in all")
    axes.legend(frameon=False)
    return figure
