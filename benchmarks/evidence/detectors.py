"""The detectors on all images of a set, with what they cost, kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.keep import kept
from benchmarks.common.plain_samples import similarities
from benchmarks.evidence.case import Case
from benchmarks.evidence.truth import SAMPLER
from invmm_eval import host, load_backbone, screen
from invmm_eval.search.detectors import Detector
from invmm_eval.similarity.pixel_cosine import PixelCosine

SCREEN = "loss at 0.2 T"
"""The default of ``invmm-eval screen``."""
SCREENS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    SCREEN: ("denoising-loss", {}),
    "mirrored loss at 0.2 T": ("mirrored-loss", {}),
    "loss at 0.1 T": ("denoising-loss", {"share": 0.1}),
}
"""Detectors that score all images of a set, with their options."""
OTHERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {"SecMI": ("secmi", {}), "PIA": ("pia", {})}
"""Detectors that score the searched images."""
NEAREST, SIZE = "nearest plain sample", "size of the PNG file, no model"


@dataclass(frozen=True)
class Scored:
    """Scores of images, the larger the more memorized, and network rows an image."""

    scores: NDArray[np.float64]
    rows: float


def screened(case: Case) -> dict[str, Scored]:
    """The scores of each screen for all images of the set, and what needs no network for each image."""
    images = list(range(len(case.data.images)))
    found = {SIZE: Scored(-case.data.sizes().astype(float), 0)}
    return found | {name: _scored(case, name, *detector, images) for name, detector in SCREENS.items()}


def scored(case: Case) -> dict[str, Scored]:
    """The scores of each detector for the searched images."""
    found = {name: Scored(one.scores[case.searched], one.rows) for name, one in screened(case).items()}
    found |= {name: _scored(case, name, *detector, case.searched) for name, detector in OTHERS.items()}
    return found | {NEAREST: _nearest(case)}


def _scored(case: Case, name: str, detector: str, options: Mapping[str, Any], images: list[int]) -> Scored:
    made: Detector = host().detector(detector)(**options)

    def find() -> Any:
        pixels = case.data.images[images]
        found = screen(case.folder, pixels, detector=detector, detector_options=options, batch_size=64, micro_batch=256)
        return [one.score for one in sorted(found, key=lambda one: one.index)]

    request = {"name": made.name, "settings": made.settings, "images": images}
    found = kept(case.root / "detectors" / case.name / f"{name}.json", request, find)
    return Scored(np.array(found), made.rows)


def _nearest(case: Case) -> Scored:
    samples = case.budget.attack

    def find() -> Any:
        backbone = load_backbone(case.folder)
        cosine = PixelCosine(device=backbone.device)
        alike = similarities(backbone, case.data.images, cosine, samples=samples, **SAMPLER).amax(dim=0)
        return alike.tolist()

    request = {"samples": samples, "images": len(case.data.images), **SAMPLER}
    found = np.array(kept(case.root / "detectors" / case.name / f"{NEAREST}.json", request, find))
    return Scored(found[case.searched], samples * SAMPLER["steps"] / len(found))
