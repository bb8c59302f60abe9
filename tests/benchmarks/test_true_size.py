"""The models have the published numbers of parameters, and rows are counted."""

from collections.abc import Callable
from typing import Any

import pytest
from accelerate import init_empty_weights
from torch import nn

from benchmarks.true_size import measure, sdxl, stable_diffusion
from invmm_eval.testing import tiny


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (stable_diffusion, {"vae": 83_653_863, "text_encoder": 123_060_480, "unet": 859_520_964}),
        (
            sdxl,
            {
                "vae": 83_653_863,
                "text_encoder": 123_060_480,
                "text_encoder_2": 694_659_840,
                "unet": 2_567_463_684,
            },
        ),
    ],
)
def test_the_networks_have_their_published_numbers_of_parameters(
    make: Callable[[], Any], counts: dict[str, int]
) -> None:
    with init_empty_weights():
        parts = make().components
    found = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    assert {name: sum(weight.numel() for weight in part.parameters()) for name, part in found.items()} == counts


def test_a_step_with_a_gradient_and_a_sample_of_one_step_are_four_rows() -> None:
    *_, last = measure(tiny.tiny_stable_diffusion(), 16, {"draws": 2, "check_images": 1, "sampler_steps": 2})
    assert last["what"] == "a step with a gradient"
    assert last["rows"] == 4
