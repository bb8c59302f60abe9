"""The other detectors on a set's images, with what they spend, kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.baselines import loss, pia, sampled, secmi
from benchmarks.common.counting import counted
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.audits import SHORT
from benchmarks.evidence.case import Case
from benchmarks.evidence.keep import kept
from invmm_eval.audits.plan import load_backbone
from invmm_eval.models.backbone import Backbone
from invmm_eval.similarity.pixel_cosine import PixelCosine

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Times of the loss, of the way to the noisiest."""
LOSSES = tuple(f"loss at {share:g} T" for share in SHARES)
STEP_ERROR, PROXIMAL, NEAREST = "step error (SecMI)", "proximal (PIA)", "nearest plain sample"
MEMBERSHIP = (*LOSSES, STEP_ERROR, PROXIMAL)


@dataclass(frozen=True)
class Scored:
    """Scores of images, the larger the more memorized, and network evaluations per image."""

    scores: NDArray[np.float64]
    evaluations: float


def scored(case: Case, images: list[int]) -> dict[str, Scored]:
    """The scores of each other detector."""
    pixels = case.pixels(images)

    def near(backbone: Backbone) -> Tensor:
        cosine = PixelCosine(device=torch.device("cpu"))
        attack = case.budget.attack
        return sampled(backbone, pixels, cosine, samples=attack, steps=SHORT.sampler_steps).amax(dim=0)

    ways: Mapping[str, Callable[[Backbone], Tensor]] = {
        **{name: partial(loss, images=pixels, share=share) for name, share in zip(LOSSES, SHARES, strict=True)},
        STEP_ERROR: partial(secmi, images=pixels),
        PROXIMAL: partial(pia, images=pixels),
        NEAREST: near,
    }

    def find() -> Any:
        found = {}
        for name, way in ways.items():
            backbone, counter = counted(load_backbone(case.folder, device="cpu"))
            found[name] = {"scores": way(backbone).tolist(), "evaluations": counter.rows_without / len(images)}
        return found

    request = {"images": images, "attack": case.budget.attack, "detectors": list(ways)}
    found = kept(case.root / "detectors" / f"{case.name}.json", request, find)
    return {name: Scored(np.array(one["scores"]), one["evaluations"]) for name, one in found.items()}


def judged(case: Case, procedures: Sequence[Procedure]) -> tuple[list[int], dict[str, Scored]]:
    """The images that are audited once, and the scores of the procedures and of all other detectors."""
    found = {}
    for procedure in procedures:
        rows = case.once(procedure)
        spent = case.audit(procedure, case.steady, fresh=case.budget.fresh).evaluations
        found[procedure.name] = Scored(-np.array([row.value for row in rows]), spent)
    images = [row.image for row in rows]
    return images, found | scored(case, images)
