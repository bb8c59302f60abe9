"""Training: the values of repeated images fall along it, and a model that was stopped early is not flagged."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.common.measures import mean, middle
from benchmarks.common.procedure import Procedure
from benchmarks.evidence import truth
from benchmarks.evidence.audits import SHORT
from benchmarks.evidence.case import SOME_DOSES, Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, Table, as_nats, listed, plot, save, scale
from benchmarks.evidence.models import MOMENTS
from benchmarks.evidence.truth import Truth

REPEATED = 16
"""The least number of copies of the images whose values are followed along training."""


def counted(case: Case, moment: float) -> Truth:
    """Copies of the model at that moment, by the trained model's threshold."""
    if moment == MOMENTS[-1]:
        return case.truth
    return truth.counted(
        case.root,
        case.data,
        moment=moment,
        threshold=case.truth.threshold,
        samples=case.budget.early,
        steps=SHORT.sampler_steps,
    )


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Values and counts at each moment."""
    procedure = procedures[0]
    findings, rows = [], []
    lines: dict[str, list[float]] = {}
    for case in cases:
        audits = [case.audit(procedure, case.along, moment=moment) for moment in MOMENTS]
        truths = [counted(case, moment) for moment in MOMENTS]
        middles = [middle([row.value for row in audit.rows if row.copies >= REPEATED]) for audit in audits]
        lines[case.name] = middles
        what = f"{case.name}: median nats of the images with {REPEATED} copies or more, along training"
        falls = all(a >= b for a, b in pairwise(middles)) and middles[-1] < middles[0]
        findings.append(Finding(what, ", ".join(map(as_nats, middles)), "falls, and never rises", falls))
        early = [row for row in audits[0].rows if truths[0].counts[row.image] == 0]
        flagged = sum(row.replicated for row in early)
        what = f"{case.name}: flagged after {MOMENTS[0]:.0%} of training, of the images that never came back then"
        findings.append(Finding(what, f"{flagged} of {len(early)}", "none", flagged == 0))
        for moment, audit, known in zip(MOMENTS, audits, truths, strict=True):
            for dose in (*SOME_DOSES, 0):
                group = [row for row in audit.rows if row.copies == dose]
                copies = mean([known.rates[row.image] for row in group])
                values = ", ".join(as_nats(row.value) for row in group)
                rows.append((case.name, f"{moment:.0%}", str(dose or "held out"), f"{copies:.2%}", values))
    return Claim(
        "training",
        "The values of repeated images fall along training, and a model that was stopped early is not flagged",
        f"The models as they were after {listed([f'{moment:.0%}' for moment in MOMENTS])} of training; "
        f"{procedure.name}, one seed. An image is flagged if it was replicated within the budget.",
        tuple(findings),
        (Table(("set", "trained", "copies", "plain samples that are copies", "nats in all"), tuple(rows)),),
        save(_drawn(lines), pictures, "training"),
        f"Median value of the images with {REPEATED} copies or more; it is infinite where a line has not begun.",
    )


def _drawn(lines: dict[str, list[float]]) -> Figure:
    figure, axes = plot()
    shown = [[value if value < math.inf else math.nan for value in values] for values in lines.values()]
    for name, values, colour in zip(lines, shown, COLOURS, strict=False):
        axes.plot(MOMENTS, values, "o-", color=colour, label=name)
    axes.set(xscale="log", yscale=scale(shown), xlabel="share of training", ylabel="value, nats in all")
    axes.set_xticks(MOMENTS, [f"{moment:.0%}" for moment in MOMENTS], minor=False)
    axes.legend(frameon=False)
    return figure
