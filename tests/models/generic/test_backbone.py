"""Pipelines at their scheduler's boundary, compared with what the pipelines sample."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from torch import Generator, Tensor, nn

from invmm_eval import audit
from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_backbone, tiny
from tests.helpers.coverage import SIDES
from tests.helpers.families import build

CPU = torch.device("cpu")
CAPTION = "a red cat"


def backbone(model: object, **options: Any) -> Diffusers:
    return Diffusers(model, revision=None, device=CPU, dtype=torch.float32, **{"image_size": tiny.SIDE, **options})


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


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
        latents=model._latents.denoised(x_t),
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


class Blocking(nn.Module):
    """A layer of somebody else's that no gradient passes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x.detach())
        return output.detach()


def test_a_network_without_gradients_is_audited_by_fast_as_if_it_had_them(tiny_stable_diffusion_folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_stable_diffusion_folder)
    images, given = [torch.full((3, tiny.SIDE, tiny.SIDE), 0.3)], {"prompt_mode": "empty"}
    whole = audit(pipeline, images, recipe="fast", settings={"plain": 32}, backbone_options=given)
    pipeline.unet.conv_out = Blocking(pipeline.unet.conv_out)
    found = audit(pipeline, images, recipe="fast", settings={"plain": 32}, backbone_options=given)
    assert [result.trace for result in found] == [result.trace for result in whole]
    with pytest.raises(InvMMError, match=r"recipe paper-.* cannot search this model: the gradient .* is not the"):
        audit(pipeline, images, recipe="paper", backbone_options=given)
    with pytest.raises(
        InvMMError, match=r"is not the network's; take prompt_mode=caption or .*=empty with the recipe fast"
    ):
        audit(pipeline, images, recipe="fast")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("z-image", {"prove": "half"}, "no proof 'half'"),
        ("z-image", {"prompt_mode": "loud"}, "no prompt_mode 'loud'"),
        ("DiT", {"checkpointing": True}, "leave out checkpointing"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        backbone(build(name), **options)


class Full(nn.Module):
    """A layer with no memory for gradients, or none at all."""

    def __init__(self, layer: nn.Module, always: bool) -> None:
        super().__init__()
        self.layer = layer
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        if self.always or x.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        output: Tensor = self.layer(x)
        return output


@pytest.mark.parametrize("always", [False, True])
def test_memory_that_runs_out_in_the_proof_is_no_missing_gradient(always: bool) -> None:
    """A search without gradients would be served instead, depending on what else the device holds."""
    pipeline = tiny.tiny_stable_diffusion()
    pipeline.unet.conv_out = Full(pipeline.unet.conv_out, always)
    with pytest.raises(InvMMError, match=r"^Memory ran out while this StableDiffusionPipeline was proved, .*2.00 GiB"):
        backbone(pipeline, prompt_mode="empty")


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("stable-diffusion-3", DDIMScheduler()), ("flux", DDPMScheduler()), ("sana", DPMSolverMultistepScheduler())],
)
def test_a_flow_is_not_read_as_a_model_that_predicts_noise(name: str, scheduler: Any) -> None:
    """Any of these schedulers predicts noise by default."""
    pipeline = build(name)
    pipeline.scheduler = scheduler
    with pytest.raises(InvMMError, match=rf"flows, and its {type(scheduler).__name__} reads .* 'epsilon'; give the"):
        backbone(pipeline, image_size=SIDES.get(name, tiny.SIDE))


def test_two_networks_are_too_many() -> None:
    """As in Wan 2.2, whose steps are shared by two."""
    pipeline = build("wan")
    pipeline.register_modules(transformer_2=deepcopy(pipeline.transformer))
    with pytest.raises(InvMMError, match="WanPipeline has the denoising networks transformer, transformer_2"):
        backbone(pipeline)


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
