"""Ways to steady the published estimate, alone and together: what each changes in the value, its scatter and its price.

    python -m benchmarks.variants --json variants.json       # half an hour of one CPU core

On images that the emoji model of the evidence memorized. The search is written here once more, plainly, with

averaging    q is checked as the average of its parameters over the steps, each counting that share of the next
decay        Adam's step size is multiplied by that after every step
shrinking    after the first passed check q is drawn back along the straight line of its parameters to the standard
             normal, to the least share of them, by bisection, at which 90 % of 64 samples are replicas
multiplier   after the first passed check the search goes on to its last step with a weight that is doubled at every
             passed check and halved at every failed one, and the least KL that passed is the value
restarts     the median of three searches, for all triples of the seeds

Beside them stands the search by dose. Of every value 64 fresh samples from its q tell the rate.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.baselines.counting import counted
from benchmarks.estimator import FRESH, search, spread
from benchmarks.estimator import Case as Searched
from benchmarks.evidence import models
from benchmarks.evidence.audits import BY_DOSE, SHORT
from benchmarks.evidence.case import FULL, Case
from benchmarks.evidence.claims.stability import CONFIRMED
from invmm_eval.audits.auditing import load_backbone
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.schedule import broadcast
from invmm_eval.noise import Noise
from invmm_eval.noise.gaussian import Gaussian, diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.sampling import sample
from invmm_eval.search.target import Target
from invmm_eval.search.weight import AdaptiveWeight
from invmm_eval.similarity.pixel_cosine import PixelCosine

ROOT = Path(__file__).parents[1] / "runs" / "evidence"
DOSES = (256, 128, 64)
HALVINGS = 6


@dataclass(frozen=True)
class Variant:
    """What is changed of the published search."""

    name: str
    averaging: float = 0.0
    decay: float = 1.0
    shrinking: bool = False
    multiplier: bool = False


VARIANTS = (
    Variant("published"),
    *(Variant(f"averaging {share:g}", averaging=share) for share in (0.8, 0.9, 0.95)),
    *(Variant(f"decay {decay:g}", decay=decay) for decay in (0.98, 0.95)),
    Variant("shrinking", shrinking=True),
    Variant("multiplier", multiplier=True),
    Variant("averaging 0.95, decay 0.98", averaging=0.95, decay=0.98),
    Variant("averaging 0.95, shrinking", averaging=0.95, shrinking=True),
    Variant("averaging 0.95, multiplier", averaging=0.95, multiplier=True),
)


@dataclass(frozen=True)
class Found:
    """One search: nats over all dimensions and the rate of fresh samples, None where no check was passed."""

    variant: str
    image: str
    seed: int
    nats: float | None
    rate: float | None
    evaluations: int


class Plain:
    """The published search of one image with one variant's changes.

    Args:
        backbone: An unconditional model.
        target: The image.
        recipe: Settings; its threshold is beta.
        variant: What is changed.
        seed: Of all random numbers.
    """

    def __init__(self, backbone: Backbone, target: Target, recipe: Recipe, variant: Variant, seed: int) -> None:
        self.backbone, self.recipe, self.variant = backbone, recipe, variant
        self.random = torch.Generator().manual_seed(seed)
        self.similarity = PixelCosine(device=torch.device("cpu"))
        pixels = target.image[None].float() / 255
        self.features = self.similarity.embed(pixels)
        with torch.no_grad():
            self.x_0 = backbone.encode(pixels)

    def replicas(self, q: Noise, count: int) -> float:
        """The share of replicas among samples from q."""
        with torch.no_grad():
            images = sample(
                self.backbone,
                q.rsample(count, self.random),
                {},
                {},
                torch.ones(count),
                steps=self.recipe.sampler_steps,
                micro_batch=count,
            )
        alike = self.similarity.compare(self.similarity.embed(images), self.features)
        return (alike >= (self.recipe.threshold or self.similarity.threshold)).float().mean().item()

    def search(self) -> Gaussian | None:
        """The q of the value, or None where no check was passed."""
        recipe, variant = self.recipe, self.variant
        latest, mean = diagonal()(self.x_0[0]), diagonal()(self.x_0[0])
        parameters = list(latest.parameters().values())
        adam = torch.optim.Adam(parameters, lr=recipe.learning_rate)
        rate = torch.optim.lr_scheduler.ExponentialLR(adam, variant.decay)
        weight, losses, best = AdaptiveWeight(recipe), [], None
        for step in range(1, recipe.max_steps + 1):
            loss = self._loss(latest)
            adam.zero_grad()
            torch.autograd.backward(loss + weight.value * latest.kl())
            adam.step()
            rate.step()
            losses.append(loss.item())
            share = (1 - variant.averaging) / (1 - variant.averaging**step)
            with torch.no_grad():
                for average, parameter in zip(mean.parameters().values(), parameters, strict=True):
                    average.lerp_(parameter, share)
            if step % recipe.check_every:
                if best is None:
                    weight.grow()
                continue
            passed = self.replicas(mean, recipe.check_images) == 1
            if passed and (best is None or mean.kl() < best.kl()):
                best = _part(mean, 1)
            if best is None:
                window = losses[-recipe.window :]
                weight.check(sum(window) / len(window))
            elif variant.multiplier:
                weight.value *= 2 if passed else 0.5
            else:
                break
        return self._shrunk(best) if best and variant.shrinking else best

    def _loss(self, q: Noise) -> Tensor:
        n = q.rsample(self.recipe.draws, self.random)
        t = self.backbone.schedule.draw(self.recipe.draws, self.random)
        alpha_t, sigma_t = (broadcast(level, n) for level in self.backbone.schedule(t))
        return (self.backbone.predict_x0(alpha_t * self.x_0 + sigma_t * n, t, {}) - self.x_0).square().mean()

    def _shrunk(self, q: Gaussian) -> Gaussian:
        least, most = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (least + most) / 2
            if self.replicas(_part(q, middle), FRESH) >= CONFIRMED:
                most = middle
            else:
                least = middle
        return _part(q, most)


def _part(q: Noise, share: float) -> Gaussian:
    return Gaussian(*(share * tensor.detach() for tensor in q.parameters().values()))


def varied(backbone: Backbone, target: Target, recipe: Recipe, variant: Variant, seed: int) -> Found:
    """One search, and what its fresh samples say; they are not counted among its evaluations."""
    asked, counter = counted(backbone)
    plain = Plain(asked, target, recipe, variant, seed)
    q = plain.search()
    spent = counter.plain + 3 * counter.differentiated
    if q is None:
        return Found(variant.name, target.name, seed, None, None, spent)
    nats = q.kl().item() * plain.x_0[0].numel()
    return Found(variant.name, target.name, seed, nats, plain.replicas(q, FRESH), spent)


def by_dose(backbone: Backbone, target: Target, recipe: Recipe, seed: int) -> Found:
    """The search by dose."""
    one = search(backbone, Searched(target.name, target, truth=0, plain=0), recipe, seed)
    return Found("by dose", target.name, seed, one.nats, one.rate, one.forward + 3 * one.with_gradient)


def restarted(found: Sequence[Found], size: int = 3) -> list[Found]:
    """The median of every ``size`` searches of an image; infinite ones are greatest."""
    again = []
    for image in dict.fromkeys(one.image for one in found):
        searches = [one for one in found if one.image == image]
        for number, group in enumerate(combinations(searches, size)):
            middle = sorted(group, key=lambda one: math.inf if one.nats is None else one.nats)[size // 2]
            spent = sum(one.evaluations for one in group)
            again.append(Found(f"{found[0].variant}, restarts", image, number, middle.nats, middle.rate, spent))
    return again


def row(found: Sequence[Found], base: Sequence[Found]) -> dict[str, float | str]:
    """A variant beside the published search: medians, over images, of their ratios."""
    medians, ranges, relative = [], [], []
    for image in dict.fromkeys(one.image for one in base):
        ours, theirs = (
            [one.nats for one in group if one.image == image and one.nats is not None] for group in (found, base)
        )
        if min(len(ours), len(theirs)) > 1:
            (median, scatter), (other, wide) = spread(ours), spread(theirs)
            medians.append(median / other)
            ranges.append(scatter / wide)
            relative.append(scatter / median)
    rates = [one.rate for one in found if one.rate is not None]
    return {
        "variant": found[0].variant,
        "replicated": len(rates) / len(found),
        "median": statistics.median(medians),
        "range": statistics.median(ranges),
        "range over median": statistics.median(relative),
        "confirmed": statistics.mean(rate >= CONFIRMED for rate in rates),
        "evaluations": _price(found) / _price(base),
    }


def _price(found: Sequence[Found]) -> float:
    return statistics.mean(one.evaluations for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--each", type=int, default=2, help="images of each number of copies")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the evidence is kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(options.root, "emoji", FULL)
    backbone = load_backbone(models.folder(options.root, "emoji"), device="cpu")
    chosen = [index for dose in DOSES for index in case.data.at(dose, options.each)]
    targets = [Target(case.data.images[index], str(index)) for index in chosen]
    told = {"threshold": case.truth.threshold}
    searches = [(target, seed) for target in targets for seed in range(options.seeds)]
    found = [
        [varied(backbone, target, SHORT.changed(**told), variant, seed) for target, seed in searches]
        for variant in VARIANTS
    ]
    found.append([by_dose(backbone, target, BY_DOSE.recipe.changed(**told), seed) for target, seed in searches])
    found[1:1] = [restarted(found[0])]
    rows = [row(group, found[0]) for group in found]
    table = Table(*rows[0])
    for one in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.2f}" for value in one.values()))
    Console(width=120).print(table)
    if options.json:
        everything = {"rows": rows, "found": [asdict(one) for group in found for one in group]}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
