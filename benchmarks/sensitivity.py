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

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from invmm_eval.audits.auditing import Choices, load_backbone, make_plan
from invmm_eval.audits.images import Source, find_images
from invmm_eval.cli.options import pairs
from invmm_eval.models.backbone import Backbone
from invmm_eval.recipe import Recipe
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, pictures
from invmm_eval.search.result import Result, Status

RUNS = Path(__file__).parents[1] / "runs" / "sensitivity"
SETTINGS = (
    *("max_steps", "check_every", "check_images", "draws", "sampler_steps"),
    *("learning_rate", "xi", "delta", "first_weight", "window"),
)
NOISES = ("isotropic-gaussian", "low-rank-gaussian")
DOSES = (256, 64, 16)


@dataclass(frozen=True)
class Change:
    """A setting at another value: the value as the elasticity takes it, and what is asked for."""

    setting: str
    value: float | str = "as it is"
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True)
class Found:
    """InvMM of each image at each seed, infinite where it was not replicated."""

    value: float | str
    memorized: Sequence[float]
    held_out: Sequence[float]

    def told(self) -> dict[str, Any]:
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
    """The slope of log InvMM over log values between the furthest two of finite InvMM; None of fewer."""
    there = [(math.log(v), math.log(found)) for v, found in zip(values, invmm, strict=True) if math.isfinite(found)]
    if len(there) < 2:
        return None
    (low, first), *_, (high, last) = there
    return (last - first) / (high - low)


def elastic(setting: str, runs: Sequence[Found]) -> dict[str, Any]:
    """The row of a setting, of its runs at growing values."""
    values = [float(run.value) for run in runs]
    slopes = [elasticity(values, found) for found in zip(*(run.memorized for run in runs), strict=True)]
    known = [slope for slope in slopes if slope is not None]
    return {"setting": setting, **_spread("elasticity", known), "runs": [run.told() for run in runs]}


def ratio(setting: str, base: Found, other: Found) -> dict[str, Any]:
    """The row of a choice: InvMM with it over that without."""
    both = zip(base.memorized, other.memorized, strict=True)
    ratios = [after / before for before, after in both if math.isfinite(before) and math.isfinite(after)]
    return {"setting": setting, **_spread("ratio", ratios), "runs": [base.told(), other.told()]}


def _spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    return {
        name: statistics.median(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
    }


class Audits:
    """Audits of the same images with one change each, kept below ``folder``.

    Args:
        model: What ``backbone`` is of.
        backbone: The model.
        memorized: Images that it memorized.
        held_out: Images that it never saw.
        choices: What is asked for in all of them.
        seeds: How many.
        folder: Where they are kept.
    """

    def __init__(
        self,
        model: str | Path,
        backbone: Backbone,
        memorized: Sequence[Source],
        held_out: Sequence[Source],
        choices: Choices,
        seeds: int,
        folder: Path,
    ) -> None:
        self.plan = make_plan(backbone, model, **choices)
        self._model = model
        self._sources = [*memorized, *held_out]
        self._split = len(memorized)
        self._choices = choices
        self._seeds = seeds
        self._folder = folder

    def run(self, change: Change, *, first_seed: int = 0) -> Found:
        memorized: list[float] = []
        held_out: list[float] = []
        for seed in range(first_seed, first_seed + self._seeds):
            found = [result.invmm for result in self._results(change, seed)]
            memorized += found[: self._split]
            held_out += found[self._split :]
        return Found(change.value, memorized, held_out)

    def _results(self, change: Change, seed: int) -> list[Result]:
        settings = {**self._choices.get("settings", {}), **change.choices.get("settings", {})}
        choices: Choices = {**self._choices, **change.choices, "settings": settings, "seed": seed}
        plan = make_plan(self.plan.backbone, self._model, **choices)
        value = change.value if isinstance(change.value, str) else f"{change.value:.4g}"
        folder = self._folder / f"{change.setting} {value}, seed {seed}"
        results = sorted(plan.run(self._sources, out=folder, micro_batch=MICRO_BATCH), key=lambda result: result.index)
        if failed := [result for result in results if result.status is Status.FAILED]:
            raise SystemExit(f"{failed[0].name} could not be measured: {failed[0].error}")
        return results


def known(per_dose: int, held_out: int) -> tuple[list[Source], list[Source]]:
    """Pictures that the reference model was shown often, and some it never saw."""
    chosen = {dose: [p for p in pictures() if p.copies == dose] for dose in (*DOSES, 0)}
    memorized = [picture for dose in DOSES for picture in chosen[dose][:per_dose]]
    return [Source(p.name, p.image) for p in memorized], [Source(p.name, p.image) for p in chosen[0][:held_out]]


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table("setting", "values", "elasticity or ratio", "range", "replicated", "false replicas")
    for row in rows:
        middle = row.get("elasticity", row.get("ratio"))
        bounds = "-" if middle is None else f"{row['least']:.2f} to {row['most']:.2f}"
        values = [run["value"] for run in row["runs"]]
        shown.add_row(
            row["setting"],
            ", ".join(value if isinstance(value, str) else f"{value:.4g}" for value in values),
            "-" if middle is None else f"{'x ' if 'ratio' in row else ''}{middle:.2f}",
            bounds,
            ", ".join(str(run["replicated"]) for run in row["runs"]),
            ", ".join(str(run["false"]) for run in row["runs"]),
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--memorized", nargs="+", help="images, as invmm-eval run takes them")
    parser.add_argument("--held-out", nargs="+")
    parser.add_argument("--per-dose", type=int, default=1, help="of the reference model's pictures")
    parser.add_argument("--unseen", type=int, default=2, help="of the reference model's held-out pictures")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--similarity", default="pixel-cosine")
    parser.add_argument("--similarity-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="some of the rows")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = known(options.per_dose, options.unseen)
    if options.memorized and options.held_out:
        chosen = find_images(*options.memorized), find_images(*options.held_out)
    memorized, held_out = chosen
    threshold = {"threshold": THRESHOLD} if options.model == MODEL else {}
    choices: Choices = {
        "similarity": options.similarity,
        "similarity_options": pairs(options.similarity_option),
        "recipe": options.recipe,
        "settings": {**threshold, **Recipe.parse(options.set)},
    }
    backbone = load_backbone(options.model)
    audits = Audits(options.model, backbone, memorized, held_out, choices, options.seeds, options.runs)
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        Console().print(table(rows[-1:]))
        if options.json:
            told = {"memorized": len(memorized), "held_out": len(held_out), "config": audits.plan.config, "rows": rows}
            options.json.write_text(json.dumps(told, indent=1) + "\n")

    plan = audits.plan
    elastics = list(changes(plan.recipe, plan.threshold, choices["similarity_options"]))
    names = ["seed", "noise", *(less.setting for less, _, _ in elastics)]
    if unknown := sorted(set(options.only or ()) - set(names)):
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    wanted = options.only or names
    base = audits.run(Change("all"))
    if "seed" in wanted:
        add(ratio("seed", base, audits.run(Change("all"), first_seed=options.seeds)))
    if "noise" in wanted:
        for noise in NOISES:
            add(ratio("noise", base, audits.run(Change("noise", noise, {"noise": noise}))))
    for less, value, more in elastics:
        if less.setting in wanted:
            add(elastic(less.setting, [audits.run(less), replace(base, value=value), audits.run(more)]))
    Console().print(table(rows))


if __name__ == "__main__":
    main()
