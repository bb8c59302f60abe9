"""A pipeline whose configs make no sense is refused when it is loaded, before its parts take memory."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMPipeline
from transformers import CLIPTokenizer

from invmm_eval.errors import InvMMError
from invmm_eval.models.configs import check_parts, check_pixels
from invmm_eval.models.pipelines import load_pipeline
from invmm_eval.testing.tiny import tiny_clip_encoder, tiny_clip_tokenizer

SCHEDULER = "scheduler/scheduler_config.json"
UNET = "unet/config.json"

WRONG: list[tuple[str, str, Any, str]] = [
    (SCHEDULER, "clip_sample", "yes", "'yes'; it must be True or False"),
    (SCHEDULER, "clip_sample_range", "1", "must be a number"),
    (SCHEDULER, "beta_start", math.nan, "must be finite"),
    (SCHEDULER, "prediction_type", ["epsilon"], "must be 'epsilon' or"),
    (SCHEDULER, "prediction_type", "flow_prediction", "must be 'epsilon' or"),
    (SCHEDULER, "num_train_timesteps", "50", "must be a whole number"),
    (SCHEDULER, "num_train_timesteps", 0, "has from 1 to 1,000,000 times"),
    (SCHEDULER, "num_train_timesteps", 10**12, "has from 1 to 1,000,000 times"),
    (UNET, "center_input_sample", "false", "must be True or False"),
    (UNET, "norm_eps", "1e-5", "must be a number"),
    (UNET, "sample_size", 10**6, "would have 1,000,000 x 1,000,000 pixels"),
    (UNET, "sample_size", [8, -8], "must be above 0"),
]


@pytest.mark.parametrize(("file", "name", "value", "sentence"), WRONG)
def test_a_stored_value_that_makes_no_sense_is_told_before_anything_is_loaded(
    file: str,
    name: str,
    value: Any,
    sentence: str,
    tiny_folder: Path,
    tiny_pipeline: DDIMPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, name: value}))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)
    with pytest.raises(InvMMError, match=sentence) as told:
        load_pipeline(folder, device=torch.device("cpu"))
    assert name in str(told.value) or "sample_size" in str(told.value)
    parts = {**tiny_pipeline.components, **DDIMPipeline(**tiny_pipeline.components).components}
    part = file.partition("/")[0]
    parts[part] = type(parts[part]).from_config(parts[part].config)
    parts[part].register_to_config(**{name: value})
    with pytest.raises(InvMMError, match=sentence):
        check_parts(parts)


@pytest.mark.parametrize("part", ["scheduler", "unet"])
def test_a_pipeline_without_a_part_is_refused(part: str, tiny_pipeline: DDIMPipeline) -> None:
    with pytest.raises(InvMMError, match=f"The pipeline has no {part}; load it"):
        check_parts({**tiny_pipeline.components, part: None})
    check_parts({**tiny_pipeline.components, "safety_checker": None})


def test_a_tokenizer_does_not_pad_beyond_the_places_of_clip() -> None:
    tokenizer = tiny_clip_tokenizer()
    encoder = tiny_clip_encoder(tokenizer)
    check_parts({"tokenizer_2": tokenizer, "text_encoder_2": encoder})
    for wrong in (10**9, "77"):
        tokenizer.model_max_length = wrong
        check_parts({"tokenizer": tokenizer, "text_encoder_2": encoder})
        with pytest.raises(InvMMError, match=rf"of the model's tokenizer_2 is {wrong!r}, .* has 77 places"):
            check_parts({"tokenizer_2": tokenizer, "text_encoder_2": encoder})


def test_a_tokenizer_whose_words_were_lost_is_refused(tmp_path: Path) -> None:
    """transformers loads it without them."""
    tiny_clip_tokenizer().save_pretrained(tmp_path)
    check_parts({"tokenizer": CLIPTokenizer.from_pretrained(tmp_path)})
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InvMMError, match="The model's tokenizer has no words"):
        check_parts({"tokenizer": CLIPTokenizer.from_pretrained(tmp_path)})


@pytest.mark.parametrize("content", ["[1]", "null", '{"num_train_timesteps":', "{}"])
def test_a_config_that_is_no_config_does_not_end_in_a_traceback(
    content: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / UNET).write_text(content)
    with pytest.raises(InvMMError, match="cannot be loaded"):
        load_pipeline(folder, device=torch.device("cpu"))


def test_images_of_a_model_have_at_most_the_pixels_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    check_pixels(8192, 8192)
    with pytest.raises(InvMMError, match="16,384 x 16,384 pixels"):
        check_pixels(16384, 16384)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)
    check_pixels(16384, 16384)
