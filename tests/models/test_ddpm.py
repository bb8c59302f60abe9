"""Pixel pipelines: every prediction type, schedule, channel count and size gives the x_0 that diffusers gives."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
from torch import Tensor

from invmm_eval.audits.plan import load_backbone
from invmm_eval.errors import InvMMError
from invmm_eval.models.ddpm import DDPM
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Status
from invmm_eval.search.sampling import sample
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.pixels import unet

QUICK = Recipe(name="quick", max_steps=2, draws=2, check_every=1, check_images=2, sampler_steps=3)


def backbone(pipeline: Any) -> DDPM:
    return DDPM(pipeline, revision=None, device=torch.device("cpu"), dtype=torch.float32)


def noisy(scheduler: Any) -> tuple[Tensor, Tensor]:
    """Times and noised images at them, ``(3, 3, 8, 8)``."""
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.rand((3, 3, 8, 8), generator=generator) * 2 - 1
    t = torch.tensor([0, 17, 49])
    return t, scheduler.add_noise(x_0, torch.randn(x_0.shape, generator=generator), t)


def test_where_the_noisiest_time_has_no_signal_noise_prediction_is_refused_and_others_sample() -> None:
    zero: dict[str, Any] = {"rescale_betas_zero_snr": True, "clip_sample": False}
    with pytest.raises(InvMMError, match=r"pure noise .* cannot make samples"):
        backbone(DDIMPipeline(unet(), DDIMScheduler(**zero)))
    for prediction in ("v_prediction", "sample"):
        model = backbone(DDIMPipeline(unet(), DDIMScheduler(**zero, prediction_type=prediction)))
        noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        assert sample(model, noise, {}, {}, torch.ones(2), steps=5, micro_batch=2).isfinite().all()


@pytest.mark.parametrize("limit", [torch.nan, 0.0, -1.0, torch.inf, None])
def test_a_clip_range_that_makes_no_sense_is_refused(limit: float | None) -> None:
    with pytest.raises(InvMMError, match="clip_sample_range"):
        backbone(DDIMPipeline(unet(), DDIMScheduler(clip_sample=True, clip_sample_range=limit)))


def test_betas_of_zero_are_refused() -> None:
    with pytest.raises(InvMMError, match="adds no noise"):
        backbone(DDIMPipeline(unet(), DDIMScheduler(beta_start=0.0, beta_end=0.0)))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_x0_is_what_the_scheduler_makes_of_the_output(prediction: str, betas: str) -> None:
    scheduler = DDIMScheduler(
        num_train_timesteps=50, prediction_type=prediction, beta_schedule=betas, clip_sample=False
    )
    pipeline = DDIMPipeline(unet(), scheduler)
    t, x_t = noisy(scheduler)
    found = backbone(pipeline).predict_x0(x_t, t, {})
    pipeline.unet.eval()
    pipeline.scheduler.set_timesteps(50)
    with torch.no_grad():
        output = pipeline.unet(x_t, t).sample
    for row in range(3):
        expected = pipeline.scheduler.step(output[row], int(t[row]), x_t[row]).pred_original_sample
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize(("clip", "scope"), [(True, 1.0), (True, 2.0), (False, 1.0)])
def test_clipping_is_the_schedulers(scheduler: Any, clip: bool, scope: float) -> None:
    made = scheduler(clip_sample=clip, clip_sample_range=scope)
    kind = DDPMPipeline if scheduler is DDPMScheduler else DDIMPipeline
    assert backbone(kind(unet(), made)).clip == (scope if clip else None)


def test_plain_samples_are_those_of_the_pipeline() -> None:
    """With the same noise and times as DDIMPipeline, which takes its noise from the generator it is given."""
    scheduler = DDIMScheduler(num_train_timesteps=50, timestep_spacing="trailing")
    pipeline = DDIMPipeline(unet(), scheduler)
    pipeline.unet.eval()
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    expected = pipeline(2, generator, num_inference_steps=10, use_clipped_model_output=True, output_type="np").images
    noise = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    found = sample(backbone(pipeline), noise, {}, {}, torch.ones(2), steps=10, micro_batch=2)
    torch.testing.assert_close(found, torch.from_numpy(expected).permute(0, 3, 1, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (3, (8, 16)), (1, 12)])
def test_any_channels_and_size(channels: int, size: int | tuple[int, int], cosine: PixelCosine) -> None:
    model = backbone(DDPMPipeline(unet(channels, size), DDPMScheduler(num_train_timesteps=50)))
    height, width = (size, size) if isinstance(size, int) else size
    assert model.image_shape == (channels, height, width)
    image = torch.randint(0, 256, model.image_shape, dtype=torch.uint8)
    (found,) = invert(model, [Target(image)], cosine, diagonal(), recipe=QUICK)
    assert found.status in (Status.REPLICATED, Status.EXHAUSTED), found.error
    assert found.noise["mu"].shape == model.image_shape


def test_encoding_and_decoding_are_inverse_on_images() -> None:
    model = backbone(DDPMPipeline(unet(), DDPMScheduler()))
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(model.decode(model.encode(images)), images)
    assert model.encode(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]
    assert model.decode(torch.tensor([-3.0, 3.0])).tolist() == [0, 1]


def test_a_learned_variance_is_left_aside() -> None:
    plain = DDPMPipeline(unet(), DDPMScheduler(num_train_timesteps=50))
    learned = DDPMPipeline(unet(out=6), DDPMScheduler(num_train_timesteps=50, variance_type="learned_range"))
    weights = learned.unet.state_dict()
    for name, tensor in plain.unet.state_dict().items():
        weights[name][: len(tensor)] = tensor
    t, x_t = noisy(plain.scheduler)
    torch.testing.assert_close(backbone(learned).predict_x0(x_t, t, {}), backbone(plain).predict_x0(x_t, t, {}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_network_in_half_precision_gives_x0_in_float32(tiny_folder: Path, dtype: str) -> None:
    exact, half = load_backbone(tiny_folder), load_backbone(tiny_folder, dtype=dtype)
    t, x_t = noisy(DDIMScheduler(num_train_timesteps=50))
    x_t.requires_grad_()
    found = half.predict_x0(x_t, t, {})
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.predict_x0(x_t, t, {}), rtol=0.1, atol=0.1)
    (gradient,) = torch.autograd.grad(found.sum(), x_t)
    assert gradient.dtype == torch.float32


def test_models_that_are_not_understood(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="dynamic thresholding"):
        backbone(DDPMPipeline(unet(), DDPMScheduler(thresholding=True)))
    folder = shutil.copytree(tiny_folder, tmp_path / "odd")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "phase"))
    with pytest.raises(InvMMError, match=r"prediction_type .* is 'phase'"):
        load_backbone(folder)


def test_a_prompt_mode_that_there_is_not_is_refused_without_a_prompt_too() -> None:
    with pytest.raises(InvMMError, match="no prompt_mode 'none'"):
        load_backbone(DDPMPipeline(unet(), DDPMScheduler()), backbone_options={"prompt_mode": "none"})
