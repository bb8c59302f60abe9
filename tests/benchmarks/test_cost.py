"""The calculation of costs, against published sizes and counts made by hand."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.cost import MODELS, Pass, network, one_pass, operations
from invmm_eval.recipe import DDPM, STABLE_DIFFUSION

PUBLISHED = {
    "google/ddpm-cifar10-32": 35_746_307,
    "CompVis/ldm-celebahq-256": 274_056_163,
    "CompVis/stable-diffusion-v1-4": 859_520_964,
    "stabilityai/stable-diffusion-2-1-base": 865_910_724,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_networks_have_the_published_sizes(name: str, parameters: int) -> None:
    (model,) = [model for model in MODELS.values() if model["title"].startswith(name)]
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network(model["network"]).parameters()) == parameters


class Convolution(nn.Module):
    """One convolution, 2 to 3 channels by 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3, padding=1, bias=False)

    def forward(self, sample: Tensor, timestep: Tensor) -> "Convolution":  # noqa: ARG002
        self.sample = self.convolution(sample)
        return self


def test_operations_of_a_convolution_are_those_counted_by_hand() -> None:
    cost = one_pass(Convolution, {"sample": (2, 8, 8)})
    multiplications = 8 * 8 * 3 * 2 * 9
    assert cost == Pass(parameters=54, forward=2 * multiplications, backward=2 * multiplications, kept=8 * 8 * 2 * 4)


def test_passes_of_the_published_recipes() -> None:
    once = Pass(parameters=1, forward=1, backward=0, kept=0)
    assert operations(once, DDPM) == {"steps": 64_000, "complete checks": 64_000, "checks here": 47 * 200}
    assert operations(once, STABLE_DIFFUSION) == {"steps": 32_000, "complete checks": 208_000, "checks here": 47 * 650}
