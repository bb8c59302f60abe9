"""The published estimate beside the one by dose: how far values scatter over seeds, how large they are, what they cost.

    python -m benchmarks.estimator                                   # an exact model: about a minute on one CPU core
    python -m benchmarks.estimator --model reference --copies 256,64,16 --json estimator.json

Every picture is searched by both recipes with several seeds. Of each search are kept the value in nats over all
dimensions, the evaluations of the network (of one sample each) with a gradient and without, and the rate at which
64 fresh samples from the q that was found replicate. The table tells, for each picture, the median and interquartile
range of the values over seeds, the mean rate, and the mean evaluations; below it stand the ratios of the two, and how
well values rank the pictures: by Spearman's correlation with what is known of them, and by the AUC of the repeated ones
against those held out.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks import exact
from benchmarks.baselines.counting import counted
from invmm_eval.audits.auditing import load_backbone
from invmm_eval.audits.images import prepare
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import DDPM, DEMO, Recipe, by_dose
from invmm_eval.reference import MODEL, choose, pictures, plain_samples
from invmm_eval.search.inversion import invert, replicate
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.statistics.response import Share

FRESH = 64
"""Samples from what was found, to confirm it."""
COPY = 0.9
"""Pixel-cosine from which a sample of the reference model is a copy, as its card counts them."""


@dataclass(frozen=True)
class Case:
    """A picture, and what is known of it.

    Attributes:
        name: What tables call it.
        target: The picture.
        truth: Its weight in the exact model, or its copies in training; 0 is held out.
        plain: Its share of plain samples, known or counted.
    """

    name: str
    target: Target
    truth: float
    plain: float


@dataclass(frozen=True)
class Found:
    """One search; values, the rate and the expected share of plain samples are None where nothing was replicated."""

    case: str
    truth: float
    plain: float
    recipe: str
    seed: int
    nats: float | None
    ed50: float | None
    ed90: float | None
    expected: Share | None
    rate: float | None
    forward: int
    with_gradient: int
    seconds: float

    @property
    def value(self) -> float:
        return math.inf if self.nats is None else self.nats

    @property
    def evaluations(self) -> int:
        return self.forward + self.with_gradient


def exact_model() -> tuple[Backbone, list[Case], Recipe]:
    """The model of ``benchmarks/exact.py``, its weighted pictures, and the published settings for it."""
    mixture, images = exact.model()
    cases = [
        Case(f"weight {weight:g}", Target(image), weight, weight)
        for weight, image in zip(exact.WEIGHTS, images, strict=False)
    ]
    return mixture, cases, exact.RECIPE


def reference_model(copies: Sequence[int], each: int) -> tuple[Backbone, list[Case], Recipe]:
    """The reference model, pictures of each of these numbers of copies, and the published settings for pixel models."""
    backbone = load_backbone(MODEL, device="cpu")
    cases = [
        Case(
            f"{picture.copies} copies: {picture.name}",
            Target(prepare(picture.image, backbone.image_shape)),
            picture.copies,
            picture.drawn / plain_samples(),
        )
        for picture in choose(pictures(), each=each, held_out=each)
        if picture.copies in copies
    ]
    return backbone, cases, replace(DDPM, threshold=COPY)


def search(backbone: Backbone, case: Case, recipe: Recipe, seed: int) -> Found:
    """One search, and fresh samples from what it found."""
    (asked, counter), noise = counted(backbone), diagonal()
    similarity = PixelCosine(device=torch.device("cpu"))
    [result] = invert(asked, [case.target], similarity, noise, recipe=recipe, seed=seed, micro_batch=64)
    found = Found(
        case=case.name,
        truth=case.truth,
        plain=case.plain,
        recipe=recipe.name,
        seed=seed,
        nats=result.nats,
        ed50=result.ed50.nats if result.ed50 else None,
        ed90=result.ed90.nats if result.ed90 else None,
        expected=result.plain_share,
        rate=None,
        forward=counter.plain,
        with_gradient=counter.differentiated,
        seconds=result.seconds_steps + result.seconds_checks,
    )
    if result.nats is None:
        return found
    samples = similarity.embed(replicate(backbone, result, noise, FRESH, recipe=recipe, seed=seed))
    alike = similarity.compare(samples, similarity.embed(case.target.image[None].float() / 255))
    return replace(found, rate=(alike >= (recipe.threshold or similarity.threshold)).float().mean().item())


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile range."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, high - low


def compared(found: Sequence[Found], published: str, ours: str) -> dict[str, float | None]:
    """The ratios of ours to the published estimate; those of values over pictures that every search replicated."""
    by_recipe = {name: [one for one in found if one.recipe == name] for name in (published, ours)}
    lost = {one.case for one in found if one.nats is None}
    medians, ranges = [], []
    for case in dict.fromkeys(one.case for one in found if one.case not in lost):
        (theirs, scatter), (median, narrow) = (
            spread([one.value for one in by_recipe[name] if one.case == case]) for name in (published, ours)
        )
        medians.append(median / theirs)
        ranges.append(narrow / scatter)
    evaluations = {name: sum(one.evaluations for one in group) for name, group in by_recipe.items()}
    rates = [one.rate for one in by_recipe[ours] if one.rate is not None]
    told: dict[str, float | None] = {
        "median ratio": statistics.median(medians) if medians else None,
        "range ratio": statistics.median(ranges) if ranges else None,
        "evaluations ratio": evaluations[ours] / evaluations[published],
        "confirmed": statistics.mean(rate >= COPY for rate in rates) if rates else None,
        **_expected(by_recipe[ours]),
    }
    for name, group in by_recipe.items():
        truth, values = [one.truth for one in group], [one.value for one in group]
        told[f"spearman {name}"] = float(spearmanr(truth, values).statistic) if len(set(truth)) > 1 else None
        held_out = [one.value for one in group if not one.truth]
        repeated = [one.value for one in group if one.truth]
        pairs = [(a < b) + (a == b) / 2 for a in repeated for b in held_out]
        told[f"auc {name}"] = statistics.mean(pairs) if pairs else None
    return told


def _expected(found: Sequence[Found]) -> dict[str, float | None]:
    """Expected shares of plain samples against the known ones, of pictures that come back in plain sampling at all."""
    pairs = [(one.expected, one.plain) for one in found if one.expected and one.plain]
    if not pairs:
        return {"expected share ratio": None, "expected share factor": None, "intervals that hold the share": None}
    logs = [math.log(expected.rate / plain) for expected, plain in pairs]
    return {
        "expected share ratio": math.exp(statistics.mean(logs)),
        "expected share factor": math.exp(math.sqrt(statistics.mean(log**2 for log in logs))),
        "intervals that hold the share": statistics.mean(one.low <= plain <= one.high for one, plain in pairs),
    }


def row(found: Sequence[Found]) -> list[str]:
    """What the searches of one picture by one recipe found, in words."""
    values = [one.value for one in found if one.nats is not None]
    rates = [one.rate for one in found if one.rate is not None]
    shares = [one.expected.rate for one in found if one.expected]
    median, scatter = spread(values) if len(values) > 1 else (math.nan, math.nan)
    return [
        found[0].case,
        found[0].recipe.split(" with ")[0],
        f"{len(values)} of {len(found)}",
        f"{median:.1f} ({scatter:.1f})" if values else "-",
        f"{statistics.mean(rates):.2f}" if rates else "-",
        f"{min(shares):.2g} to {max(shares):.2g}" if shares else "-",
        f"{found[0].plain:.2g}",
        f"{statistics.mean(one.with_gradient for one in found):,.0f}",
        f"{statistics.mean(one.forward for one in found):,.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("exact", "reference"), default="exact")
    parser.add_argument("--published", choices=("paper", "demo"), default="paper")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the recipe by dose")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--copies", default="256,64,16,0", help="which pictures of the reference model")
    parser.add_argument("--each", type=int, default=1, help="pictures of each number of copies")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model == "exact":
        backbone, cases, paper = exact_model()
    else:
        backbone, cases, paper = reference_model([int(word) for word in options.copies.split(",")], options.each)
    published = replace(DEMO, threshold=COPY) if options.published == "demo" else paper
    ours = by_dose(paper).changed(**Recipe.parse(options.set))
    table = Table(
        "picture", "recipe", "replicated", "nats: median (IQR)", "rate", "expected", "plain", "with gradient", "without"
    )
    found: list[Found] = []
    for case in cases:
        for recipe in (published, ours):
            searches = [search(backbone, case, recipe, seed) for seed in range(options.seeds)]
            table.add_row(*row(searches))
            found += searches
    told = compared(found, published.name, ours.name)
    Console(width=120).print(table)
    for name, value in told.items():
        print(f"{name}: {'-' if value is None else f'{value:.3g}'}")
    if options.json:
        options.json.write_text(
            json.dumps({"found": [asdict(one) for one in found], "compared": told}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
