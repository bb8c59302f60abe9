"""Pipelines of two models, compared with both of them called one after the other."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Generator

from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.search.sampling import sample
from tests.helpers.families import build

CAPTION = "a red cat"
LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}


@pytest.mark.parametrize("name", ["kandinsky", "kandinsky22"])
def test_samples_are_those_of_the_decoder_for_the_priors_embedding(name: str) -> None:
    pipeline = build(name)
    own = pipeline.decoder_pipe.scheduler.config
    scheduler = DDIMScheduler.from_config(own, timestep_spacing="trailing", set_alpha_to_one=True)
    pipeline.decoder_pipe.scheduler = scheduler
    image, no_image = pipeline.prior_pipe(CAPTION, generator=Generator().manual_seed(0), return_dict=False)
    noise = torch.randn(1, 4, 8, 8, generator=Generator().manual_seed(1))
    expected = pipeline.decoder_pipe(
        **({"prompt": CAPTION} if name == "kandinsky" else {}),
        image_embeds=image,
        negative_image_embeds=no_image,
        latents=noise,
        height=16,
        width=16,
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="pt",
    ).images
    model = Diffusers(pipeline, **LOADING, prompt_mode="caption")
    condition = model.condition(CAPTION)
    context, null = condition.rsample(1, Generator()), condition.null(1)
    found = sample(model, noise, context, null, torch.tensor([3.0]), steps=4, micro_batch=1)
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), atol=1e-3, rtol=0)
