"""The captioned pictures that small models are trained on, and what the training set does with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.common.data import SIDE, to_tensor
from invmm_eval.audits.pictures import Source
from invmm_eval.reference import Picture, all_pictures

REPEATED, SINGLE, HELD_OUT, COPIES = 6, 58, 12, 64
ROWS = ("1F3", "1F4", "1F5", "1F6", "1F9", "1FA", "other")
"""The classes of class-conditional models: the rows of Unicode's chart with most pictures, and all others."""


def row_of(picture: Picture) -> str:
    """The row that a picture stands in."""
    return picture.code[:-2] if picture.code[:-2] in ROWS else ROWS[-1]


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


def data() -> Data:
    """The reference model's pictures, of which it repeated and held out others."""
    known = sorted(all_pictures(), key=lambda picture: f"{picture.code}.svg")
    shuffled = [known[index] for index in np.random.default_rng(0).permutation(len(known))]
    ends = np.cumsum([REPEATED, SINGLE, HELD_OUT])
    return Data(shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] : ends[2]], shuffled[ends[2] :])


def stacked(chosen: Sequence[Picture], side: int) -> Tensor:
    """Pictures ``(n, 3, side, side)`` in [-1, 1]."""
    return avg_pool2d(to_tensor(np.stack([np.asarray(picture.image) for picture in chosen])), SIDE // side)


def words(known: Data) -> list[str]:
    """All words of the captions."""
    captioned = (*known.repeated, *known.single, *known.held_out)
    return sorted({word for picture in captioned for word in picture.name.replace("-", " ").split()})


def sources(chosen: Sequence[Picture], side: int, caption: Callable[[Picture], str]) -> list[Source]:
    """Pictures as an audit takes them."""
    images = ((stacked(chosen, side) / 2 + 0.5) * 255).round().to(torch.uint8)
    return [Source(picture.name, image, caption(picture)) for picture, image in zip(chosen, images, strict=True)]
