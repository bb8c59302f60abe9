"""Exact cases: denoisers known in closed form, where the shares and the least KL that replicates are known too."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from benchmarks import exact
from benchmarks.common.keep import kept
from benchmarks.common.measures import factor, mean
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Table, at_least, at_most
from benchmarks.exact import Found
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import least_kl

FRESH = 200
"""Samples drawn from each noise that was found."""


def claim(cases: Sequence[Case], pictures: Path) -> Claim:  # noqa: ARG001
    """Shares against the weights, and nats against the least that could be at the rate of copies from the noise."""
    found = _searched(cases[0])
    ratios = [one.share / one.weight for one in found if one.share]
    below = [one for one in found if one.status == Status.REPLICATED and one.nats < _surely(one)]
    rows = []
    for weight in exact.WEIGHTS:
        group = [one for one in found if one.weight == weight]
        shares = ", ".join(f"{one.share:.2g}" if one.share else "-" for one in group)
        nats = ", ".join(f"{one.nats:.{1 if one.nats < 10 else 0}f}" for one in group)
        rates = ", ".join(f"{one.rate:.2f}" for one in group)
        rows.append((f"{weight:g}", shares, nats, rates))
    return Claim(
        "closed-form",
        "Where the truth is known in closed form, the share is right and no search goes below the least KL",
        "Twenty pictures of 64 dimensions with unequal weights p, and the best denoiser in closed form "
        f"(`benchmarks/exact.py`); the fast search with {cases[0].budget.exact} seeds. Plain sampling gives a picture "
        "with probability p, so whatever q is, its KL is at least d(r | p), with r the rate of copies from q, here "
        f"among {FRESH} fresh samples.",
        (
            at_most("stated over true share, off by a factor of (rms)", factor(ratios), 1.25),
            at_least(f"share of {len(found)} searches that state one", len(ratios) / len(found), 1),
            at_least("lower limits that hold", mean([(one.low or 0) <= one.weight for one in found]), 0.975),
            at_most("searches whose KL is below the bound", len(below), 0),
        ),
        (Table(("p", "share stated", "nats", "rates of copies"), tuple(rows)),),
    )


def _surely(one: Found) -> float:
    """The bound at the rate's lower end, as it is itself an estimate; 0 where that is below the weight."""
    low = binomtest(round(one.rate * FRESH), FRESH).proportion_ci(0.999).low
    return least_kl(low, one.weight) if low > one.weight else 0.0


def _searched(case: Case) -> list[Found]:
    recipe = case.budget.procedures[0].recipe.changed(threshold=exact.COPY)
    seeds = case.budget.exact

    def find() -> Any:
        return [asdict(one) for one in chain.from_iterable(exact.search(seed, FRESH, recipe) for seed in range(seeds))]

    request = {"recipe": asdict(recipe), "seeds": seeds, "fresh": FRESH}
    return [Found(**one) for one in kept(case.root / "exact.json", request, find)]
