"""Images for tests: random ones, plain ones, and what is left of a plain one."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invmm_eval.audits.pictures import Source, prepare


def noise(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(shade: int) -> bytes:
    """A small picture of one shade of grey."""
    return encoded(Image.new("L", (4, 4), shade))


def shade(source: Source) -> int:
    """The shade of an image that is all alike."""
    pixels = prepare(source.value, (1, 4, 4))
    assert (pixels == pixels[0, 0, 0]).all()
    return int(pixels[0, 0, 0])
