"""One set of images with its model, the truth about them, and its audits; and how much of everything is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence import models, truth
from benchmarks.evidence.audits import Procedure, Row, audited
from benchmarks.evidence.data import DOSES, SOURCES, load
from benchmarks.evidence.models import Training, trained
from invmm_eval.reference import NAME

MEMORIZED = 1e-3
"""An image is memorized if it makes up this share of the plain samples, or more."""


@dataclass(frozen=True)
class Budget:
    """How much is made of everything."""

    trainings: Mapping[str, Training]  # by set
    procedures: tuple[Procedure, ...]  # the first is the fast search
    per_dose: int = 3  # images of each number of copies
    others: int = 8  # single-copy images, and as many held-out and matched ones, that are searched
    attack: int = 512  # plain samples of the nearest-neighbour detector
    exact: int = 2  # seeds of the exact cases
    audits: int = 200  # whole-set audits that are simulated

    @property
    def sets(self) -> list[str]:
        """The sets whose images there are."""
        return [name for name in self.trainings if name in SOURCES or name == NAME]


class Case:
    """One set: the numbers of its images in their roles, the trained model's truth, and audits, made when requested."""

    def __init__(self, root: Path, name: str, budget: Budget) -> None:
        self.root = root
        self.name = name
        self.budget = budget
        self.data = load(root, name, budget.per_dose)
        self.training = budget.trainings[name]
        trained(root, self.data, self.training)
        self.truth = truth.counted(root, self.data, self.training.samples)
        repeated = [index for dose in DOSES for index in self.data.at(dose)]
        unmatched = len(self.data.images) - self.data.matched
        held_out = [index for index in self.data.at(0) if index < unmatched][: budget.others]
        matched = list(range(unmatched, len(self.data.images)))[: budget.others]
        single = self.data.at(1, budget.others)
        self.searched = [*repeated, *single, *held_out, *matched]
        """The images of the fast search."""
        self.some = [*repeated[:: budget.per_dose], *single[:4], *held_out[:4]]
        """Those of the other searches."""

    @property
    def folder(self) -> Path:
        """The trained model."""
        return models.folder(self.root, self.name)

    @property
    def memorized(self) -> NDArray[np.bool_]:
        """Of all images, which make up a share of :data:`MEMORIZED` or more of the plain samples."""
        seen: NDArray[np.bool_] = self.truth.shares >= MEMORIZED
        return seen

    def audits(self, procedure: Procedure) -> list[tuple[Row, ...]]:
        """What the procedure says of its images, for each seed."""
        first = procedure is self.budget.procedures[0]
        images, seeds = (self.searched, self.training.seeds) if first else (self.some, 1)
        return [audited(self.root, self.data, images, procedure, self.truth.threshold, seed) for seed in range(seeds)]
