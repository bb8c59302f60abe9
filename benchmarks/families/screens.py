"""Detectors on the captioned pictures of a small model: which of them tell those that were repeated, and for what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measures import auc, tpr
from benchmarks.families.data import Data, targets
from benchmarks.families.training import Family
from invmm_eval.audits.plan import load_backbone
from invmm_eval.reference import MICRO_BATCH
from invmm_eval.search.detectors import Detector
from invmm_eval.search.screening.caption_magnitude import CaptionMagnitude
from invmm_eval.search.screening.denoising_loss import DenoisingLoss
from invmm_eval.search.screening.proximal import Proximal
from invmm_eval.search.screening.sharpness import Sharpness
from invmm_eval.search.screening.step_error import StepError

DETECTORS: Mapping[str, Detector] = {
    "loss at 0.2 T": DenoisingLoss(),
    "SecMI": StepError(),
    "PIA": Proximal(),
    "caption magnitude": CaptionMagnitude(),
    "sharpness": Sharpness(),
}
COLUMNS = ("family", "detector", "AUC", "recall at 1 % false positives", "rows an image")


def screen(name: str, family: Family, model: Path, images: Data, device: str) -> Sequence[dict[str, Any]]:
    """How each detector ranks all pictures, each with its caption: the repeated ones, and single and held-out ones."""
    chosen = [*images.repeated, *images.single, *images.held_out]
    backbone = load_backbone(model, backbone_options={**family.options, "prompt_mode": "caption"}, device=device)
    wanted = targets(chosen, [family.caption(picture) for picture in chosen])
    x_0 = backbone.encode(torch.stack([target.image for target in wanted]).to(backbone.device) / 255)
    labels = [index < len(images.repeated) for index in range(len(chosen))]
    found = []
    for detector_name, detector in DETECTORS.items():
        scores = detector(backbone, x_0, wanted, seed=0, micro_batch=MICRO_BATCH).tolist()
        found.append(
            {
                "family": name,
                "detector": detector_name,
                "auc": auc(scores, labels),
                "recall": tpr(scores, labels),
                "rows": detector.rows,
            }
        )
    return found


def cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """The table's row of one detector."""
    return one["family"], one["detector"], f"{one['auc']:.3f}", f"{one['recall']:.2f}", f"{one['rows']:g}"
