"""Stable Diffusion 1 and 2, held against what diffusers' own pipeline encodes and samples."""

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
from invmm_eval.testing import check_backbone, tiny

CAPTION = "a red cat"
CPU = torch.device("cpu")
TIMES = torch.tensor([0, 300, 999])
VERSIONS = pytest.mark.parametrize("version", [1, 2])


def backbone(model: object, **options: Any) -> StableDiffusion:
    return StableDiffusion(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(n: int) -> Tensor:
    return torch.randn(n, 4, tiny.LATENT_SIDE, tiny.LATENT_SIDE, generator=Generator().manual_seed(0))


def hidden(model: StableDiffusion, n: int, caption: str | None = None) -> Tensor:
    return model.condition(caption).rsample(n, Generator().manual_seed(1))[HIDDEN]


def estimate(model: StableDiffusion) -> Tensor:
    return model.predict_x0(random(3), TIMES, {HIDDEN: hidden(model, 3)})


@torch.no_grad()
def encoded(pipeline: Any, text: str) -> Tensor:
    embeddings: Tensor = pipeline.encode_prompt(text, CPU, 1, False)[0]
    return embeddings


@VERSIONS
@pytest.mark.parametrize("mode", ["soft", "empty"])
def test_it_keeps_its_promises(version: int, mode: str) -> None:
    model: Backbone = backbone(tiny.tiny_stable_diffusion(version), prompt_mode=mode)
    check_backbone(model)
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.recipe.name == "paper-sd"
    assert model.clip is None
    assert model.settings == {
        "name": "stable-diffusion",
        "dtype": "torch.float32",
        "prompt_mode": mode,
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
@pytest.mark.parametrize(("mode", "text"), [("caption", CAPTION), ("empty", "")])
def test_a_fixed_prompt_is_encoded_as_the_pipeline_does(version: int, mode: str, text: str) -> None:
    pipeline = tiny.tiny_stable_diffusion(version)
    condition = backbone(pipeline, prompt_mode=mode).condition(CAPTION)
    assert condition.parameters() == {}
    assert condition.prompt() == text
    found = condition.rsample(2, Generator())[HIDDEN]
    torch.testing.assert_close(found, encoded(pipeline, text).expand(2, -1, -1))


@VERSIONS
@pytest.mark.parametrize("mode", ["soft", "caption", "empty"])
def test_guidance_starts_from_the_empty_prompt(version: int, mode: str) -> None:
    pipeline = tiny.tiny_stable_diffusion(version)
    null = backbone(pipeline, prompt_mode=mode).condition(CAPTION).null(3)[HIDDEN]
    torch.testing.assert_close(null, encoded(pipeline, "").expand(3, -1, -1))


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


def test_the_gradient_reaches_noise_and_prompt_with_checkpointing_or_without() -> None:
    found = []
    for checkpointing in (False, True):
        model = backbone(tiny.tiny_stable_diffusion(), checkpointing=checkpointing)
        condition = model.condition()
        x_t = random(3).requires_grad_()
        x_0 = model.predict_x0(x_t, TIMES, condition.rsample(3, Generator().manual_seed(0)))
        found.append(torch.autograd.grad(x_0.square().mean(), [x_t, condition.parameters()["logits"]]))
    for plain, checkpointed in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(checkpointed, plain)


def test_the_pipeline_stays_as_it_is() -> None:
    pipeline = tiny.tiny_stable_diffusion()
    before = encoded(pipeline, CAPTION)
    estimate(backbone(pipeline, checkpointing=True))
    assert torch.equal(encoded(pipeline, CAPTION), before)
    assert not pipeline.unet.is_gradient_checkpointing
    assert all(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())


def test_a_network_in_half_precision_gives_float32() -> None:
    model = backbone(tiny.tiny_stable_diffusion().to(torch.bfloat16))
    assert estimate(model).dtype == model.encode(torch.zeros(1, *model.image_shape)).dtype == torch.float32
    assert model.settings["dtype"] == "torch.bfloat16"


def test_a_folder_is_the_loaded_pipeline(tiny_stable_diffusion_folder: Path) -> None:
    torch.testing.assert_close(
        estimate(backbone(tiny_stable_diffusion_folder)), estimate(backbone(tiny.tiny_stable_diffusion()))
    )


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


def test_prompt_modes_are_checked() -> None:
    with pytest.raises(InvMMError, match="no prompt_mode 'loud'"):
        backbone(tiny.tiny_stable_diffusion(), prompt_mode="loud")
    with pytest.raises(InvMMError, match="needs a caption"):
        backbone(tiny.tiny_stable_diffusion(), prompt_mode="caption").condition()
