"""The backbone, compared with what diffusers' own pipelines encode, pass to their network and sample."""

from itertools import cycle, islice
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel
from invmm_pixart import register_backbones
from invmm_pixart.backbone import HIDDEN, MASK, PixArt
from torch import Generator, Tensor, nn

from invmm_eval.plugin import Backbone, Context
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_text_to_image, tiny

torch.set_num_threads(1)
CAPTION = "a red cat"
CPU = torch.device("cpu")
LATENTS = (4, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
TIMES = torch.tensor([0, 300, 999])


def backbone(model: object, **options: Any) -> PixArt:
    return PixArt(model, revision=None, device=CPU, dtype=torch.float32, **options)


def alpha() -> PixArtAlphaPipeline:
    return tiny.tiny_pixart()


def sigma() -> PixArtSigmaPipeline:
    pipeline = PixArtSigmaPipeline(**tiny.tiny_pixart().components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def large() -> PixArtAlphaPipeline:
    """A model with as many latents per side as those of 1,024 pixels have, whose inputs include the image's size."""
    pipeline = tiny.tiny_pixart()
    torch.manual_seed(0)
    pipeline.transformer = PixArtTransformer2DModel.from_config(
        pipeline.transformer.config, sample_size=128, patch_size=16, attention_head_dim=12, cross_attention_dim=24
    ).eval()
    return pipeline


FAMILIES = pytest.mark.parametrize(("make", "places"), [(alpha, 120), (sigma, 300)])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def drawn(model: PixArt, n: int) -> Context:
    return model.condition().rsample(n, Generator().manual_seed(1))


def expected_context(pipeline: Any, text: str) -> Context:
    with torch.no_grad():
        hidden, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    return {HIDDEN: hidden, MASK: mask.float()}


def assert_same(found: Context, expected: Context) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor), atol=1e-5, rtol=0)


def test_it_keeps_the_protocol() -> None:
    model: Backbone = backbone(alpha())
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.device == CPU
    assert model.clip is None
    assert model.recipe.name == "pixart"
    assert model.settings == {"name": "pixart", "dtype": "torch.float32", "prompt_mode": "soft"}
    assert model.schedule.grid(5).shape == (6,)
    assert register_backbones()["pixart"].pipelines == tuple(type(make()).__name__ for make in (alpha, sigma))


@pytest.mark.parametrize("make", [alpha, sigma])
def test_it_keeps_its_promises(make: Any) -> None:
    check_text_to_image(backbone, make, expected_context)


@FAMILIES
def test_a_fixed_prompt_is_padded_and_masked(make: Any, places: int) -> None:
    pipeline = make()
    context = backbone(pipeline, prompt_mode="caption").condition(CAPTION).rsample(2, Generator())
    assert context[HIDDEN].shape[:2] == (2, places)
    assert context[MASK].sum(dim=1).tolist() == [len(pipeline.tokenizer(CAPTION).input_ids)] * 2


@FAMILIES
def test_a_prompt_of_tokens_is_encoded_as_the_pipeline_does(make: Any, places: int) -> None:
    pipeline = make()
    text = " ".join(islice(cycle(tiny.WORDS), places - 1))
    ids = pipeline.tokenizer(text).input_ids[:-1]
    condition = backbone(pipeline).condition()
    logits = condition.parameters()["logits"]
    assert logits.shape == (places - 1, len(pipeline.tokenizer))
    with torch.no_grad():
        logits[torch.arange(places - 1), ids] = 1e6
        context = condition.rsample(2, Generator().manual_seed(0))
    assert_same(context, expected_context(pipeline, text))
    assert condition.prompt() == text


@FAMILIES
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples_are_those_of_the_pipeline(make: Any, places: int, guidance: float) -> None:  # noqa: ARG001
    pipeline = make()
    pipeline.scheduler = DDIMScheduler(beta_start=0.0001, beta_end=0.02, timestep_spacing="trailing", clip_sample=False)
    noise = random(2, *LATENTS)
    expected = pipeline(
        [CAPTION] * 2,
        latents=noise,
        guidance_scale=guidance,
        num_inference_steps=10,
        height=tiny.SIDE,
        width=tiny.SIDE,
        use_resolution_binning=False,
        output_type="pt",
        clean_caption=False,
    ).images
    model = backbone(pipeline, prompt_mode="caption")
    condition = model.condition(CAPTION)
    context, null = condition.rsample(2, Generator()), condition.null(2)
    found = sample(model, noise, context, null, torch.full((2,), guidance), steps=10, micro_batch=2)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_model_of_1024_pixels_gets_its_size_as_from_the_pipeline() -> None:
    pipeline = large()
    passed: list[dict[str, Tensor]] = []

    def listen(module: nn.Module, arguments: Any, keywords: Any) -> None:  # noqa: ARG001
        passed.append(keywords["added_cond_kwargs"])

    pipeline.transformer.register_forward_pre_hook(listen, with_kwargs=True)
    model = backbone(pipeline)
    _, height, width = model.image_shape
    pipeline(
        CAPTION,
        num_inference_steps=2,
        guidance_scale=1.0,
        height=height,
        width=width,
        use_resolution_binning=False,
        output_type="latent",
        clean_caption=False,
    )
    estimate = model.predict_x0(random(3, 4, 128, 128), TIMES, drawn(model, 3))
    assert estimate.shape == (3, 4, 128, 128)
    expected, _, found = passed
    assert expected["resolution"].tolist() == [[height, width]]
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.expand(3, -1))
