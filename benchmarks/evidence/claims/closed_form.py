"""Exact cases: denoisers known in closed form, where the least KL that replicates is known too."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import exact
from benchmarks.evidence.audits import Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table
from benchmarks.evidence.keep import kept
from benchmarks.evidence.measures import quantiles
from benchmarks.evidence.truth import clopper_pearson
from invmm_eval.bound import least_kl
from invmm_eval.result import Status

SPREADS = {0.0: "Dirac mixture, unequal weights", 0.1: "Gaussian mixture, unequal weights"}
SAMPLES, FRESH = 20_000, 200


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """Nats found over the least that could be, at the rate that the noise found replicates at."""
    seeds = cases[0].budget.exact
    findings, rows = [], []
    for procedure in procedures:
        for spread, title in SPREADS.items():
            name = f"{procedure.name}, {title}"
            shares, found = _searched(cases[0].root, procedure, spread, seeds)
            passed = [(shares[one["weight"]], one) for one in found if one["status"] == Status.REPLICATED]
            ratios = [one["nats"] / least_kl(one["rate"], share) for share, one in passed if one["rate"] > share]
            low, middle, high = quantiles(ratios, 0.1, 0.5, 0.9)
            told = f"{middle:.1f} (80 % are from {low:.1f} to {high:.1f})"
            findings.append(Finding(f"{name}: nats found over the least, {len(ratios)} searches, median", told))
            below = sum(one["nats"] < _surely(one["rate"], share) for share, one in passed)
            findings.append(Finding(f"{name}: searches below the bound", str(below), "none", not below))
            for weight, share in shares.items():
                group = [one for _, one in passed if one["weight"] == weight]
                nats = ", ".join(f"{one['nats']:.1f}" for one in group)
                rates = ", ".join(f"{one['rate']:.2f}" for one in group)
                least = f"{least_kl(0.9, share):.1f}"
                rows.append((name, f"{share:.4f}", f"{len(group)} of {seeds}", nats, rates, least))
    return Claim(
        "closed-form",
        "Where the least KL is known, no search undercuts it, and the table tells how near it comes",
        "Twenty pictures of 64 dimensions with given weights, and the best denoiser in closed form "
        "(`benchmarks/exact.py`). Whatever q is, its KL is at least d(r | p), with p the share of plain samples that "
        f"are copies, of {SAMPLES:,}, and r that of {FRESH} fresh samples from q.",
        tuple(findings),
        (Table(("procedure and model", "plain share", "replicated", "nats", "rates", "least at 0.9"), tuple(rows)),),
    )


def _surely(rate: float, share: float) -> float:
    """The bound at the rate's lower end, which is itself an estimate; no bound where that is below the share."""
    low, _ = clopper_pearson(round(rate * FRESH), FRESH, 0.999)
    return least_kl(low, share) if low > share else 0.0


def _searched(
    root: Path, procedure: Procedure, spread: float, seeds: int
) -> tuple[dict[float, float], list[dict[str, Any]]]:
    """Plain shares by weight, and what was found."""

    def find() -> Any:
        recipe = procedure.recipe.changed(threshold=exact.COPY)
        found = [
            asdict(one) for seed in range(seeds) for one in exact.search(seed, FRESH, spread=spread, recipe=recipe)
        ]
        return {"shares": exact.plain_shares(SAMPLES, spread), "found": found}

    asked = {"recipe": procedure.recipe.name, "seeds": seeds}
    known = kept(root / "exact" / f"{procedure.name}-{spread:g}.json", asked, find)
    return dict(zip(exact.WEIGHTS, known["shares"], strict=True)), known["found"]
