"""The sheet of an image and its samples."""

import numpy as np
import torch

from invmm_eval.search.sheet import strip


def test_a_strip_of_a_colour_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image, *samples = torch.randint(0, 255, (9, 3, 4, 6), generator=generator, dtype=torch.uint8)
    sheet = strip(image, {1.0: torch.stack(samples[:2]), 3.0: torch.stack(samples[2:7]), 7.0: torch.stack(samples[7:])})
    assert (sheet.mode, sheet.size) == ("RGB", (6 * 6 + 5 * 2, 3 * 4 + 2 * 2))
    pixels = np.array(sheet)
    places = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1)]
    for picture, (row, column) in zip([image, *samples], places, strict=True):
        box = (column * 8, row * 6, column * 8 + 6, row * 6 + 4)
        assert np.array_equal(np.asarray(sheet.crop(box)).transpose(2, 0, 1), picture.numpy())
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    assert (pixels == 255).all()
