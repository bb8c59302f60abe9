"""Exact cases: denoisers known in closed form, where the least KL that replicates is known too."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import exact
from benchmarks.common.measures import quantiles
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table, as_nats
from benchmarks.evidence.keep import kept
from benchmarks.evidence.truth import clopper_pearson
from benchmarks.exact import Found
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import least_kl

MODELS = {0.0: "Dirac mixture", 0.2: "Gaussian mixture"}
"""By the spread of what is around each picture."""
FRESH = 200
"""Samples drawn from each noise that was found."""


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """Nats found over the least that could be, at the rate that the noise found replicates at."""
    seeds = cases[0].budget.exact
    findings, rows = [], []
    for procedure in procedures:
        for spread, title in MODELS.items():
            name = f"{procedure.name}, {title}"
            passed = [
                one for one in _searched(cases[0].root, procedure, spread, seeds) if one.status == Status.REPLICATED
            ]
            low, median, high = quantiles([one.nats / one.bound for one in passed], 0.1, 0.5, 0.9)
            figure = f"{median:.1f} (80 % are from {low:.1f} to {high:.1f})"
            findings.append(Finding(f"{name}: nats found over the least, median of {len(passed)} searches", figure))
            below = sum(one.nats < _surely(one) for one in passed)
            findings.append(Finding(f"{name}: searches below the bound", str(below), "none", not below))
            for weight in exact.WEIGHTS:
                group = [one for one in passed if one.weight == weight]
                nats, rates = (
                    ", ".join(as_nats(one.nats) for one in group),
                    ", ".join(f"{one.rate:.2f}" for one in group),
                )
                least = as_nats(least_kl(0.9, weight))
                rows.append((name, f"{weight:g}", f"{len(group)} of {seeds}", nats, rates, least))
    return Claim(
        "closed-form",
        "Where the least possible KL is known, no search goes below it",
        "Twenty pictures of 64 dimensions with unequal weights p, and the best denoiser in closed form "
        "(`benchmarks/exact.py`). Plain sampling gives a picture with probability p, so whatever q is, its KL is at "
        f"least d(r | p), with r the rate of copies from q, here among {FRESH} fresh samples.",
        tuple(findings),
        (Table(("procedure and model", "p", "replicated", "nats", "rates", "least at 0.9"), tuple(rows)),),
    )


def _surely(one: Found) -> float:
    """The bound at the rate's lower end, as it is itself an estimate; 0 where that is below the weight."""
    low, _ = clopper_pearson(round(one.rate * FRESH), FRESH, 0.999)
    return least_kl(low, one.weight) if low > one.weight else 0.0


def _searched(root: Path, procedure: Procedure, spread: float, seeds: int) -> list[Found]:
    def find() -> Any:
        recipe = procedure.recipe.changed(threshold=exact.COPY)
        found = (exact.search(seed, FRESH, spread=spread, recipe=recipe) for seed in range(seeds))
        return [asdict(one) for one in chain.from_iterable(found)]

    request = {"recipe": procedure.recipe.name, "seeds": seeds}
    return [Found(**one) for one in kept(root / "exact" / f"{procedure.name}-{spread:g}.json", request, find)]
