"""How close the search comes to the smallest KL that replicates, where that is known.

    python benchmarks/exact.py            # about 2 minutes on one CPU core; writes docs/exact.png
    python benchmarks/exact.py --rare 10  # only the share of pictures too rare to be memorized, by the recipe fast

The model is a mixture of pictures with known weights p_k and its best denoiser in closed form, so plain sampling gives
picture k with probability p_k. Whatever q is, KL(q || N(0, I)) >= d(r || p_k), where r is the rate at which noise from
q replicates (:mod:`invmm_eval.statistics.bound`). No search can find less. Printed for each picture: p_k, its share
among plain samples, the KL found, the rate of fresh samples from the q that was found, the bound at that rate, and the
ratio of the KL to the bound.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.measures import factor
from benchmarks.common.procedure import Setup
from benchmarks.common.script import parser, show, write
from invmm_eval.recipe import DDPM, Recipe, fast
from invmm_eval.search import plain_share
from invmm_eval.search.result import Status
from invmm_eval.search.sampling import sample
from invmm_eval.statistics.bound import least_kl
from tests.helpers.exact import Mixture, pictures, targets

SHAPE = (1, 8, 8)
WEIGHTS = (0.5, 0.2, 0.1, 0.03, 0.01, 0.003, 0.001)
RARE = (1e-4, 1e-5)
PICTURES = 20  # those without a weight share the rest of it
COPY = 0.95  # pixel-cosine at which a sample is a copy
RECIPE = replace(DDPM, draws=16, delta=1e-3, sampler_steps=50, threshold=COPY)
"""The published settings, except for the guidance of guided models."""


@dataclass(frozen=True)
class Found:
    """One search: the picture's weight, KL in nats over all dimensions, and the rate of copies among fresh samples.

    And the share of copies among plain samples with its lower limit, where the recipe estimates it.
    """

    weight: float
    status: Status
    nats: float
    rate: float
    share: float | None = None
    low: float | None = None

    @property
    def bound(self) -> float:
        """The least KL in nats at this rate."""
        return least_kl(self.rate, self.weight)


def model(weights: Sequence[float] = WEIGHTS) -> tuple[Mixture, Tensor]:
    """The mixture of its pictures, which has memorized them, and the pictures."""
    images, others = pictures(PICTURES, SHAPE), PICTURES - len(weights)
    rest = (1 - sum(weights)) / others
    return Mixture(images, torch.tensor([*weights, *[rest] * others])), images


def plain_shares(samples: int) -> list[float]:
    """The share of each weighted picture among plain samples."""
    mixture, images = model()
    noise = torch.randn(samples, *SHAPE, generator=torch.Generator().manual_seed(0))
    drawn = sample(mixture, noise, {}, {}, torch.ones(samples), steps=RECIPE.sampler_steps, micro_batch=5000)
    shares: list[float] = Setup(mixture, RECIPE).copies(drawn, images[: len(WEIGHTS)]).tolist()
    return shares


def search(seed: int, fresh: int, recipe: Recipe = RECIPE, weights: Sequence[float] = WEIGHTS) -> list[Found]:
    """One search for each weighted picture, and the rate of ``fresh`` samples from the noise found."""
    mixture, images = model(weights)
    wanted = targets(images[: len(weights)])
    setup = Setup(mixture, recipe, seed)
    results = setup.measure(wanted, batch_size=len(wanted), micro_batch=1000)
    return [
        Found(
            weight=weight,
            status=result.status,
            nats=(result.kl or math.nan) * math.prod(SHAPE),
            rate=setup.confirm(result, target, fresh, seed=0),
            share=result.plain_share.rate if result.plain_share else None,
            low=result.plain_share.low if result.plain_share else None,
        )
        for weight, target, result in zip(weights, wanted, results, strict=True)
    ]


def rare(seeds: int) -> list[list[str]]:
    """The share of rare pictures by the recipe ``fast``, whose samples go on although such shares are not memorized."""
    recipe = fast(DDPM).changed(threshold=COPY, sampler_steps=RECIPE.sampler_steps)
    with patch.object(plain_share, "MEMORIZED", 0):
        found = [one for seed in range(seeds) for one in search(seed, 1, recipe, RARE)]
    rows = []
    for weight in RARE:
        group = [one for one in found if one.weight == weight]
        ratios = [one.share / weight for one in group if one.share]
        held = sum((one.low or 0) <= weight for one in group)
        means = f"{factor(ratios):.2f}", f"{statistics.geometric_mean(ratios):.2f}"
        rows.append([f"{weight:g}", f"{len(ratios)} of {len(group)}", *means, str(held)])
    return rows


def draw(found: Sequence[Found]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    grid = [10 ** (-exponent / 50) for exponent in range(5, 160)]
    axes.plot(grid, [least_kl(0.9, weight) for weight in grid], color="#386a20", label="least for a rate of 0.9")
    weights, nats = zip(*((one.weight, one.nats) for one in found if one.status is Status.REPLICATED), strict=True)
    axes.scatter(weights, nats, s=16, color="#b3261e", label="found at the first passing check")
    axes.set(xscale="log", xlabel="probability of the picture in plain sampling")
    axes.set_ylabel("KL in nats, all dimensions together")
    axes.invert_xaxis()
    axes.legend(frameon=False)
    return figure


def row(weight: float, share: float, found: Sequence[Found]) -> list[str]:
    """The table's row of one picture."""
    passed = [one for one in found if one.status is Status.REPLICATED]
    nats, rates = [one.nats for one in passed], [one.rate for one in passed]
    return [
        f"{weight:g}",
        f"{share:.4f}",
        f"{len(passed)} of {len(found)}",
        f"{min(nats):.1f} to {max(nats):.1f}",
        f"{min(rates):.2f} to {max(rates):.2f}",
        f"{statistics.median(one.bound for one in passed):.1f}",
        f"{statistics.median(one.nats / one.bound for one in passed):.1f}",
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--samples", type=int, default=50_000, help="plain samples in which copies are counted")
    arguments.add_argument("--fresh", type=int, default=400, help="fresh samples from each q that was found")
    arguments.add_argument("--rare", type=int, default=0, help="seeds of the searches for rare pictures alone")
    options = arguments.parse_args()
    if options.rare:
        show(("p_k", "share stated", "off by", "mean factor", "lower limits that hold"), rare(options.rare))
        return
    shares = plain_shares(options.samples)
    found = [one for seed in range(options.seeds) for one in search(seed, options.fresh)]
    by_weight = [[one for one in found if one.weight == weight] for weight in WEIGHTS]
    rows = map(row, WEIGHTS, shares, by_weight)
    show(("p_k", "plain share", "replicated", "KL, nats", "rate", "least", "KL / least"), rows, width=100)
    draw(found).savefig(Path(__file__).parents[1] / "docs" / "exact.png", dpi=120)
    write(options.json, {"plain": shares, "found": [{**asdict(one), "least": one.bound} for one in found]})


if __name__ == "__main__":
    main()
