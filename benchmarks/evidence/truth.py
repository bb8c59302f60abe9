"""The truth: copies of each image counted among plain samples.

A sample is a copy of an image from a pixel-cosine threshold on. It is set for each set of images by the held-out ones,
which no sample can be a copy of: the least of 0.90, 0.91, ... that no plain sample reaches with any of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.common.keep import kept
from benchmarks.common.plain_samples import similarities
from benchmarks.evidence import models
from benchmarks.evidence.data import Data
from invmm_eval.audits.plan import load_backbone
from invmm_eval.similarity.pixel_cosine import PixelCosine

SAMPLER: dict[str, Any] = {"sampler": "dpm-solver++", "steps": 10}
THRESHOLDS = tuple(step / 100 for step in range(90, 100))
PART = 4096
"""Samples that are compared together."""
SEED = 1_000_000  # of the first part's noises; detectors that sample have others


@dataclass(frozen=True)
class Truth:
    """The counts of one model."""

    samples: int  # plain samples drawn
    threshold: float  # pixel-cosine at which a sample is a copy
    held_out: float  # the greatest similarity of any sample to any held-out image
    counts: NDArray[np.int64]  # copies of each image among the samples

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of copies of each image."""
        shares: NDArray[np.float64] = self.counts / self.samples
        return shares

    def most(self, index: int) -> float:
        """The upper end of the 95 % interval of an image's share (Clopper and Pearson 1934)."""
        return float(binomtest(int(self.counts[index]), self.samples).proportion_ci(0.95, "exact").high)


def threshold_of(held_out: float) -> float:
    """The least threshold above what held-out images reached."""
    return next((threshold for threshold in THRESHOLDS if threshold > held_out), THRESHOLDS[-1])


def counted(root: Path, data: Data, samples: int) -> Truth:
    """Count copies of all images among plain samples of the trained model, or read the kept count."""

    def find() -> Any:
        backbone = load_backbone(models.folder(root, data.name))
        cosine, held_out = PixelCosine(device=backbone.device), 0.0
        counts = np.zeros((len(THRESHOLDS), len(data.images)), np.int64)
        for seed, done in enumerate(range(0, samples, PART), SEED):
            count = min(PART, samples - done)
            alike = similarities(backbone, data.images, cosine, samples=count, seed=seed, **SAMPLER).numpy()
            held_out = max(held_out, float(alike[:, data.copies == 0].max()))
            counts += [(alike >= threshold).sum(axis=0) for threshold in THRESHOLDS]
        threshold = threshold_of(held_out)
        chosen = counts[THRESHOLDS.index(threshold)].tolist()
        return {"threshold": threshold, "held_out": held_out, "counts": chosen}

    found = kept(root / "truth" / f"{data.name}.json", {"samples": samples, **SAMPLER}, find)
    return Truth(samples, found["threshold"], found["held_out"], np.array(found["counts"], np.int64))
