"""How close the search comes to the smallest KL that replicates, where that is known.

    python benchmarks/exact.py            # about 2 minutes on one CPU core; writes docs/exact.png

The model is a mixture of pictures with known weights p_k and its best denoiser in closed form, so plain sampling gives
picture k with probability p_k. Whatever q is, KL(q || N(0, I)) >= d(r || p_k), where r is the rate at which noise from
q replicates (:mod:`invmm_eval.statistics.bound`). It is the least that any search could find. Printed for each
picture: p_k, its share among plain samples, the KL found, the rate of fresh samples from the q that was found, the
bound at that rate, and how many times the bound was spent.
"""

import argparse
import json
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import DDPM, Recipe
from invmm_eval.search.inversion import invert, replicate
from invmm_eval.search.result import Status
from invmm_eval.search.sampling import sample
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.statistics.bound import least_kl
from tests.helpers.exact import Mixture, pictures, targets

SHAPE = (1, 8, 8)
WEIGHTS = (0.5, 0.2, 0.1, 0.03, 0.01, 0.003, 0.001)
OTHERS = 13
"""Pictures that share the rest of the weight."""
COPY = 0.95
"""Pixel-cosine from which a sample is a copy."""
RECIPE = replace(DDPM, draws=16, delta=1e-3, sampler_steps=50, threshold=COPY)
"""The published settings, but for the guidance of guided models."""


@dataclass(frozen=True)
class Found:
    """One search: the picture's weight, the KL in nats over all dimensions, and r among fresh samples."""

    weight: float
    status: Status
    nats: float
    rate: float

    @property
    def bound(self) -> float:
        """The least KL in nats at this rate."""
        return least_kl(self.rate, self.weight)


def model(spread: float = 0.0) -> tuple[Mixture, Tensor]:
    """The mixture of Gaussians of that spread around its pictures, which it has memorized at spread 0."""
    images = pictures(len(WEIGHTS) + OTHERS, SHAPE)
    rest = (1 - sum(WEIGHTS)) / OTHERS
    return Mixture(images, torch.tensor([*WEIGHTS, *[rest] * OTHERS]), spread), images


def hits(samples: Tensor, images: Tensor) -> Tensor:
    """For each image the share of ``samples`` that are copies of it."""
    cosine = PixelCosine(device=torch.device("cpu"))
    alike = cosine.compare(cosine.embed(samples), cosine.embed(images.float() / 255))
    return (alike >= COPY).float().mean(dim=0)


def plain_shares(samples: int, spread: float = 0.0) -> list[float]:
    """The share of each weighted picture among plain samples."""
    mixture, images = model(spread)
    noise = torch.randn(samples, *SHAPE, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(samples)
    drawn = sample(mixture, noise, {}, {}, ones, steps=RECIPE.sampler_steps, micro_batch=5000)
    shares: list[float] = hits(drawn, images[: len(WEIGHTS)]).tolist()
    return shares


def search(seed: int, fresh: int, *, spread: float = 0.0, recipe: Recipe = RECIPE) -> list[Found]:
    """One search a weighted picture, and the rate of ``fresh`` samples from what it found."""
    mixture, images = model(spread)
    cosine = PixelCosine(device=torch.device("cpu"))
    wanted = targets(images[: len(WEIGHTS)])
    results = invert(
        mixture, wanted, cosine, diagonal(), recipe=recipe, seed=seed, batch_size=len(wanted), micro_batch=1000
    )
    found = []
    for result in sorted(results, key=lambda result: result.index):
        drawn = replicate(mixture, result, diagonal(), fresh, recipe=recipe)
        rate = hits(drawn, images[result.index : result.index + 1]).item()
        nats = (result.kl or math.nan) * math.prod(SHAPE)
        found.append(Found(WEIGHTS[result.index], result.status, nats, rate))
    return found


def draw(found: list[Found]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    grid = [10 ** (-exponent / 50) for exponent in range(5, 160)]
    axes.plot(grid, [least_kl(0.9, weight) for weight in grid], color="#386a20", label="least for a rate of 0.9")
    replicated = [one for one in found if one.status is Status.REPLICATED]
    axes.scatter(
        [one.weight for one in replicated],
        [one.nats for one in replicated],
        s=16,
        color="#b3261e",
        label="found at the first passing check",
    )
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("probability of the picture in plain sampling")
    axes.set_ylabel("KL in nats, all dimensions together")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=50_000, help="plain samples to count copies in")
    parser.add_argument("--fresh", type=int, default=400, help="fresh samples from each q that was found")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shares = plain_shares(options.samples)
    found = [one for seed in range(options.seeds) for one in search(seed, options.fresh)]
    table = Table("p_k", "plain share", "replicated", "KL, nats", "rate", "least", "KL / least")
    for weight, share in zip(WEIGHTS, shares, strict=True):
        group = [one for one in found if one.weight == weight]
        passed = [one for one in group if one.status is Status.REPLICATED]
        table.add_row(
            f"{weight:g}",
            f"{share:.4f}",
            f"{len(passed)} of {len(group)}",
            f"{min(one.nats for one in passed):.1f} to {max(one.nats for one in passed):.1f}",
            f"{min(one.rate for one in passed):.2f} to {max(one.rate for one in passed):.2f}",
            f"{statistics.median(one.bound for one in passed):.1f}",
            f"{statistics.median(one.nats / one.bound for one in passed):.1f}",
        )
    Console(width=100).print(table)
    draw(found).savefig(Path(__file__).parents[1] / "docs" / "exact.png", dpi=120)
    if options.json:
        rows = [{"weight": one.weight, "nats": one.nats, "rate": one.rate, "least": one.bound} for one in found]
        options.json.write_text(json.dumps({"plain": shares, "found": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
