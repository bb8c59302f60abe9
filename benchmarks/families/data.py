"""The captioned pictures that small models are trained on, and what the training set does with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.common.data import SIDE, to_tensor
from invmm_eval.reference import all_pictures
from invmm_eval.search.target import Target

REPEATED, SINGLE, HELD_OUT, COPIES = 6, 58, 12, 64
OTHER = "other"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture ``(3, side, side)`` in [-1, 1], its name, and the row of Unicode's chart that it stands in."""

    name: str
    pixels: Tensor
    row: str = OTHER


ROWS = ("1F3", "1F4", "1F5", "1F6", "1F9", "1FA", OTHER)
"""The classes of class-conditional models: the rows with most pictures, and all others."""


@dataclass(frozen=True)
class Data:
    """Pictures by what the training set does with them; ``others`` are for autoencoders alone."""

    repeated: Sequence[Picture]
    single: Sequence[Picture]
    held_out: Sequence[Picture]
    others: Sequence[Picture]

    @property
    def rows(self) -> list[Picture]:
        return [*self.single, *(picture for picture in self.repeated for _ in range(COPIES))]


def data(side: int, seed: int = 0) -> Data:
    """The reference model's pictures, of which it repeated and held out the same, at a size."""
    known = sorted(all_pictures(), key=lambda picture: f"{picture.code}.svg")
    tensors = avg_pool2d(to_tensor(np.stack([np.asarray(picture.image) for picture in known])), SIDE // side)
    rows = [picture.code[:-2] if picture.code[:-2] in ROWS else OTHER for picture in known]
    chosen = [Picture(p.name, pixels, row) for p, pixels, row in zip(known, tensors, rows, strict=True)]
    shuffled = [chosen[index] for index in np.random.default_rng(seed).permutation(len(chosen))]
    ends = np.cumsum([REPEATED, SINGLE, HELD_OUT])
    return Data(shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] : ends[2]], shuffled[ends[2] :])


def stacked(chosen: Sequence[Picture]) -> Tensor:
    return torch.stack([picture.pixels for picture in chosen])


def words(known: Data) -> list[str]:
    """All words of the captions."""
    captioned = (*known.repeated, *known.single, *known.held_out)
    return sorted({word for picture in captioned for word in picture.name.replace("-", " ").split()})


def targets(chosen: Sequence[Picture], captions: Sequence[str]) -> list[Target]:
    """Pictures as an audit takes them."""
    images = ((stacked(chosen) / 2 + 0.5) * 255).round().to(torch.uint8)
    return [Target(image, p.name, text) for p, image, text in zip(chosen, images, captions, strict=True)]
