"""Audits of the sets' models by one procedure or another, kept."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.counting import evaluations
from benchmarks.common.procedure import Procedure
from benchmarks.evidence import models
from benchmarks.evidence.data import Data
from benchmarks.evidence.keep import kept
from invmm_eval.audits.plan import load_backbone
from invmm_eval.recipe import DDPM, by_dose
from invmm_eval.search.target import Target
from invmm_eval.statistics.response import HALF

BATCH: dict[str, int] = {"batch_size": 16, "micro_batch": 128}
SHORT = DDPM.changed(max_steps=200, draws=8, check_every=10, sampler_steps=20)
"""The published settings with a tenth of the steps, a quarter of the draws and a tenth of the sampler steps."""
PUBLISHED = Procedure("published", SHORT)
BY_DOSE = Procedure(
    "ED50",
    by_dose(DDPM).changed(draws=8, sampler_steps=20),
    lambda result: result.ed50.nats if result.ed50 else None,
    HALF,
)
PROCEDURES = (PUBLISHED, BY_DOSE)
"""The others are compared with the first."""


@dataclass(frozen=True)
class Row:
    """One image's value."""

    image: int  # its number in the set
    copies: int  # in the training set
    replicated: bool  # whether a check was passed
    value: float  # nats over all dimensions; infinite if there is none
    steps: int
    fresh: float | None  # share of copies among fresh samples from the noise found, if some were drawn
    expected: Sequence[float] | None = None  # share of copies expected in plain sampling, and its interval


@dataclass(frozen=True)
class Audit:
    """Rows, and the cost of all of them in rows of network calls, without and with gradients."""

    rows: tuple[Row, ...]
    plain: int
    differentiated: int

    @property
    def evaluations(self) -> float:
        """Network evaluations per image."""
        return evaluations(self.plain, self.differentiated, self.rows)


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
    """Values of some images of a set under its model at one ``moment`` of the training; kept below ``root``."""
    name = f"{data.name}-{moment:g}-{seed}-{images[0]}-{images[-1]}"

    def find() -> Any:
        backbone = load_backbone(models.folder(root, data.name, moment), device="cpu")
        targets = [Target(data.images[index], str(index)) for index in images]
        way = procedure.changed(threshold=threshold)
        run = way.run(backbone, targets, seed=seed, fresh=fresh, title=f"{procedure.name} {name}", **BATCH)
        rows = [
            Row(
                image=index,
                copies=int(data.copies[index]),
                replicated=result.nats is not None,
                value=math.inf if (value := procedure.nats(result)) is None else value,
                steps=result.steps,
                fresh=share,
                expected=result.plain_share,
            )
            for index, result, share in zip(images, run.results, run.fresh, strict=True)
        ]
        return asdict(Audit(tuple(rows), run.rows_without, run.rows_with))

    request = {"images": list(images), "recipe": procedure.recipe.name, "threshold": threshold, "fresh": fresh}
    found = kept(root / "audits" / procedure.name / f"{name}.json", request, find)
    return Audit(tuple(Row(**row) for row in found["rows"]), found["plain"], found["differentiated"])
