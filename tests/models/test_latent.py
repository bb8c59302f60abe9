"""Unconditional latent models, held against what diffusers' own pipeline samples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.latent import Latent
from invmm_eval.search.sampling import sample
from invmm_eval.testing import check_backbone, tiny

CPU = torch.device("cpu")
TIMES = torch.tensor([0, 300, 999])
AUTOENCODERS = pytest.mark.parametrize(("autoencoder", "channels"), [("vq", 3), ("kl", 4)])


def backbone(model: object, **options: Any) -> Latent:
    return Latent(model, revision=None, device=CPU, dtype=torch.float32, **options)


def random(n: int, channels: int) -> Tensor:
    return torch.randn(n, channels, tiny.LATENT_SIDE, tiny.LATENT_SIDE, generator=Generator().manual_seed(0))


@AUTOENCODERS
def test_it_keeps_its_promises(autoencoder: str, channels: int) -> None:
    model: Backbone = backbone(tiny.tiny_ldm(autoencoder))
    check_backbone(model)
    assert model.image_shape == (3, tiny.SIDE, tiny.SIDE)
    assert model.encode(torch.zeros(2, *model.image_shape)).shape == (2, channels, tiny.LATENT_SIDE, tiny.LATENT_SIDE)
    assert model.recipe.name == "paper-ldm"
    assert model.clip is None
    assert model.condition("a caption").parameters() == {}


@AUTOENCODERS
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_samples_are_those_of_the_pipeline(autoencoder: str, channels: int, prediction_type: str) -> None:
    pipeline = tiny.tiny_ldm(autoencoder)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", prediction_type=prediction_type
    )
    generator = Generator().manual_seed(0)
    expected = pipeline(batch_size=2, generator=generator, num_inference_steps=10, output_type="np").images
    found = sample(backbone(pipeline), random(2, channels), {}, {}, torch.ones(2), steps=10, micro_batch=2)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, torch.from_numpy(expected).permute(0, 3, 1, 2), atol=1e-4, rtol=0)


def test_without_quantising_samples_are_other_ones() -> None:
    models = [backbone(tiny.tiny_ldm(), quantize=quantize) for quantize in (True, False)]
    assert [model.settings["quantize"] for model in models] == [True, False]
    through, around = (model.decode(random(2, 3)) for model in models)
    assert (through - around).abs().max() > 1e-3


def test_a_network_in_half_precision_gives_float32() -> None:
    model = backbone(tiny.tiny_ldm().to(torch.bfloat16))
    estimate = model.predict_x0(random(3, 3), TIMES, {})
    assert estimate.dtype == model.encode(torch.zeros(1, *model.image_shape)).dtype == torch.float32
    assert model.settings == {"name": "latent", "dtype": "torch.bfloat16", "quantize": True}


def test_a_folder_is_the_loaded_pipeline(tiny_ldm_folder: Path) -> None:
    estimates = [backbone(model).predict_x0(random(3, 3), TIMES, {}) for model in (tiny_ldm_folder, tiny.tiny_ldm())]
    torch.testing.assert_close(*estimates)


def test_a_model_with_classes_is_refused() -> None:
    pipeline = tiny.tiny_ldm()
    pipeline.unet = UNet2DModel.from_config(pipeline.unet.config, num_class_embeds=3)
    with pytest.raises(InvMMError, match="without classes"):
        backbone(pipeline)
