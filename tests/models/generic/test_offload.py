"""Offloading on the CPU: values are the same, and no copy of a weight is kept for the gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from invmm_eval import load_backbone
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.ddpm import DDPM
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.generic.families import Latent, StableDiffusionXL
from invmm_eval.models.generic.offload import weights_left
from invmm_eval.testing import tiny
from tests.helpers.exact import Mixture, pictures, serving
from tests.helpers.families import build

CPU = torch.device("cpu")
LOADING: dict[str, Any] = {"revision": None, "device": CPU, "dtype": torch.float32}


def sdxl(**options: Any) -> Diffusers:
    return StableDiffusionXL(tiny.tiny_sdxl(), **LOADING, **options)


def classes(**options: Any) -> Diffusers:
    return Diffusers(build("DiT"), **LOADING, **options, image_size=16)


def pixels(**options: Any) -> DDPM:
    return DDPM(tiny.tiny_ddpm(), **LOADING, **options)


def latents(**options: Any) -> Diffusers:
    return Latent(tiny.tiny_ldm(), **LOADING, **options)


def found(make: Callable[..., Backbone], **options: Any) -> list[Tensor]:
    """An estimate, its gradients, an encoded and a decoded image."""
    model = make(**options)
    condition, x_0 = model.condition(), model.encode(torch.full((2, 3, 16, 16), 0.3))
    x_t = torch.randn(x_0.shape, generator=Generator().manual_seed(0)).requires_grad_()
    estimate = model.predict_x0(x_t, torch.tensor([900, 200]), condition.rsample(2, Generator().manual_seed(0)))
    gradients = torch.autograd.grad(estimate.square().mean(), [x_t, *condition.parameters().values()])
    return [estimate.detach(), *gradients, x_0, model.decode(x_0)]


@pytest.mark.parametrize(
    ("make", "options"),
    [(sdxl, {}), (sdxl, {"checkpointing": True}), (classes, {}), (pixels, {}), (latents, {})],
    ids=["prompts", "checkpointing", "classes", "pixels", "latents"],
)
@pytest.mark.parametrize("how", ["model", "group"])
def test_values_and_gradients_are_those_without(
    how: str, make: Callable[..., Backbone], options: dict[str, bool]
) -> None:
    for tensor, expected in zip(found(make, offload=how, **options), found(make), strict=True):
        assert torch.equal(tensor, expected)


class Moved(nn.Module):
    """A layer whose weights are elsewhere while it does not compute."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.copies: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        home = [weight.data for weight in self.layer.parameters()]
        for weight in self.layer.parameters():
            weight.data = weight.data.clone()
            self.copies.append(StorageWeakRef(weight.untyped_storage()))  # type: ignore[no-untyped-call]
        y: Tensor = self.layer(x)
        for weight, there in zip(self.layer.parameters(), home, strict=True):
            weight.data = there
        return y


def left(parts: list[Moved]) -> list[bool]:
    """Whether each copy of a weight is still there."""
    return [not copy.expired() for part in parts for copy in part.copies]


def test_the_gradient_keeps_no_copy_of_a_weight() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 8), nn.SiLU())
    layers.requires_grad_(False)
    parts = [Moved(layer) for layer in layers]
    moved = nn.Sequential(*parts)
    x = torch.randn(2, 3, 4, 4).requires_grad_()
    [expected] = torch.autograd.grad(layers(x).square().sum(), x)
    with weights_left(CPU):
        loss = moved(x).square().sum()
    assert len(left(parts)) == 6
    assert not any(left(parts))
    assert torch.equal(torch.autograd.grad(loss, x)[0], expected)
    loss = moved(x).square().sum()
    assert any(left(parts)), "which autograd alone does"


def test_what_cannot_be_offloaded_is_told(tiny_folder: Path) -> None:
    with pytest.raises(InvMMError, match="no offload 'disk'; choose one of model, group"):
        pixels(offload="disk")
    with (
        serving(lambda *_, **__: Mixture(pictures(2))),
        pytest.raises(InvMMError, match="does not move weights; leave out offload"),
    ):
        load_backbone(tiny_folder, backbone="exact", offload="model")
