"""What a pipeline's call does, seen from its scheduler."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.hooks import group_offloading

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.generic.boundary import Boundary
from tests.helpers.families import build


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


def test_a_call_looks_for_hooks_in_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's property walks through all modules for its device, a fifth of the time of a small network."""
    pipeline = build("stable-diffusion")
    kind, boundary = type(pipeline), Boundary(pipeline, (16, 16))
    monkeypatch.setattr(group_offloading, "_get_group_onload_device", lambda _: pytest.fail("walked"))
    assert boundary.scheduler(2).scaled
    assert type(pipeline) is kind
