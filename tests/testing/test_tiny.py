"""The kit's small models are real ones: they save, load, sample and read prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from invmm_eval.models.pipelines import pipeline_class
from invmm_eval.reference import Picture
from invmm_eval.testing import tiny
from tests.helpers.command import python

FAMILIES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (tiny.tiny_ddpm, {}),
    (tiny.tiny_ldm, {}),
    (tiny.tiny_ldm, {"autoencoder": "kl"}),
    (tiny.tiny_stable_diffusion, {}),
    (tiny.tiny_stable_diffusion, {"version": 2}),
    (tiny.tiny_sdxl, {}),
    (tiny.tiny_sd3, {}),
    (tiny.tiny_flux, {}),
    (tiny.tiny_flux, {"guidance_embeds": False}),
    (tiny.tiny_pixart, {}),
]
UNCONDITIONAL = (tiny.tiny_ddpm, tiny.tiny_ldm)


def images(pipeline: Any, *, prompted: bool) -> Any:
    text = {"prompt": "a red cat", "height": tiny.SIDE, "width": tiny.SIDE} if prompted else {}
    if "PixArt" in type(pipeline).__name__:
        text["use_resolution_binning"] = False
    generator = torch.Generator().manual_seed(0)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(num_inference_steps=2, output_type="np", generator=generator, **text).images


@pytest.mark.parametrize(("make", "options"), FAMILIES)
def test_saved_and_loaded_it_makes_the_same_images(
    make: Callable[..., Any], options: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = make(**options)
    pipeline.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, use_safetensors=True)
    expected, found = (images(each, prompted=make not in UNCONDITIONAL) for each in (pipeline, loaded))
    assert found.shape == (1, tiny.SIDE, tiny.SIDE, 3)
    assert found.std() > 0
    assert abs(found - expected).max() < 1e-5


def test_weights_are_seeded_and_other_random_numbers_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again = (tiny.tiny_ddpm().unet.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddpm", "DDPMPipeline"),
        ("ldm", "LDMPipeline"),
        ("stable_diffusion", "StableDiffusionPipeline"),
        ("sdxl", "StableDiffusionXLPipeline"),
        ("sd3", "StableDiffusion3Pipeline"),
        ("flux", "FluxPipeline"),
        ("pixart", "PixArtAlphaPipeline"),
    ],
)
def test_a_fixture_saves_each_family(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    assert pipeline_class(request.getfixturevalue(f"tiny_{name}_folder")) == kind


def test_planted_images_are_repeated_and_held_out_ones(planted_images: list[Picture]) -> None:
    assert [picture.copies for picture in planted_images] == [256, 256, 256, 0, 0, 0]
    assert len({picture.code for picture in planted_images}) == 6


def test_the_fixtures_load_nothing_heavy() -> None:
    code = "import sys, invmm_eval.testing.fixtures; print({'torch', 'diffusers', 'transformers'} & sys.modules.keys())"
    assert python(code)[:2] == (0, "set()\n")
