"""The backbone, compared with what diffusers' own pipeline encodes and samples."""

from itertools import cycle, islice
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from invmm_flux import register_backbones
from invmm_flux.backbone import HIDDEN, POOLED, Flux
from torch import Generator, Tensor

from invmm_eval import InvMMError
from invmm_eval.plugin import Backbone, Context
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_text_to_image, tiny

torch.set_num_threads(1)

CAPTION = "a red cat"
CPU = torch.device("cpu")
LATENTS = (16, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
TIMES = torch.tensor([0.01, 0.3, 1.0])


def backbone(model: object, **options: Any) -> Flux:
    return Flux(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def encoded(pipeline: FluxPipeline, clip: str, t5: str) -> Context:
    with torch.no_grad():
        hidden, pooled, text_ids = pipeline.encode_prompt(clip, t5)
    assert not text_ids.any()
    return {HIDDEN: hidden, POOLED: pooled}


def assert_contexts_close(context: Context, expected: Context) -> None:
    assert context.keys() == expected.keys()
    for name, tensor in context.items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor), atol=1e-5, rtol=0)


def with_scheduler(scheduler: Any) -> FluxPipeline:
    pipeline = tiny.tiny_flux()
    pipeline.register_modules(scheduler=scheduler)
    return pipeline


def by_pipeline(pipeline: FluxPipeline, noise: Tensor, steps: int = 7, **options: Any) -> Tensor:
    images: Tensor = pipeline(
        [CAPTION] * len(noise),
        latents=pipeline._pack_latents(noise, *noise.shape),
        num_inference_steps=steps,
        height=tiny.SIDE,
        width=tiny.SIDE,
        output_type="pt",
        **options,
    ).images
    return images


def by_engine(model: Flux, noise: Tensor, guidance: float = 1.0) -> Tensor:
    condition = model.condition(CAPTION)
    context, null = condition.rsample(len(noise), Generator()), condition.null(len(noise))
    return sample(model, noise, context, null, torch.full((len(noise),), guidance), steps=7, micro_batch=len(noise))


@pytest.mark.parametrize(("distilled", "guidance"), [(True, 3.5), (False, None)])
def test_it_keeps_the_protocol(distilled: bool, guidance: float | None) -> None:
    model: Backbone = backbone(tiny.tiny_flux(distilled))
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.device == CPU
    assert model.clip is None
    assert (model.recipe.name, model.recipe.guidance) == ("flux", (1.0,))
    assert not model.recipe.shared_context
    assert model.settings == {
        "name": "flux",
        "dtype": "torch.float32",
        "prompt_mode": "soft",
        "max_sequence_length": 512,
        "guidance_scale": guidance,
    }
    assert register_backbones()["flux"].pipelines == (type(tiny.tiny_flux()).__name__,)


@pytest.mark.parametrize("distilled", [True, False])
def test_it_keeps_its_promises(distilled: bool) -> None:
    check_text_to_image(
        backbone, lambda: tiny.tiny_flux(distilled), lambda pipeline, text: encoded(pipeline, text, text)
    )


# The prompt


@pytest.mark.parametrize("caption", [None, CAPTION])
def test_tokens_of_clip_are_encoded_as_the_pipeline_does_and_t5_reads_the_caption(caption: str | None) -> None:
    pipeline = tiny.tiny_flux()
    text = " ".join(islice(cycle(tiny.WORDS), 75))
    condition = backbone(pipeline).condition(caption)
    logits = condition.parameters()["logits"]
    assert logits.shape == (75, len(pipeline.tokenizer))
    with torch.no_grad():
        logits[torch.arange(75), pipeline.tokenizer(text, truncation=True).input_ids[1:-1]] = 1e6
        context = condition.rsample(2, Generator().manual_seed(0))
    expected = {POOLED: encoded(pipeline, text, text)[POOLED], HIDDEN: encoded(pipeline, "", caption or "")[HIDDEN]}
    assert_contexts_close(context, expected)
    prompt = condition.prompt()
    assert prompt
    assert text.startswith(prompt)


def test_each_draw_is_a_prompt_of_its_own() -> None:
    first, second = backbone(tiny.tiny_flux()).condition().rsample(2, Generator().manual_seed(0))[POOLED]
    assert (first - second).abs().max() > 1e-4


# Times and samples


DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("options", [{"shift": 1.0}, {"shift": 3.0}, DYNAMIC])
def test_the_grid_is_the_pipelines(options: dict[str, Any], steps: int) -> None:
    pipeline = with_scheduler(FlowMatchEulerDiscreteScheduler(**options))
    by_pipeline(pipeline, random(1, *LATENTS), steps=steps)
    torch.testing.assert_close(backbone(pipeline).schedule.grid(steps), pipeline.scheduler.sigmas, atol=0, rtol=0)


def test_training_times_have_the_dynamic_shift() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC)
    drawn = backbone(with_scheduler(scheduler)).schedule.draw(20_000, Generator().manual_seed(0))
    shifted = scheduler.time_shift(calculate_shift((tiny.LATENT_SIDE // 2) ** 2, 4, 64), 1.0, scheduler.sigmas)
    assert torch.isin(drawn, shifted).all()
    assert (drawn.sort(descending=True).values - shifted.repeat_interleave(20)).abs().max() < 0.02


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("distilled", [True, False])
def test_samples_are_those_of_the_pipeline(distilled: bool, guidance: float) -> None:
    pipeline = tiny.tiny_flux(distilled)
    noise = random(2, *LATENTS)
    expected = by_pipeline(pipeline, noise, negative_prompt="", true_cfg_scale=guidance)
    found = by_engine(backbone(pipeline, prompt_mode="caption"), noise, guidance)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_distilled_model_gets_the_requested_guidance() -> None:
    pipeline = tiny.tiny_flux()
    noise = random(2, *LATENTS)
    expected = by_pipeline(pipeline, noise, guidance_scale=1.5)
    torch.testing.assert_close(
        by_engine(backbone(pipeline, prompt_mode="caption", guidance_scale=1.5), noise), expected, atol=1e-5, rtol=0
    )
    assert (by_engine(backbone(pipeline, prompt_mode="caption"), noise) - expected).abs().max() > 1e-4


def test_images_need_not_be_square() -> None:
    """An estimate of the clean sample from pure noise is one step of the pipeline."""
    pipeline = tiny.tiny_flux()
    noise = random(2, 16, 4, 8)
    [height, width] = (2 * side for side in noise.shape[2:])
    packed = pipeline(
        [CAPTION] * 2,
        latents=pipeline._pack_latents(noise, *noise.shape),
        num_inference_steps=1,
        height=height,
        width=width,
        output_type="latent",
    ).images
    model = backbone(pipeline, prompt_mode="caption")
    with torch.no_grad():
        estimate = model.predict_x0(noise, torch.ones(2), model.condition(CAPTION).rsample(2, Generator()))
    torch.testing.assert_close(estimate, pipeline._unpack_latents(packed, height, width, 2), atol=1e-5, rtol=0)


# Errors


def without_t5() -> FluxPipeline:
    pipeline = tiny.tiny_flux()
    pipeline.register_modules(text_encoder_2=None)
    return pipeline


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (tiny.tiny_sd3, "takes a FluxPipeline, not a StableDiffusion3Pipeline"),
        (without_t5, "needs both text encoders"),
        (lambda: with_scheduler(EulerDiscreteScheduler()), "EulerDiscreteScheduler is not supported"),
    ],
)
def test_a_pipeline_that_it_does_not_support_is_an_error(make: Any, sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        backbone(make())


def test_t5_has_the_requested_number_of_places() -> None:
    context = backbone(tiny.tiny_flux(), max_sequence_length=24).condition(CAPTION).null(1)
    assert sorted(tensor.shape[1] for tensor in context.values() if tensor.ndim == 3) == [24]
