"""The published estimate beside the one by dose: how far values scatter over seeds, how large they are, what they cost.

    python benchmarks/estimator.py                                   # exact mixtures, about a minute on one CPU core
    python benchmarks/estimator.py --model reference --seeds 5       # the reference model
    python benchmarks/estimator.py --model reference --recipe demo   # the demo's recipe in the published one's place

Each picture is searched by each recipe with several seeds. Of every search are kept the value in nats over all
dimensions, the network's evaluations (of one sample each) with and without a gradient, and the rate of replication of
64 fresh samples from the q that was found. Printed for each picture: quartiles over seeds of the value, the mean rate,
the mean number of evaluations; and, over pictures, the ratios of the two estimates and how they rank the pictures.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import exact
from invmm_eval.auditing import load_backbone
from invmm_eval.backbone import Backbone
from invmm_eval.condition import Context
from invmm_eval.demo import choose
from invmm_eval.images import Target, prepare
from invmm_eval.inversion import invert, replicate
from invmm_eval.noises.gaussian import diagonal
from invmm_eval.recipe import DDPM, DEMO, Recipe, by_dose
from invmm_eval.reference import MODEL, pictures, plain_samples
from invmm_eval.similarities.pixel_cosine import PixelCosine

FRESH = 64
"""Samples from what was found, to confirm it."""


@dataclass(frozen=True)
class Case:
    """A picture, and its share among plain samples; ``memorized`` is what a ranking should find."""

    name: str
    target: Target
    share: float
    memorized: bool


@dataclass(frozen=True)
class Found:
    """One search."""

    case: str
    recipe: str
    seed: int
    nats: float | None
    ed50: float | None
    ed90: float | None
    rate: float | None
    forward: int
    with_gradient: int
    seconds: float

    @property
    def value(self) -> float:
        """The nats, infinite where the picture was not replicated."""
        return math.inf if self.nats is None else self.nats

    @property
    def evaluations(self) -> int:
        """Of the network, for one sample each."""
        return self.forward + self.with_gradient


class Counted:
    """A backbone that counts what its network is given."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.forward = 0
        self.with_gradient = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if x_t.requires_grad:
            self.with_gradient += len(x_t)
        else:
            self.forward += len(x_t)
        return self._backbone.predict_x0(x_t, t, context)


def mixtures() -> tuple[Backbone, list[Case], Recipe]:
    """The exact model of ``benchmarks/exact.py``, its weighted pictures, and the published settings for it."""
    mixture, images = exact.model()
    cases = [
        Case(f"p = {weight:g}", Target(image), weight, memorized=True)
        for weight, image in zip(exact.WEIGHTS, images, strict=False)
    ]
    return mixture, cases, exact.RECIPE


def reference(per_dose: int, held_out: int) -> tuple[Backbone, list[Case], Recipe]:
    """The reference model and pictures of every dose; those with 16 copies or more are the memorized ones."""
    backbone = load_backbone(MODEL, device="cpu")
    cases = [
        Case(
            f"{picture.copies} copies: {picture.name}",
            Target(prepare(picture.image, backbone.image_shape)),
            picture.drawn / plain_samples(),
            memorized=picture.copies >= 16,
        )
        for picture in choose(pictures(), per_dose=per_dose, held_out=held_out)
    ]
    return backbone, cases, replace(DDPM, threshold=DEMO.threshold)


def search(backbone: Backbone, case: Case, recipe: Recipe, seed: int) -> Found:
    """One search, and what it found held against fresh samples."""
    counted, similarity, noise = Counted(backbone), PixelCosine(device=torch.device("cpu")), diagonal()
    started = time.process_time()
    [result] = invert(counted, [case.target], similarity, noise, recipe=recipe, seed=seed, micro_batch=64)
    seconds = time.process_time() - started
    rate = None
    if result.nats is not None:
        images = replicate(backbone, result, noise, FRESH, recipe=recipe, seed=seed)
        own = similarity.embed(case.target.image[None].float() / 255)
        threshold = similarity.threshold if recipe.threshold is None else recipe.threshold
        rate = (similarity.compare(similarity.embed(images), own) >= threshold).float().mean().item()
    return Found(
        case=case.name,
        recipe=recipe.name,
        seed=seed,
        nats=result.nats,
        ed50=result.ed50.nats if result.ed50 else None,
        ed90=result.ed90.nats if result.ed90 else None,
        rate=rate,
        forward=counted.forward,
        with_gradient=counted.with_gradient,
        seconds=seconds,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Infinite ones included."""
    ordered = sorted(values)
    return tuple(_quantile(ordered, share) for share in (0.25, 0.5, 0.75))  # type: ignore[return-value]


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (place - math.floor(place)) * (high - low)


def auc(memorized: Sequence[float], others: Sequence[float]) -> float:
    """The chance that a memorized picture's value is below another's, ties counting one half."""
    return statistics.mean((a < b) + (a == b) / 2 for a in memorized for b in others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("mixture", "reference"), default="mixture")
    parser.add_argument("--recipe", choices=("paper", "demo"), default="paper")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe by dose")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-dose", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=2)
    parser.add_argument("--only", choices=("published", "dose"))
    parser.add_argument("--cases", help="comma-separated positions of the pictures to search; all if not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone, cases, published = (
        mixtures() if options.model == "mixture" else reference(options.per_dose, options.held_out)
    )
    if options.cases:
        cases = [cases[int(i)] for i in options.cases.split(",")]
    dose = by_dose(published).changed(**Recipe.parse(options.set))
    if options.recipe == "demo":
        published = DEMO
    found = []
    for recipe in (published, dose):
        if options.only and (options.only == "dose") != (recipe is dose):
            continue
        for case in cases:
            for seed in range(options.seeds):
                found.append(search(backbone, case, recipe, seed))
                if options.json:
                    options.json.write_text(json.dumps([asdict(f) for f in found]))
            g = [f for f in found if f.case == case.name and f.recipe == recipe.name]
            q = quartiles([f.value for f in g])
            rates = [f.rate for f in g if f.rate is not None]
            print(
                recipe.name[:12],
                case.name,
                "median %.2f iqr %.2f" % (q[1], q[2] - q[0]),
                "rates",
                ["%.2f" % r for r in rates],
                "values",
                ["%.1f" % f.value for f in g],
                "ed90",
                ["%.1f" % f.ed90 for f in g if f.ed90 is not None],
                "fwd %.0f grad %.0f cpu %.1f"
                % (
                    statistics.mean(f.forward for f in g),
                    statistics.mean(f.with_gradient for f in g),
                    statistics.mean(f.seconds for f in g),
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
