"""One set of images with its models, the truth about them, and its audits; and how much of everything is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common.measures import middle
from benchmarks.common.procedure import Procedure
from benchmarks.evidence import models, truth
from benchmarks.evidence.audits import SHORT, Audit, Row, audited, grouped
from benchmarks.evidence.data import DOSES, load
from benchmarks.evidence.models import TRAININGS, Training, trained


@dataclass(frozen=True)
class Budget:
    """How much is made of everything."""

    trainings: Mapping[str, Training] = field(default_factory=lambda: TRAININGS)  # by set
    samples: int = 4096  # plain samples of a trained model, in which copies are counted
    early: int = 1024  # of a model earlier in its training
    seeds: int = 5  # of the searches
    per_dose: int = 3  # images of each number of copies
    members: int = 16  # single-copy images, and as many held-out ones, that are audited once
    steady: int = 2  # how many of these are audited with every seed
    along: int = 2  # images of some doses, and held-out ones, audited along training and with each weight
    fresh: int = 64  # samples drawn from the noise found for a replicated image
    attack: int = 1024  # plain samples of the nearest-neighbour detector
    exact: int = 2  # seeds of the exact cases
    guided: int = 6  # pictures of each kind of the text-guided model; 0 leaves it out


FULL = Budget()
SOME_DOSES = (256, 64, 16, 4)


class Case:
    """One set: the numbers of its images in their roles, the trained model's truth, and audits, made when requested."""

    def __init__(self, root: Path, name: str, budget: Budget) -> None:
        self.root = root
        self.name = name
        self.budget = budget
        self.data = load(root, name, budget.per_dose)
        trained(root, self.data, budget.trainings[name])
        self.truth = truth.counted(root, self.data, samples=budget.samples, steps=SHORT.sampler_steps)
        self.repeated = [index for dose in DOSES for index in self.data.at(dose)]
        self.single = self.data.at(1, budget.members)
        self.held_out = self.data.at(0, budget.members)

    @property
    def folder(self) -> Path:
        """The trained model."""
        return models.folder(self.root, self.name)

    @property
    def steady(self) -> list[int]:
        """The images audited with every seed."""
        count = self.budget.steady
        return [*self.repeated, *self.single[:count], *self.held_out[:count]]

    @property
    def along(self) -> list[int]:
        """Some repeated images of some doses, and some held out."""
        count = self.budget.along
        some = [index for dose in SOME_DOSES for index in self.data.at(dose, count)]
        return [*some, *self.held_out[: 2 * count]]

    def pixels(self, images: list[int]) -> Tensor:
        """Images as detectors take them, in [0, 1]."""
        return self.data.images[torch.tensor(images)].float() / 255

    def memorized(self, images: list[int]) -> NDArray[np.bool_]:
        """Of images, which came back at least once when copies were counted."""
        seen: NDArray[np.bool_] = self.truth.counts[images] > 0
        return seen

    def audit(
        self, procedure: Procedure, images: list[int], *, seed: int = 0, moment: float = 1.0, fresh: int = 0
    ) -> Audit:
        """Values of some images."""
        threshold = self.truth.threshold
        return audited(
            self.root, self.data, images, procedure, threshold=threshold, moment=moment, seed=seed, fresh=fresh
        )

    def over_seeds(self, procedure: Procedure) -> list[Audit]:
        """The steady images, once a seed; the first with fresh samples."""
        fresh = {0: self.budget.fresh}
        return [
            self.audit(procedure, self.steady, seed=seed, fresh=fresh.get(seed, 0)) for seed in range(self.budget.seeds)
        ]

    def once(self, procedure: Procedure) -> list[Row]:
        """All images, with the first seed: repeated ones, then some with one copy and some held out."""
        others = [*self.single[self.budget.steady :], *self.held_out[self.budget.steady :]]
        first = self.audit(procedure, self.steady, fresh=self.budget.fresh)
        return [*first.rows, *(self.audit(procedure, others).rows if others else ())]

    def medians(self, procedure: Procedure) -> dict[int, float]:
        """Of each steady image the median of its values over the seeds."""
        groups = grouped(self.over_seeds(procedure))
        return {group[0].image: middle([row.value for row in group]) for group in groups}
