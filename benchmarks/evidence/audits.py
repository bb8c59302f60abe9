"""Audits of the models by one procedure or another: a procedure is a recipe, and how its value is read."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.baselines.counting import counted
from benchmarks.evidence import models
from benchmarks.evidence.data import Data
from benchmarks.evidence.keep import kept
from invmm_eval.audits.auditing import Plan, load_backbone, make_plan
from invmm_eval.audits.images import Source
from invmm_eval.recipe import DDPM, Recipe, by_dose
from invmm_eval.search.inversion import replicate
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.bound import RATE
from invmm_eval.statistics.response import HALF

BATCH, ROWS = 16, 128
"""Images searched together, and rows that go through the network at once."""
SHORT = DDPM.changed(max_steps=200, draws=8, check_every=10, sampler_steps=20)
"""The published settings, but for a tenth of the steps, a quarter of the draws and a tenth of the sampler's steps."""


@dataclass(frozen=True)
class Procedure:
    """A way to find an image's value.

    Attributes:
        name: What tables call it.
        recipe: Settings of the search.
        nats: The value in nats over all dimensions; None where there is none, which ranks as infinite.
        rate: Share of copies that the value stands for.
    """

    name: str
    recipe: Recipe
    nats: Callable[[Result], float | None] = lambda result: result.nats
    rate: float = RATE


PUBLISHED = Procedure("published", SHORT)
BY_DOSE = Procedure(
    "ED50",
    by_dose(DDPM).changed(draws=8, sampler_steps=20),
    lambda result: result.ed50.nats if result.ed50 else None,
    HALF,
)
PROCEDURES = (PUBLISHED, BY_DOSE)
"""The first is what the others are held against."""


@dataclass(frozen=True)
class Row:
    """One image's value.

    Attributes:
        image: Its number in the set.
        copies: In the training set.
        replicated: Whether a check was passed.
        value: Nats in all; infinite where there is none.
        steps: Steps taken.
        fresh: Share of fresh samples from the noise found that are copies; None where they were not drawn.
        expected: Share of copies expected in plain sampling, and the ends of its interval; None where it is not told.
    """

    image: int
    copies: int
    replicated: bool
    value: float
    steps: int
    fresh: float | None
    expected: Sequence[float] | None = None


@dataclass(frozen=True)
class Audit:
    """Rows, and what was spent on all of them: rows of the network, without and with gradients."""

    rows: tuple[Row, ...]
    plain: int
    differentiated: int

    @property
    def evaluations(self) -> float:
        """Network evaluations an image. One with gradients counts three, as its pass backward costs about two."""
        return (self.plain + 3 * self.differentiated) / len(self.rows)


def grouped(audits: Sequence[Audit]) -> list[tuple[Row, ...]]:
    """Each image's rows, of audits of the same images."""
    return list(zip(*(audit.rows for audit in audits), strict=True))


def audited(
    root: Path,
    data: Data,
    images: Sequence[int],
    procedure: Procedure,
    *,
    threshold: float,
    moment: float = 1.0,
    seed: int = 0,
    fresh: int = 0,
) -> Audit:
    """Values of images under one of the set's models.

    Args:
        root: Where all is kept.
        data: The set.
        images: Numbers of its images.
        procedure: How the values are found.
        threshold: beta.
        moment: Which of the set's models.
        seed: Of the searches.
        fresh: Samples drawn from the noise found for each replicated image.
    """
    name = f"{data.name}-{moment:g}-{seed}-{images[0]}-{images[-1]}"

    def find() -> Any:
        folder = models.folder(root, data.name, moment)
        backbone, counter = counted(load_backbone(folder, device="cpu"))
        told = {"threshold": threshold}
        plan = make_plan(backbone, folder, similarity="pixel-cosine", recipe=procedure.recipe, settings=told, seed=seed)
        sources = [Source(str(index), data.images[index]) for index in images]
        running = plan.run(sources, batch_size=BATCH, micro_batch=ROWS)
        results = list(track(running, f"{procedure.name} {name}", len(sources), transient=True))
        spent = counter.plain, counter.differentiated
        rows = [_row(data, result, procedure, plan, fresh) for result in results]
        rows.sort(key=lambda row: images.index(row.image))
        return asdict(Audit(tuple(rows), *spent))

    asked = {"images": list(images), "recipe": procedure.recipe.name, "threshold": threshold, "fresh": fresh}
    found = kept(root / "audits" / procedure.name / f"{name}.json", asked, find)
    return Audit(tuple(Row(**row) for row in found["rows"]), found["plain"], found["differentiated"])


def _row(data: Data, result: Result, procedure: Procedure, plan: Plan, fresh: int) -> Row:
    image = int(result.name)
    replicated, value = result.status is Status.REPLICATED, procedure.nats(result)
    rate = None
    if fresh and replicated:
        drawn = replicate(plan.backbone, result, plan.noise, fresh, recipe=plan.recipe)
        alike = plan.similarity.compare(
            plan.similarity.embed(drawn), plan.similarity.embed(data.images[image][None] / 255)
        )
        rate = (alike >= plan.threshold).float().mean().item()
    return Row(
        image=image,
        copies=int(data.copies[image]),
        replicated=replicated,
        value=math.inf if value is None else value,
        steps=result.steps,
        fresh=rate,
        expected=result.plain_share,
    )
