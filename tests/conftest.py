"""Fixtures for all tests: a similarity that needs no weights, and small pipelines of diffusers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler

from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.similarity.sscd import WEIGHTS_VARIABLE
from tests.helpers.command import images, invoke, plain  # noqa: F401
from tests.helpers.pixels import unet

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_weights_in_the_environment() -> Iterator[None]:
    """Only the tests of the real SSCD, which read the variable when they are collected, are to know of its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(WEIGHTS_VARIABLE, raising=False)
        yield


@pytest.fixture
def cosine() -> PixelCosine:
    return PixelCosine(device=torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny_pipeline() -> DDIMPipeline:
    """A pixel pipeline with random weights, for shapes alone: 3 channels, 8x8."""
    return DDIMPipeline(unet(), DDIMScheduler(num_train_timesteps=50))


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: DDIMPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as ``save_pretrained`` writes it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_pipeline.save_pretrained(folder)
    return folder
