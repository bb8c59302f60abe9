"""Audits of the sets' models by one recipe or another, kept."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common.keep import kept
from benchmarks.common.plans import measure, planned
from benchmarks.evidence import models
from benchmarks.evidence.data import Data
from invmm_eval.audits.plan import load_backbone
from invmm_eval.recipe import DDPM, Recipe, by_dose, fast
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target


@dataclass(frozen=True)
class Procedure:
    """A recipe, and the value of a result that ranks images: in nats, the smaller the more memorized."""

    name: str
    recipe: Recipe
    value: Callable[[Result], float | None]  # None, no value, ranks as infinite

    def changed(self, **settings: Any) -> "Procedure":
        """The same with other settings of its recipe."""
        return replace(self, recipe=self.recipe.changed(**settings))


SHORT = DDPM.changed(max_steps=200, draws=8, check_every=10, sampler_steps=20)
"""The published settings with a tenth of the steps, a quarter of the draws and a tenth of the sampler steps."""
PUBLISHED = Procedure("published", SHORT, lambda result: result.nats)
BY_DOSE = Procedure(
    "dose",
    by_dose(DDPM).changed(draws=8, sampler_steps=20),
    lambda result: result.ed50.nats if result.ed50 else None,
)
FAST = Procedure(
    "fast",
    fast(DDPM),
    lambda result: -math.log(share.rate) if (share := result.plain_share) and share.rate else None,
)
PROCEDURES = (FAST, BY_DOSE, PUBLISHED)


@dataclass(frozen=True)
class Row:
    """What a search says of one image."""

    image: int  # its number in the set
    copies: int  # in the training set
    replicated: bool
    value: float  # nats; infinite if there is none
    share: float | None  # share of copies among plain samples, if the recipe estimates it
    low: float | None  # its limits, each at 97.5 % confidence
    high: float | None
    rows: int  # rows through the network; with gradients they count three


def audited(
    root: Path, data: Data, images: Sequence[int], procedure: Procedure, threshold: float, seed: int
) -> tuple[Row, ...]:
    """What the procedure says of some images of a set under its model; kept below ``root``."""
    name = f"{data.name}-{seed}-{len(images)}"
    recipe = procedure.recipe.changed(threshold=threshold)

    def find() -> Any:
        plan = planned(load_backbone(models.folder(root, data.name)), recipe, seed)
        targets = [Target(data.images[index], str(index)) for index in images]
        title = f"{procedure.name} {name}"
        results = measure(plan, targets, batch_size=16, micro_batch=128, title=title)
        return [asdict(row(index, result)) for index, result in zip(images, results, strict=True)]

    def row(index: int, result: Result) -> Row:
        value, share = procedure.value(result), result.plain_share
        return Row(
            image=index,
            copies=int(data.copies[index]),
            replicated=result.nats is not None,
            value=math.inf if value is None else value,
            share=share and share.rate,
            low=share and share.low,
            high=share and share.high,
            rows=result.rows or 0,
        )

    request = {"images": list(images), "recipe": asdict(recipe)}
    return tuple(Row(**row) for row in kept(root / "audits" / procedure.name / f"{name}.json", request, find))
