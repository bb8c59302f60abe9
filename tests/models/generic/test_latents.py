"""x_0 of images, compared with what the pipelines' own functions make of the autoencoder's latents."""

from typing import Any

import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.generic.families import StableDiffusion, StableDiffusionXL
from invmm_eval.models.generic.latents import PIXELS
from invmm_eval.testing import tiny
from tests.helpers.families import build

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}


def test_latents_that_are_not_only_reordered_are_refused() -> None:
    pipeline = build("chroma")
    unpack = pipeline._unpack_latents
    pipeline._unpack_latents = lambda *args: unpack(*args).tanh()
    with pytest.raises(InvMMError, match="cannot be inverted"):
        Diffusers(pipeline, **LOADING, prompt_mode="empty")


@pytest.mark.parametrize(("pixels", "sizes"), [(512, [2, 2, 1]), (1, [1] * 5), (PIXELS, [5])])
def test_images_are_decoded_together_up_to_a_number_of_pixels(
    pixels: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, decoded = tiny.tiny_stable_diffusion(), list[int]()
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, arguments: decoded.append(len(arguments[0])))
    model, x_0 = Diffusers(pipeline, **LOADING), torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([model.decode(row) for row in torch.split(x_0, 1)])
    decoded.clear()
    monkeypatch.setattr("invmm_eval.models.generic.latents.PIXELS", pixels)
    torch.testing.assert_close(model.decode(x_0), expected)
    assert decoded == sizes


def images_and_x_0() -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(0)
    images = torch.rand(2, 3, tiny.SIDE, tiny.SIDE, generator=generator)
    return images, torch.randn(2, 4, tiny.LATENT_SIDE, tiny.LATENT_SIDE, generator=generator)


def asymmetric() -> AsymmetricAutoencoderKL:
    return AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(8, 8),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=tiny.SIDE,
    ).eval()


def small() -> AutoencoderTiny:
    sizes: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(**sizes, scaling_factor=0.5, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()


@pytest.mark.parametrize("make", [asymmetric, small])
def test_an_autoencoder_in_place_of_another_encodes_and_decodes_as_the_pipelines_do(make: Any) -> None:
    pipeline = tiny.tiny_stable_diffusion()
    with tiny.seeded():
        autoencoder = make()
    pipeline.register_modules(vae=autoencoder)
    model = StableDiffusion(pipeline, **LOADING, prompt_mode="empty")
    (images, x_0), scale = images_and_x_0(), autoencoder.config.scaling_factor
    with torch.no_grad():
        found = autoencoder.encode(images * 2 - 1)
        z = found.latents if make is small else found.latent_dist.mode()
        torch.testing.assert_close(model.encode(images), z * scale, atol=1e-5, rtol=1e-5)
        decoded = (autoencoder.decode(x_0 / scale).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(model.decode(x_0), decoded, atol=1e-5, rtol=1e-5)


def test_statistics_of_latents_are_used_as_the_pipeline_of_sdxl_does() -> None:
    pipeline = tiny.tiny_sdxl()
    mean, std = [-1.66, 1.89, -1.38, 2.52], [8.49, 5.9, 6.55, 5.23]
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=0.5)
    model = StableDiffusionXL(pipeline, **LOADING, prompt_mode="empty")
    (images, x_0), (shift, scale) = images_and_x_0(), (torch.tensor(each).view(1, 4, 1, 1) for each in (mean, std))
    with torch.no_grad():
        z = pipeline.vae.encode(images * 2 - 1).latent_dist.mode()
        torch.testing.assert_close(model.encode(images), (z - shift) / scale * 0.5, atol=1e-5, rtol=1e-5)
        decoded = pipeline.vae.decode(x_0 * scale / 0.5 + shift).sample
        torch.testing.assert_close(model.decode(x_0), (decoded / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-5)
