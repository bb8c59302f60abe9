"""An image beside its samples, as reports show them, and which part of the image these samples copy."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invmm_eval.reports.summary import Summary
from invmm_eval.search.fields import percent
from invmm_eval.search.result import Result
from invmm_eval.search.sheet import cut
from invmm_eval.similarity.agreement import agreement

LEAST = 0.1
"""Area from which on samples that are no copies are said to copy a part: unrelated images have less in common."""
FADED = 0.85
"""Opacity of the veil, in [0, 1]."""


class Sample(NamedTuple):
    """A sample of the model.

    Attributes:
        image: Its pixels.
        similarity: To the image that was searched.
        is_copy: Whether the similarity reaches the threshold.
    """

    image: Image.Image
    similarity: float
    is_copy: bool


@dataclass(frozen=True)
class CopiedPart:
    """Where samples agree with an image (:mod:`invmm_eval.similarity.agreement`).

    Attributes:
        part: Which part of the area with contrast, in [0, 1].
        veil: To be laid over the image, at any size: white where they do not agree, as opaque as :data:`FADED`, else
            transparent.
        samples: Number of samples that were compared: those that are copies if there are any, else all.
        are_copies: Whether they are copies.
    """

    part: float
    veil: Image.Image
    samples: int
    are_copies: bool

    def over(self, image: Image.Image) -> Image.Image:
        """The image with the veil."""
        veil = self.veil.convert("RGBA").resize(image.size, Image.Resampling.NEAREST)
        return Image.alpha_composite(image.convert("RGBA"), veil).convert("RGB")

    @property
    def sentence(self) -> str:
        """What it says, in words."""
        kind = ("copy", "copies") if self.are_copies else ("sample", "samples")
        who = {1: f"The {kind[0]} shown matches", 2: f"Both {kind[1]} shown match"}.get(
            self.samples, f"Most of the {self.samples:,} {kind[1]} shown match"
        )
        area = "all" if self.part == 1 else percent(self.part)
        return f"{who} {area} of the image's area that has contrast."


@dataclass(frozen=True)
class Shown:
    """An image and the samples of its last check.

    Attributes:
        image: The image at the model's size.
        rows: Its samples by guidance scale.
        best: The best guidance scale.
        flip: Whether mirrored copies count.
    """

    image: Image.Image
    rows: Mapping[float, tuple[Sample, ...]]
    best: float
    flip: bool

    @classmethod
    def of(cls, summary: Summary, result: Result) -> Self | None:
        """What is shown of a result; None if its folder has no samples of it.

        Raises:
            InvMMError: The file is damaged.
        """
        sheet, check = summary.sheet(result), result.check
        if sheet is None or check is None:
            return None
        picture = partial(cut, sheet, summary.image_shape)
        rows = {
            scale: tuple(
                Sample(picture(row, column), similarity, similarity >= summary.threshold)
                for column, similarity in enumerate(similarities, start=1)
            )
            for row, (scale, similarities) in enumerate(check.similarities.items())
        }
        return cls(picture(0, 0), rows, check.best_scale, bool(summary.config["similarity"].get("flip")))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Those at the best guidance scale."""
        return self.rows[self.best]

    @property
    def tiles(self) -> list[list[Image.Image | None]]:
        """The samples in one row per guidance scale; the image is in front of the first."""
        rows = [[None, *(sample.image for sample in row)] for row in self.rows.values()]
        return [[self.image, *rows[0][1:]], *rows[1:]]

    @cached_property
    def copied(self) -> CopiedPart | None:
        """Which part of the image the samples at the best guidance scale copy; None if nothing is to be said.

        That is of an image without contrast, and of samples of which none is a copy and that have less than
        :data:`LEAST` in common with the image.
        """
        copies = [sample for sample in self.samples if sample.is_copy]
        samples = torch.stack([_pixels(sample.image) for sample in copies or self.samples])
        found = agreement(_pixels(self.image), samples, flip=self.flip)
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
