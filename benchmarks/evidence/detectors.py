"""The detectors on all images of a set, with what they cost, kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.plain_samples import similarities
from benchmarks.evidence.case import Case
from benchmarks.evidence.keep import kept
from benchmarks.evidence.truth import SAMPLER
from invmm_eval.audits.plan import load_backbone
from invmm_eval.search.detectors import Detector
from invmm_eval.search.screening.denoising_loss import DenoisingLoss
from invmm_eval.search.screening.mirrored_loss import MirroredLoss
from invmm_eval.search.screening.proximal import Proximal
from invmm_eval.search.screening.step_error import StepError
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine

SCREEN = "loss at 0.2 T"
"""The default of ``invmm-eval screen``."""
SCREENS: Mapping[str, Detector] = {
    SCREEN: DenoisingLoss(),
    "mirrored loss at 0.2 T": MirroredLoss(),
    "loss at 0.1 T": DenoisingLoss(0.1),
}
"""Detectors that score all images of a set."""
OTHERS: Mapping[str, Detector] = {"SecMI": StepError(), "PIA": Proximal()}
"""Detectors that score the searched images."""
NEAREST, SIZE = "nearest plain sample", "size of the PNG file, no model"
MICRO_BATCH = 256


@dataclass(frozen=True)
class Scored:
    """Scores of images, the larger the more memorized, and network rows an image."""

    scores: NDArray[np.float64]
    rows: float


def screened(case: Case) -> dict[str, Scored]:
    """The scores of each screen for all images of the set, and what needs no network for each image."""
    images = list(range(len(case.data.images)))
    found = {SIZE: Scored(-case.data.sizes().astype(float), 0)}
    return found | {name: _scored(case, name, detector, images) for name, detector in SCREENS.items()}


def scored(case: Case) -> dict[str, Scored]:
    """The scores of each detector for the searched images."""
    found = {name: Scored(one.scores[case.searched], one.rows) for name, one in screened(case).items()}
    found |= {name: _scored(case, name, detector, case.searched) for name, detector in OTHERS.items()}
    return found | {NEAREST: _nearest(case)}


def _scored(case: Case, name: str, detector: Detector, images: list[int]) -> Scored:
    def find() -> Any:
        backbone, pixels = load_backbone(case.folder), case.data.images[images]
        x_0, targets = backbone.encode(pixels.to(backbone.device).float() / 255), [Target(image) for image in pixels]
        return detector(backbone, x_0, targets, seed=0, micro_batch=MICRO_BATCH).tolist()

    request = {"name": detector.name, "settings": detector.settings, "images": images}
    found = kept(case.root / "detectors" / case.name / f"{name}.json", request, find)
    return Scored(np.array(found), detector.rows)


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
