"""The published search and the search by dose: the scatter of values over seeds, their size, and their cost.

    python -m benchmarks.estimator                                   # an exact model: about a minute on one CPU core
    python -m benchmarks.estimator --model reference --copies 256,64,16 --json estimator.json

Every picture is searched by both recipes with several seeds. The table has, for each picture, the median and
interquartile range of the values in nats over all dimensions, the mean rate at which 64 fresh samples from the noise
found are copies, and the mean evaluations of the network, with and without a gradient. The ratios of
the two recipes follow, and how well values rank the pictures: Spearman's correlation with their weight or copies, and
the AUC of repeated pictures against held-out ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks import exact
from benchmarks.common.measures import mean, middle, rank_correlation, spread
from benchmarks.common.procedure import Procedure, Run
from benchmarks.common.script import parser, show, write
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load_backbone
from invmm_eval.models.backbone import Backbone
from invmm_eval.recipe import DDPM, DEMO, Recipe, by_dose
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, choose, pictures, plain_samples
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.statistics.ranking import auc

FRESH = 64  # samples from the noise found, to confirm it
CONFIRMED = 0.9  # share of copies among them at which it is confirmed


@dataclass(frozen=True)
class Case:
    """A picture, and what is known of it."""

    name: str
    target: Target
    truth: float  # its weight in the exact model, or its copies in training; 0 is held out
    plain: float  # its share of plain samples, known or counted


@dataclass(frozen=True)
class Found:
    """One search of one picture."""

    case: Case
    recipe: str
    seed: int
    run: Run

    @property
    def result(self) -> Result:
        return self.run.results[0]

    @property
    def value(self) -> float:
        return math.inf if self.result.nats is None else self.result.nats

    @property
    def evaluations(self) -> int:
        return self.run.rows_with + self.run.rows_without

    def record(self) -> dict[str, object]:
        """As JSON."""
        curve = {"ed50": self.result.ed50, "ed90": self.result.ed90}
        return {
            "case": self.case.name,
            "truth": self.case.truth,
            "plain": self.case.plain,
            "recipe": self.recipe,
            "seed": self.seed,
            "nats": self.result.nats,
            **{name: dose.nats if dose else None for name, dose in curve.items()},
            "expected": self.result.plain_share,
            "rate": self.run.fresh[0],
            "forward": self.run.rows_without,
            "with_gradient": self.run.rows_with,
            "seconds": self.result.seconds_steps + self.result.seconds_checks,
        }


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
            (picture.drawn or 0) / plain_samples(),
        )
        for picture in choose(pictures(), each=each, held_out=each)
        if picture.copies in copies
    ]
    return backbone, cases, replace(DDPM, threshold=THRESHOLD)


def search(backbone: Backbone, case: Case, recipe: Recipe, seed: int) -> Found:
    """One search, and fresh samples from what it found."""
    procedure = Procedure(recipe.name, recipe)
    run = procedure.run(backbone, [case.target], seed=seed, fresh=FRESH, micro_batch=MICRO_BATCH)
    return Found(case, recipe.name, seed, run)


def compared(found: Sequence[Found], published: str, ours: str) -> dict[str, float | None]:
    """The ratios of ours to the published estimate; those of values over pictures that every search replicated."""
    by_recipe = {name: [one for one in found if one.recipe == name] for name in (published, ours)}
    lost = {one.case.name for one in found if one.result.nats is None}
    medians, ranges = [], []
    for case in dict.fromkeys(one.case.name for one in found if one.case.name not in lost):
        theirs, values = ([one.value for one in by_recipe[name] if one.case.name == case] for name in (published, ours))
        medians.append(middle(values) / middle(theirs))
        ranges.append(spread(values) / spread(theirs))
    evaluations = {name: sum(one.evaluations for one in group) for name, group in by_recipe.items()}
    facts = {
        "median ratio": middle(medians),
        "range ratio": middle(ranges),
        "evaluations ratio": evaluations[ours] / evaluations[published],
        "confirmed": mean([rate >= CONFIRMED for rate in _rates(by_recipe[ours])]),
        **_expected(by_recipe[ours]),
    }
    for name, group in by_recipe.items():
        repeated, held_out = ([one.value for one in group if bool(one.case.truth) == seen] for seen in (True, False))
        facts[f"spearman {name}"] = rank_correlation([one.case.truth for one in group], [one.value for one in group])
        facts[f"auc {name}"] = auc(repeated, held_out) if repeated and held_out else math.nan
    return {name: None if math.isnan(value) else value for name, value in facts.items()}


def _rates(found: Sequence[Found]) -> list[float]:
    return [rate for one in found for rate in one.run.fresh if rate is not None]


def _expected(found: Sequence[Found]) -> dict[str, float]:
    """Expected shares of plain samples against the known ones, of pictures that come back in plain sampling at all."""
    pairs = [(share, one.case.plain) for one in found if (share := one.result.plain_share) and one.case.plain]
    logs = [math.log(expected.rate / plain) for expected, plain in pairs]
    return {
        "expected share ratio": math.exp(mean(logs)),
        "expected share factor": math.exp(math.sqrt(mean([log**2 for log in logs]))),
        "intervals that hold the share": mean([share.low <= plain <= share.high for share, plain in pairs]),
    }


def row(found: Sequence[Found]) -> list[str]:
    """The table's row of one picture and one recipe."""
    values = [one.value for one in found if one.result.nats is not None]
    shares = [one.result.plain_share.rate for one in found if one.result.plain_share]
    return [
        found[0].case.name,
        found[0].recipe.split(" with ")[0],
        f"{len(values)} of {len(found)}",
        f"{middle(values):.1f} ({spread(values):.1f})" if values else "-",
        f"{mean(_rates(found)):.2f}" if values else "-",
        f"{min(shares):.2g} to {max(shares):.2g}" if shares else "-",
        f"{found[0].case.plain:.2g}",
        f"{mean([one.run.rows_with for one in found]):,.0f}",
        f"{mean([one.run.rows_without for one in found]):,.0f}",
    ]


COLUMNS = (
    *("picture", "recipe", "replicated", "nats: median (IQR)", "rate", "expected", "plain"),
    *("with gradient", "without"),
)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", choices=("exact", "reference"), default="exact")
    arguments.add_argument("--published", choices=("paper", "demo"), default="paper")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes the recipe by dose")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--copies", default="256,64,16,0", help="which pictures of the reference model")
    arguments.add_argument("--each", type=int, default=1, help="pictures of each number of copies")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.model == "exact":
        backbone, cases, paper = exact_model()
    else:
        backbone, cases, paper = reference_model([int(word) for word in options.copies.split(",")], options.each)
    published = replace(DEMO, threshold=THRESHOLD) if options.published == "demo" else paper
    ours = by_dose(paper).changed(**Recipe.parse(options.set))
    groups = [
        [search(backbone, case, recipe, seed) for seed in range(options.seeds)]
        for case in cases
        for recipe in (published, ours)
    ]
    found = [one for group in groups for one in group]
    facts = compared(found, published.name, ours.name)
    show(COLUMNS, map(row, groups), width=120)
    for name, value in facts.items():
        print(f"{name}: {'-' if value is None else f'{value:.3g}'}")
    write(options.json, {"found": [one.record() for one in found], "compared": facts})


if __name__ == "__main__":
    main()
