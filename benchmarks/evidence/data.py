"""Three sets of real images that differ from each other, some of them repeated 2 to 256 times and some held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from skimage.transform import rescale
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.common.data import CONTRAST, assign, different, openmoji

DOSES = (256, 128, 64, 32, 16, 8, 4, 2)


@dataclass(frozen=True, eq=False)
class Data:
    """Images, uint8 ``(n, C, H, W)``, and how many copies of each the training set holds (0: held out)."""

    name: str
    images: Tensor
    copies: NDArray[np.int64]

    def at(self, dose: int, count: int | None = None) -> list[int]:
        """The first ``count`` images, or all, that were repeated so often."""
        return [int(index) for index in np.flatnonzero(self.copies == dose)[:count]]

    def rows(self) -> Tensor:
        """The training set in [-1, 1], each image as often as it is repeated."""
        return self.images.repeat_interleave(torch.from_numpy(self.copies), 0) / 127.5 - 1


def digits() -> NDArray[np.float32]:
    """Scikit-learn's handwritten digits, 8x8, ``(n, 1, 8, 8)`` in [0, 1]."""
    images: NDArray[np.float32] = load_digits().images[:, None].astype(np.float32) / 16
    return images


def emoji() -> NDArray[np.float32]:
    """The reference model's OpenMoji pictures at half their size, ``(n, 3, 16, 16)`` in [0, 1]."""
    drawn = np.stack([picture.pixels for picture in openmoji()]).transpose(0, 3, 1, 2)
    halved: NDArray[np.float32] = avg_pool2d(torch.from_numpy(drawn) / 255, 2).numpy()
    return halved


PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
SCALES = (1.0, 0.5, 0.25)
LEAST_DEVIATION = 0.12
"""Of the values of a patch's channels in [0, 1]: flatter ones show nothing but a colour."""


def patches() -> NDArray[np.float32]:
    """Patches of scikit-image's colour pictures at several scales, ``(n, 3, 16, 16)`` in [0, 1], shuffled."""
    cut = []
    for name in PHOTOGRAPHS:
        picture = getattr(skimage.data, name)() / 255
        for scale in SCALES:
            small = rescale(picture, scale, anti_aliasing=scale < 1, channel_axis=2)
            height, width = (side - side % 16 for side in small.shape[:2])
            tiles = small[:height, :width].reshape(height // 16, 16, width // 16, 16, 3).transpose(0, 2, 4, 1, 3)
            cut.append(tiles.reshape(-1, 3, 16, 16))
    every = np.concatenate(cut).astype(np.float32)
    varied = every[every.std(axis=(2, 3)).mean(axis=1) > LEAST_DEVIATION]
    shuffled: NDArray[np.float32] = varied[np.random.default_rng(0).permutation(len(varied))]
    return shuffled


@dataclass(frozen=True)
class Source:
    """Where a set's images come from, and from which correlation on two of them are too alike."""

    read: Callable[[], NDArray[np.float32]]
    bound: float
    held_out: int


SOURCES = {
    "digits": Source(digits, 0.8, 24),
    "emoji": Source(emoji, 0.5, 60),
    "patches": Source(patches, 0.5, 40),
}


def load(root: Path, name: str, per_dose: int = 3) -> Data:
    """The set of that name: greedily different images, contrast lowered a little, roles by lot."""
    source, path = SOURCES[name], root / "data" / f"{name}.npy"
    if not path.exists():
        read = source.read()
        chosen = read[different(read, source.bound)]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (128 + CONTRAST * 255 * (chosen - 0.5)).round().clip(0, 255).astype(np.uint8))
    images = torch.from_numpy(np.load(path))
    return Data(name, images, assign(len(images), DOSES, per_dose, source.held_out, seed=0))
