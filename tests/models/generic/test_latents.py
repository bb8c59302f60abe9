"""x_0 of images, compared with what the pipelines' own functions make of the autoencoder's latents."""

from typing import Any

import pytest
import torch

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.models.generic.latents import PIXELS
from invmm_eval.testing import tiny
from tests.helpers.families import build

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}


def test_latents_that_are_not_only_reordered_are_refused() -> None:
    pipeline = build("chroma")
    unpack = pipeline._unpack_latents
    pipeline._unpack_latents = lambda *args: unpack(*args).tanh()
    with pytest.raises(InvMMError, match="cannot be turned round"):
        Diffusers(pipeline, **LOADING, prompt_mode="empty")


@pytest.mark.parametrize(("pixels", "sizes"), [(512, [2, 2, 1]), (1, [1] * 5), (PIXELS, [5])])
def test_images_are_decoded_together_up_to_a_number_of_pixels(
    pixels: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, decoded = tiny.tiny_stable_diffusion(), list[int]()
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, arguments: decoded.append(len(arguments[0])))
    model, x_0 = Diffusers(pipeline, **LOADING), torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([model.decode(row) for row in torch.split(x_0, 1)])
    decoded.clear()
    monkeypatch.setattr("invmm_eval.models.generic.latents.PIXELS", pixels)
    torch.testing.assert_close(model.decode(x_0), expected)
    assert decoded == sizes
