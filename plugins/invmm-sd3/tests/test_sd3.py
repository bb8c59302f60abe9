"""The backbone, compared with what diffusers' own pipeline encodes and samples."""

from itertools import cycle, islice
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from invmm_sd3 import register_backbones
from invmm_sd3.backbone import HIDDEN, POOLED, SD3
from torch import Generator, Tensor

from invmm_eval import InvMMError
from invmm_eval.plugin import Backbone, Context
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_backbone, check_text_to_image, tiny

torch.set_num_threads(1)

CAPTION = "a red cat"
CPU = torch.device("cpu")
LATENTS = (16, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
TIMES = torch.tensor([0.01, 0.3, 1.0])


def backbone(model: object, **options: Any) -> SD3:
    return SD3(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def encoded(pipeline: StableDiffusion3Pipeline, first: str, others: str) -> Context:
    """What the pipeline makes of two texts; one that is empty is taken for the other by its own rules."""
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(first, others, others, do_classifier_free_guidance=False)
    return {HIDDEN: hidden, POOLED: pooled}


def assert_contexts_close(context: Context, expected: Context) -> None:
    assert context.keys() == expected.keys()
    for name, tensor in context.items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor), atol=1e-5, rtol=0)


def without_t5() -> StableDiffusion3Pipeline:
    pipeline = tiny.tiny_sd3()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    return pipeline


def with_scheduler(scheduler: Any) -> StableDiffusion3Pipeline:
    pipeline = tiny.tiny_sd3()
    pipeline.register_modules(scheduler=scheduler)
    return pipeline


def by_pipeline(pipeline: StableDiffusion3Pipeline, noise: Tensor, guidance: float = 1.0, steps: int = 7) -> Tensor:
    images: Tensor = pipeline(
        [CAPTION] * len(noise),
        latents=noise,
        guidance_scale=guidance,
        num_inference_steps=steps,
        height=tiny.SIDE,
        width=tiny.SIDE,
        output_type="pt",
    ).images
    return images


def test_it_keeps_the_protocol() -> None:
    model: Backbone = backbone(tiny.tiny_sd3())
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.device == CPU
    assert model.clip is None
    assert model.recipe.name == "paper-sd3"
    assert not model.recipe.shared_context
    assert model.settings == {
        "name": "sd3",
        "dtype": "torch.float32",
        "prompt_mode": "soft",
        "max_sequence_length": 256,
    }
    assert register_backbones()["sd3"].pipelines == (type(tiny.tiny_sd3()).__name__,)


def test_it_keeps_its_promises() -> None:
    check_text_to_image(backbone, tiny.tiny_sd3, lambda pipeline, text: encoded(pipeline, text, text))


@pytest.mark.parametrize("mode", ["soft", "empty"])
def test_it_keeps_its_promises_without_t5(mode: str) -> None:
    check_backbone(backbone(without_t5(), prompt_mode=mode))


# The prompt


def test_tokens_of_the_first_clip_are_encoded_as_the_pipeline_does() -> None:
    pipeline = tiny.tiny_sd3()
    text = " ".join(islice(cycle(tiny.WORDS), 75))
    condition = backbone(pipeline).condition(CAPTION)
    logits = condition.parameters()["logits"]
    assert logits.shape == (75, len(pipeline.tokenizer))
    with torch.no_grad():
        logits[torch.arange(75), pipeline.tokenizer(text, truncation=True).input_ids[1:-1]] = 1e6
        context = condition.rsample(2, Generator().manual_seed(0))
    assert_contexts_close(context, encoded(pipeline, text, CAPTION))
    prompt = condition.prompt()
    assert prompt
    assert text.startswith(prompt)


@pytest.mark.parametrize("caption", [None, CAPTION])
def test_all_but_the_first_clip_reads_the_caption(caption: str | None) -> None:
    pipeline = tiny.tiny_sd3()
    condition = backbone(pipeline).condition(caption)
    context = condition.rsample(2, Generator().manual_seed(0))
    given = encoded(pipeline, "", caption or "")
    clip, width = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.hidden_size
    for name, searched in ((HIDDEN, (slice(None), slice(clip), slice(width))), (POOLED, (slice(None), slice(width)))):
        differs = (context[name] - given[name]).abs() > 1e-5
        assert differs[searched].float().mean() > 0.9
        differs[searched] = False
        assert not differs.any()


def test_without_t5_its_tokens_are_zeros() -> None:
    pipeline = without_t5()
    context = backbone(pipeline).condition(CAPTION).rsample(2, Generator().manual_seed(0))
    assert context[HIDDEN].shape == encoded(tiny.tiny_sd3(), "", "")[HIDDEN].expand(2, -1, -1).shape
    assert not context[HIDDEN][:, pipeline.tokenizer.model_max_length :].any()


# Times and samples


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("options", [{"shift": 1.0}, {"shift": 3.0}, {"use_dynamic_shifting": True}])
def test_the_grid_is_the_pipelines(options: dict[str, Any], steps: int) -> None:
    pipeline = with_scheduler(FlowMatchEulerDiscreteScheduler(**options))
    by_pipeline(pipeline, random(1, *LATENTS), steps=steps)
    torch.testing.assert_close(backbone(pipeline).schedule.grid(steps), pipeline.scheduler.sigmas, atol=0, rtol=0)


def test_training_times_have_the_shift_even_after_sampling() -> None:
    pipeline = tiny.tiny_sd3()
    by_pipeline(pipeline, random(1, *LATENTS))
    drawn = backbone(pipeline).schedule.draw(20_000, Generator().manual_seed(0))
    shifted = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas
    assert torch.isin(drawn, shifted).all()
    assert (drawn.sort(descending=True).values - shifted.repeat_interleave(20)).abs().max() < 0.02


@pytest.mark.parametrize("t5", [True, False])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_samples_are_those_of_the_pipeline(guidance: float, t5: bool) -> None:
    pipeline = tiny.tiny_sd3() if t5 else without_t5()
    noise = random(2, *LATENTS)
    model = backbone(pipeline, prompt_mode="caption")

    def sampled(caption: str) -> Tensor:
        condition = model.condition(caption)
        context, null = condition.rsample(2, Generator()), condition.null(2)
        return sample(model, noise, context, null, torch.full((2,), guidance), steps=7, micro_batch=2)

    expected = by_pipeline(pipeline, noise, guidance)
    torch.testing.assert_close(sampled(CAPTION), expected, atol=1e-5, rtol=0)
    assert (sampled("the blue dog") - expected).abs().max() > 1e-4


# Errors


def without_clip() -> StableDiffusion3Pipeline:
    pipeline = tiny.tiny_sd3()
    pipeline.register_modules(text_encoder=None)
    return pipeline


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (tiny.tiny_flux, "takes a StableDiffusion3Pipeline, not a FluxPipeline"),
        (without_clip, "needs both CLIP text encoders"),
        (lambda: with_scheduler(EulerDiscreteScheduler()), "EulerDiscreteScheduler is not supported"),
    ],
)
def test_a_pipeline_that_it_does_not_support_is_an_error(make: Any, sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        backbone(make())


def test_t5_has_the_requested_number_of_places() -> None:
    context = backbone(tiny.tiny_sd3(), max_sequence_length=24).condition(CAPTION).null(1)
    assert sorted(tensor.shape[1] for tensor in context.values() if tensor.ndim == 3) == [77 + 24]


def test_the_images_are_of_the_papers_size_or_less_or_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny.tiny_sd3()
    assert backbone(pipeline).image_shape == (3, tiny.SIDE, tiny.SIDE)
    small = backbone(pipeline, image_size=8)
    assert small.image_shape == (3, 8, 8)
    x_0 = small.encode(torch.zeros(1, 3, 8, 8))
    assert x_0.shape == (1, 16, 4, 4)
    context = small.condition("a cat").null(1)
    assert small.predict_x0(x_0, torch.tensor([0.5]), context).shape == x_0.shape
    monkeypatch.setattr("invmm_sd3.backbone.PAPER_SIZE", 12)
    assert backbone(pipeline).image_shape == (3, 12, 12)
    for wrong in (10, 0, -8, 8.0, "8"):
        with pytest.raises(InvMMError, match="must be a multiple of 4 pixels"):
            backbone(pipeline, image_size=wrong)
