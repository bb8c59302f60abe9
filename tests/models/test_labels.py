"""Classes as conditions, compared with networks that are told the class itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from invmm_eval.errors import InvMMError
from invmm_eval.models.ddpm import DDPM
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.testing import check_backbone
from tests.helpers.families import build
from tests.helpers.families.others import dit

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32}
PIXELS = "DDIM with classes"


def test_a_given_class_is_what_the_network_is_told() -> None:
    pipeline, t = build(PIXELS), torch.tensor([900, 20])
    x_t = torch.randn(2, 3, 8, 8, generator=Generator().manual_seed(0))
    model = DDPM(pipeline, **LOADING, prompt_mode="caption")
    with torch.no_grad():
        found = model.predict_x0(x_t, t, model.condition("3").rsample(2, Generator()))
        noise = pipeline.unet(x_t, t, class_labels=torch.tensor([3, 3])).sample
    alpha_t, sigma_t = (level[:, None, None, None] for level in model.schedule(t))
    torch.testing.assert_close(found, (x_t - sigma_t * noise) / alpha_t, atol=1e-4, rtol=1e-5)


def test_classes_are_searched() -> None:
    model = DDPM(build(PIXELS), **LOADING)
    check_backbone(model)
    condition = model.condition()
    logits = condition.parameters()["logits"]
    with torch.no_grad():
        logits[0, 4] = 100.0
    assert logits.shape == (1, 5)
    assert condition.prompt() == "4"


@pytest.mark.parametrize("classes", [1000, 7])
def test_the_class_of_none_is_that_of_the_pipelines_guidance(classes: int) -> None:
    torch.manual_seed(0)
    pipeline = dit(classes)
    pipeline.transformer.eval()
    model = Diffusers(pipeline, **LOADING, prompt_mode="caption")
    x_t, t = torch.randn(1, 4, 8, 8, generator=Generator().manual_seed(0)), torch.tensor([500])
    condition = model.condition("goldfish")
    alpha_t, sigma_t = model.schedule(t)
    with torch.no_grad():
        for context, number in ((condition.rsample(1, Generator()), 1), (condition.null(1), classes)):
            noise = pipeline.transformer(x_t, timestep=t, class_labels=torch.tensor([number])).sample[:, :4]
            found = model.predict_x0(x_t, t, context)
            torch.testing.assert_close(found, (x_t - sigma_t * noise) / alpha_t, atol=1e-5, rtol=1e-5)


def test_a_folder_keeps_the_names_of_classes_and_is_loaded_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A published folder has names in its index, which ``save_pretrained`` leaves out."""
    dit().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": {"1": "goldfish, carp"}}))
    Diffusers(tmp_path, **LOADING, prompt_mode="caption").condition("goldfish")
    assert not caplog.messages


def test_unknown_classes_are_told() -> None:
    with pytest.raises(InvMMError, match="no class that stands for none"):
        DDPM(build(PIXELS), **LOADING, prompt_mode="empty")
    for caption, sentence in (("5", "no class '5'; give a number from 0 to 4"), (None, "needs a caption")):
        with pytest.raises(InvMMError, match=sentence):
            DDPM(build(PIXELS), **LOADING, prompt_mode="caption").condition(caption)
