"""The adaptive weight against fixed weights and straight schedules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.evidence.audits import PUBLISHED, SHORT, Audit, Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import COLOURS, Claim, Finding, Table, save
from benchmarks.evidence.measures import mean, quantiles

FIXED = (0.01, 0.1, 1.0, 10.0)


def straight(name: str, first: float, last: float) -> Procedure:
    """A weight that goes straight from ``first`` to ``last`` over the whole search and is never halved."""
    delta = (last - first) / SHORT.max_steps
    return Procedure(name, SHORT.changed(first_weight=first, delta=delta, xi=-math.inf))


ADAPTIVE = PUBLISHED
OTHERS = (
    *(straight(f"fixed {weight:g}", weight, weight) for weight in FIXED),
    straight("rising 0 to 1", 0.0, 1.0),
    straight("falling 1 to 0", 1.0, 0.0),
)


@dataclass(frozen=True)
class Outcome:
    """What a schedule came to: share of memorized images replicated, their median nats, held-out ones replicated."""

    success: float
    nats: float
    evaluations: float
    wrong: int

    def worse_in(self, other: "Outcome") -> list[str]:
        """In what this one is worse than another."""
        worse = {
            "success": self.success < other.success,
            "nats": self.nats > other.nats,
            "evaluations": self.evaluations > other.evaluations,
        }
        return [name for name, is_worse in worse.items() if is_worse]


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """Each schedule on some images of every set; nats are compared on images that both schedules replicate."""
    audits = {way.name: [case.audit(way, case.along) for case in cases] for way in (ADAPTIVE, *OTHERS)}
    ours = audits[ADAPTIVE.name]
    findings, rows = [], [(ADAPTIVE.name, *_cells(_outcome(cases, ours, ours)))]
    for way in OTHERS:
        theirs = audits[way.name]
        mine, other = _outcome(cases, ours, theirs), _outcome(cases, theirs, ours)
        worse = mine.worse_in(other)
        told = "no worse in anything" if not worse else f"worse in {' and '.join(worse)}"
        findings.append(Finding(f"the adaptive weight against {way.name}", told, "no worse in anything", not worse))
        rows.append((way.name, *_cells(_outcome(cases, theirs, theirs))))
    return Claim(
        "weights",
        "The adaptive weight is no worse than fixed weights and straight schedules",
        "Images with 256, 64, 16 and 4 copies, and held-out ones; the short recipe with another weight each, one seed. "
        "Success is the share of the images that came back in plain sampling which are replicated; nats are compared "
        "on the images that both replicate.",
        tuple(findings),
        (Table(("weight", "success", "median nats", "evaluations an image", "held-out replicated"), tuple(rows)),),
        save(_drawn({name: _outcome(cases, one, one) for name, one in audits.items()}), pictures, "weights"),
        "Success and price of each schedule; the best is at the lower right.",
    )


def _outcome(cases: Sequence[Case], audits: Sequence[Audit], beside: Sequence[Audit]) -> Outcome:
    success, nats, wrong = [], [], 0
    for case, audit, other in zip(cases, audits, beside, strict=True):
        seen = case.memorized(case.along)
        for row, rival, memorized in zip(audit.rows, other.rows, seen, strict=True):
            if memorized:
                success.append(row.replicated)
                if row.replicated and rival.replicated:
                    nats.append(row.value)
            wrong += row.replicated and row.copies == 0
    (median,) = quantiles(nats, 0.5)
    return Outcome(mean(success), median, mean([audit.evaluations for audit in audits]), wrong)


def _cells(outcome: Outcome) -> tuple[str, str, str, str]:
    return f"{outcome.success:.2f}", f"{outcome.nats:.1f}", f"{outcome.evaluations:,.0f}", str(outcome.wrong)


def _drawn(outcomes: dict[str, Outcome]) -> Figure:
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, outcome in outcomes.items():
        axes.scatter(outcome.success, outcome.nats, s=22, color=COLOURS[0 if name == ADAPTIVE.name else 2])
        axes.annotate(name, (outcome.success, outcome.nats), (4, 3), textcoords="offset points", fontsize=8)
    axes.set(yscale="log", xlabel="share of memorized images replicated", ylabel="median nats in all")
    axes.margins(x=0.25)
    return figure
