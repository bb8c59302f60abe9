"""Near copies: a similarity for which a mirrored, shifted or cropped copy is a copy too.

Let ``V(x)`` be the views of an image: itself, parts of it at its full size, and the same of its mirror image. Of the
pairs of views that show the same where one image is such a copy of the other, the best decides:

    similarity(a, b) = max over pairs (i, j) of s(V_i(a), V_j(b)),   s the similarity that is wrapped
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from invmm_eval.errors import InvMMError
from invmm_eval.similarity import Similarity

LEAST_CROP = 0.5
"""The smallest part that counts as a crop, as a share of the sides."""


class NearCopies:
    """A similarity that also finds near copies; it is at least the similarity that it wraps.

    Features take as many times the time and memory as there are views: 1, and ``(shift + 1)^2`` for shifts, and 5 for
    crops, all of them twice with ``flip``.

    The more counts as a copy, the more alike are different pictures. Measured at 32x32 with ``pixel-cosine``, of the
    147,696 pairs of 544 different OpenMoji pictures none reaches 0.8 without options, with ``shift=2`` or with
    ``crop=0.8``, and one does with ``flip`` or with all three. One pair in a thousand reaches 0.45 without options and
    with ``flip``, 0.54 with ``shift=1``, 0.56 with ``shift=2``, 0.53 with ``crop=0.8``, and 0.58 with all. Copies that
    are shifted by a pixel in both directions, with Gaussian noise of 0.05, reach 0.8 in 0.4 % of cases without options,
    and in all with ``shift=1``.

    Args:
        similarity: Compares two views.
        flip: Whether a copy may be mirrored, left to right.
        shift: By how many pixels of the model's images a copy may be shifted, in any direction; what is shifted out of
            the frame does not count.
        crop: Which part of the sides a copy shows of the picture, enlarged, or the picture of the copy, from
            :data:`LEAST_CROP` to below 1: in the middle or at a corner. None counts no crops.

    Raises:
        InvMMError: The shift or the crop is out of its range.
    """

    def __init__(
        self, similarity: Similarity, *, flip: bool = False, shift: int = 0, crop: float | None = None
    ) -> None:
        if shift < 0:
            raise InvMMError(f"The shift of near copies is {shift}; it must be a number of pixels, at least 0.")
        if crop is not None and not LEAST_CROP <= crop < 1:
            raise InvMMError(f"The crop of near copies is {crop}; it must be at least {LEAST_CROP} and below 1.")
        self._similarity = similarity
        self.flip = flip
        self._shift = shift
        self._crop = crop
        self.name = similarity.name
        self.threshold = similarity.threshold
        chosen = {"flip": flip or None, "shift": shift or None, "crop": crop}
        self.settings: Mapping[str, str | int | float | None] = {
            **similarity.settings,
            **{name: value for name, value in chosen.items() if value is not None},
        }
        self._pairs = self._paired()

    def embed(self, images: Tensor) -> Tensor:
        """Features of all views of each image, ``(n, views, ...)``."""
        sides = [images, images.flip(-1)] if self.flip else [images]
        return torch.stack([self._similarity.embed(view) for side in sides for view in self._views(side)], dim=1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """The best similarity ``(n, m)`` of two views; NaN where that of the images themselves is not defined."""
        itself = best = self._similarity.compare(a[:, 0], b[:, 0])
        for one, other in self._pairs:
            best = torch.fmax(best, self._similarity.compare(a[:, one], b[:, other]))
        return best.masked_fill(itself.isnan(), torch.nan)

    def _views(self, images: Tensor) -> list[Tensor]:
        """The images, windows of one size that are shifted against each other, and parts at the corners and middle."""
        height, width = images.shape[-2:]
        if self._shift >= min(height, width) // 2:
            raise InvMMError(
                f"A shift of {self._shift} pixels is too large for images of {height}x{width}; it must be below half "
                "of the side."
            )
        views = [images]
        if self._shift:
            size = height - self._shift, width - self._shift
            steps = range(self._shift + 1)
            views += [_part(images, (top, left), size) for top, left in product(steps, steps)]
        if self._crop:
            size = round(self._crop * height), round(self._crop * width)
            free = height - size[0], width - size[1]
            corners = [(top, left) for top in (0, free[0]) for left in (0, free[1])]
            places = [*corners, (free[0] // 2, free[1] // 2)]
            views += [_part(images, place, size) for place in places]
        return views

    def _paired(self) -> list[tuple[int, int]]:
        """Positions of the views that show the same in near copies, without that of the images themselves."""
        side = self._shift + 1
        pairs = [(0, 0)]
        if self._shift:
            ways = range(-self._shift, side)
            pairs += [
                (1 + side * max(dy, 0) + max(dx, 0), 1 + side * max(-dy, 0) + max(-dx, 0))
                for dy, dx in product(ways, ways)
            ]
        count = 1 + (side**2 if self._shift else 0)
        if self._crop:
            pairs += [pair for view in range(count, count + 5) for pair in ((0, view), (view, 0))]
            count += 5
        if self.flip:
            pairs += [pair for one, other in pairs for pair in ((one, other + count), (one + count, other))]
        return pairs[1:]


def _part(images: Tensor, place: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A part of images at their full size."""
    (top, left), (height, width) = place, size
    part = images[..., top : top + height, left : left + width]
    return interpolate(part, images.shape[-2:], mode="bilinear", antialias=True)


OPTIONS = ("flip", "shift", "crop")
"""The options of near copies, which every similarity has beside its own."""


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a similarity: its own, and those of near copies that ask for any."""
    near = {name: value for name, value in options.items() if name in OPTIONS and value not in (None, False, 0)}
    own = {name: value for name, value in options.items() if name not in OPTIONS}
    return own, near
