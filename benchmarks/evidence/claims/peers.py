"""Peers: searches and detectors on the same images, with what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.measures import auc, mean, tpr
from benchmarks.evidence.audits import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table, at_least, at_most
from benchmarks.evidence.detectors import scored

MOST_ROWS = {"not memorized": 400, "memorized": 1500}
COLUMNS = ("", "AUC", "recall at 1 % false positives", "rows, memorized", "rows, not memorized")


@dataclass(frozen=True)
class Performance:
    """How well images are separated, and the network rows that a memorized image and another cost."""

    auc: float
    recall: float
    memorized: float
    others: float

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.bool_], rows: NDArray[np.float64]) -> "Performance":
        return cls(auc(scores, labels), tpr(scores, labels), mean(rows[labels]), mean(rows[~labels]))

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table."""
        return f"{self.auc:.3f}", f"{self.recall:.2f}", f"{self.memorized:,.0f}", f"{self.others:,.0f}"

    def beats(self, other: "Performance") -> bool:
        """Whether it finds more at a lower cost."""
        return self.recall > other.recall and self.others < other.others


def claim(cases: Sequence[Case], pictures: Path) -> Claim:  # noqa: ARG001
    """Every way to tell memorized images, on the images that were searched."""
    cases = [case for case in cases if case.training.seeds]
    found = {case.name: performances(case) for case in cases}
    findings: list[Finding] = []
    for name, ways in found.items():
        ours = next(iter(ways.values()))
        findings.append(at_least(f"{name}: AUC of fast", ours.auc, 0.99))
        for kind, rows in (("memorized", ours.memorized), ("not memorized", ours.others)):
            findings.append(at_most(f"{name}: rows of fast, an image that is {kind}", rows, MOST_ROWS[kind]))
        better = [way for way, one in ways.items() if one.beats(ours)]
        findings.append(
            Finding(f"{name}: ways that find more for less", ", ".join(better) or "none", "none", not better)
        )
    tables = [
        Table(COLUMNS, tuple((way, *one.cells) for way, one in ways.items()), name) for name, ways in found.items()
    ]
    budget = cases[0].budget
    return Claim(
        "peers",
        "No other way finds more of what is memorized for less than the fast search",
        f"On each set the {len(cases[0].searched)} images or more that were searched: all repeated ones, and some "
        f"single-copy and held-out ones; searches but the fast one have {len(cases[0].some)} of them. Searches rank by "
        "their value with the first seed. Rows are those through the network; one with a gradient counts three. The "
        f"{budget.attack:,} plain samples of the nearest-neighbour detector serve all images of a set; the truth is "
        "such a count itself, so it is the strongest there can be.",
        tuple(findings),
        tuple(tables),
    )


def performances(case: Case) -> dict[str, Performance]:
    """Of each search and each detector."""
    labels = case.memorized[case.searched]
    searches = {procedure.name: _searched(case, procedure) for procedure in case.budget.procedures}
    return searches | {
        name: Performance.of(one.scores, labels, np.full(len(labels), one.rows)) for name, one in scored(case).items()
    }


def _searched(case: Case, procedure: Procedure) -> Performance:
    rows = case.audits(procedure)[0]
    labels = case.memorized[[row.image for row in rows]]
    values, spent = (np.array(column, float) for column in zip(*((row.value, row.rows) for row in rows), strict=True))
    return Performance.of(-values, labels, spent)
