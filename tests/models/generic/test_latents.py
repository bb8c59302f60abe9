"""x_0 of images, compared with what the pipelines' own functions make of the autoencoder's latents."""

from typing import Any

import pytest
import torch

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from tests.helpers.families import build

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}


def test_latents_that_are_not_only_reordered_are_refused() -> None:
    pipeline = build("chroma")
    unpack = pipeline._unpack_latents
    pipeline._unpack_latents = lambda *args: unpack(*args).tanh()
    with pytest.raises(InvMMError, match="cannot be turned round"):
        Diffusers(pipeline, **LOADING, prompt_mode="empty")
