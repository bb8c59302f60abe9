"""The backbone, held against what diffusers' own pipeline encodes and samples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from invmm_sdxl import register_backbones
from invmm_sdxl.backbone import HIDDEN, POOLED, StableDiffusionXL
from torch import Generator, Tensor

from invmm_eval import InvMMError
from invmm_eval.plugin import Backbone, Context
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_backbone, tiny

torch.set_num_threads(1)
CAPTION = "a red cat"
CPU = torch.device("cpu")
LATENTS = (4, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
TIMES = torch.tensor([0, 300, 999])


def backbone(model: object, **options: Any) -> StableDiffusionXL:
    return StableDiffusionXL(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def drawn(model: StableDiffusionXL, n: int = 1, caption: str | None = None) -> Context:
    return model.condition(caption).rsample(n, Generator().manual_seed(1))


def expected_contexts(pipeline: StableDiffusionXLPipeline, text: str) -> tuple[Context, Context]:
    with torch.no_grad():
        hidden, null, pooled, null_pooled = pipeline.encode_prompt(text)
    return {HIDDEN: hidden, POOLED: pooled}, {HIDDEN: null, POOLED: null_pooled}


def test_it_keeps_the_protocol() -> None:
    model: Backbone = backbone(tiny.tiny_sdxl())
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.device == CPU
    assert model.clip is None
    assert model.recipe.name == "sdxl"
    assert model.settings == {"name": "sdxl", "dtype": "torch.float32", "prompt_mode": "soft"}
    assert model.schedule.grid(5).shape == (6,)
    assert register_backbones()["sdxl"].pipelines == (type(tiny.tiny_sdxl()).__name__,)


@pytest.mark.parametrize("mode", ["soft", "empty"])
def test_it_keeps_its_promises(mode: str) -> None:
    check_backbone(backbone(tiny.tiny_sdxl(), prompt_mode=mode))


def test_a_prompt_of_tokens_is_encoded_as_the_pipeline_does() -> None:
    pipeline = tiny.tiny_sdxl()
    ids = pipeline.tokenizer(" ".join(tiny.WORDS * 6)).input_ids[1:76]
    text = pipeline.tokenizer.decode(ids)
    condition = backbone(pipeline).condition()
    logits = condition.parameters()["logits"]
    assert logits.shape == (75, len(pipeline.tokenizer))
    assert pipeline.tokenizer_2(text).input_ids[1:-1] == ids
    with torch.no_grad():
        logits[torch.arange(75), ids] = 1e6
        context = condition.rsample(2, Generator().manual_seed(0))
    expected, _ = expected_contexts(pipeline, text)
    assert context.keys() == expected.keys()
    for name, tensor in context.items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor), atol=1e-5, rtol=0)
    assert condition.prompt() == text


@pytest.mark.parametrize("mode", ["soft", "caption", "empty"])
@pytest.mark.parametrize("zeros", [True, False])
def test_the_null_context_is_the_pipelines(mode: str, zeros: bool) -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    null = backbone(pipeline, prompt_mode=mode).condition(CAPTION).null(3)
    _, expected = expected_contexts(pipeline, CAPTION)
    assert bool(expected[HIDDEN].any()) is not zeros
    for name, tensor in expected.items():
        torch.testing.assert_close(null[name], tensor.expand(3, *tensor.shape[1:]))


@pytest.mark.parametrize(("mode", "text"), [("caption", CAPTION), ("empty", "")])
def test_a_fixed_prompt_is_encoded_as_the_pipeline_does(mode: str, text: str) -> None:
    pipeline = tiny.tiny_sdxl()
    condition = backbone(pipeline, prompt_mode=mode).condition(CAPTION)
    assert condition.parameters() == {}
    assert condition.prompt() == text
    expected, _ = expected_contexts(pipeline, text)
    for name, tensor in condition.rsample(2, Generator()).items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples_are_those_of_the_pipeline(guidance: float, prediction_type: str) -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False, prediction_type=prediction_type
    )
    noise = random(2, *LATENTS)
    expected = pipeline(
        [CAPTION] * 2,
        latents=noise,
        guidance_scale=guidance,
        num_inference_steps=10,
        height=tiny.SIDE,
        width=tiny.SIDE,
        output_type="pt",
    ).images
    model = backbone(pipeline, prompt_mode="caption")
    condition = model.condition(CAPTION)
    scales = torch.full((2,), guidance)
    context, null = condition.rsample(2, Generator()), condition.null(2)
    found = sample(model, noise, context, null, scales, steps=10, micro_batch=2)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_gradient_reaches_noise_and_prompt_with_checkpointing_or_without() -> None:
    found = []
    for checkpointing in (False, True):
        model = backbone(tiny.tiny_sdxl(), checkpointing=checkpointing)
        condition = model.condition()
        x_t = random(3, *LATENTS).requires_grad_()
        estimate = model.predict_x0(x_t, TIMES, condition.rsample(3, Generator().manual_seed(0)))
        leaves = [x_t, condition.parameters()["logits"]]
        found.append(torch.autograd.grad(estimate.square().mean(), leaves))
    for plain, checkpointed in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(checkpointed, plain)


def test_the_pipeline_stays_as_it_is() -> None:
    pipeline = tiny.tiny_sdxl()
    before, _ = expected_contexts(pipeline, CAPTION)
    drawn(backbone(pipeline, checkpointing=True))
    after, _ = expected_contexts(pipeline, CAPTION)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not pipeline.unet.is_gradient_checkpointing
    assert all(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())


def test_a_network_in_half_precision_gives_float32() -> None:
    model = backbone(tiny.tiny_sdxl().to(torch.bfloat16))
    estimate = model.predict_x0(random(3, *LATENTS), TIMES, drawn(model, 3))
    assert estimate.dtype == model.encode(torch.zeros(1, *model.image_shape)).dtype == torch.float32
    assert model.settings["dtype"] == "torch.bfloat16"


def test_a_folder_is_the_loaded_pipeline(tiny_sdxl_folder: Path) -> None:
    models = [backbone(tiny_sdxl_folder), backbone(tiny.tiny_sdxl())]
    estimates = [model.predict_x0(random(3, *LATENTS), TIMES, drawn(model, 3)) for model in models]
    torch.testing.assert_close(*estimates)


def test_a_refiner_is_refused() -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.text_encoder = None
    with pytest.raises(InvMMError, match="with both text encoders"):
        backbone(pipeline)


def test_a_network_that_is_told_more_is_refused() -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(InvMMError, match="has other inputs"):
        backbone(pipeline)


def test_prompt_modes_are_checked() -> None:
    with pytest.raises(InvMMError, match="no prompt_mode 'loud'"):
        backbone(tiny.tiny_sdxl(), prompt_mode="loud")
    with pytest.raises(InvMMError, match="needs a caption"):
        backbone(tiny.tiny_sdxl(), prompt_mode="caption").condition()
