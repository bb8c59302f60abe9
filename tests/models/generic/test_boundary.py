"""What a pipeline's call does, seen from its scheduler."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.generic.boundary import Boundary
from tests.helpers.families import build


def test_it_sees_how_often_and_with_how_many_rows_the_network_is_called() -> None:
    boundary = Boundary(build("stable-diffusion"), (16, 16))
    (guided, shape, _), (unguided, *_) = (boundary.survey(guidance_scale=scale) for scale in (4.0, 1.0))
    assert (guided, unguided, shape) == ([2], [1], (4, 8, 8))


def test_the_scheduler_is_set_as_in_a_call_of_the_pipeline() -> None:
    pipeline = build("qwenimage")
    found = Boundary(pipeline, (16, 16)).scheduler(5)
    x_t = torch.randn(1, 16, 16, generator=Generator().manual_seed(0))
    pipeline("a", latents=x_t, num_inference_steps=5, height=16, width=16, true_cfg_scale=1.0, output_type="latent")
    assert torch.equal(found.sigmas, pipeline.scheduler.sigmas)
    assert found.mu is not None


@pytest.mark.parametrize(("family", "scales"), [("stable-diffusion", True), ("stable-diffusion-3", False)])
def test_it_sees_whether_the_pipeline_lets_its_scheduler_scale_the_input(family: str, scales: bool) -> None:
    pipeline = build(family)
    pipeline.scheduler = EulerDiscreteScheduler()
    assert Boundary(pipeline, (16, 16)).scheduler(2).scaled is scales


@pytest.mark.parametrize(("family", "asked"), [("stable-diffusion", "init_noise_sigma"), ("if", "variance_type")])
def test_a_scheduler_that_the_pipeline_cannot_use_is_told(family: str, asked: str) -> None:
    pipeline = build(family)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(
        InvMMError, match=f"Pipeline does not work with a FlowMatch.*, which has no {asked}; give the pip"
    ):
        Diffusers(pipeline, revision=None, device=torch.device("cpu"), dtype=torch.float32, prompt_mode="empty")


def test_a_network_that_is_told_one_time_for_all_rows_is_told_those_of_the_rows() -> None:
    """AuraFlow tells its network the scheduler's time, divided by 1,000."""
    boundary = Boundary(build("auraflow"), (16, 16))
    x_t = torch.randn(2, 4, 8, 8, generator=Generator().manual_seed(0))
    boundary.options["guidance_scale"] = 1.0
    told: list[Tensor] = []
    boundary.learn_times(x_t[:1])
    boundary.network.register_forward_hook(lambda _, __, kwargs, ___: told.append(kwargs["timestep"]), with_kwargs=True)
    with torch.no_grad():
        boundary.output(x_t, torch.tensor([900.0, 30.0]))
    torch.testing.assert_close(told[-1], torch.tensor([0.9, 0.03]))
