"""Whole sets: a screen, searches of the most suspicious, and of a random sample of the rest, bound what was missed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.measures import mean
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table, at_least
from benchmarks.evidence.detectors import SCREEN, SIZE, screened
from invmm_eval.statistics.binomial import CONFIDENCE
from invmm_eval.statistics.finite import most_in

COLUMNS = ("set", "screen", "memorized", "within the limit", "missed, mean", "limit, mean")
SUSPICIOUS = 0.05
"""Share of the images that are searched because of their score."""
CONTROL = 60
"""Images of the rest that are searched at random."""


def claim(cases: Sequence[Case], pictures: Path) -> Claim:  # noqa: ARG001
    """Whether the images missed are within the stated limit, over resampled audits, for screens good and bad."""
    findings: list[Finding] = []
    rows = []
    for case in cases:
        found = screened(case)
        screens = {name: found[name].scores for name in (SCREEN, SIZE)}
        for name, scores in {**screens, "random order": None}.items():
            missed, limits = simulated(scores, case.memorized, case.budget.audits)
            held = mean(missed <= limits)
            if name == SCREEN:
                what = f"{case.name}: audits of {len(missed)} whose misses are within the stated limit"
                findings.append(at_least(what, held, CONFIDENCE))
            cells = (f"{held:.3f}", f"{mean(missed):.2f}", f"{mean(limits):.1f}")
            rows.append((case.name, name, str(case.memorized.sum()), *cells))
    return Claim(
        "whole-set",
        "A two-phase audit misses no more than it says",
        f"Simulated from recorded scores and counts: each audit draws the set anew with replacement, searches the "
        f"{SUSPICIOUS:.0%} with the highest scores and {CONTROL} of the others at random, and states the exact "
        f"{CONFIDENCE:.0%} limit for the memorized images among those not searched. A search is taken to find what is "
        "memorized.",
        tuple(findings),
        (Table(COLUMNS, tuple(rows)),),
    )


def simulated(
    scores: NDArray[np.float64] | None, memorized: NDArray[np.bool_], audits: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each audit the memorized images that were not searched, and the limit; without scores the order is random."""
    random, n = np.random.default_rng(seed), len(memorized)
    first = round(SUSPICIOUS * n)
    missed, limits = [], []
    for _ in range(audits):
        drawn = random.integers(n, size=n)
        order = random.random(n) if scores is None else scores[drawn]
        rest = drawn[np.argsort(-order, kind="stable")][first:]
        control = random.permutation(len(rest))[:CONTROL]
        seen = int(memorized[rest[control]].sum())
        missed.append(int(memorized[rest].sum()) - seen)
        limits.append(most_in(len(rest), seen, len(control)) - seen)
    return np.array(missed), np.array(limits)
