"""Screening: a few forward rows an image keep what comes back in plain sampling."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.measures import auc, recall, tpr
from benchmarks.evidence.case import MEMORIZED, Case
from benchmarks.evidence.claim import Claim, Finding, Table, at_least, at_most
from benchmarks.evidence.detectors import SCREEN, SIZE, Scored, screened

COLUMNS = ("set", "detector", "rows an image", "AUC", "recall, 5 % kept", "recall at 1 % false positives")
MOST_ROWS = 8


def claim(cases: Sequence[Case], pictures: Path) -> Claim:  # noqa: ARG001
    """The ranking of all images of each set by each detector."""
    findings: list[Finding] = []
    rows: list[tuple[str, ...]] = []
    for case in cases:
        found, every = screened(case), np.arange(len(case.data.images))
        labels, matched = case.memorized, _repeated_and_matched(case)
        what = f"{case.name}: recall at 5 % kept, {labels.sum()} memorized of {len(labels)} images"
        findings.append(at_least(what, recall(found[SCREEN].scores, labels), 1))
        rows += [_row(case.name, name, one, labels, every) for name, one in found.items()]
        if case.data.matched:
            area = auc(found[SCREEN].scores[matched], labels[matched])
            what = f"{case.name}: AUC among repeated images and {case.data.matched} held-out ones of like complexity"
            findings.append(at_least(what, area, 0.99))
            title = f"{case.name}, of like complexity"
            rows += [_row(title, name, one, labels, matched) for name, one in found.items()]
    findings.append(at_most("network rows an image", found[SCREEN].rows, MOST_ROWS))
    return Claim(
        "screen",
        "A screen of a few forward rows keeps every memorized image",
        "All images of each set, ranked by `denoising-loss`, the default of `invmm-eval screen`, and by others. An "
        f"image is memorized if it makes up {MEMORIZED:g} of the plain samples, or more. The first 5 % of the ranking "
        f"are kept, or as many as are memorized, if these are more. `{SIZE}` shows what complexity alone tells.",
        tuple(findings),
        (Table(COLUMNS, tuple(rows)),),
    )


def _repeated_and_matched(case: Case) -> NDArray[np.int64]:
    matched = np.arange(len(case.data.images)) >= len(case.data.images) - case.data.matched
    return np.flatnonzero((case.data.copies > 1) | matched)


def _row(title: str, name: str, one: Scored, labels: NDArray[np.bool_], images: NDArray[np.int64]) -> tuple[str, ...]:
    measures = (measure(one.scores[images], labels[images]) for measure in (auc, recall, tpr))
    return (title, name, f"{one.rows:,.0f}", *(f"{value:.3f}" for value in measures))
