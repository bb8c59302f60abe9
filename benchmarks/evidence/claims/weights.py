"""The adaptive weight against fixed weights and straight schedules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.common.measures import mean, middle
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.audits import Audit
from benchmarks.evidence.case import SOME_DOSES, Case
from benchmarks.evidence.claim import BLUE, RED, Claim, Finding, Table, listed, plot, save, scale
from invmm_eval.recipe import Recipe

FIXED = (0.01, 0.1, 1.0, 10.0)


def schedules(recipe: Recipe) -> tuple[Procedure, ...]:
    """The recipe with weights that go straight from one value to another over the whole search, and never halve."""
    ends = {f"fixed {weight:g}": (weight, weight) for weight in FIXED} | {"rising": (0.0, 1.0), "falling": (1.0, 0.0)}
    return tuple(
        Procedure(name, recipe.changed(first_weight=first, delta=(last - first) / recipe.max_steps, xi=-math.inf))
        for name, (first, last) in ends.items()
    )


@dataclass(frozen=True)
class Outcome:
    """Results of a schedule."""

    success: float  # share of memorized images replicated
    nats: float  # their median
    evaluations: float  # per image
    wrong: int  # held-out images replicated

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table."""
        return (
            f"{self.success:.2f}",
            "-" if math.isnan(self.nats) else f"{self.nats:.1f}",
            f"{self.evaluations:,.0f}",
            str(self.wrong),
        )

    def worse_in(self, other: "Outcome") -> list[str]:
        """In what this one is worse than another."""
        worse = {
            "success": self.success < other.success,
            "nats": self.nats > other.nats,
            "evaluations": self.evaluations > other.evaluations,
        }
        return [name for name, is_worse in worse.items() if is_worse]


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:
    """Each schedule on some images of every set; nats are compared on images that both schedules replicate."""
    adaptive, others = procedures[0], schedules(procedures[0].recipe)
    audits = {way.name: [case.audit(way, case.along) for case in cases] for way in (adaptive, *others)}
    ours = audits[adaptive.name]
    findings = []
    for way in others:
        theirs = audits[way.name]
        worse = _outcome(cases, ours, theirs).worse_in(_outcome(cases, theirs, ours))
        words = f"worse in {' and '.join(worse)}" if worse else "no worse in anything"
        findings.append(Finding(f"the adaptive weight against {way.name}", words, "no worse in anything", not worse))
    outcomes = {name: _outcome(cases, found, found) for name, found in audits.items()}
    return Claim(
        "weights",
        "The adaptive weight is no worse than fixed weights and straight schedules",
        f"Images with {listed(SOME_DOSES)} copies, and held-out ones; the recipe of the procedure {adaptive.name} with "
        "other weights, one seed. Rising is from 0 to 1 over the search, falling from 1 to 0. Success is the share "
        "of the images that came back in plain sampling which are replicated; nats are compared on images that both "
        "replicate.",
        tuple(findings),
        (
            Table(
                ("weight", "success", "median nats", "evaluations an image", "held-out images replicated"),
                tuple((name, *outcome.cells) for name, outcome in outcomes.items()),
            ),
        ),
        save(_drawn(outcomes, adaptive.name), pictures, "weights"),
        "Success and value of each schedule; the lower right is best.",
    )


def _outcome(cases: Sequence[Case], audits: Sequence[Audit], compared: Sequence[Audit]) -> Outcome:
    success, nats, wrong = [], [], 0
    for case, audit, other in zip(cases, audits, compared, strict=True):
        seen = case.memorized(case.along)
        for row, rival, memorized in zip(audit.rows, other.rows, seen, strict=True):
            if memorized:
                success.append(row.replicated)
                if row.replicated and rival.replicated:
                    nats.append(row.value)
            wrong += row.replicated and row.copies == 0
    return Outcome(mean(success), middle(nats), mean([audit.evaluations for audit in audits]), wrong)


def _drawn(outcomes: dict[str, Outcome], adaptive: str) -> Figure:
    figure, axes = plot()
    for name, outcome in outcomes.items():
        axes.scatter(outcome.success, outcome.nats, s=22, color=RED if name == adaptive else BLUE)
        axes.annotate(name, (outcome.success, outcome.nats), (4, 3), textcoords="offset points", fontsize=8)
    heights = [outcome.nats for outcome in outcomes.values()]
    axes.set(yscale=scale(heights), xlabel="share of memorized images replicated", ylabel="median nats in all")
    axes.margins(x=0.25)
    return figure
