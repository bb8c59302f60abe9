"""Where samples agree with a picture: which part of it is copied, such as a template or a logo.

A sample agrees at a place if the colours in a window around it differ by at most :data:`TOLERANCE` on average. A place
without contrast, such as a white background, agrees with much by chance: it says nothing, and is not counted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

TOLERANCE = 0.1
"""Mean absolute difference of colours in [0, 1] up to which a window agrees."""
CONTRAST = 0.05
"""Standard deviation of brightness in [0, 1] from which on a window has contrast."""
SIDE = 64
"""Side that larger pictures are reduced to."""


@dataclass(frozen=True)
class Agreement:
    """Where samples agree with a picture.

    Attributes:
        share: Share of the samples that agree at each place, in [0, 1], ``(h, w)``; of pictures up to :data:`SIDE`
            pixels a place is a pixel.
        has_contrast: Whether the place has contrast, ``(h, w)``.
    """

    share: Tensor
    has_contrast: Tensor

    @property
    def copied(self) -> Tensor:
        """Whether most samples agree at a place that has contrast, ``(h, w)``."""
        return (self.share > 0.5) & self.has_contrast

    @property
    def part(self) -> float | None:
        """Which part of the places with contrast is copied, in [0, 1]; None of a picture without contrast."""
        return (self.copied.sum() / self.has_contrast.sum()).item() if self.has_contrast.any() else None


def agreement(image: Tensor, samples: Tensor, *, flip: bool = False) -> Agreement:
    """Where samples agree with an image.

    Args:
        image: uint8 ``(C, H, W)``.
        samples: uint8 ``(n, C, H, W)``, n at least 1.
        flip: Whether a sample may be mirrored, left to right; it is taken in the direction in which it agrees more.
    """
    pictures = torch.cat([image[None], samples]).float() / 255
    shrink = min(1.0, SIDE / max(image.shape[1:]))
    if shrink < 1:
        pictures = interpolate(pictures, scale_factor=shrink, mode="bilinear", antialias=True)
    target, drawn = pictures[:1], pictures[1:]
    window = max(3, min(target.shape[-2:]) // 8 | 1)
    agrees = _around((drawn - target).abs().mean(dim=1), window) <= TOLERANCE
    if flip:
        mirrored = _around((drawn.flip(-1) - target).abs().mean(dim=1), window) <= TOLERANCE
        more = mirrored.flatten(1).sum(dim=1) > agrees.flatten(1).sum(dim=1)
        agrees = torch.where(more[:, None, None], mirrored, agrees)
    brightness = target.mean(dim=1)
    variance = _around(brightness.square(), window) - _around(brightness, window).square()
    return Agreement(agrees.float().mean(dim=0), (variance >= CONTRAST**2)[0])


def _around(values: Tensor, window: int) -> Tensor:
    """The mean in a window around each place, ``(n, h, w)``; the border is repeated beyond itself."""
    padded = pad(values[:, None], (window // 2,) * 4, mode="replicate")
    return avg_pool2d(padded, window, stride=1)[:, 0]
