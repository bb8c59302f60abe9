"""The way to x_0 and back, held against the formulas of the pipelines."""

from typing import Any

import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, ConsistencyDecoderVAE
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.autoencoder import Autoencoder
from invmm_eval.testing import tiny


def pictures(n: int = 2) -> Tensor:
    return torch.rand(n, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))


def latents(channels: int, n: int = 2, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(n, channels, tiny.LATENT_SIDE, tiny.LATENT_SIDE, generator=generator)


def kl(name: str) -> Any:
    """The autoencoder of a pipeline, with its scaling and perhaps its shift."""
    return getattr(tiny, f"tiny_{name}")().vae


@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [("stable_diffusion", 0.18215, 0.0), ("sdxl", 0.13025, 0.0), ("sd3", 1.5305, 0.0609), ("flux", 0.3611, 0.1159)],
)
def test_x_0_is_the_scaled_and_shifted_mode_and_decoded_as_the_pipelines_do(
    name: str, scale: float, shift: float
) -> None:
    vae, images = kl(name), pictures()
    x_0 = latents(vae.config.latent_channels)
    with torch.no_grad():
        encoded = (vae.encode(images * 2 - 1).latent_dist.mean - shift) * scale
        torch.testing.assert_close(Autoencoder(vae).encode(images), encoded, atol=1e-5, rtol=0)
        decoded = (vae.decode(x_0 / scale + shift).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(Autoencoder(vae).decode(x_0), decoded, atol=1e-5, rtol=0)
    assert encoded.shape == x_0.shape


def test_images_are_clipped() -> None:
    images = Autoencoder(kl("stable_diffusion")).decode(latents(4, scale=1000.0))
    assert (images.min().item(), images.max().item()) == (0, 1)


@pytest.mark.parametrize("quantize", [True, False])
def test_a_vector_quantised_x_0_is_quantised_before_decoding_where_that_is_wanted(quantize: bool) -> None:
    vqvae = tiny.tiny_ldm().vqvae
    autoencoder = Autoencoder(vqvae, quantize=quantize)
    images = pictures()
    with torch.no_grad():
        x_0 = autoencoder.encode(images)
        torch.testing.assert_close(x_0, vqvae.encode(images * 2 - 1).latents * vqvae.config.scaling_factor)
        z = x_0 / vqvae.config.scaling_factor
        through = [vqvae.decode(z, force_not_quantize=not each).sample / 2 + 0.5 for each in (quantize, not quantize)]
        found = autoencoder.decode(x_0)
    torch.testing.assert_close(found, through[0].clamp(0, 1))
    assert (found - through[1].clamp(0, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: kl("sdxl"), lambda: tiny.tiny_ldm().vqvae])
def test_all_is_float32_and_the_model_stays_as_it_is(make: Any, dtype: torch.dtype) -> None:
    model = make().to(dtype).train()
    autoencoder = Autoencoder(model)
    with torch.no_grad():
        x_0 = autoencoder.encode(pictures())
        images = autoencoder.decode(x_0)
        expected = Autoencoder(model.float()).decode(x_0)
        model.to(dtype)
    assert x_0.dtype == images.dtype == torch.float32
    torch.testing.assert_close(images, expected)
    assert model.dtype == dtype
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not getattr(model, "use_slicing", False)


def _asymmetric() -> AsymmetricAutoencoderKL:
    return AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(8, 8),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=tiny.SIDE,
    ).eval()


def _small() -> AutoencoderTiny:
    sizes: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(**sizes, scaling_factor=0.5, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()


@pytest.mark.parametrize("make", [_asymmetric, _small])
def test_an_autoencoder_in_place_of_another_encodes_and_decodes_as_the_pipelines_do(make: Any) -> None:
    torch.manual_seed(0)
    model, images, x_0 = make(), pictures(), latents(4)
    autoencoder = Autoencoder(model)
    scale = model.config.scaling_factor
    with torch.no_grad():
        found = model.encode(images * 2 - 1)
        z = found.latents if make is _small else found.latent_dist.mode()
        torch.testing.assert_close(autoencoder.encode(images), z * scale)
        decoded = (model.decode(x_0 / scale).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(autoencoder.decode(x_0), decoded)
    assert autoencoder.factor == tiny.SIDE // tiny.LATENT_SIDE


def test_an_autoencoder_that_decodes_with_random_numbers_is_refused() -> None:
    with pytest.raises(InvMMError, match="ConsistencyDecoderVAE is not supported"):
        Autoencoder(object.__new__(ConsistencyDecoderVAE))


def test_statistics_of_latents_are_used_as_the_pipeline_of_sdxl_does() -> None:
    pipeline = tiny.tiny_sdxl()
    mean, std = [-1.66, 1.89, -1.38, 2.52], [8.49, 5.9, 6.55, 5.23]
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=0.5)
    autoencoder, x_0 = Autoencoder(pipeline.vae), latents(4, n=1)
    with torch.no_grad():
        back = autoencoder.encode(pictures())
        z = pipeline.vae.encode(pictures() * 2 - 1).latent_dist.mode()
    channel = slice(None), slice(1, 2)
    torch.testing.assert_close(back[channel], (z[channel] - mean[1]) / std[1] * 0.5)
    decoded = x_0 * torch.tensor(std).view(1, 4, 1, 1) / 0.5 + torch.tensor(mean).view(1, 4, 1, 1)
    with torch.no_grad():
        expected = (pipeline.vae.decode(decoded).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(autoencoder.decode(x_0), expected)
