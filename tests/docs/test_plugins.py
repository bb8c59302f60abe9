"""The backbones that docs/plugins.md shows keep every promise."""

import re
from pathlib import Path
from types import SimpleNamespace
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
from invmm_eval.testing import check_backbone

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CPU = torch.device("cpu")


def module(name: str) -> SimpleNamespace:
    """The one block that holds a name, run."""
    [code] = [block for block in BLOCKS if name in block]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(code, names)
    return SimpleNamespace(**names)


class Somebodys(nn.Module):
    """A plain network with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 3, 3, padding=1)
        self.time = nn.Linear(1, 3)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        noise: Tensor = self.image(x_t) + self.time(t[:, None])[:, :, None, None]
        return noise


class Knowing(Somebodys):
    """The best noise predictor of a model that was trained on one picture in [-0.5, 0.5]."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.picture = nn.Buffer(picture)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        angle = torch.pi / 2 * t[:, None, None, None]
        return (x_t - angle.cos() * self.picture) / angle.sin()


def test_the_plain_network_keeps_its_promises() -> None:
    check_backbone(module("class PlainNetwork").PlainNetwork(Somebodys(), (3, 8, 8)))


def test_the_plain_network_gives_the_picture_it_knows() -> None:
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    backbone = module("class PlainNetwork").PlainNetwork(Knowing(image / 255 - 0.5), (3, 8, 8))
    quick = Recipe(max_steps=5, check_every=5, draws=2, check_images=2, sampler_steps=5)
    similarity = PixelCosine(device=CPU)
    [known, unknown] = invert(backbone, [Target(image), Target(255 - image)], similarity, diagonal(), recipe=quick)
    assert known.status is Status.REPLICATED
    assert known.similarity == pytest.approx(1, abs=1e-4)
    assert unknown.status is Status.EXHAUSTED
