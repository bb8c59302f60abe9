"""The share: what a fast search states is what is counted."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import iqr, spearmanr

from benchmarks.common.measures import factor, mean
from benchmarks.evidence.audits import Row
from benchmarks.evidence.case import MEMORIZED, Case
from benchmarks.evidence.claim import Claim, Finding, Table, at_least, at_most

COLOURS = ("#b3261e", "#386a20", "#0b57d0", "#7d5260", "#00696d")


def claim(cases: Sequence[Case], pictures: Path) -> Claim:
    """Shares, their lower limits, their scatter over seeds and their order, against counted copies."""
    cases = [case for case in cases if case.training.seeds]
    findings = [finding for case in cases for finding in _findings(case)]
    findings.append(_hold("all sets", [holds for case in cases for holds in _inside(case)]))
    return Claim(
        "share",
        "The share of copies among plain samples that a fast search states is the share that is counted",
        f"Recipe `{cases[0].budget.procedures[0].recipe.name}`. Every searched image, with several seeds, against the "
        f"copies among the plain samples. The first four figures are of memorized images ({MEMORIZED:g} or more). A "
        "lower limit holds unless it lies above the 97.5 % upper limit of the count. In the order of the values, "
        "-ln(share) by the median over seeds, images without a share come last.",
        tuple(findings),
        (Table(("set", "copies", "counted", "stated, by seed", "rows an image"), _table(cases)),),
        _drawn(cases, pictures / "share.png"),
        "Stated and counted shares, with the lower limit; what never came back stands at the left edge.",
    )


def by_image(case: Case) -> list[tuple[Row, ...]]:
    """Each searched image's rows."""
    return list(zip(*case.audits(case.budget.procedures[0]), strict=True))


def _findings(case: Case) -> list[Finding]:
    groups, shares = by_image(case), case.truth.shares
    known = [group for group in groups if case.memorized[group[0].image]]
    rows = [row for group in known for row in group]
    stated = [row for row in rows if row.share]
    every = [row for group in groups for row in group if row.low is not None]
    hold = [(row.low or 0) <= case.truth.most(row.image) for row in every]
    ranges = [iqr(np.log10([row.share or 0 for row in one])) for one in known if all(row.share for row in one)]
    values = [median(row.value for row in group) for group in groups]
    counted = [-shares[group[0].image] for group in groups]
    order = spearmanr(values, counted).statistic
    best = spearmanr([share or value for share, value in zip(counted, values, strict=True)], counted).statistic
    what = f"{case.name}: stated over counted share, off by a factor of (rms), {len(stated)} searches"
    return [
        at_most(what, factor([(row.share or 0) / shares[row.image] for row in stated]), 1.25),
        at_least(f"{case.name}: searches of {len(known)} memorized images that state one", len(stated) / len(rows), 1),
        at_most(
            f"{case.name}: interquartile range of log10(share) over seeds, median of images",
            float(np.median(ranges)),
            0.15,
        ),
        _hold(case.name, _inside(case)),
        at_least(f"{case.name}: lower limits that hold, {len(hold)} searches", mean(hold), 0.975),
        at_least(f"{case.name}: Spearman of share and value, {len(groups)} images", order, 0.97),
        Finding(
            f"{case.name}: the most that it can be where the count has ties and the values have none", f"{best:.3f}"
        ),
    ]


def _inside(case: Case) -> list[bool]:
    """Whether each interval of a memorized image holds the counted share."""
    return [
        (row.low or 0) <= case.truth.shares[row.image] <= (row.high or 0)
        for group in by_image(case)
        for row in group
        if case.memorized[row.image] and row.low is not None
    ]


def _hold(name: str, inside: Sequence[bool]) -> Finding:
    what = f"{name}: intervals of memorized images that hold the counted share, {len(inside)} searches"
    return at_least(what, mean(inside), 0.95)


def _table(cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for case in cases:
        for group in by_image(case):
            image = group[0].image
            if case.truth.counts[image]:
                stated = ", ".join(f"{row.share:.2g}" if row.share else "-" for row in group)
                cost = f"{mean([row.rows for row in group]):,.0f}"
                rows.append((case.name, str(group[0].copies), f"{case.truth.shares[image]:.2g}", stated, cost))
    return tuple(rows)


def _drawn(cases: Sequence[Case], path: Path) -> str:
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    edge = min(0.5 / case.truth.samples for case in cases)
    for case, colour in zip(cases, COLOURS, strict=False):
        rows = [row for group in by_image(case) for row in group if row.share]
        counted = np.maximum(case.truth.shares[[row.image for row in rows]], edge)
        stated = np.array([max(row.share or 0, edge) for row in rows])
        below = stated - np.array([min(max(row.low or 0, edge), row.share or 0) for row in rows])
        spans = [np.maximum(below, 0), 0 * below]
        axes.errorbar(counted, stated, spans, fmt="o", markersize=3, linewidth=0.6, color=colour, label=case.name)
    axes.plot([edge, 1], [edge, 1], "--", color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="share counted", ylabel="share stated")
    axes.set_ylim(bottom=edge / 3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path.name
