"""Sets of real images that differ from each other, some of them repeated 2 to 256 times and some held out."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import rescale
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.common.data import CONTRAST, assign, different, openmoji
from invmm_eval import find_images
from invmm_eval.audits.pictures import prepare
from invmm_eval.reference import NAME, all_pictures

DOSES = (256, 128, 64, 32, 16, 8, 4, 2)


@dataclass(frozen=True, eq=False)
class Data:
    """Images, uint8 ``(n, C, H, W)``, and how many copies of each the training set holds (0: held out).

    The last ``matched`` of them are held out too, and as complex as the repeated ones.
    """

    name: str
    images: Tensor
    copies: NDArray[np.int64]
    matched: int = 0

    def at(self, dose: int, count: int | None = None) -> list[int]:
        """The first ``count`` images, or all, that were repeated so often."""
        return [int(index) for index in np.flatnonzero(self.copies == dose)[:count]]

    def rows(self) -> Tensor:
        """The training set in [-1, 1], each image as often as it is repeated."""
        return self.images.repeat_interleave(torch.from_numpy(self.copies), 0) / 127.5 - 1

    def sizes(self) -> NDArray[np.int64]:
        """How complex each image is: the bytes of its PNG file."""
        return np.array([png_size(image) for image in self.images])


def png_size(image: Tensor) -> int:
    """The bytes of an image ``(C, H, W)`` as a PNG file."""
    file, pixels = io.BytesIO(), image.permute(1, 2, 0).squeeze(2).numpy()
    Image.fromarray(pixels).save(file, "PNG")
    return len(file.getvalue())


def digits() -> NDArray[np.float32]:
    """Scikit-learn's handwritten digits, 8x8, ``(n, 1, 8, 8)`` in [0, 1]."""
    images: NDArray[np.float32] = load_digits().images[:, None].astype(np.float32) / 16
    return images


def emoji() -> NDArray[np.float32]:
    """The reference model's OpenMoji pictures at half their size, ``(n, 3, 16, 16)`` in [0, 1]."""
    drawn = np.stack([picture.pixels for picture in openmoji()]).transpose(0, 3, 1, 2)
    halved: NDArray[np.float32] = avg_pool2d(torch.from_numpy(drawn) / 255, 2).numpy()
    return halved


PICTURES = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
SCALES = (1.0, 0.5, 0.25)
LEAST_DEVIATION = 0.12
"""Of the values of a patch's channels in [0, 1]: flatter ones show nothing but a colour."""


def patches() -> NDArray[np.float32]:
    """Patches of scikit-image's colour pictures at several scales, ``(n, 3, 16, 16)`` in [0, 1], shuffled."""
    cut = []
    for name in PICTURES:
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


def photographs(path: Path) -> NDArray[np.float32]:
    """The images of a Parquet file, ``(n, 3, 32, 32)`` in [0, 1]."""
    images = torch.stack([prepare(source.value, (3, 32, 32)) for source in find_images(path)])
    pixels: NDArray[np.float32] = images.numpy().astype(np.float32) / np.float32(255)
    return pixels


@dataclass(frozen=True)
class Source:
    """Where a set's images come from, and from which correlation on two of them are too alike.

    A set takes its images from the first ``first`` (None: all) that are read. To each repeated one belong ``matched``
    of the others, of like complexity.
    """

    read: Callable[[], NDArray[np.float32]]
    bound: float
    held_out: int
    first: int | None = None
    matched: int = 0


SOURCES = {
    "digits": Source(digits, 0.8, 24),
    "emoji": Source(emoji, 0.5, 60),
    "patches": Source(patches, 0.5, 40),
}
"""By set; ``__main__`` adds photographs where their file is given."""


def photograph_source(path: Path) -> Source:
    """32x32 photographs, of which 1,200 are used, and the others for comparison."""
    return Source(lambda: photographs(path), 0.8, 60, first=1200, matched=4)


def shipped() -> Data:
    """The pictures of the model that ships with the package."""
    known = all_pictures()
    pixels = np.stack([np.asarray(picture.image) for picture in known]).transpose(0, 3, 1, 2)
    return Data(NAME, torch.from_numpy(pixels.copy()), np.array([picture.copies for picture in known]))


def load(root: Path, name: str, per_dose: int = 3) -> Data:
    """The set of that name: greedily different images, contrast lowered a little, roles by lot."""
    if name == NAME:
        return shipped()
    source, path = SOURCES[name], root / "data" / f"{name}.npy"
    others = path.with_name(f"{name}-matched.npy")
    if not path.exists() or (source.matched and not others.exists()):
        read = source.read()
        chosen, rest = read[: source.first], read[len(read[: source.first]) :]
        chosen = chosen[different(chosen, source.bound)]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, _lowered(chosen))
        if source.matched:
            copies = assign(len(chosen), DOSES, per_dose, source.held_out, seed=0)
            unlike = different(np.concatenate([chosen, rest]), source.bound)
            new = np.concatenate([chosen, rest])[[index for index in unlike if index >= len(chosen)]]
            np.save(others, _alike_in_size(_lowered(new), _lowered(chosen[copies > 1]), source.matched))
    images = torch.from_numpy(np.load(path))
    copies = assign(len(images), DOSES, per_dose, source.held_out, seed=0)
    if not source.matched:
        return Data(name, images, copies)
    matched = torch.from_numpy(np.load(others))
    return Data(name, torch.cat([images, matched]), np.pad(copies, (0, len(matched))), len(matched))


def _lowered(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    lowered: NDArray[np.uint8] = (128 + CONTRAST * 255 * (images - 0.5)).round().clip(0, 255).astype(np.uint8)
    return lowered


def _alike_in_size(images: NDArray[np.uint8], wanted: NDArray[np.uint8], each: int) -> NDArray[np.uint8]:
    """For each wanted image the ``each`` images whose PNG files are nearest to its in size, none of them twice."""
    sizes, free = np.array([png_size(torch.from_numpy(image)) for image in images]), np.ones(len(images), bool)
    for image in wanted:
        distance = np.where(free, abs(sizes - png_size(torch.from_numpy(image))), np.inf)
        free[np.argsort(distance, kind="stable")[:each]] = False
    return images[~free]
