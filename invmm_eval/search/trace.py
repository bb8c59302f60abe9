"""What is seen of a search while it runs: a point of its trace at each check, and the check itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from torch import Tensor


class Point(NamedTuple):
    """The state of a search at one check: step, average loss, KL per dimension, lambda, and the check's score."""

    step: int
    loss: float
    kl: float
    weight: float
    score: float


class Judged(StrEnum):
    """Which of the similarities at a guidance scale decides about a check."""

    LEAST = "least"
    GREATEST = "greatest"


@dataclass(frozen=True)
class Check:
    """The samples of one image at one check, and their similarities to the image.

    Attributes:
        passed: Whether the criterion was met.
        similarities: By guidance scale: all K values, or fewer where the decision did not need them.
        samples: By guidance scale: the samples, uint8 ``(m, C, H, W)``, on the CPU.
        judged_by: Which of the similarities at a scale decides.
        best: The best scale and its score, where they are known without the similarities.
    """

    passed: bool
    similarities: Mapping[float, tuple[float, ...]]
    samples: Mapping[float, Tensor] = field(repr=False)
    judged_by: Judged = Judged.LEAST
    best: tuple[float, float] | None = field(default=None, compare=False)

    @property
    def score(self) -> float:
        """The deciding similarity at the best scale, which is compared with beta; NaN counts as -inf."""
        return self.best[1] if self.best else self._deciding(self.best_scale)

    @property
    def best_scale(self) -> float:
        """The guidance scale of :attr:`score`; of a passed check of all samples one at which all K passed."""
        if self.best:
            return self.best[0]

        def key(scale: float) -> tuple[int, float]:
            drawn = len(self.similarities[scale]) if self.passed and self.judged_by is Judged.LEAST else 0
            return drawn, self._deciding(scale)

        return max(self.similarities, key=key)

    @property
    def best_row(self) -> int:
        """The row of :attr:`best_scale` in the sheet of the image."""
        return list(self.similarities).index(self.best_scale)

    def hits(self, threshold: float) -> dict[float, int]:
        """Number of samples that reach a threshold, by guidance scale."""
        return {scale: sum(value >= threshold for value in values) for scale, values in self.similarities.items()}

    def at(self, scale: float) -> "Check":
        """The check restricted to one guidance scale."""
        return replace(
            self, similarities={scale: self.similarities[scale]}, samples={scale: self.samples[scale]}, best=None
        )

    def _deciding(self, scale: float) -> float:
        values = [-math.inf if math.isnan(value) else value for value in self.similarities[scale]]
        return min(values) if self.judged_by is Judged.LEAST else max(values)
