"""The truth: copies of each image counted among plain samples, with Clopper-Pearson intervals.

A sample is a copy of an image from a pixel-cosine threshold on. It is set for each set of images by the held-out ones,
which no sample can be a copy of: the least of 0.90, 0.91, ... that no plain sample of the trained model reaches with
any of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.baselines import sampled
from benchmarks.evidence import models
from benchmarks.evidence.data import Data
from benchmarks.evidence.keep import kept
from invmm_eval.audits.plan import load_backbone
from invmm_eval.similarity.pixel_cosine import PixelCosine

CONFIDENCE = 0.95
LEAST_THRESHOLD = 0.9
SEED = 1_000_000
"""Of the noises that are counted; detectors that sample have others."""


@dataclass(frozen=True)
class Truth:
    """The counts of one model."""

    samples: int  # plain samples drawn
    threshold: float  # pixel-cosine at which a sample is a copy
    held_out: float  # the greatest similarity of any sample to any held-out image
    counts: NDArray[np.int64]  # copies of each image among the samples

    @property
    def rates(self) -> NDArray[np.float64]:
        """Copies a sample."""
        rates: NDArray[np.float64] = self.counts / self.samples
        return rates

    def interval(self, index: int) -> tuple[float, float]:
        """The 95 % interval of an image's rate (Clopper and Pearson 1934)."""
        return clopper_pearson(int(self.counts[index]), self.samples)


def clopper_pearson(count: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact two-sided interval of a rate of which ``count`` of ``n`` were seen."""
    interval = binomtest(count, n).proportion_ci(confidence, "exact")
    return float(interval.low), float(interval.high)


def threshold_of(held_out: float) -> float:
    """The least threshold, to a hundredth, above what held-out images reached."""
    hundredths = [step / 100 for step in range(round(100 * LEAST_THRESHOLD), 100)]
    return next((threshold for threshold in hundredths if threshold > held_out), 0.99)


def counted(
    root: Path, data: Data, *, moment: float = 1.0, threshold: float | None = None, samples: int, steps: int
) -> Truth:
    """Count copies of all images among plain samples of a model; the trained one (no ``threshold``) sets it."""

    def find() -> Any:
        folder = models.folder(root, data.name, moment)
        alike = sampled(
            load_backbone(folder, device="cpu"),
            data.images.float() / 255,
            PixelCosine(device=torch.device("cpu")),
            samples=samples,
            steps=steps,
            seed=SEED,
        ).numpy()
        reached = float(alike[:, data.copies == 0].max())
        limit = threshold_of(reached) if threshold is None else threshold
        return {"threshold": limit, "held_out": reached, "counts": (alike >= limit).sum(axis=0).tolist()}

    request = {"samples": samples, "steps": steps, "threshold": threshold}
    found = kept(root / "truth" / f"{data.name}-{moment:g}.json", request, find)
    return Truth(samples, found["threshold"], found["held_out"], np.array(found["counts"]))
