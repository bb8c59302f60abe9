"""The backbone, compared with what diffusers' own pipeline encodes and samples."""

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
from invmm_eval.testing import check_text_to_image, tiny

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


@pytest.mark.parametrize("zeros", [True, False])
def test_it_keeps_its_promises(zeros: bool) -> None:
    def pipeline() -> StableDiffusionXLPipeline:
        made = tiny.tiny_sdxl()
        made.register_to_config(force_zeros_for_empty_prompt=zeros)
        return made

    _, null = expected_contexts(pipeline(), CAPTION)
    assert bool(null[HIDDEN].any()) is not zeros
    check_text_to_image(
        backbone,
        pipeline,
        encode=lambda loaded, text: expected_contexts(loaded, text)[0],
        null=lambda loaded: expected_contexts(loaded, CAPTION)[1],
    )


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


def test_a_refiner_is_an_error() -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.text_encoder = None
    with pytest.raises(InvMMError, match="with both text encoders"):
        backbone(pipeline)


def test_a_network_with_other_inputs_is_an_error() -> None:
    pipeline = tiny.tiny_sdxl()
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(InvMMError, match="has other inputs"):
        backbone(pipeline)
