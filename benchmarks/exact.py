"""How close the search comes to the smallest KL that replicates, where that is known.

    python -m benchmarks.exact            # about 2 minutes on one CPU core; writes docs/exact.png
    python -m benchmarks.exact --fast --weights 1e-4 1e-5 --seeds 10  # the share of rare pictures by the recipe fast

The model is a mixture of pictures with known weights p_k and its best denoiser in closed form, so plain sampling gives
picture k with probability p_k. Whatever q is, KL(q || N(0, I)) >= d(r || p_k), where r is the rate at which noise from
q replicates (:mod:`invmm_eval.statistics.bound`). No search can find less. Printed for each picture: p_k, its share
among plain samples, the KL found, the rate of fresh samples from the q that was found, the bound at that rate, and the
ratio of the KL to the bound. With ``--fast`` also by what factor the share that is stated is off (root mean square),
and how often its lower limit holds; samples go on where shares are too small for memorized pictures.
"""

import math
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.measures import factor
from benchmarks.common.plain_samples import similarities
from benchmarks.common.plans import measure, planned
from benchmarks.common.script import parser, show, write
from invmm_eval import replicate
from invmm_eval.recipe import DDPM, Recipe, fast
from invmm_eval.search import plain_share
from invmm_eval.search.result import Status
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.statistics.bound import least_kl
from tests.helpers.exact import Mixture, pictures, targets

SHAPE = (1, 8, 8)
WEIGHTS = (0.5, 0.2, 0.1, 0.03, 0.01, 0.003, 0.001)
PICTURES = 20  # those without a weight share the rest of it
COPY = 0.95  # pixel-cosine at which a sample is a copy
RECIPE = replace(DDPM, draws=16, delta=1e-3, sampler_steps=50, threshold=COPY)
"""The published settings, except for the guidance of guided models."""
COLUMNS = ("p_k", "plain share", "replicated", "KL, nats", "rate", "least", "KL / least", "share off by", "limits hold")


@dataclass(frozen=True)
class Found:
    """One search."""

    weight: float  # of the picture
    status: Status
    nats: float  # KL, over all dimensions
    rate: float  # of copies among fresh samples
    share: float | None = None  # of copies among plain samples, and its lower limit, where the recipe estimates them
    low: float | None = None

    @property
    def bound(self) -> float:
        """The least KL in nats at this rate."""
        return least_kl(self.rate, self.weight)


def model(weights: Sequence[float]) -> tuple[Mixture, Tensor]:
    """The mixture of its pictures, which has memorized them, and those that have a weight."""
    images, others = pictures(PICTURES, SHAPE), PICTURES - len(weights)
    rest = (1 - sum(weights)) / others
    return Mixture(images, torch.tensor([*weights, *[rest] * others])), images[: len(weights)]


def plain_shares(samples: int, weights: Sequence[float] = WEIGHTS) -> list[float]:
    """The share of each weighted picture among plain samples."""
    mixture, images = model(weights)
    cosine = PixelCosine(device=images.device)
    alike = similarities(mixture, images, cosine, samples=samples, steps=RECIPE.sampler_steps, sampler=RECIPE.sampler)
    shares: list[float] = (alike >= COPY).float().mean(dim=0).tolist()
    return shares


def search(seed: int, fresh: int, recipe: Recipe = RECIPE, weights: Sequence[float] = WEIGHTS) -> list[Found]:
    """One search for each weighted picture, and the rate of ``fresh`` samples from the noise found."""
    mixture, images = model(weights)
    plan, found = planned(mixture, recipe, seed), []
    results = measure(plan, targets(images), batch_size=len(images), micro_batch=1000)
    for weight, image, one in zip(weights, images, results, strict=True):
        drawn = replicate(mixture, one, plan.noise, fresh, recipe=recipe)
        alike = plan.similarity.compare(plan.similarity.embed(drawn), plan.similarity.embed(image[None] / 255))
        rate, share = (alike >= COPY).float().mean().item(), one.plain_share
        nats = (one.kl or math.nan) * math.prod(SHAPE)
        found.append(Found(weight, one.status, nats, rate, share and share.rate, share and share.low))
    return found


def row(weight: float, share: float, found: Sequence[Found]) -> list[str]:
    """The table's row of one picture."""
    passed = [one for one in found if one.status is Status.REPLICATED]
    nats, rates = [one.nats for one in passed], [one.rate for one in passed]
    stated = [one.share / weight for one in found if one.share]
    return [
        f"{weight:g}",
        f"{share:.4f}",
        f"{len(passed)} of {len(found)}",
        f"{min(nats):.1f} to {max(nats):.1f}",
        f"{min(rates):.2f} to {max(rates):.2f}",
        f"{statistics.median(one.bound for one in passed):.1f}",
        f"{statistics.median(one.nats / one.bound for one in passed):.1f}",
        f"{factor(stated):.2f}" if stated else "-",
        f"{sum((one.low or 0) <= weight for one in found)} of {len(found)}" if stated else "-",
    ]


def draw(found: Sequence[Found]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    grid = [10 ** (-exponent / 50) for exponent in range(5, 160)]
    axes.plot(grid, [least_kl(0.9, weight) for weight in grid], color="#386a20", label="least for a rate of 0.9")
    passed = [one for one in found if one.status is Status.REPLICATED]
    points = [one.weight for one in passed], [one.nats for one in passed]
    axes.scatter(*points, s=16, color="#b3261e", label="found at the first passing check")
    axes.set(xscale="log", xlabel="probability of the picture in plain sampling")
    axes.set_ylabel("KL in nats, all dimensions together")
    axes.invert_xaxis()
    axes.legend(frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__)
    known.add_argument("--seeds", type=int, default=5)
    known.add_argument("--samples", type=int, default=50_000, help="plain samples in which copies are counted")
    known.add_argument("--fresh", type=int, default=400, help="fresh samples from each q that was found")
    known.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    known.add_argument("--fast", action="store_true", help="search by the recipe fast instead of the published one")
    known.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "exact.png")
    options = known.parse_args(arguments)
    recipe = fast(DDPM).changed(threshold=COPY, sampler_steps=RECIPE.sampler_steps) if options.fast else RECIPE
    shares = plain_shares(options.samples, options.weights)
    with patch.object(plain_share, "MEMORIZED", 0) if options.fast else nullcontext():
        found = [one for seed in range(options.seeds) for one in search(seed, options.fresh, recipe, options.weights)]
    by_weight = [[one for one in found if one.weight == weight] for weight in options.weights]
    show(COLUMNS, map(row, options.weights, shares, by_weight), width=120)
    if not options.fast:
        draw(found).savefig(options.picture, dpi=120)
    write(options.json, {"plain": shares, "found": [{**asdict(one), "least": one.bound} for one in found]})


if __name__ == "__main__":
    main()
