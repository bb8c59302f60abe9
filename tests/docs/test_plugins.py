"""The backbone that docs/plugins.md shows finds what its model memorized; its examples run the conformance kit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Status
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.documents import ROOT, blocks


class Knowing(nn.Module):
    """The best noise predictor of a model that was trained on one image in [-0.5, 0.5]."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        angle = torch.pi / 2 * t[:, None, None, None]
        return (x_t - angle.cos() * self.image) / angle.sin()


def test_the_plain_network_gives_the_image_it_knows() -> None:
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    [code] = [block.text for block in blocks(ROOT / "docs" / "plugins.md") if "class PlainNetwork" in block.text]
    shown: dict[str, Any] = {}
    exec(code, shown)
    backbone = shown["PlainNetwork"](Knowing(image / 255 - 0.5), (3, 8, 8))
    quick = Recipe(max_steps=5, check_every=5, draws=2, check_images=2, sampler_steps=5)
    similarity = PixelCosine(device=torch.device("cpu"))
    [known, unknown] = invert(backbone, [Target(image), Target(255 - image)], similarity, diagonal(), recipe=quick)
    assert known.status is Status.REPLICATED
    assert known.similarity == pytest.approx(1, abs=1e-4)
    assert unknown.status is Status.EXHAUSTED
