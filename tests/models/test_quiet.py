"""What libraries draw while a model is loaded."""

from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from invmm_eval import load_backbone

DIFFUSION = Path(__file__).parents[1] / "data" / "stable-diffusion"


def test_no_bar_is_drawn_while_a_model_is_loaded_and_those_of_the_libraries_are_drawn_again_after_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for library in (diffusers_logging, transformers_logging):
        monkeypatch.setattr(library, "_tqdm_active", True)
    load_backbone(DIFFUSION)
    assert "Loading" not in capfd.readouterr().err
    DiffusionPipeline.from_pretrained(DIFFUSION)
    drawn = capfd.readouterr().err
    assert "Loading pipeline components" in drawn
    assert "Loading weights" in drawn

    monkeypatch.setattr(diffusers_logging, "_tqdm_active", False)
    load_backbone(DIFFUSION)
    assert not diffusers_logging.is_progress_bar_enabled()
