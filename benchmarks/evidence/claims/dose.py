"""Dose: the value falls as copies rise, separates memorized images, and predicts the samples until a copy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.common.measures import auc, quantiles, rank_correlation
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, Table, as_nats, at_least, at_most, listed, save
from benchmarks.evidence.data import DOSES
from invmm_eval.statistics.bound import least_kl

COUNTED = 4
"""Copies among the plain samples from which on a rate is taken for the calibration."""


Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Of some images, values in nats, and plain samples until a copy."""


@dataclass(frozen=True)
class Calibration:
    """``log10(samples until a copy) = slope * log10(nats) + level``, by least squares."""

    slope: float
    level: float

    @classmethod
    def fitted(cls, sets: Sequence[Points]) -> "Calibration":
        """The line through all images; NaN where there are less than two."""
        nats, samples = (np.concatenate(part) for part in zip(*sets, strict=True))
        if len(nats) < 2:
            return cls(math.nan, math.nan)
        slope, level = np.polyfit(np.log10(nats), np.log10(samples), 1)
        return cls(float(slope), float(level))

    def samples(self, nats: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected plain samples until a copy."""
        expected: NDArray[np.float64] = 10 ** (self.slope * np.log10(nats) + self.level)
        return expected


def factors(sets: Sequence[Points]) -> NDArray[np.float64]:
    """By what factor, 1 or more, the line that is fitted on the other sets misses each image of a set."""
    missed = []
    for position, (nats, samples) in enumerate(sets):
        line = Calibration.fitted([one for place, one in enumerate(sets) if place != position])
        missed.append(10 ** np.abs(np.log10(line.samples(nats) / samples)))
    return np.concatenate(missed)


def countable(case: Case, procedure: Procedure) -> list[int]:
    """The images that came back often enough, and that have a value."""
    medians = case.medians(procedure)
    return [i for i in case.repeated if case.truth.counts[i] >= COUNTED and 0 < medians[i] < math.inf]


def points(case: Case, procedure: Procedure) -> Points:
    """What the calibration is fitted on."""
    images, medians = countable(case, procedure), case.medians(procedure)
    return np.array([medians[i] for i in images]), 1 / case.truth.rates[images]


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Rank correlation with the copies, AUC by direct count, and the calibration."""
    findings = []
    for procedure in procedures:
        for case in cases:
            medians = case.medians(procedure)
            found = [i for i in case.repeated if medians[i] < math.inf]
            correlation = rank_correlation([medians[i] for i in found], case.data.copies[found])
            title = f"{procedure.name}, {case.name}"
            what = f"{title}: Spearman of value and copies, {len(found)} replicated images"
            findings.append(at_most(what, correlation, -0.9))
            once = case.once(procedure)
            seen = case.memorized([row.image for row in once])
            area = auc([-row.value for row in once], seen)
            findings.append(at_least(f"{title}: AUC, {seen.sum()} memorized of {len(seen)} images", area, 0.99))
        findings.append(_calibration(procedure, [points(case, procedure) for case in cases]))
    names = (f"{procedure.name}: median nats of each" for procedure in procedures)
    columns = ("set", "copies", "plain samples that are copies of each", *names)
    return Claim(
        "dose",
        "The value falls as copies rise, and it separates memorized images from others",
        f"An image is memorized if it came back at least once in {cases[0].budget.samples} plain samples. Values are "
        f"medians over {cases[0].budget.seeds} seeds; the AUC is that of one seed, with single-copy and held-out "
        "images. The calibration is a line through log samples until a copy and log nats, over images that came "
        f"back {COUNTED} times or more; its error is that on a set which it was not fitted on.",
        tuple(findings),
        (Table(columns, tuple(row for case in cases for row in _doses(case, procedures))),),
        save(_drawn(cases, procedures), pictures, "dose"),
        f"From above: {listed([procedure.name for procedure in procedures])}. Left: copies and value; what was not "
        "replicated is a triangle at the top. Right: value and plain samples until a copy, with 95 % intervals, the "
        "fitted line, and the least value that the bound of docs/number.md allows.",
    )


def _calibration(procedure: Procedure, sets: Sequence[Points]) -> Finding:
    line = Calibration.fitted(sets)
    median, most = quantiles(factors(sets), 0.5, 0.9)
    count = sum(len(nats) for nats, _ in sets)
    return Finding(
        f"{procedure.name}: samples until a copy = {10**line.level:.3g} x nats^{line.slope:.2f}, by {count} images; "
        "misses those of another set by a factor of",
        f"{median:.1f} (median), {most:.1f} (90 %)",
    )


def _doses(case: Case, procedures: Sequence[Procedure]) -> list[tuple[str, ...]]:
    medians = [case.medians(procedure) for procedure in procedures]
    rows: list[tuple[str, ...]] = []
    for dose in (*DOSES, 1, 0):
        images = [i for i in case.steady if case.data.copies[i] == dose]
        counts = ", ".join(f"{case.truth.rates[i]:.2%}" for i in images)
        values = (", ".join(as_nats(known[i]) for i in images) for known in medians)
        rows.append((case.name, str(dose or "held out"), counts, *values))
    return rows


def _drawn(cases: Sequence[Case], procedures: Sequence[Procedure]) -> Figure:
    figure = Figure(figsize=(9, 3.6 * len(procedures)), layout="constrained")
    for procedure, (left, right) in zip(procedures, figure.subplots(len(procedures), 2, squeeze=False), strict=True):
        _values(left, cases, procedure)
        _calibrated(right, cases, procedure)
    return figure


def _values(axes: Axes, cases: Sequence[Case], procedure: Procedure) -> None:
    medians = [case.medians(procedure) for case in cases]
    roof = 2 * max((value for known in medians for value in known.values() if value < math.inf), default=1)
    for position, (case, known, colour) in enumerate(zip(cases, medians, COLOURS, strict=False)):
        offset = 2 ** (0.15 * (position - 1))
        for finite, marker in ((True, "o"), (False, "^")):
            images = [i for i in case.repeated if (known[i] < math.inf) == finite]
            heights = [min(known[i], roof) for i in images]
            label = case.name if finite else None
            axes.scatter(case.data.copies[images] * offset, heights, s=14, marker=marker, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="copies in the training set", ylabel="value, nats in all")
    axes.set_xticks(DOSES, [str(dose) for dose in DOSES])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _calibrated(axes: Axes, cases: Sequence[Case], procedure: Procedure) -> None:
    sets = [points(case, procedure) for case in cases]
    for case, (nats, samples), colour in zip(cases, sets, COLOURS, strict=False):
        ends = np.array([case.truth.interval(i) for i in countable(case, procedure)]).reshape(-1, 2)
        spans = [samples - 1 / ends[:, 1], 1 / ends[:, 0] - samples]
        axes.errorbar(nats, samples, spans, fmt="o", markersize=3, linewidth=0.7, color=colour, label=case.name)
    every = np.sort(np.concatenate([nats for nats, _ in sets]))
    axes.plot(every, Calibration.fitted(sets).samples(every), color="black", linewidth=1, label="fitted")
    shares = np.geomspace(0.9 * procedure.rate, 1e-4)
    axes.plot(
        [least_kl(procedure.rate, share) for share in shares],
        1 / shares,
        "--",
        color="black",
        linewidth=1,
        label="bound",
    )
    axes.set(xscale="log", yscale="log", xlabel="value, nats in all", ylabel="plain samples until a copy")
    axes.legend(frameon=False)
