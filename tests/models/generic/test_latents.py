"""x_0 of images, compared with what the pipelines' own functions make of the autoencoder's latents."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from tests.helpers.families import build

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}


def latents(pipeline: Any, images: Tensor) -> Tensor:
    z = pipeline.vae.encode(images * 2 - 1).latent_dist.mode()
    x_0: Tensor = (z - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
    return x_0


def test_latents_are_the_autoencoders_and_packed_as_the_pipeline_does() -> None:
    pipeline = build("chroma")
    model = Diffusers(pipeline, **LOADING, prompt_mode="empty")
    images = torch.rand(2, 3, 16, 16, generator=Generator().manual_seed(0))
    with torch.no_grad():
        x_0 = latents(pipeline, images)
    torch.testing.assert_close(model.encode(images), x_0, atol=1e-6, rtol=1e-5)
    packed = model._latents.denoised(x_0)
    assert torch.equal(packed, pipeline._pack_latents(x_0, *x_0.shape))
    assert torch.equal(model._latents.ordered(packed), x_0)


def test_means_and_spreads_of_channels_are_those_of_the_autoencoder() -> None:
    pipeline = build("qwenimage")
    model = Diffusers(pipeline, **LOADING, prompt_mode="empty")
    image = torch.rand(1, 3, 16, 16, generator=Generator().manual_seed(0))
    with torch.no_grad():
        z = pipeline.vae.encode(image.unsqueeze(2) * 2 - 1).latent_dist.mode()
        mean, spread = (
            torch.tensor(values).reshape(1, -1, 1, 1, 1)
            for values in (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
        )
    torch.testing.assert_close(model.encode(image), ((z - mean) / spread)[:, :, 0], atol=1e-6, rtol=1e-5)


def test_latents_that_are_not_only_reordered_are_refused() -> None:
    pipeline = build("chroma")
    unpack = pipeline._unpack_latents
    pipeline._unpack_latents = lambda *args: unpack(*args).tanh()
    with pytest.raises(InvMMError, match="cannot be turned round"):
        Diffusers(pipeline, **LOADING, prompt_mode="empty")
