"""Stable Diffusion 1 and 2, held against what diffusers' own pipeline encodes and samples."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.stable_diffusion import HIDDEN, StableDiffusion
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_text_to_image, tiny

CAPTION = "a red cat"
CPU = torch.device("cpu")
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def backbone(model: object, **options: Any) -> StableDiffusion:
    return StableDiffusion(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(n: int) -> Tensor:
    return torch.randn(n, 4, tiny.LATENT_SIDE, tiny.LATENT_SIDE, generator=Generator().manual_seed(0))


@torch.no_grad()
def encoded(pipeline: Any, text: str) -> Tensor:
    embeddings: Tensor = pipeline.encode_prompt(text, CPU, 1, False)[0]
    return embeddings


@VERSIONS
def test_it_keeps_its_promises(version: int) -> None:
    make = partial(tiny.tiny_stable_diffusion, version)
    check_text_to_image(backbone, make, lambda pipeline, text: {HIDDEN: encoded(pipeline, text)})
    model: Backbone = backbone(make())
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.recipe.name == "paper-sd"
    assert model.clip is None
    assert model.settings == {
        "name": "stable-diffusion",
        "dtype": "torch.float32",
        "prompt_mode": "soft",
        "tiny_autoencoder": None,
    }


@VERSIONS
def test_a_prompt_of_tokens_is_encoded_as_the_pipeline_does(version: int) -> None:
    pipeline = tiny.tiny_stable_diffusion(version)
    ids = pipeline.tokenizer(" ".join(tiny.WORDS * 6)).input_ids[1:76]
    text = pipeline.tokenizer.decode(ids)
    condition = backbone(pipeline).condition(CAPTION)
    logits = condition.parameters()["logits"]
    assert logits.shape == (75, len(pipeline.tokenizer))
    with torch.no_grad():
        logits[torch.arange(75), ids] = 1e6
        found = condition.rsample(2, Generator().manual_seed(0))[HIDDEN]
    torch.testing.assert_close(found, encoded(pipeline, text).expand(2, -1, -1), atol=1e-5, rtol=0)
    assert condition.prompt() == text


@VERSIONS
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples_are_those_of_the_pipeline(version: int, guidance: float) -> None:
    pipeline = tiny.tiny_stable_diffusion(version)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    noise = random(2)
    expected = pipeline(
        [CAPTION] * 2, latents=noise, guidance_scale=guidance, num_inference_steps=10, output_type="pt"
    ).images
    model = backbone(pipeline, prompt_mode="caption")
    condition = model.condition(CAPTION)
    context, null = condition.rsample(2, Generator()), condition.null(2)
    found = sample(model, noise, context, null, torch.full((2,), guidance), steps=10, micro_batch=2)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_tiny_autoencoder_decodes_where_it_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    small = AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    small.save_pretrained(tmp_path)
    pipeline = tiny.tiny_stable_diffusion()
    model = backbone(pipeline, tiny_autoencoder=str(tmp_path))
    assert model.settings["tiny_autoencoder"] == str(tmp_path)
    x_0 = random(2)
    with torch.no_grad():
        expected = (small.decode(x_0).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(model.decode(x_0), expected)
    assert (expected - backbone(pipeline).decode(x_0)).abs().max() > 0.01


@pytest.mark.parametrize("change", [{"in_channels": 9}, {"time_cond_proj_dim": 8}, {"class_embed_type": "timestep"}])
def test_a_network_with_other_inputs_is_refused(change: dict[str, Any]) -> None:
    pipeline = tiny.tiny_stable_diffusion()
    pipeline.unet.register_to_config(**change)
    with pytest.raises(InvMMError, match="other inputs than latents, a time and a prompt"):
        backbone(pipeline)


def test_the_images_are_of_the_size_of_training_or_as_chosen() -> None:
    model = backbone(tiny.tiny_stable_diffusion(), image_size=8)
    assert model.image_shape == (3, 8, 8)
    x_0 = model.encode(torch.zeros(1, 3, 8, 8))
    context = model.condition("a cat").null(1)
    assert model.predict_x0(x_0, torch.tensor([5]), context).shape == x_0.shape == (1, 4, 4, 4)
    with pytest.raises(InvMMError, match="must be a multiple of 2 pixels"):
        backbone(tiny.tiny_stable_diffusion(), image_size=9)
