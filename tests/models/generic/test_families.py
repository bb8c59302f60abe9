"""Families with settings of their own, held against what diffusers' pipelines encode and sample."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Context
from invmm_eval.models.generic import families
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.plugins.host import host
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.sampling import sample
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing import check_backbone, tiny
from tests.helpers.families import build

CAPTION = "a red cat"
CPU = torch.device("cpu")
FIRST, SECOND, THIRD = "prompt-0-0", "prompt-0-1", "prompt-0-2"
"""The places of what ``encode_prompt`` returns."""


def sdxl_with_null() -> Any:
    pipeline = tiny.tiny_sdxl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    return pipeline


def without_t5() -> Any:
    pipeline = tiny.tiny_sd3()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    return pipeline


def scheduled(make: Callable[[], Any], scheduler: Any) -> Any:
    pipeline = make()
    pipeline.register_modules(scheduler=scheduler)
    return pipeline


def ddim(make: Callable[[], Any]) -> Any:
    """With the steps and the levels of our grid."""
    config = make().scheduler.config
    options = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True}
    return scheduled(make, DDIMScheduler.from_config(config, **options))


MAKERS: Mapping[str, tuple[type[Diffusers], Callable[[], Any]]] = {
    "ldm-vq": (families.Latent, tiny.tiny_ldm),
    "ldm-kl": (families.Latent, lambda: tiny.tiny_ldm("kl")),
    "sd1": (families.StableDiffusion, tiny.tiny_stable_diffusion),
    "sd2": (families.StableDiffusion, lambda: tiny.tiny_stable_diffusion(2)),
    "sdxl": (families.StableDiffusionXL, tiny.tiny_sdxl),
    "sdxl-null": (families.StableDiffusionXL, sdxl_with_null),
    "sd3": (families.StableDiffusion3, tiny.tiny_sd3),
    "sd3-without-t5": (families.StableDiffusion3, without_t5),
    "flux-dev": (families.Flux, tiny.tiny_flux),
    "flux-schnell": (families.Flux, lambda: tiny.tiny_flux(False)),
    "pixart-alpha": (families.PixArt, tiny.tiny_pixart),
    "pixart-sigma": (families.PixArt, lambda: build("pixart-sigma")),
}


def backbone(name: str, pipeline: Any = None, **options: Any) -> Diffusers:
    kind, make = MAKERS[name]
    return kind(pipeline or make(), revision=None, device=CPU, dtype=torch.float32, **options)


@torch.no_grad()
def encoded(pipeline: Any, *texts: str) -> tuple[Context, Context]:
    """What the pipeline makes of a text for each encoder, or of one for all, and its unconditional prompt."""
    name = type(pipeline).__name__
    if name == "StableDiffusionPipeline":
        hidden, null = pipeline.encode_prompt(*texts, CPU, 1, True)
        return {FIRST: hidden}, {FIRST: null}
    found = pipeline.encode_prompt(*(texts * 3)[:3] if "StableDiffusion3" in name else texts)
    if "XL" in name or "StableDiffusion3" in name:
        hidden, null, pooled, null_pooled = found
        return {FIRST: hidden, THIRD: pooled}, {FIRST: null, THIRD: null_pooled}
    if "Flux" in name:
        return {FIRST: found[0], SECOND: found[1]}, {}
    hidden, mask, null, null_mask = found
    return {FIRST: hidden, SECOND: mask}, {FIRST: null, SECOND: null_mask}


def assert_same(found: Context, expected: Context) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name].expand_as(tensor), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ldm-vq", "ldm-kl"])
def test_latents_without_a_prompt_keep_the_protocol(name: str) -> None:
    model = backbone(name, prove="full")
    check_backbone(model)
    assert model.condition("a caption").parameters() == {}


PROMPTED = pytest.mark.parametrize("name", ["sdxl-null", "sd3"])


@PROMPTED
def test_models_with_a_prompt_keep_the_protocol(name: str) -> None:
    for mode in ("soft", "empty"):
        check_backbone(backbone(name, prompt_mode=mode))


@PROMPTED
def test_given_prompts_and_that_of_guidance_are_those_of_the_pipeline(name: str) -> None:
    for mode, text in (("soft", None), ("caption", CAPTION), ("empty", "")):
        pipeline = MAKERS[name][1]()
        condition = backbone(name, pipeline, prompt_mode=mode).condition(CAPTION)
        assert_same(condition.null(3), encoded(pipeline, CAPTION)[1])
        if text is not None:
            assert (condition.prompt(), condition.parameters()) == (text, {})
            assert_same(condition.rsample(2, Generator()), encoded(pipeline, text)[0])


@PROMPTED
def test_an_unknown_mode_and_a_missing_caption_are_refused(name: str) -> None:
    with pytest.raises(InvMMError, match="loud"):
        backbone(name, prompt_mode="loud")
    with pytest.raises(InvMMError, match="caption"):
        backbone(name, prompt_mode="caption").condition()


def estimate(model: Diffusers) -> tuple[Tensor, list[Tensor]]:
    """x_0 at three times, and its gradients."""
    condition = model.condition(CAPTION)
    shape = model.encode(torch.zeros(1, *model.image_shape)).shape[1:]
    x_t = torch.randn((3, *shape), generator=Generator().manual_seed(1)).requires_grad_()
    grid = model.schedule.grid(100)
    t = grid[[0, len(grid) // 2, len(grid) - 2]]
    x_0 = model.predict_x0(x_t, t, condition.rsample(3, Generator().manual_seed(0)))
    return x_0.detach(), list(torch.autograd.grad(x_0.square().mean(), [x_t, *condition.parameters().values()]))


@PROMPTED
def test_checkpointing_and_loading_change_nothing(name: str, tmp_path: Path) -> None:
    expected = estimate(backbone(name))
    assert all(bool(gradient.any()) for gradient in expected[1])
    torch.testing.assert_close(estimate(backbone(name, checkpointing=True)), expected, rtol=1e-4, atol=1e-5)
    MAKERS[name][1]().save_pretrained(tmp_path)
    torch.testing.assert_close(estimate(backbone(name, tmp_path)), expected, rtol=1e-4, atol=1e-5)


@PROMPTED
def test_a_loaded_pipeline_stays_as_it_is(name: str) -> None:
    pipeline = MAKERS[name][1]()
    before, levels = encoded(pipeline, CAPTION), pipeline.scheduler.sigmas
    model = backbone(name, pipeline, checkpointing=True)
    model.condition(CAPTION).rsample(1, Generator())
    model.schedule.grid(3)
    torch.testing.assert_close(encoded(pipeline, CAPTION), before, rtol=0, atol=0)
    assert pipeline.scheduler.sigmas is levels
    assert not (getattr(pipeline, "transformer", None) or pipeline.unet).is_gradient_checkpointing
    assert all(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())


@PROMPTED
def test_half_precision_gives_x_0_in_single_precision(name: str) -> None:
    model = backbone(name, MAKERS[name][1]().to(torch.bfloat16))
    assert {estimate(model)[0].dtype, model.encode(torch.zeros(1, *model.image_shape)).dtype} == {torch.float32}
    assert model.settings["dtype"] == "torch.bfloat16"


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ldm-vq": ("latent", {"prompt_mode": None}),
    "sd1": ("stable-diffusion", {"tiny_autoencoder": None}),
    "sdxl": ("sdxl", {}),
    "sd3": ("sd3", {"max_sequence_length": 256}),
    "flux-dev": ("flux", {"max_sequence_length": 512, "guidance_scale": 3.5}),
    "flux-schnell": ("flux", {"max_sequence_length": 256, "guidance_scale": None, "few_steps": 4}),
    "pixart-sigma": ("pixart", {}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_its_settings_are_those_of_older_audits_and_its_recipe_is_published(name: str) -> None:
    registered, settings = SETTINGS[name]
    model = backbone(name)
    present = {key: value for key, value in model.settings.items() if value is not None and key != "proved"}
    expected = {"name": registered, "dtype": "torch.float32", "prompt_mode": "soft", **settings}
    assert present == {key: value for key, value in expected.items() if value is not None}
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    recipes = {"latent": "paper-ldm", "stable-diffusion": "paper-sd", "sd3": "paper-sd3"}
    assert model.recipe.name.split(" with ")[0] == recipes.get(registered, registered)
    kind, make = MAKERS[name]
    assert host().backbone_for(type(make()).__name__) is host().backbone(registered)
    assert type(make()).__name__ in kind.family.pipelines


# KL after four steps, as the backbones that were written for each family by hand gave it.
BY_HAND = {"sd1": 0.04264968, "sd2": 0.02395673, "sdxl": 0.04036615, "sd3": 0.04871405, "flux-dev": 0.03091648}
BY_HAND |= {"flux-schnell": 0.03756893, "pixart-alpha": 0.03970014}
# A model of few steps, sampled and searched as any other.
MANY_STEPS: dict[str, dict[str, Any]] = {"flux-schnell": {"few_steps": 0, "max_sequence_length": 512}}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_search_gives_the_values_of_earlier_versions(name: str) -> None:
    short = {"max_steps": 4, "draws": 2, "check_every": 2, "check_images": 2, "sampler_steps": 2}
    recipe = Recipe.from_record({"name": "short", "guidance": [1.0, 3.0], "threshold": 0.99, **short})
    generator = Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, tiny.SIDE, tiny.SIDE), dtype=torch.uint8, generator=generator)
    target = Target(image, caption=CAPTION)
    [found] = invert(
        backbone(name, **MANY_STEPS.get(name, {})), [target], PixelCosine(device=CPU), diagonal(), recipe=recipe
    )
    assert found.kl == pytest.approx(BY_HAND[name], rel=1e-5)


# The prompt


def text_of(pipeline: Any, count: int) -> str:
    """A text of so many tokens."""
    text: str = pipeline.tokenizer.decode(tokens(pipeline, " ".join(tiny.WORDS * 30))[:count])
    return text


def tokens(pipeline: Any, text: str) -> list[int]:
    marks = pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id
    return [each for each in pipeline.tokenizer(text).input_ids if each not in marks]


def chosen(model: Diffusers, pipeline: Any, text: str) -> Context:
    """Contexts of a searched prompt that has the tokens of a text."""
    condition = model.condition(CAPTION)
    [logits] = condition.parameters().values()
    ids = tokens(pipeline, text)
    assert logits.shape == (len(ids), len(pipeline.tokenizer))
    with torch.no_grad():
        logits[torch.arange(len(ids)), torch.tensor(ids)] = 1e6
        context = condition.rsample(2, Generator().manual_seed(0))
    assert condition.prompt() == text
    return context


# How many tokens are searched, and how many other encoders read the caption; SDXL searches one prompt for two.
@pytest.mark.parametrize(
    ("name", "count", "others"),
    [
        ("sd1", 75, 0),
        ("sd2", 75, 0),
        ("sdxl", 75, 0),
        ("sd3", 75, 2),
        ("sd3-without-t5", 75, 2),
        ("pixart-alpha", 119, 0),
        ("pixart-sigma", 299, 0),
    ],
)
def test_a_prompt_of_tokens_is_encoded_as_the_pipeline_does(name: str, count: int, others: int) -> None:
    pipeline = MAKERS[name][1]()
    text = text_of(pipeline, count)
    expected, _ = encoded(pipeline, text, *[CAPTION] * others)
    assert_same(chosen(backbone(name, pipeline), pipeline, text), expected)


def test_flux_gives_the_searched_prompt_to_clip_and_the_caption_to_t5() -> None:
    pipeline = tiny.tiny_flux()
    text = text_of(pipeline, 75)
    expected = {FIRST: encoded(pipeline, CAPTION)[0][FIRST], SECOND: encoded(pipeline, text)[0][SECOND]}
    assert_same(chosen(backbone("flux-dev", pipeline), pipeline, text), expected)


def test_t5_has_the_requested_number_of_places() -> None:
    for name, places in (("sd3", 77 + 24), ("flux-dev", 24)):
        model = backbone(name, prompt_mode="empty", max_sequence_length=24)
        assert model.condition().null(1)[FIRST].shape[1] == places
        assert model.settings["max_sequence_length"] == 24


# Times and samples


DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}


@pytest.mark.parametrize("options", [{"shift": 3.0}, DYNAMIC])
def test_times_of_flux_are_those_of_its_scheduler(options: dict[str, Any]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**options)
    schedule = backbone("flux-dev", scheduled(tiny.tiny_flux, scheduler), prompt_mode="empty").schedule
    sigmas = scheduler.sigmas
    if options is DYNAMIC:
        sigmas = scheduler.time_shift(calculate_shift((tiny.LATENT_SIDE // 2) ** 2, 4, 64), 1.0, sigmas)
    drawn = schedule.draw(20_000, Generator().manual_seed(0))
    assert torch.isin(drawn, sigmas).all()
    assert (drawn.sort(descending=True).values - sigmas.repeat_interleave(20)).abs().max() < 0.02


@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("sd1", 5.0, {"guidance_scale": 5.0}),
        ("sd2", 1.0, {"guidance_scale": 1.0}),
        ("sdxl", 5.0, {"guidance_scale": 5.0}),
        ("sd3", 4.0, {"guidance_scale": 4.0}),
        ("sd3-without-t5", 4.0, {"guidance_scale": 4.0}),
        ("flux-dev", 1.0, {}),
        ("flux-dev", 4.0, {"true_cfg_scale": 4.0, "negative_prompt": ""}),
        ("flux-schnell", 4.0, {"true_cfg_scale": 4.0, "negative_prompt": ""}),
        ("pixart-sigma", 5.0, {"guidance_scale": 5.0, "use_resolution_binning": False, "clean_caption": False}),
    ],
)
def test_samples_are_those_of_the_pipeline(name: str, scale: float, options: dict[str, Any]) -> None:
    make = MAKERS[name][1]
    pipeline = make() if name.startswith(("sd3", "flux")) else ddim(make)
    model = backbone(name, pipeline, prompt_mode="caption", **MANY_STEPS.get(name, {}))
    noise = torch.randn(2, *model.encode(torch.zeros(1, 3, 16, 16)).shape[1:], generator=Generator().manual_seed(0))
    latents = pipeline._pack_latents(noise, *noise.shape) if name.startswith("flux") else noise
    size = {"height": tiny.SIDE, "width": tiny.SIDE, "output_type": "pt"}
    expected = pipeline([CAPTION] * 2, latents=latents, num_inference_steps=5, **size, **options).images

    def sampled(caption: str) -> Tensor:
        condition = model.condition(caption)
        context, null = condition.rsample(2, Generator()), condition.null(2)
        return sample(model, noise, context, null, torch.full((2,), scale), steps=5, micro_batch=2)

    torch.testing.assert_close(sampled(CAPTION), expected, atol=1e-4, rtol=0)
    assert (sampled("the blue dog") - expected).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "prediction"), [("ldm-vq", "epsilon"), ("ldm-kl", "v_prediction")])
def test_samples_without_a_prompt_are_those_of_the_pipeline(name: str, prediction: str) -> None:
    pipeline = ddim(MAKERS[name][1])
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    model = backbone(name, pipeline)
    noise = torch.randn(2, *model.encode(torch.zeros(1, 3, 16, 16)).shape[1:], generator=Generator().manual_seed(0))
    found = sample(model, noise, {}, {}, torch.ones(2), steps=5, micro_batch=2)
    made = pipeline(batch_size=2, generator=Generator().manual_seed(0), num_inference_steps=5, output_type="np").images
    torch.testing.assert_close(found, torch.from_numpy(made).movedim(-1, 1), atol=1e-4, rtol=0)


def test_a_distilled_network_is_told_the_requested_guidance() -> None:
    pipeline = tiny.tiny_flux()
    model = backbone("flux-dev", pipeline, prompt_mode="empty", guidance_scale=1.5)
    told: set[float] = set()
    model._boundary.network.register_forward_pre_hook(
        lambda _, __, kwargs: told.add(float(kwargs["guidance"])), with_kwargs=True
    )
    x_t = torch.zeros(1, 16, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
    model.predict_x0(x_t, torch.tensor([0.5]), model.condition().null(1))
    assert told == {1.5}


# Sizes and parts


def test_the_images_are_of_the_papers_size_or_less_or_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    small = backbone("sd3", image_size=8, prompt_mode="empty")
    assert small.image_shape == (3, 8, 8)
    assert small.encode(torch.zeros(1, 3, 8, 8)).shape == (1, 16, 4, 4)
    monkeypatch.setattr(families, "PAPER_SIZE", 12)
    assert backbone("sd3", prompt_mode="empty").image_shape == (3, 12, 12)
    assert backbone("sd1", image_size=8, prompt_mode="empty").image_shape == (3, 8, 8)


@pytest.mark.parametrize("wrong", [10, 0, -8, 8.0, "8"])
def test_an_image_size_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(InvMMError, match=rf"image_size( is |=){wrong!r}"):
        backbone("sd3", image_size=wrong)


def test_a_tiny_autoencoder_decodes_where_it_is_named(tmp_path: Any) -> None:
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    small = AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    small.save_pretrained(tmp_path)
    model = backbone("sd1", tiny_autoencoder=str(tmp_path))
    assert model.settings["tiny_autoencoder"] == str(tmp_path)
    assert model.settings["tiny_autoencoder_weights"]
    x_0 = torch.randn(2, 4, 8, 8, generator=Generator().manual_seed(0))
    with torch.no_grad():
        expected = (small.decode(x_0).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(model.decode(x_0), expected)
    assert (expected - backbone("sd1").decode(x_0)).abs().max() > 0.01


def inpainting() -> Any:
    pipeline = tiny.tiny_stable_diffusion()
    pipeline.unet.register_to_config(in_channels=9)
    return pipeline


def refiner() -> Any:
    pipeline = tiny.tiny_sdxl()
    pipeline.text_encoder = None
    return pipeline


def with_classes() -> Any:
    pipeline = tiny.tiny_ldm()
    pipeline.unet = UNet2DModel.from_config(pipeline.unet.config, num_class_embeds=3)
    return pipeline


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("sd3", tiny.tiny_flux, "The backbone sd3 takes StableDiffusion3Pipeline, not FluxPipeline"),
        ("sdxl", refiner, "The backbone sdxl cannot serve this StableDiffusionXLPipeline"),
        ("ldm-vq", with_classes, "The backbone latent cannot serve this LDMPipeline: its call ends in ValueError"),
        ("sd1", inpainting, "The backbone stable-diffusion cannot serve this StableDiffusionPipeline"),
    ],
)
def test_a_pipeline_that_it_does_not_serve_is_refused(name: str, make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        backbone(name, make())
