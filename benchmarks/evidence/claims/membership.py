"""Membership is not memorization: membership attacks separate images that were seen once, the value does not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.measures import auc, mean, resampled
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table
from benchmarks.evidence.detectors import MEMBERSHIP, Scored, judged


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """AUC of single-copy against held-out images, and of memorized against all others, averaged over the sets."""
    names = [procedure.name for procedure in procedures]
    detectors: dict[str, list[Scored]] = {name: [] for name in (*names, *MEMBERSHIP)}
    members, memorized = [], []
    for case in cases:
        images, found = judged(case, procedures)
        for name, scores in detectors.items():
            scores.append(found[name])
        members.append(_groups(case, images))
        seen = case.memorized(images)
        once = case.data.copies[images] <= 1
        memorized.append(np.where(seen, 1, np.where(once, 0, -1)))
    single = {name: _mean(found, members) for name, found in detectors.items()}
    repeated = {name: _mean(found, memorized) for name, found in detectors.items()}
    attack, rival = max(MEMBERSHIP, key=single.__getitem__), max(MEMBERSHIP, key=repeated.__getitem__)
    findings = []
    for name in names:
        low, high = resampled(*_split(detectors[name], members))
        findings += [
            Finding(
                f"{name}: AUC of single-copy against held-out images that never came back",
                f"{single[name]:.3f} ({low:.2f} to {high:.2f})",
                "0.4 to 0.6",
                0.4 <= single[name] <= 0.6,
            ),
            Finding(
                f"the best attack there ({attack}) against {name}",
                f"{single[attack]:.3f} against {single[name]:.3f}",
                "the attack is better",
                single[attack] > single[name],
            ),
            Finding(
                f"{name} against the best attack on memorized images ({rival})",
                f"{repeated[name]:.3f} against {repeated[rival]:.3f}",
                "the value is no worse",
                repeated[name] >= repeated[rival],
            ),
        ]
    rows = tuple((name, f"{single[name]:.3f}", f"{repeated[name]:.3f}") for name in detectors)
    count = sum(int((groups >= 0).sum()) for groups in members)
    return Claim(
        "membership",
        "Membership is not memorization",
        f"Single-copy members against held-out images, neither of which came back ({count} images), and images that "
        "came back against single-copy and held-out ones that did not. AUC within each set, averaged over the sets; in "
        "brackets the 95 % bootstrap interval. The best attack is chosen with hindsight, in its favour.",
        tuple(findings),
        (Table(("detector", "single copy against held out", "memorized against not"), rows, "AUC"),),
    )


def _groups(case: Case, images: list[int]) -> NDArray[np.int64]:
    """1 for members with one copy, 0 for held-out images, -1 for others and for all that came back."""
    copies = case.data.copies[images]
    groups: NDArray[np.int64] = np.where((copies <= 1) & ~case.memorized(images), copies, -1)
    return groups


def _split(
    found: Sequence[Scored], groups: Sequence[NDArray[np.int64]]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    kept = [marks >= 0 for marks in groups]
    scores = [one.scores[keep] for one, keep in zip(found, kept, strict=True)]
    return scores, [marks[keep] for marks, keep in zip(groups, kept, strict=True)]


def _mean(found: Sequence[Scored], groups: Sequence[NDArray[np.int64]]) -> float:
    return mean([auc(scores, marks) for scores, marks in zip(*_split(found, groups), strict=True)])
