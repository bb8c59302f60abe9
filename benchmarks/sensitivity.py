"""How much InvMM, and the verdict, depend on each setting: elasticities, d log InvMM / d log setting.

Each setting of the search is halved and doubled, all else as it is, on images that the model memorized and on ones that
it never saw. An image's elasticity is the slope between the two furthest values at which it was replicated. The table
gives the median over images and seeds, how many memorized images were replicated at the half, as it is and at the
double, and how many of the others (false replicas). Of the threshold it is the distance from 1 that is halved and
doubled. What cannot be doubled, the seed and the family of the noise, has the ratio of InvMM instead.

    python benchmarks/sensitivity.py                          # the reference model: some half an hour of one core
    python benchmarks/sensitivity.py --model MODEL --memorized FOLDER --held-out FOLDER --recipe paper --seeds 3

Every run is kept in a folder of its own below --runs, and is not made again.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.script import parser, show, write
from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.options import Choices, ModelOptions, Resources
from invmm_eval.audits.plan import Plan, load_backbone, make_plan
from invmm_eval.cli.options import pairs
from invmm_eval.models.backbone import Backbone
from invmm_eval.recipe import Recipe
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, choose, pictures
from invmm_eval.search.result import Result, Status

RUNS = Path(__file__).parents[1] / "runs" / "sensitivity"
SETTINGS = (
    *("max_steps", "check_every", "check_images", "draws", "sampler_steps"),
    *("learning_rate", "xi", "delta", "first_weight", "window"),
)
DOSES = (256, 64, 16)


@dataclass(frozen=True)
class Change:
    """A setting at another value: the value as the elasticity takes it, and the changed choices."""

    setting: str
    value: float | str = "as it is"
    choices: Mapping[str, Any] = field(default_factory=dict)


NO_CHANGE = Change("all")


@dataclass(frozen=True)
class Values:
    """InvMM of each image at each seed, infinite where it was not replicated."""

    value: float | str  # of the setting
    memorized: Sequence[float]
    held_out: Sequence[float]

    def record(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "replicated": sum(map(math.isfinite, self.memorized)),
            "false": sum(map(math.isfinite, self.held_out)),
            "invmm": [value if math.isfinite(value) else None for value in self.memorized],
        }


def changes(recipe: Recipe, threshold: float, options: Mapping[str, Any]) -> Iterator[tuple[Change, float, Change]]:
    """Each setting at the half and at the double, and between them what it is."""
    for name in SETTINGS:
        value = getattr(recipe, name)
        yield _set(recipe, name, value / 2), value, _set(recipe, name, value * 2)
    near, far = (Change("1 - threshold", d, {"settings": {"threshold": 1 - d}}) for d in _around(1 - threshold))
    yield near, 1 - threshold, far
    for name, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool):
            less, more = (
                Change(name, around, {"similarity_options": {**options, name: around}}) for around in _around(value)
            )
            yield less, value, more


def _around(value: float) -> tuple[float, float]:
    kind = type(value)
    return kind(value / 2), kind(value * 2)


def _set(recipe: Recipe, name: str, value: float) -> Change:
    """Counts stay whole, and steps a multiple of those between checks."""
    if isinstance(getattr(recipe, name), int):
        value = math.ceil(value)
    settings = {"max_steps": recipe.max_steps, "check_every": recipe.check_every, name: value}
    settings["max_steps"] = math.ceil(settings["max_steps"] / settings["check_every"]) * settings["check_every"]
    return Change(name, settings[name], {"settings": settings})


def elasticity(values: Sequence[float], invmm: Sequence[float]) -> float | None:
    """The slope of log InvMM over log values between the furthest two values of finite InvMM; None if there are not."""
    finite = [(math.log(v), math.log(found)) for v, found in zip(values, invmm, strict=True) if math.isfinite(found)]
    if len(finite) < 2:
        return None
    (low, first), *_, (high, last) = finite
    return (last - first) / (high - low)


def elastic(setting: str, runs: Sequence[Values]) -> dict[str, Any]:
    """The row of a setting, from its runs at growing values."""
    values = [float(run.value) for run in runs]
    slopes = [elasticity(values, found) for found in zip(*(run.memorized for run in runs), strict=True)]
    return _row(setting, "elasticity", [slope for slope in slopes if slope is not None], runs)


def ratio(setting: str, base: Values, other: Values) -> dict[str, Any]:
    """The row of a choice: InvMM with it over InvMM without it."""
    both = zip(base.memorized, other.memorized, strict=True)
    ratios = [after / before for before, after in both if math.isfinite(before) and math.isfinite(after)]
    return _row(setting, "ratio", ratios, [base, other])


def _row(setting: str, name: str, values: Sequence[float], runs: Sequence[Values]) -> dict[str, Any]:
    return {
        "setting": setting,
        name: statistics.median(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
        "runs": [run.record() for run in runs],
    }


@dataclass(frozen=True)
class Audits:
    """Audits of the same images with one change each, kept below ``folder``."""

    model: str | Path  # source of the backbone
    backbone: Backbone
    memorized: Sequence[Source]
    held_out: Sequence[Source]
    choices: Mapping[str, Any]  # of all audits
    seeds: int
    folder: Path

    def plan(self, change: Change = NO_CHANGE, seed: int = 0) -> Plan:
        settings = {**self.choices.get("settings", {}), **change.choices.get("settings", {})}
        choices = Choices(**{**self.choices, **change.choices, "settings": settings, "seed": seed})
        return make_plan(ModelOptions(source=self.model), choices, backbone=self.backbone)

    def run(self, change: Change = NO_CHANGE, *, first_seed: int = 0) -> Values:
        memorized: list[float] = []
        held_out: list[float] = []
        for seed in range(first_seed, first_seed + self.seeds):
            found = [result.invmm for result in self._results(change, seed)]
            memorized += found[: len(self.memorized)]
            held_out += found[len(self.memorized) :]
        return Values(change.value, memorized, held_out)

    def _results(self, change: Change, seed: int) -> list[Result]:
        value = change.value if isinstance(change.value, str) else f"{change.value:.4g}"
        folder = self.folder / f"{change.setting} {value}, seed {seed}"
        sources = [*self.memorized, *self.held_out]
        found = self.plan(change, seed).run(sources, Resources(micro_batch=MICRO_BATCH), out=folder)
        results = sorted(found, key=lambda result: result.index)
        if failed := [result for result in results if result.status is Status.FAILED]:
            raise SystemExit(f"{failed[0].name} could not be measured: {failed[0].error}")
        return results


def known(per_dose: int, held_out: int) -> tuple[list[Source], list[Source]]:
    """Pictures that the reference model was shown often, and some it never saw."""
    chosen = [p for p in choose(pictures(), each=per_dose, held_out=held_out) if p.copies in (*DOSES, 0)]
    sources = [Source(picture.name, picture.image) for picture in chosen]
    return sources[:-held_out], sources[-held_out:]


COLUMNS = ("setting", "values", "elasticity or ratio", "range", "replicated", "false replicas")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    middle = row.get("elasticity", row.get("ratio"))
    values = [run["value"] for run in row["runs"]]
    return [
        row["setting"],
        ", ".join(value if isinstance(value, str) else f"{value:.4g}" for value in values),
        "-" if middle is None else f"{'x ' if 'ratio' in row else ''}{middle:.2f}",
        "-" if middle is None else f"{row['least']:.2f} to {row['most']:.2f}",
        ", ".join(str(run["replicated"]) for run in row["runs"]),
        ", ".join(str(run["false"]) for run in row["runs"]),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    known_arguments = parser(__doc__)
    add = known_arguments.add_argument
    add("--model", default=MODEL)
    add("--memorized", nargs="+", help="images, as invmm-eval run takes them")
    add("--held-out", nargs="+")
    add("--per-dose", type=int, default=1, help="of the reference model's pictures")
    add("--unseen", type=int, default=2, help="of the reference model's held-out pictures")
    add("--recipe", default="demo")
    add("--set", action="append", default=[], metavar="KEY=VALUE")
    add("--similarity", default="pixel-cosine")
    add("--similarity-option", action="append", default=[], metavar="KEY=VALUE")
    add("--only", nargs="+", metavar="SETTING", help="some of the rows")
    add("--seeds", type=int, default=1)
    add("--runs", type=Path, default=RUNS)
    options = known_arguments.parse_args(arguments)
    torch.set_num_threads(1)
    memorized, held_out = (
        (find_images(*options.memorized), find_images(*options.held_out))
        if options.memorized and options.held_out
        else known(options.per_dose, options.unseen)
    )
    threshold = {"threshold": THRESHOLD} if options.model == MODEL else {}
    choices = {
        "similarity": options.similarity,
        "similarity_options": pairs(options.similarity_option),
        "recipe": options.recipe,
        "settings": {**threshold, **Recipe.parse(options.set)},
    }
    backbone = load_backbone(options.model)
    audits = Audits(options.model, backbone, memorized, held_out, choices, options.seeds, options.runs)
    plan = audits.plan()
    elastics = list(changes(plan.recipe, plan.threshold, choices["similarity_options"]))
    names = ["seed", "noise", *(less.setting for less, _, _ in elastics)]
    if unknown := sorted(set(options.only or ()) - set(names)):
        known_arguments.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    base = audits.run()

    def rows() -> Iterator[dict[str, Any]]:
        wanted = options.only or names
        if "seed" in wanted:
            yield ratio("seed", base, audits.run(first_seed=options.seeds))
        if "noise" in wanted:
            noise = "isotropic-gaussian"
            yield ratio("noise", base, audits.run(Change("noise", noise, {"noise": noise})))
        for less, value, more in elastics:
            if less.setting in wanted:
                yield elastic(less.setting, [audits.run(less), replace(base, value=value), audits.run(more)])

    found = []
    for row in rows():
        found.append(row)
        show(COLUMNS, [cells(row)])
        images = {"memorized": len(memorized), "held_out": len(held_out)}
        write(options.json, {**images, "config": plan.config, "rows": found})
    show(COLUMNS, map(cells, found))


if __name__ == "__main__":
    main()
