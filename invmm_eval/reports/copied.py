"""Which part of a picture its samples copy: a share, a sentence, and a veil over the rest of the picture."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invmm_eval.reports.findings import Findings
from invmm_eval.search.fields import percent
from invmm_eval.search.sheet import cut
from invmm_eval.search.trace import Check
from invmm_eval.similarity.agreement import agreement

LEAST = 0.1
"""Part from which on it is told of samples that are no copies: so much, pictures share that have little in common."""
FADED = 0.85
"""Opacity of the veil, in [0, 1]."""


@dataclass(frozen=True)
class CopiedPart:
    """Where samples agree with a picture (:mod:`invmm_eval.similarity.agreement`).

    Attributes:
        part: Which part of the places that are not plain, in [0, 1].
        veil: To be laid over the picture, at any size: white where they do not agree, as opaque as :data:`FADED`, else
            transparent.
        samples: Number of samples that were compared: those that are copies if there are any, else all.
        are_copies: Whether they are copies.
    """

    part: float
    veil: Image.Image
    samples: int
    are_copies: bool

    def over(self, picture: Image.Image) -> Image.Image:
        """The picture with the veil."""
        veil = self.veil.convert("RGBA").resize(picture.size, Image.Resampling.NEAREST)
        return Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")

    @property
    def sentence(self) -> str:
        """What it says, in words."""
        kind = ("copy", "copies") if self.are_copies else ("sample", "samples")
        who = {1: f"The one {kind[0]} shown agrees", 2: f"Both {kind[1]} shown agree"}.get(
            self.samples, f"Most of the {self.samples:,} {kind[1]} shown agree"
        )
        return f"{who} with the picture in {percent(self.part)} of its parts that are not plain."


def copied_part(sheet: Image.Image, findings: Findings, check: Check) -> CopiedPart | None:
    """Which part of the picture of a sheet its samples at the best guidance scale copy; None if nothing is to be told.

    That is of a plain picture, and of samples of which none is a copy and that have less than :data:`LEAST` in common
    with the picture.

    Args:
        sheet: The picture and its samples.
        findings: The audit, which knows the threshold, and whether mirrored copies count.
        check: The check that the samples are of.
    """
    shape, row, similarities = findings.image_shape, check.best_row, check.similarities[check.best_scale]
    copies = [at for at, similarity in enumerate(similarities, start=1) if similarity >= findings.threshold]
    chosen = copies or range(1, 1 + len(similarities))
    picture = cut(sheet, shape, 0, 0)
    samples = torch.stack([_pixels(cut(sheet, shape, row, column)) for column in chosen])
    found = agreement(_pixels(picture), samples, flip=bool(findings.config["similarity"].get("flip")))
    if found.part is None or (found.part < LEAST and not copies):
        return None
    return CopiedPart(found.part, _veil(found.copied), len(samples), bool(copies))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _veil(copied: Tensor) -> Image.Image:
    veil = Image.fromarray(copied.numpy().astype(np.uint8), "P")
    veil.putpalette((255, 255, 255) * 2)
    veil.info["transparency"] = bytes((round(255 * FADED), 0))
    return veil
