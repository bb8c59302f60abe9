"""Models that are made for few steps: samples are compared with those of diffusers' own pipelines, number by number."""

import hashlib
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.few_steps import by_itself, few_steps_of
from invmm_eval.plugins.host import host
from invmm_eval.recipe import LDM, RECIPES
from invmm_eval.search.sampling import sample
from invmm_eval.testing import tiny
from tests.helpers.families import build
from tests.helpers.families.parts import NOISE

CPU = torch.device("cpu")
CAPTION = "a red cat"
TRAILING: dict[str, Any] = {**NOISE, "timestep_spacing": "trailing"}
PIXELS = {"beta_end": 0.02, "prediction_type": "v_prediction", "clip_sample": True, "clip_sample_range": 1.0}


def with_scheduler(make: Callable[[], Any], scheduler: Any) -> Any:
    pipeline = make()
    pipeline.register_modules(scheduler=scheduler)
    return pipeline


PIPELINES: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any], int]] = {
    # What makes it, options of the backbone, arguments of the pipeline, steps that it is found to have.
    "LCM": (partial(build, "lcm"), {}, {"num_inference_steps": 4}, 4),
    "LCM-LoRA": (
        lambda: with_scheduler(tiny.tiny_stable_diffusion, LCMScheduler(**NOISE)),
        {"few_steps": 2},
        {"num_inference_steps": 2, "guidance_scale": 1.0},
        2,
    ),
    "TCD": (
        lambda: with_scheduler(tiny.tiny_stable_diffusion, TCDScheduler(**NOISE)),
        {},
        {"num_inference_steps": 4, "guidance_scale": 1.0},
        4,
    ),
    "SDXL-Turbo": (
        lambda: with_scheduler(tiny.tiny_sdxl, EulerAncestralDiscreteScheduler(**TRAILING)),
        {"few_steps": 4},
        {"num_inference_steps": 4, "guidance_scale": 0.0},
        4,
    ),
    "Lightning": (
        lambda: with_scheduler(tiny.tiny_stable_diffusion, EulerDiscreteScheduler(**TRAILING)),
        {"few_steps": 1},
        {"num_inference_steps": 1, "guidance_scale": 0.0},
        1,
    ),
    "schnell": (
        partial(tiny.tiny_flux, False),
        {},
        {"num_inference_steps": 4, "max_sequence_length": 256},
        4,
    ),
    "stochastic flow": (
        lambda: with_scheduler(tiny.tiny_sd3, FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)),
        {},
        {"num_inference_steps": 4, "guidance_scale": 1.0},
        4,
    ),
    "flow LCM": (
        lambda: with_scheduler(partial(tiny.tiny_flux, False), FlowMatchLCMScheduler(shift=3.0)),
        {"few_steps": 3},
        {"num_inference_steps": 3, "max_sequence_length": 256},
        3,
    ),
    "SANA-Sprint": (partial(build, "sana-sprint"), {"image_size": 32}, {"num_inference_steps": 2}, 2),
    "consistency model": (
        partial(build, "consistency"),
        {"few_steps": 3},
        {"num_inference_steps": 3},
        3,
    ),
    "pixels": (
        lambda: DDPMPipeline(tiny.tiny_ddpm().unet, LCMScheduler(**PIXELS)),
        {},
        {"num_inference_steps": 4},
        4,
    ),
    "ancestral": (
        lambda: DDPMPipeline(tiny.tiny_ddpm().unet, DDPMScheduler(**PIXELS)),
        {"few_steps": 5},
        {"num_inference_steps": 5},
        5,
    ),
}


def loaded(pipeline: Any, **options: Any) -> Any:
    make = host().backbone_for(type(pipeline).__name__).make
    given = {"prompt_mode": "caption"} if hasattr(pipeline, "encode_prompt") else {}
    return make(pipeline, revision=None, device=CPU, dtype=torch.float32, **given, **options)


def seeded_by(noise: Tensor) -> Generator:
    """The generator of the noise that is added on the way."""
    digest = hashlib.sha256((noise > 0).numpy().tobytes()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@pytest.mark.parametrize("name", PIPELINES)
def test_samples_are_those_of_the_pipeline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, options, call, steps = PIPELINES[name]
    pipeline = make()
    backbone = loaded(pipeline, **options)
    recipe = RECIPES["fast"](backbone.recipe)
    assert (recipe.sampler, recipe.sampler_steps) == ("own", steps)
    condition = backbone.condition(CAPTION)
    x_0 = backbone.encode(torch.zeros(1, *backbone.image_shape))
    noise = torch.randn(3, *x_0.shape[1:], generator=Generator().manual_seed(5))
    context, null = condition.rsample(3, Generator()), condition.null(3)
    images = sample(
        backbone, noise, context, null, torch.ones(3), steps=recipe.sampler_steps, micro_batch=2, sampler=recipe.sampler
    )
    for row, image in zip(noise, images, strict=True):
        assert torch.allclose(image, theirs(pipeline, backbone, row[None], call, monkeypatch), atol=2e-3), name


def test_a_rounding_error_of_the_first_noise_does_not_change_the_noise_of_later_steps() -> None:
    backbone = pixels(LCMScheduler(**PIXELS))
    noise = torch.randn(3, *backbone.image_shape, generator=Generator().manual_seed(5))

    def images(noise: Tensor) -> Tensor:
        return sample(backbone, noise, {}, {}, torch.ones(3), steps=4, micro_batch=3, sampler="own")

    torch.testing.assert_close(images(noise * (1 + 1e-6)), images(noise), atol=1e-3, rtol=0)
    assert (images(-noise) - images(noise)).abs().max() > 0.1


def theirs(
    pipeline: Any, backbone: Any, noise: Tensor, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """The image that the pipeline makes of a noise."""
    first, generator = [noise], seeded_by(noise)

    def draw(shape: Any, **_: Any) -> Tensor:
        if first:
            return first.pop()
        z = torch.randn(noise.shape, generator=generator)
        return z if z.shape == shape else backbone._latents.denoised(z)  # Flux keeps latents in patches

    # Not every pipeline hands its generator to its scheduler.
    monkeypatch.setattr(f"{type(pipeline.scheduler).__module__}.randn_tensor", draw)
    given: dict[str, Any] = {}
    if hasattr(pipeline, "prepare_latents"):
        _, height, width = backbone.image_shape
        given = {"latents": backbone._latents.denoised(first.pop()), "height": height, "width": width}
        given |= {"prompt": CAPTION, "use_resolution_binning": False}
        given = {name: value for name, value in given.items() if name in signature(type(pipeline).__call__).parameters}
    else:
        monkeypatch.setattr(f"{type(pipeline).__module__}.randn_tensor", draw)
    made = pipeline(**call, **given, output_type="np").images
    return torch.from_numpy(made)[0].movedim(-1, 0)


def pixels(scheduler: Any, **options: Any) -> Any:
    return loaded(DDPMPipeline(tiny.tiny_ddpm().unet, scheduler), **options)


@pytest.mark.parametrize("load", [lambda: pixels(LCMScheduler(**PIXELS)), lambda: loaded(build("lcm"))])
def test_the_scheduler_is_read_once(load: Callable[[], Any]) -> None:
    backbone = load()
    assert backbone.own_path(4) is backbone.own_path(4)


@pytest.mark.parametrize("kind", [PNDMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_a_scheduler_that_keeps_earlier_estimates_is_refused(kind: Any) -> None:
    with pytest.raises(InvMMError, match=f"{kind.__name__} keeps earlier estimates"):
        pixels(kind(beta_end=0.02), few_steps=4)


def test_a_number_of_steps_that_the_scheduler_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(InvMMError, match="does not sample in 51 steps: The combination"):
        pixels(LCMScheduler(**PIXELS), few_steps=51)


@pytest.mark.parametrize("few_steps", [-1, True, 2.0])
def test_only_numbers_of_steps_are_taken(few_steps: Any) -> None:
    with pytest.raises(InvMMError, match="give a number of steps"):
        pixels(LCMScheduler(**PIXELS), few_steps=few_steps)


def test_a_model_of_few_steps_can_be_taken_for_one_of_many() -> None:
    backbone = pixels(LCMScheduler(**PIXELS), few_steps=0)
    assert RECIPES["fast"](backbone.recipe).sampler == "dpm-solver++"
    assert len(backbone.schedule.grid(10)) == 11


def test_the_network_is_asked_at_the_times_of_its_steps_alone() -> None:
    schedule = pixels(LCMScheduler(**PIXELS)).schedule
    assert schedule.grid(200).tolist() == [999, 759, 499, 259, -1]
    assert set(schedule.draw(100, Generator().manual_seed(0)).tolist()) == {999, 759, 499, 259}


def test_a_distilled_pipeline_is_known_by_its_config() -> None:
    pipeline = build("flux2-klein")
    assert few_steps_of(pipeline, None) == 0
    pipeline.register_to_config(is_distilled=True)
    assert few_steps_of(pipeline, None) == 4


def test_a_warning_tells_of_a_scheduler_as_turbo_has_it(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = with_scheduler(tiny.tiny_stable_diffusion, EulerDiscreteScheduler(**TRAILING))
    assert few_steps_of(pipeline, None) == 0
    assert "few_steps=4" in caplog.text
    caplog.clear()
    assert few_steps_of(pipeline, 0) == 0
    assert not caplog.text


@pytest.mark.parametrize("recipe", ["fast", "dose", "paper", "demo"])
def test_every_recipe_samples_as_the_model_does(recipe: str) -> None:
    made = RECIPES[recipe](by_itself(LDM, 2, (1.0,)))
    assert (made.sampler, made.sampler_steps, made.reject, made.clip) == ("own", 2, -1, "model")


def test_fast_spends_on_samples_what_few_steps_save() -> None:
    many, few = (RECIPES["fast"](recipe) for recipe in (LDM, by_itself(LDM, 2, (1.0,))))
    for taken in ("check_images", "plain", "responses"):
        assert getattr(few, taken) * few.sampler_steps == getattr(many, taken) * many.sampler_steps
