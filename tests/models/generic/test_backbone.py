"""Pipelines at their scheduler's boundary, compared with backbones of their own and with what the pipelines sample."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from invmm_flux.backbone import Flux
from invmm_pixart.backbone import PixArt
from invmm_sd3.backbone import SD3
from invmm_sdxl.backbone import StableDiffusionXL
from torch import Generator, Tensor
from torch.nn.functional import pixel_unshuffle

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.stable_diffusion import StableDiffusion
from invmm_eval.plugins.host import host
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_backbone, tiny
from tests.helpers.families import build
from tests.helpers.families.classic import two_networks

CPU = torch.device("cpu")
CAPTION = "a red cat"


def backbone(model: object, **options: Any) -> Diffusers:
    return Diffusers(model, revision=None, device=CPU, dtype=torch.float32, **{"side": tiny.SIDE, **options})


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def packed(x_0: Tensor) -> Tensor:
    """Patches of 2x2 as a sequence, as Flux denoises them."""
    return pixel_unshuffle(x_0, 2).flatten(2).mT


@pytest.mark.parametrize(
    ("own", "pipeline", "pack"),
    [
        (StableDiffusion, tiny.tiny_stable_diffusion, lambda x: x),
        (StableDiffusion, lambda: tiny.tiny_stable_diffusion(2), lambda x: x),
        (StableDiffusionXL, tiny.tiny_sdxl, lambda x: x),
        (SD3, tiny.tiny_sd3, lambda x: x),
        (Flux, tiny.tiny_flux, packed),
        (PixArt, tiny.tiny_pixart, lambda x: x),
    ],
)
def test_x0_is_exactly_that_of_the_familys_own_backbone(
    own: Callable[..., Backbone], pipeline: Callable[[], Any], pack: Callable[[Tensor], Tensor]
) -> None:
    options = {"revision": None, "device": CPU, "dtype": torch.float32, "prompt_mode": "caption"}
    expected, found = own(pipeline(), **options), backbone(pipeline(), prompt_mode="caption")
    images = torch.rand(2, 3, tiny.SIDE, tiny.SIDE, generator=Generator().manual_seed(0))
    x_0 = expected.encode(images)
    torch.testing.assert_close(found.encode(images), pack(x_0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.decode(pack(x_0)), expected.decode(x_0), atol=2e-6, rtol=0)
    x_t, grid = random(*x_0.shape), expected.schedule.grid(20)
    assert torch.equal(found.schedule.grid(20), grid)
    t = grid[[3, 17]]
    with torch.no_grad():
        for of in ("rsample", "null"):
            arguments = (2, Generator()) if of == "rsample" else (2,)
            theirs, ours = (getattr(each.condition(CAPTION), of)(*arguments) for each in (expected, found))
            assert torch.equal(found.predict_x0(pack(x_t), t, ours), pack(expected.predict_x0(x_t, t, theirs)))


def test_a_searched_prompt_reaches_the_network_as_in_the_familys_own_backbone() -> None:
    options: dict[str, Any] = {"revision": None, "device": CPU, "dtype": torch.float32}
    expected, found = StableDiffusion(tiny.tiny_stable_diffusion(), **options), backbone(tiny.tiny_stable_diffusion())
    x_t, t = random(2, 4, tiny.LATENT_SIDE, tiny.LATENT_SIDE), torch.tensor([900, 200])
    with torch.no_grad():
        theirs, ours = (each.condition().rsample(2, Generator().manual_seed(0)) for each in (expected, found))
        assert torch.equal(found.predict_x0(x_t, t, ours), expected.predict_x0(x_t, t, theirs))


# z-image: lists and a reversed time; qwenimage: prompts of different lengths, a video autoencoder; auraflow: a time
# that is read as a number; DiT: classes.
@pytest.mark.parametrize("name", ["z-image", "qwenimage", "auraflow", "DiT"])
def test_families_without_a_backbone_keep_the_protocol(name: str) -> None:
    model = backbone(build(name), soft_tokens=6)
    check_backbone(model, captions=["1"] if name == "DiT" else [CAPTION])
    assert model.settings["proved"] == "autoencoder, rows, times, gradient"


# Z-Image adds its guidance to 1; Qwen-Image rescales what it guides, so it is compared without.
@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("z-image", 1.0, {"guidance_scale": 0.0}),
        ("z-image", 3.0, {"guidance_scale": 2.0}),
        ("qwenimage", 1.0, {"true_cfg_scale": 1.0}),
        ("auraflow", 3.0, {"guidance_scale": 3.0}),
    ],
)
def test_samples_are_those_of_the_pipeline(name: str, scale: float, options: dict[str, Any]) -> None:
    pipeline = build(name)
    model = backbone(pipeline, prompt_mode="caption")
    x_t = random(*model.encode(torch.zeros(1, *model.image_shape)).shape)
    condition = model.condition(CAPTION)
    context, null = condition.rsample(1, Generator()), condition.null(1)
    expected = pipeline(
        CAPTION,
        latents=x_t.clone(),
        num_inference_steps=2,
        height=tiny.SIDE,
        width=tiny.SIDE,
        output_type="pt",
        **options,
    ).images
    found = sample(model, x_t, context, null, torch.tensor([scale]), steps=2, micro_batch=1)
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["auraflow", "qwenimage"])
def test_gradients_are_the_same_with_checkpointing(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = backbone(build(name), soft_tokens=3, checkpointing=checkpointing)
        condition = model.condition(CAPTION)
        x_t = random(*model.encode(torch.zeros(1, *model.image_shape)).shape).requires_grad_()
        t = model.schedule.grid(4)[[1]]
        estimate = model.predict_x0(x_t, t, condition.rsample(1, Generator().manual_seed(0)))
        leaves = [x_t, *condition.parameters().values()]
        gradients.append(torch.autograd.grad(estimate.square().mean(), leaves))
    for pair in zip(*gradients, strict=True):
        torch.testing.assert_close(*pair)


# EDM scales its input, hunyuan tells the time in the precision of its network, chroma packs its latents.
@pytest.mark.parametrize("name", ["EDM", "hunyuan", "chroma"])
def test_a_network_in_half_precision_gives_float32_and_images_are_encoded_as_exactly(name: str) -> None:
    half, whole = (
        backbone(build(name).to(dtype), prompt_mode="empty", prove="full") for dtype in (torch.bfloat16, torch.float32)
    )
    images = torch.rand(1, 3, tiny.SIDE, tiny.SIDE, generator=Generator().manual_seed(0))
    x_0 = half.encode(images)
    assert half.settings["dtype"] == "torch.bfloat16"
    assert x_0.dtype == half.decode(x_0).dtype == torch.float32
    # The autoencoders' weights were rounded, the map between their latents and x_0 was not.
    assert (x_0 - whole.encode(images)).norm() < 0.02 * x_0.norm()
    with torch.no_grad():
        t = half.schedule.grid(4)[[2]]
        assert half.predict_x0(x_0, t, half.condition().rsample(1, Generator())).dtype == torch.float32


def test_a_full_proof_compares_samples() -> None:
    model = backbone(build("z-image"), prompt_mode="empty", prove="full")
    assert model.settings["proved"] == "autoencoder, rows, times, gradient, samples"


def test_a_prompt_has_as_many_places_as_are_asked_for() -> None:
    model = backbone(build("flux2-klein"), prompt_mode="caption", max_sequence_length=24)
    assert {part.shape[1] for part in model.condition(CAPTION).rsample(1, Generator()).values()} == {24}
    assert model.settings["max_sequence_length"] == 24


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("if", {}, r"no usable gradient reaches the searched prompt; take prompt_mode=caption"),
        ("z-image", {"prove": "half"}, "no proof 'half'"),
        ("z-image", {"prompt_mode": "loud"}, "no prompt_mode 'loud'"),
        ("DiT", {"checkpointing": True}, "leave out checkpointing"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        backbone(build(name), **options)


def test_two_networks_are_too_many() -> None:
    with pytest.raises(InvMMError, match="WanPipeline has the denoising networks transformer, transformer_2"):
        backbone(two_networks())


def test_it_serves_the_classes_that_no_other_backbone_names() -> None:
    assert host().backbone_for("ZImagePipeline") is host().backbone("diffusers")
    assert host().backbone_for("StableDiffusionPipeline") is host().backbone("stable-diffusion")


def test_the_loaded_pipeline_and_the_global_random_numbers_are_not_changed() -> None:
    pipeline = build("auraflow")
    parts = dict(pipeline.components)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model = backbone(pipeline)
    model.condition(CAPTION).rsample(1, Generator())
    assert torch.equal(torch.rand(1), expected)
    assert all(part is parts[name] for name, part in pipeline.components.items())
    assert all(parameter.requires_grad for parameter in pipeline.transformer.parameters())
